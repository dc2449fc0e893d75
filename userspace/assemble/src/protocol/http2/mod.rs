//! HTTP/2 (RFC 9113) in clear text: by prior knowledge, or after an upgrade of HTTP/1.1.
//!
//! A request ends when its answer's stream ends, not with its headers. What was said in header blocks that nobody saw
//! is not known, and left out.

mod frame;
mod hpack;
mod huffman;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use descry_decode::ids::BootNanos;

use super::http::{Field, Request, Response, add, exchange};
use super::{Chunk, Direction, Exchange, LOST, Lost, Options, Parser, RESET, UNANSWERED};
use crate::infer::{Opening, Protocol, Transport, Verdict};
use crate::span::{Status, Value};
use frame::{Block, Event, PREFACE, Side};
use hpack::Decoder;

/// HTTP/2.
pub static PROTOCOL: Protocol = Protocol {
    name: "http2",
    transports: &[Transport::Stream],
    recognize,
    carries_many: true,
    shapes: None,
    parser: |_, options| Box::new(Http2::new(options)),
};

/// Streams open at the same time. One takes up to 4 KiB.
const MAX_STREAMS: usize = 1024;

/// Names of error codes, by their numbers (section 7).
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

fn recognize(_: Transport, opening: Opening<'_>) -> Verdict {
    let seen = opening.to_server.get(..PREFACE.len()).unwrap_or(opening.to_server);
    if !seen.is_empty() && PREFACE.starts_with(seen) {
        return if seen.len() == PREFACE.len() { Verdict::Yes } else { Verdict::NotYet };
    }
    if opening.from_start {
        return if seen.is_empty() { Verdict::NotYet } else { Verdict::No };
    }
    let sides = [(Direction::ToServer, opening.to_server), (Direction::ToClient, opening.to_client)];
    let verdicts = sides.map(|(direction, bytes)| frame::begins(direction, bytes));
    if verdicts.contains(&Verdict::No) {
        Verdict::No
    } else if verdicts.contains(&Verdict::Yes) {
        Verdict::Yes
    } else {
        Verdict::NotYet
    }
}

/// One connection of HTTP/2.
#[derive(Debug)]
pub(super) struct Http2 {
    options: Options,
    client: Side,
    server: Side,
    client_table: Decoder,
    server_table: Decoder,
    streams: BTreeMap<u32, Stream>,
    /// The client's newest stream.
    newest: u32,
    lost: Lost,
}

#[derive(Debug)]
struct Stream {
    request: Request,
    start: BootNanos,
    response: Option<Response>,
    /// When answers went by unseen, the end of this one perhaps among them.
    doubt: Option<BootNanos>,
}

/// Why a stream is over.
enum Ending {
    Answered,
    /// Given up by this side, with an error code.
    Reset(Direction, u32),
    Unanswered,
}

impl Http2 {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            client: Side::client(),
            server: Side::server(),
            client_table: Decoder::default(),
            server_table: Decoder::default(),
            streams: BTreeMap::new(),
            newest: 0,
            lost: Lost::default(),
        }
    }

    /// A connection whose first request came as HTTP/1.1 and is answered on stream 1 (RFC 7540, section 3.2).
    pub(super) fn upgraded(options: &Options, request: Request, start: BootNanos) -> Self {
        let mut connection = Self::new(options);
        connection.newest = 1;
        connection.streams.insert(1, Stream { request, start, response: None, doubt: None });
        connection
    }

    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::ToServer => &mut self.client,
            Direction::ToClient => &mut self.server,
        }
    }

    fn skip(&mut self, direction: Direction, bytes: u64, time: BootNanos, out: &mut Vec<Exchange>) {
        if bytes == 0 {
            return;
        }
        let (fits, event) = self.side(direction).skip(bytes);
        if let Some(event) = event {
            self.event(direction, event, time, out);
        }
        if !fits {
            self.lose(direction, time);
        }
    }

    fn lose(&mut self, direction: Direction, time: BootNanos) {
        self.side(direction).lose();
        match direction {
            Direction::ToServer => self.client_table.lose(),
            Direction::ToClient => {
                self.server_table.lose();
                for stream in self.streams.values_mut() {
                    stream.doubt = stream.doubt.or(Some(time));
                }
            }
        }
    }

    fn event(&mut self, direction: Direction, event: Event, time: BootNanos, out: &mut Vec<Exchange>) {
        match (direction, event) {
            (_, Event::Nonsense) => {
                self.lost.malformed += 1;
                self.lose(direction, time);
            }
            (Direction::ToServer, Event::Headers(block)) => self.request(&block, time, out),
            (Direction::ToClient, Event::Headers(block)) => self.response(&block, time, out),
            (Direction::ToClient, Event::End(stream)) => self.finish(stream, Ending::Answered, time, out),
            (_, Event::Reset(stream, code)) => self.finish(stream, Ending::Reset(direction, code), time, out),
            (Direction::ToClient, Event::GoAway(last, _)) => {
                // What is above was not looked at, and will not be.
                let refused: Vec<u32> =
                    self.streams.range(last.saturating_add(1)..).map(|(id, _)| *id).collect();
                let code = CODES.iter().position(|name| *name == "REFUSED_STREAM").unwrap_or_default() as u32;
                for stream in refused {
                    self.finish(stream, Ending::Reset(direction, code), time, out);
                }
            }
            (Direction::ToServer, Event::End(_) | Event::GoAway(..)) => {}
        }
    }

    fn request(&mut self, block: &Block, time: BootNanos, out: &mut Vec<Exchange>) {
        let mut request = Request::new("2");
        let mut is_request = false;
        let result = self.client_table.decode(&block.bytes, block.is_whole, &mut |field, value| {
            is_request |= matches!(field, Field::Method | Field::Path);
            request.field(field, value);
        });
        if result == hpack::Block::Malformed {
            self.lost.malformed += 1;
        }
        // Trailers have no method; of which some fields are not known, it may be among those.
        let is_new = block.stream > self.newest && block.stream % 2 == 1;
        if !is_new || !(is_request || result != hpack::Block::Whole) {
            return;
        }
        request.complete();
        self.newest = block.stream;
        if self.streams.len() >= MAX_STREAMS
            && let Some(oldest) = self.streams.keys().next().copied()
        {
            self.lost.requests_dropped += 1;
            self.finish(oldest, Ending::Unanswered, time, out);
        }
        self.streams
            .insert(block.stream, Stream { request, start: block.start, response: None, doubt: None });
    }

    fn response(&mut self, block: &Block, time: BootNanos, out: &mut Vec<Exchange>) {
        let mut ignored = Response::default();
        let stream = self.streams.get_mut(&block.stream).filter(|_| !block.is_promise);
        let is_known = stream.is_some();
        let response = match stream {
            Some(stream) => stream.response.get_or_insert_default(),
            None => &mut ignored,
        };
        let result = self
            .server_table
            .decode(&block.bytes, block.is_whole, &mut |field, value| response.field(field, value));
        if result == hpack::Block::Malformed {
            self.lost.malformed += 1;
        }
        let is_interim = response.is_interim() && !block.is_end;
        if !is_known {
            // Of a stream that was given up, or was open before anybody looked.
            let is_unseen = block.stream > self.newest && block.stream % 2 == 1 && !block.is_promise;
            self.lost.unmatched += u64::from(is_unseen && response.status.is_some() && !is_interim);
            return;
        }
        if is_interim && let Some(stream) = self.streams.get_mut(&block.stream) {
            stream.response = None;
        }
        if block.is_end {
            self.finish(block.stream, Ending::Answered, time, out);
        }
    }

    fn finish(&mut self, stream: u32, ending: Ending, time: BootNanos, out: &mut Vec<Exchange>) {
        let Some(stream) = self.streams.remove(&stream) else { return };
        let answered = matches!(ending, Ending::Answered);
        let doubt = stream.doubt.filter(|_| matches!(ending, Ending::Unanswered));
        let times = (stream.start, doubt.unwrap_or(time));
        let mut exchange = exchange(&self.options, stream.request, stream.response.as_ref(), times, answered);
        if matches!(ending, Ending::Reset(..)) {
            add(&mut exchange.attributes, UNANSWERED, Value::Static(RESET));
        }
        if let Ending::Reset(by, code) = ending
            && code != 0
        {
            exchange.attributes.retain(|(name, _)| name != "error.type");
            let code = CODES.get(code as usize).copied().unwrap_or("UNKNOWN_ERROR");
            add(&mut exchange.attributes, "error.type", Value::Static(code));
            exchange.client_status = Status::Error(Cow::Borrowed(""));
            // A client that has lost interest is no failure of the server.
            if by == Direction::ToClient {
                exchange.server_status = Status::Error(Cow::Borrowed(""));
            }
        }
        if doubt.is_some() {
            add(&mut exchange.attributes, UNANSWERED, Value::Static(LOST));
        }
        out.push(exchange);
    }
}

impl Parser for Http2 {
    fn data(&mut self, chunk: Chunk<'_>, exchanges: &mut Vec<Exchange>) {
        let (direction, time) = (chunk.direction, chunk.time);
        self.skip(direction, chunk.gap_before, time, exchanges);
        if self.side(direction).at_chunk(direction, chunk.bytes) {
            self.lost.resynchronized += 1;
        }
        let mut rest = chunk.bytes;
        while !rest.is_empty() {
            let (taken, event) = self.side(direction).step(rest, time);
            rest = rest.get(taken..).unwrap_or_default();
            if let Some(event) = event {
                self.event(direction, event, time, exchanges);
            }
        }
        self.skip(direction, chunk.cut, time, exchanges);
    }

    fn end(&mut self, time: BootNanos, exchanges: &mut Vec<Exchange>) {
        let open: Vec<u32> = self.streams.keys().copied().collect();
        for stream in open {
            self.finish(stream, Ending::Unanswered, time, exchanges);
        }
    }

    fn is_waiting(&self) -> bool {
        !self.streams.is_empty()
    }

    fn lost(&self) -> Lost {
        self.lost
    }
}
