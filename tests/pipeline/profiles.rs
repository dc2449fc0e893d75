//! Profiles: what the collector forwards holds the same stacks and counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use descry_aggregate::profile::{
    AttributeValue, FrameKind, Function, Line, Location, Profile, ProfileKind, ProfileMapping,
    ProfileProcess, ProfileSample, Stack,
};
use descry_decode::ids::{Tgid, UnixNanos};
use descry_export::otlp::{MAX_REQUEST_BYTES, OtlpOptions, requests};
use descry_tests::collector::{Collector, stacks};

use crate::{PATIENCE, by_every_transport, send};

const FUNCTIONS: u32 = 40;

/// Function names from the leaf to the root, and what was counted of them.
type Counts = BTreeMap<String, i64>;

/// A profile of as many stacks as functions, the n-th `n` deep, in two processes.
fn profile() -> Profile {
    let name = |number: u32| Arc::<str>::from(format!("function_{number}"));
    let function = |number| Function { name: name(number), system_name: name(number), file: None };
    let location = |number: u32| Location {
        mapping: Some(0),
        address: 0x1000 + u64::from(number) * 16,
        kind: FrameKind::Native,
        lines: vec![Line { function: number, line: number + 1, column: 0 }],
    };
    let sample = |number: u32| ProfileSample {
        process: number % 2,
        thread: None,
        cpu: None,
        stack: number,
        waited: None,
        count: u64::from(number) + 1,
        weight: (u64::from(number) + 1) * 10_000_000,
        longest: 0,
        timestamps: Vec::new(),
    };
    let process = |tgid: u32| ProfileProcess {
        tgid: Tgid(tgid),
        name: "worker".into(),
        resource: vec![("process.pid".into(), AttributeValue::Int(i64::from(tgid)))],
    };
    Profile {
        kind: ProfileKind::Cpu,
        start: UnixNanos(1_700_000_000_000_000_000),
        duration: Duration::from_secs(10),
        period: 10_000_000,
        processes: vec![process(100), process(101)],
        mappings: vec![ProfileMapping {
            path: "/usr/bin/worker".into(),
            start: 0,
            end: 0,
            offset: 0,
            gnu_build_id: Some("0123456789abcdef".into()),
            go_build_id: None,
            htlhash: None,
            has_functions: true,
            has_filenames: false,
            has_lines: true,
            has_inlines: false,
        }],
        functions: (0..FUNCTIONS).map(function).collect(),
        locations: (0..FUNCTIONS).map(location).collect(),
        stacks: (0..FUNCTIONS)
            .map(|leaf| Stack { locations: (0..=leaf).rev().collect(), truncated: false })
            .collect(),
        samples: (0..FUNCTIONS).map(sample).collect(),
    }
}

fn expected(value: impl Fn(&ProfileSample) -> u64) -> Counts {
    let profile = profile();
    let stack = |sample: &ProfileSample| {
        let frames = profile.named_frames(sample.stack).map(|frame| frame.name.into_owned());
        let mut names: Vec<_> = frames.collect();
        names.reverse();
        names.join(";")
    };
    profile.samples.iter().map(|sample| (stack(sample), i64::try_from(value(sample)).unwrap())).collect()
}

/// Sends the profile in requests of at most `max_bytes` and compares what comes out.
fn check(collector: &Collector, url: &str, protocol: &str, compression: &str, max_bytes: usize) {
    let case = format!("{protocol} {compression} {max_bytes}");
    let profile = profile();
    let requests = requests(&profile, &OtlpOptions::default(), max_bytes);
    let sent = send(collector, url, protocol, compression, requests);

    let (mut counts, mut times) = (Counts::new(), Counts::new());
    for _ in 0..sent {
        let forwarded = collector.next_forwarded(PATIENCE).unwrap();
        for (all, kind) in [(&mut counts, "samples"), (&mut times, "cpu")] {
            for (stack, value) in stacks(&forwarded, kind).unwrap() {
                *all.entry(stack).or_default() += value;
            }
        }
    }
    assert_eq!(counts, expected(|sample| sample.count), "{case}");
    assert_eq!(times, expected(|sample| sample.weight), "{case}");
}

/// By every transport, in one request and in several, each with a dictionary of its own.
pub fn same_stacks_and_counts_come_out(collector: &Collector) {
    by_every_transport(collector, |url, protocol, compression| {
        check(collector, url, protocol, compression, MAX_REQUEST_BYTES);
    });
    check(collector, &collector.grpc_url(), "grpc", "gzip", 3000);
    check(collector, &collector.http_url(), "http/protobuf", "gzip", 3000);
}
