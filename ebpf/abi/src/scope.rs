//! Which tasks are watched.

/// What a scope compares: the value of the global `SCOPE_KIND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ScopeKind {
    /// Every task.
    All = 0,
    /// Tasks whose process is in the map `SCOPE_TGIDS`.
    Processes = 1,
    /// Tasks whose cgroup, or one above it, is in the map `SCOPE_CGROUPS`.
    Cgroups = 2,
}

/// In the map `SCOPE_FILTER`: any process whose id has these low bits may be watched. Otherwise a word there is the id of the
/// only one that is; 0: none is.
pub const SCOPE_SEVERAL: u64 = u64::MAX;

/// A file that makes a process watched when it executes it (`--exe`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ExecutableKey {
    /// Inode number.
    pub inode: u64,
    /// Device as the kernel keeps it: major in the upper 12 bits, minor in the lower 20. 0 for devices without a major
    /// number: overlayfs and btrfs show stat(2) another one than the kernel has.
    pub device: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<ExecutableKey>() == 16);

impl ExecutableKey {
    /// Bits of a device number below its major number (`MINORBITS` in linux/kdev_t.h).
    const MINOR_BITS: u32 = 20;

    /// The key of a file on a device as the kernel keeps it.
    #[inline(always)]
    pub const fn new(inode: u64, device: u32) -> Self {
        let device = if device >> Self::MINOR_BITS == 0 { 0 } else { device };
        Self { inode, device, reserved: 0 }
    }
}
