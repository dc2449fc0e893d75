//! What crosses the border between the kernel side and userspace, and nothing else.
//!
//! Every type is `repr(C)`, has no padding that is not named, and has its size asserted below it. Numbers are in the
//! byte order of the machine. Times are nanoseconds of `CLOCK_BOOTTIME`; process and thread ids are those of the pid
//! namespace that descry runs in.
#![no_std]
#![forbid(unsafe_code)]

pub mod counter;
pub mod event;
pub mod exclusion;
pub mod function;
pub mod histogram;
pub mod limits;
pub mod net;
pub mod offcpu;
pub mod scope;
pub mod share;
pub mod syscall;
pub mod tcp;
pub mod template;
pub mod tls;
pub mod unit;
pub mod unwind;
