//! Any capture file: spans, or an error.
#![no_main]

use descry_assemble::capture::{Table, read};
use descry_fuzz::connection::{check_span, settings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut table = Table::new(settings());
    let _ = read(input, &mut |packet| table.packet(&packet, &mut |span, _| check_span(&span)));
    table.end_all(&mut |span, _| check_span(&span));
});
