//! gRPC: what makes a request of HTTP/2 a call (semantic conventions for RPC and gRPC, 1.45).

use std::borrow::Cow;

use super::Exchange;
use super::http::add;
use crate::span::{Status, Value};

/// Names of status codes, by their numbers (google.rpc.Code).
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Codes that are a server's failure (semantic conventions for gRPC, "rpc.response.status_code" of servers).
const SERVER_ERRORS: [&str; 6] =
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];

/// Whether a content type is gRPC's: `application/grpc`, with `+proto` or the like behind it; not gRPC-Web.
pub(super) fn is_content_type(value: &[u8]) -> bool {
    let name = b"application/grpc";
    let (Some(head), Some(rest)) = (value.get(..name.len()), value.get(name.len()..)) else { return false };
    head.eq_ignore_ascii_case(name) && rest.first().is_none_or(|byte| b"+; ".contains(byte))
}

/// The method that a path calls, as it is named: of `/SERVICE/METHOD` what is behind the first slash.
pub(super) fn method(path: &str) -> Option<&str> {
    let method = path.strip_prefix('/')?;
    let (service, name) = method.split_once('/')?;
    (!service.is_empty() && !name.is_empty()).then_some(method)
}

/// Makes an exchange the call of a method that ended with a gRPC status; an answer without one that
/// has an HTTP status other than 200 ended with what that stands for (gRPC, "HTTP to gRPC Status Code Mapping").
pub(super) fn describe(method: &str, code: Option<u32>, http_status: Option<u16>, exchange: &mut Exchange) {
    exchange.name = Cow::Owned(method.to_owned());
    let attributes = &mut exchange.attributes;
    add(attributes, "rpc.system.name", Value::Static("grpc"));
    add(attributes, "rpc.method", Value::Text(method.into()));
    let code = match (code, http_status) {
        (Some(code), _) => CODES.get(code as usize).copied().unwrap_or("UNKNOWN"),
        (None, Some(400)) => "INTERNAL",
        (None, Some(401)) => "UNAUTHENTICATED",
        (None, Some(403)) => "PERMISSION_DENIED",
        (None, Some(404)) => "UNIMPLEMENTED",
        (None, Some(429 | 502 | 503 | 504)) => "UNAVAILABLE",
        (None, Some(200) | None) => return,
        (None, Some(_)) => "UNKNOWN",
    };
    add(attributes, "rpc.response.status_code", Value::Static(code));
    if code != "OK" {
        add(attributes, "error.type", Value::Static(code));
        exchange.client_status = Status::Error(Cow::Borrowed(""));
        if SERVER_ERRORS.contains(&code) {
            exchange.server_status = Status::Error(Cow::Borrowed(""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_calls() {
        for (path, expected) in [
            ("/p.S/M", Some("p.S/M")),
            ("/p.S", None),
            ("/", None),
            ("p.S/M", None),
            ("/p.S/", None),
            ("", None),
        ] {
            assert_eq!(method(path), expected, "{path}");
        }
    }

    #[test]
    fn content_types() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_content_type(value.as_bytes()), expected, "{value}");
        }
    }
}
