//! `descry profile`: where does a program spend its time.

mod output;
mod recorder;
mod stats;
mod waits;

use std::process::ExitCode;

use descry_aggregate::profile::{Profile, ProfileKind};
use descry_aggregate::{Dimensions, KnownProcess, Summary};
use descry_probe::{OffCpu, Options, Sampling, online_cpus};
use descry_telemetry::Counters;

use crate::cli::{Mode, ProfileArgs, StatsFormat, YesNo};
use crate::counted;
use crate::failure::Failure;
use crate::measure::{Finished, Prepared, Symbols, Tracked, progress_of_symbols};
use output::Output;
use recorder::Recorder;
use stats::{Counted, Stats};
pub use waits::{WaitCounters, WaitRecorder, Wants};

/// The largest ring, and the smallest.
const MAX_RING: u64 = 64 << 20;
const MIN_RING: u64 = 1 << 20;
/// The smallest of a command, which begins with programs that nobody knows yet.
const COMMAND_RING: u32 = 4 << 20;
/// Bytes of a usual sample.
const SAMPLE_BYTES: u64 = 512;
/// Bytes of a sample with a stack copy, one third of them having one; and how much of the ring is made larger for them.
const COPY_BYTES: u64 = 8192;
const COPY_RING: u64 = 16 << 20;
/// A ring for the stacks of all threads that are blocked when a measurement begins.
const WAIT_RING: u32 = 16 << 20;

/// Runs the command.
pub fn run(args: &ProfileArgs, counters: &Counters) -> Result<ExitCode, Failure> {
    if args.mode == Mode::Cpu && (args.wakers || args.min.is_some()) {
        let option = if args.wakers { "--wakers" } else { "--min" };
        return Err(Failure::Usage(format!("{option} is of waits: give it with --mode off-cpu or wall")));
    }
    let (prepared, mut output) = Prepared::new(&args.measure, || Output::open(args))?;
    let (sampling, off_cpu) = (args.mode != Mode::OffCpu, args.mode != Mode::Cpu);
    let options = Options {
        sampling: sampling.then_some(Sampling { frequency: args.frequency, has_shares: false }),
        off_cpu: off_cpu.then_some(OffCpu { wakers: args.wakers, longer_than: None }),
        // The reason of a wait is known by them.
        kernel_stacks: args.kernel == YesNo::Yes || off_cpu,
        ring_bytes: ring_bytes(args.frequency)?.max(if off_cpu { WAIT_RING } else { COMMAND_RING }),
        ..prepared.options()?
    };
    let threads = args.per_thread || output.wants_threads();
    let dimensions = Dimensions {
        // Elapsed time is that of each thread.
        threads: threads || args.mode == Mode::Wall,
        // Waits come added up.
        cpus: output.wants_timestamps() && !off_cpu,
        timestamps: output.wants_timestamps() && !off_cpu,
    };
    let mut recorder = Recorder::new(dimensions, off_cpu);
    let measurement = prepared.start(&options, &mut recorder, |session, target| {
        if sampling && target.is_fixed {
            // Threads that are made while the list is read inherit from their makers.
            session.sample_threads(&target.threads())?;
        } else if sampling {
            session.sample_cpus()?;
        }
        if off_cpu {
            session.start_off_cpu()?;
        }
        Ok(())
    })?;
    let finished = measurement.run(&mut recorder, counters)?;
    let exit = finished.exit;
    let (mut profile, stats) = finish(args, finished, recorder, counters, threads);
    if let Some(min) = args.min {
        let left_out = profile.leave_out_waits_below(min);
        say!("descry: --min leaves out {left_out}");
    }
    let written = output.finish(&profile);
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

/// Half a second of samples, and room for the stack copies of processes that are new.
pub fn ring_bytes(frequency: u64) -> Result<u32, Failure> {
    let samples_a_second = frequency * online_cpus()?.len() as u64;
    let bytes = (samples_a_second * SAMPLE_BYTES / 2)
        .max((samples_a_second * COPY_BYTES / 2).min(COPY_RING))
        .next_power_of_two()
        .clamp(MIN_RING, MAX_RING);
    Ok(bytes as u32)
}

/// Names everything, and adds up.
fn finish(
    args: &ProfileArgs,
    finished: Finished,
    mut recorder: Recorder,
    counters: &Counters,
    threads: bool,
) -> (Profile, Stats) {
    let Finished { tracked, kernel, .. } = finished;
    let Tracked { resources, held, mut processes, counters: tracker, tables } = tracked;
    let (samples, waits) = (recorder.samples(), recorder.wait_counters());
    counted::publish(counters, waits.entries());
    if args.mode == Mode::Wall {
        recorder.aggregator.weigh_by_time();
    }
    let aggregator = recorder.aggregator;
    let objects = processes.objects().counters();
    let bar = progress_of_symbols(aggregator.code().len());
    let mut symbols = Symbols::new(&held, &processes, args.inlines == YesNo::Yes);
    let code = symbols.resolve(aggregator.code(), |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    counted::publish(counters, symbols.counters().entries());
    counted::publish(counters, processes.counters().entries().chain(objects.entries()));
    let known: Vec<KnownProcess> = aggregator
        .processes()
        .iter()
        .map(|process| KnownProcess { resource: resources.get(process).cloned().unwrap_or_default() })
        .collect();
    let counted = Counted {
        kernel: &kernel,
        samples,
        waits,
        tracker,
        tables,
        aggregator: aggregator.counters(),
        side_band_lost: finished.side_band_lost,
        side_band_malformed: finished.side_band_malformed,
    };
    let summary = Summary {
        kind: match args.mode {
            Mode::Cpu => ProfileKind::Cpu,
            Mode::OffCpu => ProfileKind::OffCpu,
            Mode::Wall => ProfileKind::Wall,
        },
        start: finished.began,
        duration: finished.duration,
        period: if args.mode == Mode::OffCpu { 0 } else { 1_000_000_000 / args.frequency },
        threads,
        boot_to_unix: finished.boot_to_unix,
    };
    let profile = aggregator.finish(summary, &code, &known);
    let stats = Stats::new(&counted, &profile);
    (profile, stats)
}
