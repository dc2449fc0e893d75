//! A request and its answer as an exchange, by the semantic conventions for HTTP (1.45).

use std::borrow::Cow;

use descry_decode::ids::BootNanos;

use super::super::{ATTRIBUTES, Exchange, Options, TraceContext, grpc};
use super::query::masked;
use super::{Field, text};
use crate::span::{Attribute, SpanKind, Status, Value};
use crate::trace_context::ContextReader;

/// Methods that have a name in the conventions (`http.request.method`).
const METHODS: [&str; 10] =
    ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "QUERY"];
/// What stands for any other.
const OTHER: &str = "_OTHER";
/// The name of a span whose method is another or not known.
const NAME: &str = "HTTP";
/// Longest unknown method that is told (bytes).
const MAX_METHOD: usize = 32;

/// What is known of a request.
#[derive(Clone, Debug, Default)]
pub(in crate::protocol) struct Request {
    method: Option<Cow<'static, str>>,
    path: Option<Box<str>>,
    query: Option<Box<str>>,
    scheme: Option<Box<str>>,
    authority: Option<Box<str>>,
    version: &'static str,
    is_grpc: bool,
    context: Option<Box<TraceContext>>,
    /// While fields come; most requests have none for it.
    reader: Option<Box<ContextReader>>,
}

/// What is known of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::protocol) struct Response {
    /// Its status code.
    pub(in crate::protocol) status: Option<u16>,
    grpc_status: Option<u32>,
    is_grpc: bool,
}

impl Request {
    /// Nothing but the version is known (`network.protocol.version`).
    pub(in crate::protocol) fn new(version: &'static str) -> Self {
        Self { version, ..Self::default() }
    }

    /// Takes a field; those that say nothing about a request are no error.
    pub(in crate::protocol) fn field(&mut self, field: Field, value: &[u8]) {
        match field {
            Field::Method => self.method = Some(method(value)),
            Field::Path => self.target(value),
            Field::Scheme => self.scheme = Some(text(&value.to_ascii_lowercase())),
            Field::Authority => self.authority = Some(text(value)),
            // What the target or `:authority` says goes first (RFC 9112, section 3.2.2).
            Field::Host => self.authority = self.authority.take().or_else(|| Some(text(value))),
            Field::ContentType => self.is_grpc = grpc::is_content_type(value),
            Field::Traceparent => self.reader().traceparent(value),
            Field::Tracestate => self.reader().tracestate(value),
            Field::B3 => self.reader().b3(value),
            Field::B3Trace => self.reader().b3_trace(value),
            Field::B3Span => self.reader().b3_span(value),
            Field::B3Sampled => self.reader().b3_sampled(value),
            Field::B3Flags => self.reader().b3_flags(value),
            Field::Status
            | Field::Protocol
            | Field::ContentLength
            | Field::TransferEncoding
            | Field::Upgrade
            | Field::GrpcStatus => {}
        }
    }

    /// No field comes any more.
    pub(in crate::protocol) fn complete(&mut self) {
        self.context = self.reader.take().and_then(|reader| reader.finish()).map(Box::new);
    }

    fn reader(&mut self) -> &mut ContextReader {
        self.reader.get_or_insert_default()
    }

    /// Whether this is its method.
    pub(in crate::protocol) fn is_method(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }

    /// The target in any of its forms (RFC 9112, section 3.2).
    fn target(&mut self, target: &[u8]) {
        if self.is_method("CONNECT") {
            self.authority = Some(text(target));
            return;
        }
        let mut rest = target;
        if let Some(at) =
            target.windows(3).position(|three| three == b"://").filter(|_| !target.starts_with(b"/"))
        {
            self.scheme = Some(text(&target.get(..at).unwrap_or_default().to_ascii_lowercase()));
            rest = target.get(at + 3..).unwrap_or_default();
            let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            // Names and passwords before an @ are nobody's business.
            let host = authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
            self.authority = Some(text(host));
            rest = path;
        }
        let rest = rest.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut halves = rest.splitn(2, |byte| *byte == b'?');
        self.path = halves.next().map(|path| if path.is_empty() { "/".into() } else { text(path) });
        self.query = halves.next().filter(|query| !query.is_empty()).map(|query| masked(&text(query)));
    }
}

impl Response {
    /// Nothing but the status code is known.
    pub(in crate::protocol) fn new(status: Option<u16>) -> Self {
        Self { status, ..Self::default() }
    }

    /// Takes a field; those that say nothing about an answer are no error.
    pub(in crate::protocol) fn field(&mut self, field: Field, value: &[u8]) {
        let number = || std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok();
        match field {
            Field::Status => self.status = number().and_then(|status: u32| u16::try_from(status).ok()),
            // Nothing else has a gRPC status: of a connection that is older than the capture it may be all there is.
            Field::GrpcStatus => (self.grpc_status, self.is_grpc) = (number(), true),
            Field::ContentType => self.is_grpc |= grpc::is_content_type(value),
            _ => {}
        }
    }

    /// Whether another, final answer follows (RFC 9110, section 15.2).
    pub(in crate::protocol) fn is_interim(&self) -> bool {
        self.status.is_some_and(|status| (100..200).contains(&status) && status != 101)
    }
}

/// The exchange of a request, and of its answer if one was seen.
pub(in crate::protocol) fn exchange(
    options: &Options,
    request: Request,
    response: Option<&Response>,
    times: (BootNanos, BootNanos),
    answered: bool,
) -> Exchange {
    let is_grpc = request.is_grpc || response.is_some_and(|response| response.is_grpc);
    let mut exchange = Exchange {
        start: times.0,
        end: times.1,
        name: Cow::Borrowed(NAME),
        kind: SpanKind::Server,
        client_status: Status::Unset,
        server_status: Status::Unset,
        attributes: Vec::with_capacity(ATTRIBUTES),
        context: request.context,
        answered,
    };
    let attributes = &mut exchange.attributes;
    if let Some(authority) = &request.authority {
        server(authority, attributes);
    }
    add(attributes, "network.protocol.version", Value::Static(request.version));
    let status = response.and_then(|response| response.status);
    if let Some(method) = request.path.as_deref().filter(|_| is_grpc).and_then(grpc::method) {
        // An answer without a gRPC status is its HTTP status's (gRPC, "HTTP to gRPC Status Code Mapping").
        let code = response.and_then(|response| response.grpc_status);
        grpc::describe(method, code, status.filter(|_| answered), &mut exchange);
        return exchange;
    }
    let known = match &request.method {
        Some(Cow::Borrowed(method)) => Some(*method),
        Some(Cow::Owned(_)) | None => None,
    };
    if let Some(method) = &request.method {
        add(attributes, "http.request.method", Value::Static(known.unwrap_or(OTHER)));
        if known.is_none() {
            let original: String = method.chars().take(MAX_METHOD).collect();
            add(attributes, "http.request.method_original", Value::Text(original.into()));
        }
    }
    if let Some(scheme) = request.scheme {
        add(attributes, "url.scheme", Value::Text(scheme));
    }
    let name = known.unwrap_or(NAME);
    exchange.name = Cow::Borrowed(name);
    if let Some(path) = request.path {
        let route = options.routes.of(&path);
        exchange.name = Cow::Owned([name, " ", &route].concat());
        add(attributes, "http.route", Value::Text(route.as_ref().into()));
        add(attributes, "url.path", Value::Text(path));
    }
    if let Some(query) = request.query {
        add(attributes, "url.query", Value::Text(query));
    }
    if let Some(status) = status {
        add(attributes, "http.response.status_code", Value::Int(status.into()));
        if status >= 400 {
            exchange.client_status = Status::Error(Cow::Borrowed(""));
            if status >= 500 {
                exchange.server_status = Status::Error(Cow::Borrowed(""));
            }
            add(attributes, "error.type", Value::Text(status.to_string().into()));
        }
    }
    exchange
}

/// A method: borrowed if it has a name in the conventions.
fn method(bytes: &[u8]) -> Cow<'static, str> {
    let known = METHODS.into_iter().find(|known| known.as_bytes() == bytes);
    known.map_or_else(|| Cow::Owned(text(bytes).into()), Cow::Borrowed)
}

/// Adds an attribute.
pub(in crate::protocol) fn add(attributes: &mut Vec<Attribute>, name: &'static str, value: Value) {
    attributes.push((Cow::Borrowed(name), value));
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]:PORT`.
fn server(authority: &str, attributes: &mut Vec<Attribute>) {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':')),
        None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return;
    }
    add(attributes, "server.address", Value::Text(host.into()));
    if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
        add(attributes, "server.port", Value::Int(port.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::line;

    fn check(fields: &[(Field, &str)], status: Option<u16>, expected: &str) {
        let mut request = Request::new("1.1");
        for (field, value) in fields {
            request.field(*field, value.as_bytes());
        }
        request.complete();
        let response = status.map(|status| Response::new(Some(status)));
        let times = (BootNanos(1), BootNanos(3));
        let found = exchange(&Options::default(), request, response.as_ref(), times, true);
        assert_eq!(line(&found), expected);
    }

    #[test]
    fn targets_have_four_forms() {
        let get = (Field::Method, "GET");
        check(
            &[get, (Field::Path, "/a/7?q=me#x"), (Field::Host, "shop:8080")],
            Some(200),
            "1..3 GET /a/{id} server.address=shop server.port=8080 network.protocol.version=1.1 \
             http.request.method=GET http.route=/a/{id} url.path=/a/7 url.query=q=REDACTED \
             http.response.status_code=200",
        );
        check(
            &[get, (Field::Path, "http://joe:secret@[::1]:81?x"), (Field::Host, "other")],
            None,
            "1..3 GET / server.address=::1 server.port=81 network.protocol.version=1.1 http.request.method=GET \
             url.scheme=http http.route=/ url.path=/ url.query=REDACTED",
        );
        check(
            &[(Field::Method, "CONNECT"), (Field::Path, "db:5432"), (Field::Host, "proxy")],
            None,
            "1..3 CONNECT server.address=db server.port=5432 network.protocol.version=1.1 \
             http.request.method=CONNECT",
        );
        check(
            &[(Field::Method, "OPTIONS"), (Field::Path, "*")],
            None,
            "1..3 OPTIONS * network.protocol.version=1.1 http.request.method=OPTIONS http.route=* url.path=*",
        );
    }

    #[test]
    fn failures_have_a_side() {
        let fields = [(Field::Method, "BREW"), (Field::Path, "/")];
        let known = "network.protocol.version=1.1 http.request.method=_OTHER http.request.method_original=BREW \
                     http.route=/ url.path=/";
        check(
            &fields,
            Some(404),
            &format!("1..3 HTTP / {known} http.response.status_code=404 error.type=404 client:error"),
        );
        check(
            &fields,
            Some(503),
            &format!(
                "1..3 HTTP / {known} http.response.status_code=503 error.type=503 client:error server:error"
            ),
        );
    }
}
