//! The destinations of the configuration and their queues.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use descry_config::{Balancing, Config, Destination, FileOutput, SignalName};
use descry_export::queue::{
    self, Account, Delivery, Files, Limits, Make, Otlp, Queue, REMOVED, Request, SHUTDOWN, Spool,
};
use descry_export::send::{Settings, SettingsError, Signal};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tracing::{error, info};

use crate::counted::Reading;

/// How long a destination that is taken out of the configuration, or changed in it, may go on sending.
const REMOVAL: Duration = Duration::from_secs(5);
/// Bytes of a file with a header's value that are read.
const MAX_HEADER_FILE: usize = 64 << 10;
/// Requests that wait for a destination while it is being changed, at most.
const MAX_CHANGING: usize = 64;

/// One destination, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Of the file.
    Configured(Box<Destination>),
    /// Of the `OTEL_EXPORTER_OTLP_*` variables.
    Environment,
    /// Files, because there is nothing else.
    Files(FileOutput),
}

/// All that there are now.
#[derive(Debug, Default)]
pub struct Destinations(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: Vec<(Target, Queue)>,
    /// What came for those that are being changed.
    changing: Vec<(String, Vec<Request>)>,
    /// The account of those that are not there any more.
    removed: Account,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What a configuration asks for.
pub fn targets(config: &Config) -> Vec<Target> {
    if !config.destinations.is_empty() {
        let configured = config.destinations.iter().cloned().map(Box::new);
        return configured.map(Target::Configured).collect();
    }
    let signals = [Signal::PROFILES, Signal::METRICS, Signal::TRACES, Signal::LOGS];
    if signals.into_iter().any(|signal| Settings::endpoint_is_set(signal, variable)) {
        return vec![Target::Environment];
    }
    vec![Target::Files(config.file.clone())]
}

impl Target {
    /// Its name in logs and metrics.
    pub fn name(&self) -> &str {
        match self {
            Self::Configured(destination) => &destination.name,
            Self::Environment => "environment",
            Self::Files(_) => "files",
        }
    }

    /// Its settings; none: it has none of its own.
    pub fn settings(&self) -> Option<&Destination> {
        match self {
            Self::Configured(destination) => Some(destination),
            Self::Environment | Self::Files(_) => None,
        }
    }

    /// Whether it gets a signal.
    pub fn takes(&self, signal: SignalName) -> bool {
        self.settings().is_none_or(|it| it.signals.is_empty() || it.signals.contains(&signal))
    }

    /// What sends to it: reads certificates and headers, connects to nothing.
    ///
    /// # Errors
    /// Settings that make no sense, files that cannot be read.
    pub fn delivery(&self) -> anyhow::Result<Delivery> {
        Ok(match self {
            Self::Configured(destination) => {
                let files = named_files(destination);
                let urls = std::iter::once(&destination.endpoint).chain(&destination.more_endpoints);
                let makes = urls.map(|url| {
                    let (destination, url) = (destination.clone(), url.0.clone());
                    Box::new(move |signal| settings(&destination, &url, signal)) as Make
                });
                let balancing = match destination.balancing {
                    Balancing::Failover => queue::Balancing::Failover,
                    Balancing::RoundRobin => queue::Balancing::RoundRobin,
                };
                Delivery::Otlp(Box::new(Otlp::balanced(makes.collect(), balancing, files)?))
            }
            Self::Environment => {
                let make = |signal| Settings::from_env(signal, variable);
                Delivery::Otlp(Box::new(Otlp::new(make, Vec::new())?))
            }
            Self::Files(files) => Delivery::Files(Files::open(&files.directory, files.size.0)?),
        })
    }

    /// What can be found wrong with it without touching anything.
    ///
    /// # Errors
    /// As [`Target::delivery`].
    pub fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Files(_) => Ok(()),
            Self::Configured(_) | Self::Environment => self.delivery().map(drop),
        }
    }

    /// Starts its queue, which goes on with the account of an earlier one.
    fn start(&self, before: Account) -> anyhow::Result<Queue> {
        let delivery = self.delivery()?;
        let (limits, spool) = match self {
            Self::Configured(destination) => {
                let (queue, spool) = (&destination.queue, &destination.spool);
                let opened = spool.directory.as_ref().map(|directory| Spool::open(directory, spool.size.0));
                let bytes = usize::try_from(queue.size.0).unwrap_or(usize::MAX);
                (Limits { requests: queue.requests as usize, bytes }, opened.transpose()?)
            }
            Self::Environment | Self::Files(_) => {
                let queue = descry_config::Queue::default();
                let bytes = usize::try_from(queue.size.0).unwrap_or(usize::MAX);
                (Limits { requests: queue.requests as usize, bytes }, None)
            }
        };
        Ok(Queue::start(self.name(), delivery, limits, spool, before)?)
    }
}

/// The settings of a destination, by the names that the environment has for them.
fn settings(destination: &Destination, url: &str, signal: Signal) -> Result<Settings, SettingsError> {
    let headers = header_list(destination)?;
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let look_up = |name: &str| match name.strip_prefix("OTEL_EXPORTER_OTLP_")? {
        "PROTOCOL" => destination.protocol.map(|protocol| protocol.as_str().to_owned()),
        "COMPRESSION" => Some(destination.compression.as_str().to_owned()),
        "HEADERS" => Some(headers.clone()),
        "TIMEOUT" => Some(destination.timeout.0.as_millis().to_string()),
        "CERTIFICATE" => path(&destination.tls.ca),
        "CLIENT_CERTIFICATE" => path(&destination.tls.certificate),
        "CLIENT_KEY" => path(&destination.tls.key),
        _ => None,
    };
    Settings::with_endpoint(signal, "endpoint", url, look_up)
}

/// The headers as the variable has them: `NAME=VALUE,NAME=VALUE`, percent-encoded.
fn header_list(destination: &Destination) -> Result<String, SettingsError> {
    let member = |name: &str, value: &str| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    let mut members: Vec<String> =
        destination.headers.iter().map(|(name, value)| member(name, value)).collect();
    for (name, file) in &destination.header_files {
        let unusable = |reason: String| SettingsError::Invalid {
            variable: format!("header_files.{name}"),
            reason: format!("{} {reason}", file.display()),
            remedy: "give a readable file that holds the value",
        };
        let value =
            std::fs::read_to_string(file).map_err(|error| unusable(format!("cannot be read: {error}")))?;
        if value.len() > MAX_HEADER_FILE {
            return Err(unusable(format!("is larger than {MAX_HEADER_FILE} bytes")));
        }
        members.push(member(name, value.trim()));
    }
    Ok(members.join(","))
}

fn named_files(destination: &Destination) -> Vec<PathBuf> {
    let tls = [&destination.tls.ca, &destination.tls.certificate, &destination.tls.key];
    destination.header_files.values().chain(tls.into_iter().flatten()).cloned().collect()
}

impl Destinations {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens those of the first configuration.
    ///
    /// # Errors
    /// The first one that cannot be opened.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let mut open = Vec::new();
        for target in targets(config) {
            let queue = target
                .start(Account::default())
                .map_err(|error| error.context(format!("destination {}", target.name())))?;
            open.push((target, queue));
        }
        Ok(Self(Mutex::new(State { open, ..State::default() })))
    }

    /// What comes for the destinations of another configuration waits until [`Destinations::set`] has opened them.
    pub fn expect(&self, config: &Config) {
        let mut state = self.lock();
        for target in targets(config) {
            let is_there = state.open.iter().any(|(known, _)| *known == target)
                || state.changing.iter().any(|(name, _)| name == target.name());
            if !is_there {
                state.changing.push((target.name().to_owned(), Vec::new()));
            }
        }
    }

    /// Takes over another configuration. What did not change goes on undisturbed; what waits in the memory of a changed
    /// one is given to its successor of the same name.
    pub fn set(&self, config: &Config) {
        let mut wanted = targets(config);
        self.expect(config);
        let gone = {
            let mut state = self.lock();
            let all = std::mem::take(&mut state.open);
            let (kept, gone): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|(known, _)| wanted.contains(known));
            wanted.retain(|target| !kept.iter().any(|(known, _)| known == target));
            state.open = kept;
            gone
        };
        // Not under the lock: closing may take a while, and others read the accounts.
        let mut left: Vec<(String, Account, Vec<Request>)> = Vec::new();
        for (_, queue) in gone {
            let name = queue.name().to_owned();
            info!(destination = name, "closing");
            let (account, requests) = queue.close(REMOVAL);
            left.push((name, account, requests));
        }
        for target in wanted {
            let name = target.name();
            let before =
                left.iter().position(|(known, ..)| known == name).map(|place| left.swap_remove(place));
            let (account, requests) =
                before.map_or_else(Default::default, |(_, account, requests)| (account, requests));
            // The successor opens the spool and finds there what is kept.
            let mut successor = account.clone();
            successor.waiting = 0;
            successor.queued -=
                requests.iter().map(|request| request.items).sum::<u64>().min(successor.queued);
            match target.start(successor) {
                Ok(queue) => {
                    info!(destination = name, "opened");
                    requests.into_iter().for_each(|request| queue.offer(request));
                    let mut state = self.lock();
                    let came = state.changing.iter_mut().find(|(name, _)| name == target.name());
                    let came = came.map(|(_, requests)| std::mem::take(requests)).unwrap_or_default();
                    came.into_iter().for_each(|request| queue.offer(request));
                    state.open.push((target, queue));
                }
                Err(error) => {
                    error!(destination = name, error = format!("{error:#}"), "cannot be opened");
                    left.push((name.to_owned(), account, requests));
                }
            }
        }
        let mut state = self.lock();
        for (_, account, requests) in left {
            state.removed.add(&given_up(account, &requests, REMOVED));
        }
        for (_, requests) in std::mem::take(&mut state.changing) {
            requests.iter().for_each(|request| state.removed.never_queued(REMOVED, request.items));
        }
    }

    /// Gives a request to each that takes its signal. Called by the thread that calls [`Destinations::set`].
    pub fn offer(&self, request: &Request) {
        let name = name_of(request.signal);
        for (_, queue) in self.lock().open.iter().filter(|(target, _)| target.takes(name)) {
            queue.offer(request.clone());
        }
    }

    /// Gives a request to one. While that is being changed, it waits.
    pub fn offer_to(&self, name: &str, request: Request) {
        let mut state = self.lock();
        if let Some((_, queue)) = state.open.iter().find(|(target, _)| target.name() == name) {
            return queue.offer(request);
        }
        let State { changing, removed, .. } = &mut *state;
        match changing.iter_mut().find(|(changing, _)| changing == name) {
            Some((_, requests)) if requests.len() < MAX_CHANGING => requests.push(request),
            _ => removed.never_queued(REMOVED, request.items),
        }
    }

    /// Ends all of them within about `bound`.
    pub fn close(&self, bound: Duration) {
        let open = std::mem::take(&mut self.lock().open);
        let end = Instant::now() + bound;
        for (_, queue) in open {
            let (account, requests) = queue.close(end.saturating_duration_since(Instant::now()));
            self.lock().removed.add(&given_up(account, &requests, SHUTDOWN));
        }
    }

    /// The account of each, by name.
    pub fn accounts(&self) -> Vec<(String, Account)> {
        self.lock().open.iter().map(|(target, queue)| (target.name().to_owned(), queue.account())).collect()
    }

    /// All accounts together, as counters.
    pub fn readings(&self) -> [Reading; 9] {
        let state = self.lock();
        let mut all = state.removed.clone();
        state.open.iter().for_each(|(_, queue)| all.add(&queue.account()));
        let dropped = all.dropped.values().sum();
        [
            ("descry.export.queued", "Items given to the queues of destinations.", all.queued),
            ("descry.export.restored", "Items found in the spools of an earlier run.", all.restored),
            ("descry.export.sent", "Items that receivers acknowledged.", all.sent),
            (
                "descry.export.rejected",
                "Of the items sent, those that receivers said they rejected.",
                all.rejected,
            ),
            ("descry.export.spooled", "Items written to a spool.", all.spooled),
            ("descry.export.dropped", "Items given up; /metrics has them by reason.", dropped),
            ("descry.export.retries", "Attempts to send after the first of a request.", all.retries),
            (
                "descry.export.circuits_opened",
                "Times that one of several endpoints was left alone for a while because a request to it failed.",
                all.circuits_opened,
            ),
            (
                "descry.export.damaged_segments",
                "Parts of spools that end in a record that is not whole.",
                all.damaged_segments,
            ),
        ]
    }
}

fn name_of(signal: Signal) -> SignalName {
    match signal {
        Signal::METRICS => SignalName::Metrics,
        Signal::TRACES => SignalName::Traces,
        Signal::LOGS => SignalName::Logs,
        _ => SignalName::Profiles,
    }
}

/// The account when what was left in memory is given up.
fn given_up(mut account: Account, left: &[Request], reason: &'static str) -> Account {
    let items = left.iter().map(|request| request.items).sum();
    account.waiting = account.waiting.saturating_sub(items);
    account.drop_items(reason, items);
    account
}
