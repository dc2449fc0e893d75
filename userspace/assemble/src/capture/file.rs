//! Packets of a pcap or pcapng file.

use std::io::Read;

use descry_decode::ids::UnixNanos;
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, PcapHeader, create_reader};

/// Bytes of the file that are in memory at first.
const BUFFER: usize = 64 << 10;
/// Bytes of the file that are in memory at most: a longer block is refused. Wireshark writes packets up to 256 KiB.
const MAX_BUFFER: usize = 4 << 20;
/// Interfaces of a section of a pcapng file that are known.
const MAX_INTERFACES: usize = 4096;
const NANOS: u64 = 1_000_000_000;

/// A packet as it was captured.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When.
    pub time: UnixNanos,
    /// What it begins with.
    pub link: Link,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// How long it was (bytes).
    pub length: u32,
}

/// What packets begin with: a number of <https://www.tcpdump.org/linktypes.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link(pub i32);

impl Link {
    /// The file does not say: the packet is of no interface that it describes, or has no time.
    pub const UNTOLD: Self = Self(-1);
}

/// Why no more packets come from a file.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It is something else.
    #[error("this is no pcap or pcapng file")]
    NotACapture,
    /// It ends within a packet or block.
    #[error("the file ends in the middle of a packet; what came before it was read")]
    Truncated,
    /// Lengths or numbers in it are wrong.
    #[error("the file is broken after {offset} bytes; what came before was read")]
    Broken {
        /// Bytes that were read.
        offset: usize,
    },
    /// It could not be read.
    #[error("cannot read")]
    Read(#[source] std::io::Error),
}

/// An interface of a pcapng file, or what a pcap file says of its only one.
#[derive(Clone, Copy)]
struct Interface {
    link: Link,
    /// Units of a second.
    resolution: u64,
    /// What times count from (seconds since 1970).
    offset: i64,
}

impl Interface {
    fn time(self, units: u64) -> UnixNanos {
        let seconds = (units / self.resolution).saturating_add_signed(self.offset);
        let part = u128::from(units % self.resolution) * u128::from(NANOS) / u128::from(self.resolution);
        UnixNanos(seconds.saturating_mul(NANOS).saturating_add(part as u64))
    }
}

/// Reads all packets of a file, in its order.
///
/// # Errors
///
/// Where the file ends in the middle or breaks the format; packets before that place have been given.
pub fn read(from: impl Read + Send, packet: &mut dyn FnMut(Packet<'_>)) -> Result<(), CaptureError> {
    let mut error = None;
    let reading = Remembering { from, error: &mut error };
    let result = blocks(reading, packet);
    match error {
        Some(error) => Err(CaptureError::Read(error)),
        None => result,
    }
}

/// Keeps the reason of a failed read, which the parser drops.
struct Remembering<'a, R> {
    from: R,
    error: &'a mut Option<std::io::Error>,
}

impl<R: Read> Read for Remembering<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.from.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    *self.error = Some(error);
                    return Err(kind.into());
                }
                read => return read,
            }
        }
    }
}

fn blocks(from: impl Read + Send, packet: &mut dyn FnMut(Packet<'_>)) -> Result<(), CaptureError> {
    let mut reader = create_reader(BUFFER, from).map_err(|_| CaptureError::NotACapture)?;
    let mut buffer = BUFFER;
    let mut interfaces: Vec<Option<Interface>> = Vec::new();
    loop {
        match reader.next() {
            Ok((length, block)) => {
                let is_block = length > 0;
                take(block, &mut interfaces, packet);
                if !is_block {
                    return Err(CaptureError::Broken { offset: reader.consumed() });
                }
                reader.consume(length);
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => {
                let before = reader.data().len();
                reader.refill().map_err(|_| CaptureError::Truncated)?;
                if reader.data().len() == before && reader.reader_exhausted() {
                    return if before == 0 { Ok(()) } else { Err(CaptureError::Truncated) };
                }
            }
            Err(PcapError::BufferTooSmall) => {
                // Room that is there but not filled comes first.
                let before = reader.data().len();
                if before < buffer && !reader.reader_exhausted() {
                    reader.refill().map_err(|_| CaptureError::Truncated)?;
                    if reader.data().len() > before {
                        continue;
                    }
                }
                buffer *= 2;
                if buffer > MAX_BUFFER || !reader.grow(buffer) {
                    return Err(CaptureError::Broken { offset: reader.consumed() });
                }
            }
            Err(PcapError::UnexpectedEof) => return Err(CaptureError::Truncated),
            Err(_) => return Err(CaptureError::Broken { offset: reader.consumed() }),
        }
    }
}

fn take(
    block: PcapBlockOwned<'_>,
    interfaces: &mut Vec<Option<Interface>>,
    packet: &mut dyn FnMut(Packet<'_>),
) {
    match block {
        PcapBlockOwned::LegacyHeader(header) => interfaces.push(Some(legacy(&header))),
        PcapBlockOwned::Legacy(block) => {
            let Some(Some(interface)) = interfaces.first() else { return };
            let units = u64::from(block.ts_sec) * interface.resolution + u64::from(block.ts_usec);
            packet(Packet {
                time: interface.time(units),
                link: interface.link,
                bytes: block.data,
                length: block.origlen,
            });
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
        PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
            if interfaces.len() < MAX_INTERFACES {
                interfaces.push(resolution(block.if_tsresol).map(|resolution| Interface {
                    link: link(block.linktype),
                    resolution,
                    offset: block.if_tsoffset,
                }));
            }
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
            let Some(Some(interface)) = interfaces.get(block.if_id as usize) else {
                return packet(untold(block.packet_data(), block.origlen));
            };
            packet(Packet {
                time: interface.time(u64::from(block.ts_high) << 32 | u64::from(block.ts_low)),
                link: interface.link,
                bytes: block.packet_data(),
                length: block.origlen,
            });
        }
        // They have no time.
        PcapBlockOwned::NG(Block::SimplePacket(block)) => packet(untold(block.packet_data(), block.origlen)),
        // The rest of the blocks are about other things.
        PcapBlockOwned::NG(_) => {}
    }
}

/// A packet of which too little is known.
fn untold(bytes: &[u8], length: u32) -> Packet<'_> {
    Packet { time: UnixNanos(0), link: Link::UNTOLD, bytes, length }
}

fn legacy(header: &PcapHeader) -> Interface {
    let resolution = if header.is_nanosecond_precision() { NANOS } else { 1_000_000 };
    Interface { link: link(header.network), resolution, offset: 0 }
}

/// The upper half of the number says how long the frame's check sequence is.
fn link(number: Linktype) -> Link {
    Link(number.0 & 0xffff)
}

/// Units of a second (pcapng, section 4.2, `if_tsresol`): a power of ten, or of two with the highest bit set. None:
/// more than a number holds.
fn resolution(option: u8) -> Option<u64> {
    let exponent = u32::from(option & 0x7f);
    if option & 0x80 == 0 { 10_u64.checked_pow(exponent) } else { 2_u64.checked_pow(exponent) }
}
