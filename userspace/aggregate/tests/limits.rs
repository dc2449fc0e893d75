//! What is added up, what is kept apart, and what becomes of what is too much.

use std::sync::Arc;
use std::time::Duration;

use descry_aggregate::profile::{Profile, ProfileKind};
use descry_aggregate::{Aggregator, CodeRef, Dimensions, Limits, Observation, Summary};
use descry_decode::ids::{BootNanos, Comm, Cpu, RuntimeAddress, Tgid, Tid, UnixNanos};

/// (process, thread, time, addresses leaf first)
type Sample<'a> = (u32, u32, u64, &'a [u64]);

fn profile(
    dimensions: Dimensions,
    limits: Limits,
    samples: &[Sample<'_>],
) -> (Profile, descry_aggregate::Counters) {
    let mut aggregator = Aggregator::new(dimensions, limits);
    for (tgid, tid, time, addresses) in samples {
        let stack: Vec<_> =
            addresses.iter().map(|address| CodeRef::Unknown(RuntimeAddress(*address))).collect();
        let name: Arc<str> = format!("p{tgid}").into();
        aggregator.add(&Observation {
            tgid: Tgid(*tgid),
            process_name: &name,
            tid: Tid(*tid),
            comm: Comm::default(),
            cpu: Cpu(0),
            time: BootNanos(*time),
            weight: 10,
            stack: &stack,
            truncated: false,
        });
    }
    let counters = aggregator.counters();
    let code: Vec<_> = aggregator
        .code()
        .iter()
        .map(|code| descry_aggregate::KnownCode {
            mapping: None,
            address: match code {
                CodeRef::Unknown(address) => address.0,
                other => panic!("{other:?} was not given"),
            },
            symbolized: descry_symbol::Symbolized {
                frames: Vec::new(),
                kind: descry_symbol::FrameKind::Native,
            },
        })
        .collect();
    let summary = Summary {
        kind: ProfileKind::Cpu,
        start: UnixNanos(1000),
        duration: Duration::from_secs(1),
        period: 10,
        threads: true,
        boot_to_unix: 1000,
    };
    (aggregator.finish(summary, &code, &[]), counters)
}

/// (process, addresses, count) of every sample, sorted.
fn rows(profile: &Profile) -> Vec<(String, Vec<u64>, u64)> {
    let mut rows: Vec<_> = profile
        .samples
        .iter()
        .map(|sample| {
            let stack = &profile.stacks[sample.stack as usize];
            let addresses = stack.locations.iter().map(|index| profile.locations[*index as usize].address);
            (profile.processes[sample.process as usize].name.to_string(), addresses.collect(), sample.count)
        })
        .collect();
    rows.sort();
    rows
}

const SAMPLES: &[Sample<'_>] = &[(1, 1, 5, &[7, 8]), (1, 2, 3, &[7, 8]), (1, 1, 4, &[9]), (2, 3, 6, &[7, 8])];

#[test]
fn equal_stacks_of_a_process_are_one_sample() {
    let (profile, _) = profile(Dimensions::default(), Limits::default(), SAMPLES);
    let expected = [("p1".into(), vec![7, 8], 2), ("p1".into(), vec![9], 1), ("p2".into(), vec![7, 8], 1)];
    assert_eq!(rows(&profile), expected);
    assert_eq!(profile.stacks.len(), 2, "processes share stacks");
    assert_eq!(profile.samples.iter().map(|sample| sample.weight).sum::<u64>(), 40);
}

#[test]
fn threads_and_times_are_kept_when_asked_for() {
    let dimensions = Dimensions { threads: true, cpus: false, timestamps: true };
    let (profile, _) = profile(dimensions, Limits::default(), SAMPLES);
    assert_eq!(profile.samples.len(), 4);
    let times: Vec<_> =
        profile.samples.iter().flat_map(|sample| &sample.timestamps).map(|time| time.0).collect();
    let mut sorted = times.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [1003, 1004, 1005, 1006], "in Unix time");
}

#[test]
fn what_is_too_much_is_counted_and_nothing_is_lost() {
    let limits = Limits { stacks: 1, processes: 1, timestamps: 2 };
    let dimensions = Dimensions { threads: false, cpus: false, timestamps: true };
    let (profile, counters) = profile(dimensions, limits, SAMPLES);
    assert_eq!(profile.samples.iter().map(|sample| sample.count).sum::<u64>(), 4, "every sample is there");
    assert_eq!(counters.stacks_over_limit, 1);
    assert_eq!(counters.processes_over_limit, 1);
    assert_eq!(counters.timestamps_over_limit, 2);
    let names: Vec<_> = rows(&profile).into_iter().map(|row| row.0).collect();
    assert!(names.contains(&"[others]".to_owned()), "{names:?}");
}
