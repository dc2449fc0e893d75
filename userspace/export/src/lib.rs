//! Profiles to files and to OTLP endpoints.
#![forbid(unsafe_code)]
pub mod send;
