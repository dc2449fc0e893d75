//! What decoding a capture counted, by name.

use std::collections::BTreeMap;

use descry_assemble::capture;

use crate::counted::counters;

counters! {
    /// What decoding a capture counted.
    DecodeCounters = "descry.decode." {
        /// Packets
        packets,
        /// Packets that are neither TCP nor UDP over IP
        packet_other,
        /// Parts of larger IP packets, which are not put together
        ip_fragment,
        /// Packets whose headers make no sense, or were not captured
        packet_malformed,
        /// Packets of a link type that is not read, or of which the file does not tell it
        link_unknown,
        /// Connections
        connections,
        /// Connections that said something, but nothing in a wanted protocol
        connection_unknown,
        /// Connections that were given up because too many were open
        connection_dropped,
        /// TCP segments that had come before
        tcp_duplicate,
        /// Times that bytes of a connection were missing
        tcp_gap,
        /// Bytes of connections that were missing
        tcp_gap_bytes,
        /// Times that a parser lost its place and found the next message
        resynchronized,
        /// Messages that make no sense
        message_malformed,
        /// Requests that were given up because too many were open, or their answers could not be told apart
        request_dropped,
        /// Answers without a request that was seen
        answer_unmatched,
        /// Connections that went over to TLS, compression or another protocol
        connection_unreadable,
    }
}

/// Those that mean no loss.
const HARMLESS: [&str; 8] = [
    "packets",
    "packet_other",
    "connections",
    "connection_unknown",
    "connection_unreadable",
    "tcp_duplicate",
    "tcp_gap_bytes",
    "answer_unmatched",
];

impl DecodeCounters {
    /// From what the stage counted.
    pub fn new(counters: &capture::Counters) -> Self {
        Self {
            packets: counters.packets,
            packet_other: counters.other_packets,
            ip_fragment: counters.fragments,
            packet_malformed: counters.malformed_packets,
            link_unknown: counters.unknown_links,
            connections: counters.connections,
            connection_unknown: counters.unknown_connections,
            connection_dropped: counters.connections_dropped,
            tcp_duplicate: counters.duplicates,
            tcp_gap: counters.gaps,
            tcp_gap_bytes: counters.gap_bytes,
            resynchronized: counters.lost.resynchronized,
            message_malformed: counters.lost.malformed,
            request_dropped: counters.lost.requests_dropped,
            answer_unmatched: counters.lost.unmatched,
            connection_unreadable: counters.lost.unreadable,
        }
    }

    /// What was lost, by reason; nothing that is zero.
    pub fn lost(&self) -> BTreeMap<&'static str, u64> {
        self.entries()
            .map(|(name, _, value)| (name.rsplit('.').next().unwrap_or(name), value))
            .filter(|(name, value)| *value > 0 && !HARMLESS.contains(name))
            .collect()
    }

    /// For people, on one line.
    pub fn text(&self) -> String {
        let lost: Vec<String> = self.lost().iter().map(|(name, count)| format!("{name} {count}")).collect();
        let lost = if lost.is_empty() { "0 lost".to_owned() } else { format!("lost: {}", lost.join(", ")) };
        format!("{} packets, {} connections, {lost}", self.packets, self.connections)
    }
}
