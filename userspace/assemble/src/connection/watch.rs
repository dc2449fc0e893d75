//! Looks for exchanges that may become templates: a request in one chunk, then its answer in another, on a connection that
//! is in the same state before and after both.

use super::circumstances;
use crate::protocol::{Chunk, Direction, Exchange, Parser};
use crate::template::{Seen, Shapes, Templates};

/// A request that waits for its answer.
#[derive(Debug, Default)]
pub(super) struct Watch(Option<(u64, Vec<u8>)>);

impl Watch {
    /// A chunk went by, and completed these exchanges. `before`: what an exchange of it depended on beside its bytes.
    pub(super) fn chunk(
        &mut self,
        chunk: Chunk<'_>,
        before: Option<u64>,
        parser: &mut dyn Parser,
        exchanges: &[Exchange],
        (shapes, templates): (&Shapes, &mut Templates),
    ) {
        let Chunk { direction, time, gap_before, bytes, cut } = chunk;
        match (direction, exchanges, self.0.take()) {
            _ if gap_before > 0 => {}
            (Direction::ToServer, [], _) if cut == 0 => self.0 = before.map(|state| (state, bytes.to_vec())),
            (Direction::ToClient, [exchange], Some((state, request))) => {
                let after = parser.rest().map(|rest| circumstances(rest, parser.meaning(&request)));
                if after == Some(state) {
                    let answer_len = cut.saturating_add(bytes.len() as u64);
                    let seen =
                        Seen { request: &request, answer: bytes, answer_len, state, exchange, now: time };
                    templates.learn(shapes, &seen);
                }
            }
            _ => {}
        }
    }

    /// What goes by now is not looked at.
    pub(super) fn pause(&mut self) {
        self.0 = None;
    }
}
