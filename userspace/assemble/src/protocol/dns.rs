//! DNS over UDP and TCP (RFC 1035, RFC 7766).
//!
//! One exchange a question, from its first sending to its answer: a question that is sent again with the same id is
//! the same one. Answers are matched by id and question, so ids may come again, and answers in any order. Attributes:
//! `dns.question.name` and `dns.answers` of the semantic conventions; `dns.question.type` and `dns.response_code`,
//! which the conventions lack, by the names of the Elastic Common Schema. `error.type` is the name of the response
//! code (RFC 6895, section 2.3). Of a zone transfer only the first message is its answer.

mod message;

use std::borrow::Cow;
use std::collections::VecDeque;

use descry_decode::ids::BootNanos;

use super::database::{Outcome, attributes, finished, text};
use super::frame::{Frame, Framed, Message, Session};
use super::turns::Turns;
use super::{Chunk, Direction, Exchange, Lost, Parser};
use crate::infer::{Opening, Protocol, Transport, Verdict};
use crate::span::Value;
use message::{Packet, Question};

/// Questions of one socket that wait for their answers. More: the oldest is given up.
const MAX_WAITING: usize = 512;
/// A question without an answer is over after this time (ns). Resolvers give up earlier: glibc after 5 s a server.
const TIMEOUT: u64 = 30_000_000_000;
/// Kept of a message on TCP (bytes).
const KEEP: usize = 4096;
/// The length before each message on TCP (RFC 1035, section 4.2.2).
const LENGTH: usize = 2;

/// DNS.
pub static PROTOCOL: Protocol = Protocol {
    name: "dns",
    transports: &[Transport::Datagram, Transport::Stream],
    recognize,
    carries_many: false,
    shapes: None,
    parser: |transport, _| match transport {
        Transport::Datagram => Box::new(DnsDatagrams::default()),
        Transport::Stream => Box::new(DnsStream::default()),
    },
};

/// A question from the client, or an answer from the server.
fn recognize(transport: Transport, opening: Opening<'_>) -> Verdict {
    let sides = [(false, opening.to_server), (true, opening.to_client)];
    let verdicts = sides.map(|(answers, bytes)| recognize_message(transport, answers, bytes));
    if verdicts.contains(&Verdict::No) {
        Verdict::No
    } else if verdicts.contains(&Verdict::Yes) {
        Verdict::Yes
    } else {
        Verdict::NotYet
    }
}

fn recognize_message(transport: Transport, answers: bool, bytes: &[u8]) -> Verdict {
    let (message, is_whole) = match (transport, bytes) {
        (_, []) | (Transport::Stream, [_]) => return Verdict::NotYet,
        (Transport::Datagram, message) => (message, true),
        (Transport::Stream, [high, low, rest @ ..]) => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if length < message::HEADER {
                return Verdict::No;
            }
            rest.get(..length).map_or((rest, false), |message| (message, true))
        }
    };
    match Packet::read(message, is_whole) {
        Some(packet) if packet.is_answer == answers && packet.question.is_some() && is_whole => Verdict::Yes,
        Some(packet) if packet.is_answer == answers && !is_whole => Verdict::NotYet,
        None if !is_whole && message.len() < message::HEADER => Verdict::NotYet,
        _ => Verdict::No,
    }
}

/// The parser of one UDP socket's packets with one server: each chunk is a datagram.
#[derive(Debug, Default)]
pub struct DnsDatagrams(State);

impl Parser for DnsDatagrams {
    fn data(&mut self, chunk: Chunk<'_>, exchanges: &mut Vec<Exchange>) {
        let times = (chunk.time, chunk.time);
        self.0.packet(chunk.direction, chunk.bytes, chunk.cut == 0, times, exchanges);
    }

    fn end(&mut self, time: BootNanos, exchanges: &mut Vec<Exchange>) {
        self.0.settle(time, false, exchanges);
    }

    fn lost(&self) -> Lost {
        self.0.lost
    }
}

/// The parser of one TCP connection.
#[derive(Debug, Default)]
pub struct DnsStream(Framed<State>);

impl Parser for DnsStream {
    fn data(&mut self, chunk: Chunk<'_>, exchanges: &mut Vec<Exchange>) {
        self.0.data(chunk, exchanges);
    }

    fn end(&mut self, time: BootNanos, exchanges: &mut Vec<Exchange>) {
        self.0.session.settle(time, false, exchanges);
    }

    fn lost(&self) -> Lost {
        self.0.session.lost
    }
}

#[derive(Debug)]
struct Waiting {
    start: BootNanos,
    id: u16,
    opcode: u8,
    question: Question,
}

/// What was asked and is not answered.
#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    turns: Turns,
    lost: Lost,
}

impl Session for State {
    fn frame(&self, _: Direction, head: &[u8]) -> Frame {
        match head.first_chunk::<LENGTH>().map(|length| u16::from_be_bytes(*length)) {
            None => Frame::Partial,
            Some(length) if usize::from(length) < message::HEADER => Frame::Nonsense,
            Some(length) => Frame::Message { length: LENGTH as u64 + u64::from(length), keep: KEEP },
        }
    }

    fn message(&mut self, message: Message<'_>, exchanges: &mut Vec<Exchange>) {
        let bytes = message.bytes.get(LENGTH..).unwrap_or_default();
        let times = (message.start, message.end);
        self.packet(message.direction, bytes, !message.is_cut(), times, exchanges);
    }

    fn boundary(&self, direction: Direction, bytes: &[u8], _: bool) -> Option<usize> {
        let body = bytes.get(LENGTH..)?;
        let length = usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
        let packet = Packet::read(body.get(..length).unwrap_or(body), body.len() >= length)?;
        (packet.is_answer == (direction == Direction::ToClient)).then_some(0)
    }

    fn settle(&mut self, end: BootNanos, _: bool, exchanges: &mut Vec<Exchange>) {
        while let Some(waiting) = self.waiting.pop_front() {
            exchanges.push(exchange(waiting, None, Outcome::plain(end, false)));
        }
    }

    /// Answers are matched by their ids: nobody has to wait.
    fn is_waiting(&self) -> bool {
        false
    }

    fn is_over(&self) -> bool {
        false
    }

    fn turns(&mut self) -> &mut Turns {
        &mut self.turns
    }

    fn lost(&mut self) -> &mut Lost {
        &mut self.lost
    }
}

impl State {
    fn packet(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        whole: bool,
        (start, end): (BootNanos, BootNanos),
        exchanges: &mut Vec<Exchange>,
    ) {
        self.expire(end, exchanges);
        let Some(packet) = Packet::read(bytes, whole) else {
            self.lost.malformed += 1;
            return;
        };
        match (direction, packet.is_answer) {
            (Direction::ToServer, false) => self.question(packet, start, exchanges),
            (Direction::ToClient, true) => self.answer(&packet, end, exchanges),
            _ => self.lost.malformed += 1,
        }
    }

    fn expire(&mut self, now: BootNanos, exchanges: &mut Vec<Exchange>) {
        while self.waiting.front().is_some_and(|it| now.0.saturating_sub(it.start.0) >= TIMEOUT) {
            self.give_up_oldest(now, exchanges);
        }
    }

    fn give_up_oldest(&mut self, now: BootNanos, exchanges: &mut Vec<Exchange>) {
        if let Some(waiting) = self.waiting.pop_front() {
            exchanges.push(exchange(waiting, None, Outcome::plain(now, false)));
        }
    }

    fn question(&mut self, packet: Packet, start: BootNanos, exchanges: &mut Vec<Exchange>) {
        let Some(question) = packet.question else {
            self.lost.malformed += 1;
            return;
        };
        if self.waiting.iter().any(|it| it.id == packet.id && it.question.is_same(&question)) {
            return;
        }
        if self.waiting.len() >= MAX_WAITING {
            self.lost.requests_dropped += 1;
            self.give_up_oldest(start, exchanges);
        }
        self.waiting.push_back(Waiting { start, id: packet.id, opcode: packet.opcode, question });
    }

    fn answer(&mut self, packet: &Packet, end: BootNanos, exchanges: &mut Vec<Exchange>) {
        let matches = |it: &Waiting| {
            // A server that does not understand the question need not repeat it.
            it.id == packet.id
                && packet.question.as_ref().is_none_or(|question| question.is_same(&it.question))
        };
        let found = self.waiting.iter().position(matches).and_then(|index| self.waiting.remove(index));
        let Some(waiting) = found else {
            self.lost.unmatched += 1;
            return;
        };
        let error = packet.code.filter(|code| *code != 0).map(message::code_name);
        let servers_fault = packet.code == Some(message::SERVFAIL);
        let outcome = Outcome { error, servers_fault, ..Outcome::plain(end, true) };
        exchanges.push(exchange(waiting, Some(packet), outcome));
    }
}

fn exchange(waiting: Waiting, answer: Option<&Packet>, outcome: Outcome<'_>) -> Exchange {
    let kind = waiting.question.kind_name();
    let name = match message::opcode_name(waiting.opcode) {
        None => Cow::Owned(format!("DNS {kind}")),
        Some(operation) => Cow::Borrowed(operation),
    };
    let mut attributes = attributes([
        text("dns.question.name", Value::Text(waiting.question.name)),
        text("dns.question.type", Value::Text(kind.into())),
    ]);
    if let Some(answer) = answer {
        if let Some(code) = answer.code {
            attributes.push(text("dns.response_code", Value::Static(message::code_name(code))));
        }
        if !answer.addresses.is_empty() {
            attributes.push(text("dns.answers", Value::Texts(answer.addresses.clone())));
        }
    }
    finished(name, waiting.start, attributes, outcome)
}
