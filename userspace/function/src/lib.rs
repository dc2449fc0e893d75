//! Functions of a binary by pattern, and the places in their code that are probed.
//!
//! You give the bytes of an ELF file and patterns; you get the functions that fit, and for each the instructions to put
//! probes at, with what a call will cost. Everything here is pure. Files belong to whoever built them and are taken for
//! hostile: lengths are bounded, and code is decoded within its function only. Where the running task of a Tokio program is
//! found is read from its code too.
#![forbid(unsafe_code)]

pub mod arguments;
mod binary;
mod code;
mod cost;
mod nearest;
mod pattern;
mod site;
mod tls;
mod tokio_unit;
mod usdt;

pub use binary::{Binary, BinaryError, Function};
pub use cost::Cost;
pub use nearest::nearest;
pub use pattern::{Pattern, PatternError, What};
pub use site::{Exits, Place, Plan, Unprobeable, Wishes, plan};
pub use tls::{Condition, TlsPlace, TlsPlaces, mentions_tls, tls_places};
pub use tokio_unit::TokioSymbols;
pub use usdt::{UsdtPattern, UsdtProbe, probes as usdt_probes};
