//! What waits for a destination: a bounded queue in memory, a spool on disk, and a thread that sends.
//!
//! You give encoded requests to [`Queue::offer`], which never waits for the network. The thread sends the oldest first.
//! What a receiver cannot take now is tried again later, after delays that grow; with a [`Spool`] it waits on disk
//! meanwhile, and so does all that comes after it. Where there is no room the oldest is dropped. The [`Account`] tells
//! what became of every item:
//!
//! ```text
//! queued + restored = sent + dropped + kept + waiting
//! ```
//!
//! Each request is sent at least once, not exactly once: an answer may be lost.

mod account;
mod breaker;
mod delivery;
mod files;
mod worker;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use account::Account;
pub use delivery::{Balancing, Delivery, Make, Otlp};
pub use descry_spool::{AppendError, Lost, Request, Restored, Spool, SpoolError};
pub use files::Files;

/// Dropped: the queue was full, and this was the oldest.
pub const QUEUE_FULL: &str = "queue_full";
/// Dropped: the spool or its disk was full, and this was the oldest.
pub const SPOOL_FULL: &str = "spool_full";
/// Dropped: the spool could not be written.
pub const SPOOL_FAILED: &str = "spool_failed";
/// Dropped: the end came before it could be sent, and there is no spool.
pub const SHUTDOWN: &str = "shutdown";
/// Dropped: the destination was taken out of the configuration, and there is no spool.
pub const REMOVED: &str = "removed";

/// How much waits in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests at most.
    pub requests: usize,
    /// Their bytes at most.
    pub bytes: usize,
}

/// A destination's queue. Dropping it without [`Queue::close`] leaves the thread to send what it has.
#[derive(Debug)]
pub struct Queue {
    shared: Arc<Shared>,
    deadline: watch::Sender<Option<Instant>>,
    thread: Option<JoinHandle<()>>,
}

/// What queue and thread share.
#[derive(Debug)]
struct Shared {
    name: String,
    limits: Limits,
    state: Mutex<State>,
    /// Told of new requests, and of the end.
    news: Condvar,
}

#[derive(Debug)]
struct State {
    memory: VecDeque<Request>,
    bytes: usize,
    /// Items of a request that left the memory and whose fate is not known yet.
    under_way: u64,
    spool: Option<Spool>,
    account: Account,
    /// Until when to go on sending; set by the end.
    deadline: Option<Instant>,
}

impl Queue {
    /// Starts the thread. `before` is the account of a queue that this one takes the place of.
    ///
    /// # Errors
    /// If the system refuses a thread, or what it needs for the network.
    pub fn start(
        name: &str,
        delivery: Delivery,
        limits: Limits,
        spool: Option<(Spool, Restored)>,
        before: Account,
    ) -> std::io::Result<Self> {
        let mut account = before;
        let spool = spool.map(|(spool, restored)| {
            account.restored += restored.items;
            account.damaged_segments += restored.damaged;
            spool
        });
        let state = State { memory: VecDeque::new(), bytes: 0, under_way: 0, spool, account, deadline: None };
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            limits,
            state: Mutex::new(state),
            news: Condvar::new(),
        });
        let (deadline, ended) = watch::channel(None);
        let worker = worker::Worker::new(Arc::clone(&shared), delivery, ended)?;
        let thread = std::thread::Builder::new().name("descry-export".into()).spawn(move || worker.run())?;
        Ok(Self { shared, deadline, thread: Some(thread) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Takes a request. Waits for nothing but the disk.
    pub fn offer(&self, request: Request) {
        let mut state = self.shared.lock();
        state.account.queued += request.items;
        state.put(request, &self.shared.limits);
        drop(state);
        self.shared.news.notify_all();
    }

    /// What became of what was given.
    #[must_use]
    pub fn account(&self) -> Account {
        self.shared.lock().account_now()
    }

    /// Goes on sending for `bound` at most, or until a request fails; then what is left goes to the spool, or is
    /// returned where there is none. The account still counts that as waiting.
    #[must_use]
    pub fn close(mut self, bound: Duration) -> (Account, Vec<Request>) {
        let deadline = Instant::now() + bound;
        self.shared.lock().deadline = Some(deadline);
        self.shared.news.notify_all();
        self.deadline.send_replace(Some(deadline));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(destination = self.shared.name, "the thread of a destination has panicked");
        }
        let mut state = self.shared.lock();
        if state.spool.is_some() {
            state.spill();
        }
        if let Some(spool) = state.spool.take() {
            if let Err(error) = spool.sync() {
                tracing::warn!(destination = self.shared.name, %error, "cannot bring the spool to the disk");
            }
            state.account.kept += spool.items();
        }
        let account = state.account_now();
        state.bytes = 0;
        (account, state.memory.drain(..).collect())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Puts a request where it waits: behind what is on disk, if anything is.
    fn put(&mut self, request: Request, limits: &Limits) {
        let is_full = self.memory.len() >= limits.requests || self.bytes + request.body.len() > limits.bytes;
        let spool_first = self.spool.as_ref().is_some_and(|spool| is_full || !spool.is_empty());
        if spool_first {
            self.write_to_spool(&request);
            return;
        }
        self.bytes += request.body.len();
        self.memory.push_back(request);
        while self.memory.len() > limits.requests || self.bytes > limits.bytes {
            let Some(oldest) = self.memory.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.body.len());
            self.account.drop_items(QUEUE_FULL, oldest.items);
        }
    }

    /// Puts a request that could not be sent back to where it was.
    fn put_back(&mut self, request: Request, limits: &Limits) {
        let is_full = self.memory.len() >= limits.requests || self.bytes + request.body.len() > limits.bytes;
        if is_full {
            self.account.drop_items(QUEUE_FULL, request.items);
        } else {
            self.bytes += request.body.len();
            self.memory.push_front(request);
        }
    }

    /// The oldest request of the memory.
    fn take(&mut self) -> Option<Request> {
        let request = self.memory.pop_front()?;
        self.bytes = self.bytes.saturating_sub(request.body.len());
        Some(request)
    }

    /// Puts all that waits in memory on disk.
    fn spill(&mut self) {
        while let Some(request) = self.take() {
            self.write_to_spool(&request);
        }
    }

    fn write_to_spool(&mut self, request: &Request) {
        let Some(spool) = &mut self.spool else { return };
        let mut lost = Lost::default();
        match spool.append(request, &mut lost) {
            Ok(()) => self.account.spooled += request.items,
            Err(error) => {
                // Once a request: what fails here fails at the pace of what is measured.
                tracing::warn!(%error, items = request.items, "dropped");
                self.account.drop_items(SPOOL_FAILED, request.items);
            }
        }
        self.account.drop_items(SPOOL_FULL, lost.items);
    }

    fn account_now(&self) -> Account {
        let in_memory = self.memory.iter().map(|request| request.items).sum::<u64>() + self.under_way;
        let on_disk = self.spool.as_ref().map_or(0, Spool::items);
        Account {
            waiting: in_memory + on_disk,
            waiting_bytes: self.bytes as u64,
            spool_bytes: self.spool.as_ref().map_or(0, Spool::bytes),
            ..self.account.clone()
        }
    }
}
