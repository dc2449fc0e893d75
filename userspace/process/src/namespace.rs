//! The pid namespace that descry runs in.

use std::io;
use std::os::linux::fs::MetadataExt;

/// Inode number of the initial pid namespace: `PROC_PID_INIT_INO` of the kernel's `include/linux/proc_ns.h`.
pub const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// A pid namespace as bpf programs and namespaces(7) identify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PidNamespace {
    /// Device of the namespace file system, as stat(2) encodes it.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

impl PidNamespace {
    /// That of this process. Fails where `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        let metadata = std::fs::metadata("/proc/self/ns/pid")?;
        Ok(Self { device: metadata.st_dev(), inode: metadata.st_ino() })
    }

    /// Whether it is the one that the machine booted with.
    pub fn is_initial(self) -> bool {
        self.inode == INITIAL_PID_NAMESPACE
    }
}
