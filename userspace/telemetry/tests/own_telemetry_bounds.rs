//! A receiver that hangs or is not there does not hold descry up.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

mod receiver;

use std::time::{Duration, Instant};

use descry_telemetry::{Counters, OwnTelemetry};

/// Far above the bound that is asked for, below the exporter's own timeouts.
const PATIENCE: Duration = Duration::from_secs(4);

fn check_shutdown(url: &str) {
    let counters = Counters::default();
    counters.counter("descry.test", "Something to send.").add(1);
    let own = OwnTelemetry::start(url, "1.2.3", &counters).unwrap();
    let begun = Instant::now();
    let error = own.shutdown(Duration::from_millis(500)).unwrap_err().to_string();
    assert!(begun.elapsed() < PATIENCE, "took {:?}", begun.elapsed());
    assert!(error.contains("was not sent"), "{error}");
}

#[test]
fn hanging_receiver() {
    let (url, _) = receiver::start(true);
    check_shutdown(&url);
}

#[test]
fn no_receiver() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check_shutdown(&format!("http://{free}"));
}

#[test]
fn unusable_endpoints_are_refused() {
    for url in ["", "localhost:4318", "ftp://localhost", "http://", "http://localhost:4318/?key=secret"] {
        let error = OwnTelemetry::start(url, "1.2.3", &Counters::default()).unwrap_err().to_string();
        assert!(error.contains("http://HOST:4318"), "{url}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
