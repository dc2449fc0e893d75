//! What the arguments of system calls are, by the names that the manual pages (section 2) give them.

use std::fmt;

use super::flags::{self, Names};

/// What an argument is, and so how its register is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A descriptor.
    Fd,
    /// A descriptor of a directory, or `AT_FDCWD`.
    Dir,
    /// The address of a path.
    Path,
    /// Any other address.
    Ptr,
    /// A number without sign (`size_t`, `unsigned long`).
    Size,
    /// An `int`.
    Int,
    /// A `long` or `off_t`.
    Long,
    /// Permission bits.
    Mode,
    /// Flags, or a number that has a name.
    Named(Names),
}

use Kind::{Dir, Fd, Int, Long, Mode, Named, Path, Ptr, Size};

/// One argument of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name in the manual page; `argN` (from 0) where the call is not known.
    pub name: &'static str,
    /// What it was.
    pub value: Value,
}

/// The value of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A descriptor of the process.
    Descriptor(i32),
    /// The address of a path, whose text the kernel side may have sent.
    Path(u64),
    /// An address.
    Address(u64),
    /// A number without sign.
    Unsigned(u64),
    /// A number.
    Signed(i64),
    /// Permission bits.
    Mode(u32),
    /// Flags or a number by their names.
    Named(String),
}

/// As strace shows it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor(number) => write!(f, "{number}"),
            Self::Path(0) | Self::Address(0) => f.write_str("NULL"),
            Self::Path(address) | Self::Address(address) => write!(f, "{address:#x}"),
            Self::Unsigned(number) => write!(f, "{number}"),
            Self::Signed(number) => write!(f, "{number}"),
            Self::Mode(mode) => write!(f, "0{mode:o}"),
            Self::Named(text) => f.write_str(text),
        }
    }
}

/// `AT_FDCWD` (linux/fcntl.h).
const AT_FDCWD: i32 = -100;

/// The arguments of a call of the native interface by this name. Of a call that is not known here: all six registers.
pub fn arguments(name: &str, registers: &[u64; 6]) -> Vec<Argument> {
    let Some(signature) = signature(name) else {
        const NAMES: [&str; 6] = ["arg0", "arg1", "arg2", "arg3", "arg4", "arg5"];
        let raw =
            |(name, register): (&'static str, &u64)| Argument { name, value: Value::Address(*register) };
        return NAMES.into_iter().zip(registers).map(raw).collect();
    };
    let read = |((name, kind), register): (&(&'static str, Kind), &u64)| Argument {
        name,
        value: value(*kind, *register),
    };
    signature.iter().zip(registers).map(read).collect()
}

fn value(kind: Kind, register: u64) -> Value {
    match kind {
        Dir if register as i32 == AT_FDCWD => Value::Named("AT_FDCWD".to_owned()),
        Fd | Dir => Value::Descriptor(register as i32),
        Path => Value::Path(register),
        Ptr => Value::Address(register),
        Size => Value::Unsigned(register),
        Int => Value::Signed(i64::from(register as i32)),
        Long => Value::Signed(register as i64),
        Mode => Value::Mode(register as u32),
        Named(names) => Value::Named(flags::text(names, register)),
    }
}

/// Which argument of a call is a path, counted from 1; 0: none is.
pub(super) fn path_argument(name: &str) -> u8 {
    let path = signature(name).and_then(|signature| signature.iter().position(|(_, kind)| *kind == Path));
    path.map_or(0, |index| index as u8 + 1)
}

fn signature(name: &str) -> Option<&'static [(&'static str, Kind)]> {
    SIGNATURES.iter().find(|(known, _)| *known == name).map(|(_, signature)| *signature)
}

/// Arguments in order; those that a call does not have are left out.
type Signature = &'static [(&'static str, Kind)];

const OPEN: Kind = Named(Names::Open);
const OPEN_FLAGS: Kind = Named(Names::OpenFlags);
const PROTECTION: Kind = Named(Names::Protection);
const MAP: Kind = Named(Names::Map);
const MESSAGE: Kind = Named(Names::Message);
const FAMILY: Kind = Named(Names::Family);
const SOCKET: Kind = Named(Names::Socket);
const SOCKET_FLAGS: Kind = Named(Names::SocketFlags);
const AT: Kind = Named(Names::At);
const FUTEX: Kind = Named(Names::Futex);
const CLOCK: Kind = Named(Names::Clock);
const WHENCE: Kind = Named(Names::Whence);
const EPOLL: Kind = Named(Names::Epoll);
const ADVICE: Kind = Named(Names::Advice);
const WAIT: Kind = Named(Names::Wait);
const CLONE: Kind = Named(Names::Clone);
const FCNTL: Kind = Named(Names::Fcntl);
const SIGNAL: Kind = Named(Names::Signal);
const HOW: Kind = Named(Names::Shutdown);
const SYNC: Kind = Named(Names::SyncRange);
const ACCESS: Kind = Named(Names::Access);
const LOCK: Kind = Named(Names::Lock);
const MSYNC: Kind = Named(Names::Msync);
const RANDOM: Kind = Named(Names::Random);

/// Calls that take or keep time, and what is common in programs.
const SIGNATURES: &[(&str, Signature)] = &[
    ("accept", &[("sockfd", Fd), ("addr", Ptr), ("addrlen", Ptr)]),
    ("accept4", &[("sockfd", Fd), ("addr", Ptr), ("addrlen", Ptr), ("flags", SOCKET_FLAGS)]),
    ("access", &[("pathname", Path), ("mode", ACCESS)]),
    ("bind", &[("sockfd", Fd), ("addr", Ptr), ("addrlen", Size)]),
    ("brk", &[("addr", Ptr)]),
    ("chdir", &[("path", Path)]),
    ("chmod", &[("pathname", Path), ("mode", Mode)]),
    ("chown", &[("pathname", Path), ("owner", Int), ("group", Int)]),
    ("clock_nanosleep", &[("clockid", CLOCK), ("flags", Int), ("request", Ptr), ("remain", Ptr)]),
    ("clone", &[("flags", CLONE), ("stack", Ptr), ("parent_tid", Ptr), ("child_tid", Ptr), ("tls", Ptr)]),
    ("clone3", &[("cl_args", Ptr), ("size", Size)]),
    ("close", &[("fd", Fd)]),
    ("connect", &[("sockfd", Fd), ("addr", Ptr), ("addrlen", Size)]),
    (
        "copy_file_range",
        &[("fd_in", Fd), ("off_in", Ptr), ("fd_out", Fd), ("off_out", Ptr), ("size", Size), ("flags", Size)],
    ),
    ("creat", &[("pathname", Path), ("mode", Mode)]),
    ("dup", &[("oldfd", Fd)]),
    ("dup2", &[("oldfd", Fd), ("newfd", Int)]),
    ("dup3", &[("oldfd", Fd), ("newfd", Int), ("flags", OPEN_FLAGS)]),
    ("epoll_create1", &[("flags", OPEN_FLAGS)]),
    ("epoll_ctl", &[("epfd", Fd), ("op", EPOLL), ("fd", Fd), ("event", Ptr)]),
    (
        "epoll_pwait",
        &[
            ("epfd", Fd),
            ("events", Ptr),
            ("maxevents", Int),
            ("timeout", Int),
            ("sigmask", Ptr),
            ("sigsetsize", Size),
        ],
    ),
    (
        "epoll_pwait2",
        &[
            ("epfd", Fd),
            ("events", Ptr),
            ("maxevents", Int),
            ("timeout", Ptr),
            ("sigmask", Ptr),
            ("sigsetsize", Size),
        ],
    ),
    ("epoll_wait", &[("epfd", Fd), ("events", Ptr), ("maxevents", Int), ("timeout", Int)]),
    ("execve", &[("pathname", Path), ("argv", Ptr), ("envp", Ptr)]),
    ("execveat", &[("dirfd", Dir), ("pathname", Path), ("argv", Ptr), ("envp", Ptr), ("flags", AT)]),
    ("exit", &[("status", Int)]),
    ("exit_group", &[("status", Int)]),
    ("faccessat", &[("dirfd", Dir), ("pathname", Path), ("mode", ACCESS)]),
    ("faccessat2", &[("dirfd", Dir), ("pathname", Path), ("mode", ACCESS), ("flags", AT)]),
    ("fadvise64", &[("fd", Fd), ("offset", Long), ("size", Long), ("advice", Int)]),
    ("fallocate", &[("fd", Fd), ("mode", Int), ("offset", Long), ("size", Long)]),
    ("fchmod", &[("fd", Fd), ("mode", Mode)]),
    ("fchmodat", &[("dirfd", Dir), ("pathname", Path), ("mode", Mode)]),
    ("fchownat", &[("dirfd", Dir), ("pathname", Path), ("owner", Int), ("group", Int), ("flags", AT)]),
    ("fcntl", &[("fd", Fd), ("op", FCNTL), ("arg", Size)]),
    ("fdatasync", &[("fd", Fd)]),
    ("flock", &[("fd", Fd), ("op", LOCK)]),
    ("fstat", &[("fd", Fd), ("statbuf", Ptr)]),
    ("fsync", &[("fd", Fd)]),
    ("ftruncate", &[("fd", Fd), ("length", Long)]),
    (
        "futex",
        &[("uaddr", Ptr), ("op", FUTEX), ("val", Int), ("timeout", Ptr), ("uaddr2", Ptr), ("val3", Int)],
    ),
    ("getdents64", &[("fd", Fd), ("dirp", Ptr), ("count", Size)]),
    ("getrandom", &[("buf", Ptr), ("buflen", Size), ("flags", RANDOM)]),
    ("io_getevents", &[("ctx_id", Ptr), ("min_nr", Long), ("nr", Long), ("events", Ptr), ("timeout", Ptr)]),
    (
        "io_uring_enter",
        &[
            ("fd", Fd),
            ("to_submit", Int),
            ("min_complete", Int),
            ("flags", Size),
            ("sig", Ptr),
            ("sigsz", Size),
        ],
    ),
    ("ioctl", &[("fd", Fd), ("op", Ptr), ("arg", Ptr)]),
    ("kill", &[("pid", Int), ("sig", SIGNAL)]),
    ("link", &[("oldpath", Path), ("newpath", Ptr)]),
    ("listen", &[("sockfd", Fd), ("backlog", Int)]),
    ("lseek", &[("fd", Fd), ("offset", Long), ("whence", WHENCE)]),
    ("lstat", &[("pathname", Path), ("statbuf", Ptr)]),
    ("madvise", &[("addr", Ptr), ("size", Size), ("advice", ADVICE)]),
    ("mkdir", &[("pathname", Path), ("mode", Mode)]),
    ("mkdirat", &[("dirfd", Dir), ("pathname", Path), ("mode", Mode)]),
    (
        "mmap",
        &[
            ("addr", Ptr),
            ("length", Size),
            ("prot", PROTECTION),
            ("flags", MAP),
            ("fd", Fd),
            ("offset", Long),
        ],
    ),
    ("mprotect", &[("addr", Ptr), ("size", Size), ("prot", PROTECTION)]),
    (
        "mremap",
        &[("old_address", Ptr), ("old_size", Size), ("new_size", Size), ("flags", Int), ("new_address", Ptr)],
    ),
    ("msync", &[("addr", Ptr), ("length", Size), ("flags", MSYNC)]),
    ("munmap", &[("addr", Ptr), ("length", Size)]),
    ("nanosleep", &[("duration", Ptr), ("rem", Ptr)]),
    ("newfstatat", &[("dirfd", Dir), ("pathname", Path), ("statbuf", Ptr), ("flags", AT)]),
    ("open", &[("pathname", Path), ("flags", OPEN), ("mode", Mode)]),
    ("openat", &[("dirfd", Dir), ("pathname", Path), ("flags", OPEN), ("mode", Mode)]),
    ("openat2", &[("dirfd", Dir), ("pathname", Path), ("how", Ptr), ("size", Size)]),
    ("pause", &[]),
    ("pipe", &[("pipefd", Ptr)]),
    ("pipe2", &[("pipefd", Ptr), ("flags", OPEN_FLAGS)]),
    ("poll", &[("fds", Ptr), ("nfds", Size), ("timeout", Int)]),
    ("ppoll", &[("fds", Ptr), ("nfds", Size), ("tmo_p", Ptr), ("sigmask", Ptr), ("sigsetsize", Size)]),
    ("pread64", &[("fd", Fd), ("buf", Ptr), ("count", Size), ("offset", Long)]),
    ("preadv", &[("fd", Fd), ("iov", Ptr), ("iovcnt", Int), ("offset", Long)]),
    (
        "pselect6",
        &[
            ("nfds", Int),
            ("readfds", Ptr),
            ("writefds", Ptr),
            ("exceptfds", Ptr),
            ("timeout", Ptr),
            ("sigmask", Ptr),
        ],
    ),
    ("pwrite64", &[("fd", Fd), ("buf", Ptr), ("count", Size), ("offset", Long)]),
    ("pwritev", &[("fd", Fd), ("iov", Ptr), ("iovcnt", Int), ("offset", Long)]),
    ("read", &[("fd", Fd), ("buf", Ptr), ("count", Size)]),
    ("readahead", &[("fd", Fd), ("offset", Long), ("count", Size)]),
    ("readlink", &[("pathname", Path), ("buf", Ptr), ("bufsiz", Size)]),
    ("readlinkat", &[("dirfd", Dir), ("pathname", Path), ("buf", Ptr), ("bufsiz", Size)]),
    ("readv", &[("fd", Fd), ("iov", Ptr), ("iovcnt", Int)]),
    (
        "recvfrom",
        &[
            ("sockfd", Fd),
            ("buf", Ptr),
            ("size", Size),
            ("flags", MESSAGE),
            ("src_addr", Ptr),
            ("addrlen", Ptr),
        ],
    ),
    ("recvmmsg", &[("sockfd", Fd), ("msgvec", Ptr), ("vlen", Int), ("flags", MESSAGE), ("timeout", Ptr)]),
    ("recvmsg", &[("sockfd", Fd), ("msg", Ptr), ("flags", MESSAGE)]),
    ("rename", &[("oldpath", Path), ("newpath", Ptr)]),
    ("renameat", &[("olddirfd", Dir), ("oldpath", Path), ("newdirfd", Dir), ("newpath", Ptr)]),
    (
        "renameat2",
        &[("olddirfd", Dir), ("oldpath", Path), ("newdirfd", Dir), ("newpath", Ptr), ("flags", Size)],
    ),
    ("rmdir", &[("pathname", Path)]),
    ("rt_sigreturn", &[]),
    ("sched_yield", &[]),
    ("select", &[("nfds", Int), ("readfds", Ptr), ("writefds", Ptr), ("exceptfds", Ptr), ("timeout", Ptr)]),
    ("sendfile", &[("out_fd", Fd), ("in_fd", Fd), ("offset", Ptr), ("count", Size)]),
    ("sendmmsg", &[("sockfd", Fd), ("msgvec", Ptr), ("vlen", Int), ("flags", MESSAGE)]),
    ("sendmsg", &[("sockfd", Fd), ("msg", Ptr), ("flags", MESSAGE)]),
    (
        "sendto",
        &[
            ("sockfd", Fd),
            ("buf", Ptr),
            ("size", Size),
            ("flags", MESSAGE),
            ("dest_addr", Ptr),
            ("addrlen", Size),
        ],
    ),
    ("setsockopt", &[("sockfd", Fd), ("level", Int), ("optname", Int), ("optval", Ptr), ("optlen", Size)]),
    ("shutdown", &[("sockfd", Fd), ("how", HOW)]),
    ("socket", &[("domain", FAMILY), ("type", SOCKET), ("protocol", Int)]),
    ("socketpair", &[("domain", FAMILY), ("type", SOCKET), ("protocol", Int), ("sv", Ptr)]),
    (
        "splice",
        &[("fd_in", Fd), ("off_in", Ptr), ("fd_out", Fd), ("off_out", Ptr), ("size", Size), ("flags", Size)],
    ),
    ("stat", &[("pathname", Path), ("statbuf", Ptr)]),
    ("statfs", &[("path", Path), ("buf", Ptr)]),
    ("statx", &[("dirfd", Dir), ("pathname", Path), ("flags", AT), ("mask", Size), ("statxbuf", Ptr)]),
    ("symlink", &[("target", Path), ("linkpath", Ptr)]),
    ("symlinkat", &[("target", Path), ("newdirfd", Dir), ("linkpath", Ptr)]),
    ("sync", &[]),
    ("sync_file_range", &[("fd", Fd), ("offset", Long), ("nbytes", Long), ("flags", SYNC)]),
    ("syncfs", &[("fd", Fd)]),
    ("tgkill", &[("tgid", Int), ("tid", Int), ("sig", SIGNAL)]),
    ("truncate", &[("path", Path), ("length", Long)]),
    ("unlink", &[("pathname", Path)]),
    ("unlinkat", &[("dirfd", Dir), ("pathname", Path), ("flags", AT)]),
    ("utimensat", &[("dirfd", Dir), ("pathname", Path), ("times", Ptr), ("flags", AT)]),
    ("vfork", &[]),
    ("wait4", &[("pid", Int), ("wstatus", Ptr), ("options", WAIT), ("rusage", Ptr)]),
    ("waitid", &[("idtype", Int), ("id", Int), ("infop", Ptr), ("options", WAIT)]),
    ("write", &[("fd", Fd), ("buf", Ptr), ("count", Size)]),
    ("writev", &[("fd", Fd), ("iov", Ptr), ("iovcnt", Int)]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, registers: [u64; 6], expected: &str) {
        let arguments = arguments(name, &registers);
        let shown: Vec<String> =
            arguments.iter().map(|argument| format!("{}={}", argument.name, argument.value)).collect();
        assert_eq!(shown.join(" "), expected);
    }

    #[test]
    fn as_strace_shows_them() {
        check("read", [3, 0x7f00, 4096, 9, 9, 9], "fd=3 buf=0x7f00 count=4096");
        check(
            "openat",
            [0xffff_ff9c, 0x7f00, 0o2_000_101, 0o644, 0, 0],
            "dirfd=AT_FDCWD pathname=0x7f00 flags=O_WRONLY|O_CREAT|O_CLOEXEC mode=0644",
        );
        check(
            "mmap",
            [0, 8192, 3, 0x22, u64::MAX, 0],
            "addr=NULL length=8192 prot=PROT_READ|PROT_WRITE flags=MAP_PRIVATE|MAP_ANONYMOUS fd=-1 offset=0",
        );
        check(
            "futex",
            [0x10, 128, 2, 0, 0, 0],
            "uaddr=0x10 op=FUTEX_WAIT|FUTEX_PRIVATE_FLAG val=2 timeout=NULL uaddr2=NULL val3=0",
        );
        check("lseek", [3, u64::MAX, 2, 0, 0, 0], "fd=3 offset=-1 whence=SEEK_END");
        check("pause", [1, 2, 3, 4, 5, 6], "");
        check("bpf", [1, 2, 0, 0, 0, 0], "arg0=0x1 arg1=0x2 arg2=NULL arg3=NULL arg4=NULL arg5=NULL");
    }

    #[test]
    fn signatures_are_of_calls_that_exist() {
        use syscalls::x86_64::Sysno;
        for (name, signature) in SIGNATURES {
            assert!(Sysno::iter().any(|call| call.name() == *name), "no such call: {name}");
            assert!(signature.len() <= 6, "{name} has too many arguments");
        }
    }
}
