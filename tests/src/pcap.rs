//! Capture files (pcap) of TCP over IPv4 on Ethernet, and what networks and captures do to them.
//!
//! Only what tcpdump writes of a loopback device is understood. Checksums are left wrong: on such a device they are.

use anyhow::{Context, Result, ensure};

/// File header, packet header, Ethernet header, in bytes.
const FILE: usize = 24;
const PACKET: usize = 16;
const ETHERNET: usize = 14;
/// The magic of microseconds in the order of this machine.
const MAGIC: u32 = 0xa1b2_c3d4;
const TCP: u8 = 6;

/// A capture.
#[derive(Clone, Debug)]
pub struct Capture {
    header: Vec<u8>,
    packets: Vec<Packet>,
}

/// A packet with its header in the file.
#[derive(Clone, Debug)]
struct Packet {
    /// Seconds and microseconds.
    time: [u8; 8],
    bytes: Vec<u8>,
}

impl Packet {
    fn word(&self, at: usize) -> u32 {
        self.bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_be_bytes)
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or_default()
    }

    /// Where the TCP header begins, and where its data; none: it is no TCP.
    fn places(&self) -> Option<(usize, usize)> {
        let tcp = ETHERNET + usize::from(self.byte(ETHERNET) & 15) * 4;
        let data = tcp + usize::from(self.byte(tcp + 12) >> 4) * 4;
        (self.byte(ETHERNET + 9) == TCP && data <= self.bytes.len()).then_some((tcp, data))
    }

    /// How many bytes of data it has.
    fn data(&self) -> usize {
        self.places().map_or(0, |(_, data)| self.bytes.len() - data)
    }

    /// The same with only these bytes of its data.
    fn part(&self, from: usize, to: usize) -> Option<Self> {
        let (tcp, data) = self.places()?;
        let mut bytes = self.bytes.get(..data)?.to_vec();
        bytes.extend(self.bytes.get(data + from..data + to)?);
        let length = u16::try_from(bytes.len() - ETHERNET).ok()?;
        bytes.get_mut(ETHERNET + 2..ETHERNET + 4)?.copy_from_slice(&length.to_be_bytes());
        let sequence = self.word(tcp + 4).wrapping_add(from as u32);
        bytes.get_mut(tcp + 4..tcp + 8)?.copy_from_slice(&sequence.to_be_bytes());
        Some(Self { time: self.time, bytes })
    }

    /// Who sends to whom: addresses and ports.
    fn direction(&self) -> Option<[u32; 3]> {
        let (tcp, _) = self.places()?;
        Some([self.word(ETHERNET + 12), self.word(ETHERNET + 16), self.word(tcp)])
    }
}

impl Capture {
    /// From the bytes of a file.
    ///
    /// # Errors
    /// When it is another kind of file, or broken off.
    pub fn read(file: &[u8]) -> Result<Self> {
        let word = |at: usize| -> Result<u32> {
            let bytes = file.get(at..at + 4).context("the capture is broken off")?;
            Ok(u32::from_ne_bytes(bytes.try_into()?))
        };
        ensure!(word(0)? == MAGIC && word(20)? == 1, "no capture of Ethernet in microseconds");
        let mut packets = Vec::new();
        let mut at = FILE;
        while at < file.len() {
            let length = word(at + 8)? as usize;
            let time = file.get(at..at + 8).context("the capture is broken off")?.try_into()?;
            let bytes = file.get(at + PACKET..at + PACKET + length).context("the capture is broken off")?;
            packets.push(Packet { time, bytes: bytes.to_vec() });
            at += PACKET + length;
        }
        Ok(Self { header: file.get(..FILE).context("no header")?.to_vec(), packets })
    }

    /// The bytes of a file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = self.header.clone();
        for Packet { time, bytes } in &self.packets {
            let length = (bytes.len() as u32).to_ne_bytes();
            file.extend(time.iter().chain(&length).chain(&length).chain(bytes));
        }
        file
    }

    fn with(&self, packets: Vec<Packet>) -> Self {
        Self { header: self.header.clone(), packets }
    }

    /// Each segment in so many of about the same size, as far as its bytes go.
    #[must_use]
    pub fn in_pieces(&self, pieces: usize) -> Self {
        let cut = |packet: &Packet| {
            let data = packet.data();
            let pieces = pieces.clamp(1, data.max(1));
            if pieces == 1 {
                return vec![packet.clone()];
            }
            let place = |piece: usize| data * piece / pieces;
            (0..pieces).filter_map(|piece| packet.part(place(piece), place(piece + 1))).collect()
        };
        self.with(self.packets.iter().flat_map(cut).collect())
    }

    /// Of each two segments in a row that one side sent, the later one first.
    #[must_use]
    pub fn out_of_order(&self) -> Self {
        let mut packets = self.packets.clone();
        let mut at = 0;
        while let Some([first, second]) = packets.get_mut(at..at + 2) {
            if first.data() > 0 && second.data() > 0 && first.direction() == second.direction() {
                std::mem::swap(&mut first.bytes, &mut second.bytes);
                at += 2;
            } else {
                at += 1;
            }
        }
        self.with(packets)
    }

    /// Each segment with data twice, the second time behind the next packet.
    #[must_use]
    pub fn twice(&self) -> Self {
        let mut packets = Vec::with_capacity(2 * self.packets.len());
        let mut again: Option<Packet> = None;
        for packet in &self.packets {
            packets.push(packet.clone());
            packets.extend(again.take().map(|again| Packet { time: packet.time, ..again }));
            again = (packet.data() > 0).then(|| packet.clone());
        }
        packets.extend(again);
        self.with(packets)
    }

    /// Without each so many-th segment with data, and how many those are.
    #[must_use]
    pub fn without_one_of(&self, every: usize) -> (Self, usize) {
        let (mut segments, mut dropped) = (0, 0);
        let mut packets = self.packets.clone();
        packets.retain(|packet| {
            let has_data = packet.data() > 0;
            segments += usize::from(has_data);
            let drops = has_data && segments.is_multiple_of(every);
            dropped += usize::from(drops);
            !drops
        });
        (self.with(packets), dropped)
    }
}
