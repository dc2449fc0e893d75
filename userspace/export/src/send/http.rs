//! One attempt by OTLP/HTTP, with protobuf or JSON.

use std::io::Write;
use std::time::SystemTime;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use prost::Message;
use tonic::body::Body;

use super::attempt::{Accepted, Failure, Retry, foreign_text};
use super::error::DropReason;
use super::retry;
use super::settings::{Compression, Protocol, Settings};
use super::signal::{PartialSuccess, SignalRequest};
use super::transport::{HttpClient, LARGEST_RESPONSE_BYTES, USER_AGENT};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
/// An agent spends its CPU time on other things than the last tenth of size.
const ZSTD_LEVEL: i32 = 1;

/// Compresses a body, once for all attempts. Fails only without memory.
pub(super) fn compress(body: Bytes, compression: Compression) -> std::io::Result<Bytes> {
    let compressed = match compression {
        Compression::None => return Ok(body),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&body)?;
            encoder.finish()?
        }
        Compression::Zstd => zstd::bulk::compress(&body, ZSTD_LEVEL)?,
    };
    Ok(Bytes::from(compressed))
}

/// Sends the body and reads the answer.
pub(super) async fn attempt<R: SignalRequest>(
    client: &HttpClient,
    settings: &Settings,
    body: Bytes,
) -> Result<Accepted, Failure> {
    let mut request = Request::post(settings.endpoint.uri())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONTENT_TYPE, if settings.protocol == Protocol::HttpJson { JSON } else { PROTOBUF });
    match settings.compression {
        Compression::None => {}
        Compression::Gzip => request = request.header(header::CONTENT_ENCODING, "gzip"),
        Compression::Zstd => request = request.header(header::CONTENT_ENCODING, "zstd"),
    }
    let mut request = request.body(Body::new(Full::new(body))).map_err(|error| {
        Failure::new(DropReason::WrongEndpoint, Retry::Never, format!("the URL is unusable: {error}"))
    })?;
    for (name, value) in settings.headers.as_map() {
        request.headers_mut().insert(name, value.clone());
    }
    let response = client.request(request).await.map_err(|error| Failure::of_transport(&error))?;
    let (parts, body) = response.into_parts();
    if parts.status.is_success() {
        Ok(accepted::<R>(&parts.headers, &read(body).await?))
    } else {
        // The status alone says enough where the body cannot be read.
        let body = read(body).await.unwrap_or_default();
        Err(refused(parts.status, &parts.headers, &body))
    }
}

async fn read(body: Incoming) -> Result<Bytes, Failure> {
    let body = Limited::new(body, LARGEST_RESPONSE_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let detail = format!("the answer is larger than {LARGEST_RESPONSE_BYTES} bytes");
            return Failure::new(DropReason::BadResponse, Retry::Never, detail);
        }
        Failure::of_transport(&*error)
    })?;
    Ok(body.to_bytes())
}

/// What a success says. Some receivers answer with an empty body or one of another type; that is
/// no reason to send twice, but it is no confirmation either unless the body is empty.
fn accepted<R: SignalRequest>(headers: &HeaderMap, body: &[u8]) -> Accepted {
    let plain = !headers.contains_key(header::CONTENT_ENCODING);
    let partial = match content_type(headers) {
        _ if body.is_empty() => Some(None),
        PROTOBUF if plain => R::Response::decode(body).ok().map(R::partial_success),
        JSON if plain => serde_json::from_slice(body).ok().map(|json| json_partial_success::<R>(&json)),
        _ => None,
    };
    Accepted { confirmed: partial.is_some(), partial: partial.flatten() }
}

/// `partialSuccess` in the JSON form, where a 64-bit number is a string (or a number).
fn json_partial_success<R: SignalRequest>(response: &serde_json::Value) -> Option<PartialSuccess> {
    let partial = response.get("partialSuccess").filter(|partial| partial.is_object())?;
    let rejected = partial.get(R::SIGNAL.rejected_json_name);
    let rejected = rejected.and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()));
    let message = partial.get("errorMessage").and_then(|message| message.as_str());
    Some(PartialSuccess { rejected: rejected.unwrap_or(0), message: message.unwrap_or_default().to_owned() })
}

fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry = retry::of_http(status, retry_after, SystemTime::now());
    let reason = match status.as_u16() {
        _ if retry != Retry::Never => DropReason::Unavailable,
        401 | 403 | 407 => DropReason::Unauthorized,
        300..=399 | 404..=406 | 415 | 501 | 505 => DropReason::WrongEndpoint,
        _ => DropReason::Refused,
    };
    let message = match content_type(headers) {
        // The body of a failure is a google.rpc.Status.
        PROTOBUF => tonic_types::pb::Status::decode(body).map(|status| status.message).unwrap_or_default(),
        JSON => serde_json::from_slice::<serde_json::Value>(body)
            .ok()
            .and_then(|json| Some(json.get("message")?.as_str()?.to_owned()))
            .unwrap_or_default(),
        "text/plain" => String::from_utf8_lossy(body).into_owned(),
        _ => String::new(),
    };
    let message = foreign_text(&message);
    let colon = if message.is_empty() { "" } else { ": " };
    Failure::new(reason, retry, format!("the server answered {status}{colon}{message}"))
}

/// The media type without its parameters.
fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}
