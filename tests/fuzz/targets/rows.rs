//! Any ELF file, any call frame information: rows come out in order, and the tables laid out from them agree.
#![no_main]

use descry_unwind::layout::{find, layout, slots_needed};
use descry_unwind::{Limits, Rule, rows};
use libfuzzer_sys::fuzz_target;
use std::convert::Infallible;

/// Larger tables take too long to compare.
const MAX_SLOTS: u64 = 1 << 16;

fuzz_target!(|input: &[u8]| {
    let (file, debug) = descry_fuzz::elf(input);
    let Ok((rows, report)) = rows::build(&file, debug.as_deref(), &Limits::default()) else { return };
    assert_eq!(report.rows, rows.len() as u64);
    assert!(rows.iter().is_sorted_by(|a, b| a.0 < b.0 && a.1 != b.1));

    let needed = slots_needed(&rows);
    if needed > MAX_SLOTS {
        return;
    }
    let first = u32::from(input.last().copied().unwrap_or_default()) + (1 << 17) - 200;
    let mut slots = vec![0; needed as usize];
    let Ok(placement) = layout(&rows, first, |slot, words| {
        let at = (slot - first) as usize;
        slots[at..at + words.len()].copy_from_slice(words);
        Ok::<(), Infallible>(())
    }) else {
        return;
    };
    let mapping = placement.mapping(0, u64::MAX, 0);
    for (address, rule) in rows.iter() {
        assert_eq!(find(&slots, first, &mapping, address.0).unwrap_or(Rule::NONE), rule);
    }
});
