//! What HTTP/1 and HTTP/2 have in common: the fields that are read, and requests with their answers as exchanges.

mod exchange;
mod field;
mod query;

pub(super) use exchange::{Request, Response, add, exchange};
pub(super) use field::Field;

/// Longest text of a request that is kept (bytes): a path, an authority.
const MAX_TEXT: usize = 1024;

/// A text of a request as far as it is kept.
pub(super) fn text(bytes: &[u8]) -> Box<str> {
    let kept = bytes.get(..MAX_TEXT).unwrap_or(bytes);
    String::from_utf8_lossy(kept).into()
}
