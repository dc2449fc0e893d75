//! Who a process is: program, owner, parent, container, service.

pub mod cgroup;
pub mod environment;
pub mod host;
mod resource;
mod runtime;
mod status;

use std::os::unix::ffi::OsStrExt;

use descry_decode::ids::{Comm, Tgid};

use crate::error::ProcessError;
use crate::proc_file;
use cgroup::{Cgroups, Container};
use environment::OtelEnvironment;
pub use resource::{AttributeValue, Attributes, ResourceOptions, resource};
pub use runtime::runtime_name;
pub(crate) use status::comm_from_bytes;
pub use status::{StartTime, Stat, Status, Usage};

/// Bytes of a command line that are read.
const MAX_COMMAND_LINE: u64 = 64 << 10;
/// Arguments of a command line that are kept.
const MAX_ARGUMENTS: usize = 256;
/// Bytes of an environment that are read.
const MAX_ENVIRONMENT: u64 = 1 << 20;
/// Bytes of the other files that are read.
const MAX_FILE: u64 = 1 << 20;

/// Who a process is. What could not be read is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name of its main thread.
    pub comm: Comm,
    /// Its program's file as it sees it.
    pub executable_path: Option<String>,
    /// How it was called: program and arguments, not more than 256.
    pub command_line: Vec<String>,
    /// When it started.
    pub start_time: Option<StartTime>,
    /// Parent process.
    pub parent: Option<Tgid>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// Its pid in each pid namespace that it is in, descry's first.
    pub namespaced_pids: Vec<u32>,
    /// Its cgroups.
    pub cgroups: Cgroups,
    /// Its container.
    pub container: Option<Container>,
    /// Its systemd service, without `.service`.
    pub systemd_unit: Option<String>,
    /// What it says of itself.
    pub environment: OtelEnvironment,
    /// What runs its program, as in `process.runtime.name`.
    pub runtime: Option<&'static str>,
}

impl Identity {
    /// The file name of its program.
    pub fn executable_name(&self) -> Option<&str> {
        self.executable_path
            .as_deref()
            .and_then(|path| path.rsplit('/').next())
            .filter(|name| !name.is_empty())
    }

    /// `service.name`: what the process says, then its systemd service, its container's name, its program.
    pub fn service_name(&self) -> String {
        let said = self.environment.service_name.as_deref();
        said.or_else(|| self.environment.attribute("service.name"))
            .or(self.systemd_unit.as_deref())
            .or_else(|| self.container.as_ref()?.name.as_deref())
            .or_else(|| self.executable_name())
            .map_or_else(|| self.comm.to_string(), str::to_owned)
    }

    /// A new child's, before it runs a program of its own.
    pub(crate) fn of_child(&self, parent: Tgid) -> Self {
        Self { parent: Some(parent), start_time: None, namespaced_pids: Vec::new(), ..self.clone() }
    }

    /// What stays true when another program is run, and the program's name.
    pub(crate) fn after_exec(&self, comm: Comm) -> Self {
        Self {
            comm,
            executable_path: None,
            command_line: Vec::new(),
            environment: OtelEnvironment::default(),
            runtime: None,
            ..self.clone()
        }
    }
}

/// Reads who a process is. Fails where it is gone; what may not be read is absent.
pub fn read(tgid: Tgid) -> Result<Identity, ProcessError> {
    let stat = stat(tgid)?;
    let optional = |file: &str, limit| proc_file::read(tgid, file, limit).unwrap_or_default();
    let text = |file: &str| String::from_utf8_lossy(&optional(file, MAX_FILE)).into_owned();
    let status = Status::parse(&optional("status", MAX_FILE));
    let cgroups = Cgroups::parse(&text("cgroup"));
    let mut container = cgroups.container();
    // Mounts are long to read, so only where they can tell more.
    let in_pod = container.as_ref().is_some_and(|container| container.pod_uid.is_some());
    if in_pod || (container.is_none() && in_other_mount_namespace(tgid)) {
        let mounted = cgroup::container_from_mountinfo(&text("mountinfo"));
        let known = container.unwrap_or_default();
        let merged = Container {
            id: known.id.or(mounted.id),
            pod_uid: known.pod_uid.or(mounted.pod_uid),
            name: known.name.or(mounted.name),
        };
        container = (merged != Container::default()).then_some(merged);
    }
    Ok(Identity {
        comm: stat.comm,
        executable_path: executable_path(tgid),
        command_line: command_line(&optional("cmdline", MAX_COMMAND_LINE)),
        start_time: Some(stat.start_time),
        parent: stat.parent,
        uid: status.uid,
        namespaced_pids: status.namespaced_pids,
        systemd_unit: cgroups.systemd_unit(),
        container,
        cgroups,
        environment: OtelEnvironment::parse(&optional("environ", MAX_ENVIRONMENT)),
        runtime: None,
    })
}

/// When a process started; the cheapest way to know whether a pid still means the same one.
pub fn start_time(tgid: Tgid) -> Result<StartTime, ProcessError> {
    stat(tgid).map(|stat| stat.start_time)
}

/// What `/proc/PID/stat` says of a process now.
pub fn stat(tgid: Tgid) -> Result<Stat, ProcessError> {
    Stat::parse(&proc_file::read(tgid, "stat", MAX_FILE)?).map_err(|reason| ProcessError::Malformed {
        tgid,
        file: "stat",
        reason,
    })
}

fn executable_path(tgid: Tgid) -> Option<String> {
    let path = proc_file::read_link(tgid, "exe").ok()?;
    let path = path.as_os_str().as_bytes();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    Some(String::from_utf8_lossy(path).into_owned())
}

fn in_other_mount_namespace(tgid: Tgid) -> bool {
    match (proc_file::read_link(tgid, "ns/mnt"), std::fs::read_link("/proc/self/ns/mnt")) {
        (Ok(its), Ok(own)) => its != own,
        _ => false,
    }
}

/// From `/proc/PID/cmdline`: arguments, each ended by zero.
fn command_line(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    let arguments = bytes.split(|byte| *byte == 0).take(MAX_ARGUMENTS);
    arguments.map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}
