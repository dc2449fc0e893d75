//! Generic functions, closures, trait objects and iterators, inlined as a release build does it:
//! `main > run_all > <Doubler as Step>::apply > apply_twice > combine (inlined) > step (inlined)`, and the same with `Adder`.
//!
//! `generics [SECONDS]`; prints "ready" first.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

trait Step {
    fn apply(&self, value: u64) -> u64;
}

struct Doubler;
struct Adder(u64);

#[inline(always)]
fn step<F: Fn(u64) -> u64>(function: &F, value: u64) -> u64 {
    black_box(function(value))
}

#[inline(always)]
fn combine<F: Fn(u64) -> u64>(function: &F, value: u64) -> u64 {
    step(function, step(function, value))
}

#[inline(never)]
fn apply_twice<F: Fn(u64) -> u64>(function: F, mut value: u64) -> u64 {
    for _ in 0..20_000 {
        value = combine(&function, value);
    }
    black_box(value)
}

impl Step for Doubler {
    #[inline(never)]
    fn apply(&self, value: u64) -> u64 {
        black_box(apply_twice(|value| value.wrapping_mul(2) | 1, value))
    }
}

impl Step for Adder {
    #[inline(never)]
    fn apply(&self, value: u64) -> u64 {
        let addend = self.0;
        black_box(apply_twice(|value| value.wrapping_add(addend), value))
    }
}

#[inline(never)]
fn run_all(steps: &[Box<dyn Step>], value: u64) -> u64 {
    black_box(steps.iter().fold(value, |value, step| step.apply(value)))
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|seconds| seconds.parse::<f64>().ok());
    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let steps: Vec<Box<dyn Step>> = vec![Box::new(Doubler), Box::new(Adder(3))];
    println!("ready");
    let mut value = 1;
    while deadline.is_none_or(|deadline| Instant::now() < deadline) {
        value = run_all(&steps, value);
    }
    black_box(value);
}
