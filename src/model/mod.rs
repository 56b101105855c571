//! Plain data, known to everybody.

mod change;
mod event;
mod field;
mod key;
mod list;
mod name;
mod query;
mod read_info;
mod time;
mod todo;
mod token;
mod value;
mod write;

pub use change::{Change, ChangeKind, Touched};
pub use event::Event;
pub use field::{FieldProblem, shorten};
pub use key::{Key, KeyRef};
pub use list::{
    EVERYBODY, GROUP_PREFIX, ListPatch, ListsPage, ListsQuery, MAX_LIST_TITLE, MAX_MEMBER_BYTES,
    MAX_MEMBERS, Resource, member_problem, role_of, validate_list,
};
pub use name::{ListName, TodoName};
pub use query::{Condition, DueValue, Filter, Op, Order, PagePosition, PageQuery, SortKey};
pub use read_info::{ReadInfo, Source};
pub use time::{Mono, OriginTime};
pub use todo::{LIMITS, Patch, timestamp_from_ms, timestamp_ms, validate};
pub use token::{OriginId, Token, TokenProblem};
pub use value::{Page, Stamped, Unreadable, Value};
pub use write::{RequestId, Write, WriteDone};
