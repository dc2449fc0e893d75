//! Any bytes of a connection that speaks HTTP/1, in any portions and with gaps: see `connection.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    descry_fuzz::connection::stream(&descry_assemble::protocol::http1::PROTOCOL, input);
});
