//! System calls by name: what a number, an error and the arguments mean.
//!
//! Numbers and error names come from the crate `syscalls`, which takes them from the kernel's tables; what arguments are
//! is in `signatures`, the names of their flags in `flags`. Nothing here reads memory or asks a process.

mod flags;
mod signatures;

use std::borrow::Cow;

use descry_abi::syscall::{COMPAT, MAX_ERRNO, Replaces, SyscallTraits, TRAIT_SLOTS};
use syscalls::{Errno, aarch64, arm, x86, x86_64};

use crate::ids::SyscallNumber;
pub use signatures::{Argument, Value, arguments};

/// A table of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interface {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86, also `int 0x80` in a 64-bit program.
    I386,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM (EABI).
    Arm,
    /// x86's 64-bit table with 32-bit pointers.
    X32,
}

/// `__X32_SYSCALL_BIT` (arch/x86/include/uapi/asm/unistd.h).
const X32: u32 = 1 << 30;

#[cfg(target_arch = "x86_64")]
const NATIVE: (Interface, Interface) = (Interface::X86_64, Interface::I386);
#[cfg(target_arch = "aarch64")]
const NATIVE: (Interface, Interface) = (Interface::Aarch64, Interface::Arm);

impl Interface {
    /// That of 64-bit programs on this machine.
    pub const NATIVE: Self = NATIVE.0;

    /// As users know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::I386 => "i386",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
            Self::X32 => "x32",
        }
    }
}

/// What the kernel side wrote of a call, on the machine that it runs on.
pub fn interface(number: SyscallNumber) -> Interface {
    match number.0 {
        number if number & COMPAT != 0 => NATIVE.1,
        number if number & X32 != 0 && NATIVE.0 == Interface::X86_64 => Interface::X32,
        _ => NATIVE.0,
    }
}

/// The name of a call; `syscall_N` where the table has none.
pub fn name(number: SyscallNumber) -> Cow<'static, str> {
    name_in(interface(number), number.0 & !COMPAT & !X32)
}

/// The name that a number has in an interface.
pub fn name_in(interface: Interface, number: u32) -> Cow<'static, str> {
    let id = number as usize;
    let known = match interface {
        Interface::X86_64 | Interface::X32 => x86_64::Sysno::new(id).map(|call| call.name()),
        Interface::I386 => x86::Sysno::new(id).map(|call| call.name()),
        Interface::Aarch64 => aarch64::Sysno::new(id).map(|call| call.name()),
        Interface::Arm => arm::Sysno::new(id).map(|call| call.name()),
    };
    known.map_or_else(|| Cow::Owned(format!("syscall_{number}")), Cow::Borrowed)
}

/// The name of an error number, as strace shows it; `E_N` for one without a name.
pub fn error_name(errno: u32) -> Cow<'static, str> {
    // Results by which a call asks the kernel to be restarted (include/linux/errno.h). A program never sees them.
    let restart = match errno {
        512 => Some("ERESTARTSYS"),
        513 => Some("ERESTARTNOINTR"),
        514 => Some("ERESTARTNOHAND"),
        515 => Some("ENOIOCTLCMD"),
        516 => Some("ERESTART_RESTARTBLOCK"),
        _ => None,
    };
    let name = restart.or_else(|| Errno::new(errno as i32).name());
    name.map_or_else(|| Cow::Owned(format!("E_{errno}")), Cow::Borrowed)
}

/// The error number in a result, if it is one.
pub fn error_of(result: i64) -> Option<u32> {
    (-MAX_ERRNO..0).contains(&result).then(|| result.unsigned_abs() as u32)
}

/// Whether a call of this name waits for others: for an event, for time to pass, for another thread or process. Time in it is
/// no work, and says nothing of how fast the kernel is. Reads and writes are not among them: they may wait, or work.
pub fn is_blocking(name: &str) -> bool {
    const BLOCKING: &[&str] = &[
        "accept",
        "accept4",
        "clock_nanosleep",
        "clock_nanosleep_time64",
        "epoll_pwait",
        "epoll_pwait2",
        "epoll_wait",
        "flock",
        "futex",
        "futex_time64",
        "futex_wait",
        "futex_waitv",
        "io_getevents",
        "io_pgetevents",
        "io_pgetevents_time64",
        "mq_timedreceive",
        "mq_timedreceive_time64",
        "mq_timedsend",
        "mq_timedsend_time64",
        "msgrcv",
        "nanosleep",
        "_newselect",
        "pause",
        "poll",
        "ppoll",
        "ppoll_time64",
        "pselect6",
        "pselect6_time64",
        "restart_syscall",
        "rt_sigsuspend",
        "rt_sigtimedwait",
        "rt_sigtimedwait_time64",
        "select",
        "semop",
        "semtimedop",
        "semtimedop_time64",
        "sigsuspend",
        "wait4",
        "waitid",
        "waitpid",
    ];
    BLOCKING.contains(&name)
}

/// What the kernel side has to know of the native interface's calls, by number.
pub fn traits() -> Vec<(u32, SyscallTraits)> {
    (0..TRAIT_SLOTS as u32)
        .filter_map(|number| {
            let name = name_in(Interface::NATIVE, number);
            let traits = SyscallTraits {
                path: signatures::path_argument(&name),
                blocking: is_blocking(&name).into(),
                replaces: replaces(&name) as u8,
                forks: matches!(&*name, "clone" | "clone3" | "fork" | "vfork").into(),
            };
            (traits != SyscallTraits::default()).then_some((number, traits))
        })
        .collect()
}

fn replaces(name: &str) -> Replaces {
    match name {
        "execve" | "execveat" => Replaces::OnSuccess,
        "rt_sigreturn" => Replaces::Always,
        _ => Replaces::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_name(interface: Interface, number: u32, expected: &str) {
        assert_eq!(name_in(interface, number), expected, "{interface:?} {number}");
    }

    /// Numbers from the kernel's own tables (unistd_64.h, unistd_32.h, asm-generic/unistd.h, arm's syscall.tbl).
    #[test]
    fn names_of_numbers() {
        check_name(Interface::X86_64, 0, "read");
        check_name(Interface::X86_64, 257, "openat");
        check_name(Interface::X86_64, 435, "clone3");
        check_name(Interface::I386, 3, "read");
        check_name(Interface::I386, 240, "futex");
        check_name(Interface::Aarch64, 63, "read");
        check_name(Interface::Aarch64, 56, "openat");
        check_name(Interface::Arm, 3, "read");
        check_name(Interface::X86_64, 400_000, "syscall_400000");
    }

    #[test]
    fn interfaces_are_told_apart() {
        assert_eq!(interface(SyscallNumber(1)), Interface::NATIVE);
        assert_ne!(interface(SyscallNumber(1 | COMPAT)), Interface::NATIVE);
        assert_eq!(name(SyscallNumber(1 | COMPAT)), "exit");
    }

    #[test]
    fn names_of_errors() {
        for (errno, expected) in
            [(2, "ENOENT"), (11, "EAGAIN"), (110, "ETIMEDOUT"), (512, "ERESTARTSYS"), (4000, "E_4000")]
        {
            assert_eq!(error_name(errno), expected);
        }
        assert_eq!(
            [error_of(-2), error_of(0), error_of(-4095), error_of(-4096), error_of(i64::MIN)],
            [Some(2), None, Some(4095), None, None]
        );
    }

    #[test]
    fn what_the_kernel_side_is_told() {
        let traits = traits();
        let of = |wanted: &str| {
            let is_it = |number: u32| name_in(Interface::NATIVE, number) == wanted;
            traits.iter().find(|(number, _)| is_it(*number)).map(|(_, traits)| *traits)
        };
        assert_eq!(of("openat"), Some(SyscallTraits { path: 2, ..SyscallTraits::default() }));
        assert_eq!(
            of("execve"),
            Some(SyscallTraits { path: 1, replaces: Replaces::OnSuccess as u8, ..SyscallTraits::default() })
        );
        assert_eq!(of("futex"), Some(SyscallTraits { blocking: 1, ..SyscallTraits::default() }));
        assert_eq!(of("clone"), Some(SyscallTraits { forks: 1, ..SyscallTraits::default() }));
        assert_eq!(
            of("rt_sigreturn"),
            Some(SyscallTraits { replaces: Replaces::Always as u8, ..SyscallTraits::default() })
        );
        assert_eq!(of("read"), None);
    }
}
