//! Any bytes from the ring are an event or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let time = descry_decode::time_of(input);
    if let Ok(event) = descry_decode::decode(input) {
        assert_eq!(time, Ok(event.time()));
    }
});
