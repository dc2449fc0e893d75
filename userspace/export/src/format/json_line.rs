//! JSON on one line, safe to show.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

use super::escape::is_unsafe;

/// An object as one line of JSON without its end.
pub fn line<T: Serialize>(object: &T) -> String {
    let mut bytes = Vec::with_capacity(512);
    let written = object.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, SafeText));
    // Writing to a Vec cannot fail, and every name is a text.
    debug_assert!(written.is_ok());
    String::from_utf8(bytes).unwrap_or_default()
}

/// JSON on one line whose texts hold no character that could drive a terminal: those are JSON's own escapes, so that
/// readers get them back. [`Formatter`] writes without spaces by default.
struct SafeText;

impl Formatter for SafeText {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment;
        while let Some((at, character)) = rest.char_indices().find(|(_, character)| is_unsafe(*character)) {
            let (safe, following) = rest.split_at(at);
            writer.write_all(safe.as_bytes())?;
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = following.strip_prefix(character).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}
