//! The agent watches the shop and writes files; what is in them is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command::{self, Running, step};

/// How long the agent may take to end.
const END: Duration = Duration::from_secs(30);
/// Spans of a trace, functions and metrics that are shown at most.
const SHOWN: usize = 12;

/// Runs both for so long, and shows a trace, a profile and the metrics of the shop.
pub(super) fn run(descry: &Path, shop: &Path, directory: &Path, seconds: u32) -> Result<()> {
    step("the agent watches the shop, and writes OTLP to files");
    let (files, config) = (directory.join("otlp"), directory.join("agent.yaml"));
    if files.exists() {
        fs::remove_dir_all(&files).with_context(|| format!("cannot remove {}", files.display()))?;
    }
    let text = format!(
        "rules: [{{comm: shop}}]\n\
         others: {{profile: false, off_cpu: false, requests: false, functions: false, logs: false}}\n\
         profile: {{frequency: 99, window: 2s}}\noff_cpu: {{enabled: true, longer_than: 1ms}}\n\
         functions: {{names: ['shop:shop::Shop::*', 'shop:shop::Customer::get']}}\n\
         health: {{enabled: false}}\nfile: {{directory: {}}}\n",
        files.display()
    );
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let mut command = Command::new(descry);
    command.args(["agent", "--config"]).arg(&config).env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    step(command::line(&command));
    let mut agent = command.stdin(Stdio::null()).spawn().context("cannot start descry")?;
    let result = (|| {
        // The agent is there before the shop opens.
        sleep(Duration::from_secs(2));
        let mut shop = Running::start(shop, [""; 0], |command| {
            command.stdout(Stdio::null());
        })?;
        sleep(Duration::from_secs(seconds.into()));
        shop.must_run()
    })();
    let pid = i32::try_from(agent.id()).context("no such pid")?;
    kill(Pid::from_raw(pid), Signal::SIGTERM).context("cannot end the agent")?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = agent.try_wait()? {
            break status;
        }
        if began.elapsed() > END {
            agent.kill()?;
        }
        sleep(Duration::from_millis(50));
    };
    result?;
    ensure!(status.success(), "the agent failed: {status}");
    let read = |name: &str| lines(&files.join(name));
    println!("\nA trace of the shop:");
    print!("{}", trace(&read("spans.jsonl")?));
    println!("\nIts functions, in the profiles:");
    print!("{}", functions(&read("profiles.jsonl")?));
    println!("\nIts metrics:");
    print!("{}", metrics(&read("metrics.jsonl")?));
    println!("\nAll of it as OTLP:  {}", files.display());
    Ok(())
}

fn lines(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines().map(|line| serde_json::from_str(line).context("a line is no JSON")).collect()
}

/// The elements of a list, and of that in each of them, and so on.
fn all<'a>(of: &'a [Value], path: &[&str]) -> Vec<&'a Value> {
    let mut now: Vec<&Value> = of.iter().collect();
    for key in path {
        now = now.into_iter().filter_map(|it| it[*key].as_array()).flatten().collect();
    }
    now
}

/// The spans of the trace that has most of them, each below its parent.
fn trace(requests: &[Value]) -> String {
    let spans = all(requests, &["resourceSpans", "scopeSpans", "spans"]);
    let mut traces: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for span in spans {
        traces.entry(span["traceId"].as_str().unwrap_or_default()).or_default().push(span);
    }
    let Some(mut spans) = traces.into_values().max_by_key(Vec::len) else { return "    none\n".to_owned() };
    let nanos =
        |span: &Value, key: &str| span[key].as_str().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
    spans.sort_by_key(|span| nanos(span, "startTimeUnixNano"));
    let depth = |span: &Value| {
        let mut depth = 0;
        let mut parent = span["parentSpanId"].as_str();
        // Bounded, should ids go round in a circle.
        while let Some(found) = spans.iter().find(|it| it["spanId"].as_str() == parent && parent.is_some()) {
            (depth, parent) = (depth + 1, found["parentSpanId"].as_str());
            if depth > spans.len() {
                break;
            }
        }
        depth
    };
    let line = |span: &&Value| {
        let took = nanos(span, "endTimeUnixNano").saturating_sub(nanos(span, "startTimeUnixNano"));
        let (name, indent) = (span["name"].as_str().unwrap_or_default(), "  ".repeat(depth(span)));
        let kind = match span["kind"].as_u64() {
            Some(2) => "server ",
            Some(3) => "client ",
            _ if name.starts_with("wait: ") => "",
            _ => "call of ",
        };
        format!("    {:>9.3} ms  {indent}{kind}{name}\n", took as f64 / 1e6)
    };
    spans.iter().take(SHOWN).map(line).collect()
}

/// Names of the program's own functions.
fn functions(requests: &[Value]) -> String {
    let strings = requests.iter().filter_map(|request| request["dictionary"]["stringTable"].as_array());
    let names = strings.flatten().filter_map(Value::as_str).filter(|name| name.starts_with("shop::"));
    let names: BTreeSet<&str> = names.collect();
    names.into_iter().take(SHOWN).map(|name| format!("    {name}\n")).collect()
}

/// (name, points over all windows).
fn metrics(requests: &[Value]) -> String {
    let mut points: BTreeMap<&str, usize> = BTreeMap::new();
    for metric in all(requests, &["resourceMetrics", "scopeMetrics", "metrics"]) {
        let kinds = ["sum", "gauge", "exponentialHistogram", "histogram"];
        let count = kinds
            .iter()
            .filter_map(|kind| metric[*kind]["dataPoints"].as_array())
            .map(Vec::len)
            .sum::<usize>();
        *points.entry(metric["name"].as_str().unwrap_or_default()).or_default() += count;
    }
    points.into_iter().map(|(name, points)| format!("    {name} ({points} points)\n")).collect()
}
