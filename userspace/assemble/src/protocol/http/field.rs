//! The header fields that are read. No other is looked at.

/// A field of a request or an answer. The names with a colon are HTTP/2's (RFC 9113, section 8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::protocol) enum Field {
    /// `:method`
    Method,
    /// `:path`
    Path,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `host`
    Host,
    /// `:status`
    Status,
    /// `:protocol` (RFC 8441)
    Protocol,
    /// `content-type`
    ContentType,
    /// `content-length`
    ContentLength,
    /// `transfer-encoding`
    TransferEncoding,
    /// `upgrade`
    Upgrade,
    /// `grpc-status`
    GrpcStatus,
    /// `traceparent`
    Traceparent,
    /// `tracestate`
    Tracestate,
    /// `b3`
    B3,
    /// `x-b3-traceid`
    B3Trace,
    /// `x-b3-spanid`
    B3Span,
    /// `x-b3-sampled`
    B3Sampled,
    /// `x-b3-flags`
    B3Flags,
}

const NAMES: [(&[u8], Field); 19] = [
    (b":method", Field::Method),
    (b":path", Field::Path),
    (b":scheme", Field::Scheme),
    (b":authority", Field::Authority),
    (b"host", Field::Host),
    (b":status", Field::Status),
    (b":protocol", Field::Protocol),
    (b"content-type", Field::ContentType),
    (b"content-length", Field::ContentLength),
    (b"transfer-encoding", Field::TransferEncoding),
    (b"upgrade", Field::Upgrade),
    (b"grpc-status", Field::GrpcStatus),
    (b"traceparent", Field::Traceparent),
    (b"tracestate", Field::Tracestate),
    (b"b3", Field::B3),
    (b"x-b3-traceid", Field::B3Trace),
    (b"x-b3-spanid", Field::B3Span),
    (b"x-b3-sampled", Field::B3Sampled),
    (b"x-b3-flags", Field::B3Flags),
];

/// The lengths of the names, as bits.
const LENGTHS: u32 = {
    let (mut lengths, mut at) = (0, 0);
    while at < NAMES.len() {
        lengths |= 1 << NAMES[at].0.len();
        at += 1;
    }
    lengths
};

impl Field {
    /// The field of a name, in whatever case.
    pub(in crate::protocol) fn of(name: &[u8]) -> Option<Self> {
        // Most fields are none of these, and most of them are told by this alone.
        if LENGTHS.checked_shr(name.len() as u32).is_none_or(|lengths| lengths & 1 == 0) {
            return None;
        }
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, field)| *field)
    }
}
