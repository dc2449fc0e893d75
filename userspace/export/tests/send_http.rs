//! OTLP over HTTP, as a receiver and a user see it.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

mod send_support;

use std::time::{Duration, Instant};

use descry_export::send::{DropReason, Outcome, Sender};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use prost::Message;
use send_support::{Answer, HttpReceiver, answer, message, nobody, request, send, settings};

fn ok() -> Answer {
    answer(200, &[("content-type", "application/x-protobuf")], "")
}

#[tokio::test]
async fn every_encoding_arrives_whole() {
    for (protocol, content_type) in
        [("http/protobuf", "application/x-protobuf"), ("http/json", "application/json")]
    {
        for (compression, content_encoding) in [("none", ""), ("gzip", "gzip"), ("zstd", "zstd")] {
            let receiver = HttpReceiver::start(|_| ok()).await;
            let variables = [
                ("PROTOCOL", protocol),
                ("COMPRESSION", compression),
                ("HEADERS", "api-key=a%20b,x-tenant=7"),
            ];
            let outcome = send(&receiver.url(), &variables, 3).await;
            assert_eq!((outcome.sent_requests, outcome.sent_items), (1, 3), "{outcome:?}");
            assert!(outcome.is_complete() && outcome.retries == 0, "{outcome:?}");

            let seen = receiver.seen().pop().unwrap();
            assert_eq!(seen.path, "/v1development/profiles");
            assert_eq!(seen.header("content-type"), content_type);
            assert_eq!(seen.header("content-encoding"), content_encoding);
            assert_eq!(seen.header("api-key"), "a b");
            assert_eq!(seen.header("x-tenant"), "7");
            assert!(seen.header("user-agent").starts_with("descry/"));
            let plain = seen.plain_body();
            assert_eq!(outcome.bytes, plain.len() as u64);
            assert!(content_encoding.is_empty() || seen.body.len() < plain.len());
            if protocol == "http/json" {
                let arrived: serde_json::Value = serde_json::from_slice(&plain).unwrap();
                let profiles = &arrived["resourceProfiles"][0]["scopeProfiles"][0]["profiles"];
                assert_eq!(profiles.as_array().unwrap().len(), 3);
                assert_eq!(profiles[2]["samples"][99]["values"], serde_json::json!(["10", "20"]));
            } else {
                assert_eq!(ExportProfilesServiceRequest::decode(&plain[..]).unwrap(), request(3));
            }
        }
    }
}

#[tokio::test]
async fn unavailable_then_ok_is_retried() {
    for status in [429, 502, 503, 504] {
        let receiver =
            HttpReceiver::start(move |number| if number == 0 { answer(status, &[], "") } else { ok() }).await;
        let outcome = send(&receiver.url(), &[], 2).await;
        assert_eq!((outcome.sent_items, outcome.retries), (2, 1), "{status}: {outcome:?}");
        let seen = receiver.seen();
        assert_eq!(seen[0].body, seen[1].body);
    }
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let receiver = HttpReceiver::start(|number| match number {
        0 => answer(429, &[("retry-after", "1")], ""),
        _ => ok(),
    })
    .await;
    let begun = Instant::now();
    let outcome = send(&receiver.url(), &[], 1).await;
    assert_eq!((outcome.sent_items, outcome.retries), (1, 1));
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn retry_after_beyond_the_timeout_gives_up_at_once() {
    let receiver = HttpReceiver::start(|_| answer(503, &[("retry-after", "3600")], "")).await;
    let outcome = send(&receiver.url(), &[("TIMEOUT", "600000")], 1).await;
    assert_eq!(outcome.dropped_items_by_reason.get(&DropReason::Unavailable), Some(&1), "{outcome:?}");
    assert!(message(&outcome).contains("asked to come again in 3600s"), "{}", message(&outcome));
    assert_eq!(receiver.seen().len(), 1);
}

#[tokio::test]
async fn partial_success_is_counted() {
    let rejected = ExportProfilesServiceResponse {
        partial_success: Some(ExportProfilesPartialSuccess {
            rejected_profiles: 2,
            error_message: "too old".to_owned(),
        }),
    };
    let json = r#"{"partialSuccess":{"rejectedProfiles":"2","errorMessage":"too old"}}"#;
    let json_number = r#"{"partialSuccess":{"rejectedProfiles":2}}"#;
    for (content_type, body) in [
        ("application/x-protobuf", rejected.encode_to_vec()),
        ("application/json", json.into()),
        ("application/json; charset=utf-8", json_number.into()),
    ] {
        let receiver =
            HttpReceiver::start(move |_| answer(200, &[("content-type", content_type)], body.clone())).await;
        let outcome = send(&receiver.url(), &[], 5).await;
        assert_eq!((outcome.sent_items, outcome.rejected_items), (5, 2), "{content_type}: {outcome:?}");
        assert!(!outcome.is_complete() && outcome.first_error.is_none());
        assert_eq!(outcome.unconfirmed_requests, 0);
    }
}

/// A refusal is not retried, and the message says what the server said.
async fn check_refused(status: u16, content_type: &str, body: &[u8], reason: DropReason, said: &str) {
    let (content_type, body) = (content_type.to_owned(), body.to_vec());
    let receiver =
        HttpReceiver::start(move |_| answer(status, &[("content-type", &content_type)], body.clone())).await;
    let outcome = send(&receiver.url(), &[("HEADERS", "authorization=Bearer%20secret")], 4).await;
    assert_eq!(outcome.dropped_items_by_reason.get(&reason), Some(&4), "{outcome:?}");
    assert_eq!((outcome.sent_requests, receiver.seen().len()), (0, 1));
    let message = message(&outcome);
    for part in [&receiver.url(), &status.to_string(), said, "; "] {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
    assert!(!format!("{message}{outcome:?}").contains("secret"));
}

#[tokio::test]
async fn refusals_say_why() {
    let status = tonic_types::pb::Status { code: 3, message: "bad stack".to_owned(), details: Vec::new() };
    let protobuf = status.encode_to_vec();
    check_refused(400, "application/x-protobuf", &protobuf, DropReason::Refused, "bad stack").await;
    check_refused(400, "application/json", br#"{"message":"bad json"}"#, DropReason::Refused, "bad json")
        .await;
    check_refused(413, "text/plain", b"too\x1b[31mlarge", DropReason::Refused, "too [31mlarge").await;
    check_refused(500, "application/x-protobuf", b"\xff\xff garbage", DropReason::Refused, "500").await;
    check_refused(401, "", b"", DropReason::Unauthorized, "OTEL_EXPORTER_OTLP_HEADERS").await;
    check_refused(403, "", b"", DropReason::Unauthorized, "OTEL_EXPORTER_OTLP_HEADERS").await;
    check_refused(404, "text/html", b"<html>", DropReason::WrongEndpoint, "check the URL").await;
    check_refused(307, "", b"", DropReason::WrongEndpoint, "check the URL").await;
}

#[tokio::test]
async fn connection_refused_is_tried_until_the_timeout_and_once_for_all() {
    let endpoint = format!("http://{}", nobody());
    let sender = Sender::new(settings(&endpoint, &[("TIMEOUT", "700")])).unwrap();
    let outcome = sender.send([request(1), request(2), request(3)]).await;
    assert_eq!(outcome.dropped_items_by_reason.get(&DropReason::Unreachable), Some(&6), "{outcome:?}");
    assert_eq!(outcome.dropped_items(), 6);
    assert!(outcome.retries >= 1, "{outcome:?}");
    let message = message(&outcome);
    for part in ["cannot send profiles to", &endpoint, "refused", "check that the receiver runs"] {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_comes_up_late_gets_the_data() {
    let address = nobody();
    let listens = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut some = [0; 16];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut some).await.unwrap();
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, response).await.unwrap();
        // The rest of the request is read, lest the close resets the connection under the answer.
        let mut rest = Vec::new();
        let _closed = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    });
    let outcome = send(&format!("http://{address}"), &[], 1).await;
    assert_eq!(outcome.sent_items, 1, "{outcome:?}");
    assert!(outcome.retries >= 1);
    listens.await.unwrap();
}

#[tokio::test]
async fn a_hanging_server_costs_the_timeout() {
    let receiver = HttpReceiver::start(|_| None).await;
    let outcome = send(&receiver.url(), &[("TIMEOUT", "300")], 1).await;
    assert_eq!(outcome.dropped_items_by_reason.get(&DropReason::Timeout), Some(&1), "{outcome:?}");
    assert!(message(&outcome).contains("no answer within 300ms"), "{}", message(&outcome));
}

#[tokio::test]
async fn an_oversized_answer_is_not_read() {
    for status in [200, 400] {
        let receiver = HttpReceiver::start(move |_| {
            answer(status, &[("content-type", "application/x-protobuf")], vec![0; 8 << 20])
        })
        .await;
        let outcome = send(&receiver.url(), &[], 1).await;
        let reason = if status == 200 { DropReason::BadResponse } else { DropReason::Refused };
        assert_eq!(outcome.dropped_items_by_reason.get(&reason), Some(&1), "{outcome:?}");
        assert_eq!(receiver.seen().len(), 1);
    }
}

#[tokio::test]
async fn success_from_something_else_is_marked() {
    for (content_type, body) in [
        ("text/html", &b"<html>welcome</html>"[..]),
        ("application/x-protobuf", b"\xff\xff\xff"),
        ("application/json", b"{"),
    ] {
        let receiver =
            HttpReceiver::start(move |_| answer(200, &[("content-type", content_type)], body)).await;
        let outcome = send(&receiver.url(), &[], 1).await;
        assert_eq!((outcome.sent_requests, outcome.unconfirmed_requests), (1, 1), "{content_type}");
    }
}

#[tokio::test]
async fn garbage_instead_of_http_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Waits for the request, so that the garbage is its answer.
            let mut some = [0; 16];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut some).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"\0\0\x06\x04\0\0\0 no http").await.unwrap();
        }
    });
    let outcome = send(&endpoint, &[], 1).await;
    assert_eq!(outcome.dropped_items_by_reason.get(&DropReason::WrongEndpoint), Some(&1), "{outcome:?}");
    assert!(message(&outcome).contains("OTEL_EXPORTER_OTLP_PROTOCOL"), "{}", message(&outcome));
}

#[tokio::test]
async fn one_refused_request_does_not_stop_the_rest() {
    let receiver = HttpReceiver::start(|number| if number == 1 { answer(400, &[], "") } else { ok() }).await;
    let sender = Sender::new(settings(&receiver.url(), &[])).unwrap();
    let outcome = sender.send([request(1), request(2), request(4)]).await;
    assert_eq!((outcome.sent_requests, outcome.sent_items), (2, 5));
    assert_eq!(outcome.dropped_items_by_reason.get(&DropReason::Refused), Some(&2), "{outcome:?}");
}

#[test]
fn without_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let receiver = runtime.block_on(HttpReceiver::start(|_| ok()));
    let sender = Sender::new(settings(&receiver.url(), &[])).unwrap();
    for _ in 0..2 {
        let outcome = sender.send_blocking([request(2)]).unwrap();
        assert_eq!(outcome.sent_items, 2, "{outcome:?}");
    }
    assert_eq!(sender.send_blocking([]).unwrap(), Outcome::default());
}
