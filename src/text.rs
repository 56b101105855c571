//! Text from outside, made safe to print.

/// The text with each control character, and each character that changes the
/// direction or the lines of text, replaced by an escape such as `\n` or
/// `\u{1b}`. A todo's title can then neither move the cursor nor forge a row.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            escaped.extend(c.escape_debug());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether a terminal may act on this character instead of showing it.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Marks, embeddings, overrides and isolates of direction.
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Separators of lines and paragraphs.
            | '\u{2028}' | '\u{2029}'
            // Invisible tags, and the byte order mark.
            | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_others_kept() {
        assert_eq!(
            escape("a\u{1b}]0;title\u{7}\nb"),
            "a\\u{1b}]0;title\\u{7}\\nb"
        );
        assert_eq!(escape("\u{9b}31m\u{202e}"), "\\u{9b}31m\\u{202e}");
        assert_eq!(escape("Zoë 买牛奶 🥛 a\\n"), "Zoë 买牛奶 🥛 a\\n");
    }
}
