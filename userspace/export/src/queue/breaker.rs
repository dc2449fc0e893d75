//! Whether an endpoint is worth trying: after a request that it could not take it is left alone for a while, longer each
//! time. Then one request tries it. Pure: the caller has the clock.

use std::time::{Duration, Instant};

/// How long an endpoint is left alone after the first failure in a row, and at most.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

/// The state of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    /// Until when it is left alone, and for how long that was.
    open: Option<(Instant, Duration)>,
}

impl Breaker {
    /// Whether it may be tried.
    pub fn is_closed(&self, now: Instant) -> bool {
        self.open.is_none_or(|(until, _)| now >= until)
    }

    /// When it may be tried again; now if it may be tried.
    pub fn until(&self, now: Instant) -> Instant {
        self.open.map_or(now, |(until, _)| until.max(now))
    }

    /// It took a request.
    pub fn succeeded(&mut self) {
        self.open = None;
    }

    /// It could not.
    pub fn failed(&mut self, now: Instant) {
        let pause = self.open.map_or(FIRST, |(_, last)| (last * 2).min(LONGEST));
        self.open = Some((now + pause, pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_with_a_success() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::default();
        assert!(breaker.is_closed(start));
        breaker.failed(start);
        assert!(!breaker.is_closed(at(4)) && breaker.is_closed(at(5)));
        breaker.failed(at(5));
        assert!(!breaker.is_closed(at(14)) && breaker.is_closed(at(15)));
        (0..9).for_each(|_| breaker.failed(at(100)));
        assert_eq!(breaker.until(at(100)), at(160));
        breaker.succeeded();
        assert!(breaker.is_closed(at(100)));
    }
}
