//! Which processes to watch: by name, program, parent, cgroup or container. What is not found is answered with names
//! that look like it.

mod error;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

use descry_decode::ids::{CgroupId, Tgid, Tid};
use procfs::process::MountInfo;

use crate::error::ProcessError;
use crate::identity::cgroup::{Cgroups, Container};
use crate::identity::{self, Stat, Status};
use crate::maps::Device;
use crate::proc_file;
pub use error::TargetError;

/// Bytes of a file in `/proc` that are read.
const MAX_FILE: u64 = 1 << 20;
/// Threads of a process listed at most: the kernel's own limit of pids (`PID_MAX_LIMIT`).
const MAX_THREADS: usize = 1 << 22;
/// Digits of a container id that are enough to name it.
const MIN_CONTAINER_DIGITS: usize = 6;

/// A cgroup (v2) to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupTarget {
    /// What samples carry.
    pub id: CgroupId,
    /// Its directory.
    pub path: PathBuf,
}

/// A container to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerTarget {
    /// Its id, in full.
    pub id: String,
    /// Its path in the unified hierarchy (v2), where it has one of its own.
    pub cgroup: Option<String>,
    /// Its processes now.
    pub processes: Vec<Tgid>,
}

/// All processes now, rising.
pub fn processes() -> Result<Vec<Tgid>, TargetError> {
    let mut processes: Vec<_> = numbers(Path::new("/proc"), usize::MAX)
        .map_err(|source| TargetError::NoProc { source })?
        .into_iter()
        .map(Tgid)
        .collect();
    processes.sort_unstable();
    Ok(processes)
}

/// The threads of a process, rising.
pub fn tids(tgid: Tgid) -> Result<Vec<Tid>, ProcessError> {
    let read = numbers(&proc_file::path(tgid, "task"), MAX_THREADS);
    let mut tids: Vec<_> =
        read.map_err(|source| ProcessError::from_io(tgid, "task", source))?.into_iter().map(Tid).collect();
    tids.sort_unstable();
    Ok(tids)
}

/// The number of the system call that a thread is in; none: it runs, or is not in a call, or is gone.
pub fn current_call(tgid: Tgid, tid: Tid) -> Option<u32> {
    let text = proc_file::read(tgid, &format!("task/{tid}/syscall"), MAX_FILE).ok()?;
    call_number(&text)
}

/// `NUMBER ARGUMENTS...` in a call, `-1 ...` outside of one, `running` while it runs (proc(5)).
fn call_number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// The process of a thread; of the main thread, which has the same number, itself. `/proc` answers to the ids of
/// threads as to those of processes, so this is what tells them apart.
pub fn process_of(tid: Tid) -> Result<Tgid, ProcessError> {
    let tgid = Tgid(tid.0);
    let status = Status::parse(&proc_file::read(tgid, "status", MAX_FILE)?);
    let missing = || "it has no line Tgid".to_owned();
    status.tgid.ok_or_else(|| ProcessError::Malformed { tgid, file: "status", reason: missing() })
}

fn numbers(directory: &Path, limit: usize) -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir(directory)?.take(limit);
    // Entries that go away while they are listed are no error.
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn stat(tgid: Tgid) -> Option<Stat> {
    identity::stat(tgid).ok()
}

/// Processes whose main thread has this name; the kernel keeps the first 15 bytes of names.
pub fn by_comm(name: &str) -> Result<Vec<Tgid>, TargetError> {
    let wanted = identity::comm_from_bytes(name.as_bytes());
    let named: Vec<_> = processes()?.into_iter().filter_map(|tgid| Some((tgid, stat(tgid)?.comm))).collect();
    let found: Vec<_> = named.iter().filter(|(_, comm)| *comm == wanted).map(|(tgid, _)| *tgid).collect();
    if found.is_empty() {
        let near = near(name, named.iter().map(|(_, comm)| comm.to_string()));
        return Err(TargetError::NoComm { name: name.to_owned(), near });
    }
    Ok(found)
}

/// Device and inode number of a program, as the kernel knows the file of a running one.
pub fn executable(path: &Path) -> Result<(Device, u64), TargetError> {
    let metadata =
        std::fs::metadata(path).map_err(|source| TargetError::NoFile { path: path.to_owned(), source })?;
    if !metadata.is_file() {
        return Err(TargetError::NotAProgram { path: path.to_owned() });
    }
    Ok((Device::from_stat(metadata.st_dev()), metadata.st_ino()))
}

/// Processes that run this program, in whatever mount namespace.
pub fn by_executable(path: &Path) -> Result<Vec<Tgid>, TargetError> {
    let wanted = executable(path)?;
    let runs = |tgid: &Tgid| {
        let metadata = std::fs::metadata(proc_file::path(*tgid, "exe"));
        metadata.is_ok_and(|metadata| (Device::from_stat(metadata.st_dev()), metadata.st_ino()) == wanted)
    };
    let found: Vec<_> = processes()?.into_iter().filter(runs).collect();
    if found.is_empty() {
        return Err(TargetError::NotRunning { path: path.to_owned() });
    }
    Ok(found)
}

/// Children, their children and so on, rising; not the process itself.
pub fn descendants(tgid: Tgid) -> Result<Vec<Tgid>, TargetError> {
    let mut children: HashMap<Tgid, Vec<Tgid>> = HashMap::new();
    for process in processes()? {
        if let Some(parent) = stat(process).and_then(|stat| stat.parent) {
            children.entry(parent).or_default().push(process);
        }
    }
    // Pids may be reused while they are listed, so that parents could form a ring.
    let mut found = HashSet::new();
    let mut open = vec![tgid];
    while let Some(parent) = open.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            if child != tgid && found.insert(child) {
                open.push(child);
            }
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_unstable();
    Ok(found)
}

/// Where the unified hierarchy (v2) is mounted.
pub fn cgroup_mount() -> Result<PathBuf, TargetError> {
    let text = proc_file::read_limited(Path::new("/proc/self/mountinfo"), MAX_FILE)
        .map_err(|source| TargetError::NoProc { source })?;
    cgroup_mount_in(&String::from_utf8_lossy(&text)).ok_or(TargetError::NoCgroupMount)
}

/// The same, from the text of `/proc/self/mountinfo`.
pub fn cgroup_mount_in(mountinfo: &str) -> Option<PathBuf> {
    let mut mounts = mountinfo.lines().filter_map(|line| MountInfo::from_line(line).ok());
    mounts.find(|mount| mount.fs_type == "cgroup2").map(|mount| mount.mount_point)
}

/// The cgroup of this path: a directory, or a path below the root of the hierarchy as in `/proc/PID/cgroup`.
pub fn cgroup(path: &str) -> Result<CgroupTarget, TargetError> {
    let mount = cgroup_mount()?;
    let directory = if Path::new(path).starts_with(&mount) {
        PathBuf::from(path)
    } else {
        mount.join(path.trim_start_matches('/'))
    };
    match std::fs::metadata(&directory) {
        Ok(metadata) if metadata.is_dir() => {
            Ok(CgroupTarget { id: CgroupId(metadata.st_ino()), path: directory })
        }
        _ => {
            let parent = directory.parent().filter(|parent| parent.starts_with(&mount)).unwrap_or(&mount);
            let name =
                directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let siblings = std::fs::read_dir(parent).into_iter().flatten().filter_map(|entry| {
                let entry = entry.ok()?;
                entry.file_type().ok()?.is_dir().then(|| entry.file_name().to_string_lossy().into_owned())
            });
            let near = near(&name, siblings);
            Err(TargetError::NoCgroup { near, path: directory })
        }
    }
}

/// The running container of this id; the first 6 digits or more are enough if no other begins with them.
pub fn container(id: &str) -> Result<ContainerTarget, TargetError> {
    let wanted = id.to_ascii_lowercase();
    let mut containers: HashMap<String, ContainerTarget> = HashMap::new();
    for tgid in processes()? {
        let Ok(text) = proc_file::read(tgid, "cgroup", MAX_FILE) else { continue };
        let cgroups = Cgroups::parse(&String::from_utf8_lossy(&text));
        let Some(Container { id: Some(id), .. }) = cgroups.container() else { continue };
        let cgroup = cgroups.v2.as_deref().and_then(|path| container_cgroup(path, &id)).map(str::to_owned);
        let entry = containers.entry(id.clone());
        let found = entry.or_insert_with(|| ContainerTarget { id, cgroup: None, processes: Vec::new() });
        found.cgroup = found.cgroup.take().or(cgroup);
        found.processes.push(tgid);
    }
    let short = wanted.len() < MIN_CONTAINER_DIGITS;
    let is_wanted = |known: &String| *known == wanted || (!short && known.starts_with(&wanted));
    let mut matching: Vec<_> = containers.keys().filter(|known| is_wanted(known)).cloned().collect();
    matching.sort_unstable();
    match matching.as_slice() {
        [one] => {
            containers.remove(one).ok_or(TargetError::NoContainer { id: id.to_owned(), near: Vec::new() })
        }
        [] => {
            Err(TargetError::NoContainer { id: id.to_owned(), near: near(&wanted, containers.into_keys()) })
        }
        _ => Err(TargetError::AmbiguousContainer { id: id.to_owned(), matching }),
    }
}

/// The part of a process's cgroup path that is its container's: up to the component that holds the id.
fn container_cgroup<'a>(path: &'a str, id: &str) -> Option<&'a str> {
    let after = path.find(id)? + id.len();
    let end = path.get(after..)?.find('/').map_or(path.len(), |slash| after + slash);
    path.get(..end)
}

/// Names that look like what was asked for, best first, at most five.
fn near(wanted: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let likeness = |name: &str| {
        let name = name.to_lowercase();
        if !wanted.is_empty() && (name.contains(&wanted) || (!name.is_empty() && wanted.contains(&name))) {
            return 1.0;
        }
        strsim::jaro_winkler(&wanted, &name)
    };
    let mut seen = HashSet::new();
    let mut scored: Vec<_> = names
        .filter(|name| seen.insert(name.clone()))
        .map(|name| (likeness(&name), name))
        .filter(|(score, _)| *score > 0.75)
        .collect();
    scored.sort_by(|(left, left_name), (right, right_name)| {
        right.total_cmp(left).then_with(|| left_name.cmp(right_name))
    });
    scored.into_iter().take(5).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_those_that_look_alike() {
        let names = ["nginx", "postgres", "sshd", "nginx", "nginx-worker"].map(str::to_owned);
        assert_eq!(near("ngnix", names.clone().into_iter()), ["nginx", "nginx-worker"]);
        assert_eq!(near("Postgre", names.clone().into_iter()), ["postgres"]);
        assert_eq!(near("zzz", names.into_iter()), Vec::<String>::new());
    }

    #[test]
    fn a_container_s_cgroup_ends_with_its_own_component() {
        let path = "/kubepods.slice/cri-containerd-abc.scope/init.scope";
        assert_eq!(container_cgroup(path, "abc"), Some("/kubepods.slice/cri-containerd-abc.scope"));
        assert_eq!(container_cgroup("/docker/abc", "abc"), Some("/docker/abc"));
        assert_eq!(container_cgroup("/", "abc"), None);
    }

    #[test]
    fn the_call_that_a_thread_is_in() {
        for (text, expected) in [
            ("202 0x7f00 0x80 0x0 0x0 0x0 0x0 0x7ffe 0x7f01\n", Some(202)),
            ("-1 0x7ffe 0x7f01\n", None),
            ("running\n", None),
            ("", None),
        ] {
            assert_eq!(call_number(text.as_bytes()), expected, "{text:?}");
        }
    }
}
