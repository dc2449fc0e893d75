//! Time off the CPU: its programs, and the sums that they keep.

use std::io::Read;

use aya::maps::{Array, HashMap, MapData, MapError};
use aya::programs::{Iter, ProgramError};
use aya::{Btf, Ebpf};
use descry_abi::limits::{MAX_OFF_CPU_TASKS, MAX_STACKS_SENT, MAX_WAIT_SUMS};
use descry_abi::offcpu::{Control, TaskTimes, WaitKey, WaitSum};
use descry_decode::ids::BootNanos;
use nix::time::ClockId;
use tracing::debug;

use super::{Session, take, tracing_program};
use crate::error::chain;
use crate::memory::give_memory_back;
use crate::{ProbeError, clock};

/// How time off the CPU is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffCpu {
    /// Whether the stacks of those who wake are wanted.
    pub wakers: bool,
    /// Waits of requests that take at least this long (ns) are sent one by one; none: none is.
    pub longer_than: Option<u64>,
}

/// The maps of these programs.
pub(super) struct OffCpuMaps {
    control: Array<MapData, Words>,
    tasks: HashMap<MapData, u32, Times>,
    sums: HashMap<MapData, Key, Sum>,
    stacks: HashMap<MapData, u64, u32>,
    epoch: u32,
    wakers: bool,
    has_loop: bool,
}

/// A [`Control`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Words(Control);

// SAFETY: repr(C), two u32 without padding.
unsafe impl aya::Pod for Words {}

/// A [`TaskTimes`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Times(TaskTimes);

// SAFETY: repr(C) without padding that is not named.
unsafe impl aya::Pod for Times {}

/// A [`WaitKey`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(WaitKey);

// SAFETY: repr(C) without padding.
unsafe impl aya::Pod for Key {}

/// A [`WaitSum`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Sum(WaitSum);

// SAFETY: repr(C), three u64.
unsafe impl aya::Pod for Sum {}

/// A program with `bpf_loop`, the same without, and their tracepoint.
type WithLoop = (&'static str, &'static str, &'static str);

const SWITCH: WithLoop = ("off_cpu_switch", "off_cpu_switch_without_loop", "sched_switch");
const WAKING: WithLoop = ("off_cpu_waking", "off_cpu_waking_without_loop", "sched_waking");
/// Programs that take no stack. What they learn from must be there before the first switch is seen.
const OTHERS: [(&str, &str); 4] = [
    ("off_cpu_exec", "sched_process_exec"),
    ("off_cpu_exit", "sched_process_exit"),
    ("off_cpu_wakeup", "sched_wakeup"),
    ("off_cpu_wakeup_new", "sched_wakeup_new"),
];
const LIST: &str = "off_cpu_list";

/// Entries of the maps for tasks, sums and stacks: next to none where time off the CPU is not measured.
pub(super) fn sizes(off_cpu: Option<&OffCpu>) -> [u32; 3] {
    match off_cpu {
        Some(_) => [MAX_OFF_CPU_TASKS, MAX_WAIT_SUMS, MAX_STACKS_SENT],
        None => [1, 1, 1],
    }
}

impl Session {
    /// Loads the programs.
    pub(super) fn load_off_cpu(&mut self, off_cpu: &OffCpu) -> Result<(), ProbeError> {
        let types = Btf::from_sys_fs().map_err(|error| ProbeError::program(SWITCH.0, &error.into()))?;
        let mut load = |name| -> Result<(), ProbeError> {
            let tracepoint = tracepoint_of(name);
            let program = tracing_program(&mut self.ebpf, name)?;
            program.load(tracepoint, &types).map_err(|error| ProbeError::program(name, &error))
        };
        for (name, _) in OTHERS {
            load(name)?;
        }
        let mut has_loop = self.has_loop;
        if has_loop && let Err(error) = load(SWITCH.0) {
            debug!(error = %chain(&error), "the program with bpf_loop is refused");
            has_loop = false;
        }
        if !has_loop {
            load(SWITCH.1)?;
        }
        if off_cpu.wakers {
            load(if has_loop { WAKING.0 } else { WAKING.1 })?;
        }
        let list = iterator(&mut self.ebpf)?;
        list.load("task", &types).map_err(|error| ProbeError::program(LIST, &error))?;
        drop(types);
        give_memory_back();
        let control = take(&mut self.ebpf, "OFF_CPU_CONTROL")?;
        let tasks = take(&mut self.ebpf, "OFF_CPU_TASKS")?;
        let sums = take(&mut self.ebpf, "WAIT_SUMS")?;
        let stacks = take(&mut self.ebpf, "STACKS_SENT")?;
        self.off_cpu = Some(OffCpuMaps {
            control: control.try_into().map_err(ProbeError::map("OFF_CPU_CONTROL"))?,
            tasks: tasks.try_into().map_err(ProbeError::map("OFF_CPU_TASKS"))?,
            sums: sums.try_into().map_err(ProbeError::map("WAIT_SUMS"))?,
            stacks: stacks.try_into().map_err(ProbeError::map("STACKS_SENT"))?,
            epoch: 0,
            wakers: off_cpu.wakers,
            has_loop,
        });
        Ok(())
    }

    /// Begins to measure: attaches the programs, and lists the tasks that are blocked already.
    pub fn start_off_cpu(&mut self) -> Result<(), ProbeError> {
        let off_cpu = self.off_cpu.as_mut().ok_or(ProbeError::Missing { name: SWITCH.0 })?;
        let mut programs: Vec<&str> = OTHERS.iter().map(|(name, _)| *name).collect();
        let one_of = |pair: WithLoop| if off_cpu.has_loop { pair.0 } else { pair.1 };
        if off_cpu.wakers {
            programs.push(one_of(WAKING));
        }
        programs.push(one_of(SWITCH));
        for name in programs {
            let attached = tracing_program(&mut self.ebpf, name)?.attach();
            attached.map_err(|error| ProbeError::tracepoint(name, tracepoint_of(name), &error))?;
        }
        off_cpu.control(true)?;
        let program = iterator(&mut self.ebpf)?;
        let failed = |error: &dyn std::error::Error| ProbeError::tracepoint(LIST, "the list of tasks", error);
        let link = program.attach().map_err(|error| failed(&error))?;
        let link = program.take_link(link).map_err(|error| failed(&error))?;
        let mut list = link.into_file().map_err(|error| failed(&error))?;
        // The program writes nothing: reading makes the kernel go through the list.
        let read = list.read_to_end(&mut Vec::new());
        read.map_err(|source| ProbeError::System { action: "list the tasks", source })?;
        Ok(())
    }

    /// Ends the measurement, and says when. Sums and tasks stay as they are from now on.
    pub fn stop_off_cpu(&mut self) -> Result<BootNanos, ProbeError> {
        let off_cpu = self.off_cpu.as_mut().ok_or(ProbeError::Missing { name: SWITCH.0 })?;
        off_cpu.control(false)?;
        Ok(BootNanos(clock::read(ClockId::CLOCK_BOOTTIME)?))
    }

    /// Begins a new epoch: the sums of those before do not grow any more.
    pub fn next_wait_epoch(&mut self) -> Result<(), ProbeError> {
        let off_cpu = self.off_cpu.as_mut().ok_or(ProbeError::Missing { name: SWITCH.0 })?;
        off_cpu.epoch = off_cpu.epoch.wrapping_add(1);
        off_cpu.control(true)
    }

    /// Takes the sums out of the kernel: all, or those of past epochs.
    pub fn take_waits(&mut self, all: bool) -> Result<Vec<(WaitKey, WaitSum)>, ProbeError> {
        let off_cpu = self.off_cpu.as_mut().ok_or(ProbeError::Missing { name: SWITCH.0 })?;
        let error = ProbeError::map("WAIT_SUMS");
        let current = off_cpu.epoch as u8;
        let mut waits = Vec::new();
        for entry in off_cpu.sums.iter() {
            let (Key(key), Sum(sum)) = entry.map_err(&error)?;
            if all || key.epoch != current {
                waits.push((key, sum));
            }
        }
        for (key, _) in &waits {
            off_cpu.sums.remove(&Key(*key)).map_err(&error)?;
        }
        Ok(waits)
    }

    /// Makes the kernel side send every stack once more: userspace has forgotten those that it knew.
    pub fn send_stacks_again(&mut self) -> Result<(), ProbeError> {
        let off_cpu = self.off_cpu.as_mut().ok_or(ProbeError::Missing { name: SWITCH.0 })?;
        let error = ProbeError::map("STACKS_SENT");
        let known: Vec<u64> = off_cpu.stacks.keys().take(2 * MAX_STACKS_SENT as usize).flatten().collect();
        for id in known {
            match off_cpu.stacks.remove(&id) {
                // The kernel has forgotten it itself.
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(error(source)),
            }
        }
        Ok(())
    }

    /// What is known of every task that is there.
    pub fn task_times(&self) -> Result<Vec<TaskTimes>, ProbeError> {
        let off_cpu = self.off_cpu.as_ref().ok_or(ProbeError::Missing { name: SWITCH.0 })?;
        let error = ProbeError::map("OFF_CPU_TASKS");
        let times = off_cpu.tasks.iter().map(|entry| entry.map(|(_, Times(times))| times).map_err(&error));
        times.collect()
    }
}

impl OffCpuMaps {
    fn control(&mut self, active: bool) -> Result<(), ProbeError> {
        let control = Control { active: active.into(), epoch: self.epoch };
        self.control.set(0, Words(control), 0).map_err(ProbeError::map("OFF_CPU_CONTROL"))
    }
}

fn tracepoint_of(name: &str) -> &'static str {
    let with_loop = [SWITCH, WAKING].into_iter().find(|pair| pair.0 == name || pair.1 == name);
    let other = || OTHERS.iter().find(|(program, _)| *program == name).map(|(_, tracepoint)| *tracepoint);
    with_loop.map(|(_, _, tracepoint)| tracepoint).or_else(other).unwrap_or_default()
}

fn iterator(ebpf: &mut Ebpf) -> Result<&mut Iter, ProbeError> {
    let program = ebpf.program_mut(LIST).ok_or(ProbeError::Missing { name: LIST })?;
    program.try_into().map_err(|error: ProgramError| ProbeError::program(LIST, &error))
}
