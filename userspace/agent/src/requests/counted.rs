//! What following connections counted, by name.

use std::collections::BTreeMap;

use super::connections::Counted;
use super::tls::TlsCounted;
use crate::counted::counters;

counters! {
    /// What following connections counted.
    RequestCounters = "descry.requests." {
        /// Connections that were seen.
        connections,
        /// Connections in none of the wanted protocols.
        connection_unknown,
        /// Connections of processes whose requests are not wanted.
        connection_excluded,
        /// Connections in TLS.
        connection_encrypted,
        /// Of those, connections whose plaintext was seen.
        connection_decrypted,
        /// Libraries and programs whose TLS was probed.
        tls_files,
        /// Libraries and programs that do TLS in a way that cannot be probed.
        tls_unprobeable,
        /// Connections that went over to TLS, compression or another protocol.
        connection_unreadable,
        /// Connections that were given up because too many were open.
        connection_dropped,
        /// Messages of connections whose first sight was lost.
        message_without_connection,
        /// Exchanges told by a template that is not known any more.
        exchange_without_template,
        /// Times that bytes of a connection were missing.
        message_gap,
        /// Times that a parser lost its place and found the next message.
        resynchronized,
        /// Messages that make no sense.
        message_malformed,
        /// Requests that were given up because too many were open.
        request_dropped,
        /// Answers without a request that was seen.
        answer_unmatched,
        /// Spans that found the request that caused them.
        joined,
        /// Slow system calls and long waits that are not told because they belong to no request that was seen.
        part_without_request,
        /// Spans whose request was not seen to end: they have no parent.
        parent_not_seen,
        /// Spans that have no parent because too many waited for theirs.
        too_many_waiting,
        /// Connections whose requests were given up because nothing came for too long.
        answer_timed_out,
        /// Spans that began before or after the request that their unit served last: they have no parent.
        parent_over,
        /// Spans of a request that was served beside others on the same connection: they have no parent.
        parent_ambiguous,
        /// Processes whose units cannot be found (Node.js, asyncio, a stripped Tokio program, an unknown version of Go):
        /// nothing they ask is joined to what they are asked.
        units_unknown,
        /// Traces that the sampler left out where they began on this machine.
        trace_not_sampled,
        /// Traces that were left out because their service began too many a second.
        trace_rate_limited,
    }
}

/// Those that mean no loss. A parser finds its place again after bytes that were left out on purpose too (the end of a
/// long answer); those that were lost are `message_gap`.
const HARMLESS: [&str; 19] = [
    "connections",
    "connection_unknown",
    "connection_excluded",
    "connection_unreadable",
    "connection_encrypted",
    "connection_decrypted",
    "tls_files",
    "tls_unprobeable",
    "joined",
    "part_without_request",
    "parent_not_seen",
    "parent_over",
    "parent_ambiguous",
    "units_unknown",
    "answer_timed_out",
    "answer_unmatched",
    "resynchronized",
    // Asked for.
    "trace_not_sampled",
    "trace_rate_limited",
];

impl RequestCounters {
    /// From what the stage counted.
    pub fn new(counted: &Counted, units_unknown: u64, tls: &TlsCounted) -> Self {
        Self {
            connections: counted.connections,
            connection_unknown: counted.unknown,
            connection_excluded: counted.excluded,
            connection_encrypted: counted.encrypted,
            connection_decrypted: counted.decrypted,
            tls_files: tls.files,
            tls_unprobeable: tls.unprobeable,
            connection_unreadable: counted.lost.unreadable,
            connection_dropped: counted.dropped,
            message_without_connection: counted.without_connection,
            exchange_without_template: counted.without_template,
            message_gap: counted.gaps,
            resynchronized: counted.lost.resynchronized,
            message_malformed: counted.lost.malformed,
            request_dropped: counted.lost.requests_dropped,
            answer_unmatched: counted.lost.unmatched,
            joined: counted.joined.joined,
            part_without_request: counted.joined.parts_dropped,
            parent_not_seen: counted.joined.waited_too_long,
            too_many_waiting: counted.joined.too_many,
            answer_timed_out: counted.timed_out,
            parent_over: counted.joined.outside,
            parent_ambiguous: counted.joined.ambiguous,
            units_unknown,
            trace_not_sampled: counted.sampling.traces_not_sampled,
            trace_rate_limited: counted.sampling.traces_rate_limited,
        }
    }

    /// What was lost, by reason; nothing that is zero.
    pub fn lost(&self) -> BTreeMap<&'static str, u64> {
        self.entries()
            .map(|(name, _, value)| (name.rsplit('.').next().unwrap_or(name), value))
            .filter(|(name, value)| *value > 0 && !HARMLESS.contains(name))
            .collect()
    }
}
