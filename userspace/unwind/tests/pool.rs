//! Room in the kernel's tables: who gets it, who leaves, and when it can be used again.

use descry_abi::limits::CHUNK_SLOTS;
use descry_unwind::pool::{Pool, Reservation, Slots};
use proptest::prelude::*;

const CHUNK: u64 = CHUNK_SLOTS as u64;

fn pool(chunks: u64) -> Pool<u32> {
    Pool::new(chunks * CHUNK * 8)
}

#[track_caller]
fn file(pool: &mut Pool<u32>, name: u32, slots: u64) -> u32 {
    match pool.reserve_file(name, slots) {
        Reservation::Ready { slots, .. } => slots,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn mappings(pool: &mut Pool<u32>, count: u32) -> Slots {
    match pool.reserve_mappings(count) {
        Reservation::Ready { slots, .. } => slots,
        other => panic!("{other:?}"),
    }
}

#[test]
fn chunks_are_opened_by_the_first_who_needs_them_and_closed_after_the_last() {
    let mut pool = pool(4);
    let opened = |reservation| match reservation {
        Reservation::<u32, u32>::Ready { opened, .. } => opened,
        other => panic!("{other:?}"),
    };
    assert_eq!(opened(pool.reserve_file(1, 10)), [0]);
    assert_eq!(opened(pool.reserve_file(2, 2 * CHUNK)), [1, 2]);
    assert_eq!(opened(pool.reserve_file(3, 10)), Vec::<u32>::new());
    assert!(pool.remove_file(&2));
    assert_eq!(pool.tick(), Vec::<u32>::new());
    assert_eq!(pool.tick(), [1]);
    assert!(pool.remove_file(&3) && pool.remove_file(&1) && !pool.remove_file(&1));
    pool.tick();
    assert_eq!(pool.tick(), [0, 2]);
    assert_eq!(pool.usage().chunks, 0);
}

#[test]
fn a_file_keeps_its_place() {
    let mut pool = pool(1);
    let place = file(&mut pool, 7, 100);
    assert_eq!(file(&mut pool, 7, 100), place);
    assert_eq!(pool.touch(&7), Some(place));
    assert_eq!(pool.touch(&8), None);
    assert_eq!(pool.usage().files, 100);
}

#[test]
fn mappings_lie_in_one_chunk() {
    let mut pool = pool(2);
    file(&mut pool, 1, CHUNK - 7);
    let two = mappings(&mut pool, 2);
    assert_eq!((u64::from(two.first()), two.len()), (CHUNK, 10));
    // What was skipped serves smaller ones.
    let one = mappings(&mut pool, 1);
    assert_eq!(u64::from(one.first()), CHUNK - 7);
    assert_eq!(pool.usage().mappings, 15);
    assert_eq!(pool.reserve_mappings(u32::MAX), Reservation::Full);
}

#[test]
fn given_back_slots_rest_until_the_second_tick() {
    let mut pool = pool(1);
    let slots = mappings(&mut pool, 1);
    let place = slots.first();
    pool.release_mappings(slots);
    assert_ne!(mappings(&mut pool, 1).first(), place);
    pool.tick();
    assert_ne!(mappings(&mut pool, 1).first(), place);
    pool.tick();
    assert_eq!(mappings(&mut pool, 1).first(), place);
}

#[test]
fn the_longest_unused_file_leaves_first() {
    let mut pool = pool(3);
    for name in 1..=3 {
        file(&mut pool, name, CHUNK);
    }
    for _ in 0..3 {
        pool.tick();
    }
    pool.touch(&1);
    pool.tick();
    pool.touch(&3);
    pool.tick();
    pool.tick();
    assert_eq!(pool.reserve_file(4, CHUNK), Reservation::Evicted(vec![2]));
    // Until its slots have rested, nobody else has to leave for the same request.
    assert_eq!(pool.reserve_file(4, CHUNK), Reservation::Evicted(vec![]));
    pool.tick();
    pool.tick();
    assert_eq!(u64::from(file(&mut pool, 4, CHUNK)), CHUNK);
}

#[test]
fn files_in_use_do_not_leave() {
    let mut pool = pool(1);
    file(&mut pool, 1, CHUNK);
    for _ in 0..5 {
        pool.tick();
        pool.touch(&1);
    }
    assert_eq!(pool.reserve_file(2, 1), Reservation::Full);
    assert_eq!(pool.reserve_mappings(1), Reservation::Full);
    assert_eq!(pool.reserve_file(3, CHUNK + 1), Reservation::Full);
}

#[derive(Clone, Debug)]
enum Act {
    File(u32, u64),
    Mappings(u32),
    Remove(u32),
    Release(usize),
    Tick,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0u32..12, prop_oneof![0u64..2000, 1..3 * CHUNK]).prop_map(|(name, slots)| Act::File(name, slots)),
        (0u32..4096).prop_map(Act::Mappings),
        (0u32..12).prop_map(Act::Remove),
        (0usize..8).prop_map(Act::Release),
        Just(Act::Tick),
    ]
}

proptest! {
    /// Nobody ever gets slots that another has, or that rest; chunks in use are open.
    #[test]
    fn nobody_shares(acts in prop::collection::vec(act(), 1..120)) {
        let mut pool = pool(4);
        let mut files: Vec<(u32, u64, u64)> = Vec::new();
        let mut held: Vec<Slots> = Vec::new();
        let mut resting: Vec<(u32, u64, u64)> = Vec::new();
        let mut ticks = 0;
        let mut open = std::collections::BTreeSet::new();
        for act in acts {
            let mut given = None;
            match act {
                Act::File(name, len) => match pool.reserve_file(name, len) {
                    Reservation::Ready { slots, opened } => {
                        if !files.iter().any(|file| file.0 == name) {
                            given = Some((u64::from(slots), len));
                            files.push((name, u64::from(slots), len));
                        }
                        for chunk in opened { prop_assert!(open.insert(chunk)); }
                    }
                    Reservation::Evicted(names) => files.retain(|file| {
                        let leaves = names.contains(&file.0);
                        if leaves { resting.push((ticks, file.1, file.2)); }
                        !leaves
                    }),
                    Reservation::Full => {}
                },
                Act::Mappings(count) => match pool.reserve_mappings(count) {
                    Reservation::Ready { slots, opened } => {
                        let (first, len) = (u64::from(slots.first()), u64::from(slots.len()));
                        prop_assert!(len == 0 || first / CHUNK == (first + len - 1) / CHUNK);
                        given = Some((first, len));
                        held.push(slots);
                        for chunk in opened { prop_assert!(open.insert(chunk)); }
                    }
                    Reservation::Evicted(names) => files.retain(|file| {
                        let leaves = names.contains(&file.0);
                        if leaves { resting.push((ticks, file.1, file.2)); }
                        !leaves
                    }),
                    Reservation::Full => {}
                },
                Act::Remove(name) => {
                    if pool.remove_file(&name) {
                        let at = files.iter().position(|file| file.0 == name).expect("it has room");
                        let (_, first, len) = files.remove(at);
                        resting.push((ticks, first, len));
                    }
                }
                Act::Release(index) => if index < held.len() {
                    let slots = held.remove(index);
                    resting.push((ticks, u64::from(slots.first()), u64::from(slots.len())));
                    pool.release_mappings(slots);
                },
                Act::Tick => {
                    for chunk in pool.tick() { prop_assert!(open.remove(&chunk)); }
                    ticks += 1;
                    resting.retain(|(since, ..)| ticks < since + 2);
                }
            }
            let all: Vec<(u64, u64)> = files.iter().map(|file| (file.1, file.2))
                .chain(held.iter().map(|slots| (u64::from(slots.first()), u64::from(slots.len()))))
                .chain(resting.iter().map(|rest| (rest.1, rest.2)))
                .filter(|(_, len)| *len > 0)
                .collect();
            if let Some((first, len)) = given {
                let sharing = all.iter().filter(|(at, n)| *at < first + len && first < at + n).count();
                prop_assert!(sharing <= 1);
            }
            for (first, len) in all {
                for chunk in first / CHUNK..(first + len).div_ceil(CHUNK) {
                    prop_assert!(open.contains(&(chunk as u32)));
                }
            }
        }
    }
}
