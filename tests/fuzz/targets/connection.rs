//! Any bytes of a connection of which no protocol is known: see `connection.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    descry_fuzz::connection::any(input);
});
