//! A program that is measured from its first instruction.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

use descry_decode::ids::Tgid;
use nix::sys::ptrace;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::ProbeError;

/// A started program. It has executed, its files are mapped, and it waits before its first instruction until
/// [`HeldChild::release`]. Start and release must happen on one thread: the kernel ties tracer and tracee so.
pub struct HeldChild {
    child: Child,
    held: bool,
}

impl HeldChild {
    /// Starts `command` and holds it.
    pub fn start(mut command: Command) -> Result<Self, ProbeError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let error = |source| ProbeError::Spawn { program: program.clone(), source };
        // descry's threads block them; the program is to begin as from a shell.
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        // SAFETY: between fork and exec only two system calls are made, rt_sigprocmask and ptrace(PTRACE_TRACEME), which are
        // safe there.
        unsafe {
            command.pre_exec(move || {
                signals.thread_unblock()?;
                ptrace::traceme().map_err(Into::into)
            });
        }
        let child = command.spawn().map_err(error)?;
        let mut held = Self { child, held: true };
        // The kernel stops a traced program with SIGTRAP when its exec is complete.
        match waitpid(held.pid(), None) {
            Ok(WaitStatus::Stopped(_, Signal::SIGTRAP)) => Ok(held),
            Ok(status) => {
                held.held = false;
                Err(error(std::io::Error::other(format!("it did not stop after exec: {status:?}"))))
            }
            Err(errno) => Err(error(errno.into())),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Its process id.
    pub fn tgid(&self) -> Tgid {
        Tgid(self.child.id())
    }

    /// Lets it run.
    pub fn release(&mut self) -> Result<(), ProbeError> {
        if std::mem::take(&mut self.held) {
            ptrace::detach(self.pid(), None).map_err(|errno| ProbeError::System {
                action: "let the started program run",
                source: errno.into(),
            })?;
        }
        Ok(())
    }

    /// Its exit status, once it has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, ProbeError> {
        self.child
            .try_wait()
            .map_err(|source| ProbeError::System { action: "wait for the started program", source })
    }

    /// The exit code that a shell would show for a status: the program's own, or 128 + the signal.
    pub fn exit_code(status: ExitStatus) -> i32 {
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(&mut self) -> Result<ExitStatus, ProbeError> {
        self.release()?;
        if self.try_wait()?.is_none() {
            // It may have ended by itself meanwhile.
            let _ = nix::sys::signal::kill(self.pid(), Signal::SIGTERM);
        }
        self.child
            .wait()
            .map_err(|source| ProbeError::System { action: "wait for the started program", source })
    }
}

impl Drop for HeldChild {
    /// A program that was never let run is ended; a running one goes on.
    fn drop(&mut self) {
        if self.held {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
