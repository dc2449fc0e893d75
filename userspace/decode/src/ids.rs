//! Numbers that get mixed up, each with a type of its own.

use std::fmt;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

newtype!(
    /// A process: the id of its thread group, in the pid namespace that descry runs in.
    Tgid(u32), "{}"
);
newtype!(
    /// A thread, in the pid namespace that descry runs in.
    Tid(u32), "{}"
);
newtype!(
    /// A logical CPU.
    Cpu(u32), "{}"
);
newtype!(
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    BootNanos(u64), "{}"
);
newtype!(
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    UnixNanos(u64), "{}"
);
newtype!(
    /// A cgroup (v2): the inode number of its directory.
    CgroupId(u64), "{}"
);
newtype!(
    /// What carries one request at a time: today a thread.
    UnitId(u64), "{}"
);
newtype!(
    /// A request, numbered by the kernel side; 0 is none.
    RequestId(u64), "{}"
);
newtype!(
    /// A system call of an interface of the kernel, as `descry_abi::syscall` writes it.
    SyscallNumber(u32), "{}"
);
newtype!(
    /// A stack of a wait, as the kernel side numbers them; 0 is none.
    StackId(u64), "{:#x}"
);
newtype!(
    /// A connection: its socket's inode number, the N of `socket:[N]` in /proc/PID/fd.
    ConnectionId(u64), "{}"
);
newtype!(
    /// A template of messages, numbered by descry; 0 is none.
    TemplateId(u32), "{}"
);
newtype!(
    /// A traced function or USDT probe, numbered by descry.
    FunctionNumber(u32), "{}"
);
newtype!(
    /// An address in the memory of a running process or of the kernel.
    RuntimeAddress(u64), "{:#x}"
);
newtype!(
    /// An address as an ELF file counts them (`p_vaddr`, `st_value`).
    ElfAddress(u64), "{:#x}"
);
newtype!(
    /// A position in a file (bytes).
    FileOffset(u64), "{:#x}"
);

/// The name of a thread as the kernel keeps it: at most 15 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// The bytes before the first zero.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        &self.0[..len]
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}
