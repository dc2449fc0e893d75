//! How much the agent measures of whom: rates of single rules.

use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use descry_tests::machine;
use descry_tests::workload::Workload;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use super::Agent;
use super::receiver::{Receiver, Seen};
use super::signals::{shop, spans, text};

/// What the CPU profiles say of a program.
#[derive(Debug, Default)]
struct Measured {
    /// When samples were taken (ns).
    samples: Vec<u64>,
    /// CPU time (ns).
    time: i64,
}

/// CPU time of a process with one thread (ns).
fn cpu_time(process: &Workload) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/schedstat", process.pid()))?;
    Ok(text.split(' ').next().context("no time")?.parse()?)
}

/// Now, as the stamps of samples tell it (ns).
fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos())?)
}

fn measured(seen: &Seen, program: &str) -> Measured {
    let mut of_program = Measured::default();
    for resource in seen.profiles.iter().flat_map(|request| &request.resource_profiles) {
        let attributes: Vec<KeyValue> =
            resource.resource.iter().flat_map(|resource| &resource.attributes).cloned().collect();
        if text(&attributes, "process.executable.name") != program {
            continue;
        }
        for profile in resource.scope_profiles.iter().flat_map(|scope| &scope.profiles) {
            for sample in &profile.samples {
                of_program.samples.extend(&sample.timestamps_unix_nano);
                of_program.time += sample.values.iter().sum::<i64>();
            }
        }
    }
    of_program
}

#[test]
fn a_rule_has_a_frequency_of_its_own_and_what_nobody_wants_is_not_taken() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let split = Workload::native("split", &[])?;
    let _deep = Workload::native("deep", &[])?;
    let agent = Agent::start(&format!(
        "profile: {{frequency: 997, window: 2s}}\nlogs: {{enabled: false}}\nrequests: {{enabled: false}}\n\
         rules: [{{comm: split, frequency: 100}}]\nothers: {{profile: false}}\n\
         destinations: [{{name: sink, endpoint: '{}', compression: none}}]\n",
        receiver.url()
    ))?;
    let before = cpu_time(&split)?;
    // In the first window most samples come before the rules were told of.
    agent.until("descry_agent_windows_total", "", 1)?;
    let (begin, time_before) = (now()?, cpu_time(&split)?);
    agent.until("descry_agent_windows_total", "", 5)?;
    let left_out = agent.metric("descry_kernel_left_out_total", "")?;
    let excluded = agent.metric("descry_agent_samples_excluded_total", "")?;
    let (end, time_after) = (now()?, cpu_time(&split)?);
    agent.end()?;

    // Of 100 in a second of its CPU time chance takes a few per cent more or less, and the first of each window come at 997.
    let split = measured(&receiver.seen(), "split");
    let samples = split.samples.iter().filter(|time| (begin..end).contains(time)).count();
    let a_second = samples as f64 / ((time_after - time_before) as f64 / 1e9);
    ensure!((70.0..180.0).contains(&a_second), "{a_second} samples a second of CPU time");
    let share = split.time as f64 / (time_after - before) as f64;
    ensure!((0.75..1.25).contains(&share), "{} ns of CPU time, {share} of the time spent", split.time);
    let deep = measured(&receiver.seen(), "deep");
    ensure!(deep.samples.is_empty(), "nobody wants {deep:?}");
    ensure!(left_out > 5 * excluded, "{left_out} samples were left out by the kernel side, {excluded} later");
    Ok(())
}

/// Calls of a program in the metrics that have come so far.
fn calls(receiver: &Receiver, program: &str) -> u64 {
    let mut calls = 0;
    for resource in receiver.seen().metrics.iter().flat_map(|request| &request.resource_metrics) {
        let attributes: Vec<KeyValue> =
            resource.resource.iter().flat_map(|resource| &resource.attributes).cloned().collect();
        if text(&attributes, "process.executable.name") != program {
            continue;
        }
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            if let Some(Data::ExponentialHistogram(durations)) = &metric.data
                && metric.name == "descry.syscall.duration"
            {
                calls += durations.data_points.iter().map(|point| point.count).sum::<u64>();
            }
        }
    }
    calls
}

/// A process that is left out costs what the hooks cost: the kernel side knows of it, of its children and of programs that
/// start.
#[test]
fn waits_and_system_calls_that_nobody_wants_are_not_measured() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    // Thread after thread, of which each makes calls and the first waits for each.
    let _before = Workload::native("system_calls", &["0", "churn"])?;
    let wanted = Workload::native("pool", &["0"])?;
    let config = |rules: &str| {
        format!(
            "profile: {{enabled: false, window: 1s}}\nlogs: {{enabled: false}}\nrequests: {{enabled: false}}\n\
             off_cpu: {{enabled: true}}\nsyscalls: {{enabled: true}}\n{rules}\
             destinations: [{{name: sink, endpoint: '{}', compression: none}}]\n",
            receiver.url()
        )
    };
    let agent = Agent::start(&config("rules: [{comm: system_calls, syscalls: false, off_cpu: false}]\n"))?;
    let _later = Workload::native("system_calls", &["0", "churn"])?;
    agent.until("descry_kernel_syscalls_excluded_total", "", 20_000)?;
    agent.until("descry_kernel_switches_excluded_total", "", 2_000)?;
    agent.until("descry_agent_windows_total", "", 4)?;
    let over_limit = agent.metric("descry_agent_exclusions_over_limit_total", "")?;
    let excluded = calls(&receiver, "system_calls");
    let others = calls(&receiver, "pool");
    let waits = measured(&receiver.seen(), "system_calls");
    ensure!(over_limit == 0, "{over_limit} processes found no place");
    ensure!(excluded == 0, "{excluded} calls of a program that is left out");
    ensure!(waits.time == 0, "{waits:?} of a program that is left out");
    ensure!(others > 0 && measured(&receiver.seen(), "pool").time > 0, "{others} calls of {}", wanted.pid());

    // Another rule, which the kernel side need not be loaded anew for: now the other one is left out.
    agent.reconfigure(&config("rules: [{comm: pool, syscalls: false, off_cpu: false}]\n"))?;
    let windows = agent.metric("descry_agent_windows_total", "")?;
    agent.until("descry_agent_windows_total", "", windows + 3)?;
    let (now, others) = (calls(&receiver, "system_calls"), calls(&receiver, "pool"));
    ensure!(now > 10_000, "{now} calls of a program that is wanted now");
    agent.until("descry_agent_windows_total", "", windows + 6)?;
    let more = calls(&receiver, "pool") - others;
    ensure!(more == 0, "{more} calls of a program that is left out now");
    agent.end()?;
    Ok(())
}

/// Rows are read while the program goes on counting in them.
#[test]
fn calls_of_a_process_that_outlives_windows_are_all_counted() -> Result<()> {
    const BYTES: u64 = 10_000_000;
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let agent = Agent::start(&format!(
        "profile: {{enabled: false, window: 1s}}\nlogs: {{enabled: false}}\nrequests: {{enabled: false}}\n\
         syscalls: {{enabled: true}}\ndestinations: [{{name: sink, endpoint: '{}', compression: none}}]\n",
        receiver.url()
    ))?;
    let count = format!("count={BYTES}");
    let copied =
        Command::new("dd").args(["if=/dev/zero", "of=/dev/null", "bs=1", "status=none", &count]).status()?;
    ensure!(copied.success(), "dd: {copied}");
    let windows = agent.metric("descry_agent_windows_total", "")?;
    ensure!(windows >= 4, "dd lived through {windows} windows only");
    agent.end()?;
    let told = calls(&receiver, "dd");
    // Beside reading and writing it begins and ends.
    ensure!(told.abs_diff(2 * BYTES) < 500, "{told} calls of {}", 2 * BYTES);
    Ok(())
}

#[test]
fn a_rule_lets_a_service_begin_fewer_traces() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let receiver = Receiver::start()?;
    let agent = Agent::start(&format!(
        "profile: {{enabled: false, window: 1s}}\nlogs: {{enabled: false}}\n\
         rules: [{{comm: shop, traces_per_second: 5}}]\nothers: {{requests: false}}\n\
         destinations: [{{name: sink, endpoint: '{}', compression: none}}]\n",
        receiver.url()
    ))?;
    let begun = std::time::Instant::now();
    shop(400)?;
    let seconds = begun.elapsed().as_secs_f64();
    agent.until("descry_agent_spans_total", "", 1000)?;
    let limited = agent.metric("descry_requests_trace_rate_limited_total", "")?;
    // Of its client nobody wants to know.
    agent.until("descry_kernel_messages_excluded_total", "", 100)?;
    agent.end()?;
    // The bucket is full at the beginning; a trace has four spans at most.
    let most = (5.0 * (seconds + 2.0)) as usize;
    let sent = spans(&receiver.seen(), "shop").len();
    ensure!((1..=4 * most).contains(&sent), "{sent} spans, {most} traces at most");
    ensure!(limited as usize + most > 300, "{limited} traces were left out, {most} might stay");
    Ok(())
}
