//! What a test needs of the machine: rights, tools, and to be alone on it.

use std::fs::{File, create_dir_all};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

/// While it lives no other test of this kind runs, in this process or another: CPU shares would not be right.
#[derive(Debug)]
pub struct Machine {
    _lock: Flock<File>,
}

/// The rights to measure, and the machine for this test alone.
///
/// None where `DESCRY_SKIP_KERNEL_TESTS=1` says to skip.
///
/// # Errors
/// When something is missing that every measurement needs; the message says what.
pub fn alone() -> Result<Option<Machine>> {
    if is_skipped("DESCRY_SKIP_KERNEL_TESTS") {
        return Ok(None);
    }
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root's rights (run the test by sudo)");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        missing.push("the kernel's types in /sys/kernel/btf/vmlinux (a kernel with CONFIG_DEBUG_INFO_BTF)");
    }
    ensure!(
        missing.is_empty(),
        "the kernel tests need {}; DESCRY_SKIP_KERNEL_TESTS=1 skips them",
        missing.join(" and ")
    );
    Ok(Some(Machine { _lock: lock("machine")? }))
}

/// Waits for the lock of this name, held until the value is dropped.
///
/// # Errors
/// When the lock file cannot be made.
pub fn lock(name: &str) -> Result<Flock<File>> {
    let path = work_dir()?.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("cannot lock {}", path.display()))
}

/// `workloads` in the build directory that this test was built in; made if it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn work_dir() -> Result<PathBuf> {
    let test = std::env::current_exe().context("the test's own path is not known")?;
    // target/debug/deps/kernel-0123456789abcdef
    let Some(target) = test.ancestors().nth(3) else {
        bail!("{} lies in no build directory", test.display())
    };
    let dir = target.join("workloads");
    create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Whether tests are to be left out that need something which a variable of this name, set to 1, says is not there.
pub fn is_skipped(variable: &str) -> bool {
    let skipped = std::env::var_os(variable).is_some_and(|value| value == "1");
    if skipped {
        eprintln!("skipped, as {variable}=1 says");
    }
    skipped
}

/// How long a trial by time lasts: as short as given, or a minute with `DESCRY_TEST_LONG=1`.
pub fn lasting(short: Duration) -> Duration {
    let is_long = std::env::var("DESCRY_TEST_LONG").is_ok_and(|value| value == "1");
    if is_long { Duration::from_secs(60) } else { short }
}

/// Programs that the tests drive, with Debian's package of each.
const TOOLS: &[(&str, &str)] = &[
    ("/usr/sbin/bpftool", "bpftool"),
    ("/usr/bin/caddy", "caddy"),
    ("/usr/bin/dig", "bind9-dnsutils"),
    ("/usr/sbin/dnsmasq", "dnsmasq-base"),
    ("/usr/bin/gdb", "gdb"),
    ("/usr/sbin/haproxy", "haproxy"),
    ("/usr/bin/mariadb", "mariadb-client"),
    ("/usr/bin/mariadb-install-db", "mariadb-server"),
    ("/usr/sbin/mariadbd", "mariadb-server"),
    ("/usr/bin/node", "nodejs"),
    ("/usr/bin/h2load", "nghttp2-client"),
    ("/usr/sbin/nginx", "nginx"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/pgbench", "postgresql-contrib"),
    ("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"),
    ("/usr/bin/prometheus", "prometheus"),
    ("/usr/bin/psql", "postgresql-client"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/redis-benchmark", "redis-tools"),
    ("/usr/bin/redis-cli", "redis-tools"),
    ("/usr/bin/redis-server", "redis-server"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/strace", "strace"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/bin/sysbench", "sysbench"),
    ("/usr/bin/tcpdump", "tcpdump"),
    ("/usr/bin/unshare", "util-linux"),
    ("/usr/bin/wrk", "wrk"),
];

/// The path of a tool, by the name of its file. Always the distribution's, since that is what the tests know.
///
/// # Errors
/// When it is not installed; the message names its package.
pub fn tool(name: &str) -> Result<&'static Path> {
    let entry = TOOLS.iter().find(|(path, _)| path.rsplit('/').next() == Some(name));
    let Some((path, package)) = entry else { bail!("{name} is not in the list of tools") };
    let path = Path::new(path);
    ensure!(path.exists(), "{} is missing: apt-get install {package}", path.display());
    Ok(path)
}
