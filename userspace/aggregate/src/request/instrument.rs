//! What requests are measured as: the metrics of the semantic conventions, and the attributes that each tells apart.
//!
//! | conventions | metrics |
//! |---|---|
//! | HTTP (stable) | `http.server.request.duration`, `http.client.request.duration` |
//! | RPC (1.45: stable) | `rpc.server.call.duration`, `rpc.client.call.duration` |
//! | database client (stable) | `db.client.operation.duration` |
//! | DNS (in development) | `dns.lookup.duration` |
//!
//! They know no metrics of the servers of databases and of DNS; those have names of descry's own.

use descry_assemble::span::{Span, SpanKind, Value};

/// A metric of requests: a histogram of durations (s).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Instrument {
    /// Requests that an HTTP server answered.
    HttpServer,
    /// Requests of an HTTP client.
    HttpClient,
    /// Calls that an RPC server answered.
    RpcServer,
    /// Calls of an RPC client.
    RpcClient,
    /// Operations that a database answered.
    DatabaseServer,
    /// Operations of a database's client.
    DatabaseClient,
    /// Questions that a DNS server answered.
    DnsServer,
    /// Questions of a DNS client.
    DnsClient,
}

/// Attributes of an instrument at most.
pub(super) const MAX_ATTRIBUTES: usize = 12;

/// What the conventions want where a method is not known.
static UNKNOWN_METHOD: Value = Value::Static("_OTHER");

const METHOD: &str = "http.request.method";

impl Instrument {
    /// All of them, by their number.
    pub const ALL: [Self; 8] = [
        Self::HttpServer,
        Self::HttpClient,
        Self::RpcServer,
        Self::RpcClient,
        Self::DatabaseServer,
        Self::DatabaseClient,
        Self::DnsServer,
        Self::DnsClient,
    ];

    /// What a span is measured as; none: it is no request.
    pub fn of(span: &Span) -> Option<Self> {
        let is_server = match span.kind {
            SpanKind::Server | SpanKind::Consumer => true,
            SpanKind::Client | SpanKind::Producer => false,
            SpanKind::Internal => return None,
        };
        let has = |name| span.attribute(name).is_some();
        // gRPC goes over HTTP, so it is asked for first. A request whose method was not seen has a version.
        let [server, client] = if has("rpc.system.name") {
            [Self::RpcServer, Self::RpcClient]
        } else if has("db.system.name") {
            [Self::DatabaseServer, Self::DatabaseClient]
        } else if has("dns.question.name") {
            [Self::DnsServer, Self::DnsClient]
        } else if [METHOD, "http.response.status_code", "network.protocol.version"].into_iter().any(has) {
            [Self::HttpServer, Self::HttpClient]
        } else {
            return None;
        };
        Some(if is_server { server } else { client })
    }

    /// The metric's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HttpServer => "http.server.request.duration",
            Self::HttpClient => "http.client.request.duration",
            Self::RpcServer => "rpc.server.call.duration",
            Self::RpcClient => "rpc.client.call.duration",
            Self::DatabaseServer => "descry.db.server.operation.duration",
            Self::DatabaseClient => "db.client.operation.duration",
            Self::DnsServer => "descry.dns.server.lookup.duration",
            Self::DnsClient => "dns.lookup.duration",
        }
    }

    /// What it measures, in a sentence.
    pub const fn description(self) -> &'static str {
        match self {
            Self::HttpServer => "Duration of HTTP server requests.",
            Self::HttpClient => "Duration of HTTP client requests.",
            Self::RpcServer => "Duration of inbound remote procedure calls.",
            Self::RpcClient => "Duration of outbound remote procedure calls.",
            Self::DatabaseServer => "Duration of operations that a database answered.",
            Self::DatabaseClient => "Duration of database client operations.",
            Self::DnsServer => "Duration of lookups that a DNS server answered.",
            Self::DnsClient => "Duration of DNS lookups.",
        }
    }

    /// The names of its attributes, in the order of a row's values. Servers leave out the address by which they were
    /// called: it comes from whoever calls, and so may take any value.
    pub const fn attributes(self) -> &'static [&'static str] {
        match self {
            Self::HttpServer => &[
                METHOD,
                "url.scheme",
                "http.route",
                "http.response.status_code",
                "error.type",
                "network.protocol.name",
                "network.protocol.version",
            ],
            Self::HttpClient => &[
                METHOD,
                "url.scheme",
                "server.address",
                "server.port",
                "http.response.status_code",
                "error.type",
                "network.protocol.name",
                "network.protocol.version",
            ],
            Self::RpcServer => &["rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"],
            Self::RpcClient => &[
                "rpc.system.name",
                "rpc.method",
                "rpc.response.status_code",
                "error.type",
                "server.address",
                "server.port",
            ],
            Self::DatabaseServer => &[
                "db.system.name",
                "db.namespace",
                "db.collection.name",
                "db.operation.name",
                "db.query.summary",
                "db.stored_procedure.name",
                "db.response.status_code",
                "error.type",
            ],
            Self::DatabaseClient => &[
                "db.system.name",
                "db.namespace",
                "db.collection.name",
                "db.operation.name",
                "db.query.summary",
                "db.stored_procedure.name",
                "db.response.status_code",
                "error.type",
                "server.address",
                "server.port",
                "network.peer.address",
                "network.peer.port",
            ],
            Self::DnsServer | Self::DnsClient => &["dns.question.name", "error.type"],
        }
    }

    /// The value of an attribute that a span has not, where the conventions want one.
    pub(super) fn without(self, name: &str) -> Option<&'static Value> {
        let wants_method = matches!(self, Self::HttpServer | Self::HttpClient);
        (wants_method && name == METHOD).then_some(&UNKNOWN_METHOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_and_attributes_have_room() {
        for (place, instrument) in Instrument::ALL.into_iter().enumerate() {
            assert_eq!(instrument as usize, place);
            assert!(instrument.attributes().len() <= MAX_ATTRIBUTES, "{instrument:?}");
        }
    }
}
