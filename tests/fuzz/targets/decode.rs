//! Any bytes from the ring are an event or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = descry_decode::decode(input);
});
