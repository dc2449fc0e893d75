//! `descry syscalls`: which system calls does a program make.

mod output;
mod recorder;
mod slow;
mod stats;

use std::process::ExitCode;

use descry_aggregate::syscalls::{ProcessName, SyscallReport};
use descry_decode::syscall;
use descry_probe::{Options, Syscalls};
use descry_process::{AttributeValue, Attributes};
use descry_telemetry::Counters;

use crate::cli::{StatsFormat, SyscallsArgs};
use crate::counted;
use crate::failure::Failure;
use crate::measure::{Finished, Prepared, Symbols, Tracked, progress_of_symbols};
use output::Output;
pub use recorder::{Recorder, RecorderCounters};
pub use slow::new_ids;
use stats::Stats;

/// Room for slow calls, which come with a stack each.
const RING_BYTES: u32 = 16 << 20;

/// Runs the command.
pub fn run(args: &SyscallsArgs, counters: &Counters) -> Result<ExitCode, Failure> {
    let (prepared, mut output) = Prepared::new(&args.measure, || Output::open(args))?;
    // No call takes less than a nanosecond; 0 would mean that none is wanted.
    let slower_than = args.slower_than.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1));
    let options = prepared.options()?;
    let options = Options {
        syscalls: Some(Syscalls { slower_than, traits: syscall::traits() }),
        kernel_stacks: false,
        ring_bytes: if slower_than.is_some() { RING_BYTES } else { options.ring_bytes },
        ..options
    };
    let mut recorder = Recorder::new(&prepared.target.processes);
    let measurement = prepared.start(&options, &mut recorder, |session, _| Ok(session.attach_syscalls()?))?;
    let finished = measurement.run(&mut recorder, counters)?;
    let exit = finished.exit;
    let (report, stats) = finish(args, finished, recorder, counters);
    let written = output.finish(&report);
    match args.measure.stats {
        StatsFormat::Text => say!("descry: {}", stats.text()),
        StatsFormat::Json => say!("{}", stats.json()),
    }
    written?;
    Ok(match exit {
        Some(code) if args.measure.exit_code => ExitCode::from(code),
        _ => ExitCode::SUCCESS,
    })
}

/// Names the places in code that slow calls came from.
fn finish(
    args: &SyscallsArgs,
    finished: Finished,
    recorder: Recorder,
    counters: &Counters,
) -> (SyscallReport, Stats) {
    let Recorder { calls, slow, open, counters: recorded, .. } = recorder;
    let over_limit = calls.over_limit();
    let Tracked { mut resources, held, mut processes, counters: tracker, tables } = finished.tracked;
    let objects = processes.objects().counters();
    let code = slow.code();
    let bar = progress_of_symbols(code.len());
    let mut symbols = Symbols::new(&held, &processes, true);
    let code = symbols.resolve(&code, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    counted::publish(counters, symbols.counters().entries());
    counted::publish(counters, processes.counters().entries().chain(objects.entries()));
    counted::publish(counters, recorded.entries());
    let mut stats = Stats::new(&finished.kernel, tracker, tables, &code);
    stats.note("syscall_rows_over_limit", over_limit);
    stats.note("slow_call_over_limit", recorded.slow_over_limit);
    stats.note("mapping_event_dropped", tracker.mappings_dropped + finished.side_band_lost);
    stats.note("mapping_event_malformed", finished.side_band_malformed);
    let rows = calls.finish();
    for row in &rows {
        // A process that was gone before anything could be read of it.
        let resource = resources.entry(row.process.clone()).or_default();
        if resource.is_empty() {
            *resource = least_resource(&row.process);
        }
    }
    let report = SyscallReport {
        start: finished.began,
        duration: finished.duration,
        rows,
        slow: args.slower_than.is_some().then(|| slow.finish(&code, finished.boot_to_unix)),
        open,
        begun_before: stats.begun_before(),
        lost: stats.lost().clone(),
        resources,
    };
    stats.set_calls(report.rows.iter().map(|row| row.durations.count).sum());
    (report, stats)
}

/// What is known of a process that is known by its id and name alone.
pub fn least_resource((tgid, name): &ProcessName) -> Attributes {
    vec![
        ("service.name".into(), AttributeValue::Text(name.to_string())),
        ("process.pid".into(), AttributeValue::Int(tgid.0.into())),
    ]
}
