//! System calls: what was counted in the kernel, read out.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{Array, HashMap, MapData, MapKeys, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::{Btf, Ebpf, EbpfLoader, Pod};
use descry_abi::histogram::Histogram;
use descry_abi::limits::{
    MAX_SYSCALL_ERRORS, MAX_SYSCALL_MEMORY, MAX_SYSCALL_ROWS, MAX_SYSCALL_THREADS, NEAR_SYSCALL_ROWS,
    NEAR_SYSCALL_THREADS,
};
use descry_abi::syscall::{
    CallKey, ErrorKey, NearCall, OTHER_ROWS, ROWS_A_PLACE, SyscallTraits, ThreadCall, Unreturned,
};
use descry_decode::ids::Tgid;
use tracing::debug;

use super::{Session, raw_program, take, tracing_program};
use crate::ProbeError;
use crate::error::chain;

/// How system calls are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syscalls {
    /// Calls that take at least this long (ns) are sent as events; none: no call is.
    pub slower_than: Option<u64>,
    /// What the kernel side has to know of calls, by number.
    pub traits: Vec<(u32, SyscallTraits)>,
}

/// What was counted, mostly one CPU's part of it at a time: parts of equal keys are to be added up.
#[derive(Clone, Copy, Debug)]
pub enum SyscallCount<'a> {
    /// Calls that returned.
    Returned(CallKey, &'a Histogram),
    /// Calls that returned since the row was made: those that were told of it before are among them.
    Row {
        /// The row.
        row: u32,
        /// Whose it is.
        call: CallKey,
        /// Whether it stays, and counts on. It does while its process lives and makes this call: a number that is read and
        /// set to 0 while a program adds to it may come twice.
        stays: bool,
        /// All durations so far, each CPU's.
        parts: &'a [&'a Histogram],
    },
    /// How many of them failed so.
    Failed(ErrorKey, u64),
    /// Calls that did not return.
    Unreturned(CallKey, Unreturned),
    /// Calls for which there was no row of their own.
    Others {
        /// Whether they are blocking waits.
        blocking: bool,
        /// Their durations.
        durations: &'a Histogram,
    },
}

macro_rules! pods {
    ($($name:ident($inner:ty), $size:literal;)+) => {
        $(
            #[doc = concat!("A [`", stringify!($inner), "`] as aya wants it.")]
            #[derive(Clone, Copy)]
            #[repr(transparent)]
            struct $name($inner);

            // SAFETY: repr(C) and made of integers without padding, as the assertion of its size shows.
            unsafe impl Pod for $name {}
            const _: () = assert!(size_of::<$name>() == $size);
        )+
    };
}

pods! {
    Call(CallKey), 8;
    Failure(ErrorKey), 12;
    Durations(Histogram), 1312;
    Never(Unreturned), 16;
    InFlight(ThreadCall), 32;
    Near(NearCall), 64;
    Traits(SyscallTraits), 4;
}

const THREADS: &str = "SYSCALL_THREADS";
const ROWS: &str = "SYSCALL_ROWS";
const NEAR_THREADS: &str = "SYSCALL_NEAR_THREADS";
const NEAR_ROWS: &str = "SYSCALL_NEAR_ROWS";
const ROW_KEYS: &str = "SYSCALL_ROW_KEYS";
const ERRORS: &str = "SYSCALL_ERRORS";
const UNRETURNED: &str = "SYSCALL_UNRETURNED";
const OTHERS: &str = "SYSCALL_OTHERS";
const TRAITS: &str = "SYSCALL_TRAITS";

/// The maps of system calls.
pub(super) struct SyscallMaps {
    near_threads: Array<MapData, Near>,
    threads: HashMap<MapData, u64, InFlight>,
    row_keys: Array<MapData, u64>,
    /// How many calls were in the near rows that stayed when they were told last.
    counts: BTreeMap<u32, u64>,
    near_rows: PerCpuArray<MapData, Durations>,
    rows: PerCpuHashMap<MapData, Call, Durations>,
    errors: PerCpuHashMap<MapData, Failure, u64>,
    unreturned: PerCpuHashMap<MapData, Call, Never>,
    others: PerCpuArray<MapData, Durations>,
    /// Written once. It must live until the programs that use it are loaded.
    _traits: Array<MapData, Traits>,
}

/// Rows that so much memory holds, for so many CPUs.
fn rows_in(bytes: u64, cpus: u32) -> u32 {
    u32::try_from(bytes / (u64::from(cpus) * size_of::<Histogram>() as u64)).unwrap_or(u32::MAX)
}

/// Places for near rows: a power of two.
pub(super) fn near_places(cpus: u32) -> u32 {
    let fits = rows_in(MAX_SYSCALL_MEMORY / 4, cpus).clamp(NEAR_SYSCALL_ROWS / 4, NEAR_SYSCALL_ROWS);
    1 << (fits / ROWS_A_PLACE).ilog2()
}

/// Sets the sizes of the maps.
pub(super) fn set_sizes(loader: &mut EbpfLoader<'_>, cpus: u32) {
    let near_rows = near_places(cpus) * ROWS_A_PLACE;
    loader
        .map_max_entries(THREADS, MAX_SYSCALL_THREADS)
        .map_max_entries(NEAR_THREADS, NEAR_SYSCALL_THREADS)
        .map_max_entries(ROWS, rows_in(MAX_SYSCALL_MEMORY, cpus).min(MAX_SYSCALL_ROWS))
        .map_max_entries(NEAR_ROWS, near_rows)
        .map_max_entries(ROW_KEYS, near_rows)
        .map_max_entries(ERRORS, MAX_SYSCALL_ERRORS)
        .map_max_entries(UNRETURNED, MAX_SYSCALL_ERRORS);
}

impl SyscallMaps {
    pub(super) fn new(ebpf: &mut Ebpf, options: &Syscalls) -> Result<Self, ProbeError> {
        let error = ProbeError::map(TRAITS);
        let mut traits: Array<MapData, Traits> = take(ebpf, TRAITS)?.try_into().map_err(&error)?;
        for (number, known) in &options.traits {
            traits.set(*number, Traits(*known), 0).map_err(&error)?;
        }
        Ok(Self {
            threads: take(ebpf, THREADS)?.try_into().map_err(ProbeError::map(THREADS))?,
            near_threads: take(ebpf, NEAR_THREADS)?.try_into().map_err(ProbeError::map(NEAR_THREADS))?,
            row_keys: take(ebpf, ROW_KEYS)?.try_into().map_err(ProbeError::map(ROW_KEYS))?,
            counts: BTreeMap::new(),
            near_rows: take(ebpf, NEAR_ROWS)?.try_into().map_err(ProbeError::map(NEAR_ROWS))?,
            rows: take(ebpf, ROWS)?.try_into().map_err(ProbeError::map(ROWS))?,
            errors: take(ebpf, ERRORS)?.try_into().map_err(ProbeError::map(ERRORS))?,
            unreturned: take(ebpf, UNRETURNED)?.try_into().map_err(ProbeError::map(UNRETURNED))?,
            others: take(ebpf, OTHERS)?.try_into().map_err(ProbeError::map(OTHERS))?,
            _traits: traits,
        })
    }
}

const ENTER: &str = "syscall_enter";
const EXIT: &str = "syscall_exit";
const EXIT_WITHOUT_LOOP: &str = "syscall_exit_without_loop";
/// Programs with their tracepoints, attached between the two: a call is seen to begin only when its end will be.
const BESIDE: [(&str, &str); 2] =
    [("syscall_thread_exit", "sched_process_exit"), ("syscall_exec", "sched_process_exec")];

impl Session {
    pub(super) fn load_syscalls(&mut self) -> Result<(), ProbeError> {
        for (name, _) in BESIDE {
            raw_program(&mut self.ebpf, name)?.load().map_err(|error| ProbeError::program(name, &error))?;
        }
        let types = Btf::from_sys_fs().map_err(|error| ProbeError::program(ENTER, &error.into()))?;
        let enter = tracing_program(&mut self.ebpf, ENTER)?;
        enter.load("sys_enter", &types).map_err(|error| ProbeError::program(ENTER, &error))?;
        if self.has_loop {
            match raw_program(&mut self.ebpf, EXIT)?.load() {
                Ok(()) => return Ok(()),
                Err(error) => debug!(error = %chain(&error), "the program with bpf_loop is refused"),
            }
            self.has_loop = false;
        }
        let program = raw_program(&mut self.ebpf, EXIT_WITHOUT_LOOP)?;
        program.load().map_err(|error| ProbeError::program(EXIT_WITHOUT_LOOP, &error))
    }

    /// Measures system calls from now on.
    pub fn attach_syscalls(&mut self) -> Result<(), ProbeError> {
        let exit = if self.has_loop { EXIT } else { EXIT_WITHOUT_LOOP };
        for (program, tracepoint) in [(exit, "sys_exit")].into_iter().chain(BESIDE) {
            let attached = raw_program(&mut self.ebpf, program)?.attach(tracepoint);
            attached.map_err(|error| ProbeError::tracepoint(program, tracepoint, &error))?;
        }
        let attached = tracing_program(&mut self.ebpf, ENTER)?.attach();
        attached.map_err(|error| ProbeError::tracepoint(ENTER, "sys_enter", &error))?;
        Ok(())
    }

    /// Tells what was counted of the processes for which `wanted` says so, and forgets it but for rows that stay. What a
    /// process that lives counts in the middle of that, in no such row, is lost.
    pub fn take_syscalls(
        &mut self,
        wanted: impl Fn(Tgid) -> bool,
        lives: impl Fn(Tgid) -> bool,
        mut tell: impl FnMut(SyscallCount<'_>),
    ) -> Result<(), ProbeError> {
        let maps = self.syscalls.as_mut().ok_or(ProbeError::Missing { name: ROWS })?;
        let wants = |call: &CallKey| wanted(Tgid(call.tgid));
        for row in 0..maps.row_keys.len() {
            let word = maps.row_keys.get(&row, 0).map_err(ProbeError::map(ROW_KEYS))?;
            let Some(call) = CallKey::from_word(word).filter(wants) else { continue };
            let parts = maps.near_rows.get(&row, 0).map_err(ProbeError::map(NEAR_ROWS))?;
            let lives = lives(Tgid(call.tgid));
            let durations: Vec<&Histogram> = parts.iter().map(|part| &part.0).collect();
            let count = durations.iter().map(|part| part.count).sum();
            let stays = lives && maps.counts.insert(row, count) != Some(count);
            tell(SyscallCount::Row { row, call, stays, parts: &durations });
            if stays {
                continue;
            }
            maps.counts.remove(&row);
            // Whoever takes the row next finds zeros. A process that lives may begin to count again: not in a row that is
            // nobody's and still says that it is its own.
            if lives {
                maps.row_keys.set(row, 0, 0).map_err(ProbeError::map(ROW_KEYS))?;
            }
            let zeros = vec![Durations(Histogram::default()); parts.len()];
            let zeros = PerCpuValues::try_from(zeros)
                .map_err(|source| ProbeError::System { action: "make zeros for every CPU", source })?;
            maps.near_rows.set(row, zeros, 0).map_err(ProbeError::map(NEAR_ROWS))?;
            maps.row_keys.set(row, 0, 0).map_err(ProbeError::map(ROW_KEYS))?;
        }
        for key in distinct(maps.rows.keys(), |Call(key)| key, wants, ROWS)? {
            let parts = maps.rows.get(&Call(key), 0).map_err(ProbeError::map(ROWS))?;
            maps.rows.remove(&Call(key)).map_err(ProbeError::map(ROWS))?;
            let parts = parts.iter().filter(|part| part.0.count > 0);
            parts.for_each(|part| tell(SyscallCount::Returned(key, &part.0)));
        }
        let wants_error = |error: &ErrorKey| wants(&error.call);
        for key in distinct(maps.errors.keys(), |Failure(key)| key, wants_error, ERRORS)? {
            let parts = maps.errors.get(&Failure(key), 0).map_err(ProbeError::map(ERRORS))?;
            maps.errors.remove(&Failure(key)).map_err(ProbeError::map(ERRORS))?;
            tell(SyscallCount::Failed(key, parts.iter().sum()));
        }
        for key in distinct(maps.unreturned.keys(), |Call(key)| key, wants, UNRETURNED)? {
            let parts = maps.unreturned.get(&Call(key), 0).map_err(ProbeError::map(UNRETURNED))?;
            maps.unreturned.remove(&Call(key)).map_err(ProbeError::map(UNRETURNED))?;
            parts.iter().for_each(|part| tell(SyscallCount::Unreturned(key, part.0)));
        }
        Ok(())
    }

    /// Tells of the calls for which there was no row.
    pub fn other_syscalls(&self, mut tell: impl FnMut(SyscallCount<'_>)) -> Result<(), ProbeError> {
        let maps = self.syscalls.as_ref().ok_or(ProbeError::Missing { name: OTHERS })?;
        for row in 0..OTHER_ROWS as u32 {
            let parts = maps.others.get(&row, 0).map_err(ProbeError::map(OTHERS))?;
            parts
                .iter()
                .for_each(|part| tell(SyscallCount::Others { blocking: row == 1, durations: &part.0 }));
        }
        Ok(())
    }

    /// The threads that made a call, each with the one that it is in now; one that is in none has a `start` of 0.
    pub fn syscall_threads(&self) -> Result<Vec<ThreadCall>, ProbeError> {
        let maps = self.syscalls.as_ref().ok_or(ProbeError::Missing { name: THREADS })?;
        let threads = distinct(maps.threads.keys(), |thread| thread, |_| true, THREADS)?;
        // A thread may have ended meanwhile, or have just got its entry.
        let far = threads.iter().filter_map(|thread| maps.threads.get(thread, 0).ok()).map(|call| call.0);
        let mut calls: Vec<ThreadCall> = far.collect();
        for near in maps.near_threads.iter() {
            let Near(NearCall { call, .. }) = near.map_err(ProbeError::map(NEAR_THREADS))?;
            calls.extend((call.tid != 0).then_some(call));
        }
        Ok(calls)
    }
}

/// The keys of a map that are wanted, each once: the walk begins anew where the kernel removes its key, so it is bounded.
fn distinct<K: Pod, T: Ord>(
    keys: MapKeys<'_, K>,
    inner: impl Fn(K) -> T,
    wanted: impl Fn(&T) -> bool,
    map: &'static str,
) -> Result<BTreeSet<T>, ProbeError> {
    let mut found = BTreeSet::new();
    for key in keys.take(2 * MAX_SYSCALL_THREADS as usize) {
        let key = inner(key.map_err(ProbeError::map(map))?);
        if wanted(&key) {
            found.insert(key);
        }
    }
    Ok(found)
}
