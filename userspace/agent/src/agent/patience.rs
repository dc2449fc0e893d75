//! Which binaries are worth to be read again for the names of a few new places.
//!
//! To name one place in a binary its debug information is decompressed, checked and searched: a tenth of a second for a C
//! library, seconds for a large program. On an idle node each window has one or two places that are new, and their names
//! would be most of what the agent uses. So those of a binary whose debug information took long wait until there are enough
//! of them; meanwhile its symbol table names them, without files, lines and inlined functions.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use descry_process::object::ObjectId;
use lru::LruCache;

/// Binaries that are remembered.
const MAX_OBJECTS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// A binary that is read sooner than that is read for each place.
const SHORT: Duration = Duration::from_millis(10);
/// New places that are worth a second of reading.
const PLACES_A_SECOND: f64 = 100.0;
/// Times as long as the reading took few places wait at most: it takes a thousandth of a processor then.
const REST: u32 = 1000;

/// What reading a binary took, and who waits for it.
#[derive(Clone, Copy)]
struct Reading {
    took: Duration,
    at: Instant,
    /// Places that were named by the symbol table since then.
    waiting: usize,
}

/// Remembers it.
pub struct Patience(LruCache<ObjectId, Reading>);

impl Default for Patience {
    fn default() -> Self {
        Self(LruCache::new(MAX_OBJECTS))
    }
}

impl Patience {
    /// Whether so many new places of a binary have to wait.
    pub fn asks(&mut self, object: ObjectId, places: usize, now: Instant) -> bool {
        let Some(reading) = self.0.get_mut(&object) else { return false };
        reading.waiting = reading.waiting.saturating_add(places);
        let is_worth_it = reading.waiting as f64 >= reading.took.as_secs_f64() * PLACES_A_SECOND;
        let has_rested = now.saturating_duration_since(reading.at) >= reading.took.saturating_mul(REST);
        !is_worth_it && !has_rested
    }

    /// A binary was read with its debug information.
    pub fn read(&mut self, object: ObjectId, took: Duration, now: Instant) {
        if took >= SHORT {
            self.0.put(object, Reading { took, at: now, waiting: 0 });
        } else {
            self.0.pop(&object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_places_wait_for_others_or_for_a_while() {
        let (mut patience, object) = (Patience::default(), ObjectId(1));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!patience.asks(object, 1, start), "it was never read");
        patience.read(object, Duration::from_millis(100), start);
        assert!(patience.asks(object, 6, after(10)));
        assert!(patience.asks(object, 3, after(20)));
        assert!(!patience.asks(object, 1, after(30)), "ten are worth a tenth of a second");
        patience.read(object, Duration::from_millis(100), after(30));
        assert!(patience.asks(object, 1, after(129)));
        assert!(!patience.asks(object, 1, after(131)), "it has rested for long");
        patience.read(object, Duration::from_millis(9), after(131));
        assert!(!patience.asks(object, 1, after(132)), "it is read soon");
    }
}
