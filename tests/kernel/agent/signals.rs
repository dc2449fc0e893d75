//! What the agent tells of programs beside CPU profiles: requests, waits, system calls, what becomes of processes.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use descry_tests::customer::Customer;
use descry_tests::server::free_port;
use descry_tests::workload::{Workload, eventually};
use descry_tests::{compile, machine};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;

use super::Agent;
use super::receiver::{Receiver, Seen};

/// The text of an attribute.
pub(super) fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let found = attributes.iter().find(|it| it.key == key).and_then(|it| it.value.as_ref());
    match found.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

/// The spans of a program.
pub(super) fn spans<'a>(seen: &'a Seen, program: &str) -> Vec<&'a Span> {
    let of_program = seen.traces.iter().flat_map(|request| &request.resource_spans).filter(|spans| {
        let attributes = spans.resource.iter().flat_map(|resource| &resource.attributes);
        let attributes: Vec<KeyValue> = attributes.cloned().collect();
        text(&attributes, "process.executable.name") == program
    });
    of_program.flat_map(|spans| &spans.scope_spans).flat_map(|scope| &scope.spans).collect()
}

/// (severity, body, event) of all log records.
fn records(seen: &Seen) -> Vec<(String, String, String)> {
    let scopes = seen.logs.iter().flat_map(|it| &it.resource_logs).flat_map(|it| &it.scope_logs);
    let body = |value: Option<&Value>| match value {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    };
    scopes
        .flat_map(|scope| &scope.log_records)
        .map(|record| {
            let value = record.body.as_ref().and_then(|body| body.value.as_ref());
            (record.severity_text.clone(), body(value), record.event_name.clone())
        })
        .collect()
}

/// A destination, and no CPU profiles.
pub(super) fn config(receiver: &Receiver, rest: &str) -> String {
    format!(
        "profile: {{enabled: false, window: 1s}}\n{rest}\n\
         destinations:\n  - {{name: sink, endpoint: '{}', compression: none}}\n",
        receiver.url()
    )
}

/// The bundled server and its customer, who asks so many times.
pub(super) fn shop(requests: u32) -> Result<()> {
    let program = compile::rust("shop")?;
    let status = Command::new(program).args(["--requests", &requests.to_string()]).output()?.status;
    ensure!(status.success(), "the shop failed: {status}");
    Ok(())
}

#[test]
fn requests_are_spans_and_nothing_of_the_agents_own() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let agent = Agent::start(&config(&receiver, "logs: {enabled: false}"))?;
    shop(40)?;
    // As in the test of `descry requests`: 40 of the customer's, and a search for each report; of server and client.
    eventually("all spans of the shop", || Ok((spans(&receiver.seen(), "shop").len() >= 100).then_some(())))?;
    agent.end()?;
    let seen = receiver.seen();
    ensure!(spans(&seen, "shop").len() == 100, "{} spans of the shop", spans(&seen, "shop").len());
    let own = spans(&seen, "descry").len();
    ensure!(own == 0, "{own} spans of the agent's own requests");
    Ok(())
}

#[test]
fn a_sampler_a_filter_and_a_rule_leave_spans_out() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let filter = "filters: [{attribute: http.route, value: '/checkout*', action: drop}]";
    let two = format!(
        "profile: {{enabled: false, window: 1s}}\nlogs: {{enabled: false}}\n\
         requests: {{sampler: traceidratio, sampler_ratio: 0.5}}\nrules: [{{comm: shop}}]\nothers: {{requests: false}}\n\
         destinations:\n  - {{name: all, endpoint: '{0}', compression: none}}\n  \
         - {{name: some, endpoint: '{0}', compression: none, signals: [traces], {filter}}}\n",
        receiver.url()
    );
    let agent = Agent::start(&two)?;
    shop(400)?;
    agent.until("descry_agent_spans_total", "", 1000)?;
    let (made, not_sampled) = (
        agent.metric("descry_agent_spans_total", "")?,
        agent.metric("descry_agent_spans_not_sampled_total", "")?,
    );
    ensure!(made == 1000, "{made} spans");
    // Traces of two and of four spans; half of 400 traces, give or take five standard deviations.
    ensure!((300..700).contains(&not_sampled), "{not_sampled} of {made} spans are not sampled");
    let filtered = agent.metric("descry_agent_spans_filtered_total", "")?;
    agent.end()?;
    let seen = receiver.seen();
    let sent = spans(&seen, "shop").len() as u64;
    ensure!(filtered > 0, "nothing was filtered");
    ensure!(sent == 2 * (made - not_sampled) - filtered, "{sent} of {made}, {not_sampled}, {filtered}");
    // A trace is there as a whole or not at all: no span's parent of this machine is missing.
    let all = spans(&seen, "shop");
    let orphans = all.iter().filter(|span| {
        let parent = &span.parent_span_id;
        !parent.is_empty() && !all.iter().any(|other| other.span_id == *parent)
    });
    ensure!(orphans.count() == 0, "spans whose parent was left out");
    Ok(())
}

#[test]
fn a_rule_finds_servers_by_the_port_they_listen_on() -> Result<()> {
    const REQUESTS: usize = 20;
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let dir = tempfile::tempdir()?;
    let serve = |port: u16| -> Result<Workload> {
        let mut command = Command::new(machine::tool("python3")?);
        command.args([
            "-m",
            "http.server",
            "--protocol",
            "HTTP/1.1",
            "--bind",
            "127.0.0.1",
            &port.to_string(),
        ]);
        command.current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Workload::spawn(command)?;
        eventually("a server to listen", || Ok(TcpStream::connect(("127.0.0.1", port)).ok()))?;
        Ok(server)
    };
    let (old, other, new) = (free_port()?, free_port()?, free_port()?);
    let _servers = (serve(old)?, serve(other)?);
    let rules = format!("rules: [{{ports: [{old}, {new}]}}]\nothers: {{requests: false}}");
    let agent = Agent::start(&config(&receiver, &rules))?;
    // Its first connection comes before the next window.
    let _server = serve(new)?;
    for port in [other, old, new] {
        let mut customer = Customer::connect(port)?;
        for _ in 0..REQUESTS {
            customer.ask("/", "")?;
            customer.answer()?;
        }
    }
    agent.until("descry_agent_spans_total", "", 2 * REQUESTS as u64)?;
    agent.end()?;
    let seen = receiver.seen();
    let program = std::fs::canonicalize(machine::tool("python3")?)?;
    let name = program.file_name().context("python3 has no name")?.to_string_lossy();
    let of = |port: u16| {
        let is_at = |it: &KeyValue| {
            let value = it.value.as_ref().and_then(|value| value.value.as_ref());
            it.key == "server.port" && value == Some(&Value::IntValue(port.into()))
        };
        spans(&seen, &name).iter().filter(|span| span.attributes.iter().any(is_at)).count()
    };
    let counts = [of(old), of(new), of(other)];
    ensure!(counts == [REQUESTS, REQUESTS, 0], "spans of the ports of the rule, and of another: {counts:?}");
    Ok(())
}

#[test]
fn ends_of_processes_are_log_records() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let agent = Agent::start(&config(&receiver, "requests: {enabled: false}"))?;
    let sh = |script: &str| Command::new("/bin/sh").args(["-c", script]).status();
    sh("exec /bin/sleep 0.01")?;
    sh("exit 7")?;
    sh("kill -SEGV $$")?;
    for (severity, body, event) in [
        ("INFO", "sleep was started", "process.exec"),
        ("INFO", "sleep exited with code 0", "process.exit"),
        ("WARN", "sh exited with code 7", "process.exit"),
        ("ERROR", "sh was ended by SIGSEGV", "process.exit"),
    ] {
        eventually(body, || {
            let found = records(&receiver.seen());
            let fits =
                |it: &(String, String, String)| it.0 == severity && it.1.starts_with(body) && it.2 == event;
            Ok(found.iter().any(fits).then_some(()))
        })?;
    }
    agent.end()?;
    Ok(())
}

#[test]
fn connects_that_fail_are_log_records() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let agent = Agent::start(&config(&receiver, "others: {requests: false}"))?;
    // Nobody listens there any more.
    let port = free_port()?;
    let script = format!("import socket; socket.socket().connect_ex(('127.0.0.1', {port}))");
    Command::new(machine::tool("python3")?).args(["-c", &script]).status()?;
    let words = format!("could not connect to 127.0.0.1:{port}: ECONNREFUSED");
    eventually(&words, || {
        let found = records(&receiver.seen());
        let fits = |it: &(String, String, String)| {
            it.0 == "WARN"
                && it.1.starts_with("python3")
                && it.1.ends_with(&words)
                && it.2 == "network.connect.failed"
        };
        Ok(found.iter().any(fits).then_some(()))
    })?;
    agent.end()?;
    Ok(())
}

#[test]
fn a_process_that_wanted_too_much_memory_is_told_of() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let agent = Agent::start(&config(&receiver, "requests: {enabled: false}"))?;
    let group = MemoryGroup::new("descry-test-memory", 32 << 20)?;
    let script =
        format!("echo $$ > {} && exec python3 -c 'x = b\"a\" * (512 << 20)'", group.procs().display());
    let status = Command::new("/bin/sh").args(["-c", &script]).status()?;
    ensure!(status.signal() == Some(9), "it lives in {}: {status}", group.procs().display());
    let words = "python3 was ended by SIGKILL: the kernel was out of memory, or its cgroup was";
    eventually(words, || {
        let found = records(&receiver.seen());
        Ok(found.iter().any(|it| it.0 == "ERROR" && it.1 == words).then_some(()))
    })?;
    agent.end()?;
    Ok(())
}

/// A cgroup whose processes get so much memory and no more; gone when it is dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// In the unified hierarchy or the one of memory, whichever has the controller.
    fn new(name: &str, bytes: u64) -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let is_unified = root.join("cgroup.controllers").exists();
        let group = Self(if is_unified { root.join(name) } else { root.join("memory").join(name) });
        if is_unified {
            std::fs::write(root.join("cgroup.subtree_control"), "+memory")?;
        }
        std::fs::create_dir_all(&group.0)?;
        let limit = if is_unified { "memory.max" } else { "memory.limit_in_bytes" };
        std::fs::write(group.0.join(limit), bytes.to_string())?;
        Ok(group)
    }

    /// The file that a process is put into it by.
    fn procs(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // One that is not empty stays; the next run uses it.
        let _left = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn waits_and_system_calls_are_told_window_by_window() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    // Two threads of the shop sleep and wait for a lock; its system calls are known.
    let rest = "off_cpu: {enabled: true}\nsyscalls: {enabled: true}\nrequests: {enabled: false}\n\
                logs: {enabled: false}\nrules: [{comm: shop}]\nothers: {off_cpu: false, syscalls: false}";
    let agent = Agent::start(&config(&receiver, rest))?;
    let _shop = Workload::rust("shop", &[])?;
    agent.until("descry_agent_windows_total", "", 5)?;
    ensure!(agent.metric("descry_waits_waits_total", "")? > 0, "no waits");
    agent.end()?;
    let seen = receiver.seen();
    let types = seen.profiles.iter().flat_map(|request| {
        let strings = request.dictionary.as_ref().map(|it| it.string_table.as_slice()).unwrap_or_default();
        let profiles =
            request.resource_profiles.iter().flat_map(|it| &it.scope_profiles).flat_map(|it| &it.profiles);
        let kind = |it: &opentelemetry_proto::tonic::profiles::v1development::Profile| {
            let index = it.sample_type.as_ref().map_or(0, |kind| kind.type_strindex);
            strings.get(usize::try_from(index).unwrap_or(0)).cloned().unwrap_or_default()
        };
        profiles.map(kind).collect::<Vec<_>>()
    });
    let waits = types.filter(|kind| kind == "off_cpu").count();
    ensure!(waits >= 2, "{waits} profiles of waits: stacks are sent once, and are to be in each window");
    let named = seen.profiles.iter().filter_map(|request| request.dictionary.as_ref());
    let has_name = |strings: &[String]| strings.iter().any(|name| name.contains("shop::"));
    let last = named.filter(|dictionary| has_name(&dictionary.string_table)).count();
    ensure!(last >= 2, "functions have names in {last} requests");
    let metrics = seen.metrics.iter().flat_map(|it| &it.resource_metrics).flat_map(|it| &it.scope_metrics);
    let calls = metrics.flat_map(|it| &it.metrics).filter(|it| it.name == "descry.syscall.duration").count();
    ensure!(calls >= 2, "system calls in {calls} windows");
    Ok(())
}
