//! Templates: what the kernel side needs in order to know a message again that was parsed before.
//!
//! A protocol says of a message which of its bytes may differ without another meaning: its [`Shape`]. Several equal
//! messages become a template of the [store](Templates), with the exchange that the parser made of them. Of a message that
//! equals it the kernel side tells only that; its bytes are still here, so that a parser can go on as if it had seen them.

mod store;

use std::hash::{Hash, Hasher};
use std::ops::Range;

pub use descry_abi::template::Family;
use descry_abi::template::{
    MAX_START_WORDS, TEMPLATE_BYTES, TEMPLATE_WORDS, Template, TemplateKey, WORDS_AT_ONCE, fold,
};
use rustc_hash::FxHasher;

pub(crate) use store::Seen;
pub use store::{Change, Templates};

/// What may differ in messages that mean the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Bytes at the beginning that are compared; behind them there may be any.
    pub compared: usize,
    /// Of those, the ones that may be any.
    pub any: Vec<Range<usize>>,
    /// Those that may be any digits.
    pub digits: Vec<Range<usize>>,
}

/// How a protocol's messages are told apart in short.
#[derive(Debug)]
pub struct Shapes {
    /// Its number.
    pub family: Family,
    /// Words at the beginning of an answer that it is looked up by. What follows may have holes.
    pub answer_start: u32,
    /// Of a message that is one whole request.
    pub request: fn(&[u8]) -> Option<Shape>,
    /// Of one that is one whole answer, as far as it was captured.
    pub answer: fn(&[u8]) -> Option<Shape>,
}

/// A message as a template: what finds it, and what it is compared with.
struct Made {
    key: TemplateKey,
    template: Box<Template>,
}

impl Made {
    /// Of a message of `len` bytes, of which these were captured; none: it is too long, or its length is none for a key.
    fn new(of: u32, start_words: u32, bytes: &[u8], len: u64, shape: &Shape) -> Option<Self> {
        if shape.compared > bytes.len() || shape.compared > TEMPLATE_BYTES {
            return None;
        }
        let mut mask = [0; TEMPLATE_BYTES];
        mask.get_mut(..shape.compared)?.fill(0xff);
        let mut digits = [0; TEMPLATE_BYTES];
        for hole in shape.any.iter().chain(&shape.digits) {
            mask.get_mut(hole.clone())?.fill(0);
        }
        for hole in &shape.digits {
            digits.get_mut(hole.clone())?.fill(0xff);
        }
        let mut template = Box::new(Template::EMPTY);
        template.words = u32::try_from(shape.compared.div_ceil(8)).ok()?;
        template.has_digits = u32::from(!shape.digits.is_empty());
        let words = words(bytes).zip(words(&mask)).zip(words(&digits)).take(TEMPLATE_WORDS);
        for (at, ((word, mask), digits)) in words.enumerate() {
            *template.bytes.get_mut(at)? = word & mask;
            *template.mask.get_mut(at)? = mask;
            *template.digits.get_mut(at)? = digits;
        }
        for (at, masks) in template.mask.chunks(WORDS_AT_ONCE).enumerate() {
            template.open |= u32::from(masks.iter().any(|mask| *mask != u64::MAX)) << at;
        }
        let start = bytes.as_chunks::<8>().0.iter().take(start_words.min(MAX_START_WORDS) as usize);
        let start = start.fold(0, |start, word| fold(start, u64::from_ne_bytes(*word)));
        (template.of, template.len) = (of, u32::try_from(len).ok()?);
        Some(Self { key: TemplateKey { of, len: template.len, start }, template })
    }

    /// A number for what was seen how often. Two that differ and share it are counted together, no more.
    fn fingerprint(&self) -> u64 {
        let mut hasher = FxHasher::default();
        (self.key, self.template.bytes, self.template.mask, self.template.digits).hash(&mut hasher);
        hasher.finish()
    }
}

/// The words of a message; the last one's missing bytes are 0.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        u64::from_ne_bytes(word)
    })
}

/// Whether a message equals a template, as the kernel side finds it out.
#[cfg(test)]
fn equals(template: &Template, bytes: &[u8]) -> bool {
    use descry_abi::template::{differs, no_digits};

    let words = words(bytes).take(template.words as usize).enumerate();
    words.fold(0, |sum, (at, word)| {
        let is_open = template.open >> (at / WORDS_AT_ONCE) & 1 != 0;
        let mask = if is_open { template.mask[at] } else { u64::MAX };
        sum | differs(word, template.bytes[at], mask) | no_digits(word, template.digits[at])
    }) == 0
}

#[cfg(test)]
mod tests;
