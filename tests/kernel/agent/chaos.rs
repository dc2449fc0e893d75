//! Receivers and disks that fail, processes by the thousand, and ends without warning: nothing that was acknowledged is
//! lost, every loss is counted, and the counts add up.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use descry_tests::certificate::Certificate;
use descry_tests::descry::Descry;
use descry_tests::machine;
use descry_tests::workload::{Workload, eventually};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use super::Agent;
use super::receiver::{Mode, Receiver};

/// A destination with a spool, and profiles of one second: of the workload alone, since what else runs on the machine
/// may have names that take long to read.
fn config(receiver: &Receiver, spool: &str) -> String {
    format!(
        "profile: {{frequency: 99, window: 1s}}\nrequests: {{enabled: false}}\nrules: [{{comm: split}}]\n\
         others: {{profile: false}}\ndestinations:\n  \
         - {{name: sink, endpoint: '{}', compression: none, timeout: 1s, spool: {{directory: {spool}}}}}\n",
        receiver.url()
    )
}

/// What the agent says of its destination, read at one moment.
#[derive(Debug)]
struct Account {
    queued: u64,
    sent: u64,
    rejected: u64,
    dropped: u64,
    waiting: u64,
}

impl Account {
    fn read(agent: &Agent) -> Result<Self> {
        let (_, text) = agent.get("/metrics")?;
        let sum = |name: &str| -> Result<u64> {
            let of_name = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
            let values = of_name.filter_map(|line| line.rsplit(' ').next());
            values.map(|value| Ok(value.parse::<f64>()? as u64)).sum()
        };
        Ok(Self {
            queued: sum("descry_destination_queued_items_total")?,
            sent: sum("descry_destination_sent_items_total")?,
            rejected: sum("descry_destination_rejected_items_total")?,
            dropped: sum("descry_destination_dropped_items_total")?,
            waiting: sum("descry_destination_waiting_items")?,
        })
    }

    /// Each destination's numbers are read under its lock, all at once.
    fn adds_up(&self) -> bool {
        self.queued == self.sent + self.dropped + self.waiting
    }
}

/// Memory of a process that is resident (KiB).
fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

#[test]
fn a_receiver_that_fails_in_every_way_loses_nothing() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _workload = Workload::native("split", &[])?;
    let receiver = Receiver::start()?;
    let agent = Agent::start(&config(&receiver, "DIRECTORY/spool"))?;
    let lasting = machine::lasting(Duration::ZERO);
    for mode in [Mode::Status(503), Mode::Status(429), Mode::HangsUp, Mode::Slow(Duration::from_millis(300))]
    {
        let begin = Instant::now();
        receiver.set(mode);
        let refused = receiver.seen().refused;
        let acknowledged = receiver.acknowledged();
        eventually(&format!("requests while it is {mode:?}"), || {
            let is_met = receiver.seen().refused > refused || receiver.acknowledged() > acknowledged;
            Ok(is_met.then_some(()))
        })?;
        std::thread::sleep(lasting.saturating_sub(begin.elapsed()));
        receiver.set(Mode::Well);
        eventually("everything to be sent", || Ok((Account::read(&agent)?.waiting == 0).then_some(())))?;
        let account = Account::read(&agent)?;
        ensure!(account.adds_up() && account.dropped == 0, "after {mode:?}: {account:?}");
    }
    receiver.set(Mode::Partial);
    eventually("rejected items", || Ok((Account::read(&agent)?.rejected > 0).then_some(())))?;
    receiver.set(Mode::Well);
    let (directory, log) = agent.end()?;
    let left = std::fs::read_dir(directory.path().join("spool"))?.flatten();
    let left = left.filter(|entry| entry.path().extension().is_some_and(|it| it == "spool")).count();
    ensure!(left == 0, "{left} segments are left; the log:\n{log}");
    Ok(())
}

/// The spool lies on a file system of 2 MiB.
#[test]
fn a_full_disk_is_counted_and_hurts_nobody() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _workload = Workload::native("split", &[])?;
    let disk = tempfile::tempdir()?;
    mount(Some("tmpfs"), disk.path(), Some("tmpfs"), MsFlags::empty(), Some("size=2m"))?;
    let result = (|| {
        let receiver = Receiver::start()?;
        receiver.set(Mode::Status(503));
        let agent = Agent::start(&config(&receiver, &format!("{}/spool", disk.path().display())))?;
        agent.until("descry_destination_spooled_items_total", "sink", 1)?;
        // Somebody else takes the rest.
        let rest = std::fs::write(disk.path().join("rest"), vec![1; 4 << 20]);
        ensure!(rest.is_err(), "the disk is not full");
        // The oldest goes for the newest; where that makes no room either, the newest goes.
        agent.until("descry_destination_dropped_items_total", "reason=\"spool_f", 1)?;
        let account = Account::read(&agent)?;
        ensure!(account.adds_up(), "{account:?}");
        ensure!(agent.get("/healthz")?.0 == 200, "not healthy");
        // There is room again, and the receiver is back: what was kept arrives.
        std::fs::remove_file(disk.path().join("rest"))?;
        receiver.set(Mode::Well);
        eventually("what was kept to be sent", || {
            let account = Account::read(&agent)?;
            Ok((account.waiting == 0 && account.sent > 0).then_some(()))
        })?;
        agent.end().map(drop)
    })();
    umount2(disk.path(), MntFlags::MNT_DETACH)?;
    result
}

#[test]
fn what_was_spooled_survives_kill_and_nothing_stays_attached() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _workload = Workload::native("split", &[])?;
    let receiver = Receiver::start()?;
    receiver.set(Mode::Status(503));
    let spool = tempfile::tempdir()?;
    let config = config(&receiver, &spool.path().display().to_string());
    let agent = Agent::start(&config)?;
    agent.until("descry_destination_spooled_items_total", "sink", 2)?;
    let held = crate::cleanup::held(agent.running.pid())?;
    ensure!(!held.is_empty(), "nothing is attached");
    let spooled = agent.metric("descry_destination_spooled_items_total", "")?;
    agent.running.signal(Signal::SIGKILL)?;
    agent.running.wait()?;
    for (kind, id) in &held {
        let is_gone = || Ok((!crate::cleanup::exists(kind, id)?).then_some(()));
        eventually(&format!("{kind} {id} to be gone"), is_gone)?;
    }
    ensure!(receiver.acknowledged() == 0, "it took something");
    receiver.set(Mode::Well);
    let agent = Agent::start(&config)?;
    eventually("what was spooled to be sent", || Ok((receiver.acknowledged() >= spooled).then_some(())))?;
    agent.end()?;
    Ok(())
}

#[test]
fn processes_by_the_thousand_cost_bounded_memory() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let agent = Agent::start(&config(&receiver, "DIRECTORY/spool"))?;
    let mut made = 0_u64;
    let mut most = 0;
    let begin = Instant::now();
    let lasting = machine::lasting(Duration::from_secs(4));
    while begin.elapsed() < lasting {
        // Each makes a thousand that live for no time.
        let script = "i=0; while [ $i -lt 1000 ]; do (exit 0); i=$((i+1)); done";
        ensure!(Command::new("/bin/sh").args(["-c", script]).status()?.success(), "no shell");
        made += 1001;
        most = most.max(resident(agent.running.pid())?);
    }
    eprintln!("{:.0} processes a second", made as f64 / begin.elapsed().as_secs_f64());
    let told = || -> Result<u64> {
        let records = agent.metric("descry_agent_log_records_total", "")?;
        Ok(records + agent.metric("descry_agent_log_records_over_limit_total", "")?)
    };
    let lost = || agent.metric("descry_kernel_ring_full_lifecycle_total", "");
    // An end of each at least.
    eventually("all ends to be counted", || Ok((told()? + lost()? >= made).then_some(())))?;
    let most = most.max(resident(agent.running.pid())?);
    eprintln!("{most} KiB at {made} processes");
    ensure!(most < 120 << 10, "{most} KiB at {made} processes");
    eventually("everything to be sent", || Ok((Account::read(&agent)?.waiting == 0).then_some(())))?;
    let account = Account::read(&agent)?;
    ensure!(account.adds_up() && account.dropped == 0, "{account:?}");
    agent.end()?;
    Ok(())
}

/// Each time something else changes: what is measured, who, and where it goes.
#[test]
fn a_reload_every_moment_loses_nothing() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _workload = Workload::native("split", &[])?;
    let receiver = Receiver::start()?;
    let common = config(&receiver, "DIRECTORY/spool");
    let agent = Agent::start(&common)?;
    let begin = Instant::now();
    let lasting = machine::lasting(Duration::from_secs(6));
    for turn in (0..).take_while(|_| begin.elapsed() < lasting) {
        let changed = match turn % 4 {
            0 => common.replace("timeout: 1s", "timeout: 2s"),
            1 => common.replace("frequency: 99", "frequency: 49"),
            2 => common.replace("comm: split", "comm: 'spl*'"),
            _ => common.replace("compression: none", "compression: none, signals: [profiles, metrics, logs]"),
        };
        agent.reconfigure(&changed)?;
        agent.running.signal(Signal::SIGHUP)?;
        std::thread::sleep(Duration::from_millis(500));
        ensure!(agent.get("/healthz")?.0 == 200, "not healthy after change {turn}");
    }
    agent.reconfigure(&common)?;
    let windows = agent.metric("descry_agent_windows_total", "")?;
    agent.until("descry_agent_windows_total", "", windows + 2)?;
    let (_directory, log) = agent.end()?;
    ensure!(!log.contains("refused"), "a configuration was refused:\n{log}");
    let queued = receiver.acknowledged();
    ensure!(queued > 0, "nothing arrived; the log:\n{log}");
    Ok(())
}

#[test]
fn a_certificate_that_is_not_trusted_is_waited_for() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _workload = Workload::native("split", &[])?;
    let certificate = Certificate::new()?;
    let port = descry_tests::server::free_port()?;
    let mut server = Command::new(machine::tool("openssl")?);
    server.args(["s_server", "-quiet", "-accept", &port.to_string()]);
    let mut server =
        server.arg("-key").arg(certificate.key()).arg("-cert").arg(certificate.chain()).spawn()?;
    let agent = Agent::start(&format!(
        "profile: {{frequency: 99, window: 1s}}\nrequests: {{enabled: false}}\nrules: [{{comm: split}}]\n\
         others: {{profile: false}}\ndestinations:\n  \
         - {{name: sink, endpoint: 'https://localhost:{port}', timeout: 1s}}\n"
    ))?;
    let waits = eventually("items that wait", || {
        let account = Account::read(&agent)?;
        Ok((account.waiting > 0 && account.queued > 2).then_some(account))
    });
    let log = agent.end().map(|(_, log)| log);
    server.kill()?;
    server.wait()?;
    let (account, log) = (waits?, log?);
    ensure!(account.sent == 0 && account.adds_up(), "{account:?}");
    ensure!(log.to_lowercase().contains("certificate"), "the log does not say why:\n{log}");
    Ok(())
}

/// The agent's rights are those of its unit: it runs, measures and ends with no others.
#[test]
fn the_rights_of_the_unit_are_enough() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let unit = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../userspace/agent/packaging/descry.service"
    ))?;
    let rights = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let rights = rights.context("the unit names no rights")?.to_lowercase();
    let list: Vec<String> =
        rights.split(' ').map(|right| format!("+{}", right.trim_start_matches("cap_"))).collect();
    let set = format!("-all,{}", list.join(","));
    let binary = descry_tests::descry::binary()?;
    let words = ["setpriv", &format!("--bounding-set={set}"), "--no-new-privs", &binary.to_string_lossy()];
    let through = Descry::through(&words);
    let _workload = Workload::native("split", &[])?;
    let agent = Agent::start_through(through, "profile: {window: 1s}\nfile: {directory: DIRECTORY/otlp}\n")?;
    agent.until("descry_agent_windows_total", "", 2)?;
    let (directory, log) = agent.end()?;
    let profiles = std::fs::read_to_string(directory.path().join("otlp/profiles.jsonl"))?;
    ensure!(profiles.contains("\"split\""), "split is not in the profiles; the log:\n{log}");
    Ok(())
}
