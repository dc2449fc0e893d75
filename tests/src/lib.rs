//! Helpers of the tests from the outside: they build the programs with known truth, start and stop them, run the `descry`
//! command on them, and read what it wrote.
//!
//! You give names of workloads and options of the command; you get parsed stacks and figures. Nothing here looks into
//! descry: what a test asserts is what a user would see. Programs that were started end with their guards.
#![forbid(unsafe_code)]

pub mod certificate;
pub mod collector;
pub mod compile;
pub mod customer;
pub mod debugger;
pub mod descry;
pub mod folded;
pub mod garbage;
pub mod machine;
pub mod pcap;
pub mod server;
pub mod workload;
