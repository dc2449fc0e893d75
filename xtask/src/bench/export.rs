//! How fast spans become the bytes of OTLP requests: descry's writer, which writes them straight, beside messages that
//! are built first, in pairs. Both run on one core; what is told is CPU time, so that a busy machine does not count.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::spread::{print_table, show};
use crate::command::{output, step};
use crate::products;

/// The options of `bench export`.
#[derive(clap::Args)]
pub struct Args {
    /// Spans of one run.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    spans: u64,
    /// Runs of each way, in turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
}

const WAYS: [(&str, &str); 2] = [("direct", "straight to bytes"), ("structs", "messages, then bytes")];

/// One run.
struct Run {
    spans_a_second: f64,
    bytes_a_span: f64,
}

/// Measures both ways and prints a table.
pub fn run(args: &Args) -> Result<()> {
    let program = products::example("descry-export", "encode_spans")?;
    step(format!("{} pairs of {} spans with 10 attributes", args.pairs, args.spans));
    let mut runs = WAYS.map(|_| Vec::new());
    for _ in 0..args.pairs {
        for ((way, _), runs) in WAYS.iter().zip(&mut runs) {
            runs.push(measure(&program, way, args.spans)?);
        }
    }
    let heading = ["way", "spans a second and core", "bytes a span"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for ((_, name), runs) in WAYS.iter().zip(&runs) {
        rows.push(vec![
            (*name).to_owned(),
            show(runs.iter().map(|run| run.spans_a_second), 0),
            show(runs.iter().map(|run| run.bytes_a_span), 1),
        ]);
    }
    let [direct, structs] = &runs;
    let factors =
        direct.iter().zip(structs).map(|(direct, structs)| direct.spans_a_second / structs.spans_a_second);
    println!("\nmedian (least..greatest) of the runs\n");
    print_table(&rows);
    println!("\nstraight to bytes is {} times as fast", show(factors, 1));
    Ok(())
}

fn measure(program: &Path, way: &str, spans: u64) -> Result<Run> {
    let said = output(Command::new(program).args([way, &spans.to_string()]))?;
    parse(&said).with_context(|| format!("{} said {said:?}", program.display()))
}

/// Reads "spans bytes nanoseconds".
fn parse(said: &str) -> Result<Run> {
    let numbers: Vec<f64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    match numbers.as_slice() {
        [spans, bytes, nanos] if *spans > 0.0 && *nanos > 0.0 => {
            Ok(Run { spans_a_second: spans / nanos * 1e9, bytes_a_span: bytes / spans })
        }
        _ => bail!("that is not three numbers above zero"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(said: &str, expected: Option<(f64, f64)>) {
        assert_eq!(parse(said).ok().map(|run| (run.spans_a_second, run.bytes_a_span)), expected);
    }

    #[test]
    fn what_the_program_says_is_read() {
        check("1000 300000 500000\n", Some((2e6, 300.0)));
        check("1000 300000", None);
        check("0 0 0", None);
        check("no", None);
    }
}
