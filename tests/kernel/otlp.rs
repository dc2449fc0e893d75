//! What is sent as OTLP: a real OpenTelemetry Collector forwards what was measured, and receivers that fail are borne.
//!
//! `DESCRY_OTELCOL=FILE` names a collector; else one is built, once. `DESCRY_SKIP_COLLECTOR_TESTS=1` skips those tests.

pub mod receiver;
mod seen;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use descry_export::otlp;
use descry_tests::collector::Collector;
use descry_tests::descry::{Descry, Outcome};
use descry_tests::{compile, machine, server, workload::Workload};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development::ProfilesData;
use prost::Message;

use crate::HZ;
use receiver::{Answer, Receiver};
use seen::{Attributes, SeenProfile, SeenSample};

/// The period of the rate of measurements (ns).
const PERIOD: i64 = 1_000_000_000 / HZ as i64;
/// How long a collector may take to forward.
const PATIENCE: Duration = Duration::from_secs(30);

/// `descry profile` of this process into this file, for so many seconds.
fn profile(pid: u32, seconds: u32, file: &Path) -> Result<Descry> {
    let options = ["-F".to_owned(), HZ.to_string(), "-d".to_owned(), format!("{seconds}s")];
    Ok(Descry::new("profile")?.pid(pid).args(options).args(["--stats", "json"]).output(file))
}

/// The profiles of a message that keeps the rules of the data model.
fn checked(data: &ProfilesData) -> Result<Vec<SeenProfile>> {
    if let Err(violations) = otlp::check(data) {
        bail!("against the rules of the data model: {violations:#?}");
    }
    seen::profiles(data)
}

/// The profiles of a written file.
fn written(file: &Path) -> Result<Vec<SeenProfile>> {
    let bytes = std::fs::read(file).with_context(|| format!("{} was not written", file.display()))?;
    checked(&ProfilesData::decode(&*bytes)?)
}

/// The profiles of a request.
fn sent(request: ExportProfilesServiceRequest) -> Result<Vec<SeenProfile>> {
    let ExportProfilesServiceRequest { resource_profiles, dictionary } = request;
    checked(&ProfilesData { resource_profiles, dictionary })
}

/// Both hold the same; the message shows the first difference only.
fn check_same(sent: &[SeenProfile], written: &[SeenProfile]) -> Result<()> {
    ensure!(sent.len() == written.len(), "{} profiles sent, {} written", sent.len(), written.len());
    for (sent, written) in sent.iter().zip(written) {
        for (sent, written) in sent.samples.iter().zip(&written.samples) {
            ensure!(sent == written, "sent: {sent:#?}\nwritten: {written:#?}");
        }
        ensure!(sent == written, "a profile was sent with other fields than written:\n{sent:#?}");
    }
    Ok(())
}

/// What a measurement of the burner says, whoever holds it.
fn check_burner(profiles: &[SeenProfile], workload: &Workload, samples: u64) -> Result<()> {
    let [counts, times] = profiles else { bail!("{} profiles of one process", profiles.len()) };
    let types = [counts, times].map(|profile| (&*profile.sample_type.0, &*profile.sample_type.1));
    ensure!(types == [("samples", "count"), ("cpu", "nanoseconds")], "{types:?}");

    let count = |sample: &SeenSample| sample.timestamps.len() as u64;
    let total: u64 = counts.samples.iter().map(count).sum();
    ensure!(total == samples, "{samples} samples were taken, {total} have a timestamp");
    let time: i64 = times.samples.iter().flat_map(|sample| &sample.values).sum();
    ensure!(time == i64::try_from(samples)? * PERIOD, "{time} ns in {samples} samples");
    for (handler, expected) in [("checkout", 0.6), ("search", 0.3), ("render", 0.1)] {
        let name = format!("burner::{handler}");
        let in_it: u64 = counts.samples.iter().filter(|sample| sample.has(&name)).map(count).sum();
        let share = in_it as f64 / total as f64;
        ensure!((share - expected).abs() < 0.1, "{name} has {share} instead of {expected}");
    }

    for profile in profiles {
        ensure!(profile.scope.0 == "descry" && !profile.scope.1.is_empty(), "{:?}", profile.scope);
        let period = (&*profile.period.0, &*profile.period.1, profile.period.2);
        ensure!(period == ("cpu", "nanoseconds", PERIOD), "{period:?}");
        ensure!(profile.id.len() == 16, "profile id {:?}", profile.id);
        check_resource(&profile.resource, workload)?;
        for sample in &profile.samples {
            check_sample(sample, workload)?;
        }
    }
    Ok(())
}

fn check_resource(resource: &Attributes, workload: &Workload) -> Result<()> {
    let text = |text: &str| Some(Value::StringValue(text.to_owned()));
    let burner = compile::rust("burner")?.canonicalize()?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    for (key, expected) in [
        ("service.name", text("burner")),
        ("process.pid", Some(Value::IntValue(i64::from(workload.pid())))),
        ("process.executable.name", text("burner")),
        ("process.executable.path", text(&burner.to_string_lossy())),
        ("process.owner", text("root")),
        ("host.name", text(host.trim())),
        ("os.type", text("linux")),
    ] {
        ensure!(resource.get(key) == Some(&expected), "{key} is {:?}, not {expected:?}", resource.get(key));
    }
    for key in ["service.instance.id", "process.creation.time", "host.id", "host.arch", "os.version"] {
        ensure!(matches!(resource.get(key), Some(Some(Value::StringValue(_)))), "no {key} in {resource:?}");
    }
    // Arguments may hold secrets.
    for key in ["process.command_line", "process.command_args"] {
        ensure!(!resource.contains_key(key), "{key} was not asked for");
    }
    Ok(())
}

fn check_sample(sample: &SeenSample, workload: &Workload) -> Result<()> {
    let attributes = &sample.attributes;
    let Some(Some(Value::IntValue(thread))) = attributes.get("thread.id") else {
        bail!("no thread: {attributes:?}")
    };
    let task = format!("/proc/{}/task/{thread}/comm", workload.pid());
    let name = std::fs::read_to_string(&task).with_context(|| format!("thread {thread}: no {task}"))?;
    let expected = Some(Value::StringValue(name.trim().to_owned()));
    ensure!(attributes.get("thread.name") == Some(&expected), "{attributes:?}, not {expected:?}");
    let Some(Some(Value::IntValue(cpu))) = attributes.get("cpu.logical_number") else {
        bail!("no CPU: {attributes:?}")
    };
    ensure!(Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists(), "there is no CPU {cpu}");
    for location in &sample.stack {
        let kind = location.attributes.get("profile.frame.type");
        let Some(Some(Value::StringValue(kind))) = kind else { bail!("no kind: {location:?}") };
        match &location.mapping {
            Some((path, ids)) if path.starts_with('/') => {
                let ids: BTreeSet<&str> = ids.keys().map(String::as_str).collect();
                let id = |name: &str| ids.contains(&*format!("process.executable.build_id.{name}"));
                ensure!(id("gnu") && id("htlhash"), "{path} has the ids {ids:?}");
                let expected = if path.ends_with("/burner") { "rust" } else { "native" };
                ensure!(kind == expected, "{path} is {kind}");
            }
            // The kernel and the vdso have no file.
            _ => ensure!(kind == "kernel" || kind == "native", "{location:?}"),
        }
    }
    Ok(())
}

/// The mapping of the burner has the id that its linker gave it.
fn check_build_id(profiles: &[SeenProfile]) -> Result<()> {
    let notes = Command::new("readelf").arg("-n").arg(compile::rust("burner")?).output()?;
    let notes = String::from_utf8(notes.stdout)?;
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: "));
    let id = Some(Value::StringValue(id.context("the burner has no build id")?.to_owned()));
    let samples = profiles.iter().flat_map(|profile| &profile.samples);
    let mut mappings =
        samples.flat_map(|sample| &sample.stack).filter_map(|location| location.mapping.as_ref());
    let found = mappings.find(|(path, _)| path.ends_with("/burner"));
    let (_, ids) = found.context("no mapping of the burner")?;
    ensure!(ids.get("process.executable.build_id.gnu") == Some(&id), "{ids:?}, not {id:?}");
    Ok(())
}

/// A request as the collector forwards it. It has no unset attribute values: one that came so leaves as a set one without
/// anything in it, also that of the first attribute, in which nothing should be set.
fn forwarded_request(message: &[u8]) -> Result<ExportProfilesServiceRequest> {
    let mut request = ExportProfilesServiceRequest::decode(message)?;
    let attributes = request.dictionary.iter_mut().flat_map(|dictionary| &mut dictionary.attribute_table);
    for attribute in attributes {
        attribute.value.take_if(|any| any.value.is_none());
    }
    Ok(request)
}

fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

#[test]
fn a_collector_forwards_what_was_written() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let Some(collector) = Collector::start()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("burner.otlp");
    let workload = Workload::rust("burner", &["--threads", "2"])?;
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        for compression in ["none", "gzip", "zstd"] {
            let case = format!("{protocol} {compression}");
            let url = if protocol == "grpc" { collector.grpc_url() } else { collector.http_url() };
            let before = now()?;
            let outcome = profile(workload.pid(), 2, &file)?
                .args(["--otlp-endpoint", &url])
                .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
                .env("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
                .succeed()
                .with_context(|| case.clone())?;
            let after = now()?;
            let written = written(&file).with_context(|| case.clone())?;
            check_burner(&written, &workload, outcome.stats()?.samples).with_context(|| case.clone())?;
            check_build_id(&written)?;
            let mut times = written.iter().flat_map(|profile| &profile.samples).flat_map(|s| &s.timestamps);
            ensure!(times.all(|time| (before..after).contains(time)), "{case}: samples of another time");

            let message = collector.next_message(PATIENCE).with_context(|| case.clone())?;
            let forwarded = sent(forwarded_request(&message)?)?;
            check_same(&forwarded, &written).with_context(|| case.clone())?;
        }
    }
    Ok(())
}

#[test]
fn own_counters_reach_a_collector() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let Some(collector) = Collector::start()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("burner.otlp");
    let workload = Workload::rust("burner", &[])?;
    let outcome =
        profile(workload.pid(), 1, &file)?.args(["--telemetry-endpoint", &collector.http_url()]).succeed()?;
    let samples = outcome.stats()?.samples;
    // Traces and logs come, too, in any order.
    loop {
        let forwarded = collector.next_forwarded(PATIENCE)?;
        let Some(resource) = forwarded["resourceMetrics"].get(0) else { continue };
        let attributes = resource["resource"]["attributes"].to_string();
        ensure!(
            attributes.contains(r#"{"key":"service.name","value":{"stringValue":"descry"}}"#),
            "{attributes}"
        );
        let metrics = resource["scopeMetrics"][0]["metrics"].as_array().context("no metrics")?;
        let taken = metrics.iter().find(|metric| metric["name"] == "descry.kernel.samples");
        let sum = &taken.with_context(|| format!("no count of samples in {forwarded:#}"))?["sum"];
        let value = sum["dataPoints"][0]["asInt"].as_str().context("no value")?;
        ensure!(sum["isMonotonic"] == true, "{sum}");
        ensure!(value == samples.to_string(), "{value} instead of {samples} samples");
        return Ok(());
    }
}

/// Sends a second of the burner there, and what is also written is right.
fn send(workload: &Workload, url: &str, protocol: &str) -> Result<(Outcome, Vec<SeenProfile>)> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("burner.otlp");
    let outcome = profile(workload.pid(), 1, &file)?
        .args(["--otlp-endpoint", url])
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        // Milliseconds: how long to try.
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "3000")
        .run()?;
    let written = written(&file).with_context(|| outcome.stderr.clone())?;
    Ok((outcome, written))
}

/// It ended with this code, and what it said has all of these.
fn check_end(outcome: &Outcome, code: i32, said: &[&str]) -> Result<()> {
    ensure!(outcome.code == Some(code), "exit {:?} instead of {code}:\n{}", outcome.code, outcome.stderr);
    for text in said {
        ensure!(outcome.stderr.contains(text), "nothing of {text:?} in:\n{}", outcome.stderr);
    }
    Ok(())
}

#[test]
fn nobody_listens() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::rust("burner", &[])?;
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let url = format!("http://127.0.0.1:{}", server::free_port()?);
        let (outcome, written) = send(&workload, &url, protocol)?;
        check_end(&outcome, 1, &[&url, "Connection refused"])?;
        check_burner(&written, &workload, outcome.stats()?.samples)?;
    }
    Ok(())
}

#[test]
fn a_receiver_that_never_answers() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::rust("burner", &[])?;
    let receiver = Receiver::start(&[Answer::Silence])?;
    let (outcome, written) = send(&workload, &receiver.url(), "http/protobuf")?;
    check_end(&outcome, 1, &[&receiver.url(), "no answer within 3s", "OTEL_EXPORTER_OTLP_TIMEOUT"])?;
    check_burner(&written, &workload, outcome.stats()?.samples)
}

#[test]
fn a_receiver_that_rejects_a_part() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let workload = Workload::rust("burner", &[])?;
    let receiver = Receiver::start(&[Answer::Rejected(1, "times are not wanted")])?;
    let (outcome, written) = send(&workload, &receiver.url(), "http/protobuf")?;
    check_end(&outcome, 0, &["rejected 1 ", "reason=\"times are not wanted\""])?;
    // A receiver counts profiles; only what was measured is called a sample.
    let samples = outcome.stats()?.samples;
    let words: Vec<&str> = outcome.stderr.split_ascii_whitespace().collect();
    for pair in words.windows(2).filter(|pair| pair[1].starts_with("samples")) {
        let right = pair[0].parse::<u64>().is_ok_and(|number| number == samples);
        ensure!(right, "{} instead of {samples} samples:\n{}", pair[0], outcome.stderr);
    }
    let [request] =
        <[_; 1]>::try_from(receiver.requests()?).map_err(|all| anyhow::anyhow!("{} requests", all.len()))?;
    check_same(&sent(request)?, &written)
}

#[test]
fn a_receiver_that_is_busy_at_first() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    // What the program says of itself.
    let mut command = Command::new(compile::rust("burner")?);
    command.env("OTEL_SERVICE_NAME", "shop");
    command.env(
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=unused,service.version=1.2,deployment.environment.name=a%20test",
    );
    let workload = Workload::spawn_ready(command)?;
    let receiver = Receiver::start(&[Answer::Status(503), Answer::Status(200)])?;
    let (outcome, written) = send(&workload, &receiver.url(), "http/protobuf")?;
    check_end(&outcome, 0, &["1 retries"])?;
    let requests = receiver.requests()?;
    ensure!(requests.len() == 2, "{} requests:\n{}", requests.len(), outcome.stderr);
    for request in requests {
        let sent = sent(request)?;
        check_same(&sent, &written)?;
        for (key, expected) in
            [("service.name", "shop"), ("service.version", "1.2"), ("deployment.environment.name", "a test")]
        {
            let expected = Some(Value::StringValue(expected.to_owned()));
            let found = sent[0].resource.get(key);
            ensure!(found == Some(&expected), "{key} is {found:?}, not {expected:?}");
        }
    }
    Ok(())
}

#[test]
fn own_telemetry_that_cannot_leave_is_no_failure() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("burner.otlp");
    let workload = Workload::rust("burner", &[])?;
    let url = format!("http://127.0.0.1:{}", server::free_port()?);
    let outcome = profile(workload.pid(), 1, &file)?.args(["--telemetry-endpoint", &url]).run()?;
    check_end(&outcome, 0, &["telemetry did not all leave"])?;
    check_burner(&written(&file)?, &workload, outcome.stats()?.samples)
}
