//! What a failed command says, and its exit code.

use std::{
    collections::{BTreeMap, HashMap},
    process::ExitCode,
};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use unicode_width::UnicodeWidthChar as _;

use crate::text::{escape, is_unsafe};

/// Most violations that are shown.
const MAX_VIOLATIONS: usize = 20;
/// Longest text of the service that is shown, in characters.
const MAX_MESSAGE_CHARS: usize = 2000;
/// Characters of a filter that are shown on each side of what is wrong.
const CARET_CONTEXT: usize = 60;
/// Metadata that the message or the command line says already.
const SAID: [&str; 7] = [
    "field", "position", "problem", "value", "name", "what", "why",
];
/// Metadata that is shown as one line, in the words of a response.
const FRESHNESS: [&str; 4] = ["source", "stale", "staleness_bound_ms", "token"];

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The service refused the call, or did not answer.
    #[error("{}", status_text(.0))]
    Status(Box<Status>),
    /// Everything else.
    #[error("{0}")]
    Other(String),
    /// Arguments that cannot be right.
    #[error("{0}")]
    Usage(String),
}

impl From<Status> for CommandError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl CommandError {
    /// The refusal of a call with a filter or an order, with a caret under what
    /// is wrong.
    pub fn of_query(status: Status, filter: &str, order_by: &str) -> Self {
        let details = status.get_error_details();
        let info = details
            .error_info()
            .filter(|info| info.reason == "FILTER_INVALID");
        let Some(info) = info else {
            return status.into();
        };
        let value = |key: &str| info.metadata.get(key).map_or("", String::as_str);
        let (flag, text) = match value("field") {
            "order_by" => ("--order-by", order_by),
            _ => ("--filter", filter),
        };
        let position = value("position").parse().unwrap_or(0);
        let problem = escape(value("problem"));
        let caret = caret(text, position);
        Self::Other(format!(
            "{flag} is wrong at character {position}: {problem} (FILTER_INVALID)\n{caret}"
        ))
    }
}

/// The text with a caret under one of its characters, both indented.
fn caret(text: &str, position: usize) -> String {
    let chars: Vec<char> = text
        .chars()
        .map(|c| if is_unsafe(c) { '\u{fffd}' } else { c })
        .collect();
    let position = position.min(chars.len());
    let first = position.saturating_sub(CARET_CONTEXT);
    let last = (position + CARET_CONTEXT).min(chars.len());
    let begin = if first > 0 { "..." } else { "" };
    let end = if last < chars.len() { "..." } else { "" };
    let shown: String = chars[first..last].iter().collect();
    let before: usize = chars[first..position]
        .iter()
        .map(|c| c.width().unwrap_or(0))
        .sum();
    let padding = " ".repeat(2 + begin.len() + before);
    format!("  {begin}{shown}{end}\n{padding}^")
}

/// An error with all its causes: the first alone says "transport error".
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text += &format!(": {more}");
        }
        cause = error.source();
    }
    escape(&text)
}

/// Whether a failed connection may be a matter of certificates. In TLS 1.3 a
/// client learns only after the handshake that its certificate was refused, and
/// where the server's alert comes too late, only that the connection was closed.
pub fn is_of_certificates(cause: &str) -> bool {
    let cause = cause.to_lowercase();
    [
        "certificate",
        "broken pipe",
        "connection closed",
        "connection reset",
    ]
    .iter()
    .any(|word| cause.contains(word))
}

/// Whether a failed connection may be a matter of http and https: the one side speaks TLS,
/// and the other does not.
pub fn is_of_the_scheme(cause: &str) -> bool {
    // What rustls, and what the HTTP/2 client say of the other's first bytes.
    [
        "InvalidContentType",
        "frame with invalid size",
        "FRAME_SIZE_ERROR",
        "invalid preface",
    ]
    .iter()
    .any(|word| cause.contains(word))
}

/// The field of a request as the command line calls it.
fn in_words_of_the_command(field: &str) -> String {
    let flag = match field.split(['[', '.']).next().unwrap_or_default() {
        "todo" => match field.trim_start_matches("todo.") {
            "name" => "NAME",
            "due_time" => "--due",
            labels if labels.starts_with("labels") => "--label",
            "title" => "--title",
            "notes" => "--notes",
            "state" => "--state",
            "priority" => "--priority",
            "etag" => "--etag",
            _ => field,
        },
        "name" | "names" => "NAME",
        "parent" => "LIST",
        "todo_id" => "--id",
        "request_id" => "--request-id",
        "etag" => "--etag",
        "page_size" => "--page-size",
        "page_token" => "--page-token",
        "filter" => "--filter",
        "order_by" => "--order-by",
        "after" => "--after",
        "consistency" => match field.trim_start_matches("consistency.") {
            "max_staleness" => "--max-staleness",
            "at_least_as_fresh" => "--at-least-as-fresh",
            _ => "--consistency",
        },
        _ => field,
    };
    flag.to_owned()
}

/// The forms of names that the command line takes, in place of the API's.
fn with_short_names(text: &str) -> String {
    text.replace(
        "expected lists/{list}/todos/{todo}",
        "expected home/milk or lists/home/todos/milk",
    )
    .replace("expected lists/{list}", "expected home or lists/home")
    .replace(
        "pass next_page_token on as it is",
        "use the one that the page before printed",
    )
    .replace("choose another todo_id", "choose another --id")
    .replace("choose another todo_list_id", "choose another id")
    .replace(
        "send an API key or a token as \"authorization: Bearer ...\", or connect with a client certificate",
        "use --api-key-file, --token-file, or --cert and --key",
    )
}

/// How fresh the state was that an error speaks of, as `note_freshness` says it of
/// a response.
fn freshness(metadata: &HashMap<String, String>) -> Option<String> {
    let token = escape(metadata.get("token")?);
    let bound = metadata.get("staleness_bound_ms");
    let bound = bound.and_then(|bound| bound.parse::<u32>().ok());
    let (Some(source), Some(bound)) = (metadata.get("source"), bound) else {
        return Some(format!("token {token}"));
    };
    let source = escape(source.trim_start_matches("SOURCE_")).to_lowercase();
    let is_stale = metadata.get("stale").is_some_and(|stale| stale == "true");
    let stale = if is_stale { ", STALE" } else { "" };
    let seconds = f64::from(bound) / 1000.0;
    Some(format!(
        "from {source}, at most {seconds:.3}s old{stale}, token {token}"
    ))
}

fn status_text(status: &Status) -> String {
    let details = status.get_error_details();
    let Some(info) = details.error_info() else {
        return foreign_text(status);
    };
    let message: String = status.message().chars().take(MAX_MESSAGE_CHARS).collect();
    let violations: Vec<_> = details
        .bad_request()
        .map(|bad| bad.field_violations.as_slice())
        .unwrap_or_default()
        .iter()
        .take(MAX_VIOLATIONS)
        .map(|violation| {
            let field = in_words_of_the_command(&violation.field);
            let text = escape(&violation.description);
            format!("{field} {}", with_short_names(&text))
        })
        .collect();
    let (reason, text) = (escape(&info.reason), escape(&message));
    let mut text = match violations.as_slice() {
        [] => format!("{} ({reason})", with_short_names(&text)),
        [one] => format!("{one} ({reason})"),
        several => format!("wrong arguments ({reason})\n  {}", several.join("\n  ")),
    };
    if let Some(line) = freshness(&info.metadata) {
        text += &format!("\n  {line}");
    }
    let metadata: BTreeMap<_, _> = info.metadata.iter().collect();
    for (key, value) in metadata {
        // Further fields of a wrong request are violations, too.
        let is_said = key.starts_with("field_") || key.starts_with("value_");
        if FRESHNESS.contains(&key.as_str()) || is_said {
            continue;
        }
        if !SAID.contains(&key.as_str()) && !message.contains(value.as_str()) {
            text += &format!("\n  {}: {}", escape(key), escape(value));
        }
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay)
        && !delay.is_zero()
    {
        text += &format!("\n  try again in {delay:?}");
    }
    text
}

/// A status that the service did not make: the connection did, or a proxy.
fn foreign_text(status: &Status) -> String {
    if let Some(cause) = std::error::Error::source(status) {
        let cause = causes(cause);
        if cause.contains("Timeout expired") {
            return "no answer within --timeout; if this was a write, it may have taken place"
                .into();
        }
        // A peer that speaks TLS, and gets something else, may just close. A line by itself: a
        // watch that was connected before shows only the first one.
        let hint = if is_of_the_scheme(&cause) || is_of_certificates(&cause) {
            "\n  if the server speaks TLS, use https:// in --server, and see --ca, --cert and --key"
        } else {
            ""
        };
        return format!("the connection failed: {cause}{hint}");
    }
    match status.code() {
        Code::Cancelled if status.message().contains("Timeout expired") => {
            "no answer within --timeout; if this was a write, it may have taken place".into()
        }
        Code::Unimplemented => format!(
            "the server does not know this call: {}; is it tidemark, and of this version?",
            escape(status.message())
        ),
        code => format!("{} ({code:?})", escape(status.message())),
    }
}

/// The exit code, and the error on stderr: 1 failed, 2 wrong arguments.
pub fn exit(result: Result<(), CommandError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::output::note(&format!("error: {error}"));
            if matches!(error, CommandError::Usage(_)) {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, FieldProblem};

    #[test]
    fn a_caret_stands_under_what_is_wrong() {
        assert_eq!(caret("colour = RED", 0), "  colour = RED\n  ^");
        assert_eq!(caret("a = 买 OR", 6), "  a = 买 OR\n         ^");
        assert_eq!(caret("x\u{1b}y", 9), "  x\u{fffd}y\n     ^");
        let long = format!("{}!{}", "a".repeat(500), "b".repeat(500));
        let lines = caret(&long, 500);
        let (text, mark) = lines.split_once('\n').expect("two lines");
        assert_eq!(text.find('!'), mark.find('^'), "{lines}");
        assert!(text.len() < 140, "{lines}");
    }

    #[test]
    fn errors_are_said_once_in_the_words_of_the_command() {
        let problems = vec![
            FieldProblem::new("todo.title", "", "must not be empty"),
            FieldProblem::new("todo_id", "a b", "must not contain spaces"),
        ];
        let text = CommandError::from(Status::from(Error::FieldInvalid(problems))).to_string();
        assert!(text.contains("FIELD_INVALID"), "{text}");
        assert!(
            text.contains("\n  --title ") && text.contains("\n  --id "),
            "{text}"
        );
        assert!(
            !text.contains("todo_id") && text.matches("must not be empty").count() == 1,
            "{text}"
        );
        let error = Error::Overloaded {
            what: "open\u{1b} watches",
            limit: 3,
            retry_after: std::time::Duration::from_secs(1),
        };
        let text = CommandError::from(Status::from(error)).to_string();
        assert!(
            text.contains("OVERLOADED") && text.contains("try again in 1s"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
