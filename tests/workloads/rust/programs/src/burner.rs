//! A worker that serves made-up requests: 60 per cent of its CPU time in `checkout`, 30 in `search`, 10 in `render`,
//! some twenty frames below the root.
//!
//! The three do the same work, 6, 3 and 1 times, so the split is exact without a look at any clock.
//! `burner [--seconds N] [--work N] [--threads N]`: without `--seconds` and `--work` it runs until it is killed; one
//! unit of work is one request. It prints "ready" when its threads run, and at the end the requests served and the
//! wall time they took in milliseconds.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Rounds of arithmetic in one share of the work, some tens of microseconds.
const ROUNDS: u64 = 20_000;

/// What every handler's time goes into.
#[inline(never)]
fn mix(rounds: u64) -> u64 {
    let mut value = rounds;
    for _ in 0..rounds {
        value =
            black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    }
    value
}

#[inline(always)]
fn price_line(rounds: u64) -> u64 {
    black_box(mix(rounds))
}

#[inline(never)]
fn price_order() -> u64 {
    let mut total: u64 = 0;
    for _ in 0..6 {
        total = total.wrapping_add(price_line(ROUNDS));
    }
    black_box(total)
}

#[inline(never)]
fn checkout() -> u64 {
    black_box(price_order())
}

#[inline(always)]
fn score(rounds: u64) -> u64 {
    black_box(mix(rounds))
}

#[inline(never)]
fn rank() -> u64 {
    let mut total: u64 = 0;
    for _ in 0..3 {
        total = total.wrapping_add(score(ROUNDS));
    }
    black_box(total)
}

#[inline(never)]
fn search() -> u64 {
    black_box(rank())
}

#[inline(never)]
fn template() -> u64 {
    black_box(mix(ROUNDS))
}

#[inline(never)]
fn render() -> u64 {
    black_box(template())
}

#[inline(never)]
fn handle_request() -> u64 {
    black_box(checkout() ^ search() ^ render())
}

/// A layer around the handler, as web frameworks stack them.
trait Layer {
    fn call(&self) -> u64;
}

struct Handler;

impl Layer for Handler {
    #[inline(never)]
    fn call(&self) -> u64 {
        black_box(handle_request())
    }
}

struct Middleware<Inner>(Inner);

impl<Inner: Layer> Layer for Middleware<Inner> {
    #[inline(never)]
    fn call(&self) -> u64 {
        black_box(self.0.call())
    }
}

#[inline(never)]
fn serve(deadline: Option<Instant>, work: Option<u64>) -> u64 {
    let service = Middleware(Middleware(Middleware(Middleware(Middleware(Middleware(Handler))))));
    let mut served = 0;
    while work.is_none_or(|work| served < work) && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        black_box(service.call());
        served += 1;
    }
    served
}

struct Options {
    seconds: Option<f64>,
    work: Option<u64>,
    threads: usize,
}

fn options() -> Option<Options> {
    let mut options = Options { seconds: None, work: None, threads: 1 };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match &*name {
            "--seconds" => options.seconds = Some(value.parse().ok()?),
            "--work" => options.work = Some(value.parse().ok()?),
            "--threads" => options.threads = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(Options { seconds, work, threads }) = options() else {
        eprintln!("usage: burner [--seconds N] [--work REQUESTS] [--threads N]");
        return ExitCode::from(2);
    };
    let start = Instant::now();
    let deadline = seconds.map(|seconds| start + Duration::from_secs_f64(seconds));
    let mut workers = Vec::new();
    for index in 0..threads {
        let worker = std::thread::Builder::new().name(format!("worker-{index}"));
        match worker.spawn(move || serve(deadline, work)) {
            Ok(handle) => workers.push(handle),
            Err(error) => {
                eprintln!("thread {index} could not be started: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("ready");
    let served: u64 = workers.into_iter().filter_map(|worker| worker.join().ok()).sum();
    println!("served {served} in {} ms", start.elapsed().as_millis());
    ExitCode::SUCCESS
}
