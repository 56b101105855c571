//! The details of an error: metadata, field violations, and when to try again.

use std::{collections::HashMap, fmt::Display, time::Duration};

use tonic_types::{ErrorDetails, FieldViolation};

use super::{bounds::cut, origin_problem, reason_text, source};
use crate::{
    error::{Error, FieldProblem, Rule},
    model::{ReadInfo, Token},
    pb::ErrorReason,
};

/// Of every `ErrorInfo`.
pub(super) const DOMAIN: &str = "todo.v1";
/// Most field violations of an error, and most bytes of them: a thousand names
/// may all be wrong.
const MAX_VIOLATIONS: usize = 10;
const MAX_VIOLATION_BYTES: usize = 3 << 9;
/// Most field violations that an error's text and metadata show.
pub(super) const MAX_SHOWN_VIOLATIONS: usize = 3;
/// Longest value in an error's metadata in bytes.
const MAX_METADATA_VALUE_BYTES: usize = 256;
/// When a write is worth trying again after the disk was full: an operator has to
/// free disk space.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(5);

type Metadata = HashMap<String, String>;

/// The details of an error with this reason.
pub(super) fn details(error: &Error, reason: ErrorReason) -> ErrorDetails {
    let mut metadata = metadata(error);
    let (read, token) = freshness(error);
    metadata.extend(read.map(read_metadata).unwrap_or_default());
    if let Some(token) = token {
        metadata.insert("token".into(), token.encode());
    }
    for value in metadata.values_mut() {
        cut(value, MAX_METADATA_VALUE_BYTES);
    }
    let mut details = ErrorDetails::with_error_info(reason_text(reason), DOMAIN, metadata);
    let violations = violations(error);
    if !violations.is_empty() {
        details.set_bad_request(violations);
    }
    if let Some(after) = retry_after(error) {
        details.set_retry_info(Some(after));
    }
    details
}

fn metadata(error: &Error) -> Metadata {
    match error {
        Error::FieldInvalid(problems) => field_metadata(problems),
        Error::FilterInvalid {
            field,
            value,
            position,
            problem,
        } => values(&[
            ("field", field),
            ("value", value),
            ("position", position),
            ("problem", problem),
        ]),
        Error::PageTokenInvalid { value, problem } => values(&[
            ("field", &"page_token"),
            ("value", value),
            ("problem", problem),
        ]),
        Error::TokenInvalid {
            field,
            value,
            problem,
        } => values(&[("field", field), ("value", value), ("problem", problem)]),
        Error::TokenForeign { field, value } => values(&[("field", field), ("value", value)]),
        Error::NotFound { name, .. } | Error::AlreadyExists { name, .. } => {
            values(&[("name", name)])
        }
        Error::ListNotEmpty { list, .. } => values(&[("name", list)]),
        Error::EtagMismatch {
            name,
            given,
            current,
            ..
        } => values(&[("name", name), ("given", given), ("current", current)]),
        Error::Unreadable {
            name,
            field,
            problem,
            ..
        } => values(&[("name", name), ("field", field), ("problem", problem)]),
        Error::OriginUnavailable { cause, .. } => values(&[("problem", &origin_problem(cause))]),
        Error::WriteOutcomeUnknown { cause } => values(&[("problem", &origin_problem(cause))]),
        Error::OriginRefused { rule, .. } => values(&[("problem", rule)]),
        Error::CacheOnlyMiss { what } => values(&[("what", what)]),
        Error::Draining => Metadata::new(),
        Error::Overloaded { what, limit, .. } => values(&[("what", what), ("limit", limit)]),
        Error::MessageTooLarge { limit, .. } => values(&[("limit_bytes", limit)]),
        Error::RequestTooSlow { .. } => values(&[("tier", &"request")]),
        Error::DeadlineExceeded { tier } => values(&[("tier", tier)]),
        Error::CallerUnknown(problem) => values(&[("why", &problem.name())]),
        Error::PermissionDenied {
            permission,
            resource,
            principal,
            ..
        } => values(&[
            ("permission", permission),
            ("resource", resource),
            ("principal", principal),
        ]),
    }
}

fn values(values: &[(&str, &dyn Display)]) -> Metadata {
    let text = |(key, value): &(&str, &dyn Display)| ((*key).to_owned(), value.to_string());
    values.iter().map(text).collect()
}

/// The first fields: those that the error's text shows.
fn field_metadata(problems: &[FieldProblem]) -> Metadata {
    let mut metadata = Metadata::new();
    for (problem, number) in problems.iter().take(MAX_SHOWN_VIOLATIONS).zip(1..) {
        if number == 1 {
            metadata = values(&[
                ("field", &problem.field),
                ("value", &problem.value),
                ("problem", &problem.problem),
            ]);
        } else {
            metadata.insert(format!("field_{number}"), problem.field.clone());
            metadata.insert(format!("value_{number}"), problem.value.clone());
        }
    }
    metadata
}

/// How fresh the state is that an error reports.
fn freshness(error: &Error) -> (Option<ReadInfo>, Option<Token>) {
    match error {
        Error::NotFound { read, token, .. } => (*read, *token),
        Error::Unreadable { read, token, .. } => (read.as_deref().copied(), *token),
        Error::AlreadyExists { token, .. }
        | Error::ListNotEmpty { token, .. }
        | Error::EtagMismatch { token, .. } => (None, Some(*token)),
        Error::PermissionDenied { token, .. } => (None, *token),
        _ => (None, None),
    }
}

fn read_metadata(read: ReadInfo) -> Metadata {
    let bound =
        u64::try_from(read.staleness_bound.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    values(&[
        ("token", &read.token.encode()),
        ("source", &source(read.source).as_str_name()),
        ("staleness_bound_ms", &bound),
        ("stale", &read.stale),
    ])
}

fn violations(error: &Error) -> Vec<FieldViolation> {
    match error {
        Error::FieldInvalid(problems) => {
            let mut bytes = 0;
            let violations = problems.iter().take(MAX_VIOLATIONS);
            violations
                .map(|problem| FieldViolation::new(&problem.field, problem.describe()))
                .take_while(|violation| {
                    bytes += violation.field.len() + violation.description.len();
                    bytes <= MAX_VIOLATION_BYTES
                })
                .collect()
        }
        Error::FilterInvalid { field, problem, .. }
        | Error::TokenInvalid { field, problem, .. } => vec![FieldViolation::new(*field, problem)],
        Error::PageTokenInvalid { problem, .. } => {
            vec![FieldViolation::new("page_token", problem)]
        }
        Error::TokenForeign { field, .. } => {
            vec![FieldViolation::new(*field, "belongs to another database")]
        }
        _ => Vec::new(),
    }
}

fn retry_after(error: &Error) -> Option<Duration> {
    match error {
        Error::OriginUnavailable { retry_after, .. } | Error::Overloaded { retry_after, .. } => {
            Some(*retry_after)
        }
        Error::OriginRefused {
            rule: Rule::DiskFull,
            ..
        } => Some(FULL_RETRY_AFTER),
        Error::Draining => Some(Duration::ZERO),
        _ => None,
    }
}
