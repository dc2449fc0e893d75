//! Capture files: bytes of a pcap or pcapng file to packets, packets to chunks of connections, chunks to spans.
//!
//! Everything in such a file may be hostile or cut: lengths lie, headers end in the middle, packets are missing, come
//! twice or in the wrong order. What was not captured is a gap or a cut of its chunk, and each discard is counted.

mod file;
mod flow;
mod packet;
mod table;
mod tcp;

pub use file::{CaptureError, Link, Packet, read};
pub use table::{Counters, Table};
