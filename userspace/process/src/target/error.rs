//! Why a target could not be found.

use std::io;
use std::path::PathBuf;

/// Why there is nothing to watch.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// There is no `/proc`.
    #[error(
        "/proc cannot be read: {source}; mount procfs there (in a container: share the host's pid namespace)"
    )]
    NoProc {
        /// The kernel's answer.
        source: io::Error,
    },
    /// No process has the name.
    #[error("no process is named {name:?}{}", did_you_mean(near))]
    NoComm {
        /// The name.
        name: String,
        /// Names that look like it.
        near: Vec<String>,
    },
    /// The program cannot be looked at.
    #[error("{} cannot be read: {source}; give the program's path as descry sees it", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The path is not that of a file.
    #[error("{} is not a file; give the path of a program", path.display())]
    NotAProgram {
        /// The path.
        path: PathBuf,
    },
    /// No process runs the program.
    #[error("no process runs {}; a script is run by its interpreter, and a replaced file is another program", path.display())]
    NotRunning {
        /// The path.
        path: PathBuf,
    },
    /// The unified hierarchy is not mounted.
    #[error("no cgroup v2 hierarchy is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup/unified")]
    NoCgroupMount,
    /// There is no such cgroup.
    #[error("there is no cgroup {}{}", path.display(), did_you_mean(near))]
    NoCgroup {
        /// Where it would be.
        path: PathBuf,
        /// Names beside it that look like it.
        near: Vec<String>,
    },
    /// No running process is in such a container.
    #[error(
        "no running container has an id that begins with {id:?} (at least 6 digits){}",
        did_you_mean(near)
    )]
    NoContainer {
        /// What was asked for.
        id: String,
        /// Ids that look like it.
        near: Vec<String>,
    },
    /// More than one container is meant.
    #[error("several containers have an id that begins with {id:?}: {}; give more digits", matching.join(", "))]
    AmbiguousContainer {
        /// What was asked for.
        id: String,
        /// The ids.
        matching: Vec<String>,
    },
}

/// Names come from other programs, so they are escaped.
fn did_you_mean(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => {
            let names: Vec<_> = names.iter().map(|name| name.escape_debug().to_string()).collect();
            format!("; did you mean {}?", names.join(", "))
        }
    }
}
