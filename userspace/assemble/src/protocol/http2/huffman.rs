//! The Huffman code of HPACK (RFC 7541, appendix B).

/// Length of each byte's code (bits); the last is the end of a string. Codes of one length are in the order of their
/// bytes, and shorter ones come first, so the lengths are the whole code.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];
const SYMBOLS: usize = 257;
/// Longest code (bits).
const LONGEST: usize = 30;
/// The symbol that ends a string; it is never sent (section 5.2).
const END: u16 = 256;

/// The code by length.
struct Code {
    /// How many symbols have a code of this length (bits).
    counts: [u32; LONGEST + 1],
    /// All symbols in the order of their codes.
    symbols: [u16; SYMBOLS],
}

const CODE: Code = code();

const fn code() -> Code {
    let mut code = Code { counts: [0; LONGEST + 1], symbols: [0; SYMBOLS] };
    let (mut length, mut at) = (1, 0);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                code.counts[length] += 1;
                code.symbols[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    code
}

/// Decodes a whole string of at most `limit` bytes. None: it breaks the rules, or is longer.
pub(super) fn decode(bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(limit.min(bytes.len() * 8 / 5));
    // The code read so far, its length, the first code of that length, and how many symbols have shorter ones.
    let (mut read, mut length, mut first, mut shorter) = (0_u32, 0_usize, 0_u32, 0_u32);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1)) {
        read = read << 1 | u32::from(bit);
        length += 1;
        first <<= 1;
        let count = *CODE.counts.get(length)?;
        if let Some(index) = read.checked_sub(first).filter(|index| *index < count) {
            let symbol = *CODE.symbols.get((shorter + index) as usize)?;
            if symbol == END || decoded.len() >= limit {
                return None;
            }
            decoded.push(symbol as u8);
            (read, length, first, shorter) = (0, 0, 0, 0);
        } else {
            first += count;
            shorter += count;
        }
    }
    // What is left over is the beginning of the longest code: ones, less than a byte of them (section 5.2).
    (length < 8 && read == (1 << length) - 1).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Option<&str>) {
        let found = decode(bytes, 64);
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{bytes:x?}");
    }

    #[test]
    fn examples_of_the_specification() {
        check(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", Some("www.example.com"));
        check(b"\xa8\xeb\x10\x64\x9c\xbf", Some("no-cache"));
        check(b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf", Some("custom-value"));
        check(b"\x64\x02", Some("302"));
        check(
            b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
            Some("Mon, 21 Oct 2013 20:13:21 GMT"),
        );
    }

    #[test]
    fn what_breaks_the_rules() {
        check(b"", Some(""));
        // Padding of zeros, of a whole byte, and the end of a string within it.
        check(b"\x00", None);
        check(b"\xff", None);
        check(b"\xff\xff\xff\xff", None);
        assert_eq!(decode(&[0; 5], 8), Some(b"00000000".to_vec()));
        assert_eq!(decode(&[0; 5], 7), None);
    }
}
