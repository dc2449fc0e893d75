//! Names of flags and of numbers that have names, from the kernel's headers (include/uapi, asm-generic unless it is said).

use std::fmt::Write;

/// A set of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Access,
    Advice,
    At,
    Clock,
    Clone,
    Epoll,
    Family,
    Fcntl,
    Futex,
    Lock,
    Map,
    Message,
    Msync,
    Open,
    OpenFlags,
    Protection,
    Random,
    Shutdown,
    Signal,
    Socket,
    SocketFlags,
    SyncRange,
    Wait,
    Whence,
}

/// How a value is made: of at most one number under a mask, and of any flags beside it.
struct Set {
    /// The bits of the number; 0: there is none.
    mask: u64,
    numbers: &'static [(u64, &'static str)],
    /// Those of several bits come before those of one.
    flags: &'static [(u64, &'static str)],
}

/// A value by its names, as strace shows it: what has none is added in hex.
pub(super) fn text(names: Names, value: u64) -> String {
    // All of them are `int`s, but for those of clone and mmap, whose flags fit too.
    let value = value & ALL;
    let set = set(names);
    let mut text = String::new();
    let number = value & set.mask;
    let mut rest = value;
    if let Some((_, name)) =
        set.numbers.iter().find(|(known, _)| *known == number && (set.mask != 0 || value == 0))
    {
        text.push_str(name);
        rest &= !number;
    }
    for (flag, name) in set.flags {
        if rest & flag == *flag {
            rest &= !flag;
            separate(&mut text);
            text.push_str(name);
        }
    }
    if rest != 0 {
        separate(&mut text);
        // Writing to a String cannot fail.
        let _ = write!(text, "{rest:#x}");
    }
    if text.is_empty() {
        text.push('0');
    }
    text
}

fn separate(text: &mut String) {
    if !text.is_empty() {
        text.push('|');
    }
}

/// Flags of open that have other numbers on arm64 (arch/arm64/include/uapi/asm/fcntl.h).
#[cfg(target_arch = "x86_64")]
mod open {
    pub const O_DIRECT: u64 = 0o40_000;
    pub const O_LARGEFILE: u64 = 0o100_000;
    pub const O_DIRECTORY: u64 = 0o200_000;
    pub const O_NOFOLLOW: u64 = 0o400_000;
}
#[cfg(target_arch = "aarch64")]
mod open {
    pub const O_DIRECTORY: u64 = 0o40_000;
    pub const O_NOFOLLOW: u64 = 0o100_000;
    pub const O_DIRECT: u64 = 0o200_000;
    pub const O_LARGEFILE: u64 = 0o400_000;
}

fn set(names: Names) -> Set {
    match names {
        Names::Access => Set { mask: 0, numbers: &[(0, "F_OK")], flags: ACCESS },
        Names::Advice => numbers(ADVICE),
        Names::At => flags(AT),
        Names::Clock => numbers(CLOCK),
        Names::Clone => Set { mask: 0xff, numbers: &[(17, "SIGCHLD")], flags: CLONE },
        Names::Epoll => numbers(&[(1, "EPOLL_CTL_ADD"), (2, "EPOLL_CTL_DEL"), (3, "EPOLL_CTL_MOD")]),
        Names::Family => numbers(FAMILY),
        Names::Fcntl => numbers(FCNTL),
        Names::Futex => Set { mask: 127, numbers: FUTEX, flags: FUTEX_FLAGS },
        Names::Lock => Set { mask: 11, numbers: LOCK, flags: &[(4, "LOCK_NB")] },
        Names::Map => Set { mask: 15, numbers: MAP_TYPE, flags: MAP },
        Names::Message => flags(MESSAGE),
        Names::Msync => flags(&[(1, "MS_ASYNC"), (2, "MS_INVALIDATE"), (4, "MS_SYNC")]),
        Names::Open => {
            Set { mask: 3, numbers: &[(0, "O_RDONLY"), (1, "O_WRONLY"), (2, "O_RDWR")], flags: OPEN }
        }
        Names::OpenFlags => flags(OPEN),
        Names::Protection => Set { mask: 0, numbers: &[(0, "PROT_NONE")], flags: PROTECTION },
        Names::Random => flags(&[(1, "GRND_NONBLOCK"), (2, "GRND_RANDOM"), (4, "GRND_INSECURE")]),
        Names::Shutdown => numbers(&[(0, "SHUT_RD"), (1, "SHUT_WR"), (2, "SHUT_RDWR")]),
        Names::Signal => numbers(SIGNAL),
        Names::Socket => Set { mask: 15, numbers: SOCKET, flags: SOCKET_FLAGS },
        Names::SocketFlags => flags(SOCKET_FLAGS),
        Names::SyncRange => flags(SYNC_RANGE),
        Names::Wait => flags(WAIT),
        Names::Whence => numbers(WHENCE),
    }
}

/// A value that is one number.
const fn numbers(numbers: &'static [(u64, &'static str)]) -> Set {
    Set { mask: ALL, numbers, flags: &[] }
}

/// A value that is flags alone.
const fn flags(flags: &'static [(u64, &'static str)]) -> Set {
    Set { mask: 0, numbers: &[], flags }
}

/// All bits of an `int`.
const ALL: u64 = u32::MAX as u64;

// unistd.h
const ACCESS: &[(u64, &str)] = &[(4, "R_OK"), (2, "W_OK"), (1, "X_OK")];
const WHENCE: &[(u64, &str)] =
    &[(0, "SEEK_SET"), (1, "SEEK_CUR"), (2, "SEEK_END"), (3, "SEEK_DATA"), (4, "SEEK_HOLE")];
// fcntl.h
const OPEN: &[(u64, &str)] = &[
    (0o20_000_000 | open::O_DIRECTORY, "O_TMPFILE"),
    (0o4_010_000, "O_SYNC"),
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1_000, "O_TRUNC"),
    (0o2_000, "O_APPEND"),
    (0o4_000, "O_NONBLOCK"),
    (0o10_000, "O_DSYNC"),
    (0o20_000, "O_ASYNC"),
    (open::O_DIRECT, "O_DIRECT"),
    (open::O_LARGEFILE, "O_LARGEFILE"),
    (open::O_DIRECTORY, "O_DIRECTORY"),
    (open::O_NOFOLLOW, "O_NOFOLLOW"),
    (0o1_000_000, "O_NOATIME"),
    (0o2_000_000, "O_CLOEXEC"),
    (0o10_000_000, "O_PATH"),
];
const AT: &[(u64, &str)] = &[
    (0x100, "AT_SYMLINK_NOFOLLOW"),
    (0x200, "AT_REMOVEDIR"),
    (0x400, "AT_SYMLINK_FOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"),
    (0x1000, "AT_EMPTY_PATH"),
    (0x2000, "AT_STATX_FORCE_SYNC"),
    (0x4000, "AT_STATX_DONT_SYNC"),
];
const FCNTL: &[(u64, &str)] = &[
    (0, "F_DUPFD"),
    (1, "F_GETFD"),
    (2, "F_SETFD"),
    (3, "F_GETFL"),
    (4, "F_SETFL"),
    (5, "F_GETLK"),
    (6, "F_SETLK"),
    (7, "F_SETLKW"),
    (36, "F_OFD_GETLK"),
    (37, "F_OFD_SETLK"),
    (38, "F_OFD_SETLKW"),
    (1030, "F_DUPFD_CLOEXEC"),
    (1031, "F_SETPIPE_SZ"),
    (1032, "F_GETPIPE_SZ"),
    (1033, "F_ADD_SEALS"),
    (1034, "F_GET_SEALS"),
];
const LOCK: &[(u64, &str)] = &[(1, "LOCK_SH"), (2, "LOCK_EX"), (8, "LOCK_UN")];
// mman-common.h, mman.h
const PROTECTION: &[(u64, &str)] = &[(1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC")];
const MAP_TYPE: &[(u64, &str)] = &[(1, "MAP_SHARED"), (2, "MAP_PRIVATE"), (3, "MAP_SHARED_VALIDATE")];
const MAP: &[(u64, &str)] = &[
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANONYMOUS"),
    (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"),
    (0x2000, "MAP_LOCKED"),
    (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x1_0000, "MAP_NONBLOCK"),
    (0x2_0000, "MAP_STACK"),
    (0x4_0000, "MAP_HUGETLB"),
    (0x10_0000, "MAP_FIXED_NOREPLACE"),
];
const ADVICE: &[(u64, &str)] = &[
    (0, "MADV_NORMAL"),
    (1, "MADV_RANDOM"),
    (2, "MADV_SEQUENTIAL"),
    (3, "MADV_WILLNEED"),
    (4, "MADV_DONTNEED"),
    (8, "MADV_FREE"),
    (12, "MADV_MERGEABLE"),
    (14, "MADV_HUGEPAGE"),
    (15, "MADV_NOHUGEPAGE"),
    (20, "MADV_COLD"),
    (21, "MADV_PAGEOUT"),
    (22, "MADV_POPULATE_READ"),
    (23, "MADV_POPULATE_WRITE"),
    (25, "MADV_COLLAPSE"),
];
// linux/socket.h in the kernel's own headers; x86 and arm64 agree
const MESSAGE: &[(u64, &str)] = &[
    (0x1, "MSG_OOB"),
    (0x2, "MSG_PEEK"),
    (0x4, "MSG_DONTROUTE"),
    (0x8, "MSG_CTRUNC"),
    (0x20, "MSG_TRUNC"),
    (0x40, "MSG_DONTWAIT"),
    (0x80, "MSG_EOR"),
    (0x100, "MSG_WAITALL"),
    (0x800, "MSG_CONFIRM"),
    (0x2000, "MSG_ERRQUEUE"),
    (0x4000, "MSG_NOSIGNAL"),
    (0x8000, "MSG_MORE"),
    (0x1_0000, "MSG_WAITFORONE"),
    (0x400_0000, "MSG_ZEROCOPY"),
    (0x2000_0000, "MSG_FASTOPEN"),
    (0x4000_0000, "MSG_CMSG_CLOEXEC"),
];
const FAMILY: &[(u64, &str)] = &[
    (1, "AF_UNIX"),
    (2, "AF_INET"),
    (10, "AF_INET6"),
    (16, "AF_NETLINK"),
    (17, "AF_PACKET"),
    (31, "AF_BLUETOOTH"),
    (38, "AF_ALG"),
    (40, "AF_VSOCK"),
    (44, "AF_XDP"),
];
// linux/net.h
const SOCKET: &[(u64, &str)] = &[
    (1, "SOCK_STREAM"),
    (2, "SOCK_DGRAM"),
    (3, "SOCK_RAW"),
    (4, "SOCK_RDM"),
    (5, "SOCK_SEQPACKET"),
    (10, "SOCK_PACKET"),
];
const SOCKET_FLAGS: &[(u64, &str)] = &[(0o4_000, "SOCK_NONBLOCK"), (0o2_000_000, "SOCK_CLOEXEC")];
// futex.h
const FUTEX: &[(u64, &str)] = &[
    (0, "FUTEX_WAIT"),
    (1, "FUTEX_WAKE"),
    (3, "FUTEX_REQUEUE"),
    (4, "FUTEX_CMP_REQUEUE"),
    (5, "FUTEX_WAKE_OP"),
    (6, "FUTEX_LOCK_PI"),
    (7, "FUTEX_UNLOCK_PI"),
    (8, "FUTEX_TRYLOCK_PI"),
    (9, "FUTEX_WAIT_BITSET"),
    (10, "FUTEX_WAKE_BITSET"),
    (11, "FUTEX_WAIT_REQUEUE_PI"),
    (12, "FUTEX_CMP_REQUEUE_PI"),
    (13, "FUTEX_LOCK_PI2"),
];
const FUTEX_FLAGS: &[(u64, &str)] = &[(128, "FUTEX_PRIVATE_FLAG"), (256, "FUTEX_CLOCK_REALTIME")];
// time.h
const CLOCK: &[(u64, &str)] = &[
    (0, "CLOCK_REALTIME"),
    (1, "CLOCK_MONOTONIC"),
    (2, "CLOCK_PROCESS_CPUTIME_ID"),
    (3, "CLOCK_THREAD_CPUTIME_ID"),
    (7, "CLOCK_BOOTTIME"),
    (8, "CLOCK_REALTIME_ALARM"),
    (9, "CLOCK_BOOTTIME_ALARM"),
    (11, "CLOCK_TAI"),
];
// sched.h
const CLONE: &[(u64, &str)] = &[
    (0x100, "CLONE_VM"),
    (0x200, "CLONE_FS"),
    (0x400, "CLONE_FILES"),
    (0x800, "CLONE_SIGHAND"),
    (0x1000, "CLONE_PIDFD"),
    (0x2000, "CLONE_PTRACE"),
    (0x4000, "CLONE_VFORK"),
    (0x8000, "CLONE_PARENT"),
    (0x1_0000, "CLONE_THREAD"),
    (0x2_0000, "CLONE_NEWNS"),
    (0x4_0000, "CLONE_SYSVSEM"),
    (0x8_0000, "CLONE_SETTLS"),
    (0x10_0000, "CLONE_PARENT_SETTID"),
    (0x20_0000, "CLONE_CHILD_CLEARTID"),
    (0x100_0000, "CLONE_CHILD_SETTID"),
    (0x200_0000, "CLONE_NEWCGROUP"),
    (0x400_0000, "CLONE_NEWUTS"),
    (0x800_0000, "CLONE_NEWIPC"),
    (0x1000_0000, "CLONE_NEWUSER"),
    (0x2000_0000, "CLONE_NEWPID"),
    (0x4000_0000, "CLONE_NEWNET"),
];
// wait.h
const WAIT: &[(u64, &str)] = &[
    (1, "WNOHANG"),
    (2, "WUNTRACED"),
    (4, "WEXITED"),
    (8, "WCONTINUED"),
    (0x0100_0000, "WNOWAIT"),
    (0x2000_0000, "__WNOTHREAD"),
    (0x4000_0000, "__WALL"),
    (0x8000_0000, "__WCLONE"),
];
// fs.h
const SYNC_RANGE: &[(u64, &str)] =
    &[(1, "SYNC_FILE_RANGE_WAIT_BEFORE"), (2, "SYNC_FILE_RANGE_WRITE"), (4, "SYNC_FILE_RANGE_WAIT_AFTER")];
// signal.h; x86 and arm64 agree
const SIGNAL: &[(u64, &str)] = &[
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (10, "SIGUSR1"),
    (11, "SIGSEGV"),
    (12, "SIGUSR2"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (16, "SIGSTKFLT"),
    (17, "SIGCHLD"),
    (18, "SIGCONT"),
    (19, "SIGSTOP"),
    (20, "SIGTSTP"),
    (21, "SIGTTIN"),
    (22, "SIGTTOU"),
    (23, "SIGURG"),
    (24, "SIGXCPU"),
    (25, "SIGXFSZ"),
    (26, "SIGVTALRM"),
    (27, "SIGPROF"),
    (28, "SIGWINCH"),
    (29, "SIGIO"),
    (30, "SIGPWR"),
    (31, "SIGSYS"),
];

#[cfg(test)]
mod tests {
    use super::{Names, text};

    fn check(names: Names, value: u64, expected: &str) {
        assert_eq!(text(names, value), expected, "{names:?} {value:#x}");
    }

    #[test]
    fn numbers_flags_and_what_has_no_name() {
        check(Names::Open, 0, "O_RDONLY");
        check(Names::Open, 0o2_002, "O_RDWR|O_APPEND");
        check(Names::Open, 0o4_010_001, "O_WRONLY|O_SYNC");
        check(Names::Access, 0, "F_OK");
        check(Names::Access, 6, "R_OK|W_OK");
        check(Names::Protection, 0, "PROT_NONE");
        check(Names::Protection, 5, "PROT_READ|PROT_EXEC");
        check(Names::Map, 0x20, "MAP_ANONYMOUS");
        check(Names::Message, 0x4040, "MSG_DONTWAIT|MSG_NOSIGNAL");
        check(Names::Message, 0, "0");
        check(Names::Socket, 0o2_004_001, "SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC");
        check(Names::Whence, 9, "0x9");
        check(Names::Clone, 0x11, "SIGCHLD");
        check(Names::Clone, 0x4111, "SIGCHLD|CLONE_VM|CLONE_VFORK");
        check(Names::At, 0xffff_ffff_8000_0100, "AT_SYMLINK_NOFOLLOW|0x80000000");
    }
}
