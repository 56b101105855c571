//! Lists as resources: the public message, its limits, how a write changes it, and
//! who may do what with it. Both origins share this.

use std::{fmt, sync::Arc};

use super::{FieldProblem, ListName, TodoName, timestamp_from_ms};
use crate::pb::{Role, TodoList};

/// Most characters of a list's title (part of the contract: see the proto).
pub const MAX_LIST_TITLE: usize = 256;
/// Most members of a list (part of the contract). With their names in full a list
/// takes at most 70 KB.
pub const MAX_MEMBERS: usize = 256;
/// Most bytes of a principal, and of the name of a group (part of the contract): the
/// length of an e-mail address, and twice that of a usual SPIFFE id.
pub const MAX_MEMBER_BYTES: usize = 256;
/// The member that matches every authenticated caller.
pub const EVERYBODY: &str = "*";
/// Begin of a member that matches the callers of a group.
pub const GROUP_PREFIX: &str = "group:";

/// The name of a todo or of a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A todo.
    Todo(TodoName),
    /// A list.
    List(ListName),
}

impl Resource {
    /// The list that it is, or that it is in: the resource that rights are given on.
    #[must_use]
    pub fn list(&self) -> ListName {
        match self {
            Self::Todo(name) => name.list(),
            Self::List(name) => name.clone(),
        }
    }

    /// What it is, in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Todo(_) => "todo",
            Self::List(_) => "list",
        }
    }
}

/// The full name.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Todo(name) => name.fmt(f),
            Self::List(name) => name.fmt(f),
        }
    }
}

impl From<TodoName> for Resource {
    fn from(name: TodoName) -> Self {
        Self::Todo(name)
    }
}

impl From<ListName> for Resource {
    fn from(name: ListName) -> Self {
        Self::List(name)
    }
}

/// A question for one page of the names of lists, in order of name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListsQuery {
    /// Only lists with one of these members; sorted, without doubles. `None`: all
    /// lists, also those that have no document and only contain todos.
    pub members: Option<Arc<[Arc<str>]>>,
    /// Most names in the page, 1 to 1000.
    pub size: u32,
    /// The page begins after this name; `None`: at the start.
    pub after: Option<ListName>,
}

/// The whole query in one line, different for different queries: what an entry of a
/// shared cache is compared with.
impl fmt::Display for ListsQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            members,
            size,
            after,
        } = self;
        write!(f, "lists?size={size}")?;
        // Quoted, since a member may contain any character.
        for member in members.iter().flat_map(|members| members.iter()) {
            write!(f, "&member={member:?}")?;
        }
        if members.is_none() {
            f.write_str("&all")?;
        }
        match after {
            Some(after) => write!(f, "&after={after}"),
            None => Ok(()),
        }
    }
}

/// Names of lists, and where the next page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListsPage {
    /// The names, in order.
    pub names: Vec<ListName>,
    /// Whether more names follow the last one.
    pub more: bool,
}

/// What an update sets: `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListPatch {
    /// New title.
    pub title: Option<String>,
    /// New members, all of them: each a name and a role.
    pub members: Option<Vec<(String, Role)>>,
}

impl ListPatch {
    /// The list with this patch applied at `now_ms`: its update time is `now`.
    #[must_use]
    pub fn apply(&self, mut list: TodoList, now_ms: i64) -> TodoList {
        if let Some(title) = &self.title {
            list.title.clone_from(title);
        }
        if let Some(members) = &self.members {
            let members = members.iter();
            list.members = members
                .map(|(member, role)| (member.clone(), (*role).into()))
                .collect();
        }
        list.update_time = Some(timestamp_from_ms(now_ms));
        list
    }
}

/// The highest role that a list gives to a caller whom these members match; `None`: it
/// gives none. A role that this version does not know gives nothing.
#[must_use]
pub fn role_of(list: &TodoList, members: &[Arc<str>]) -> Option<Role> {
    members
        .iter()
        .filter_map(|member| list.members.get(&**member))
        .filter_map(|role| Role::try_from(*role).ok())
        .filter(|role| *role != Role::Unspecified)
        .max_by_key(|role| *role as i32)
}

/// Every problem of a list's fields, by their path below `todo_list`.
#[must_use]
pub fn validate_list(list: &TodoList) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let title = list.title.chars().count();
    if title > MAX_LIST_TITLE {
        let problem = format!("has {title} characters; at most {MAX_LIST_TITLE} are allowed");
        problems.push(FieldProblem::new("todo_list.title", &list.title, problem));
    }
    if list.members.len() > MAX_MEMBERS {
        let count = list.members.len();
        let problem = format!("holds {count} members; at most {MAX_MEMBERS} are allowed");
        problems.push(FieldProblem::new("todo_list.members", "", problem));
        return problems;
    }
    let mut members: Vec<_> = list.members.iter().collect();
    members.sort_unstable();
    for (member, role) in members {
        if let Some(problem) = member_problem(member) {
            problems.push(FieldProblem::new("todo_list.members", member, problem));
        }
        if Role::try_from(*role).is_ok_and(|role| role != Role::Unspecified) {
            continue;
        }
        let field = format!("todo_list.members[{:?}]", crate::model::shorten(member));
        let problem = "is not a role: use ROLE_READER, ROLE_WRITER or ROLE_OWNER";
        problems.push(FieldProblem::new(field, role.to_string(), problem));
    }
    problems
}

/// What is wrong with a member: a principal, `group:NAME`, or `*`. The end of a sentence
/// that begins with its value; `None`: nothing.
#[must_use]
pub fn member_problem(member: &str) -> Option<&'static str> {
    let name = member.strip_prefix(GROUP_PREFIX).unwrap_or(member);
    if name.is_empty() || name.len() > MAX_MEMBER_BYTES {
        return Some(
            "is not a member: expected a principal or group:NAME with a name of 1 to 256 bytes, or * for every authenticated caller",
        );
    }
    if name.trim() != name || name.chars().any(char::is_control) {
        return Some("contains a control character, or begins or ends with white space");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(members: &[(&str, i32)]) -> TodoList {
        TodoList {
            members: members.iter().map(|(m, r)| ((*m).to_owned(), *r)).collect(),
            ..TodoList::default()
        }
    }

    #[test]
    fn the_highest_role_counts_and_an_unknown_one_gives_nothing() {
        let list = list(&[
            ("ada", 1),
            ("group:ops", 3),
            ("*", 1),
            ("eve", 9),
            ("bob", 0),
        ]);
        let role = |names: &[&str]| {
            let members: Vec<Arc<str>> = names.iter().map(|name| Arc::from(*name)).collect();
            role_of(&list, &members)
        };
        assert_eq!(role(&["ada"]), Some(Role::Reader));
        assert_eq!(role(&["ada", "group:ops"]), Some(Role::Owner));
        assert_eq!(role(&["*", "eve"]), Some(Role::Reader), "as everybody");
        assert_eq!(role(&["eve"]), None);
        assert_eq!(role(&["bob"]), None);
        assert_eq!(role(&["cyd"]), None);
    }

    #[test]
    fn each_wrong_field_is_named() {
        assert!(validate_list(&list(&[("ada", 1), ("group:ops", 2), ("*", 3)])).is_empty());
        for (member, role, word) in [
            ("", 1, "members"),
            ("group:", 1, "members"),
            ("a\nb", 1, "members"),
            ("ada", 0, "members[\"ada\"]"),
            ("ada", 4, "members[\"ada\"]"),
            (&"x".repeat(257), 1, "members"),
        ] {
            let problems = validate_list(&list(&[(member, role)]));
            assert_eq!(problems.len(), 1, "{member}");
            assert!(problems[0].field.contains(word), "{member}");
        }
        let long = TodoList {
            title: "x".repeat(257),
            ..TodoList::default()
        };
        assert_eq!(validate_list(&long)[0].field, "todo_list.title");
    }
}
