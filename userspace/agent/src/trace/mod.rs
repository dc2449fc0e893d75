//! `descry trace`: when functions are called, and how long they take.

mod attach;
mod catalog;
mod list;
mod output;
mod recorder;
mod span;

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

use anyhow::Context;
use descry_abi::counter::Counter;
use descry_abi::histogram::Histogram;
use descry_aggregate::histogram;
use descry_decode::ids::Tgid;
use descry_export::span::FunctionRow;
use descry_probe::{FunctionFigures, Functions, Options};
use descry_process::table::{ProcessTable, TableLimits};
use descry_telemetry::Counters;
use serde_json::json;

use crate::cli::{StatsFormat, TraceArgs};
use crate::counted;
use crate::failure::Failure;
use crate::last_line;
use crate::measure::{Clocks, Prepared};
pub use attach::attach_all;
pub use catalog::{Catalog, CatalogCounters, Traceable, Work};
use output::Output;
pub use recorder::MAX_PLACES;
use recorder::{Recorder, Subject};
pub use span::span;

/// Counters of the kernel side that mean a call that is not counted, or arguments that are missing.
const LOST: [Counter; 5] = [
    Counter::FunctionCallersFull,
    Counter::FunctionsFull,
    Counter::GoroutineFailed,
    Counter::RingFullArguments,
    Counter::ScopeFull,
];

/// Runs the command.
pub fn run(args: &TraceArgs, counters: &Counters) -> Result<ExitCode, Failure> {
    if args.list {
        return list(args);
    }
    let (prepared, output) = Prepared::new(&args.measure, || Output::open(args))?;
    let event_rate = if args.histogram_only { 0 } else { args.max_rate };
    let options = Options { functions: Some(Functions { event_rate }), ..prepared.options()? };
    let boot_to_unix = Clocks::read()?.boot_to_unix;
    let mut recorder =
        Recorder::new(subject(args, &prepared, boot_to_unix)?, Catalog::new(args.into()), output);
    let measurement = prepared.start(&options, &mut recorder, |_, _| Ok(()))?;
    let finished = measurement.run(&mut recorder, counters)?;
    let Recorder { mut catalog, output, figures, spans, .. } = recorder;
    counted::publish(counters, catalog.counters().entries());
    let missing = catalog.missing();
    if catalog.is_empty() && !missing.is_empty() {
        return Err(Failure::Failed(anyhow::anyhow!("{}", missing.join("\n"))));
    }
    missing.iter().for_each(|text| tracing::warn!("{text}"));
    let (rows, seen) = rows(&catalog, &figures);
    let mut lost = lost(&figures);
    for (counter, count) in
        finished.kernel.iter().filter(|(counter, count)| LOST.contains(counter) && *count > 0)
    {
        lost.insert(counter.name(), *count);
    }
    let (delivered, lost) = output.finish(&rows, seen, lost)?;
    counted::publish(counters, delivered.entries());
    report(args.measure.stats, seen, spans, &lost);
    Ok(match finished.exit {
        Some(code) if args.measure.exit_code => ExitCode::from(code),
        _ => ExitCode::SUCCESS,
    })
}

/// Whom the probes are for.
fn subject(args: &TraceArgs, prepared: &Prepared<'_>, boot_to_unix: i64) -> Result<Subject, Failure> {
    let target = &prepared.target;
    let only = match target.processes.as_slice() {
        // A child that is followed would not run into probes of its parent alone.
        [only] if target.is_fixed && !target.follow => Some(*only),
        _ => None,
    };
    Ok(Subject {
        only,
        processes: known_processes(prepared)?,
        started: prepared.started(),
        may_grow: !target.is_fixed || !args.measure.target.command.is_empty(),
        yes: args.yes,
        boot_to_unix,
    })
}

/// The processes whose files are searched: those that are named, or all.
fn known_processes(prepared: &Prepared<'_>) -> Result<Vec<Tgid>, Failure> {
    let target = &prepared.target;
    if matches!(target.scope, descry_probe::Scope::Processes(_)) {
        return Ok(target.processes.clone());
    }
    descry_process::target::processes().map_err(|error| Failure::Failed(anyhow::anyhow!("{error}")))
}

/// `--list`.
fn list(args: &TraceArgs) -> Result<ExitCode, Failure> {
    let (prepared, ()) = Prepared::new(&args.measure, || Ok(()))?;
    let mut processes = ProcessTable::new(TableLimits::default());
    let mut catalog = Catalog::new(args.into());
    let mut found: Vec<Work> = catalog.scan_paths(&mut processes)?;
    for tgid in known_processes(&prepared)? {
        // One that is gone has no files.
        if processes.load(tgid).is_ok() {
            found.extend(catalog.scan(&mut processes, tgid));
        }
    }
    if let Some(tgid) = prepared.started() {
        found.extend(catalog.scan_libraries(&mut processes, tgid));
    }
    let missing = catalog.missing();
    if found.is_empty() && !missing.is_empty() {
        return Err(Failure::Failed(anyhow::anyhow!("{}", missing.join("\n"))));
    }
    match list::write(&catalog, &found, &mut io::stdout().lock()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write to stdout")?,
    }
    missing.iter().for_each(|text| say!("descry: {text}"));
    Ok(ExitCode::SUCCESS)
}

fn calls(figures: &FunctionFigures) -> u64 {
    let totals = &figures.totals;
    totals.durations.count + totals.unfinished + totals.too_deep + figures.open
}

/// A row a function, those with the most calls first, and the calls of all.
fn rows(catalog: &Catalog, figures: &[FunctionFigures]) -> (Vec<FunctionRow>, u64) {
    let mut by_function: BTreeMap<(&str, &str), (u64, Histogram)> = BTreeMap::new();
    let mut seen = 0;
    for figures in figures {
        let Some(traced) = catalog.get(descry_decode::ids::FunctionNumber(figures.key.function)) else {
            continue;
        };
        let (all, durations) = by_function.entry((&traced.name, &traced.file)).or_default();
        *all += calls(figures);
        seen += calls(figures);
        histogram::add(durations, &figures.totals.durations);
    }
    let row = |((name, file), (calls, durations)): ((&str, &str), (u64, Histogram))| {
        FunctionRow::new(name.to_owned(), file.to_owned(), calls, &durations)
    };
    let mut rows: Vec<FunctionRow> = by_function.into_iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.calls));
    (rows, seen)
}

/// Calls that have no span, by reason.
fn lost(figures: &[FunctionFigures]) -> BTreeMap<&'static str, u64> {
    let mut lost = BTreeMap::new();
    for figures in figures {
        let totals = &figures.totals;
        for (name, count) in [
            ("function_unfinished", totals.unfinished),
            ("function_too_deep", totals.too_deep),
            ("function_open", figures.open),
            ("function_rate_limited", totals.limited),
            ("function_ring_full", totals.ring_full),
        ] {
            *lost.entry(name).or_insert(0) += count;
        }
    }
    lost.retain(|_, count| *count > 0);
    lost
}

/// The last line on stderr.
fn report(format: StatsFormat, seen: u64, spans: u64, lost: &BTreeMap<&'static str, u64>) {
    let usage = last_line::usage();
    match format {
        StatsFormat::Text => {
            let reasons: Vec<String> = lost.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let without = if reasons.is_empty() {
                String::new()
            } else {
                format!("; without a span: {}", reasons.join(", "))
            };
            let cost = last_line::usage_text(usage);
            say!("descry: {seen} calls, {spans} spans{without}{cost}");
        }
        StatsFormat::Json => say!(
            "{}",
            json!({
                "calls": seen,
                "spans": spans,
                "lost": lost,
                "cpu_ns": usage.map(|usage| usage.cpu_ns),
                "peak_rss_bytes": usage.map(|usage| usage.peak_rss_bytes),
            })
        ),
    }
}
