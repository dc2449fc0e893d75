//! `descry agent`: measures a machine all the time and sends what it measures, until it is told to end.
//!
//! ```text
//! main thread            ring -> tracker -> recorder --- a window ---> descry-windows: names, requests
//!   configuration, signals                   |                            |
//!                                spans, log records                       |
//!                                            +-> outlets -> a queue and a thread for each destination
//! descry-health          /healthz /readyz /metrics
//! ```

mod destinations;
mod exclusions;
mod functions;
mod health;
mod kernel;
mod lives;
mod metrics;
mod names;
mod outlets;
mod own;
mod pace;
mod patience;
mod processes;
mod recorder;
mod reload;
mod requests;
mod rights;
mod rules;
mod samples;
mod scraped;
mod seccomp;
mod shares;
mod window;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use descry_config::{Config, Loaded, Problem, Problems, Step};
use descry_probe::give_code_back;
use descry_process::identity::ResourceOptions;
use descry_telemetry::Counters;
use tokio::sync::mpsc::{self, error::TrySendError};
use tracing::{debug, error, info, warn};

use crate::cli::{AgentArgs, Own};
use crate::config;
use crate::counted::{self, Reading};
use crate::failure::Failure;
use crate::measure::{Consumer, Watch, raise_open_files};
use crate::stop::Stop;
use destinations::Destinations;
use health::{Health, Server};
use metrics::{Metrics, Sources};
use outlets::Outlets;
use pace::Pace;
use processes::{Processes, ProcessesCounters};
use recorder::Recorder;
use reload::Changes;
use scraped::Scraped;
use window::{Exporter, Message, WindowCounters};

/// How long what waits may still be sent at the end.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Runs the command.
pub fn run(args: &AgentArgs, own: &Own) -> Result<ExitCode, Failure> {
    let changes = Changes::listen(args.config.as_deref())?;
    let loaded = load(args.config.as_deref())?;
    raise_open_files();
    let dropped = rights::drop_unneeded();
    let endpoint = loaded.config.telemetry.endpoint.as_ref().map(|url| url.0.as_str());
    let telemetry = own.start_service(endpoint)?;
    if let Err(error) = dropped {
        warn!(error = format!("{error:#}"), "the agent keeps more rights than it needs");
    }
    let result =
        Agent::start(args.config.clone(), loaded.config, changes, telemetry.counters()).and_then(|agent| {
            if let Err(error) = seccomp::forbid() {
                warn!(
                    error = format!("{error:#}"),
                    "system calls that the agent never makes are not forbidden"
                );
            }
            agent.run(&Stop::listen()?)
        });
    telemetry.end();
    result.map(|()| ExitCode::SUCCESS)
}

/// The agent's own counters, none of which has counted anything yet.
pub fn counters() -> impl Iterator<Item = Reading> {
    Recorder::no_counters()
        .chain(WindowCounters::default().entries())
        .chain(ProcessesCounters::default().entries())
        .chain(Destinations::default().readings())
}

/// Reads and checks the configuration.
fn load(file: Option<&Path>) -> Result<Loaded, Failure> {
    let loaded = config::load(file)?.and_then(check);
    loaded.map_err(|problems| {
        let name = file.map_or_else(String::new, |file| file.display().to_string());
        Failure::Failed(anyhow::anyhow!("the configuration is wrong:\n{}", problems.lines(&name).join("\n")))
    })
}

/// Finds what is wrong with the destinations' settings, beside what the file alone shows.
///
/// # Errors
/// What is wrong.
pub fn check(loaded: Loaded) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    for (index, target) in destinations::targets(&loaded.config).iter().enumerate() {
        if let Err(error) = target.check() {
            let path = vec![Step::Key("destinations".to_owned()), Step::Item(index)];
            problems.push(Problem { origin: loaded.origin(&path), path, reason: format!("{error:#}") });
        }
    }
    if let Err(error) = requests::check_routes(&loaded.config.requests.routes) {
        let path = vec![Step::Key("requests".to_owned()), Step::Key("routes".to_owned())];
        problems.push(Problem { origin: loaded.origin(&path), path, reason: format!("{error:#}") });
    }
    if let Err(error) = functions::patterns(&loaded.config.functions.names) {
        let path = vec![Step::Key("functions".to_owned()), Step::Key("names".to_owned())];
        problems.push(Problem { origin: loaded.origin(&path), path, reason: format!("{error:#}") });
    }
    if problems.is_empty() { Ok(loaded) } else { Err(Problems::new(problems)) }
}

/// The running agent.
struct Agent {
    file: Option<PathBuf>,
    config: Config,
    changes: Changes,
    counters: Counters,
    watch: Option<Watch>,
    recorder: Recorder,
    /// Bytes of its ring.
    ring_bytes: u32,
    /// How often the kernel side was loaded.
    generation: u64,
    /// What was counted before it was loaded last.
    past: BTreeMap<&'static str, u64>,
    messages: mpsc::Sender<Message>,
    exporter: JoinHandle<()>,
    /// A configuration that the exporter does not know yet.
    untold: Option<Box<Config>>,
    health: Arc<Health>,
    server: Option<Server>,
    destinations: Arc<Destinations>,
    processes: Arc<Processes>,
    scraped: Arc<Scraped>,
}

impl Agent {
    fn start(
        file: Option<PathBuf>,
        config: Config,
        changes: Changes,
        counters: &Counters,
    ) -> Result<Self, Failure> {
        let destinations = Arc::new(Destinations::open(&config)?);
        for (name, _) in destinations.accounts() {
            info!(destination = name, "sending");
        }
        let processes = Arc::new(Processes::new()?);
        // One window waits while another is worked on; more would be memory without end.
        let (messages, received) = mpsc::channel(1);
        let exporter = Exporter::new(Arc::clone(&destinations), Arc::clone(&processes), counters.clone());
        let exporter = std::thread::Builder::new()
            .name("descry-windows".into())
            .spawn(move || exporter.run(received, SHUTDOWN))
            .context("cannot start a thread")?;
        let mut agent = Self {
            recorder: Recorder::new(&config, Outlets::new(&config, Arc::clone(&destinations)))?,
            file,
            config,
            changes,
            counters: counters.clone(),
            watch: None,
            ring_bytes: 0,
            generation: 0,
            past: BTreeMap::new(),
            messages,
            exporter,
            untold: None,
            health: Arc::new(Health::new()),
            server: None,
            destinations,
            processes,
            scraped: Arc::default(),
        };
        agent.serve()?;
        agent.measure()?;
        Ok(agent)
    }

    fn run(mut self, stop: &Stop) -> Result<(), Failure> {
        if let Err(error) = give_code_back() {
            debug!(%error, "what the start needed stays in memory");
        }
        // Not before it has given up the rights that only its start needs.
        self.health.set_ready(true);
        let mut pace = Pace::new();
        while !stop.is_asked() {
            self.health.is_alive();
            match &mut self.watch {
                Some(watch) => {
                    pace.wait(&watch.wake)?;
                    let bytes = watch.drain(&mut self.recorder)?;
                    pace.drained(bytes, self.ring_bytes.into());
                }
                None => std::thread::sleep(Pace::LONGEST),
            }
            if self.recorder.age() >= self.config.profile.window.0 {
                self.hand_on()?;
            }
            if self.changes.is_due() {
                self.reload()?;
            }
            self.tell();
        }
        info!("ending: what waits is sent");
        self.end()
    }

    /// Serves health where the configuration says. A server that stands stays until its successor does.
    fn serve(&mut self) -> anyhow::Result<()> {
        let wanted = self.config.health.enabled.then_some(self.config.health.address.0);
        if self.server.as_ref().map(Server::address) == wanted {
            return Ok(());
        }
        let metrics = Metrics::new(Sources {
            counters: self.counters.clone(),
            destinations: Arc::clone(&self.destinations),
            processes: Arc::clone(&self.processes),
            scraped: Arc::clone(&self.scraped),
        });
        let start = |address| Server::start(address, Arc::clone(&self.health), metrics);
        self.server = wanted.map(start).transpose()?;
        Ok(())
    }

    /// Loads and attaches what the configuration asks for.
    fn measure(&mut self) -> Result<(), Failure> {
        let Config { profile, off_cpu, requests, syscalls, functions, logs, .. } = &self.config;
        let functions = !functions.names.is_empty();
        let asked =
            [profile.enabled, off_cpu.enabled, requests.enabled, syscalls.enabled, functions, logs.enabled];
        if asked.contains(&true) {
            let resource_options = ResourceOptions { command_arguments: self.config.resource.command_args };
            self.generation += 1;
            self.recorder.begin(&self.config)?;
            let options = kernel::options(&self.config)?;
            self.ring_bytes = options.ring_bytes;
            let mut watch = Watch::start(&options, &[], resource_options, &mut self.recorder)?;
            // What takes longest comes before the first sample: nobody empties the ring meanwhile.
            self.recorder.ready(&mut watch.session, &mut watch.tracker)?;
            if profile.enabled {
                watch.session.sample_cpus()?;
            }
            if off_cpu.enabled {
                watch.session.start_off_cpu()?;
            }
            if syscalls.enabled {
                watch.session.attach_syscalls()?;
            }
            self.watch = Some(watch);
            info!(
                profile = profile.enabled,
                off_cpu = off_cpu.enabled,
                requests = requests.enabled,
                syscalls = syscalls.enabled,
                functions,
                logs = logs.enabled,
                "measuring"
            );
        }
        Ok(())
    }

    /// Ends the window if there is room for it, else lets it grow: it is bounded, and no sample is lost.
    fn hand_on(&mut self) -> Result<(), Failure> {
        if let Some(watch) = &mut self.watch
            && !self.recorder.is_complete(&mut watch.session)?
        {
            return Ok(());
        }
        let room = match self.messages.clone().try_reserve_owned() {
            Ok(room) => room,
            Err(TrySendError::Full(_)) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(windows_gone()),
        };
        self.publish()?;
        self.recorder.show(&self.scraped);
        if let Some(Watch { session, tracker, .. }) = &mut self.watch {
            let window = self.recorder.cut(session, tracker, self.generation, &self.config)?;
            room.send(Message::Window(Box::new(window)));
        }
        Ok(())
    }

    /// Tells the exporter a new configuration, when there is room.
    fn tell(&mut self) {
        let Some(config) = self.untold.take() else { return };
        if let Err(TrySendError::Full(Message::Reload(config))) =
            self.messages.try_send(Message::Reload(config))
        {
            self.untold = Some(config);
        }
    }

    /// Measures no more. The last window is handed on, however long the exporter takes.
    fn stop_measuring(&mut self) -> Result<(), Failure> {
        if let Some(watch) = &mut self.watch {
            watch.session.stop_sampling()?;
            self.recorder.time_is_up(&mut watch.session)?;
            watch.drain(&mut self.recorder)?;
            let Watch { session, tracker, .. } = watch;
            self.recorder.ending(session, tracker)?;
            self.recorder.finish();
            let window = self.recorder.cut(session, tracker, self.generation, &self.config)?;
            self.publish()?;
            self.past = self.counters.snapshot().into_iter().map(|it| (it.name, it.value)).collect();
            self.watch = None;
            self.messages.blocking_send(Message::Window(Box::new(window))).map_err(|_| windows_gone())?;
        }
        Ok(())
    }

    /// Takes over the configuration as it is now, if it is valid and another one.
    fn reload(&mut self) -> Result<(), Failure> {
        let new = match load(self.file.as_deref()) {
            Ok(loaded) => loaded.config,
            Err(failure) => {
                error!(reason = %failure, "the new configuration is refused, the old one stays");
                return Ok(());
            }
        };
        let old = std::mem::replace(&mut self.config, new);
        if old == self.config {
            info!("the configuration is as it was");
            return Ok(());
        }
        self.recorder.set_rules(&self.config)?;
        if destinations::targets(&old) != destinations::targets(&self.config) {
            self.destinations.expect(&self.config);
            self.recorder.outlets().set(&self.config);
            self.untold = Some(Box::new(self.config.clone()));
        }
        if let Err(error) = self.serve() {
            error!(error = format!("{error:#}"), "health stays where it was");
            self.config.health = old.health.clone();
        }
        if kernel::needs_loading(&old, &self.config) {
            let new = std::mem::replace(&mut self.config, old.clone());
            self.stop_measuring()?;
            self.config = new;
            if let Err(failure) = self.measure() {
                error!(reason = %failure, "what is measured cannot be changed, it stays as it was");
                let Config { destinations, file, health, rules, others, .. } = self.config.clone();
                self.config = Config { destinations, file, health, rules, others, ..old.clone() };
                self.measure()?;
            }
        }
        if old.telemetry != self.config.telemetry {
            warn!("telemetry is read at the start only: restart the agent");
        }
        info!("the new configuration is in use");
        Ok(())
    }

    /// Sends what there is, within a bound, and ends.
    fn end(mut self) -> Result<(), Failure> {
        self.health.set_ready(false);
        self.stop_measuring()?;
        // Closing the channel ends the thread when it has done what is in it.
        drop(self.messages);
        self.exporter.join().map_err(|_| windows_gone())
    }

    /// Brings the counters of this thread's stages up to date.
    fn publish(&mut self) -> Result<(), Failure> {
        counted::publish(&self.counters, self.recorder.counters());
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let kernel = watch.session.counters()?;
        let all = counted::of_kernel(&kernel).chain(watch.tracker.all_counters());
        // Those of the kernel side begin anew each time that it is loaded.
        let total =
            |(name, help, value)| (name, help, value + self.past.get(name).copied().unwrap_or_default());
        counted::publish(&self.counters, all.map(total));
        Ok(())
    }
}

fn windows_gone() -> Failure {
    Failure::Failed(anyhow::anyhow!("the thread that names windows is gone"))
}
