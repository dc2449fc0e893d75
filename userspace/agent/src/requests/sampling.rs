//! Which traces are sent, by `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` or by settings that go before them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use descry_abi::template::Lots;
use descry_pipeline::{Sampler, Sampling};

use crate::failure::Failure;

const NAME: &str = "OTEL_TRACES_SAMPLER";
const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";

/// What lots are drawn with, the same as long as descry runs.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());

/// Which traces are taken that begin on this machine and carry no context.
pub fn lots(sampling: Option<&Sampling>) -> Lots {
    Lots { first_taken: sampling.map_or(0, Sampling::first_taken), seed: *SEED }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// By the environment; none: it names no sampler.
///
/// # Errors
/// A sampler that there is not.
pub fn of_environment() -> Result<Option<Sampling>, Failure> {
    if variable(NAME).is_none() {
        return Ok(None);
    }
    let sampler = Sampler::named(variable(NAME).as_deref(), variable(ARGUMENT).as_deref());
    let sampler = sampler.map_err(|error| Failure::Usage(format!("{NAME}: {error}")))?;
    Ok(Some(Sampling::new(sampler, 0)))
}

/// By the settings, each of which goes before its variable.
///
/// # Errors
/// A sampler that there is not.
pub fn sampling(name: Option<&str>, ratio: Option<f64>, traces_per_second: u32) -> anyhow::Result<Sampling> {
    let name = name.map(str::to_owned).or_else(|| variable(NAME));
    let argument = ratio.map(|ratio| ratio.to_string()).or_else(|| variable(ARGUMENT));
    let sampler = Sampler::named(name.as_deref(), argument.as_deref())?;
    Ok(Sampling::new(sampler, traces_per_second))
}
