//! Sending while something else goes on: a thread of its own with a bounded queue.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{DropReason, Outcome, Sender, SignalRequest};

/// A sender on a thread of its own. Whoever gives it requests never waits for the receiver: what does not fit into the
/// queue is dropped and counted.
#[derive(Debug)]
pub struct Background<R> {
    queue: mpsc::Sender<R>,
    thread: JoinHandle<Outcome>,
    /// Items that found the queue full.
    refused: AtomicU64,
}

impl<R: SignalRequest + Send + 'static> Background<R> {
    /// Starts the thread. At most `capacity` (at least one) requests wait, and as many again are under way.
    ///
    /// # Errors
    /// If the system refuses what it needs (a thread, an epoll instance).
    pub fn start(sender: Sender<R>, capacity: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (queue, requests) = mpsc::channel(capacity.max(1));
        let thread = std::thread::Builder::new()
            .name("send".to_owned())
            .spawn(move || runtime.block_on(run(sender, requests, capacity.max(1))))?;
        Ok(Self { queue, thread, refused: AtomicU64::new(0) })
    }

    /// Gives a request to the thread, or counts its items as dropped.
    pub fn push(&self, request: R) {
        if let Err(TrySendError::Full(request) | TrySendError::Closed(request)) = self.queue.try_send(request)
        {
            self.refused.fetch_add(request.items(), Ordering::Relaxed);
        }
    }

    /// Sends what waits and accounts for everything that was given. It takes no longer than two requests may take:
    /// where one fails that the next would fail like, the rest is dropped.
    pub fn finish(self) -> Outcome {
        drop(self.queue);
        // A panic has been reported on stderr; what it did not count was not sent.
        let mut outcome = self.thread.join().unwrap_or_default();
        let refused = self.refused.into_inner();
        if refused > 0 {
            outcome.drop_items(DropReason::QueueFull, refused);
        }
        outcome
    }
}

/// Sends all that waits at once, so that an endpoint that is gone costs one timeout and not one a request.
async fn run<R: SignalRequest>(
    sender: Sender<R>,
    mut requests: mpsc::Receiver<R>,
    capacity: usize,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut waiting = Vec::with_capacity(capacity);
    while requests.recv_many(&mut waiting, capacity).await > 0 {
        outcome.add(sender.send(waiting.drain(..)).await);
    }
    outcome
}
