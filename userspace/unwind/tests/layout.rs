//! The laid out tables say the same as the rows they were made of.

use descry_abi::limits::CHUNK_SLOTS;
use descry_abi::unwind::{CfaKind, FpKind, IndexEntry, PAGE_SHIFT};
use descry_decode::ids::ElfAddress;
use descry_unwind::Rule;
use descry_unwind::layout::{LayoutError, Placement, find, layout, slots_needed};
use descry_unwind::rows::Rows;
use proptest::prelude::*;
use std::convert::Infallible;

const CHUNK: u32 = CHUNK_SLOTS as u32;
const BIAS: u64 = 0x7f00_0000_0000;

fn sp(words: u16) -> Rule {
    Rule { cfa: CfaKind::Sp, fp: FpKind::Same, cfa_words: words, fp_words: 0 }
}

/// Rows at `start` plus the sum of the distances so far; rule 0 is a gap.
fn rows(start: u64, steps: &[(u64, u16)]) -> Rows {
    let mut at = start;
    Rows::from_rules(steps.iter().map(|(distance, words)| {
        at += distance;
        (ElfAddress(at), if *words == 0 { Rule::NONE } else { sp(*words) })
    }))
}

/// What was written, from the first slot on.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tables {
    slots: Vec<u64>,
    placement: Placement,
}

/// Lays out rows; every slot must be written once.
fn lay_out(rows: &Rows, first: u32) -> Result<Tables, LayoutError<Infallible>> {
    let mut written: Vec<Option<u64>> = Vec::new();
    let placement = layout(rows, first, |slot, words| {
        let at = (slot - first) as usize;
        written.resize(written.len().max(at + words.len()), None);
        for (place, word) in written[at..].iter_mut().zip(words) {
            assert_eq!(place.replace(*word), None, "slot {slot} and on");
        }
        Ok(())
    })?;
    Ok(Tables { slots: written.into_iter().map(|word| word.expect("a written slot")).collect(), placement })
}

/// Checks every address at which anything could change, and its neighbours.
fn check(rows: &Rows, first: u32) -> Tables {
    let tables = lay_out(rows, first).expect("tables");
    assert!(tables.slots.len() as u64 <= slots_needed(rows));
    let placement = tables.placement;
    let mapping = placement.mapping(0, u64::MAX, BIAS);
    let pages = u64::from(placement.first_page)..u64::from(placement.first_page) + u64::from(placement.pages);
    let starts = pages.clone().map(|page| page << PAGE_SHIFT).chain(rows.iter().map(|(at, _)| at.0));
    for address in starts.flat_map(|at| [at.wrapping_sub(1), at, at + 1]) {
        let expected = rows.find(ElfAddress(address));
        let found = find(&tables.slots, first, &mapping, address.wrapping_add(BIAS)).unwrap_or(Rule::NONE);
        // After the last page nothing is known.
        if pages.contains(&(address >> PAGE_SHIFT)) || expected == Rule::NONE {
            assert_eq!(found, expected, "at {address:#x}");
        }
    }
    for page in 0..placement.pages {
        let entry = IndexEntry::from_slot(tables.slots[page as usize]);
        if entry.count != 0 {
            assert_eq!(entry.first / CHUNK, (entry.first + entry.count - 1) / CHUNK, "page {page} straddles");
        }
    }
    tables
}

#[test]
fn nothing_needs_nothing() {
    assert_eq!(lay_out(&Rows::default(), 7).expect("tables"), Tables::default());
    assert_eq!(slots_needed(&Rows::default()), 0);
}

#[test]
fn neighbouring_pages_share_the_row_in_force() {
    // One function over four pages, then a gap.
    let tables = check(&rows(0x1000, &[(0, 1), (0x410, 0)]), 0);
    assert_eq!(tables.placement.pages, 5);
    assert_eq!(tables.slots.len(), 5 + 2);
}

#[test]
fn pages_of_a_gap_are_empty() {
    let tables = check(&rows(0x1000, &[(0, 1), (0x100, 0), (0x300, 2), (8, 0)]), 0);
    let counts: Vec<u32> = tables.slots[..5].iter().map(|slot| IndexEntry::from_slot(*slot).count).collect();
    assert_eq!(counts, [1, 0, 0, 0, 2][..]);
}

#[test]
fn a_page_that_would_straddle_a_border_begins_after_it() {
    let dense: Vec<(u64, u16)> = (0..256).map(|n| (1, n % 7 + 1)).collect();
    let rows = rows(0xfff, &dense);
    for before in [1, 2, 100, 256, 257, 258] {
        check(&rows, CHUNK - before);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let few = rows(0x1000, &[(0, 1), (16, 0)]);
    assert!(lay_out(&few, u32::MAX - 4).is_err());
    assert!(lay_out(&rows(1 << 41, &[(0, 1), (16, 0)]), 0).is_err());
}

#[test]
fn what_cannot_be_written_ends_the_layout() {
    let few = rows(0x1000, &[(0, 1), (16, 0)]);
    assert_eq!(layout(&few, 0, |_, _| Err("no room")), Err(LayoutError::Write("no room")));
}

proptest! {
    #[test]
    fn tables_say_what_rows_say(
        start in 0u64..0x3_0000,
        steps in prop::collection::vec((prop_oneof![1u64..4, 1u64..64, 1u64..3000], 0u16..6), 1..800),
        first in prop_oneof![Just(0), CHUNK - 900..CHUNK + 2, 5 * CHUNK - 300..5 * CHUNK],
    ) {
        check(&rows(start, &steps), first);
    }
}

#[test]
fn more_rows_than_a_chunk_holds() {
    let many: Vec<(u64, u16)> = (0..300_000u32).map(|n| (u64::from(n % 13) + 1, (n % 5) as u16)).collect();
    let tables = check(&rows(0x40_0000, &many), CHUNK - 3);
    assert!(tables.slots.len() > 2 * CHUNK_SLOTS);
}
