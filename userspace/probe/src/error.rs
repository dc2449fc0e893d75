//! What can go wrong between userspace and the kernel.

use std::io;

use aya::maps::MapError;
use aya::programs::ProgramError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel has no type information.
    #[error(
        "cannot read the kernel's type information at {path}: {source}; descry needs a kernel that was built with \
         CONFIG_DEBUG_INFO_BTF=y (the kernels of current distributions are)"
    )]
    NoBtf {
        /// Where it should be.
        path: &'static str,
        /// Why it could not be read.
        source: io::Error,
    },
    /// The kernel's type information is cut or of an unknown form.
    #[error("the kernel's type information at /sys/kernel/btf/vmlinux is damaged at byte {at}")]
    BadBtf {
        /// Where the reading stopped.
        at: usize,
    },
    /// A struct has not the member that descry reads.
    #[error("this kernel ({release}) has no {member}; please report it with the output of `descry doctor`")]
    NoMember {
        /// `struct.member`.
        member: &'static str,
        /// The kernel's release.
        release: String,
    },
    /// A system call says that rights are missing.
    #[error(
        "no right to {action}: run descry as root, or give it CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE \
         (missing now: {missing})"
    )]
    NoRights {
        /// What was tried.
        action: &'static str,
        /// Capabilities of the list that the process has not.
        missing: String,
    },
    /// The kernel is older than the floor.
    #[error("kernel {release} is too old: descry needs Linux 5.15 or later")]
    KernelTooOld {
        /// The kernel's release.
        release: String,
    },
    /// The kernel side could not be loaded.
    #[error("cannot load the kernel side: {source}")]
    Load {
        /// Why.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// A program was refused.
    #[error("the kernel refused the program {program}: {reason}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The verifier's last lines, or the system call's error.
        reason: String,
    },
    /// A program could not be attached.
    #[error("cannot attach {program} to {target}: {reason}")]
    Attach {
        /// Its name.
        program: &'static str,
        /// The hook.
        target: String,
        /// The error of the kernel.
        reason: String,
    },
    /// A map could not be used.
    #[error("cannot use the kernel map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// The object has no such map or program: the object and this binary are not of one build.
    #[error("the kernel object has no {name}: it does not belong to this build of descry")]
    Missing {
        /// The name.
        name: &'static str,
    },
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The frequency is beyond the kernel's limit.
    #[error(
        "the kernel allows at most {limit} samples a second, not {asked}: lower the frequency or raise \
         /proc/sys/kernel/perf_event_max_sample_rate"
    )]
    Frequency {
        /// What was asked for (Hz).
        asked: u64,
        /// The limit (Hz).
        limit: u64,
    },
    /// The program to start cannot be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ProbeError {
    /// Whether the kernel or the rights are at fault, not the command (exit status 3).
    pub fn is_environment(&self) -> bool {
        matches!(
            self,
            Self::NoBtf { .. }
                | Self::BadBtf { .. }
                | Self::NoMember { .. }
                | Self::NoRights { .. }
                | Self::KernelTooOld { .. }
                | Self::Load { .. }
                | Self::Program { .. }
                | Self::Frequency { .. }
                | Self::Attach { .. }
        )
    }

    /// A map's error under the map's name.
    pub(crate) fn map(map: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { map, source }
    }

    /// A program was not attached to a tracepoint.
    pub(crate) fn tracepoint(program: &'static str, tracepoint: &str, error: &dyn std::error::Error) -> Self {
        Self::Attach { program, target: format!("tracepoint {tracepoint}"), reason: chain(error) }
    }

    /// A program's error; of the verifier's log only the end, which says what is wrong.
    pub(crate) fn program(program: &'static str, error: &ProgramError) -> Self {
        let reason = match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                let log = verifier_log.to_string();
                let tail: Vec<&str> = log.lines().rev().take(VERIFIER_LINES).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                format!("{io_error}\n{}", tail.join("\n"))
            }
            other => chain(other),
        };
        Self::Program { program, reason }
    }
}

/// Lines of the verifier's log worth showing.
pub(crate) const VERIFIER_LINES: usize = 12;

/// An error with all its sources on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
