//! JSON values as YAML 1.2, in block style.

use serde_json::Value;

use crate::text::is_unsafe;

/// Words that YAML readers take for something else than text.
const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// A document, with a line break at its end.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(&mut text, value, 0),
        Value::Array(items) if !items.is_empty() => block(&mut text, value, 0),
        scalar => text += &format!("{}\n", inline(scalar)),
    }
    text
}

/// The fields of an object or the items of an array, each on its own line. The
/// first line is not indented: it may follow a `- `.
fn block(text: &mut String, value: &Value, indent: usize) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (at, (key, value)) in fields.iter().enumerate() {
                let margin = if at == 0 { "" } else { &margin };
                *text += &format!("{margin}{}:", string(key));
                nested(text, value, indent + 2);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let margin = if at == 0 { "" } else { &margin };
                *text += &format!("{margin}- ");
                if is_block(item) {
                    block(text, item, indent + 2);
                } else {
                    *text += &format!("{}\n", inline(item));
                }
            }
        }
        scalar => *text += &format!("{}\n", inline(scalar)),
    }
}

/// The value of a key.
fn nested(text: &mut String, value: &Value, indent: usize) {
    if is_block(value) {
        *text += &format!("\n{}", " ".repeat(indent));
        block(text, value, indent);
    } else {
        *text += &format!(" {}\n", inline(value));
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        other => other.to_string(),
    }
}

/// Plain where no reader can take it for anything else, else in the double
/// quotes of JSON, which are also those of YAML.
fn string(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_/. ".contains(c);
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(plain)
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        return text.to_owned();
    }
    let mut quoted = String::new();
    for c in Value::from(text).to_string().chars() {
        if is_unsafe(c) {
            quoted += &match u32::from(c) {
                code @ 0..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            };
        } else {
            quoted.push(c);
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_in_block_style() {
        let value = json!({
            "todos": [
                {"name": "lists/a/todos/1", "labels": ["x", "y: z"], "read": {}},
                {"title": "yes", "notes": "two\nlines\u{9b}", "due": "2026-01-01T00:00:00Z"},
            ],
            "n": 3, "empty": [],
        });
        let wanted = "empty: []\n\"n\": 3\ntodos:\n  - labels:\n      - x\n      - \"y: z\"\n    \
            name: lists/a/todos/1\n    read: {}\n  - due: \"2026-01-01T00:00:00Z\"\n    \
            notes: \"two\\nlines\\u009b\"\n    title: \"yes\"\n";
        assert_eq!(to_yaml(&value), wanted);
        assert_eq!(to_yaml(&json!({})), "{}\n");
    }
}
