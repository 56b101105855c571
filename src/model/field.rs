//! A field of a request with a value that it must not have.

/// Most characters of an offending value that an error repeats, and most bytes
/// of them in quotes, where a character that cannot be printed takes up to ten.
const SHOWN_CHARS: usize = 80;
const SHOWN_BYTES: usize = 120;

/// A field with a value it must not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldProblem {
    /// Path of the field in the request.
    pub field: String,
    /// Its value, cut short.
    pub value: String,
    /// What is wrong with it and what would be right, as the end of a
    /// sentence that begins with the field.
    pub problem: String,
}

impl FieldProblem {
    /// A problem of one field; the value is cut short.
    #[must_use]
    pub fn new(
        field: impl Into<String>,
        value: impl AsRef<str>,
        problem: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            value: shorten(value.as_ref()),
            problem: problem.into(),
        }
    }

    /// The value, if there is one, and the problem.
    #[must_use]
    pub fn describe(&self) -> String {
        if self.value.is_empty() {
            self.problem.clone()
        } else {
            format!("{:?} {}", self.value, self.problem)
        }
    }
}

impl std::fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.field, self.describe())
    }
}

/// The part of a value from a request that an error repeats.
#[must_use]
pub fn shorten(value: &str) -> String {
    let mut bytes = 0;
    let end = value.char_indices().enumerate().find(|(nth, (_, c))| {
        bytes += c.escape_debug().map(char::len_utf8).sum::<usize>();
        *nth == SHOWN_CHARS || bytes > SHOWN_BYTES
    });
    match end {
        Some((_, (end, _))) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}
