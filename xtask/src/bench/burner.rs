//! Somebody who uses the processor and does nothing else: what that alone costs the others.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// Of each of these it works one part and sleeps the rest, as whoever empties a ring now and then.
const PERIOD: Duration = Duration::from_millis(1);

/// Burns until it is dropped.
pub struct Burner {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Burner {
    /// Takes this part of one processor, 0 to 1.
    pub fn start(share: f64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let work = PERIOD.mul_f64(share.clamp(0.0, 1.0));
        let is_over = Arc::clone(&stop);
        let thread = spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                while began.elapsed() < work {
                    spin_loop();
                }
                sleep(PERIOD.saturating_sub(began.elapsed()));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It cannot panic.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
