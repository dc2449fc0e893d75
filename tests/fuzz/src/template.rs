//! Exchanges of a connection, and others that equal their templates.

use descry_assemble::infer::{Protocol, Transport};
use descry_assemble::protocol::{Chunk, Direction, Options, Parser};
use descry_assemble::template::Shape;

use crate::connection::chunks;

/// Exchanges of an input that are looked at.
const MOST: usize = 4;

/// Where a request and its answer come in one chunk each, on a connection at rest, both may have other bytes where their
/// shapes say so: the parser makes the same of them, and is as it was. `of`: which bytes those may be.
pub fn stream(protocol: &Protocol, input: &[u8], of: fn(u8) -> u8) {
    let chunks = chunks(input);
    let Some(shapes) = protocol.shapes else { return };
    let mut parser = (protocol.parser)(Transport::Stream, &Options::default());
    let mut found = 0;
    let mut before = None;
    for (at, chunk) in chunks.iter().enumerate() {
        let (state, was) = (state(&mut *parser, chunk.bytes), before.take());
        let mut exchanges = Vec::new();
        parser.data(*chunk, &mut exchanges);
        let is_whole = chunk.gap_before == 0 && chunk.cut == 0;
        if chunk.direction == Direction::ToServer {
            before = state.filter(|_| is_whole && exchanges.is_empty());
            continue;
        }
        let ([exchange], Some(was)) = (exchanges.as_slice(), was) else { continue };
        let Some((earlier, [request, answer])) = pair(&chunks, at) else { continue };
        let is_plain = exchange.context.is_none() && exchange.answered && is_whole;
        if !is_plain || self::state(&mut *parser, request.bytes) != Some(was) || found >= MOST {
            continue;
        }
        let (Some(asked), Some(told)) = ((shapes.request)(request.bytes), (shapes.answer)(answer.bytes))
        else {
            continue;
        };
        found += 1;
        let seed = input.iter().fold(at as u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
        let (request_bytes, answer_bytes) =
            (other(request.bytes, &asked, seed, of), other(answer.bytes, &told, seed, of));
        let mut again = (protocol.parser)(Transport::Stream, &Options::default());
        let mut others = Vec::new();
        earlier.iter().for_each(|chunk| again.data(*chunk, &mut Vec::new()));
        again.data(Chunk { bytes: &request_bytes, ..request }, &mut others);
        again.data(Chunk { bytes: &answer_bytes, ..answer }, &mut others);
        assert_eq!(others, std::slice::from_ref(exchange));
        assert_eq!(self::state(&mut *again, &request_bytes), Some(was));
    }
}

/// What the exchange of a request depends on beside its bytes.
fn state(parser: &mut dyn Parser, request: &[u8]) -> Option<(u64, u64)> {
    parser.rest().map(|rest| (rest, parser.meaning(request)))
}

/// What came before a request, that, and its answer, the chunk `at`.
fn pair<'a, 'b>(chunks: &'b [Chunk<'a>], at: usize) -> Option<(&'b [Chunk<'a>], [Chunk<'a>; 2])> {
    let begin = at.checked_sub(1)?;
    Some((chunks.get(..begin)?, [*chunks.get(begin)?, *chunks.get(at)?]))
}

/// The same message with other bytes in its holes.
fn other(bytes: &[u8], shape: &Shape, seed: u8, of: fn(u8) -> u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut next = seed;
    let mut draw = || {
        next = next.wrapping_mul(141).wrapping_add(3);
        next
    };
    for hole in &shape.any {
        bytes.get_mut(hole.clone()).into_iter().flatten().for_each(|byte| *byte = of(draw()));
    }
    for hole in &shape.digits {
        bytes.get_mut(hole.clone()).into_iter().flatten().for_each(|byte| *byte = b'0' + draw() % 10);
    }
    bytes
}
