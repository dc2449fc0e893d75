//! The machine, as every Resource names it.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::proc_file;

/// Bytes of each file that are read.
const MAX_FILE: u64 = 1 << 20;

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `host.name`.
    pub name: String,
    /// `host.id`: the machine id (machine-id(5)).
    pub id: Option<String>,
    /// `host.arch`, in the conventions' words.
    pub architecture: &'static str,
    /// `os.description`, such as `Debian GNU/Linux 13 (trixie)`.
    pub os_description: Option<String>,
    /// `os.name`.
    pub os_name: Option<String>,
    /// `os.version`.
    pub os_version: Option<String>,
    /// Another one for each boot; empty where the kernel does not tell.
    pub boot_id: String,
    /// When the machine booted.
    pub booted: SystemTime,
    /// Names of users by id.
    pub users: HashMap<u32, String>,
}

impl Host {
    /// Reads what this machine is. What cannot be read is absent.
    pub fn read() -> Self {
        let text = |path: &str| {
            let bytes = proc_file::read_limited(Path::new(path), MAX_FILE).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let uname = nix::sys::utsname::uname();
        let name = uname.map(|uname| uname.nodename().to_string_lossy().into_owned()).unwrap_or_default();
        let id = [text("/etc/machine-id"), text("/var/lib/dbus/machine-id")]
            .into_iter()
            .map(|id| id.trim().to_owned())
            .find(|id| id.len() == 32);
        let release = Release::parse(&text("/etc/os-release"));
        Self {
            name,
            id,
            architecture: architecture(std::env::consts::ARCH),
            os_description: release.pretty_name,
            os_name: release.name,
            os_version: release.version_id,
            boot_id: text("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            booted: booted(),
            users: users(&text("/etc/passwd")),
        }
    }
}

/// Real time minus time since boot.
fn booted() -> SystemTime {
    let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    SystemTime::now().checked_sub(since_boot).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The value of `host.arch` for Rust's name of an architecture.
fn architecture(rust: &'static str) -> &'static str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Of os-release(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// `PRETTY_NAME`.
    pub pretty_name: Option<String>,
    /// `NAME`.
    pub name: Option<String>,
    /// `VERSION_ID`.
    pub version_id: Option<String>,
}

impl Release {
    /// Parses the text.
    pub fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
            let value = line.trim().trim_matches(['"', '\'']);
            (!value.is_empty()).then(|| value.to_owned())
        };
        Self { pretty_name: value("PRETTY_NAME"), name: value("NAME"), version_id: value("VERSION_ID") }
    }
}

/// Names by id from passwd(5). Read as a file: a directory service could keep descry waiting.
pub fn users(passwd: &str) -> HashMap<u32, String> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        Some((id.parse().ok()?, name.to_owned()))
    };
    let mut users = HashMap::new();
    for (id, name) in passwd.lines().filter_map(user) {
        users.entry(id).or_insert(name);
    }
    users
}
