//! Whatever may differ in messages that equal a template makes no difference: see `template.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    descry_fuzz::template::stream(&descry_assemble::protocol::redis::PROTOCOL, input, |byte| byte);
    descry_fuzz::template::stream(&descry_assemble::protocol::postgres::PROTOCOL, input, |byte| byte);
    // A date has no line's end in it.
    let printable = |byte: u8| b' ' + byte % 95;
    descry_fuzz::template::stream(&descry_assemble::protocol::http1::PROTOCOL, input, printable);
});
