//! When to read the configuration again: on SIGHUP, and when its file is another or has changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

/// Between two looks at the file.
const PERIOD: Duration = Duration::from_secs(1);

/// What tells one state of a file from another: device, inode, size, time of change (s, ns).
type Stamp = (u64, u64, u64, i64, i64);

/// Watches the file.
pub struct Changes {
    file: Option<PathBuf>,
    seen: Option<Stamp>,
    looked: Instant,
    hangup: Arc<AtomicBool>,
}

impl Changes {
    /// Listens from now on. Call it before the file is read, so that no change falls in between.
    ///
    /// # Errors
    /// If the system refuses the signal.
    pub fn listen(file: Option<&Path>) -> anyhow::Result<Self> {
        let hangup = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&hangup))
            .context("cannot listen for SIGHUP")?;
        let seen = file.and_then(stamp);
        Ok(Self { file: file.map(Path::to_owned), seen, looked: Instant::now(), hangup })
    }

    /// Whether to read it again. A file that is gone has not changed: somebody may be about to replace it.
    pub fn is_due(&mut self) -> bool {
        let mut is_due = self.hangup.swap(false, Ordering::Relaxed);
        if self.looked.elapsed() >= PERIOD {
            self.looked = Instant::now();
            let now = self.file.as_deref().and_then(stamp);
            if now.is_some() && now != self.seen {
                self.seen = now;
                is_due = true;
            }
        }
        is_due
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()))
}
