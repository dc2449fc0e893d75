//! The thread of a destination.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use descry_spool::{Lost, Request};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tracing::{info, warn};

use super::delivery::{Delivery, Effort, Verdict};
use super::{SPOOL_FAILED, SPOOL_FULL, Shared, State};

/// First and longest delay after a request that could not be sent, before jitter. The sender has tried for its timeout.
const SHORTEST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Sends what waits.
pub(super) struct Worker {
    shared: Arc<Shared>,
    delivery: Delivery,
    ended: watch::Receiver<Option<Instant>>,
    runtime: Runtime,
}

/// Where a request was taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Memory,
    Spool,
}

impl Worker {
    pub fn new(
        shared: Arc<Shared>,
        delivery: Delivery,
        ended: watch::Receiver<Option<Instant>>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Self { shared, delivery, ended, runtime })
    }

    /// Until the end is asked for, and all is sent, the time is over or a request fails.
    pub fn run(mut self) {
        let mut delays = backoff();
        let mut is_failing = false;
        while let Some((request, source)) = self.next() {
            let mut effort = Effort::default();
            let verdict = self.send(&request, &mut effort);
            let mut state = self.shared.lock();
            state.account.retries += effort.retries;
            state.account.circuits_opened += effort.circuits_opened;
            if source == Source::Memory {
                state.under_way = 0;
            }
            match verdict {
                Verdict::Sent { rejected } => {
                    state.account.sent += request.items;
                    state.account.rejected += rejected;
                    state.account.requests += 1;
                    self.mark_done(&mut state, source);
                    if is_failing {
                        info!(destination = self.shared.name, "sending works again");
                    }
                    (delays, is_failing) = (backoff(), false);
                }
                Verdict::Refused { reason, detail } => {
                    state.account.drop_items(reason, request.items);
                    self.mark_done(&mut state, source);
                    warn!(destination = self.shared.name, items = request.items, detail, "dropped");
                    (delays, is_failing) = (backoff(), false);
                }
                Verdict::Later { detail } => {
                    if !is_failing {
                        warn!(destination = self.shared.name, detail, "cannot send; it waits");
                    }
                    is_failing = true;
                    self.keep(&mut state, request, source);
                    if !self.pause(state, delays.next().unwrap_or(LONGEST_DELAY)) {
                        return;
                    }
                }
            }
        }
    }

    /// The next request; none: it is time to end.
    fn next(&self) -> Option<(Request, Source)> {
        let mut state = self.shared.lock();
        loop {
            if state.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
            // What is in memory is older than what is on disk, or there is nothing on disk.
            if let Some(request) = state.take() {
                state.under_way = request.items;
                return Some((request, Source::Memory));
            }
            if let Some(request) = self.next_of_spool(&mut state) {
                return Some((request, Source::Spool));
            }
            if state.deadline.is_some() {
                return None;
            }
            state = self.shared.news.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn next_of_spool(&self, state: &mut State) -> Option<Request> {
        let State { spool, account, .. } = state;
        let spool = spool.as_mut()?;
        loop {
            let mut lost = Lost::default();
            let next = spool.next(&mut lost);
            account.drop_items(SPOOL_FAILED, lost.items);
            match next {
                Ok(request) => return request,
                // The part that cannot be read was dropped; what comes after it may be readable.
                Err(error) => {
                    warn!(destination = self.shared.name, %error, "cannot read a part of the spool");
                }
            }
        }
    }

    /// Sends, but not for longer than the end allows.
    fn send(&mut self, request: &Request, effort: &mut Effort) -> Verdict {
        let Self { delivery, ended, runtime, .. } = self;
        runtime.block_on(async {
            tokio::select! {
                verdict = delivery.send(request, effort) => verdict,
                () = over(ended) => Verdict::Later { detail: "the end came first".to_owned() },
            }
        })
    }

    fn mark_done(&self, state: &mut State, source: Source) {
        if source == Source::Spool
            && let Some(spool) = &mut state.spool
            && let Err(error) = spool.done()
        {
            warn!(destination = self.shared.name, %error, "a request is sent that the spool may send again");
        }
    }

    /// Keeps a request that could not be sent, on disk if it can be: then descry may be killed.
    fn keep(&self, state: &mut State, request: Request, source: Source) {
        match source {
            Source::Spool => {
                let mut lost = Lost::default();
                if let Some(spool) = &mut state.spool {
                    spool.give_back(&mut lost);
                }
                state.account.drop_items(SPOOL_FULL, lost.items);
            }
            Source::Memory if state.spool.is_some() => {
                state.write_to_spool(&request);
                state.spill();
            }
            Source::Memory => state.put_back(request, &self.shared.limits),
        }
    }

    /// Waits until it is time to try again; false: it is time to end.
    fn pause(&self, state: std::sync::MutexGuard<'_, State>, delay: Duration) -> bool {
        let is_over = |state: &mut State| state.deadline.is_none();
        let waited = self.shared.news.wait_timeout_while(state, delay, is_over);
        let (state, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        state.deadline.is_none()
    }
}

/// Ends when the end was asked for and its time is over.
async fn over(ended: &mut watch::Receiver<Option<Instant>>) {
    match ended.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline) {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        // Nobody is left who could ask for it.
        None => std::future::pending().await,
    }
}

/// Doubling delays, each with a random part of up to its own length added.
fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(SHORTEST_DELAY)
        .with_max_delay(LONGEST_DELAY)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}
