//! How often the ring is drained: often while much comes, and rarely on a node where nothing happens, since there the
//! drains are what the agent costs.

use std::time::Duration;

use descry_probe::{ProbeError, Wake};

/// Between two drains at least: news in between waits, so that a node that starts processes by the thousand costs no more
/// drains than another.
const LEAST: Duration = Duration::from_millis(50);
/// The same while much comes.
const SHORT: Duration = Duration::from_millis(10);
/// A drain brings much if so many of them would fill the ring, and little if it would take more than so many.
const DRAINS_OF_MUCH: u64 = 16;
const DRAINS_OF_LITTLE: u64 = 64;

/// The time to the next drain.
#[derive(Debug)]
pub struct Pace(Duration);

impl Pace {
    /// Between two drains at most. A window is cut, and a request to end is heard, with a drain.
    pub const LONGEST: Duration = Duration::from_millis(400);

    /// That of an agent that begins: it has everything to learn.
    pub fn new() -> Self {
        Self(SHORT)
    }

    /// Waits for the time of the next drain. A ring that fills does not wait, and neither do processes that begin, once
    /// some time has passed: what is not read of them in time is gone with them.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn wait(&self, wake: &Wake) -> Result<(), ProbeError> {
        wake.when_filling(self.0.min(LEAST))?;
        match self.0.saturating_sub(LEAST) {
            Duration::ZERO => Ok(()),
            rest => wake.when_news(rest),
        }
    }

    /// A drain brought so many bytes of a ring.
    pub fn drained(&mut self, bytes: u64, ring_bytes: u64) {
        self.0 = if bytes > ring_bytes / DRAINS_OF_MUCH {
            SHORT
        } else if bytes < ring_bytes / DRAINS_OF_LITTLE {
            (self.0 * 2).clamp(LEAST, Self::LONGEST)
        } else {
            LEAST
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: u64 = 2 << 20;

    #[test]
    fn drains_become_rare_where_nothing_comes_and_frequent_at_once_where_much_does() {
        let mut pace = Pace::new();
        let after = |pace: &mut Pace, bytes| {
            pace.drained(bytes, RING);
            pace.0.as_millis()
        };
        let quiet: Vec<u128> = (0..6).map(|_| after(&mut pace, 0)).collect();
        assert_eq!(quiet, [50, 100, 200, 400, 400, 400]);
        assert_eq!(after(&mut pace, RING / 2), 10);
        assert_eq!(after(&mut pace, RING / 32), 50);
        assert_eq!(after(&mut pace, RING / 100), 100);
    }
}
