//! The queue of a destination under receivers that fail.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

mod send_support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use descry_export::queue::{Account, Balancing, Delivery, Files, Limits, Make, Otlp, Queue, Request, Spool};
use descry_export::send::{Settings, Signal};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use prost::Message;
use send_support::{Answer, HttpReceiver, answer, nobody};

const LIMITS: Limits = Limits { requests: 8, bytes: 1 << 20 };
const BOUND: Duration = Duration::from_secs(5);

fn ok() -> Answer {
    answer(200, &[("content-type", "application/x-protobuf")], "")
}

fn request(profiles: usize) -> Request {
    let body = send_support::request(profiles).encode_to_vec().into();
    Request { signal: Signal::PROFILES, items: profiles as u64, body }
}

/// Settings of any signal.
fn settings(signal: Signal, url: &str, variables: &[(&str, &str)]) -> Settings {
    Settings::with_endpoint(signal, "url", url, |name| {
        let found = variables.iter().find(|(short, _)| name == format!("OTEL_EXPORTER_OTLP_{short}"));
        found.map(|(_, value)| (*value).to_owned())
    })
    .unwrap()
}

fn to(url: &str) -> Delivery {
    let url = url.to_owned();
    let make = move |signal| Ok(settings(signal, &url, &[("TIMEOUT", "500")]));
    Delivery::Otlp(Box::new(Otlp::new(make, Vec::new()).unwrap()))
}

fn start(url: &str, spool: Option<&Path>) -> Queue {
    let spool = spool.map(|directory| Spool::open(directory, 16 << 20).unwrap());
    Queue::start("test", to(url), LIMITS, spool, Account::default()).unwrap()
}

/// Waits for an account that is as wanted.
fn until(queue: &Queue, wanted: impl Fn(&Account) -> bool) -> Account {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let account = queue.account();
        assert!(account.adds_up(), "{account:?}");
        if wanted(&account) {
            return account;
        }
        assert!(Instant::now() < end, "{account:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Profiles that a receiver acknowledged.
fn profiles(receiver: &HttpReceiver) -> u64 {
    let count = |body: &[u8]| {
        let request = ExportProfilesServiceRequest::decode(body).unwrap();
        request.resource_profiles.iter().map(|it| it.scope_profiles[0].profiles.len() as u64).sum::<u64>()
    };
    receiver.seen().iter().map(|seen| count(&seen.plain_body())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_queued_is_sent() {
    let receiver = HttpReceiver::start(|_| ok()).await;
    let queue = start(&receiver.url(), None);
    for _ in 0..5 {
        queue.offer(request(3));
    }
    let (account, left) = queue.close(BOUND);
    assert_eq!((account.queued, account.sent, account.requests), (15, 15, 5), "{account:?}");
    assert!(account.adds_up() && left.is_empty());
    assert_eq!(profiles(&receiver), 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn refused_and_rejected_are_counted() {
    let receiver = HttpReceiver::start(|number| match number {
        0 => answer(400, &[], ""),
        1 => {
            let partial =
                ExportProfilesPartialSuccess { rejected_profiles: 1, error_message: "no".to_owned() };
            let body = ExportProfilesServiceResponse { partial_success: Some(partial) }.encode_to_vec();
            answer(200, &[("content-type", "application/x-protobuf")], body)
        }
        2 => answer(503, &[("retry-after", "0")], ""),
        _ => ok(),
    })
    .await;
    let queue = start(&receiver.url(), None);
    for _ in 0..3 {
        queue.offer(request(2));
    }
    let (account, _) = queue.close(BOUND);
    assert!(account.adds_up(), "{account:?}");
    assert_eq!((account.sent, account.rejected, account.retries), (4, 1, 1), "{account:?}");
    assert_eq!(account.dropped.get("refused"), Some(&2), "{account:?}");
}

/// Without a spool the queue keeps the newest that fit.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_queue_drops_the_oldest() {
    let url = format!("http://{}", nobody());
    let queue = start(&url, None);
    for _ in 0..20 {
        queue.offer(request(1));
    }
    let account = queue.account();
    assert!(account.adds_up(), "{account:?}");
    let dropped = account.dropped.get("queue_full").copied().unwrap_or_default();
    // One may be under way.
    assert!((11..=12).contains(&dropped), "{account:?}");
    let (account, left) = queue.close(Duration::ZERO);
    assert!(account.adds_up(), "{account:?}");
    assert_eq!(left.len() as u64, account.waiting, "what is left is returned");
}

/// The receiver is away for a while: everything is there in the end, and none of it was dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_outage_is_bridged_by_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let is_up = Arc::new(AtomicBool::new(false));
    let (up, acknowledged) = (Arc::clone(&is_up), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&acknowledged);
    let receiver = HttpReceiver::start(move |_| {
        if up.load(Ordering::SeqCst) {
            count.fetch_add(1, Ordering::SeqCst);
            ok()
        } else {
            answer(503, &[], "")
        }
    })
    .await;
    let queue = start(&receiver.url(), Some(directory.path()));
    for _ in 0..30 {
        queue.offer(request(2));
    }
    let account = until(&queue, |account| account.spooled == 60);
    assert_eq!(account.waiting, 60, "{account:?}");
    is_up.store(true, Ordering::SeqCst);
    let account = until(&queue, |account| account.waiting == 0);
    assert_eq!((account.sent, account.requests), (60, 30), "{account:?}");
    assert!(account.dropped.is_empty(), "{account:?}");
    assert_eq!(acknowledged.load(Ordering::SeqCst), 30);
    let (account, _) = queue.close(BOUND);
    assert!(account.adds_up() && account.kept == 0, "{account:?}");
}

/// What cannot be sent before the end is there for the next run.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_end_leaves_the_rest_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let queue = start(&format!("http://{}", nobody()), Some(directory.path()));
    for _ in 0..4 {
        queue.offer(request(2));
    }
    let (account, left) = queue.close(Duration::from_millis(100));
    assert!(account.adds_up(), "{account:?}");
    assert_eq!((account.kept, left.len()), (8, 0), "{account:?}");

    let receiver = HttpReceiver::start(|_| ok()).await;
    let queue = start(&receiver.url(), Some(directory.path()));
    let account = until(&queue, |account| account.sent == 8);
    assert_eq!((account.restored, account.queued), (8, 0), "{account:?}");
    drop(queue.close(BOUND));
    assert_eq!(profiles(&receiver), 8);
}

/// A receiver that never answers does not keep the end waiting for longer than it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_end_is_bounded() {
    let receiver = HttpReceiver::start(|_| None).await;
    let url = receiver.url();
    let make = move |signal| Ok(settings(signal, &url, &[("TIMEOUT", "60000")]));
    let delivery = Otlp::new(make, Vec::new()).unwrap();
    let queue =
        Queue::start("test", Delivery::Otlp(Box::new(delivery)), LIMITS, None, Account::default()).unwrap();
    queue.offer(request(1));
    let began = Instant::now();
    let (account, left) = queue.close(Duration::from_millis(200));
    assert!(began.elapsed() < Duration::from_secs(30), "it waited for the request's own timeout");
    assert_eq!((left.len(), account.waiting), (1, 1), "{account:?}");
}

/// A header's file that changes is read anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn changed_files_are_taken_over() {
    let token = tempfile::NamedTempFile::new().unwrap();
    let path = token.path().to_owned();
    std::fs::write(&path, "first").unwrap();
    let receiver = HttpReceiver::start(|_| ok()).await;
    let (url, file) = (receiver.url(), path.clone());
    let make = move |signal| {
        let list = format!("authorization={}", std::fs::read_to_string(&file).unwrap());
        Ok(settings(signal, &url, &[("HEADERS", &list)]))
    };
    let delivery = Delivery::Otlp(Box::new(Otlp::new(make, vec![path.clone()]).unwrap()));
    let queue = Queue::start("test", delivery, LIMITS, None, Account::default()).unwrap();
    queue.offer(request(1));
    until(&queue, |account| account.sent == 1);
    std::fs::write(&path, "the second").unwrap();
    queue.offer(request(1));
    until(&queue, |account| account.sent == 2);
    let seen = receiver.seen();
    let sent: Vec<&str> = seen.iter().map(|seen| seen.header("authorization")).collect();
    assert_eq!(sent, ["first", "the second"]);
    drop(queue.close(BOUND));
}

/// Several endpoints, in the order in which they are preferred.
fn balanced(urls: &[String], balancing: Balancing) -> Queue {
    let make = |url: &String| {
        let url = url.clone();
        Box::new(move |signal| Ok(settings(signal, &url, &[("TIMEOUT", "500")]))) as Make
    };
    let otlp = Otlp::balanced(urls.iter().map(make).collect(), balancing, Vec::new()).unwrap();
    Queue::start("test", Delivery::Otlp(Box::new(otlp)), LIMITS, None, Account::default()).unwrap()
}

/// While the first endpoint is away the second one gets everything, and the first is left alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_endpoint_takes_over() {
    let receiver = HttpReceiver::start(|_| ok()).await;
    let urls = [format!("http://{}", nobody()), receiver.url()];
    let queue = balanced(&urls, Balancing::Failover);
    for sent in 1..=4 {
        queue.offer(request(1));
        until(&queue, |account| account.sent == sent);
    }
    let (account, _) = queue.close(BOUND);
    assert!(account.adds_up() && account.dropped.is_empty(), "{account:?}");
    assert_eq!((account.circuits_opened, profiles(&receiver)), (1, 4), "{account:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn endpoints_take_turns() {
    let (first, second) = (HttpReceiver::start(|_| ok()).await, HttpReceiver::start(|_| ok()).await);
    let queue = balanced(&[first.url(), second.url()], Balancing::RoundRobin);
    for _ in 0..6 {
        queue.offer(request(1));
    }
    let (account, _) = queue.close(BOUND);
    assert_eq!((account.sent, profiles(&first), profiles(&second)), (6, 3, 3), "{account:?}");
}

/// Each signal has a number in the spool and an endpoint of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_signal_goes_through_the_spool_to_its_endpoint() {
    let directory = tempfile::tempdir().unwrap();
    let signals = [Signal::PROFILES, Signal::METRICS, Signal::TRACES, Signal::LOGS];
    let queue = start(&format!("http://{}", nobody()), Some(directory.path()));
    for signal in signals {
        queue.offer(Request { signal, items: 1, body: Bytes::new() });
    }
    let (account, _) = queue.close(Duration::ZERO);
    assert_eq!(account.kept, 4, "{account:?}");
    let receiver = HttpReceiver::start(|_| ok()).await;
    let queue = start(&receiver.url(), Some(directory.path()));
    until(&queue, |account| account.sent == 4);
    drop(queue.close(BOUND));
    let seen = receiver.seen();
    let paths: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).collect();
    assert_eq!(paths, signals.map(|signal| signal.http_path));
}

/// Lines of JSON in two files of bounded size; a line that was cut by a kill does not spoil the next.
#[test]
fn files_hold_whole_lines_and_stay_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profiles.jsonl");
    std::fs::write(&path, "{\"resourceProfiles\":[]}\n{\"resourcePro").unwrap();
    let limit = 200_000;
    let files = Files::open(directory.path(), limit).unwrap();
    let queue = Queue::start("files", Delivery::Files(files), LIMITS, None, Account::default()).unwrap();
    for sent in 1..=30 {
        queue.offer(request(2));
        until(&queue, |account| account.sent == sent * 2);
    }
    drop(queue.close(BOUND));
    let mut bytes = 0;
    for name in ["profiles.jsonl", "profiles.previous.jsonl"] {
        let text = std::fs::read_to_string(directory.path().join(name)).unwrap();
        bytes += text.len();
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["resourceProfiles"].is_array());
        }
    }
    assert!(bytes as u64 <= limit, "{bytes} bytes");
}
