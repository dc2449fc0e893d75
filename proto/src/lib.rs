//! Generated protobuf messages that the project pins.
#![forbid(unsafe_code)]
