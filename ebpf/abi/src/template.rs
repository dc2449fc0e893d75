//! Exchanges that were seen before, told in short.
//!
//! Most connections say the same again and again: a poll of one address, `GET` of one key or another, a prepared statement
//! with other parameters. Userspace makes [`Template`]s of what it has parsed several times: the bytes of a message, and
//! which of them may differ without another meaning. A message that equals one is not sent; when its answer equals one too,
//! a single [`Exchange`] tells of both.
//!
//! A request that equals one carries no trace context, so a trace begins with it, and the kernel side can decide whether that
//! is taken: by its [`lot`], as samplers decide by the trace id. An exchange of one that is not taken is only counted, where
//! its answer equals a template too.

/// Templates at most, of requests and of answers; 1.5 KiB each. Number 0 is none.
pub const MAX_TEMPLATES: u32 = 1024;
/// Words of a message that are compared at most.
pub const TEMPLATE_WORDS: usize = 64;
/// Bytes of that.
pub const TEMPLATE_BYTES: usize = TEMPLATE_WORDS * 8;
/// Words at the beginning of a message that its key is made of at most.
pub const MAX_START_WORDS: u32 = 8;

/// [`TemplateKey::of`] of an answer: with this bit, the template of its request. Of a request it is its family.
pub const ANSWER: u32 = 1 << 31;

/// The bit of a request's number that says that its trace is not taken: whatever is done for it is not told.
pub const LEFT_OUT: u64 = 1 << 63;
/// One more than the largest [`lot`].
pub const LOTS: u64 = 1 << 56;

/// What decides whether the trace is taken that begins with this: a number that looks random, below [`LOTS`]. It becomes the
/// randomness of the trace's id (W3C Trace Context, level 2, "random trace id flag"). Of a request its number counts without
/// [`LEFT_OUT`]; of a client's request that was made for none, what [`client_lot_of`] makes of it.
#[inline(always)]
pub const fn lot(of: u64, seed: u64) -> u64 {
    // The end of MurmurHash3, of 64 bits: each bit of the number changes half of the result's.
    let mut mixed = of ^ seed;
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (mixed ^ mixed >> 33) & (LOTS - 1)
}

/// Which traces are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lots {
    /// Those whose lot is not below this; 0: all.
    pub first_taken: u64,
    /// What lots are drawn with.
    pub seed: u64,
}

/// What the lot is drawn of for a client's request that was made for no other: its connection and when it began (ns).
#[inline(always)]
pub const fn client_lot_of(connection: u64, start: u64) -> u64 {
    start ^ connection.rotate_left(40)
}

/// A protocol's number for the kernel side, with what finds its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Not 0.
    pub number: u8,
    /// Words at the beginning of a request that its key is made of.
    pub start_words: u8,
    /// Whether the meaning of a request depends on others before it.
    pub has_state: bool,
}

/// The bits of what is known of a connection's templates that are words at the beginning of a request.
pub const START_WORDS: u32 = 15;
/// The bit of that which says that exchanges may be counted.
pub const MAY_COUNT: u32 = 16;
/// The bit of that which says [`Family::has_state`]: after a request that equals no template nothing is counted until
/// userspace was asked again.
pub const HAS_STATE: u32 = 32;

/// What a template is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TemplateKey {
    /// The protocol's number, or the template of the request with [`ANSWER`].
    pub of: u32,
    /// The message's true length (bytes).
    pub len: u32,
    /// Its first words as [`fold`] makes one of them.
    pub start: u64,
}
const _: () = assert!(size_of::<TemplateKey>() == 16);

/// Templates that are found by one key at most.
pub const MAX_CHAIN: usize = 4;

/// Words that are compared at once.
pub const WORDS_AT_ONCE: usize = 4;

/// A message with holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Template {
    /// [`TemplateKey::of`]; 0: nothing equals it any more, or not yet.
    pub of: u32,
    /// [`TemplateKey::len`].
    pub len: u32,
    /// Words that are compared: more than these have no bit in the mask.
    pub words: u32,
    /// 0: no byte has to be a digit.
    pub has_digits: u32,
    /// Of a request: words at the beginning of answers that their keys are made of.
    pub answer_start: u32,
    /// The template that is asked next of those that are found by the same; 0: none.
    pub next: u32,
    /// The bit of each [`WORDS_AT_ONCE`] words of which not every byte has to be this one.
    pub open: u32,
    /// Zero.
    pub reserved: u32,
    /// What its bytes are, those in holes 0.
    pub bytes: [u64; TEMPLATE_WORDS],
    /// All bits of the bytes that have to be these.
    pub mask: [u64; TEMPLATE_WORDS],
    /// All bits of the bytes that have to be digits.
    pub digits: [u64; TEMPLATE_WORDS],
}
const _: () = assert!(size_of::<Template>() == 32 + 3 * TEMPLATE_BYTES);
const _: () = assert!(TEMPLATE_WORDS / WORDS_AT_ONCE <= u32::BITS as usize);

impl Template {
    /// One that nothing equals.
    pub const EMPTY: Self = Self {
        of: 0,
        len: 0,
        words: 0,
        has_digits: 0,
        answer_start: 0,
        next: 0,
        open: 0,
        reserved: 0,
        bytes: [0; TEMPLATE_WORDS],
        mask: [0; TEMPLATE_WORDS],
        digits: [0; TEMPLATE_WORDS],
    };
}

/// The same byte eight times.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// What of a word differs from a template's; 0: nothing.
#[inline(always)]
pub const fn differs(word: u64, bytes: u64, mask: u64) -> u64 {
    word & mask ^ bytes
}

/// What of a word that has to be digits is none; 0: nothing.
#[inline(always)]
pub const fn no_digits(word: u64, digits: u64) -> u64 {
    // A digit is 0 to 9 now; with 0x76 more than that sets the highest bit, and what had it before keeps it.
    let digit = (word ^ each(b'0')) & digits;
    (digit.wrapping_add(each(0x76) & digits) | digit) & each(0x80) & digits
}

/// Takes a word into the beginning of a key.
#[inline(always)]
pub const fn fold(start: u64, word: u64) -> u64 {
    // An odd number without a pattern (the golden ratio). Keys need not be hard to guess: what they find is compared.
    (start.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A request that equals a template, and its answer if that does too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Exchange {
    /// `EventKind::Exchange`.
    pub kind: u16,
    /// 1: the process sent the request.
    pub is_client: u16,
    /// The request's template.
    pub template: u32,
    /// The answer's template; 0: the message that follows may be one, or none came.
    pub answer: u32,
    /// Length of the answer (bytes).
    pub answer_len: u32,
    /// When the request's bytes went (ns, `CLOCK_BOOTTIME`), as [`Message::time`](crate::net::Message::time).
    pub start: u64,
    /// When those of the answer went.
    pub end: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// As in [`Opened::connection`](crate::net::Opened::connection).
    pub connection: u64,
    /// Bytes of the request's direction before it.
    pub offset: u64,
    /// Bytes of the answer's direction before that.
    pub answer_offset: u64,
    /// Execution unit that moved the request.
    pub unit: u64,
    /// Request that both belong to, 0: none known.
    pub request: u64,
}
const _: () = assert!(size_of::<Exchange>() == 80);

/// What exchanges are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CountKey {
    /// As in [`Opened::connection`](crate::net::Opened::connection).
    pub connection: u64,
    /// The template of the answer, which has a request.
    pub answer: u32,
    /// 1: each is the first of a trace.
    pub is_root: u32,
}
const _: () = assert!(size_of::<CountKey>() == 16);
/// Rows of counts, 1.3 KiB each. Exchanges that find none are told.
pub const MAX_COUNT_ROWS: u32 = 4096;

/// A request that equals a template and waits for its answer, as the kernel side remembers it with its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Waiting {
    /// Its template, and the number of the message on its connection in the upper half; 0: none waits.
    pub which: u64,
    /// As in [`Exchange`].
    pub start: u64,
    /// Process in the upper half, thread.
    pub ids: u64,
    /// As in [`Exchange`].
    pub offset: u64,
    /// As in [`Exchange`].
    pub unit: u64,
    /// As in [`Exchange`].
    pub request: u64,
}
const _: () = assert!(size_of::<Waiting>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &[u8; 8]) -> u64 {
        u64::from_ne_bytes(*text)
    }

    #[test]
    fn differences_are_seen_outside_of_holes_only() {
        let mask = u64::from_ne_bytes([0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        let bytes = word(b"ab..cdef") & mask;
        assert_eq!(differs(word(b"abxycdef"), bytes, mask), 0);
        assert_ne!(differs(word(b"abxycdeg"), bytes, mask), 0);
        assert_ne!(differs(word(b"aBxycdef"), bytes, mask), 0);
    }

    #[test]
    fn digits_are_digits_whatever_is_beside_them() {
        let digits = u64::from_ne_bytes([0, 0xff, 0xff, 0, 0xff, 0, 0, 0]);
        for byte in 0..=u8::MAX {
            for other in [0, b'0', b'9', 0xff] {
                let expected = !byte.is_ascii_digit();
                for at in [1, 2, 4] {
                    let mut text = [other, b'0', b'9', other, b'5', other, other, other];
                    text[at] = byte;
                    assert_eq!(no_digits(word(&text), digits) != 0, expected, "{text:?}");
                }
            }
        }
    }
}
