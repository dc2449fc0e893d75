//! So many a second of each service: a bucket that fills by the time of the spans.

use std::num::NonZeroUsize;

use descry_decode::ids::UnixNanos;
use lru::LruCache;

/// Services remembered at most, those met last; some 100 B each. One that comes back begins with a full bucket.
const MAX_SERVICES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
const NANOS_A_SECOND: f64 = 1e9;

/// The buckets. Each holds one second's worth.
#[derive(Debug)]
pub struct RateLimit {
    a_second: f64,
    services: LruCache<String, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    filled: UnixNanos,
}

impl RateLimit {
    /// So many a second.
    pub fn new(a_second: u32) -> Self {
        Self { a_second: a_second.into(), services: LruCache::new(MAX_SERVICES) }
    }

    /// Whether one more of the service may go at this time. Times that go back fill nothing.
    pub fn takes(&mut self, service: &str, now: UnixNanos) -> bool {
        self.takes_at(service, self.a_second, now)
    }

    /// The same for a service with a rate of its own.
    pub fn takes_at(&mut self, service: &str, a_second: f64, now: UnixNanos) -> bool {
        if !self.services.contains(service) {
            self.services.push(service.to_owned(), Bucket { left: a_second, filled: now });
        }
        let Some(bucket) = self.services.get_mut(service) else { return true };
        let elapsed = now.0.saturating_sub(bucket.filled.0) as f64 / NANOS_A_SECOND;
        bucket.left = (bucket.left + elapsed * a_second).min(a_second);
        bucket.filled = bucket.filled.max(now);
        let takes = bucket.left >= 1.0;
        if takes {
            bucket.left -= 1.0;
        }
        takes
    }
}
