//! A profile in several requests: each small enough and complete in itself, and no sample twice or missing.

use crate::support;

use std::collections::BTreeMap;

use descry_aggregate::profile::Profile;
use descry_decode::ids::UnixNanos;
use descry_export::otlp::{self, OtlpOptions, Requests};
use opentelemetry_proto::tonic::profiles::v1development::{ProfilesData, ProfilesDictionary, Sample};
use prost::Message;

fn text(dictionary: &ProfilesDictionary, index: i32) -> &str {
    &dictionary.string_table[index as usize]
}

/// Functions or addresses of a stack, root first.
fn stack(dictionary: &ProfilesDictionary, sample: &Sample) -> Vec<String> {
    let indices = dictionary.stack_table[sample.stack_index as usize].location_indices.iter().rev();
    let frames = indices.flat_map(|&index| {
        let location = &dictionary.location_table[index as usize];
        let functions = location.lines.iter().rev().map(|line| {
            text(dictionary, dictionary.function_table[line.function_index as usize].name_strindex).to_owned()
        });
        let mut frames: Vec<String> = functions.collect();
        if frames.is_empty() {
            frames.push(format!("{:#x}", location.address));
        }
        frames
    });
    frames.collect()
}

/// Counts and times by stack.
type Sums = BTreeMap<Vec<String>, (u64, u64)>;

fn add(sums: &mut Sums, data: &ProfilesData) {
    let dictionary = data.dictionary.as_ref().unwrap();
    let scopes = data.resource_profiles.iter().flat_map(|resource| &resource.scope_profiles);
    for profile in scopes.flat_map(|scope| &scope.profiles) {
        let unit = text(dictionary, profile.sample_type.unwrap().unit_strindex);
        for sample in &profile.samples {
            let sum = sums.entry(stack(dictionary, sample)).or_default();
            let values: i64 = sample.values.iter().sum();
            if unit == "nanoseconds" {
                sum.1 += values as u64;
            } else {
                sum.0 += values as u64;
                if sample.values.is_empty() {
                    sum.0 += sample.timestamps_unix_nano.len() as u64;
                }
            }
        }
    }
}

fn split(profile: &Profile, max_bytes: usize) -> (Vec<ProfilesData>, Requests<'_>) {
    let mut requests = otlp::requests(profile, &OtlpOptions::default(), max_bytes);
    let mut parts = Vec::new();
    for request in &mut requests {
        assert!(request.encoded_len() <= max_bytes);
        let data =
            ProfilesData { resource_profiles: request.resource_profiles, dictionary: request.dictionary };
        assert_eq!(otlp::check(&data), Ok(()));
        parts.push(data);
    }
    (parts, requests)
}

fn check(profile: &Profile, max_bytes: usize, at_least: usize) {
    let mut whole = Sums::new();
    add(&mut whole, &otlp::profiles_data(profile, &OtlpOptions::default()));
    let (parts, requests) = split(profile, max_bytes);
    assert_eq!(requests.oversized_samples(), 0);
    assert!(parts.len() >= at_least, "{} requests", parts.len());
    let mut sums = Sums::new();
    parts.iter().for_each(|part| add(&mut sums, part));
    assert_eq!(sums, whole);

    let scopes = parts.iter().flat_map(|part| &part.resource_profiles).flat_map(|r| &r.scope_profiles);
    let mut ids: Vec<_> =
        scopes.flat_map(|scope| &scope.profiles).map(|profile| &profile.profile_id).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "profile ids are unique");
}

#[test]
fn one_request_holds_what_fits() {
    check(&support::cpu(), otlp::MAX_REQUEST_BYTES, 1);
    assert_eq!(split(&support::cpu(), otlp::MAX_REQUEST_BYTES).0.len(), 1);
}

#[test]
fn larger_profiles_are_split_between_samples_and_between_timestamps() {
    check(&support::cpu(), 1_500, 2);
    check(&support::timed(), 1_500, 2);
    let mut long = support::timed();
    long.samples.truncate(1);
    long.samples[0].count = 5_001;
    long.samples[0].weight = 5_001 * support::PERIOD + 17;
    long.samples[0].timestamps = (0..5_001).map(|n| UnixNanos(support::START + n * 1_000)).collect();
    check(&long, 10_000, 4);
}

#[test]
fn a_sample_over_the_limit_is_counted() {
    let mut profile = support::cpu();
    profile.functions[6].name = "x".repeat(5_000).into();
    let (_, requests) = split(&profile, 4_000);
    assert_eq!(requests.oversized_samples(), 10);
}

#[test]
fn a_limit_that_nothing_fits_ends() {
    let profile = support::timed();
    let (parts, requests) = split(&profile, 0);
    assert!(parts.is_empty());
    assert_eq!(requests.oversized_samples(), 54);
}

#[test]
fn nothing_is_sent_for_nothing() {
    assert_eq!(split(&support::empty(), otlp::MAX_REQUEST_BYTES).0, []);
}
