//! Bytes of a connection from an input, and what must hold for every parser of them.
//!
//! An input is records of whatever came at once:
//!
//! ```text
//! flags   bit 0  from the server        bit 1  a gap before it        bit 2  its end is cut
//! length  two bytes, the lower first, modulo 1024
//! gap     one byte, if bit 1 is set; 255: of unknown length
//! cut     one byte, if bit 2 is set
//! bytes   as many as `length` says, or as there are
//! ```

use descry_assemble::protocol::{Chunk, Direction, Exchange, Lost, Parser};
use descry_decode::ids::BootNanos;

/// Microseconds between two records: long enough for pauses to count.
const STEP: u64 = 20_000_000;

/// Reads an input.
pub fn chunks(mut input: &[u8]) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let byte = |input: &mut &[u8]| input.split_off_first().copied();
    while let Some(flags) = byte(&mut input) {
        let length = usize::from(byte(&mut input).unwrap_or(0));
        let length = (length | usize::from(byte(&mut input).unwrap_or(0)) << 8) % 1024;
        let mut extra = |bit: u8| {
            if flags & bit == 0 { 0 } else { u64::from(byte(&mut input).unwrap_or(0)) }
        };
        let (gap, cut) = (extra(2), extra(4));
        let (bytes, rest) = input.split_at(length.min(input.len()));
        input = rest;
        chunks.push(Chunk {
            direction: if flags & 1 == 0 { Direction::ToServer } else { Direction::ToClient },
            time: BootNanos((chunks.len() as u64 + 1) * STEP),
            gap_before: if gap == 255 { u64::MAX } else { gap },
            bytes,
            cut,
        });
    }
    chunks
}

fn play<'a>(mut parser: impl Parser, chunks: impl IntoIterator<Item = Chunk<'a>>) -> (Vec<Exchange>, Lost) {
    let mut exchanges = Vec::new();
    let mut last = BootNanos(0);
    for chunk in chunks {
        parser.data(chunk, &mut exchanges);
        last = chunk.time;
    }
    parser.end(last, &mut exchanges);
    (exchanges, parser.lost())
}

/// No exchange ends before it begins, there are not more of them than bytes, and no attribute comes twice.
fn check(exchanges: &[Exchange], input: &[u8]) {
    assert!(exchanges.len() <= input.len());
    for exchange in exchanges {
        assert!(exchange.start <= exchange.end, "{exchange:?}");
        assert!(!exchange.name.is_empty(), "{exchange:?}");
        for (index, (name, _)) in exchange.attributes.iter().enumerate() {
            assert!(
                exchange.attributes.iter().skip(index + 1).all(|(other, _)| other != name),
                "{exchange:?}"
            );
        }
    }
}

/// Datagrams.
pub fn datagrams<P: Parser + Default>(input: &[u8]) {
    check(&play(P::default(), chunks(input)).0, input);
}

/// A stream: if all of it is there and makes sense, portions do not matter.
pub fn stream<P: Parser + Default>(input: &[u8]) {
    let chunks = chunks(input);
    let whole = play(P::default(), chunks.iter().copied());
    check(&whole.0, input);
    let is_clean = whole.1 == Lost { unmatched: whole.1.unmatched, ..Lost::default() };
    if is_clean && chunks.iter().all(|chunk| chunk.gap_before == 0 && chunk.cut == 0) {
        let full = chunks.iter().filter(|chunk| !chunk.bytes.is_empty());
        let single =
            full.clone().flat_map(|chunk| chunk.bytes.chunks(1).map(|bytes| Chunk { bytes, ..*chunk }));
        let portions: Vec<Chunk<'_>> = single.collect();
        assert_eq!(play(P::default(), portions), play(P::default(), full.copied()));
    }
}
