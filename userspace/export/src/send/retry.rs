//! When to try again: the OTLP specification's retry rules ("Failures", "OTLP/HTTP Throttling",
//! "OTLP/gRPC Throttling"). Pure; the caller brings the time.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::attempt::Retry;

/// First and longest delay of the back-off, before jitter.
pub(super) const SHORTEST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The delays between attempts: doubling, each with a random part of up to its own length added.
/// Endless; the deadline ends the attempts.
pub(super) fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(SHORTEST_DELAY)
        .with_max_delay(LONGEST_DELAY)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Whether an HTTP status may pass, and when: 429, 502, 503 and 504 only.
pub(super) fn of_http(status: http::StatusCode, retry_after: Option<&str>, now: SystemTime) -> Retry {
    match status.as_u16() {
        429 | 502 | 503 | 504 => match retry_after.and_then(|text| parse_retry_after(text, now)) {
            Some(delay) => Retry::After(delay),
            None => Retry::Backoff,
        },
        _ => Retry::Never,
    }
}

/// Whether a gRPC status may pass, and when. RESOURCE_EXHAUSTED only if the server says when.
pub(super) fn of_grpc(status: &Status) -> Retry {
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => asked.map_or(Retry::Backoff, Retry::After),
        Code::ResourceExhausted => asked.map_or(Retry::Never, Retry::After),
        _ => Retry::Never,
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or an HTTP date, which has passed if it lies
/// before `now`. Nonsense is as if absent.
fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    /// 1994-11-06 08:49:37 UTC, the example of RFC 9110.
    const NOW_SECONDS: u64 = 784_111_777;

    fn check_http(status: u16, retry_after: Option<&str>, expected: Retry) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_SECONDS);
        let status = http::StatusCode::from_u16(status).unwrap();
        assert_eq!(of_http(status, retry_after, now), expected, "{status} {retry_after:?}");
    }

    #[test]
    fn http_statuses() {
        for status in [429, 502, 503, 504] {
            check_http(status, None, Retry::Backoff);
        }
        for status in [301, 400, 401, 403, 404, 408, 413, 500, 501, 505] {
            check_http(status, Some("1"), Retry::Never);
        }
        check_http(503, Some(" 7 "), Retry::After(Duration::from_secs(7)));
        check_http(429, Some("Sun, 06 Nov 1994 08:49:42 GMT"), Retry::After(Duration::from_secs(5)));
        check_http(429, Some("Sun, 06 Nov 1994 08:49:00 GMT"), Retry::After(Duration::ZERO));
        check_http(429, Some("-1"), Retry::Backoff);
        check_http(429, Some("soon"), Retry::Backoff);
    }

    #[test]
    fn grpc_statuses() {
        let asked = |code| {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(1500)));
            of_grpc(&Status::with_error_details(code, "", details))
        };
        for code in (0..=16).map(Code::from) {
            let (plain, with_retry_info) = match code {
                Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss => (Retry::Backoff, Retry::After(Duration::from_millis(1500))),
                Code::ResourceExhausted => (Retry::Never, Retry::After(Duration::from_millis(1500))),
                _ => (Retry::Never, Retry::Never),
            };
            assert_eq!(of_grpc(&Status::new(code, "")), plain, "{code:?}");
            assert_eq!(asked(code), with_retry_info, "{code:?}");
        }
    }

    #[test]
    fn backoff_grows_within_its_limits() {
        let delays: Vec<_> = backoff().take(40).collect();
        assert_eq!(delays.len(), 40);
        assert!(delays.iter().all(|delay| (SHORTEST_DELAY..=LONGEST_DELAY * 2).contains(delay)));
    }
}
