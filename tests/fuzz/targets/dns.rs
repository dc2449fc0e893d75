//! Any bytes of DNS, as datagrams and as a stream: see `connection.rs`.
#![no_main]

use descry_assemble::protocol::dns::PROTOCOL;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    descry_fuzz::connection::datagrams(&PROTOCOL, input);
    descry_fuzz::connection::stream(&PROTOCOL, input);
});
