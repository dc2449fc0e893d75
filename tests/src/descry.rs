//! The `descry` command, run as a user runs it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use crate::compile::cargo;
use crate::folded::Folded;
use crate::workload::{as_pid, eventually};

/// Name of the file that [`Descry::profile`] writes.
const RESULT: &str = "result.folded";
/// A run that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// The binary: `DESCRY_BIN`, else a release build of the workspace, made when it is not up to date.
///
/// # Errors
/// When it cannot be built.
pub fn binary() -> Result<PathBuf> {
    static BINARY: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let binary = BINARY.get_or_init(|| match std::env::var_os("DESCRY_BIN") {
        Some(path) => Ok(path.into()),
        None => build().map_err(|error| format!("{error:#}")),
    });
    binary.clone().map_err(|error| anyhow!("{error}"))
}

fn build() -> Result<PathBuf> {
    let mut command = Command::new(cargo());
    command.args(["build", "--release", "--package", "descry", "--message-format=json-render-diagnostics"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
    let output = command.output().context("cargo cannot be run")?;
    ensure!(output.status.success(), "descry does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
        .find(|path| path.file_name() == Some(OsStr::new("descry")))
        .context("cargo did not say where it put descry")
}

/// The figures of `--stats json`.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Stats {
    /// Samples taken.
    pub samples: u64,
    /// Samples lost, by reason.
    pub lost: BTreeMap<String, u64>,
    /// The part of the stacks that reached their root (0 to 1).
    pub rooted: f64,
    /// Stacks that were cut.
    pub truncated: u64,
    /// The part of the frames without a name (0 to 1).
    pub unsymbolized: f64,
    /// CPU time of descry itself (ns).
    pub cpu_ns: u64,
    /// Its peak memory (bytes).
    pub peak_rss_bytes: u64,
}

/// A command line in the making.
#[derive(Debug)]
pub struct Descry {
    command: Command,
    /// Where the result goes if not to the standard output, which a started program shares.
    result: Option<Arc<TempDir>>,
}

impl Descry {
    /// `descry SUBCOMMAND`.
    ///
    /// # Errors
    /// When the binary cannot be built.
    pub fn new(subcommand: &str) -> Result<Self> {
        Ok(Self::through(&[binary()?.as_os_str(), OsStr::new(subcommand)]))
    }

    /// Any command that ends up running descry, such as one that sets up a namespace first.
    pub fn through<A: AsRef<OsStr>>(command_line: &[A]) -> Self {
        let mut words = command_line.iter();
        let mut command = Command::new(words.next().map_or(OsStr::new("false"), AsRef::as_ref));
        command.args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What the test machine exports must not change what is tested.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        Self { command, result: None }
    }

    /// `descry profile --format folded --stats json` with this rate (Hz) and duration (s), into a file that
    /// [`Outcome::folded`] reads.
    ///
    /// # Errors
    /// When the binary cannot be built.
    pub fn profile(frequency: u32, seconds: u32) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join(RESULT);
        let mut descry = Self::profile_to(frequency, seconds, &file)?;
        descry.result = Some(Arc::new(dir));
        Ok(descry)
    }

    /// The same into a file of the caller's.
    ///
    /// # Errors
    /// When the binary cannot be built.
    pub fn profile_to(frequency: u32, seconds: u32, file: &Path) -> Result<Self> {
        let frequency = frequency.to_string();
        let seconds = format!("{seconds}s");
        let options = ["--format", "folded", "--stats", "json", "-F", &frequency, "-d", &seconds];
        Ok(Self::new("profile")?.args(options).output(file))
    }

    /// More of the command line.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// A process to measure.
    pub fn pid(self, pid: u32) -> Self {
        self.args(["-p".to_owned(), pid.to_string()])
    }

    /// The file to write.
    pub fn output(self, path: &Path) -> Self {
        self.args([OsStr::new("-o"), path.as_os_str()])
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started or hangs; not when it fails.
    pub fn run(self) -> Result<Outcome> {
        self.spawn()?.wait()
    }

    /// Runs it to its end, which must be a good one.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn succeed(self) -> Result<Outcome> {
        let outcome = self.run()?;
        ensure!(outcome.code == Some(0), "descry ended with {:?}:\n{}", outcome.code, outcome.stderr);
        Ok(outcome)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut self) -> Result<Running> {
        let mut child = self.command.spawn().with_context(|| format!("cannot start {:?}", self.command))?;
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let command_line: Vec<OsString> = std::iter::once(self.command.get_program())
            .chain(self.command.get_args())
            .map(OsStr::to_owned)
            .collect();
        Ok(Running { child: Owned(child), stdout, stderr, command_line, result: self.result })
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A pipe that breaks ends what was said; the exit code tells the rest.
            pipe.read_to_end(&mut bytes).ok();
        }
        bytes
    })
}

/// A descry that runs.
#[derive(Debug)]
pub struct Running {
    child: Owned,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    command_line: Vec<OsString>,
    result: Option<Arc<TempDir>>,
}

/// A process that does not outlive its owner: a test that failed leaves nobody behind who measures the next one.
#[derive(Debug)]
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Most have ended, and were waited for.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Waits until it measures: until it holds perf events.
    ///
    /// # Errors
    /// When it ends before, or never does.
    pub fn measuring(&mut self) -> Result<()> {
        self.until("descry's first perf event", "fd", |file| {
            std::fs::read_link(file).is_ok_and(|link| link.to_string_lossy().contains("[perf_event]"))
        })
    }

    /// Waits until it hears of what goes over sockets.
    ///
    /// # Errors
    /// When it ends before, or never does.
    pub fn watching_sockets(&mut self) -> Result<()> {
        self.until("descry to watch sockets", "fdinfo", |file| {
            // The last tracepoints that it attaches to; TLS comes later.
            std::fs::read_to_string(file)
                .is_ok_and(|text| text.contains("sock_send_length") || text.contains("sys_exit"))
        })
    }

    /// Waits until something in a directory of its own in /proc is a sign of it.
    fn until(&mut self, what: &str, directory: &str, is_sign: impl Fn(&Path) -> bool) -> Result<()> {
        let dir = format!("/proc/{}/{directory}", self.pid());
        eventually(what, || {
            if let Some(status) = self.child.0.try_wait()? {
                bail!("{:?} ended before it measured: {status}", self.command_line);
            }
            let mut files = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            Ok(files.any(|file| is_sign(&file.path())).then_some(()))
        })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(as_pid(self.pid())?, signal).with_context(|| format!("cannot send {signal} to descry"))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it hangs; it is killed then.
    pub fn wait(mut self) -> Result<Outcome> {
        let end = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.0.try_wait()? {
                break status;
            }
            if Instant::now() > end {
                bail!("{:?} did not end within {} s", self.command_line, LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let text = |pipe: JoinHandle<Vec<u8>>| {
            pipe.join().map_err(|_| anyhow!("a reader of descry's output failed"))
        };
        let stdout = text(self.stdout)?;
        let result = match self.result {
            // A descry that failed leaves none.
            Some(dir) => std::fs::read(dir.path().join(RESULT)).unwrap_or_default(),
            None => stdout.clone(),
        };
        Ok(Outcome {
            code: status.code(),
            stdout,
            result,
            stderr: String::from_utf8_lossy(&text(self.stderr)?).into_owned(),
        })
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit code; none: killed by a signal.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to the file of [`Descry::profile`], else to its standard output.
    pub result: Vec<u8>,
    /// What it said.
    pub stderr: String,
}

impl Outcome {
    /// The result as folded stacks.
    ///
    /// # Errors
    /// When it is not.
    pub fn folded(&self) -> Result<Folded> {
        Folded::parse(std::str::from_utf8(&self.result).context("the result is not UTF-8")?)
    }

    /// The figures of `--stats json`: the last line of JSON that it said.
    ///
    /// # Errors
    /// When there is none, or it is not as documented.
    pub fn stats(&self) -> Result<Stats> {
        let line = self.stderr.lines().rev().find(|line| line.starts_with('{'));
        let line = line.with_context(|| format!("descry said no figures:\n{}", self.stderr))?;
        serde_json::from_str(line).with_context(|| format!("not the documented figures: {line}"))
    }
}
