//! Real servers under load, on loopback or a socket in a directory of their own; stopped when their guards are dropped.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::User;
use tempfile::TempDir;

use crate::machine;
use crate::workload::{Workload, eventually};

/// nginx with one worker, and wrk that asks it for one small page all the time.
#[derive(Debug)]
pub struct Nginx {
    _load: Workload,
    server: Workload,
    _dir: TempDir,
}

impl Nginx {
    /// Starts both.
    ///
    /// # Errors
    /// When one is missing or does not start.
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        open_to_all(dir.path())?;
        let port = free_port()?;
        fs::write(dir.path().join("index.html"), "a small page\n")?;
        let command = nginx_command(dir.path(), port, "", "access_log off;")?;
        let server = Workload::spawn(command)?;
        eventually("nginx to listen", || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok()))?;
        let mut command = Command::new(machine::tool("wrk")?);
        command.args(["-t1", "-c8", "-d600s", &format!("http://127.0.0.1:{port}/index.html")]);
        let load = Workload::spawn({
            command.stdout(Stdio::null());
            command
        })?;
        Ok(Self { _load: load, server, _dir: dir })
    }

    /// The process that serves.
    ///
    /// # Errors
    /// When there is none.
    pub fn worker(&self) -> Result<u32> {
        self.server.first_child()
    }
}

/// nginx with one worker that serves the files of a directory on a port of 127.0.0.1, on up to 12,000 connections. `listen` is more of that directive,
/// `logs` says what it logs. The directory has to be [`open_to_all`].
///
/// # Errors
/// When it is missing, or the directory cannot be written.
pub fn nginx_command(dir: &Path, port: u16, listen: &str, logs: &str) -> Result<Command> {
    let root = dir.display();
    let config = format!(
        "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
         worker_rlimit_nofile 16000; events {{ worker_connections 12000; }}\n\
         http {{ {logs} client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
         fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
         server {{ listen 127.0.0.1:{port} {listen}; root {root}; }} }}\n"
    );
    fs::write(dir.join("nginx.conf"), config)?;
    let mut command = Command::new(machine::tool("nginx")?);
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).stderr(Stdio::null());
    Ok(command)
}

/// PostgreSQL with pgbench on two connections.
#[derive(Debug)]
pub struct Postgres {
    load: Workload,
    server: Workload,
    _dir: TempDir,
}

impl Postgres {
    /// Makes a database, starts both.
    ///
    /// # Errors
    /// When one is missing or does not start.
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        open_to_all(dir.path())?;
        let command = postgres_command(dir.path(), &["listen_addresses="])?;
        let server = Workload::spawn(command)?;
        let socket: PathBuf = dir.path().join(".s.PGSQL.5432");
        eventually("PostgreSQL's socket", || Ok(socket.exists().then_some(())))?;
        let pgbench = |arguments: &[&str]| -> Result<Command> {
            let mut command = Command::new(machine::tool("pgbench")?);
            command.arg("-h").arg(dir.path()).args(["-U", "postgres"]).args(arguments).arg("postgres");
            command.stdout(Stdio::null()).stderr(Stdio::null());
            Ok(command)
        };
        eventually("pgbench to fill its tables", || {
            Ok(pgbench(&["-i", "-q"])?.status()?.success().then_some(()))
        })?;
        let load = Workload::spawn(pgbench(&["-c", "2", "-T", "600", "-S", "-M", "simple"])?)?;
        let postgres = Self { load, server, _dir: dir };
        eventually("pgbench's connections", || Ok((postgres.backends()?.len() >= 2).then_some(())))?;
        Ok(postgres)
    }

    /// The first process of the server; the others are its children.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The processes that serve pgbench's connections.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn backends(&self) -> Result<Vec<u32>> {
        let mut backends = self.server.children()?;
        backends.retain(|pid| {
            let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&title).contains("[local]")
        });
        Ok(backends)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Fast shutdown, so that it gives back its shared memory; the guards kill what remains.
        self.load.signal(Signal::SIGKILL).ok();
        self.server.signal(Signal::SIGINT).ok();
        self.server.wait().ok();
    }
}

/// PostgreSQL with a new database in a directory, its socket there too, and these settings. The directory has to be
/// [`open_to_all`].
///
/// # Errors
/// When it is missing, or makes no database.
pub fn postgres_command(dir: &Path, settings: &[&str]) -> Result<Command> {
    let user =
        User::from_name("postgres")?.context("there is no user postgres: apt-get install postgresql")?;
    chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    let postgres = machine::tool("postgres")?;
    let data = dir.join("data");
    let as_user = |program: &Path| -> Result<Command> {
        let mut command = Command::new(machine::tool("setpriv")?);
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command.current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    };
    let mut initdb = as_user(&postgres.with_file_name("initdb"))?;
    initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "-D"]).arg(&data);
    ensure!(initdb.status()?.success(), "initdb failed");
    let mut command = as_user(postgres)?;
    command.arg("-D").arg(&data).arg("-k").arg(dir);
    for setting in ["fsync=off", "autovacuum=off"].iter().chain(settings) {
        command.args(["-c", setting]);
    }
    Ok(command)
}

/// A TCP port of the loopback address that nothing listens on.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Lets servers that run as other users enter the directory.
///
/// # Errors
/// When it is not ours.
pub fn open_to_all(dir: &Path) -> Result<()> {
    Ok(fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?)
}
