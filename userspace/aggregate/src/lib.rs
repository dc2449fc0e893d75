//! Samples to a profile.
#![forbid(unsafe_code)]

pub mod profile;
