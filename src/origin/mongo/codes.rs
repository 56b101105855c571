//! MongoDB's error codes, in one place: what each means for reads, writes, the
//! feed and the start.

use mongodb::error::{Error, ErrorKind};

use crate::origin::Cause;

/// The server's code for what went wrong.
pub(super) fn code(error: &Error) -> Option<i32> {
    match *error.kind {
        ErrorKind::Command(ref command) => Some(command.code),
        _ => None,
    }
}

/// The driver's error, with the server's code, as a cause.
pub(super) fn cause(error: Error) -> Cause {
    let code = code(&error);
    Cause::from_error(error, code)
}
