//! MongoDB's error codes, in one table: what each means for a write, for the
//! feed, for a read and at start. Everything else in this folder asks here.
//!
//! The numbers are those of the server's `error_codes.yml`; they never change
//! their meaning between versions. A code that is not listed gets the safe
//! reading of its group, which each function names.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use mongodb::error::{Error, ErrorKind, WriteFailure};

use crate::{
    origin::{Cause, FeedError, Rule},
    telemetry,
};

/// Least time between two log lines with errors of the driver.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// The time asked for is ahead of the server.
pub(super) const INVALID_OPTIONS: i32 = 72;
/// No snapshot yet, right after DDL.
const SNAPSHOT_UNAVAILABLE: i32 = 246;
/// The snapshot has been forgotten.
const SNAPSHOT_TOO_OLD: i32 = 239;
const DUPLICATE_KEY: [i32; 3] = [11000, 11001, 12582];
const VALIDATION_FAILED: i32 = 121;
/// Unauthorized; what Atlas says for the same.
const NO_RIGHTS: [i32; 2] = [13, 8000];
/// The login failed: no such user, wrong password, no such mechanism.
const LOGIN_FAILED: [i32; 3] = [11, 18, 334];
/// An index of the same keys or of the same name exists already.
const INDEX_EXISTS: [i32; 3] = [68, 85, 86];
/// The command does not exist there: some managed services leave it out.
const NO_SUCH_COMMAND: [i32; 2] = [59, 115];
/// The aggregation stage does not exist there.
const NO_SUCH_STAGE: [i32; 2] = [16436, 40324];
const DISK_FULL: [i32; 1] = [14031];
/// BSONObjectTooLarge, and what reading or writing such an object meets.
const TOO_LARGE: [i32; 4] = [10334, 17280, 17419, 17420];
/// Nothing was written, and the same statement may go through in a moment:
/// LockTimeout, LockBusy, LockFailed, ConflictingOperationInProgress,
/// WriteConflict, TooManyLocks, KeyNotFound, DatabaseDropPending,
/// SnapshotTooOld, SnapshotUnavailable, TransactionTooOld, NoSuchTransaction,
/// PreparedTransactionInProgress, ObjectIsBusy,
/// BackgroundOperationInProgressForNamespace, TemporarilyUnavailable,
/// IngressRequestRateLimitExceeded; and what services that speak MongoDB's protocol
/// say to too many requests.
const RETRY_WRITE: [i32; 18] = [
    24,
    46,
    107,
    117,
    112,
    208,
    211,
    215,
    SNAPSHOT_TOO_OLD,
    SNAPSHOT_UNAVAILABLE,
    225,
    251,
    267,
    314,
    12587,
    365,
    462,
    16500,
];
/// The server is not the primary (any more), shuts down, lost its connection to
/// others or interrupted the command. Says nothing of what was done before.
const STATE_CHANGE: [i32; 18] = [
    6, 7, 50, 89, 91, 189, 202, 262, 9001, 10058, 10107, 11600, 11601, 11602, 13435, 13436, 133,
    290,
];
/// WriteConcernFailed, UnknownReplWriteConcern, UnsatisfiableWriteConcern: the
/// write was done on the primary, and no majority confirmed it.
const UNCONFIRMED: [i32; 3] = [64, 79, 100];
/// The read failed, and a retry may succeed: the server is not the primary, shuts
/// down, has lost connections, or the plan, cursor or key it used is gone. Those of the
/// driver's retryable reads, and what a read meets while collections change.
const RETRY_READ: [i32; 18] = [
    6, 7, 43, 89, 91, 112, 134, 175, 189, 202, 211, 237, 9001, 10107, 11600, 11602, 13435, 13436,
];
/// The stream's cursor is gone, or its server is being reconfigured; another
/// one resumes at the same position. (`STATE_CHANGE` beside these.)
const RESUME_FEED: [i32; 8] = [43, 63, 150, 175, 234, 237, 238, 13388];
/// InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost,
/// CappedPositionLost, and the resume token not found in the oplog.
const HISTORY_LOST: [i32; 5] = [136, 260, 280, 286, 40576];
/// Change streams are not there: a standalone server, or an operator's switch.
const NO_CHANGE_STREAMS: [i32; 2] = [40573, 40324];

/// The server wrote nothing. Where the driver tried twice it reports an error
/// with this label only if the first try wrote nothing either.
const NO_WRITES: &str = "NoWritesPerformed";
/// A commit may have taken place, even if its last try failed.
const UNKNOWN_COMMIT: &str = "UnknownTransactionCommitResult";
/// The transaction was aborted; the same one may go through.
const TRANSIENT: &str = "TransientTransactionError";

/// The server's code for what went wrong.
pub(super) fn code(error: &Error) -> Option<i32> {
    match *error.kind {
        ErrorKind::Command(ref command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(ref write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(ref concern)) => Some(concern.code),
        _ => None,
    }
}

/// The driver's error, with the server's code, as a cause. Its text is for
/// callers, too: a few words of ours, without hosts, set names or documents. The
/// driver's text goes to the log, and the source has all.
pub(super) fn cause(error: Error) -> Cause {
    let code = code(&error);
    report(&error);
    let text = match *error.kind {
        ErrorKind::ServerSelection { .. } => "no primary of the replica set can be reached".into(),
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => {
            "the connection to MongoDB failed".into()
        }
        ErrorKind::DnsResolve { .. } => "the name of the database's host has no address".into(),
        ErrorKind::Authentication { .. } => "MongoDB refused the service's login".into(),
        ErrorKind::InvalidTlsConfig { .. } => "the TLS settings for MongoDB are wrong".into(),
        ErrorKind::Command(ref command) => {
            format!(
                "MongoDB reports error {} {}",
                command.code, command.code_name
            )
        }
        _ => code.map_or_else(
            || "MongoDB's driver reports an error".into(),
            |code| format!("MongoDB reports error {code}"),
        ),
    };
    Cause::from_error(error, code).with_text(text)
}

/// Logs what the driver reports, at most once in `REPORT_INTERVAL`: when the
/// database is gone, every read meets the same.
fn report(error: &Error) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let now = Instant::now();
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|last| now - last < REPORT_INTERVAL) {
        return;
    }
    *last = Some(now);
    drop(last);
    let trace_id = telemetry::trace_id();
    tracing::warn!(%error, trace_id, "MongoDB's driver reports an error");
}

/// What went wrong, in one line, without the server's whole reply.
pub(super) fn text(error: &Error) -> String {
    match *error.kind {
        ErrorKind::Command(ref command) => {
            let (code, name) = (command.code, &command.code_name);
            format!("{} (error {code} {name})", without_values(&command.message))
        }
        ErrorKind::Write(WriteFailure::WriteError(ref write)) => {
            format!("{} (error {})", without_values(&write.message), write.code)
        }
        ref kind => kind.to_string(),
    }
}

/// A message of the server without the values of a document in it.
fn without_values(message: &str) -> &str {
    message
        .split_once(" dup key: ")
        .map_or(message, |(before, _)| before)
}

/// What an error of a write says of its effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WriteEffect {
    /// A document of this name exists.
    Exists,
    /// A rule of the operator does not allow it: nothing was written.
    Refused(Rule),
    /// Nothing was written; the same write may go through at once.
    Retry,
    /// Nothing was written; the same write may go through later.
    NotWritten,
    /// It was written on the primary and not confirmed by the majority.
    Unconfirmed,
    /// Nobody can say.
    Unknown,
}

/// What this error of a write says of its effect. `sent`: a command that
/// writes has left this process. An unlisted code of the server is a refusal:
/// a statement on one document that ends in an error has written nothing.
pub(super) fn write_effect(error: &Error, sent: bool) -> WriteEffect {
    if error.contains_label(UNKNOWN_COMMIT) {
        return WriteEffect::Unknown;
    }
    if error.contains_label(TRANSIENT) {
        return WriteEffect::Retry;
    }
    let failed_concern = matches!(
        *error.kind,
        ErrorKind::Write(WriteFailure::WriteConcernError(_))
    );
    if failed_concern || code(error).is_some_and(|code| UNCONFIRMED.contains(&code)) {
        return WriteEffect::Unconfirmed;
    }
    let unsent = !sent
        || matches!(
            *error.kind,
            ErrorKind::ServerSelection { .. }
                | ErrorKind::Authentication { .. }
                | ErrorKind::DnsResolve { .. }
        );
    match code(error) {
        Some(code) if STATE_CHANGE.contains(&code) => {
            if unsent || error.contains_label(NO_WRITES) {
                WriteEffect::NotWritten
            } else {
                WriteEffect::Unknown
            }
        }
        Some(code) => write_code(code, &message(error)),
        None if unsent => WriteEffect::NotWritten,
        None => WriteEffect::Unknown,
    }
}

/// What this code says of the one statement that it was given for.
pub(super) fn write_code(code: i32, message: &str) -> WriteEffect {
    if DUPLICATE_KEY.contains(&code) {
        return match duplicate_index(message) {
            Some("_id_") => WriteEffect::Exists,
            index => WriteEffect::Refused(Rule::UniqueIndex {
                index: index.unwrap_or_default().to_owned(),
            }),
        };
    }
    if RETRY_WRITE.contains(&code) {
        return WriteEffect::Retry;
    }
    WriteEffect::Refused(match code {
        VALIDATION_FAILED => Rule::Validator,
        code if NO_RIGHTS.contains(&code) => Rule::Rights,
        code if TOO_LARGE.contains(&code) => Rule::Size,
        code if DISK_FULL.contains(&code) => Rule::DiskFull,
        _ => Rule::Other,
    })
}

/// The name of the index in `E11000 duplicate key error collection: db.todos
/// index: NAME dup key: { ... }`. The driver drops the reply's `keyPattern`.
fn duplicate_index(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once(" index: ")?;
    let end = rest
        .find(" collation: {")
        .or_else(|| rest.find(" dup key"))?;
    rest.get(..end)
}

fn message(error: &Error) -> String {
    match *error.kind {
        ErrorKind::Command(ref command) => command.message.clone(),
        ErrorKind::Write(WriteFailure::WriteError(ref write)) => write.message.clone(),
        _ => String::new(),
    }
}

/// Where the feed resumes after this error. A code that is not listed may be
/// one that comes back at each try: the follower counts those.
pub(super) fn feed_error(error: Error) -> FeedError {
    let decode = matches!(*error.kind, ErrorKind::InvalidResponse { .. })
        || matches!(*error.kind, ErrorKind::BsonDeserialization(_));
    let login = matches!(*error.kind, ErrorKind::Authentication { .. });
    let code = code(&error);
    let has = |codes: &[i32]| code.is_some_and(|code| codes.contains(&code));
    let cause = cause(error);
    if has(&HISTORY_LOST) {
        FeedError::HistoryLost(cause)
    } else if login || has(&NO_RIGHTS) || has(&LOGIN_FAILED) || has(&NO_CHANGE_STREAMS) {
        FeedError::Fatal(cause)
    } else if code.is_none() && !decode || has(&RESUME_FEED) || has(&STATE_CHANGE) {
        FeedError::Broken(cause)
    } else {
        FeedError::Unreadable(cause)
    }
}

/// Whether a read at any later time may find what this one did not: it is
/// done again, from the beginning.
pub(super) fn is_stale_snapshot(error: &Error) -> bool {
    is_stale_snapshot_code(code(error))
}

/// The same for the code of a cause.
pub(super) fn is_stale_snapshot_code(code: Option<i32>) -> bool {
    [Some(SNAPSHOT_TOO_OLD), Some(SNAPSHOT_UNAVAILABLE)].contains(&code)
}

/// Whether a read that met this is done once more at once: the connection was lost, or
/// the server asks for another try. The driver does this for its own reads, and not for
/// commands.
pub(super) fn is_retryable_read(error: &Error) -> bool {
    match *error.kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => true,
        _ => code(error).is_some_and(|code| RETRY_READ.contains(&code)),
    }
}

/// Whether waiting does not help a start that met this.
pub(super) fn is_permanent(error: &Error) -> bool {
    let by_code = |code| NO_RIGHTS.contains(&code) || LOGIN_FAILED.contains(&code);
    match *error.kind {
        ErrorKind::InvalidArgument { .. }
        | ErrorKind::InvalidTlsConfig { .. }
        | ErrorKind::Authentication { .. } => true,
        _ => code(error).is_some_and(by_code),
    }
}

/// Whether the server refused the command for want of a right.
pub(super) fn is_forbidden(error: &Error) -> bool {
    code(error).is_some_and(|code| NO_RIGHTS.contains(&code))
}

/// Whether the server will refuse this command again: for want of a right, or because it
/// has no such command or stage.
pub(super) fn is_refused_for_good(error: &Error) -> bool {
    let unknown_stage = code(error).is_some_and(|code| NO_SUCH_STAGE.contains(&code));
    is_forbidden(error) || is_unknown_command(error) || unknown_stage
}

/// Whether an index of these keys or of this name exists with other options.
pub(super) fn is_index_conflict(error: &Error) -> bool {
    code(error).is_some_and(|code| INDEX_EXISTS.contains(&code))
}

/// Whether the oplog no longer reaches back to where a stream was to begin.
pub(super) fn is_history_lost(error: &Error) -> bool {
    code(error).is_some_and(|code| HISTORY_LOST.contains(&code))
}

/// Whether the server does not know the command.
pub(super) fn is_unknown_command(error: &Error) -> bool {
    code(error).is_some_and(|code| NO_SUCH_COMMAND.contains(&code))
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn command(code: i32, message: &str) -> Error {
        let reply = doc! { "code": code, "codeName": "", "errmsg": message };
        Error::from(ErrorKind::Command(
            bson::deserialize_from_document(reply).expect("an error"),
        ))
    }

    /// The driver tries a write twice and reports what the second try met. That
    /// one found no primary; the first may have written.
    #[test]
    fn no_primary_at_the_second_try_says_nothing_of_the_first() {
        let error = command(10107, "not primary");
        assert_eq!(write_effect(&error, true), WriteEffect::Unknown);
        assert_eq!(write_effect(&error, false), WriteEffect::NotWritten);
    }

    #[test]
    fn a_code_of_the_server_says_what_became_of_the_write() {
        let refused = WriteEffect::Refused;
        let unique = |index: &str| {
            refused(Rule::UniqueIndex {
                index: index.to_owned(),
            })
        };
        let duplicate = "E11000 duplicate key error collection: d.todos index: ";
        let cases = [
            (121, "", refused(Rule::Validator)),
            (13, "", refused(Rule::Rights)),
            (14031, "", refused(Rule::DiskFull)),
            (10334, "", refused(Rule::Size)),
            (112, "", WriteEffect::Retry),
            (365, "", WriteEffect::Retry),
            (371, "", refused(Rule::Other)),
            (16500, "", WriteEffect::Retry),
            (64, "", WriteEffect::Unconfirmed),
            (100, "", WriteEffect::Unconfirmed),
            (202, "", WriteEffect::Unknown),
            (11000, "_id_ dup key: { _id: \"a\" }", WriteEffect::Exists),
            (11000, "my index dup key: { title: 1 }", unique("my index")),
            (
                11000,
                "t collation: { locale: \"de\" } dup key: { t: 1 }",
                unique("t"),
            ),
        ];
        for (code, message, effect) in cases {
            let error = command(code, &format!("{duplicate}{message}"));
            assert_eq!(write_effect(&error, true), effect, "{code}");
        }
        assert_eq!(write_code(11000, "?"), unique(""));
    }

    #[test]
    fn a_read_is_repeated_after_what_another_try_does_not_meet() {
        for code in [6, 91, 112, 189, 10107, 13435] {
            assert!(is_retryable_read(&command(code, "")), "{code}");
        }
        for code in [13, 50, 72, 246, 10334] {
            assert!(!is_retryable_read(&command(code, "")), "{code}");
        }
        assert!(is_retryable_read(&std::io::Error::other("reset").into()));
    }

    #[test]
    fn a_feed_error_says_where_to_go_on() {
        use FeedError::{Broken, Fatal, HistoryLost, Unreadable};
        let kind = |code| feed_error(command(code, ""));
        for code in [43, 189, 10107, 11600, 13435] {
            assert!(matches!(kind(code), Broken(_)), "{code}");
        }
        for code in [10334, 1, 8] {
            assert!(matches!(kind(code), Unreadable(_)), "{code}");
        }
        for code in [280, 286, 260] {
            assert!(matches!(kind(code), HistoryLost(_)), "{code}");
        }
        assert!(matches!(kind(13), Fatal(_)));
        assert_eq!(
            match kind(10334) {
                Unreadable(cause) => cause.code(),
                _ => None,
            },
            Some(10334)
        );
        let io = Error::from(std::io::Error::other("reset"));
        assert!(matches!(feed_error(io), Broken(_)));
    }
}
