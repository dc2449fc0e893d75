//! Call frame information to unwind rows, and the userspace unwinder.
#![forbid(unsafe_code)]
