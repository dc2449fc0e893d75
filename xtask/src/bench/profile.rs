//! What it costs to profile a busy machine: the workload's wall time, and the profiler's own CPU time and memory.
//!
//! A fixed amount of work is timed bare and profiled, in turn (A B, then B A), each profiler once a round, so that a
//! machine that changes its pace changes it for all. The worker has frame pointers here: without them perf and bpftrace
//! would walk two frames where descry walks twenty.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::profiler::{Cost, Profiler};
use super::spread::{Spread, print_table, show};
use crate::command::{need_root, output, step};
use crate::install;
use crate::products;

/// The options of `bench profile`.
#[derive(clap::Args)]
pub struct Args {
    /// About how long one run of the workload takes.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Bare and profiled runs for each profiler.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Samples a second and processor.
    #[arg(long, short = 'F', default_value_t = 99)]
    frequency: u32,
    /// Only these; by default all.
    #[arg(long, value_name = "PROFILER", value_delimiter = ',')]
    only: Vec<Profiler>,
}

/// One bare and one profiled run.
struct Pair {
    /// Wall times (s).
    bare: f64,
    profiled: f64,
    cost: Cost,
}

/// Measures all profilers and prints a table.
pub fn run(args: &Args) -> Result<()> {
    need_root("to profile the whole machine")?;
    install::for_comparison()?;
    let descry = match args.only.is_empty() || args.only.contains(&Profiler::Descry) {
        true => products::descry()?,
        false => PathBuf::new(),
    };
    let burner = products::burner(true)?;
    let directory = tempfile::tempdir()?;

    // Long enough to tell the pace of the machine.
    const TRIAL: u64 = 200;
    let trial = work(&burner, TRIAL)?;
    let requests = (TRIAL as f64 * f64::from(args.seconds) / trial).max(1.0) as u64;
    step(format!("the workload: two threads, {requests} requests each, at {} Hz", args.frequency));

    let mut results: Vec<(Profiler, Vec<Pair>)> = Profiler::ALL
        .into_iter()
        .filter(|profiler| args.only.is_empty() || args.only.contains(profiler))
        .map(|profiler| (profiler, Vec::new()))
        .collect();
    for round in 0..args.pairs {
        step(format!("round {} of {}", round + 1, args.pairs));
        let is_turned = round % 2 == 1;
        for (profiler, pairs) in &mut results {
            let mut bare = if is_turned { 0.0 } else { work(&burner, requests)? };
            let (profiled, cost) =
                profiler.over(&descry, args.frequency, directory.path(), || work(&burner, requests))?;
            if is_turned {
                bare = work(&burner, requests)?;
            }
            pairs.push(Pair { bare, profiled, cost });
        }
        // Else each would always be measured after the same one.
        results.reverse();
    }
    results.sort_by_key(|(profiler, _)| Profiler::ALL.iter().position(|one| one == profiler));
    print(&results);
    Ok(())
}

/// Runs a fixed amount of work, and returns its wall time (s) as the worker tells it.
fn work(burner: &Path, requests: u64) -> Result<f64> {
    let said = output(Command::new(burner).args(["--threads", "2", "--work", &requests.to_string()]))?;
    let millis = said
        .lines()
        .find_map(|line| line.strip_prefix("served ")?.split_once(" in ")?.1.strip_suffix(" ms"))
        .and_then(|millis| millis.parse::<f64>().ok())
        .with_context(|| format!("{} did not say how long it took: {said}", burner.display()))?;
    if millis <= 0.0 {
        bail!("{} took no time", burner.display());
    }
    Ok(millis / 1000.0)
}

fn print(results: &[(Profiler, Vec<Pair>)]) {
    let heading = [
        "profiler",
        "wall time, profiled / bare",
        "CPU s a minute",
        "CPU s to start",
        "CPU s to end",
        "CPU s to name",
        "peak RSS MB",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (profiler, pairs) in results {
        let each = |figure: fn(&Pair) -> f64| pairs.iter().map(figure);
        let mut row = vec![profiler.name().to_owned(), show(each(|pair| pair.profiled / pair.bare), 4)];
        if *profiler == Profiler::Nobody {
            rows.push(row);
            continue;
        }
        row.push(show(each(|pair| pair.cost.per_minute), 2));
        row.push(show(each(|pair| pair.cost.start), 2));
        row.push(show(each(|pair| pair.cost.end), 2));
        row.push(show(pairs.iter().filter_map(|pair| pair.cost.afterwards), 2));
        row.push(show(each(|pair| pair.cost.peak_rss as f64 / 1e6), 1));
        rows.push(row);
    }
    println!("\nmedian (least..greatest) of the pairs\n");
    print_table(&rows);
    println!();
    notes(results);
}

fn notes(results: &[(Profiler, Vec<Pair>)]) {
    let pairs_of = |who: Profiler| {
        results.iter().find(|(profiler, _)| *profiler == who).map(|(_, pairs)| pairs.as_slice())
    };
    let noise = pairs_of(Profiler::Nobody)
        .and_then(|pairs| Spread::of(pairs.iter().map(|pair| pair.profiled / pair.bare)));
    if let Some(noise) = noise {
        println!(
            "Two bare runs differ by {:.4}..{:.4} here: a ratio within that tells nothing.",
            noise.least, noise.greatest
        );
    }
    if let (Some(own), Some(perf)) = (pairs_of(Profiler::Descry), pairs_of(Profiler::PerfFramePointers)) {
        let rounds = own.iter().zip(perf).map(|(own, perf)| own.profiled / perf.profiled);
        println!("wall time under descry / under perf with frame pointers, by rounds: {}", show(rounds, 4));
    }
    println!(
        "To start: until a second after its events are open. To end: symbols and output after the workload.\n\
         To name: `perf script --no-inline`, which perf's users run afterwards; bpftrace names at its end."
    );
}
