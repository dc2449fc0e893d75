//! Programs under test, started and ended.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::compile;

/// How long a program may take to say that it is ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running program; it and what it started are killed when this is dropped.
#[derive(Debug)]
pub struct Workload {
    child: Child,
}

impl Workload {
    /// Starts a C or C++ workload and waits until it says that its measured part has begun.
    ///
    /// # Errors
    /// When it cannot be built or started, or ends before.
    pub fn native(name: &str, arguments: &[&str]) -> Result<Self> {
        Self::start(&compile::native(name)?, arguments)
    }

    /// The same for a Rust workload.
    ///
    /// # Errors
    /// As of [`Workload::native`].
    pub fn rust(name: &str, arguments: &[&str]) -> Result<Self> {
        Self::start(&compile::rust(name)?, arguments)
    }

    /// Starts a program that says "ready" on its first line.
    ///
    /// # Errors
    /// When it cannot be started, or ends before.
    pub fn start<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn_ready(command)
    }

    /// The same for a prepared command.
    ///
    /// # Errors
    /// When it cannot be started, or ends before.
    pub fn spawn_ready(command: Command) -> Result<Self> {
        let name = format!("{command:?}");
        match Self::spawn_telling(command)? {
            (workload, line) if line == "ready" => Ok(workload),
            (_, line) => bail!("{name} said {line:?} instead of \"ready\""),
        }
    }

    /// The same of a program that says something else on its first line, which is given too.
    ///
    /// # Errors
    /// When it cannot be started, or ends before.
    pub fn spawn_telling(mut command: Command) -> Result<(Self, String)> {
        command.stdout(Stdio::piped());
        let name = format!("{command:?}");
        let mut workload = Self::spawn(command)?;
        let Some(stdout) = workload.child.stdout.take() else { bail!("{name} has no output") };
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            if let Some(Ok(line)) = lines.next() {
                // The test that waits for it may be gone.
                sender.send(line).ok();
            }
            // A full pipe must not stop the program.
            lines.for_each(drop);
        });
        match receiver.recv_timeout(PATIENCE) {
            Ok(line) => Ok((workload, line)),
            Err(error) => bail!("{name} said nothing: {error}"),
        }
    }

    /// Starts a command without waiting for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child })
    }

    /// Its process id, as this process sees it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process ids of its children, as this process sees them.
    ///
    /// # Errors
    /// When it is gone.
    pub fn children(&self) -> Result<Vec<u32>> {
        children(self.pid())
    }

    /// Waits until it has a child, and returns that.
    ///
    /// # Errors
    /// When there is none after a minute.
    pub fn first_child(&self) -> Result<u32> {
        let pid = self.pid();
        eventually(&format!("a child of process {pid}"), || Ok(children(pid)?.first().copied()))
    }

    /// Ends it by a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(as_pid(self.pid())?, signal).with_context(|| format!("cannot send {signal} to {}", self.pid()))
    }

    /// Waits until it has ended of itself.
    ///
    /// # Errors
    /// When it has not after a minute.
    pub fn wait(&mut self) -> Result<std::process::ExitStatus> {
        let name = format!("the end of process {}", self.pid());
        eventually(&name, || Ok(self.child.try_wait()?))
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // It may have ended before; then there is nothing to do.
        if let Ok(pid) = as_pid(self.child.id()) {
            killpg(pid, Signal::SIGKILL).ok();
        }
        self.child.wait().ok();
    }
}

/// The process ids of the children of a process.
///
/// # Errors
/// When the process is gone.
pub fn children(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Asks until there is an answer.
///
/// # Errors
/// When there is none after a minute, and those of the question.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > end {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process id as nix takes it.
///
/// # Errors
/// When it is no process id.
pub fn as_pid(pid: u32) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(pid).with_context(|| format!("{pid} is no process id"))?))
}
