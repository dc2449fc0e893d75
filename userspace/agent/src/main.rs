//! descry.
#![forbid(unsafe_code)]
fn main() {}
