//! One packet: from its link layer to what TCP or UDP carries.

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::file::{Link, Packet};

/// Link types (<https://www.tcpdump.org/linktypes.html>).
const NULL: i32 = 0;
const ETHERNET: i32 = 1;
/// RAW as some BSDs number it.
const RAW_BSD: [i32; 2] = [12, 14];
const RAW: i32 = 101;
const LOOP: i32 = 108;
const LINUX_SLL: i32 = 113;
const IPV4: i32 = 228;
const IPV6: i32 = 229;
const LINUX_SLL2: i32 = 276;

/// What a packet carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    /// Who sent it.
    pub(super) source: SocketAddr,
    /// To whom.
    pub(super) destination: SocketAddr,
    /// TCP's numbers; none: UDP.
    pub(super) tcp: Option<Numbers>,
    /// What was captured of the payload.
    pub(super) payload: &'a [u8],
    /// How long the payload was (bytes).
    pub(super) length: u32,
}

/// What a TCP header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// Number of the first byte.
    pub(super) sequence: u32,
    /// Number of the next byte that is expected from the other side.
    pub(super) acknowledged: Option<u32>,
    /// It opens a connection.
    pub(super) syn: bool,
    /// No more bytes come behind these.
    pub(super) fin: bool,
    /// The connection is no more.
    pub(super) rst: bool,
}

/// Why a packet is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ignored {
    /// It is no TCP and no UDP.
    Other,
    /// A part of a larger packet.
    Fragment,
    /// Its headers make no sense, or were not captured.
    Malformed,
    /// Packets of this link type are not read.
    Link,
}

/// Reads a packet's headers.
pub(super) fn parse<'a>(packet: &Packet<'a>) -> Result<Segment<'a>, Ignored> {
    let Packet { link: Link(link), bytes, .. } = *packet;
    let ip = |bytes: &'a [u8]| LaxSlicedPacket::from_ip(bytes).map_err(|_| Ignored::Malformed);
    let typed = |number: &'a [u8], payload: &'a [u8]| match number {
        [high, low] => {
            Ok(LaxSlicedPacket::from_ether_type(EtherType(u16::from_be_bytes([*high, *low])), payload))
        }
        _ => Err(Ignored::Malformed),
    };
    let after = |count: usize| bytes.get(count..).ok_or(Ignored::Malformed);
    let range = |from: usize| bytes.get(from..from + 2).ok_or(Ignored::Malformed);
    let sliced = match link {
        ETHERNET => LaxSlicedPacket::from_ethernet(bytes).map_err(|_| Ignored::Malformed)?,
        // Four bytes that tell the family, as the capturing system numbers it.
        NULL | LOOP => ip(after(4)?)?,
        RAW | IPV4 | IPV6 => ip(bytes)?,
        _ if RAW_BSD.contains(&link) => ip(bytes)?,
        LINUX_SLL => typed(range(14)?, after(16)?)?,
        LINUX_SLL2 => typed(range(0)?, after(20)?)?,
        _ => return Err(Ignored::Link),
    };
    segment(packet, &sliced)
}

fn segment<'a>(packet: &Packet<'a>, sliced: &LaxSlicedPacket<'a>) -> Result<Segment<'a>, Ignored> {
    let (source, destination, declared): (IpAddr, IpAddr, usize) = match &sliced.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let declared = usize::from(header.total_len()).checked_sub(header.slice().len());
            (header.source_addr().into(), header.destination_addr().into(), declared.unwrap_or_default())
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.payload_length().into())
        }
        _ => return Err(if sliced.stop_err.is_some() { Ignored::Malformed } else { Ignored::Other }),
    };
    let inside = sliced.ip_payload().ok_or(Ignored::Malformed)?;
    if inside.fragmented {
        return Err(Ignored::Fragment);
    }
    // The lengths of extension headers lie between what the IP header declares and what is left for the payload.
    let declared = match &sliced.net {
        Some(LaxNetSlice::Ipv6(ip)) => declared.saturating_sub(ip.extensions().slice().len()),
        _ => declared,
    };
    // Cards that cut large packets themselves leave the length to be told by the capture (0 in the header).
    let missing = (packet.length as usize).saturating_sub(packet.bytes.len());
    let whole = if declared == 0 { inside.payload.len().saturating_add(missing) } else { declared };
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => Ok(Segment {
            source: SocketAddr::new(source, tcp.source_port()),
            destination: SocketAddr::new(destination, tcp.destination_port()),
            tcp: Some(Numbers {
                sequence: tcp.sequence_number(),
                acknowledged: tcp.ack().then(|| tcp.acknowledgment_number()),
                syn: tcp.syn(),
                fin: tcp.fin(),
                rst: tcp.rst(),
            }),
            payload: tcp.payload(),
            length: length(whole, tcp.header_slice().len(), tcp.payload()),
        }),
        Some(TransportSlice::Udp(udp)) => Ok(Segment {
            source: SocketAddr::new(source, udp.source_port()),
            destination: SocketAddr::new(destination, udp.destination_port()),
            tcp: None,
            payload: udp.payload(),
            length: length(whole, 8, udp.payload()),
        }),
        Some(_) => Err(Ignored::Other),
        None if sliced.stop_err.is_some() => Err(Ignored::Malformed),
        None => Err(Ignored::Other),
    }
}

/// How long a payload is: never less than what is there.
fn length(whole: usize, header: usize, payload: &[u8]) -> u32 {
    let length = whole.saturating_sub(header).max(payload.len());
    u32::try_from(length).unwrap_or(u32::MAX)
}
