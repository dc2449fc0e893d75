//! The system call behind it all.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// `bpf(2)` for commands that return a new descriptor.
///
/// # Safety
/// Every address in `attr` must be valid for what the command does with it.
pub(crate) unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: as the caller says.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<bpf_attr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attributes of zeros.
pub(crate) fn attributes() -> bpf_attr {
    // SAFETY: every variant of the union is plain data, for which zeros are valid.
    unsafe { std::mem::zeroed() }
}
