//! What would be right in a field of a request whose value has no place there.

use prost_reflect::{EnumDescriptor, Kind, MessageDescriptor};
use serde_path_to_error::{Path, Segment};

use super::check::field;

/// Most values of an enum that an error names.
const MAX_NAMED_VALUES: usize = 20;

/// The values that the field at this path takes, in words that follow "use"; `None`: the
/// parser's text says it already.
pub fn expected(message: &MessageDescriptor, path: &Path) -> Option<String> {
    let mut kind = Kind::Message(message.clone());
    for segment in path.iter() {
        kind = match (segment, &kind) {
            // An element of a list: a list has the kind of its elements.
            (Segment::Seq { .. }, _) => kind,
            (Segment::Map { .. }, Kind::Message(entry)) if entry.is_map_entry() => {
                entry.map_entry_value_field().kind()
            }
            (Segment::Map { key }, Kind::Message(message)) => field(message, key)?.kind(),
            _ => return None,
        };
    }
    match kind {
        Kind::Enum(values) => Some(names(&values)),
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => {
                Some("a text such as \"2026-12-01T18:00:00Z\"".to_owned())
            }
            "google.protobuf.Duration" => {
                Some("a text of seconds such as \"5s\" or \"0.25s\"".to_owned())
            }
            "google.protobuf.FieldMask" => {
                Some("a text of fields such as \"title,dueTime\"".to_owned())
            }
            _ => None,
        },
        _ => None,
    }
}

/// `A, B or C`. Not the value that stands for a missing one.
fn names(values: &EnumDescriptor) -> String {
    let mut names: Vec<_> = values
        .values()
        .map(|value| value.name().to_owned())
        .filter(|name| !name.ends_with("_UNSPECIFIED"))
        .take(MAX_NAMED_VALUES)
        .collect();
    let last = names.pop().unwrap_or_default();
    if names.is_empty() {
        return last;
    }
    format!("{} or {last}", names.join(", "))
}
