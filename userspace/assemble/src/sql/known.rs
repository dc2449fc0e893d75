//! Statements that were read before.
//!
//! Programs say the same few statements again and again, with other literals. What may be told of one depends on its tokens,
//! the literals aside: reading those and finding the rest in a table takes a quarter of the time of telling it anew.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use super::lexer::Kind;
use super::{Dialect, Statement, Tokens};

/// Statements that are kept; those that were not used for the longest are forgotten.
const MAX_KNOWN: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");
/// Bytes of a key. What has a longer one is told anew each time.
const MAX_KEY: usize = 1024;

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

struct Table {
    statements: LruCache<Box<[u8]>, Arc<Statement>>,
    /// Of the key that is looked for.
    key: Vec<u8>,
}

impl Default for Table {
    fn default() -> Self {
        Self { statements: LruCache::new(MAX_KNOWN), key: Vec::new() }
    }
}

/// The same as [`statement`](super::statement).
pub fn statement(text: &[u8], whole: bool, dialect: Dialect) -> Arc<Statement> {
    TABLE.with_borrow_mut(|table| {
        table.key.clear();
        if !write_key(&mut table.key, Tokens::of(text, whole, dialect)) {
            return Arc::new(super::statement(text, whole, dialect));
        }
        if let Some(known) = table.statements.get(&*table.key) {
            return known.clone();
        }
        let new = Arc::new(super::statement(text, whole, dialect));
        table.statements.put(table.key.as_slice().into(), new.clone());
        new
    })
}

/// Writes all that a statement depends on: its tokens, and whether some are missing; false: it is too long. Texts go with
/// their lengths, so that no two lists of tokens give the same key.
fn write_key(key: &mut Vec<u8>, mut tokens: Tokens<'_>) -> bool {
    while let Some(token) = tokens.next() {
        let (kind, text) = match token.kind {
            Kind::Word => (0, token.text),
            Kind::Quoted => (1, token.text),
            Kind::Literal => (2, ""),
            Kind::Parameter => (3, token.text),
            Kind::Sign(_) => (4, token.text),
        };
        if key.len() + text.len() > MAX_KEY {
            return false;
        }
        // It has at most MAX_KEY bytes.
        let length = (text.len() as u16).to_le_bytes();
        key.extend([kind | u8::from(token.spaced) << 7, length[0], length[1]]);
        key.extend_from_slice(text.as_bytes());
    }
    key.extend([5, tokens.whole.into(), tokens.are_all().into()]);
    true
}
