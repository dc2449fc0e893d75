//! Why a thread waited.
//!
//! Give it what the kernel side told of a wait and the names of the kernel's frames; get the reason. Where the names say
//! nothing, or the kernel hides them, the number of the system call has to do; of those that read and write any kind of
//! file, the kind of file tells.

use descry_decode::{FileKind, WaitKind, WaitState};

use crate::profile::Reason;

/// What the kernel side told of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Circumstances {
    /// What part of a wait.
    pub kind: WaitKind,
    /// In which state the thread left its CPU.
    pub state: WaitState,
    /// Number of the system call in flight.
    pub syscall: Option<u32>,
    /// What that reads or writes; noted only where the kernel hides the names of its functions.
    pub file: FileKind,
    /// Whether it is a kernel thread.
    pub kernel_thread: bool,
}

/// Reasons with the beginnings of kernel functions that tell them, those that tell most first: a lock that is taken
/// inside of a page fault is part of the fault, a wait for the disk inside of a `read` of a file is not part of a pipe.
const FUNCTIONS: &[(Reason, &[&str])] = &[
    (
        Reason::PageFault,
        &["asm_exc_page_fault", "exc_page_fault", "handle_mm_fault", "do_page_fault", "do_mem_abort"],
    ),
    (Reason::Child, &["do_wait", "kernel_wait4", "kernel_waitid", "wait_for_vfork_done"]),
    (Reason::NetworkAccept, &["inet_csk_accept", "unix_accept", "do_accept", "__sys_accept4"]),
    (
        Reason::NetworkConnect,
        &["inet_stream_connect", "__inet_stream_connect", "unix_stream_connect", "__sys_connect"],
    ),
    (
        Reason::NetworkPoll,
        &["do_epoll_wait", "ep_poll", "do_sys_poll", "do_poll", "do_select", "core_sys_select"],
    ),
    (Reason::Sleep, &["hrtimer_nanosleep", "do_nanosleep", "timerfd_read", "do_sigtimedwait", "sigsuspend"]),
    (
        Reason::Lock,
        &["futex_", "__futex_", "do_futex", "flock_lock_inode_wait", "locks_lock_inode_wait", "fcntl_setlk"],
    ),
    (
        Reason::NetworkWrite,
        &[
            "sk_stream_wait_",
            "sock_alloc_send_",
            "sock_sendmsg",
            "__sock_sendmsg",
            "sock_write_iter",
            "__sys_sendto",
            "__sys_sendmsg",
            "___sys_sendmsg",
            "____sys_sendmsg",
            "tcp_sendmsg",
            "udp_sendmsg",
            "unix_stream_sendmsg",
            "unix_dgram_sendmsg",
        ],
    ),
    (
        Reason::NetworkRead,
        &[
            "sk_wait_data",
            "__skb_wait_for_more_packets",
            "sock_recvmsg",
            "sock_read_iter",
            "__sys_recvfrom",
            "__sys_recvmsg",
            "___sys_recvmsg",
            "____sys_recvmsg",
            "do_recvmmsg",
            "tcp_recvmsg",
            "tcp_splice_read",
            "unix_stream_read_generic",
        ],
    ),
    (
        Reason::Pipe,
        &[
            "pipe_",
            "anon_pipe_",
            "fifo_",
            "fifo_open",
            "wait_for_partner",
            "eventfd_",
            "do_msgrcv",
            "do_msgsnd",
            "do_semtimedop",
            "__do_semtimedop",
            "do_mq_",
            "signalfd_",
        ],
    ),
    (
        Reason::Disk,
        &[
            "io_schedule",
            "folio_wait_",
            "wait_on_page_",
            "wait_on_buffer",
            "__wait_on_buffer",
            "wait_for_completion_io",
            "blk_",
            "bio_",
            "submit_bio",
            "balance_dirty_pages",
            "filemap_",
            "__filemap_",
            "file_write_and_wait",
            "vfs_fsync",
            "do_fsync",
            "sync_",
            "iomap_",
            "jbd2_",
            "ext4_",
            "xfs_",
            "btrfs_",
            "f2fs_",
            "nfs_",
            "nfs4_",
            "rpc_wait_",
            "fuse_",
            "p9_",
            "v9fs_",
            "dm_",
        ],
    ),
];

/// The reason of a wait. `kernel` are the names of its kernel frames, leaf first; none: not known.
pub fn reason<'a>(
    circumstances: &Circumstances,
    kernel: impl Iterator<Item = Option<&'a str>> + Clone,
) -> Reason {
    if circumstances.kind == WaitKind::RunQueue {
        return Reason::RunQueue;
    }
    if circumstances.state == WaitState::Stopped {
        return Reason::Stopped;
    }
    let named = || kernel.clone().flatten();
    let has = |beginnings: &[&str]| {
        named().any(|name| beginnings.iter().any(|beginning| name.starts_with(beginning)))
    };
    if let Some((reason, _)) = FUNCTIONS.iter().find(|(_, beginnings)| has(beginnings)) {
        return *reason;
    }
    let of_syscall = circumstances.syscall.and_then(of_syscall);
    let of_file = || circumstances.syscall.and_then(|number| of_file(circumstances.file, number));
    match (of_syscall.or_else(of_file), circumstances.syscall) {
        (Some(reason), _) => reason,
        _ if named().next().is_some() => Reason::Other,
        // Signals do not wake who waits for a disk.
        (None, Some(_)) if circumstances.state == WaitState::Uninterruptible => Reason::Disk,
        // A program that is in the kernel and waits, but called nothing, was interrupted by a fault.
        (None, None) if !circumstances.kernel_thread => Reason::PageFault,
        (None, _) => Reason::Other,
    }
}

/// System calls that wait for one reason only.
const SYSCALLS: &[(Reason, &[libc::c_long])] = &[
    (Reason::Lock, &[libc::SYS_futex, libc::SYS_futex_waitv, libc::SYS_flock]),
    (
        Reason::Sleep,
        &[libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigsuspend],
    ),
    (
        Reason::NetworkPoll,
        &[libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_ppoll, libc::SYS_pselect6],
    ),
    (Reason::NetworkAccept, &[libc::SYS_accept, libc::SYS_accept4]),
    (Reason::NetworkConnect, &[libc::SYS_connect]),
    (Reason::NetworkRead, &[libc::SYS_recvfrom, libc::SYS_recvmsg, libc::SYS_recvmmsg]),
    (Reason::NetworkWrite, &[libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_sendmmsg]),
    (Reason::Child, &[libc::SYS_wait4, libc::SYS_waitid]),
    (
        Reason::Disk,
        &[libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync, libc::SYS_sync_file_range, libc::SYS_msync],
    ),
    (Reason::Pipe, &[libc::SYS_msgrcv, libc::SYS_msgsnd, libc::SYS_semtimedop]),
];

/// The same for those that newer architectures have not.
#[cfg(target_arch = "x86_64")]
const OLD_SYSCALLS: &[(Reason, &[libc::c_long])] = &[
    (Reason::NetworkPoll, &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_select]),
    (Reason::Sleep, &[libc::SYS_pause]),
    (Reason::Child, &[libc::SYS_vfork]),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_SYSCALLS: &[(Reason, &[libc::c_long])] = &[];

fn of_syscall(number: u32) -> Option<Reason> {
    let all = SYSCALLS.iter().chain(OLD_SYSCALLS);
    let number = libc::c_long::from(number);
    all.into_iter().find(|(_, numbers)| numbers.contains(&number)).map(|(reason, _)| *reason)
}

/// System calls that write to a descriptor; all others that have one read from it.
const WRITES: &[libc::c_long] =
    &[libc::SYS_write, libc::SYS_writev, libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2];

/// What a call waits for that reads or writes this kind of file.
fn of_file(file: FileKind, number: u32) -> Option<Reason> {
    match file {
        FileKind::Socket if WRITES.contains(&number.into()) => Some(Reason::NetworkWrite),
        FileKind::Socket => Some(Reason::NetworkRead),
        FileKind::Pipe => Some(Reason::Pipe),
        FileKind::Regular | FileKind::Directory | FileKind::Link | FileKind::Block => Some(Reason::Disk),
        FileKind::Character | FileKind::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(circumstances: Circumstances, kernel: &[&str], expected: Reason) {
        assert_eq!(reason(&circumstances, kernel.iter().map(|name| Some(*name))), expected, "{kernel:?}");
    }

    const BLOCKED: Circumstances = Circumstances {
        kind: WaitKind::Blocked,
        state: WaitState::Interruptible,
        syscall: Some(0),
        file: FileKind::Unknown,
        kernel_thread: false,
    };

    #[test]
    fn kernel_functions_tell_the_reason() {
        let with_name = |kernel: &[&str], expected| check(BLOCKED, kernel, expected);
        with_name(&["__schedule", "schedule", "futex_wait_queue", "futex_wait", "do_futex"], Reason::Lock);
        with_name(&["__schedule", "do_nanosleep", "hrtimer_nanosleep"], Reason::Sleep);
        with_name(&["__schedule", "anon_pipe_read", "vfs_read", "ksys_read"], Reason::Pipe);
        with_name(&["__schedule", "sk_wait_data", "tcp_recvmsg", "sock_read_iter"], Reason::NetworkRead);
        with_name(&["__schedule", "sk_stream_wait_memory", "tcp_sendmsg_locked"], Reason::NetworkWrite);
        with_name(&["__schedule", "__skb_wait_for_more_packets", "unix_accept"], Reason::NetworkAccept);
        with_name(&["__schedule", "inet_csk_accept", "__sys_accept4"], Reason::NetworkAccept);
        with_name(&["__schedule", "schedule_timeout", "inet_stream_connect"], Reason::NetworkConnect);
        with_name(&["__schedule", "ep_poll", "do_epoll_wait"], Reason::NetworkPoll);
        with_name(&["__schedule", "do_wait", "kernel_wait4"], Reason::Child);
        with_name(&["io_schedule", "folio_wait_bit_common", "ext4_sync_file"], Reason::Disk);
        with_name(
            &[
                "io_schedule",
                "folio_wait_bit_common",
                "filemap_fault",
                "handle_mm_fault",
                "asm_exc_page_fault",
            ],
            Reason::PageFault,
        );
        with_name(&["__schedule", "n_tty_read"], Reason::Other);
    }

    #[test]
    fn the_state_comes_first() {
        let queued = Circumstances { kind: WaitKind::RunQueue, ..BLOCKED };
        check(queued, &["futex_wait"], Reason::RunQueue);
        check(Circumstances { state: WaitState::Stopped, ..BLOCKED }, &["futex_wait"], Reason::Stopped);
    }

    #[test]
    fn without_names_the_system_call_has_to_do() {
        let without = |syscall: Option<libc::c_long>, state, expected| {
            let syscall = syscall.map(|number| number as u32);
            let circumstances = Circumstances { syscall, state, ..BLOCKED };
            assert_eq!(reason(&circumstances, [None, None].into_iter()), expected, "{syscall:?}");
        };
        without(Some(libc::SYS_futex), WaitState::Interruptible, Reason::Lock);
        without(Some(libc::SYS_read), WaitState::Interruptible, Reason::Other);
        without(Some(libc::SYS_read), WaitState::Uninterruptible, Reason::Disk);
        without(Some(libc::SYS_accept4), WaitState::Interruptible, Reason::NetworkAccept);
        without(None, WaitState::Uninterruptible, Reason::PageFault);
        let of_file = |syscall: libc::c_long, file, expected| {
            let circumstances = Circumstances { syscall: Some(syscall as u32), file, ..BLOCKED };
            assert_eq!(reason(&circumstances, std::iter::empty()), expected, "{syscall} {file:?}");
        };
        of_file(libc::SYS_read, FileKind::Socket, Reason::NetworkRead);
        of_file(libc::SYS_writev, FileKind::Socket, Reason::NetworkWrite);
        of_file(libc::SYS_read, FileKind::Pipe, Reason::Pipe);
        of_file(libc::SYS_pread64, FileKind::Regular, Reason::Disk);
        of_file(libc::SYS_read, FileKind::Character, Reason::Other);
        let thread = Circumstances { syscall: None, kernel_thread: true, ..BLOCKED };
        assert_eq!(reason(&thread, std::iter::empty()), Reason::Other);
    }
}
