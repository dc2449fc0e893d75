//! Samples of stacks by perf events.

use aya::Ebpf;
use aya::maps::MapError;
use aya::programs::perf_event::{
    HardwareEvent, PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::programs::{PerfEvent, ProgramError};
use descry_abi::share::SampleShare;
use descry_decode::ids::{Tgid, Tid};
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
    /// Whether fewer of some processes may be taken: [`Session::sample_less`].
    pub has_shares: bool,
}

impl Sampling {
    /// Time that a sample stands for (ns).
    pub(super) fn weight(self) -> u64 {
        NANOS_A_SECOND / self.frequency.max(1)
    }

    /// What is taken of a process at another frequency, 0 to this one.
    fn share(self, frequency: u64) -> SampleShare {
        let taken = u128::from(frequency.min(self.frequency)) << u32::BITS;
        let taken = taken / u128::from(self.frequency.max(1));
        SampleShare {
            taken: u32::try_from(taken).unwrap_or(u32::MAX),
            reserved: 0,
            weight: NANOS_A_SECOND / frequency.max(1),
        }
    }
}

/// A [`SampleShare`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Share(SampleShare);

// SAFETY: repr(C), u32 + u32 + u64 without padding.
unsafe impl aya::Pod for Share {}

const NANOS_A_SECOND: u64 = 1_000_000_000;
const WITH_LOOP: &str = "sample";
const WITHOUT_LOOP: &str = "sample_without_loop";
pub(super) const SHARES: &str = "SAMPLE_SHARES";

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

    /// Takes so many samples a second and CPU of a process, fewer than of others; 0: none. It lasts until the process runs
    /// another program or ends, or until [`Session::sample_alike`]. False: there is no room for another one.
    ///
    /// # Errors
    /// If the kernel side was loaded without `has_shares`, and what else the kernel refuses.
    pub fn sample_less(&mut self, tgid: Tgid, frequency: u64) -> Result<bool, ProbeError> {
        let sampling = self.sampling.filter(|sampling| sampling.has_shares);
        let share = sampling.ok_or(ProbeError::Missing { name: SHARES })?.share(frequency);
        match self.shares.insert(tgid.0, Share(share), 0) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                Ok(false)
            }
            Err(error) => Err(ProbeError::map(SHARES)(error)),
        }
    }

    /// Takes all samples of a process again.
    pub fn sample_all_of(&mut self, tgid: Tgid) {
        // The kernel side removes those that end, too.
        let _ = self.shares.remove(&tgid.0);
    }

    /// Takes all samples of all processes again.
    pub fn sample_alike(&mut self) {
        let tgids: Vec<u32> = self.shares.keys().flatten().collect();
        tgids.into_iter().for_each(|tgid| self.sample_all_of(Tgid(tgid)));
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
