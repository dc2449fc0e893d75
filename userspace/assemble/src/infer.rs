//! Which protocol a connection speaks, from the first bytes of each direction.
//!
//! Give it what both sides said so far; get a protocol, "not yet", or "none of ours". Nothing is assumed from ports.

use crate::protocol::{Options, Parser, dns, http1, http2, mysql, postgres, redis};
use crate::template::Shapes;

/// What a connection's packets carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A stream of bytes: TCP, a stream socket of the Unix domain.
    Stream,
    /// Datagrams: UDP.
    Datagram,
}

/// What both sides said so far, as far as it is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening<'a> {
    /// From the client. Of datagrams: one.
    pub to_server: &'a [u8],
    /// From the server. Of datagrams: one.
    pub to_client: &'a [u8],
    /// Whether these are the connection's first bytes; else its first that were seen, each where a message may begin.
    pub from_start: bool,
}

impl Opening<'_> {
    /// The same with client and server exchanged.
    #[must_use]
    pub const fn swapped(self) -> Self {
        Self { to_server: self.to_client, to_client: self.to_server, from_start: self.from_start }
    }
}

/// What a protocol says of an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is this protocol.
    Yes,
    /// It may be, once there is more.
    NotYet,
    /// It is another.
    No,
}

/// A protocol.
#[derive(Debug)]
pub struct Protocol {
    /// Its name, as `--protocol` takes it.
    pub name: &'static str,
    /// What carries it.
    pub transports: &'static [Transport],
    /// Whether an opening is this protocol's. It says [`Verdict::Yes`] only of what no other protocol begins with.
    pub recognize: fn(Transport, Opening<'_>) -> Verdict,
    /// Whether one message may carry many requests or answers: then more of each is worth to be seen than its head.
    pub carries_many: bool,
    /// How its messages are told in short where they come again; none: they are not.
    pub shapes: Option<&'static Shapes>,
    /// A parser of one connection.
    pub parser: fn(Transport, &Options) -> Box<dyn Parser>,
}

/// All protocols; what is recognized by more bytes comes first.
pub static PROTOCOLS: &[&Protocol] = &[
    &http2::PROTOCOL,
    &http1::PROTOCOL,
    &postgres::PROTOCOL,
    &mysql::PROTOCOL,
    &redis::PROTOCOL,
    &dns::PROTOCOL,
];

/// What is known of a connection's protocol.
#[derive(Clone, Copy, Debug)]
pub enum Inference {
    /// This one.
    Known(&'static Protocol),
    /// There is not enough to tell.
    NotYet,
    /// None of ours.
    Unknown,
}

/// Which of `protocols` an opening belongs to.
pub fn infer(protocols: &[&'static Protocol], transport: Transport, opening: Opening<'_>) -> Inference {
    let mut open = false;
    for protocol in protocols.iter().filter(|protocol| protocol.transports.contains(&transport)) {
        match (protocol.recognize)(transport, opening) {
            Verdict::Yes => return Inference::Known(protocol),
            Verdict::NotYet => open = true,
            Verdict::No => {}
        }
    }
    if open { Inference::NotYet } else { Inference::Unknown }
}
