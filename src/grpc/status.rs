//! Turns errors into `Status`es: code, reason, text and details. `bounds.rs` limits
//! what they take on the wire.

mod bounds;
mod details;

use std::time::Duration;

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub use self::bounds::{bound_refusal, translate};
use self::{
    bounds::{bounded_text, cut},
    details::{MAX_SHOWN_VIOLATIONS, details},
};
use crate::{
    error::{Error, FieldProblem, Rule, shorten},
    model::{Resource, Source},
    pb::{self, ErrorReason},
};

/// Longest description of the database's problem in bytes. The service's own
/// descriptions are shorter; any other text is cut.
const MAX_ORIGIN_PROBLEM_BYTES: usize = 120;

/// The reason as it stands in `ErrorInfo`: without the enum's prefix.
#[must_use]
pub fn reason_text(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

/// The one conversion of an error to a status.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, reason) = code_and_reason(&error);
        let text = bounded_text(text(&error));
        Self::with_error_details(code, text, details(&error, reason))
    }
}

/// The one table of codes and reasons.
fn code_and_reason(error: &Error) -> (Code, ErrorReason) {
    use ErrorReason as Reason;

    let of_kind = |name: &Resource, todo, list| match name {
        Resource::Todo(_) => todo,
        Resource::List(_) => list,
    };
    match error {
        Error::FieldInvalid(_) => (Code::InvalidArgument, Reason::FieldInvalid),
        Error::FilterInvalid { .. } => (Code::InvalidArgument, Reason::FilterInvalid),
        Error::PageTokenInvalid { .. } => (Code::InvalidArgument, Reason::PageTokenInvalid),
        Error::TokenInvalid { .. } => (Code::InvalidArgument, Reason::TokenInvalid),
        Error::TokenForeign { .. } => (Code::InvalidArgument, Reason::TokenForeign),
        Error::NotFound { name, .. } => (
            Code::NotFound,
            of_kind(name, Reason::TodoNotFound, Reason::ListNotFound),
        ),
        Error::AlreadyExists { name, .. } => (
            Code::AlreadyExists,
            of_kind(name, Reason::TodoAlreadyExists, Reason::ListAlreadyExists),
        ),
        Error::ListNotEmpty { .. } => (Code::FailedPrecondition, Reason::ListNotEmpty),
        Error::EtagMismatch { .. } => (Code::Aborted, Reason::EtagMismatch),
        Error::Unreadable { name, .. } => (
            Code::DataLoss,
            of_kind(name, Reason::TodoUnreadable, Reason::ListUnreadable),
        ),
        Error::OriginUnavailable { .. } => (Code::Unavailable, Reason::OriginUnavailable),
        Error::OriginRefused { rule, .. } => match rule {
            Rule::Rights => (Code::PermissionDenied, Reason::OriginForbidden),
            Rule::DiskFull => (Code::ResourceExhausted, Reason::OriginFull),
            Rule::Validator | Rule::UniqueIndex { .. } | Rule::Size | Rule::Other => {
                (Code::FailedPrecondition, Reason::OriginRefused)
            }
        },
        Error::CacheOnlyMiss { .. } => (Code::Unavailable, Reason::CacheOnlyMiss),
        Error::Draining => (Code::Unavailable, Reason::Draining),
        Error::Overloaded { .. } => (Code::ResourceExhausted, Reason::Overloaded),
        Error::MessageTooLarge { .. } => (Code::ResourceExhausted, Reason::MessageTooLarge),
        Error::RequestTooSlow { .. } | Error::DeadlineExceeded { .. } => {
            (Code::DeadlineExceeded, Reason::DeadlineExceeded)
        }
        Error::CallerUnknown(_) => (Code::Unauthenticated, Reason::CallerUnknown),
        Error::PermissionDenied { .. } => (Code::PermissionDenied, Reason::PermissionDenied),
        Error::WriteOutcomeUnknown { .. } => (Code::Unknown, Reason::WriteOutcomeUnknown),
    }
}

fn text(error: &Error) -> String {
    match error {
        Error::FieldInvalid(problems) => describe_fields(problems),
        Error::OriginUnavailable { cause, .. } => {
            format!("the database cannot be reached: {}", origin_problem(cause))
        }
        Error::WriteOutcomeUnknown { cause } => format!(
            "it is not known whether the write took place: {}; read the todo with \
             fully_consistent before repeating it, or send a request_id",
            origin_problem(cause)
        ),
        error => error.to_string(),
    }
}

/// The database's problem, as callers see it.
fn origin_problem(cause: &impl std::fmt::Display) -> String {
    let mut text = cause.to_string();
    cut(&mut text, MAX_ORIGIN_PROBLEM_BYTES);
    text
}

/// The first problems, and how many more there are.
fn describe_fields(problems: &[FieldProblem]) -> String {
    let texts = problems.iter().take(MAX_SHOWN_VIOLATIONS);
    let mut text = texts
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ");
    let more = problems.len().saturating_sub(MAX_SHOWN_VIOLATIONS);
    if more > 0 {
        text += &format!("; and {more} more");
    }
    text
}

/// As the contract names it.
#[must_use]
pub const fn source(source: Source) -> pb::Source {
    match source {
        Source::Near => pb::Source::Near,
        Source::Shared => pb::Source::Shared,
        Source::Origin => pb::Source::Origin,
    }
}

/// A request over its limit of bytes.
#[must_use]
pub fn request_too_large(limit: usize) -> Status {
    Error::MessageTooLarge {
        what: "request",
        limit,
        advice: "send less at once".into(),
    }
    .into()
}

/// A request that did not come in full in time.
#[must_use]
pub fn request_too_slow(timeout: Duration) -> Status {
    Error::RequestTooSlow { timeout }.into()
}

/// A request body that is not a message of the method.
#[must_use]
pub fn malformed(problem: &str) -> Status {
    let problem = format!("is not a message of this method: {}", shorten(problem));
    Error::from(FieldProblem::new("request", "", problem)).into()
}

/// A bug of ours.
#[must_use]
pub fn internal() -> Status {
    Status::internal("this call ended in a panic; the server's log has the place")
}

/// A status as the trailers of a response whose head was sent.
pub fn trailers(status: Status) -> HeaderMap {
    let mut headers = std::mem::take(status.into_http::<()>().headers_mut());
    headers.remove(http::header::CONTENT_TYPE);
    headers
}

#[cfg(test)]
mod tests {
    use super::{details::DOMAIN, *};
    use crate::{
        error::{CallerProblem, Unavailable},
        model::{OriginId, OriginTime, ReadInfo, TodoName, Token},
    };

    #[test]
    fn each_error_has_its_code_its_reason_and_its_values() {
        let name = || TodoName::parse("lists/a/todos/b").expect("a name");
        let token = Token::at(OriginId(1), OriginTime(2));
        let read = ReadInfo {
            token,
            source: Source::Shared,
            staleness_bound: Duration::from_micros(1500),
            stale: false,
        };
        let second = Duration::from_secs(1);
        let text = || "p".to_owned();
        let cases: Vec<(Error, Code, &str, &[&str])> = vec![
            (
                FieldProblem::new("f", "v", "p").into(),
                Code::InvalidArgument,
                "FIELD_INVALID",
                &["field", "value"],
            ),
            (
                Error::FilterInvalid {
                    field: "filter",
                    value: text(),
                    position: 3,
                    problem: text(),
                },
                Code::InvalidArgument,
                "FILTER_INVALID",
                &["position", "value"],
            ),
            (
                Error::PageTokenInvalid {
                    value: text(),
                    problem: text(),
                },
                Code::InvalidArgument,
                "PAGE_TOKEN_INVALID",
                &["field", "value"],
            ),
            (
                Error::TokenInvalid {
                    field: "after",
                    value: text(),
                    problem: text(),
                },
                Code::InvalidArgument,
                "TOKEN_INVALID",
                &["value"],
            ),
            (
                Error::TokenForeign {
                    field: "after",
                    value: text(),
                },
                Code::InvalidArgument,
                "TOKEN_FOREIGN",
                &["value"],
            ),
            (
                Error::NotFound {
                    name: name().into(),
                    read: Some(read),
                    token: None,
                },
                Code::NotFound,
                "TODO_NOT_FOUND",
                &["name", "token", "source", "staleness_bound_ms"],
            ),
            (
                Error::NotFound {
                    name: name().into(),
                    read: None,
                    token: Some(token),
                },
                Code::NotFound,
                "TODO_NOT_FOUND",
                &["token"],
            ),
            (
                Error::AlreadyExists {
                    name: name().into(),
                    token,
                },
                Code::AlreadyExists,
                "TODO_ALREADY_EXISTS",
                &["token"],
            ),
            (
                Error::EtagMismatch {
                    name: name().into(),
                    given: text(),
                    current: text(),
                    token,
                },
                Code::Aborted,
                "ETAG_MISMATCH",
                &["token", "given", "current"],
            ),
            (
                Error::Unreadable {
                    name: name().into(),
                    field: text(),
                    problem: text(),
                    read: Some(read.into()),
                    token: None,
                },
                Code::DataLoss,
                "TODO_UNREADABLE",
                &["field", "problem", "token"],
            ),
            (
                Error::OriginUnavailable {
                    cause: Unavailable::NotConnected,
                    retry_after: second,
                },
                Code::Unavailable,
                "ORIGIN_UNAVAILABLE",
                &["problem"],
            ),
            (
                Error::OriginRefused {
                    rule: Rule::Validator,
                    cause: "c".into(),
                },
                Code::FailedPrecondition,
                "ORIGIN_REFUSED",
                &["problem"],
            ),
            (
                Error::OriginRefused {
                    rule: Rule::Rights,
                    cause: "c".into(),
                },
                Code::PermissionDenied,
                "ORIGIN_FORBIDDEN",
                &["problem"],
            ),
            (
                Error::OriginRefused {
                    rule: Rule::DiskFull,
                    cause: "c".into(),
                },
                Code::ResourceExhausted,
                "ORIGIN_FULL",
                &["problem"],
            ),
            (
                Error::CacheOnlyMiss { what: text() },
                Code::Unavailable,
                "CACHE_ONLY_MISS",
                &["what"],
            ),
            (Error::Draining, Code::Unavailable, "DRAINING", &[]),
            (
                Error::Overloaded {
                    what: "w",
                    limit: 5,
                    retry_after: second,
                },
                Code::ResourceExhausted,
                "OVERLOADED",
                &["what", "limit"],
            ),
            (
                Error::DeadlineExceeded { tier: "origin" },
                Code::DeadlineExceeded,
                "DEADLINE_EXCEEDED",
                &["tier"],
            ),
            (
                Error::CallerUnknown(CallerProblem::Expired),
                Code::Unauthenticated,
                "CALLER_UNKNOWN",
                &["why"],
            ),
            (
                Error::PermissionDenied {
                    permission: "todos.create",
                    resource: "lists/a".into(),
                    principal: "user:ada".into(),
                    token: None,
                },
                Code::PermissionDenied,
                "PERMISSION_DENIED",
                &["permission", "resource", "principal"],
            ),
            (
                Error::WriteOutcomeUnknown { cause: "p".into() },
                Code::Unknown,
                "WRITE_OUTCOME_UNKNOWN",
                &["problem"],
            ),
        ];
        for (error, code, reason, keys) in cases {
            let (retry, bad) = (
                matches!(
                    error,
                    Error::OriginUnavailable { .. }
                        | Error::OriginRefused {
                            rule: Rule::DiskFull,
                            ..
                        }
                        | Error::Overloaded { .. }
                        | Error::Draining
                ),
                code == Code::InvalidArgument,
            );
            let status = Status::from(error);
            let details = status.get_error_details();
            let info = details.error_info().expect("an ErrorInfo");
            assert_eq!(
                (status.code(), info.reason.as_str(), info.domain.as_str()),
                (code, reason, DOMAIN)
            );
            for key in keys {
                assert!(info.metadata.contains_key(*key), "{reason} lacks {key}");
            }
            assert_eq!(details.retry_info().is_some(), retry, "{reason}");
            assert_eq!(details.bad_request().is_some(), bad, "{reason}");
        }
        let several = ["a", "b", "c", "d"].map(|field| FieldProblem::new(field, "v", "p"));
        let status = Status::from(Error::FieldInvalid(several.to_vec()));
        let details = status.get_error_details();
        let metadata = &details.error_info().expect("there").metadata;
        let fields = ["field", "field_2", "field_3"].map(|key| metadata[key].as_str());
        assert_eq!(fields, ["a", "b", "c"], "those of the text: {status}");
        let status = Status::from(Error::NotFound {
            name: name().into(),
            read: Some(read),
            token: None,
        });
        assert_eq!(
            status
                .get_error_details()
                .error_info()
                .expect("there")
                .metadata["staleness_bound_ms"],
            "2"
        );
    }
}
