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

use descry_assemble::connection::{Connection, End, Origin, Role, Settings};
use descry_assemble::infer::{PROTOCOLS, Protocol, Transport};
use descry_assemble::protocol::{Chunk, Direction, Exchange, Lost, Options};
use descry_assemble::span::{Span, SpanId, TraceId};
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

fn play<'a>(
    protocol: &Protocol,
    transport: Transport,
    chunks: impl IntoIterator<Item = Chunk<'a>>,
) -> (Vec<Exchange>, Lost) {
    let mut parser = (protocol.parser)(transport, &Options::default());
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
pub fn datagrams(protocol: &Protocol, input: &[u8]) {
    check(&play(protocol, Transport::Datagram, chunks(input)).0, input);
}

/// A stream: if all of it is there and makes sense, portions do not matter. Answers to requests that nobody saw need
/// not make sense.
pub fn stream(protocol: &Protocol, input: &[u8]) {
    let chunks = chunks(input);
    let whole = play(protocol, Transport::Stream, chunks.iter().copied());
    check(&whole.0, input);
    let is_clean = whole.1 == Lost::default();
    if is_clean && chunks.iter().all(|chunk| chunk.gap_before == 0 && chunk.cut == 0) {
        let full = chunks.iter().filter(|chunk| !chunk.bytes.is_empty());
        let single =
            full.clone().flat_map(|chunk| chunk.bytes.chunks(1).map(|bytes| Chunk { bytes, ..*chunk }));
        let portions: Vec<Chunk<'_>> = single.collect();
        assert_eq!(
            play(protocol, Transport::Stream, portions),
            play(protocol, Transport::Stream, full.copied())
        );
    }
}

/// A connection of whatever protocol; the input's first byte says what is known of it:
///
/// ```text
/// bit 0  datagrams                          bit 1  the client's side
/// bit 2  seen from its start                bit 3  it is known who is the client
/// bit 4  whose spans are made turns with it  bit 5  its bytes are the plaintext of TLS
/// ```
pub fn any(input: &[u8]) {
    let Some((known, input)) = input.split_first() else { return };
    let is = |bit: u8| known & bit != 0;
    let mut connection = Connection::new(Origin {
        id: 1,
        transport: if is(1) { Transport::Datagram } else { Transport::Stream },
        role: if is(2) { Role::Client } else { Role::Server },
        client: None,
        server: None,
        is_oriented: is(8),
        role_turns: is(16),
        from_start: is(4),
        is_encrypted: is(32),
    });
    let mut spans = Vec::new();
    let mut turned = false;
    for chunk in chunks(input) {
        let direction = if turned { chunk.direction.reversed() } else { chunk.direction };
        turned ^= connection.data(Chunk { direction, ..chunk }, &settings(), None, &mut spans);
    }
    connection.end(BootNanos(u64::MAX), End::Closed(Direction::ToServer), &settings(), &mut spans);
    spans.iter().for_each(check_span);
}

/// Every protocol.
pub fn settings() -> Settings {
    Settings { options: Options::default(), protocols: PROTOCOLS.to_vec(), unix_offset: 0 }
}

/// It does not end before it begins, has a name and ids, and no attribute twice.
pub fn check_span(span: &Span) {
    assert!(span.start <= span.end && !span.name.is_empty(), "{span:?}");
    assert!(span.trace != TraceId::default() && span.span != SpanId::default(), "{span:?}");
    for (index, (name, _)) in span.attributes.iter().enumerate() {
        assert!(span.attributes.iter().skip(index + 1).all(|(other, _)| other != name), "{span:?}");
    }
}
