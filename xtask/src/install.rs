//! What the tasks need from the system, in one list, and how to get it on Debian.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::command::{is_root, quiet, step, which};

/// A Debian package, and the file or program that shows that it is there.
#[derive(Clone, Copy)]
pub struct Package {
    /// Its name in Debian.
    pub name: &'static str,
    /// A program (by name) or a file (by absolute path) that it brings.
    pub brings: &'static str,
}

const fn package(name: &'static str, brings: &'static str) -> Package {
    Package { name, brings }
}

/// To compile descry and the bundled workloads.
pub const COMPILER: &[Package] = &[package("gcc", "cc"), package("libc6-dev", "/usr/include/stdlib.h")];

/// To compile the kernel side with Debian's own Rust, which has `core` for BPF prebuilt.
pub const EBPF_RUST: &[Package] = &[
    package("rustc-web", "/usr/bin/rustc"),
    package("libstd-rust-web-dev", "/usr/share/doc/libstd-rust-web-dev"),
    package("libstd-rust-web-dev-bpf", "/usr/share/doc/libstd-rust-web-dev-bpf"),
];

/// To compile bpf-linker.
pub const EBPF_LINKER: &[Package] = &[
    package("g++", "c++"),
    package("llvm-22-dev", "/usr/lib/llvm-22/bin/llvm-config"),
    package("libzstd-dev", "/usr/include/zstd.h"),
    package("zlib1g-dev", "/usr/include/zlib.h"),
];

/// To compile libFuzzer.
pub const FUZZ: &[Package] = &[package("g++", "c++")];

/// What the tests drive and compare with.
pub const TESTS: &[Package] = &[
    package("gcc", "cc"),
    package("g++", "c++"),
    package("libc6-dev", "/usr/include/stdlib.h"),
    package("binutils", "readelf"),
    package("bind9-dnsutils", "/usr/bin/dig"),
    package("bpftool", "/usr/sbin/bpftool"),
    package("dnsmasq-base", "/usr/sbin/dnsmasq"),
    package("gdb", "/usr/bin/gdb"),
    package("gunicorn", "/usr/bin/gunicorn"),
    package("haproxy", "/usr/sbin/haproxy"),
    package("mariadb-server", "/usr/sbin/mariadbd"),
    package("caddy", "/usr/bin/caddy"),
    package("curl", "/usr/bin/curl"),
    package("nghttp2-client", "/usr/bin/h2load"),
    package("nginx-light", "/usr/sbin/nginx"),
    package("nodejs", "/usr/bin/node"),
    package("openssl", "/usr/bin/openssl"),
    package("postgresql", "/usr/share/doc/postgresql"),
    package("postgresql-contrib", "/usr/bin/pgbench"),
    package("prometheus", "/usr/bin/prometheus"),
    package("python3", "/usr/bin/python3"),
    package("python3-flask", "/usr/lib/python3/dist-packages/flask/__init__.py"),
    package("python3-venv", "/usr/share/doc/python3-venv"),
    package("python3-grpcio", "/usr/lib/python3/dist-packages/grpc/__init__.py"),
    package("redis-server", "/usr/bin/redis-server"),
    package("strace", "strace"),
    package("sysbench", "/usr/bin/sysbench"),
    package("tcpdump", "/usr/bin/tcpdump"),
    package("util-linux", "unshare"),
    package("uvicorn", "/usr/bin/uvicorn"),
    package("wrk", "/usr/bin/wrk"),
];

/// What measurements compare with, and what they compile.
pub const BENCH: &[Package] = &[
    package("gcc", "cc"),
    package("libc6-dev", "/usr/include/stdlib.h"),
    package("linux-perf", "perf"),
    package("bpftrace", "bpftrace"),
    package("strace", "strace"),
];

impl Package {
    /// Whether what it brings is there, whoever installed it.
    pub fn is_there(&self) -> bool {
        if self.brings.starts_with('/') {
            Path::new(self.brings).exists()
        } else {
            which(self.brings).is_some()
        }
    }
}

/// Those of `packages` that are not there.
pub fn missing(packages: &[Package]) -> Vec<Package> {
    packages.iter().copied().filter(|package| !package.is_there()).collect()
}

/// The command that installs `packages`, as one types it.
pub fn apt_line(packages: &[Package]) -> String {
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    format!("apt-get install --no-install-recommends {}", names.join(" "))
}

/// Installs those of `packages` that are missing.
///
/// Does nothing when all are there. Needs root and apt otherwise; where either is missing, the error says
/// what to install by hand.
pub fn ensure(packages: &[Package], why: &str) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = apt_line(&missing);
    if which("apt-get").is_none() {
        bail!("{why} needs programs that are not here; on Debian they come with `{by_hand}`");
    }
    if !is_root() {
        bail!("{why} needs programs that are not here; as root: {by_hand}");
    }
    step(format!("installing for {why}: {by_hand}"));
    // A fresh machine has no package lists; an old one has lists of versions that are gone.
    if apt_get(&missing).is_ok() {
        return Ok(());
    }
    apt(&["update", "-qq"])?;
    apt_get(&missing)
}

/// Installs who is measured beside descry. bpftrace finds tracepoints in tracefs, which not every machine mounts.
pub fn for_comparison() -> Result<()> {
    const TRACEFS: &str = "/sys/kernel/tracing";
    ensure(BENCH, "the comparison")?;
    if Path::new(TRACEFS).join("events").exists() {
        return Ok(());
    }
    step(format!("mounting tracefs at {TRACEFS}"));
    quiet(Command::new("mount").args(["-t", "tracefs", "nodev", TRACEFS]))
}

fn apt_get(packages: &[Package]) -> Result<()> {
    let mut args = vec!["install", "-qq", "-y", "--no-install-recommends"];
    args.extend(packages.iter().map(|package| package.name));
    apt(&args)
}

/// Runs apt-get, and waits for another apt that holds the lock.
fn apt(args: &[&str]) -> Result<()> {
    const TRIES: u32 = 60;
    for _ in 1..TRIES {
        let output = apt_command(args).output()?;
        if output.status.success() {
            return Ok(());
        }
        if !String::from_utf8_lossy(&output.stderr).contains("Could not get lock") {
            break;
        }
        sleep(Duration::from_secs(5));
    }
    quiet(&mut apt_command(args))
}

fn apt_command(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]).args(args);
    command
}
