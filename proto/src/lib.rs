//! Generated protobuf messages that the project pins.
//!
//! `cargo xtask codegen` makes `generated/` from the `.proto` files beside this crate's manifest; it needs no
//! `protoc`. OTLP's messages are not here: they come from the crate `opentelemetry-proto`.
#![forbid(unsafe_code)]

/// pprof's `profile.proto`: the package `perftools.profiles`.
pub mod pprof {
    include!("generated/perftools.profiles.rs");
}
