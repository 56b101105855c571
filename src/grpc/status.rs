//! Turns errors into `Status`es, and bounds what they take on the wire.
//!
//! Clients in C-core languages drop a response whose headers are above 8 KiB.
//! An error repeats parts of the request, percent-encoded and in base64, so
//! each part of it has a limit.

use std::{collections::HashMap, time::Duration};

use http::{HeaderMap, Response};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{
    error::{Error, FieldProblem, Rule, shorten},
    model::{ReadInfo, Resource, Source, Token},
    pb::{self, ErrorReason},
};

/// Of every `ErrorInfo`.
const DOMAIN: &str = "todo.v1";
/// Longest text of an error in bytes.
const MAX_TEXT_BYTES: usize = 2 << 10;
/// The same as it is sent, percent-encoded.
const MAX_ENCODED_TEXT_BYTES: usize = 3 << 10;
/// Most bytes of an error's details: a third more in base64.
const MAX_DETAILS_BYTES: usize = 3 << 10;
/// Most bytes of all headers that an error's response has from the service, as
/// HTTP/2 counts them. It leaves 1 KiB of the clients' 8 KiB to what the
/// transport and proxies add.
const MAX_HEADER_BYTES: usize = 7 << 10;
/// What HTTP/2 counts for each header besides its name and value.
const HEADER_OVERHEAD: usize = 32;
/// Most field violations of an error, and most bytes of them: a thousand names
/// may all be wrong.
const MAX_VIOLATIONS: usize = 10;
const MAX_VIOLATION_BYTES: usize = 3 << 9;
/// Most field violations that an error's text shows.
const MAX_SHOWN_VIOLATIONS: usize = 3;
/// Longest description of what the database met, in bytes. It has a few words
/// of ours; whatever else gets here is cut.
const MAX_ORIGIN_PROBLEM_BYTES: usize = 120;
/// Longest value in an error's metadata in bytes.
const MAX_METADATA_VALUE_BYTES: usize = 256;
/// When a write is worth trying again after the disk was full: an operator has to
/// free disk space.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The reason as it stands in `ErrorInfo`: without the enum's prefix.
#[must_use]
pub fn reason_text(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

type Metadata = HashMap<String, String>;

fn metadata<const N: usize>(values: [(&str, String); N]) -> Metadata {
    values
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// The one conversion of an error to a status.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let text = match &error {
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
        };
        let (code, reason, mut details) = classify(error);
        let mut metadata = details
            .error_info()
            .map(|info| info.metadata.clone())
            .unwrap_or_default();
        for value in metadata.values_mut() {
            cut(value, MAX_METADATA_VALUE_BYTES);
        }
        details.set_error_info(reason_text(reason), DOMAIN, metadata);
        Status::with_error_details(code, bounded_text(text), details)
    }
}

/// What a caller is told of the database's condition.
fn origin_problem(cause: &impl std::fmt::Display) -> String {
    let mut text = cause.to_string();
    cut(&mut text, MAX_ORIGIN_PROBLEM_BYTES);
    text
}

/// Cuts a text to at most so many bytes, at the end of a character.
fn cut(text: &mut String, max_bytes: usize) {
    const ELLIPSIS: &str = "...";
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes - ELLIPSIS.len()));
        text.push_str(ELLIPSIS);
    }
}

/// A text that is within the limits as it is and percent-encoded.
fn bounded_text(mut text: String) -> String {
    let mut encoded = 0;
    let fits = |byte: u8| {
        let plain = byte.is_ascii_graphic() && !b"\"#%<>`?{}".contains(&byte);
        encoded += if plain { 1 } else { 3 };
        encoded <= MAX_ENCODED_TEXT_BYTES
    };
    let max = text
        .bytes()
        .take_while({
            let mut fits = fits;
            move |byte| fits(*byte)
        })
        .count();
    cut(&mut text, max.min(MAX_TEXT_BYTES));
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

/// Code, reason and details; the metadata is in an `ErrorInfo` that has no
/// reason yet.
fn classify(error: Error) -> (Code, ErrorReason, ErrorDetails) {
    let with = |values: Metadata| ErrorDetails::with_error_info("", DOMAIN, values);
    let field = |values: Metadata, field: &str, problem: &str| {
        let mut details = with(values);
        details.add_bad_request_violation(field, problem);
        details
    };
    let retry = |values: Metadata, after: Duration| {
        let mut details = with(values);
        details.set_retry_info(Some(after));
        details
    };
    match error {
        Error::FieldInvalid(problems) => (
            Code::InvalidArgument,
            ErrorReason::FieldInvalid,
            fields(problems),
        ),
        Error::FilterInvalid {
            field: name,
            value,
            position,
            problem,
        } => {
            let values = [
                ("field", name.into()),
                ("value", value),
                ("position", position.to_string()),
            ];
            let mut values = metadata(values);
            values.insert("problem".into(), problem.clone());
            (
                Code::InvalidArgument,
                ErrorReason::FilterInvalid,
                field(values, name, &problem),
            )
        }
        Error::PageTokenInvalid { value, problem } => {
            let values = metadata([
                ("field", "page_token".into()),
                ("value", value),
                ("problem", problem.clone()),
            ]);
            (
                Code::InvalidArgument,
                ErrorReason::PageTokenInvalid,
                field(values, "page_token", &problem),
            )
        }
        Error::TokenInvalid {
            field: name,
            value,
            problem,
        } => {
            let values = [
                ("field", name.into()),
                ("value", value),
                ("problem", problem.clone()),
            ];
            let values = metadata(values);
            (
                Code::InvalidArgument,
                ErrorReason::TokenInvalid,
                field(values, name, &problem),
            )
        }
        Error::TokenForeign { field: name, value } => {
            let values = metadata([("field", name.into()), ("value", value)]);
            (
                Code::InvalidArgument,
                ErrorReason::TokenForeign,
                field(values, name, "belongs to another database"),
            )
        }
        Error::NotFound { name, read, token } => {
            let mut values = metadata([("name", name.to_string())]);
            values.extend(read.map(read_metadata).unwrap_or_default());
            values.extend(token_metadata(token));
            let reason = match name {
                Resource::Todo(_) => ErrorReason::TodoNotFound,
                Resource::List(_) => ErrorReason::ListNotFound,
            };
            (Code::NotFound, reason, with(values))
        }
        Error::AlreadyExists { name, token } => {
            let mut values = metadata([("name", name.to_string())]);
            values.extend(token_metadata(Some(token)));
            let reason = match name {
                Resource::Todo(_) => ErrorReason::TodoAlreadyExists,
                Resource::List(_) => ErrorReason::ListAlreadyExists,
            };
            (Code::AlreadyExists, reason, with(values))
        }
        Error::ListNotEmpty { list, token } => {
            let mut values = metadata([("name", list.to_string())]);
            values.extend(token_metadata(Some(token)));
            (
                Code::FailedPrecondition,
                ErrorReason::ListNotEmpty,
                with(values),
            )
        }
        Error::EtagMismatch {
            name,
            given,
            current,
            token,
        } => {
            let mut values = metadata([
                ("name", name.to_string()),
                ("given", given),
                ("current", current),
            ]);
            values.extend(token_metadata(Some(token)));
            (Code::Aborted, ErrorReason::EtagMismatch, with(values))
        }
        Error::Unreadable {
            name,
            field,
            problem,
            read,
            token,
        } => {
            let mut values = metadata([
                ("name", name.to_string()),
                ("field", field),
                ("problem", problem),
            ]);
            values.extend(read.map(|read| read_metadata(*read)).unwrap_or_default());
            values.extend(token_metadata(token));
            let reason = match name {
                Resource::Todo(_) => ErrorReason::TodoUnreadable,
                Resource::List(_) => ErrorReason::ListUnreadable,
            };
            (Code::DataLoss, reason, with(values))
        }
        Error::OriginUnavailable { cause, retry_after } => {
            let values = metadata([("problem", origin_problem(&cause))]);
            (
                Code::Unavailable,
                ErrorReason::OriginUnavailable,
                retry(values, retry_after),
            )
        }
        Error::OriginRefused { rule, .. } => {
            let values = metadata([("problem", rule.to_string())]);
            match rule {
                Rule::Rights => (
                    Code::PermissionDenied,
                    ErrorReason::OriginForbidden,
                    with(values),
                ),
                Rule::DiskFull => (
                    Code::ResourceExhausted,
                    ErrorReason::OriginFull,
                    retry(values, FULL_RETRY_AFTER),
                ),
                Rule::Validator | Rule::UniqueIndex { .. } | Rule::Size | Rule::Other => (
                    Code::FailedPrecondition,
                    ErrorReason::OriginRefused,
                    with(values),
                ),
            }
        }
        Error::CacheOnlyMiss { what } => (
            Code::Unavailable,
            ErrorReason::CacheOnlyMiss,
            with(metadata([("what", what)])),
        ),
        Error::Draining => (
            Code::Unavailable,
            ErrorReason::Draining,
            retry(Metadata::new(), Duration::ZERO),
        ),
        Error::Overloaded {
            what,
            limit,
            retry_after,
        } => {
            let values = metadata([("what", what.into()), ("limit", limit.to_string())]);
            (
                Code::ResourceExhausted,
                ErrorReason::Overloaded,
                retry(values, retry_after),
            )
        }
        Error::MessageTooLarge { limit, .. } => (
            Code::ResourceExhausted,
            ErrorReason::MessageTooLarge,
            with(metadata([("limit_bytes", limit.to_string())])),
        ),
        Error::RequestTooSlow { .. } => (
            Code::DeadlineExceeded,
            ErrorReason::DeadlineExceeded,
            with(metadata([("tier", "request".into())])),
        ),
        Error::DeadlineExceeded { tier } => (
            Code::DeadlineExceeded,
            ErrorReason::DeadlineExceeded,
            with(metadata([("tier", tier.into())])),
        ),
        Error::CallerUnknown(problem) => (
            Code::Unauthenticated,
            ErrorReason::CallerUnknown,
            with(metadata([("why", problem.name().into())])),
        ),
        Error::PermissionDenied {
            permission,
            resource,
            principal,
            token,
        } => {
            let mut values = metadata([
                ("permission", permission.into()),
                ("resource", resource),
                ("principal", principal.as_ref().into()),
            ]);
            values.extend(token_metadata(token));
            (
                Code::PermissionDenied,
                ErrorReason::PermissionDenied,
                with(values),
            )
        }
        Error::WriteOutcomeUnknown { cause } => (
            Code::Unknown,
            ErrorReason::WriteOutcomeUnknown,
            with(metadata([("problem", origin_problem(&cause))])),
        ),
    }
}

fn fields(problems: Vec<FieldProblem>) -> ErrorDetails {
    let mut values = Metadata::new();
    if let Some(first) = problems.first() {
        values = metadata([
            ("field", first.field.clone()),
            ("value", first.value.clone()),
        ]);
        values.insert("problem".into(), first.problem.clone());
    }
    // What else the text shows.
    let others = problems.iter().take(MAX_SHOWN_VIOLATIONS).zip(1..).skip(1);
    for (problem, number) in others {
        values.insert(format!("field_{number}"), problem.field.clone());
        values.insert(format!("value_{number}"), problem.value.clone());
    }
    let mut details = ErrorDetails::with_error_info("", DOMAIN, values);
    let mut bytes = 0;
    let violations = problems.into_iter().take(MAX_VIOLATIONS).map(|problem| {
        let description = problem.describe();
        FieldViolation::new(problem.field, description)
    });
    let fitting = violations.take_while(|violation| {
        bytes += violation.field.len() + violation.description.len();
        bytes <= MAX_VIOLATION_BYTES
    });
    details.set_bad_request(fitting.collect::<Vec<_>>());
    details
}

fn token_metadata(token: Option<Token>) -> Metadata {
    token
        .map(|token| metadata([("token", token.encode())]))
        .unwrap_or_default()
}

fn read_metadata(read: ReadInfo) -> Metadata {
    let bound =
        u64::try_from(read.staleness_bound.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    metadata([
        ("token", read.token.encode()),
        ("source", source(read.source).as_str_name().into()),
        ("staleness_bound_ms", bound.to_string()),
        ("stale", read.stale.to_string()),
    ])
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

/// Gives an error of the framework the form that the contract states, and cuts
/// every error to a size that all clients accept. `max_request_bytes` is the
/// limit that the request was decoded with.
pub fn bound_refusal(response: Response<Body>, max_request_bytes: usize) -> Response<Body> {
    let headers = response.headers();
    let code = match headers.get(Status::GRPC_STATUS) {
        None => return response,
        Some(code) => Code::from_bytes(code.as_bytes()),
    };
    let from_framework = matches!(
        code,
        Code::OutOfRange | Code::Internal | Code::ResourceExhausted
    ) && !headers.contains_key(Status::GRPC_STATUS_DETAILS);
    if !from_framework && header_bytes(headers) <= MAX_HEADER_BYTES {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else {
        return response;
    };
    let status = if from_framework {
        translate(status, max_request_bytes)
    } else {
        status
    };
    bounded(status).into_http()
}

/// What the framework said of a request that it could not decode, in the terms
/// of the contract.
pub fn translate(status: Status, max_request_bytes: usize) -> Status {
    let text = status.message();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match status.code() {
        Code::OutOfRange => request_too_large(max_request_bytes),
        // Within the limit as sent, above it once decompressed.
        Code::ResourceExhausted if says(&["decompress"]) => request_too_large(max_request_bytes),
        Code::Internal if says(&["decod", "Protobuf", "compress", "request message"]) => {
            malformed(text)
        }
        _ => status,
    }
}

/// The same status without what does not fit.
fn bounded(status: Status) -> Status {
    let text = bounded_text(status.message().to_owned());
    if status.details().len() <= MAX_DETAILS_BYTES {
        Status::with_details(status.code(), text, status.details().to_vec().into())
    } else {
        Status::new(status.code(), text)
    }
}

/// The size of headers as HTTP/2 counts it.
fn header_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::{CallerProblem, Unavailable},
        model::{OriginId, OriginTime, TodoName},
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
