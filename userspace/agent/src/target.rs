//! Whom to measure: from the command line to what the kernel side compares.

use std::path::Path;

use descry_abi::scope::ExecutableKey;
use descry_decode::ids::{Tgid, Tid};
use descry_probe::Scope;
use descry_process::target as find;

use crate::cli::TargetArgs;
use crate::failure::Failure;

/// Whom to measure.
#[derive(Debug)]
pub struct Target {
    /// What the kernel side compares.
    pub scope: Scope,
    /// Whether children of measured processes are measured.
    pub follow: bool,
    /// Programs that start under this name are measured.
    pub comm: Option<[u8; 16]>,
    /// Programs that start from these files are measured.
    pub executables: Vec<ExecutableKey>,
    /// The processes that are measured from the start.
    pub processes: Vec<Tgid>,
    /// Whether only these processes and their children are: then each thread is sampled, not each CPU, and the
    /// measurement ends with the last of them.
    pub is_fixed: bool,
}

const HINT: &str = "say whom to measure: -p PID, --comm NAME, --exe PATH, --cgroup PATH, --container ID, -a for \
                    everything, or -- CMD ARGS to start a program";

impl Target {
    /// What the arguments say. A program to start is not started here: its process is added with
    /// [`Target::add_started`].
    pub fn from_args(args: &TargetArgs) -> Result<Self, Failure> {
        let kinds = [
            !args.pids.is_empty(),
            args.comm.is_some(),
            args.exe.is_some(),
            args.cgroup.is_some(),
            args.container.is_some(),
            args.all,
            !args.command.is_empty(),
        ];
        match kinds.iter().filter(|given| **given).count() {
            0 => return Err(Failure::Usage(format!("no target: {HINT}"))),
            1 => {}
            _ => return Err(Failure::Usage(format!("more than one kind of target: {HINT}"))),
        }
        let mut target = Self {
            scope: Scope::Processes(Vec::new()),
            follow: args.follow || !args.command.is_empty(),
            comm: None,
            executables: Vec::new(),
            processes: Vec::new(),
            is_fixed: false,
        };
        if args.all {
            target.scope = Scope::All;
        } else if let Some(path) = &args.cgroup {
            let cgroup = find::cgroup(&path.to_string_lossy()).map_err(not_found)?;
            target.scope = Scope::Cgroups(vec![cgroup.id]);
        } else if let Some(id) = &args.container {
            let container = find::container(id).map_err(not_found)?;
            match container.cgroup {
                Some(path) => target.scope = Scope::Cgroups(vec![find::cgroup(&path).map_err(not_found)?.id]),
                // Without a cgroup of its own (v1 only), its processes and their children are all there is to go by.
                None => target.watch(container.processes),
            }
        } else if let Some(name) = &args.comm {
            target.comm = Some(comm(name)?);
            target.watch(now_or_later(find::by_comm(name)));
        } else if let Some(path) = &args.exe {
            target.executables = vec![executable(path)?];
            target.watch(now_or_later(find::by_executable(path)));
        } else {
            target.is_fixed = true;
            let processes = args.pids.iter().map(|pid| process(*pid)).collect::<Result<Vec<_>, _>>()?;
            let mut all = processes.clone();
            if args.follow {
                for tgid in processes {
                    all.extend(find::descendants(tgid).map_err(not_found)?);
                }
            }
            target.watch(all);
        }
        Ok(target)
    }

    fn watch(&mut self, mut processes: Vec<Tgid>) {
        processes.sort_unstable();
        processes.dedup();
        self.scope = Scope::Processes(processes.clone());
        self.processes = processes;
    }

    /// Adds the process that was started.
    pub fn add_started(&mut self, tgid: Tgid) {
        self.watch(vec![tgid]);
    }

    /// The threads of the processes now.
    pub fn threads(&self) -> Vec<Tid> {
        // A process that ended meanwhile has none.
        self.processes.iter().flat_map(|tgid| find::tids(*tgid).unwrap_or_default()).collect()
    }
}

/// Nobody fits now: perhaps somebody will, but the user may have misspelt it.
fn now_or_later(found: Result<Vec<Tgid>, find::TargetError>) -> Vec<Tgid> {
    found.unwrap_or_else(|error| {
        tracing::warn!("{error}; waiting for one that starts");
        Vec::new()
    })
}

fn not_found(error: find::TargetError) -> Failure {
    // Its text holds its cause.
    Failure::Failed(anyhow::anyhow!("{error}"))
}

/// A process of this id, which may be given by the id of any of its threads.
fn process(pid: u32) -> Result<Tgid, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let tgid = status.ok().and_then(|status| {
        status.lines().find_map(|line| line.strip_prefix("Tgid:")).and_then(|text| text.trim().parse().ok())
    });
    tgid.map(Tgid).ok_or_else(|| {
        Failure::Failed(anyhow::anyhow!(
            "no process has pid {pid} (in the pid namespace that descry runs in); `ps -e` lists them"
        ))
    })
}

/// A name as the kernel keeps it: 15 bytes.
fn comm(name: &str) -> Result<[u8; 16], Failure> {
    if name.is_empty() {
        return Err(Failure::Usage("--comm wants a name, as /proc/PID/comm shows it".into()));
    }
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    Ok(comm)
}

fn executable(path: &Path) -> Result<ExecutableKey, Failure> {
    let (device, inode) = find::executable(path).map_err(not_found)?;
    // linux/kdev_t.h: MKDEV(major, minor) = major << 20 | minor.
    Ok(ExecutableKey::new(inode, device.major << 20 | device.minor))
}
