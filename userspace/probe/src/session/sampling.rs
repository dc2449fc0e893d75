//! Samples of stacks by perf events.

use aya::Ebpf;
use aya::programs::perf_event::{
    HardwareEvent, PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::programs::{PerfEvent, ProgramError};
use descry_decode::ids::Tid;
use tracing::{debug, info};

use super::Session;
use crate::error::chain;
use crate::{ProbeError, online_cpus};

/// What samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampler {
    /// Hardware cycles.
    Cycles,
    /// The `cpu-clock` software event, where the machine counts no cycles.
    CpuClock,
}

/// How often to sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Samples a second and CPU (Hz).
    pub frequency: u64,
}

impl Sampling {
    /// Time that a sample stands for (ns).
    pub(super) fn weight(self) -> u64 {
        1_000_000_000 / self.frequency.max(1)
    }
}

const WITH_LOOP: &str = "sample";
const WITHOUT_LOOP: &str = "sample_without_loop";

impl Session {
    pub(super) fn load_sampling(&mut self) -> Result<(), ProbeError> {
        if self.has_loop {
            match perf_program(&mut self.ebpf, WITH_LOOP)?.load() {
                Ok(()) => return Ok(()),
                Err(error) => debug!(error = %chain(&error), "the program with bpf_loop is refused"),
            }
            self.has_loop = false;
        }
        let program = perf_program(&mut self.ebpf, WITHOUT_LOOP)?;
        program.load().map_err(|error| ProbeError::program(WITHOUT_LOOP, &error))
    }

    fn sampling_program(&self) -> &'static str {
        if self.has_loop { WITH_LOOP } else { WITHOUT_LOOP }
    }

    /// Samples every CPU.
    pub fn sample_cpus(&mut self) -> Result<Sampler, ProbeError> {
        let cpus = online_cpus()?;
        let scopes = cpus.into_iter().map(|cpu| PerfEventScope::AllProcessesOneCpu { cpu });
        self.sample(scopes.collect(), false)
    }

    /// Samples these threads, and those that they make from now on. One that has ended meanwhile is passed over.
    pub fn sample_threads(&mut self, tids: &[Tid]) -> Result<Sampler, ProbeError> {
        let scopes = tids.iter().map(|tid| PerfEventScope::OneProcess { pid: tid.0, cpu: None });
        self.sample(scopes.collect(), true)
    }

    fn sample(&mut self, scopes: Vec<PerfEventScope>, inherit: bool) -> Result<Sampler, ProbeError> {
        let name = self.sampling_program();
        let sampling = self.sampling.ok_or(ProbeError::Missing { name })?;
        let frequency = SamplePolicy::Frequency(sampling.frequency);
        let program = perf_program(&mut self.ebpf, name)?;
        let mut sampler = Sampler::Cycles;
        for scope in scopes {
            let mut attach = |sampler| program.attach(event(sampler), scope, frequency, inherit);
            let mut result = attach(sampler);
            if sampler == Sampler::Cycles && matches!(errno(&result), Some(libc::ENOENT | libc::EOPNOTSUPP)) {
                info!("no hardware cycles here: sampling by cpu-clock");
                sampler = Sampler::CpuClock;
                result = attach(sampler);
            }
            if inherit && errno(&result) == Some(libc::ESRCH) {
                continue;
            }
            let link = result.map_err(|error| ProbeError::Attach {
                program: name,
                target: format!("{scope:?}"),
                reason: chain(&error),
            })?;
            self.sample_links.push(link);
        }
        Ok(sampler)
    }

    /// Takes no more samples; those that were taken are in the ring.
    pub fn stop_sampling(&mut self) -> Result<(), ProbeError> {
        let name = self.sampling_program();
        for link in std::mem::take(&mut self.sample_links) {
            let detached = perf_program(&mut self.ebpf, name)?.detach(link);
            detached.map_err(|error| ProbeError::program(name, &error))?;
        }
        Ok(())
    }
}

/// What samples, as long as it is to.
pub(super) type SampleLinks = Vec<PerfEventLinkId>;

fn event(sampler: Sampler) -> PerfEventConfig {
    match sampler {
        Sampler::Cycles => PerfEventConfig::Hardware(HardwareEvent::CpuCycles),
        Sampler::CpuClock => PerfEventConfig::Software(SoftwareEvent::CpuClock),
    }
}

/// The error number behind a failed attachment.
fn errno<T>(result: &Result<T, ProgramError>) -> Option<i32> {
    match result {
        Err(ProgramError::SyscallError(error)) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn perf_program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut PerfEvent, ProbeError> {
    let program = ebpf.program_mut(name).ok_or(ProbeError::Missing { name })?;
    program.try_into().map_err(|error: ProgramError| ProbeError::program(name, &error))
}
