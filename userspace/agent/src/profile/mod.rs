//! `descry profile`: where does a program spend its time.

mod output;
mod recorder;
mod stats;

use std::process::ExitCode;

use descry_aggregate::profile::{Profile, ProfileKind};
use descry_aggregate::{Dimensions, KnownProcess, Summary};
use descry_probe::{Options, Sampling, online_cpus};
use descry_telemetry::Counters;

use crate::cli::{ProfileArgs, StatsFormat, YesNo};
use crate::counted;
use crate::failure::Failure;
use crate::measure::{Finished, Prepared, Symbols, Tracked, progress_of_symbols};
use output::Output;
use recorder::Recorder;
use stats::{Counted, Stats};

/// The largest ring.
const MAX_RING: u64 = 64 << 20;
const MIN_RING: u64 = 4 << 20;
/// Bytes of a usual sample.
const SAMPLE_BYTES: u64 = 512;
/// Bytes of a sample with a stack copy, one third of them having one; and how much of the ring is made larger for them.
const COPY_BYTES: u64 = 8192;
const COPY_RING: u64 = 16 << 20;

/// Runs the command.
pub fn run(args: &ProfileArgs, counters: &Counters) -> Result<ExitCode, Failure> {
    let (prepared, mut output) = Prepared::new(&args.measure, || Output::open(args))?;
    let options = Options {
        sampling: Some(Sampling { frequency: args.frequency }),
        kernel_stacks: args.kernel == YesNo::Yes,
        ring_bytes: ring_bytes(args.frequency)?,
        ..prepared.options()?
    };
    let mut recorder = Recorder::new(Dimensions {
        threads: args.per_thread || output.wants_threads(),
        cpus: output.wants_timestamps(),
        timestamps: output.wants_timestamps(),
    });
    let measurement = prepared.start(&options, &mut recorder, |session, target| {
        if target.is_fixed {
            // Threads that are made while the list is read inherit from their makers.
            session.sample_threads(&target.threads())?;
        } else {
            session.sample_cpus()?;
        }
        Ok(())
    })?;
    let finished = measurement.run(&mut recorder, counters)?;
    let exit = finished.exit;
    let (profile, stats) = finish(args, finished, recorder, counters);
    let written = output.finish(&profile);
    match args.measure.stats {
        StatsFormat::Text => eprintln!("descry: {}", stats.text()),
        StatsFormat::Json => eprintln!("{}", stats.json()),
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
    recorder: Recorder,
    counters: &Counters,
) -> (Profile, Stats) {
    let Finished { tracked, kernel, .. } = finished;
    let Tracked { resources, held, mut processes, counters: tracker, tables } = tracked;
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
        tracker,
        tables,
        aggregator: aggregator.counters(),
        side_band_lost: finished.side_band_lost,
        side_band_malformed: finished.side_band_malformed,
    };
    let summary = Summary {
        kind: ProfileKind::Cpu,
        start: finished.began,
        duration: finished.duration,
        period: 1_000_000_000 / args.frequency,
        boot_to_unix: finished.boot_to_unix,
    };
    let profile = aggregator.finish(summary, &code, &known);
    let stats = Stats::new(&counted, &profile);
    (profile, stats)
}
