//! Ctrl-C and SIGTERM end a measurement early; what was measured is still written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

/// Whether somebody asked to stop.
#[derive(Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens from now on. A second signal of the same kind ends descry at once.
    ///
    /// They reach a thread of their own: the kernel breaks off the verification of a program when a signal comes to who asked
    /// for it, and is asked again then with all that it has to say, which takes seconds.
    pub fn listen() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .with_context(|| format!("cannot listen for signal {signal}"))?;
        }
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        std::thread::Builder::new()
            .name("descry-signals".into())
            .spawn(move || {
                if let Err(error) = signals.thread_unblock() {
                    tracing::warn!(%error, "cannot listen for signals");
                }
                loop {
                    std::thread::park();
                }
            })
            .context("cannot start a thread to listen for signals")?;
        // Of this thread and of those that it starts.
        signals.thread_block().context("cannot block signals")?;
        Ok(Self(flag))
    }

    /// Whether it is time.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
