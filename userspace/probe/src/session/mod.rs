//! The loaded kernel side. What each kind of measurement loads and attaches is in a file of its own.

mod exclusions;
mod functions;
mod net;
mod off_cpu;
mod sampling;
mod scope;
mod syscalls;
mod tcp;
mod templates;
mod tls;

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use descry_abi::counter::Counter;
use descry_abi::limits::RING_BAND;
use descry_abi::scope::{ExecutableKey, ScopeKind};
use descry_abi::template::Lots;
use descry_abi::unwind::Process;
use descry_decode::ids::Tgid;
use nix::time::ClockId;
use tracing::debug;

use crate::memory::give_memory_back;
use crate::{ProbeError, Tables, clock, doctor, offsets, possible_cpus};
use functions::Tracing;

use exclusions::Excluded;
pub use exclusions::Exclusion;
pub use functions::{FunctionFigures, Functions};
pub use net::{Captured, SocketHooks, Wanted};
pub use off_cpu::OffCpu;
use off_cpu::OffCpuMaps;
pub use sampling::{Sampler, Sampling};
pub use scope::Scope;
use scope::ScopeMaps;
use syscalls::SyscallMaps;
pub use syscalls::{SyscallCount, Syscalls};
pub use tcp::TcpCount;
use tls::Tls;
pub use tls::{TlsProbes, TlsSites};

/// The kernel side, built for this architecture.
static OBJECT: &[u8] = include_bytes_aligned!(env!("DESCRY_EBPF_OBJECT"));

/// What to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who is watched.
    pub scope: Scope,
    /// Whether children of watched processes are.
    pub follow: bool,
    /// Programs that start under this name are watched.
    pub comm: Option<[u8; 16]>,
    /// Programs that start from these files are watched.
    pub executables: Vec<ExecutableKey>,
    /// Inode number of the pid namespace that descry runs in; none: the initial one.
    pub pid_namespace: Option<u32>,
    /// Samples of stacks; none: no sampling.
    pub sampling: Option<Sampling>,
    /// System calls; none: they are not measured.
    pub syscalls: Option<Syscalls>,
    /// Time off the CPU; none: not measured.
    pub off_cpu: Option<OffCpu>,
    /// Connections and messages on sockets, of which those of traces that are not taken may be left out; none: they are not.
    pub net: Option<Lots>,
    /// Traced functions; none: no functions.
    pub functions: Option<Functions>,
    /// What may be left out of single processes: [`Session::exclude`].
    pub exclusions: Exclusion,
    /// Whether kernel frames are wanted.
    pub kernel_stacks: bool,
    /// Bytes of the event ring: a power of two.
    pub ring_bytes: u32,
    /// Chunks of unwind tables at most (1 MiB each).
    pub table_chunks: u32,
}

/// The loaded kernel side. Dropping it detaches everything.
pub struct Session {
    ebpf: Ebpf,
    events: RingBuf<MapData>,
    counts: PerCpuArray<MapData, u64>,
    processes: HashMap<MapData, u32, Slots>,
    shares: HashMap<MapData, u32, sampling::Share>,
    excluded: Excluded,
    ring_bytes: usize,
    /// Kept until the programs that use them are loaded.
    _scope: ScopeMaps,
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    sampling: Option<Sampling>,
    sample_links: sampling::SampleLinks,
    syscalls: Option<SyscallMaps>,
    off_cpu: Option<OffCpuMaps>,
    has_loop: bool,
    net: Option<net::NetMaps>,
    tls: Option<Tls>,
    tracing: Option<Tracing>,
}

/// A [`Process`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Slots(Process);

// SAFETY: repr(C), four u32 without padding.
unsafe impl aya::Pod for Slots {}

const LIFECYCLE: [(&str, &str); 4] = [
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
    ("task_rename", "task_rename"),
];

impl Session {
    /// Loads the programs and maps; nothing is attached yet.
    pub fn load(options: &Options) -> Result<Self, ProbeError> {
        doctor::require_kernel()?;
        doctor::require_rights("load programs into the kernel")?;
        if let Some(sampling) = &options.sampling {
            doctor::require_frequency(sampling.frequency)?;
        }
        raise_memlock();
        let release = doctor::release();
        let offsets = offsets::of_kernel(&release, options.off_cpu.is_some(), options.net.is_some())?;
        let mut ebpf = load_object(options, &offsets)?;
        // aya reads all types of the kernel even where it is told not to use them.
        give_memory_back();

        let tracing = options.functions.map(|_| Tracing::new(&mut ebpf)).transpose()?;
        let tls = options.net.map(|_| Tls::new(&mut ebpf)).transpose()?;
        let counts = take(&mut ebpf, "COUNTS")?;
        let events = take(&mut ebpf, "EVENTS")?;
        let processes = take(&mut ebpf, "PROCESSES")?;
        let shares = take(&mut ebpf, sampling::SHARES)?;
        let excluded = take(&mut ebpf, exclusions::EXCLUDED)?;
        let scope = ScopeMaps::filled(&mut ebpf, options)?;
        let syscalls = options.syscalls.as_ref().map(|syscalls| SyscallMaps::new(&mut ebpf, syscalls));
        let mut session = Self {
            events: events.try_into().map_err(ProbeError::map("EVENTS"))?,
            counts: counts.try_into().map_err(ProbeError::map("COUNTS"))?,
            processes: processes.try_into().map_err(ProbeError::map("PROCESSES"))?,
            shares: shares.try_into().map_err(ProbeError::map(sampling::SHARES))?,
            excluded: excluded.try_into().map_err(ProbeError::map(exclusions::EXCLUDED))?,
            ring_bytes: options.ring_bytes as usize,
            _scope: scope,
            logger: None,
            sampling: options.sampling,
            sample_links: Vec::new(),
            syscalls: syscalls.transpose()?,
            off_cpu: None,
            has_loop: doctor::has_loop(),
            net: None,
            tls,
            tracing,
            ebpf,
        };
        if options.net.is_some() {
            session.take_net_maps()?;
        }
        session.load_programs()?;
        if let Some(off_cpu) = &options.off_cpu {
            session.load_off_cpu(off_cpu)?;
        }
        // Release objects have no log map; then there is nothing to read.
        session.logger = aya_log::EbpfLogger::init(&mut session.ebpf).ok();
        Ok(session)
    }

    fn load_programs(&mut self) -> Result<(), ProbeError> {
        if self.sampling.is_some() {
            self.load_sampling()?;
        }
        if self.syscalls.is_some() {
            self.load_syscalls()?;
        }
        if let Some(tracing) = &mut self.tracing {
            tracing.load()?;
        }
        for (name, _) in LIFECYCLE {
            raw_program(&mut self.ebpf, name)?.load().map_err(|error| ProbeError::program(name, &error))?;
        }
        Ok(())
    }

    /// The pool of unwind tables. Can be taken once.
    pub fn take_tables(&mut self) -> Result<Tables, ProbeError> {
        Tables::new(take(&mut self.ebpf, "TABLES")?)
    }

    /// Attaches the programs that follow processes.
    pub fn attach_lifecycle(&mut self) -> Result<(), ProbeError> {
        for (name, tracepoint) in LIFECYCLE {
            let attached = raw_program(&mut self.ebpf, name)?.attach(tracepoint);
            attached.map_err(|error| ProbeError::tracepoint(name, tracepoint, &error))?;
        }
        Ok(())
    }

    /// Tells the kernel side a process's mappings.
    pub fn set_process(&mut self, tgid: Tgid, process: Process) -> Result<(), ProbeError> {
        self.processes.insert(tgid.0, Slots(process), 0).map_err(ProbeError::map("PROCESSES"))
    }

    /// Forgets a process's mappings. One that the kernel side has forgotten itself (exec, exit) is no error.
    pub fn remove_process(&mut self, tgid: Tgid) {
        let _ = self.processes.remove(&tgid.0);
    }

    /// Hands over every record that is in the ring now, but no more bytes than it holds: where the kernel side writes as fast
    /// as this reads, the rest is for the next time.
    pub fn drain(&mut self, mut handle: impl FnMut(&[u8])) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        let mut taken = 0;
        while taken < self.ring_bytes
            && let Some(record) = self.events.next()
        {
            taken += record.len();
            handle(&record);
        }
    }

    /// Readable, by edge, when the ring passes a quarter of its size, a half, or three quarters.
    pub(crate) fn ring(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// One of the kernel side's counters, summed over CPUs.
    pub fn counter(&self, counter: Counter) -> Result<u64, ProbeError> {
        let values = self.counts.get(&(counter as u32), 0).map_err(ProbeError::map("COUNTS"))?;
        Ok(values.iter().sum())
    }

    /// All of them.
    pub fn counters(&self) -> Result<Vec<(Counter, u64)>, ProbeError> {
        Counter::ALL.iter().map(|counter| Ok((*counter, self.counter(*counter)?))).collect()
    }
}

fn load_object(options: &Options, offsets: &[(&'static str, u32)]) -> Result<Ebpf, ProbeError> {
    let kind = match options.scope {
        Scope::All => ScopeKind::All,
        Scope::Processes(_) => ScopeKind::Processes,
        Scope::Cgroups(_) => ScopeKind::Cgroups,
    } as u32;
    let (follow, by_comm) = (u32::from(options.follow), u32::from(options.comm.is_some()));
    let by_executable = u32::from(!options.executables.is_empty());
    let comm = options.comm.unwrap_or_default();
    let pid_namespace = options.pid_namespace.unwrap_or_default();
    let weight = options.sampling.map_or(0, |sampling| sampling.weight());
    let shares = u32::from(options.sampling.is_some_and(|sampling| sampling.has_shares));
    let exclusions = options.exclusions.bits();
    let functions = u32::from(options.functions.is_some());
    let event_interval = options.functions.map_or(0, Functions::interval);
    let kernel_stacks = u32::from(options.kernel_stacks);
    let requests = u32::from(options.net.is_some());
    let lots = options.net.unwrap_or_default();
    let cpus = possible_cpus()?.iter().max().map_or(1, |last| last + 1);

    let slow_call = options.syscalls.as_ref().and_then(|syscalls| syscalls.slower_than).unwrap_or_default();
    let [tasks, sums, stacks] = off_cpu::sizes(options.off_cpu.as_ref());

    // Where userspace can name kernel functions, these tell more; those of waits that are sent one by one it does not name.
    let long_wait = options.off_cpu.and_then(|off_cpu| off_cpu.longer_than).unwrap_or(0);
    let has_kinds = options.off_cpu.is_some() && (long_wait != 0 || !doctor::kernel_symbols());
    let file_kinds = u32::from(has_kinds);
    let near_places = syscalls::near_places(cpus);
    let boot_before_monotonic =
        clock::read(ClockId::CLOCK_BOOTTIME)?.saturating_sub(clock::read(ClockId::CLOCK_MONOTONIC)?);

    // Early enough that what comes while the reader wakes finds room.
    let ring_wake_bands = (u64::from(options.ring_bytes) / 4 / RING_BAND).max(1);

    let mut loader = EbpfLoader::new();
    // The offsets are looked up by descry itself.
    loader.btf(None);
    loader
        .override_global("SCOPE_KIND", &kind, true)
        .override_global("FOLLOW", &follow, true)
        .override_global("SCOPE_BY_COMM", &by_comm, true)
        .override_global("SCOPE_COMM", &comm, true)
        .override_global("SCOPE_BY_EXECUTABLE", &by_executable, true)
        .override_global("PID_NAMESPACE", &pid_namespace, true)
        .override_global("SAMPLE_WEIGHT", &weight, true)
        .override_global("SHARES", &shares, true)
        .override_global("EXCLUSIONS", &exclusions, true)
        .override_global("REQUESTS", &requests, true)
        .override_global("FUNCTIONS", &functions, true)
        .override_global("FUNCTION_EVENT_INTERVAL", &event_interval, true)
        .override_global("RING_WAKE_BANDS", &ring_wake_bands, true)
        .override_global("KERNEL_STACKS", &kernel_stacks, true)
        .override_global("SLOW_CALL", &slow_call, true)
        .override_global("FILE_KINDS", &file_kinds, true)
        .override_global("LONG_WAIT", &long_wait, true)
        .override_global("FIRST_LOT_TAKEN", &lots.first_taken, true)
        .override_global("LOT_SEED", &lots.seed, true)
        .override_global("BOOT_BEFORE_MONOTONIC", &boot_before_monotonic, true)
        .map_max_entries("EVENTS", options.ring_bytes)
        .map_max_entries("TABLES", options.table_chunks)
        .map_max_entries("OFF_CPU_TASKS", tasks)
        .map_max_entries("WAIT_SUMS", sums)
        .map_max_entries("STACKS_SENT", stacks)
        .map_max_entries("MEMOS", cpus);
    if shares == 0 {
        loader.map_max_entries(sampling::SHARES, 1);
    }
    if exclusions == 0 {
        loader.map_max_entries(exclusions::EXCLUDED, 1);
    }
    if options.syscalls.is_some() {
        loader.override_global("NEAR_PLACES", &near_places, true);
        syscalls::set_sizes(&mut loader, cpus);
    }
    if options.net.is_none() {
        for map in net::MAPS {
            loader.map_max_entries(map, 1);
        }
    }
    for (name, value) in offsets {
        loader.override_global(name, value, true);
    }
    loader.load(OBJECT).map_err(|source| ProbeError::Load { source: Box::new(source) })
}

/// A map, taken out of the object.
fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, ProbeError> {
    ebpf.take_map(name).ok_or(ProbeError::Missing { name })
}

fn raw_program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut RawTracePoint, ProbeError> {
    let program = ebpf.program_mut(name).ok_or(ProbeError::Missing { name })?;
    program.try_into().map_err(|error: ProgramError| ProbeError::program(name, &error))
}

fn tracing_program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut BtfTracePoint, ProbeError> {
    let program = ebpf.program_mut(name).ok_or(ProbeError::Missing { name })?;
    program.try_into().map_err(|error: ProgramError| ProbeError::program(name, &error))
}

/// Kernels before 5.11 count BPF memory against this limit; later ones do not, so a refusal is no failure.
fn raise_memlock() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        debug!(%error, "cannot raise the limit of locked memory");
    }
}
