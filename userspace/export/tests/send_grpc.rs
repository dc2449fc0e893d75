//! OTLP over gRPC, as a receiver and a user see it.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

mod send_support;

use std::time::{Duration, Instant};

use descry_export::send::{DropReason, Outcome};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceResponse,
};
use send_support::grpc::{GrpcAnswer, GrpcReceiver};
use send_support::{HttpReceiver, answer, message, nobody, request};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

fn ok() -> GrpcAnswer {
    Some(Ok(ExportProfilesServiceResponse::default()))
}

async fn send(endpoint: &str, variables: &[(&str, &str)], profiles: usize) -> Outcome {
    let variables: Vec<_> = [("PROTOCOL", "grpc")].into_iter().chain(variables.iter().copied()).collect();
    send_support::send(endpoint, &variables, profiles).await
}

#[tokio::test]
async fn every_compression_arrives_whole() {
    for (compression, encoding) in [("none", None), ("gzip", Some("gzip")), ("zstd", Some("zstd"))] {
        let receiver = GrpcReceiver::start(|_| ok()).await;
        let variables = [("COMPRESSION", compression), ("HEADERS", "api-key=a%20b,x-tenant=7")];
        let outcome = send(&receiver.url(), &variables, 3).await;
        assert_eq!((outcome.sent_requests, outcome.sent_items), (1, 3), "{outcome:?}");
        assert!(outcome.is_complete() && outcome.retries == 0);
        let seen = receiver.seen.lock().unwrap();
        let (metadata, arrived) = &seen[0];
        assert_eq!(metadata.get("grpc-encoding").map(|value| value.to_str().unwrap()), encoding);
        assert_eq!(metadata.get("api-key").unwrap(), "a b");
        assert_eq!(metadata.get("x-tenant").unwrap(), "7");
        assert!(metadata.get("user-agent").unwrap().to_str().unwrap().starts_with("descry/"));
        assert!(metadata.contains_key("grpc-timeout"));
        assert_eq!(*arrived, request(3));
    }
}

#[tokio::test]
async fn unavailable_then_ok_is_retried() {
    let codes = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unavailable,
        Code::DataLoss,
    ];
    for code in codes {
        let receiver =
            GrpcReceiver::start(
                move |number| if number == 0 { Some(Err(Status::new(code, "later"))) } else { ok() },
            )
            .await;
        let outcome = send(&receiver.url(), &[], 2).await;
        assert_eq!((outcome.sent_items, outcome.retries), (2, 1), "{code:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn retry_info_is_obeyed() {
    let receiver = GrpcReceiver::start(|number| match number {
        0 => {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(900)));
            Some(Err(Status::with_error_details(Code::ResourceExhausted, "slow down", details)))
        }
        _ => ok(),
    })
    .await;
    let begun = Instant::now();
    let outcome = send(&receiver.url(), &[], 1).await;
    assert_eq!((outcome.sent_items, outcome.retries), (1, 1), "{outcome:?}");
    assert!(begun.elapsed() >= Duration::from_millis(900));
}

#[tokio::test]
async fn partial_success_is_counted() {
    let receiver = GrpcReceiver::start(|_| {
        Some(Ok(ExportProfilesServiceResponse {
            partial_success: Some(ExportProfilesPartialSuccess {
                rejected_profiles: 2,
                error_message: "too old".to_owned(),
            }),
        }))
    })
    .await;
    let outcome = send(&receiver.url(), &[("COMPRESSION", "gzip")], 5).await;
    assert_eq!((outcome.sent_items, outcome.rejected_items), (5, 2));
}

async fn check_refused(code: Code, said: &'static str, reason: DropReason) {
    let receiver = GrpcReceiver::start(move |_| Some(Err(Status::new(code, said)))).await;
    let outcome = send(&receiver.url(), &[], 4).await;
    assert_eq!(outcome.dropped_items_by_reason.get(&reason), Some(&4), "{outcome:?}");
    assert_eq!(receiver.seen.lock().unwrap().len(), 1, "{code:?} was retried");
    let message = message(&outcome);
    for part in [&receiver.url(), &format!("{code:?}"), said, "; "] {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
}

#[tokio::test]
async fn refusals_say_why() {
    check_refused(Code::InvalidArgument, "bad stack", DropReason::Refused).await;
    check_refused(Code::ResourceExhausted, "no RetryInfo", DropReason::Refused).await;
    check_refused(Code::Internal, "oops", DropReason::Refused).await;
    check_refused(Code::Unauthenticated, "who?", DropReason::Unauthorized).await;
    check_refused(Code::PermissionDenied, "not you", DropReason::Unauthorized).await;
    check_refused(Code::Unimplemented, "unknown service", DropReason::WrongEndpoint).await;
}

#[tokio::test]
async fn connection_refused_is_tried_until_the_timeout() {
    let endpoint = format!("http://{}", nobody());
    let outcome = send(&endpoint, &[("TIMEOUT", "700")], 1).await;
    assert_eq!(outcome.dropped_items_by_reason.get(&DropReason::Unreachable), Some(&1), "{outcome:?}");
    assert!(outcome.retries >= 1);
    let message = message(&outcome);
    for part in [&endpoint, "cannot connect", "refused", "check that the receiver runs"] {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
}

#[tokio::test]
async fn a_hanging_server_costs_the_timeout() {
    let receiver = GrpcReceiver::start(|_| None).await;
    let outcome = send(&receiver.url(), &[("TIMEOUT", "300")], 1).await;
    assert_eq!(outcome.dropped_items(), 1, "{outcome:?}");
    assert_eq!(outcome.retries, 0);
}

#[tokio::test]
async fn an_oversized_answer_is_refused_and_not_asked_for_again() {
    let receiver = GrpcReceiver::start(|_| {
        Some(Ok(ExportProfilesServiceResponse {
            partial_success: Some(ExportProfilesPartialSuccess {
                rejected_profiles: 0,
                error_message: "x".repeat(1 << 20),
            }),
        }))
    })
    .await;
    // Uncompressed the length says it; compressed it is a bomb.
    for compression in ["none", "gzip", "zstd"] {
        let before = receiver.seen.lock().unwrap().len();
        let outcome = send(&receiver.url(), &[("COMPRESSION", compression)], 1).await;
        assert_eq!(
            outcome.dropped_items_by_reason.get(&DropReason::BadResponse),
            Some(&1),
            "{compression}: {outcome:?}"
        );
        assert!(message(&outcome).contains("larger than"), "{}", message(&outcome));
        assert_eq!(receiver.seen.lock().unwrap().len(), before + 1);
    }
}

#[tokio::test]
async fn another_protocol_on_the_port_is_hinted_at() {
    let http = HttpReceiver::start(|_| answer(200, &[], "")).await;
    let by_grpc = send(&http.url(), &[("TIMEOUT", "900")], 1).await;
    let grpc = GrpcReceiver::start(|_| ok()).await;
    let variables = [("PROTOCOL", "http/protobuf"), ("TIMEOUT", "900")];
    let by_http = send_support::send(&grpc.url(), &variables, 1).await;
    for outcome in [by_grpc, by_http] {
        assert_eq!((outcome.sent_requests, outcome.dropped_items()), (0, 1), "{outcome:?}");
        assert!(message(&outcome).contains("OTEL_EXPORTER_OTLP_PROTOCOL"), "{}", message(&outcome));
    }
}
