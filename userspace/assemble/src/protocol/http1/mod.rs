//! HTTP/1.0 and 1.1 (RFC 9112): requests and answers matched by their order.
//!
//! Bodies are skipped by their true lengths, so bytes that were not captured cost nothing as long as they lie inside of
//! a body. Where the place in a direction is lost, the next message is looked for where a chunk begins, and requests
//! that can no longer be matched with certainty are given without their answers.

mod head;
mod shape;
mod side;
mod websocket;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use descry_decode::ids::BootNanos;

use super::http::{Request, Response, add, exchange};
use super::http2::Http2;
use super::{Chunk, Direction, Exchange, LOST, Lost, Options, Parser, UNANSWERED};
use crate::infer::{Opening, Protocol, Transport, Verdict};
use crate::span::Value;
use head::{Body, Switch};
use side::{Found, Side};
use websocket::WebSocket;

/// HTTP/1.0 and 1.1.
pub static PROTOCOL: Protocol = Protocol {
    name: "http",
    transports: &[Transport::Stream],
    recognize,
    carries_many: false,
    shapes: Some(&shape::SHAPES),
    parser: |_, options| Box::new(Http1::new(options)),
};

/// Requests that wait for their answers at the same time. One takes up to 4 KiB.
const MAX_PENDING: usize = 256;

fn recognize(_: Transport, opening: Opening<'_>) -> Verdict {
    match (
        head::begins(Direction::ToServer, opening.to_server),
        head::begins(Direction::ToClient, opening.to_client),
    ) {
        (Verdict::No, _) | (_, Verdict::No) => Verdict::No,
        (Verdict::NotYet, Verdict::NotYet) => Verdict::NotYet,
        // A server that speaks first is no server of HTTP, but the request may be older than the capture.
        (Verdict::NotYet, Verdict::Yes) if opening.from_start => Verdict::NotYet,
        _ => Verdict::Yes,
    }
}

/// One connection of HTTP/1.
#[derive(Debug)]
struct Http1 {
    options: Options,
    client: Side,
    server: Side,
    /// Requests without their whole answers, in their order.
    pending: VecDeque<Pending>,
    mode: Mode,
    /// Whether the requests that wait are certain to be all that the next answers may belong to.
    unsure: bool,
    /// Whether there was a gap in the answers since which none began.
    answers_lost: bool,
    lost: Lost,
}

/// What the connection is used for.
#[derive(Debug)]
enum Mode {
    /// Requests and answers.
    Http,
    /// Something else, after CONNECT or an upgrade.
    Tunnel,
    /// Requests that can no longer be matched with answers: they are counted.
    Unmatched,
    /// WebSocket, as long as the request that asked for it is open.
    WebSocket(Box<WebSocket>),
    /// HTTP/2 after an upgrade.
    Http2(Box<Http2>),
}

#[derive(Debug)]
struct Pending {
    request: Request,
    switch: Switch,
    start: BootNanos,
    response: Option<Response>,
    /// When the last byte of the answer went, as far as it was seen.
    last: BootNanos,
}

impl Http1 {
    fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            client: Side::default(),
            server: Side::default(),
            pending: VecDeque::new(),
            mode: Mode::Http,
            unsure: false,
            answers_lost: false,
            lost: Lost::default(),
        }
    }

    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::ToServer => &mut self.client,
            Direction::ToClient => &mut self.server,
        }
    }

    /// Takes bytes, and says how many of them.
    fn step(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        time: BootNanos,
        out: &mut Vec<Exchange>,
    ) -> usize {
        let (taken, found) = self.side(direction).step(direction, bytes, time);
        if direction == Direction::ToClient
            && let Some(front) = self.pending.front_mut().filter(|front| front.response.is_some())
        {
            front.last = time;
        }
        match found {
            None => {}
            Some(Found::Head { bytes, whole }) => match direction {
                Direction::ToServer => self.request(&bytes, whole, time, out),
                Direction::ToClient => self.response(&bytes, whole, time, out),
            },
            Some(Found::End) if direction == Direction::ToClient => self.answered(out),
            Some(Found::End) => {}
            Some(Found::Nonsense) => {
                self.lost.malformed += 1;
                self.lose(direction, time, out);
            }
        }
        taken
    }

    /// Bytes that were not captured.
    fn skip(&mut self, direction: Direction, bytes: u64, time: BootNanos, out: &mut Vec<Exchange>) {
        if bytes == 0 {
            return;
        }
        match &mut self.mode {
            Mode::Http => {}
            Mode::Tunnel | Mode::Unmatched | Mode::Http2(_) => return,
            Mode::WebSocket(socket) => return socket.skip(direction, bytes),
        }
        let (fits, found) = self.side(direction).skip(bytes);
        match found {
            Some(Found::Head { bytes, .. }) => match direction {
                Direction::ToServer => self.request(&bytes, false, time, out),
                Direction::ToClient => self.response(&bytes, false, time, out),
            },
            Some(Found::End) if direction == Direction::ToClient => {
                if let Some(front) = self.pending.front_mut() {
                    front.last = time;
                }
                self.answered(out);
            }
            _ => {}
        }
        if !fits {
            self.lose(direction, time, out);
        }
    }

    /// The place in a direction is lost.
    fn lose(&mut self, direction: Direction, time: BootNanos, out: &mut Vec<Exchange>) {
        self.side(direction).lose();
        self.unsure = true;
        self.answers_lost |= direction == Direction::ToClient;
        if self.pending.len() > 1 {
            self.give_up(time, out);
        }
    }

    /// Which answer belongs to which request is not known any more.
    fn give_up(&mut self, time: BootNanos, out: &mut Vec<Exchange>) {
        while let Some(front) = self.pending.front_mut() {
            front.last = time;
            self.finish(false, out);
        }
        self.mode = Mode::Unmatched;
    }

    /// Gives the first request that waits.
    fn finish(&mut self, answered: bool, out: &mut Vec<Exchange>) {
        if let Some(first) = self.pending.pop_front() {
            let times = (first.start, first.last);
            out.push(exchange(&self.options, first.request, first.response.as_ref(), times, answered));
        }
    }

    fn request(&mut self, bytes: &[u8], whole: bool, time: BootNanos, out: &mut Vec<Exchange>) {
        let Some(((request, switch, body), whole)) = read(head::request, bytes, whole) else {
            self.lost.malformed += 1;
            return self.lose(Direction::ToServer, time, out);
        };
        if self.answers_lost && self.pending.len() == 1 {
            // Its answer, or the rest of it, went by in the gap: a client that does not pipeline has it.
            let seen = self.pending.front().is_some_and(|front| front.response.is_some());
            if let Some(front) = self.pending.front_mut().filter(|_| !seen) {
                front.last = time;
            }
            self.finish(seen, out);
        }
        if self.pending.len() >= MAX_PENDING {
            self.lost.requests_dropped += self.pending.len() as u64 + 1;
            self.pending.clear();
            self.mode = Mode::Unmatched;
            return;
        }
        let start = self.client.start();
        // Nearly all clients wait for an answer before they ask again, and a queue makes room for four at first.
        if self.pending.capacity() == 0 {
            self.pending.reserve_exact(1);
        }
        self.pending.push_back(Pending { request, switch, start, response: None, last: time });
        if self.unsure && self.pending.len() > 1 {
            return self.give_up(time, out);
        }
        self.client.body(body);
        if !whole {
            self.lose(Direction::ToServer, time, out);
        }
    }

    fn response(&mut self, bytes: &[u8], whole: bool, time: BootNanos, out: &mut Vec<Exchange>) {
        let Some((head, whole)) = read(head::response, bytes, whole) else {
            self.lost.malformed += 1;
            return self.lose(Direction::ToClient, time, out);
        };
        self.answers_lost = false;
        if head.response.is_interim() {
            if !whole {
                self.lose(Direction::ToClient, time, out);
            }
            return;
        }
        if self.pending.front().is_some_and(|front| front.response.is_some()) {
            // The rest of that answer went by unseen.
            self.finish(true, out);
        }
        let Some(front) = self.pending.front_mut() else {
            self.lost.unmatched += 1;
            self.server.body(head.body);
            self.server.doubt();
            if !whole {
                self.lose(Direction::ToClient, time, out);
            }
            return;
        };
        front.response = Some(head.response);
        front.last = time;
        let status = head.response.status.unwrap_or_default();
        let is_tunnel = front.request.is_method("CONNECT") && (200..300).contains(&status);
        if status == 101 || is_tunnel {
            return self.switch(time, out);
        }
        let has_body = !front.request.is_method("HEAD") && !matches!(status, 204 | 304);
        if self.server.body(if has_body { head.body } else { Body::Length(0) }) {
            self.answered(out);
        }
        if !whole {
            self.lose(Direction::ToClient, time, out);
        }
    }

    /// The answer of the first request that waits is whole.
    fn answered(&mut self, out: &mut Vec<Exchange>) {
        if self.pending.front().is_some_and(|front| front.response.is_some()) {
            self.finish(true, out);
            self.unsure &= !self.pending.is_empty();
        }
    }

    /// From here on the connection speaks something else.
    fn switch(&mut self, time: BootNanos, out: &mut Vec<Exchange>) {
        let switch = self.pending.front().map_or(Switch::None, |front| front.switch);
        self.mode = match switch {
            Switch::WebSocket => Mode::WebSocket(Box::default()),
            Switch::Http2 => {
                let Some(first) = self.pending.pop_front() else { return };
                Mode::Http2(Box::new(Http2::upgraded(&self.options, first.request, first.start)))
            }
            Switch::None => {
                if let Some(front) = self.pending.front_mut() {
                    front.last = time;
                }
                self.finish(true, out);
                Mode::Tunnel
            }
        };
    }

    /// Gives the request that became a WebSocket.
    fn close_websocket(&mut self, end: BootNanos, out: &mut Vec<Exchange>) {
        let Mode::WebSocket(socket) = std::mem::replace(&mut self.mode, Mode::Tunnel) else { return };
        if let Some(front) = self.pending.front_mut() {
            front.last = end;
        }
        let before = out.len();
        self.finish(true, out);
        if let Some(exchange) = out.get_mut(before) {
            socket.describe(&mut exchange.attributes);
        }
    }
}

/// Reads a head, or as much of it as has no more fields than are read. Says whether it was the whole.
fn read<T>(reader: fn(&[u8]) -> Option<T>, bytes: &[u8], whole: bool) -> Option<(T, bool)> {
    match reader(bytes) {
        Some(head) => Some((head, whole)),
        None => Some((reader(&head::cut(bytes)?)?, false)),
    }
}

impl Parser for Http1 {
    fn data(&mut self, chunk: Chunk<'_>, exchanges: &mut Vec<Exchange>) {
        if let Mode::Http2(http2) = &mut self.mode {
            return http2.data(chunk, exchanges);
        }
        let (direction, time) = (chunk.direction, chunk.time);
        self.skip(direction, chunk.gap_before, time, exchanges);
        if self.side(direction).at_chunk(direction, chunk.bytes) {
            self.lost.resynchronized += 1;
        }
        let mut rest = chunk.bytes;
        while !rest.is_empty() {
            match &mut self.mode {
                Mode::Http => {
                    let taken = self.step(direction, rest, time, exchanges);
                    rest = rest.get(taken.max(1)..).unwrap_or_default();
                }
                Mode::Tunnel => return,
                Mode::Unmatched => {
                    let is_request =
                        direction == Direction::ToServer && head::begins(direction, rest) == Verdict::Yes;
                    self.lost.requests_dropped += u64::from(is_request);
                    return;
                }
                Mode::WebSocket(socket) => {
                    if socket.data(direction, rest) {
                        self.close_websocket(time, exchanges);
                    }
                    rest = &[];
                }
                Mode::Http2(http2) => {
                    return http2.data(Chunk { gap_before: 0, bytes: rest, ..chunk }, exchanges);
                }
            }
        }
        self.skip(direction, chunk.cut, time, exchanges);
    }

    fn end(&mut self, time: BootNanos, exchanges: &mut Vec<Exchange>) {
        match &mut self.mode {
            Mode::Http2(http2) => return http2.end(time, exchanges),
            Mode::WebSocket(_) => self.close_websocket(time, exchanges),
            Mode::Http | Mode::Tunnel | Mode::Unmatched => {}
        }
        if self.pending.front().is_some_and(|front| front.response.is_some()) {
            // Of an answer whose place was lost the end may have been there.
            let whole = self.server.ends_with_connection() || self.server.is_lost();
            self.finish(whole, exchanges);
        }
        while let Some(front) = self.pending.front_mut() {
            front.last = time;
            let before = exchanges.len();
            self.finish(false, exchanges);
            if let Some(exchange) = exchanges.get_mut(before).filter(|_| self.answers_lost) {
                add(&mut exchange.attributes, UNANSWERED, Value::Static(LOST));
            }
        }
    }

    fn is_waiting(&self) -> bool {
        match &self.mode {
            Mode::Http => !self.pending.is_empty(),
            Mode::Http2(http2) => http2.is_waiting(),
            Mode::Tunnel | Mode::Unmatched | Mode::WebSocket(_) => false,
        }
    }

    fn rest(&self) -> Option<u64> {
        let is_plain = matches!(self.mode, Mode::Http) && self.pending.is_empty() && !self.unsure;
        (is_plain && !self.answers_lost && self.client.is_between() && self.server.is_between()).then_some(0)
    }

    fn lost(&self) -> Lost {
        match &self.mode {
            Mode::Http2(http2) => self.lost + http2.lost(),
            _ => self.lost,
        }
    }
}
