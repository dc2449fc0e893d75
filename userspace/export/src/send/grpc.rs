//! One attempt by OTLP/gRPC.
//!
//! The request is encoded once, by the caller, and sent as bytes: a retry costs no second encoding,
//! and the code is the same for every signal.

use std::marker::PhantomData;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use http::uri::PathAndQuery;
use http::{HeaderValue, header};
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Status};

use super::attempt::{Accepted, Failure, Retry, foreign_text};
use super::error::DropReason;
use super::retry;
use super::settings::{Compression, Settings};
use super::signal::SignalRequest;
use super::transport::{HttpClient, LARGEST_RESPONSE_BYTES, USER_AGENT};

/// Calls the signal's method with an encoded message; `remaining` is told to the server.
pub(super) async fn attempt<R: SignalRequest>(
    client: &HttpClient,
    settings: &Settings,
    message: Bytes,
    remaining: Duration,
) -> Result<Accepted, Failure> {
    let mut grpc = Grpc::with_origin(client.clone(), settings.endpoint.uri().clone())
        .max_decoding_message_size(LARGEST_RESPONSE_BYTES)
        // Collectors answer in the compression that they were asked in.
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    match settings.compression {
        Compression::None => {}
        Compression::Gzip => grpc = grpc.send_compressed(CompressionEncoding::Gzip),
        Compression::Zstd => grpc = grpc.send_compressed(CompressionEncoding::Zstd),
    }
    let mut headers = settings.headers.as_map().clone();
    headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
    let metadata = MetadataMap::from_headers(headers);
    let mut request = Request::from_parts(metadata, Extensions::default(), message);
    request.set_timeout(remaining);
    let path = PathAndQuery::from_static(R::SIGNAL.grpc_path);
    match grpc.unary(request, path, EncodedMessage::<R::Response>(PhantomData)).await {
        Ok(response) => Ok(Accepted { partial: R::partial_success(response.into_inner()), confirmed: true }),
        Err(status) => Err(failure(&status)),
    }
}

fn failure(status: &Status) -> Failure {
    // A status with a source is no answer of the server's, but tonic's word for a broken transport.
    if let Some(source) = std::error::Error::source(status) {
        return Failure::of_transport(source);
    }
    let detail = || {
        let message = foreign_text(status.message());
        let colon = if message.is_empty() { "" } else { ": " };
        format!("the server answered {:?}{colon}{message}", status.code())
    };
    if is_oversized(status) {
        let detail = format!("the answer is larger than {LARGEST_RESPONSE_BYTES} bytes");
        return Failure::new(DropReason::BadResponse, Retry::Never, detail);
    }
    let retry = retry::of_grpc(status);
    let reason = match status.code() {
        _ if retry != Retry::Never => DropReason::Unavailable,
        Code::Unauthenticated | Code::PermissionDenied => DropReason::Unauthorized,
        Code::Unimplemented | Code::NotFound => DropReason::WrongEndpoint,
        _ => DropReason::Refused,
    };
    Failure::new(reason, retry, detail())
}

/// Whether this is tonic's own verdict on a response above the limit. It comes as a status like any other,
/// with codes that a server's would make worth a retry, so only its text tells.
fn is_oversized(status: &Status) -> bool {
    match status.code() {
        Code::OutOfRange => status.message().starts_with("Error, decoded message length too large"),
        Code::ResourceExhausted => status.message().starts_with("Error decompressing: size limit"),
        _ => false,
    }
}

/// A codec whose requests are encoded already.
struct EncodedMessage<Response>(PhantomData<fn() -> Response>);

impl<Response: Message + Default + 'static> Codec for EncodedMessage<Response> {
    type Encode = Bytes;
    type Decode = Response;
    type Encoder = BytesEncoder;
    type Decoder = MessageDecoder<Response>;

    fn encoder(&mut self) -> BytesEncoder {
        BytesEncoder
    }

    fn decoder(&mut self) -> MessageDecoder<Response> {
        MessageDecoder(PhantomData)
    }
}

struct BytesEncoder;

impl Encoder for BytesEncoder {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, destination: &mut EncodeBuf<'_>) -> Result<(), Status> {
        destination.reserve(item.len());
        destination.put(item);
        Ok(())
    }
}

struct MessageDecoder<Response>(PhantomData<fn() -> Response>);

impl<Response: Message + Default> Decoder for MessageDecoder<Response> {
    type Item = Response;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Response>, Status> {
        let response = Response::decode(source);
        response
            .map(Some)
            .map_err(|error| Status::internal(format!("the answer is no OTLP response: {error}")))
    }
}
