//! What a user of the crate sees; one program, because building the small programs is what takes time.

mod crafted;
mod hostile;
mod kernel;
mod object;
mod oracle;
mod perf_map;
mod support;
