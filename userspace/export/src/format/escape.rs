//! Text from watched programs, made safe to show.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character could drive a terminal, break a line, or change the order in which text is read: control
/// characters (C0, DEL, C1), line and paragraph separators, and Unicode's directional formatting characters (UAX 9),
/// invisible characters and the byte order mark.
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Text for one line of a terminal: unsafe characters become `\n`, `\t`, `\r` or `\u{...}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_unsafe(character) {
            // Writing to a String cannot fail.
            let _ = write!(safe, "{}", character.escape_default());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// A frame of a folded stack: as [`printable`], `;` becomes `:`, as in other tools that fold, and a blank name
/// `[unknown]`.
pub fn printable_frame(name: &str) -> Cow<'_, str> {
    if name.trim().is_empty() {
        return Cow::Borrowed("[unknown]");
    }
    let safe = printable(name);
    if safe.contains(';') { Cow::Owned(safe.replace(';', ":")) } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, printed: &str, frame: &str) {
        assert_eq!(printable(text), printed);
        assert_eq!(printable_frame(text), frame);
    }

    #[test]
    fn unsafe_characters_are_shown_as_escapes() {
        check(
            "std::vec<int>::push_back(int&&)",
            "std::vec<int>::push_back(int&&)",
            "std::vec<int>::push_back(int&&)",
        );
        check("größe 大小", "größe 大小", "größe 大小");
        check("<[u8; 8]>::len", "<[u8; 8]>::len", "<[u8: 8]>::len");
        check("a\nb\tc\r", "a\\nb\\tc\\r", "a\\nb\\tc\\r");
        check("\x1b[31mred\x07", "\\u{1b}[31mred\\u{7}", "\\u{1b}[31mred\\u{7}");
        check("\u{9b}2J\x7f", "\\u{9b}2J\\u{7f}", "\\u{9b}2J\\u{7f}");
        check("a\u{202e}gpj", "a\\u{202e}gpj", "a\\u{202e}gpj");
        check("zero\u{200b}width\u{2028}", "zero\\u{200b}width\\u{2028}", "zero\\u{200b}width\\u{2028}");
        check("", "", "[unknown]");
    }
}
