//! The agent over its whole life: what it measures, what it sends, and how it ends.

mod chaos;
mod counted;
mod functions;
mod rates;
mod receiver;
mod receivers;
mod signals;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use descry_tests::descry::{Descry, Running};
use descry_tests::machine;
use descry_tests::workload::{Workload, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::otlp::receiver::{Answer, Receiver};

/// A directory with a configuration, and the agent that runs by it.
struct Agent {
    directory: TempDir,
    health: SocketAddr,
    running: Running,
}

impl Agent {
    /// Starts it and waits until it is ready; `rest` is more of the file, in which `DIRECTORY` is the directory.
    fn start(rest: &str) -> Result<Self> {
        Self::start_through(Descry::through(&[descry_tests::descry::binary()?]), rest)
    }

    /// The same by a command that ends up running descry; the subcommand is added here.
    fn start_through(descry: Descry, rest: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // Free now; whoever takes it before the agent does fails the test.
        let health = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        write_config(directory.path(), health, rest)?;
        let file = directory.path().join("config.yaml");
        let running = descry.args(["agent".as_ref(), "--config".as_ref(), file.as_os_str()]).spawn()?;
        let agent = Self { directory, health, running };
        eventually("the agent to be ready", || {
            Ok(agent.get("/readyz").is_ok_and(|it| it.0 == 200).then_some(()))
        })?;
        Ok(agent)
    }

    fn reconfigure(&self, rest: &str) -> Result<()> {
        write_config(self.directory.path(), self.health, rest)
    }

    /// Status and body.
    fn get(&self, path: &str) -> Result<(u16, String)> {
        get(self.health, path)
    }

    /// The sum of a metric's samples that hold `label`.
    fn metric(&self, name: &str, label: &str) -> Result<u64> {
        let (_, text) = self.get("/metrics")?;
        let of_name = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let values = of_name.filter(|line| line.contains(label)).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| Ok(value.parse::<f64>()? as u64)).sum()
    }

    /// Waits until a metric is at least that.
    fn until(&self, name: &str, label: &str, least: u64) -> Result<()> {
        eventually(&format!("{name} of {least}"), || Ok((self.metric(name, label)? >= least).then_some(())))
    }

    /// Ends it as a service manager does, and checks that it ends well.
    fn end(self) -> Result<(TempDir, String)> {
        self.running.signal(Signal::SIGTERM)?;
        let outcome = self.running.wait()?;
        ensure!(outcome.code == Some(0), "the agent ended with {:?}:\n{}", outcome.code, outcome.stderr);
        Ok((self.directory, outcome.stderr))
    }
}

/// Status and body of a page, by HTTP/1.0: whole, not in chunks.
fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status.context("no status")?, body.to_owned()))
}

fn write_config(directory: &Path, health: SocketAddr, rest: &str) -> Result<()> {
    let rest = rest.replace("DIRECTORY", &directory.display().to_string());
    // Written whole, then put in its place, as configuration management does.
    let new = directory.join("config.new");
    std::fs::write(&new, format!("health: {{address: '{health}'}}\n{rest}"))?;
    Ok(std::fs::rename(new, directory.join("config.yaml"))?)
}

/// The lines of a file of OTLP.
fn lines(directory: &Path, name: &str) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(directory.join("otlp").join(name))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// What a Resource says of itself under a key, of all of them.
fn said(requests: &[Value], list: &str, key: &str) -> Vec<String> {
    let resources = requests.iter().filter_map(|request| request[list].as_array()).flatten();
    let attributes = resources.filter_map(|it| it["resource"]["attributes"].as_array()).flatten();
    let values = attributes.filter(|it| it["key"] == key).map(|it| it["value"]["stringValue"].as_str());
    values.flatten().map(str::to_owned).collect()
}

#[test]
fn files_have_profiles_and_metrics_of_the_processes_that_the_rules_want() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _split = Workload::native("split", &[])?;
    let _deep = Workload::native("deep", &[])?;
    let agent = Agent::start(
        "profile: {frequency: 99, window: 1s}\nrules: [{comm: split}]\nothers: {profile: false}\n\
         file: {directory: DIRECTORY/otlp}\nresource: {attributes: {deployment.environment.name: test}}\n",
    )?;
    agent.until("descry_agent_windows_total", "", 4)?;
    ensure!(agent.get("/healthz")?.0 == 200, "not healthy");
    agent.until("process_memory_usage_bytes", "process_executable_name=\"split\"", 1)?;
    ensure!(agent.metric("descry_agent_samples_excluded_total", "")? > 0, "nothing was left out");
    let (directory, log) = agent.end()?;

    let profiles = lines(directory.path(), "profiles.jsonl")?;
    let programs = said(&profiles, "resourceProfiles", "process.executable.name");
    ensure!(!programs.is_empty(), "no profiles; the log:\n{log}");
    ensure!(programs.iter().all(|name| name == "split"), "not only split: {programs:?}");
    let names = profiles.iter().filter_map(|it| it["dictionary"]["stringTable"].as_array()).flatten();
    ensure!(names.clone().any(|name| name == "main"), "no function of the workload has its name");
    let environment = said(&profiles, "resourceProfiles", "deployment.environment.name");
    ensure!(environment.len() == programs.len(), "the attribute is not everywhere: {environment:?}");
    let metrics = lines(directory.path(), "metrics.jsonl")?;
    ensure!(metrics.iter().any(|it| it.to_string().contains("process.cpu.time")), "no CPU time: {metrics:?}");
    Ok(())
}

#[test]
fn an_outage_of_the_receiver_loses_nothing() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _workload = Workload::native("split", &[])?;
    // Unavailable for the first requests, well from then on.
    let mut answers = vec![Answer::Status(503); 4];
    answers.push(Answer::Status(200));
    let receiver = Receiver::start(&answers)?;
    let agent = Agent::start(&format!(
        "profile: {{frequency: 99, window: 1s}}\nrules: [{{comm: split}}]\nothers: {{profile: false}}\n\
         destinations: [{{name: sink, endpoint: '{}', compression: none, timeout: 1s, \
         spool: {{directory: DIRECTORY/spool}}}}]\n",
        receiver.url(),
    ))?;
    agent.until("descry_destination_spooled_items_total", "sink", 1)?;
    agent.until("descry_destination_sent_items_total", "sink", 1)?;
    agent.until("descry_agent_windows_total", "", 5)?;
    // All that was queued is acknowledged in the end; more is queued meanwhile, so the two are read at one moment.
    eventually("everything to be sent", || {
        let waiting = agent.metric("descry_destination_waiting_items", "sink")?;
        Ok((waiting == 0).then_some(()))
    })?;
    ensure!(agent.metric("descry_destination_dropped_items_total", "sink")? == 0, "something was dropped");
    let (directory, log) = agent.end()?;
    let segments = std::fs::read_dir(directory.path().join("spool"))?.flatten();
    let left = segments.filter(|entry| entry.path().extension().is_some_and(|it| it == "spool")).count();
    ensure!(left == 0, "{left} segments are left; the log:\n{log}");
    Ok(())
}

#[test]
fn a_bad_file_is_refused_and_a_good_one_taken_over() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _workload = Workload::native("split", &[])?;
    let common = "file: {directory: DIRECTORY/otlp}\nrules: [{comm: split}]\nothers: {profile: false}\n";
    let agent = Agent::start(&format!("profile: {{frequency: 49, window: 1s}}\n{common}"))?;
    agent.until("descry_agent_windows_total", "", 1)?;
    agent.reconfigure(&format!("profile: {{frequency: 0}}\n{common}"))?;
    agent.running.signal(Signal::SIGHUP)?;
    let before = agent.metric("descry_agent_windows_total", "")?;
    agent.until("descry_agent_windows_total", "", before + 2)?;
    ensure!(agent.get("/readyz")?.0 == 200, "not ready after a bad file");
    agent.reconfigure(&format!("profile: {{frequency: 99, window: 1s}}\n{common}"))?;
    let before = agent.metric("descry_agent_windows_total", "")?;
    agent.until("descry_agent_windows_total", "", before + 4)?;
    let (directory, log) = agent.end()?;
    ensure!(log.contains("frequency: it must be from 1 to 999"), "the log does not say why:\n{log}");
    let periods: Vec<String> = lines(directory.path(), "profiles.jsonl")?
        .iter()
        .filter_map(|it| it["resourceProfiles"].as_array())
        .flatten()
        .filter_map(|it| it["scopeProfiles"][0]["profiles"][0]["period"].as_str().map(str::to_owned))
        .collect();
    for frequency in [49_u64, 99] {
        let period = (1_000_000_000 / frequency).to_string();
        ensure!(periods.contains(&period), "no profile at {frequency} Hz among {periods:?}");
    }
    Ok(())
}

#[test]
fn it_keeps_no_right_that_it_does_not_need() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let agent = Agent::start("file: {directory: DIRECTORY/otlp}\n")?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.running.pid()))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // CAP_DAC_READ_SEARCH, SYS_PTRACE, SYSLOG, PERFMON, BPF, CHECKPOINT_RESTORE (linux/capability.h).
    let kept = [2, 19, 34, 38, 39, 40].into_iter().fold(0_u64, |set, bit| set | 1 << bit);
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        let held = u64::from_str_radix(field(set).context("no such field")?, 16)?;
        ensure!(held & !kept == 0, "{set} {held:x}");
    }
    ensure!(field("NoNewPrivs:") == Some("1"), "new rights are possible");
    // SECCOMP_MODE_FILTER (linux/seccomp.h).
    ensure!(field("Seccomp:") == Some("2"), "no system call is forbidden");
    agent.end()?;
    Ok(())
}
