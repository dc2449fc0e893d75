//! Capture files that are cut, or lie about lengths: what is right is told, nothing is made up, and all of it counts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use descry_assemble::capture::{CaptureError, Counters, Table, read};
use descry_assemble::connection::Settings;
use descry_assemble::infer::PROTOCOLS;
use descry_assemble::protocol::Options;
use descry_assemble::span::{Span, Value};

fn capture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/decode").join(name);
    std::fs::read(path).expect("there is a capture")
}

/// What a file gives: how its reading ended, what was answered (name and status), and the counters.
fn decode(file: &[u8]) -> (Result<(), CaptureError>, Vec<String>, Counters) {
    let settings = Settings { options: Options::default(), protocols: PROTOCOLS.to_vec(), unix_offset: 0 };
    let mut table = Table::new(settings);
    let mut answered = Vec::new();
    let result = {
        let mut take = |span: Span, _: Option<_>| {
            let status = span.attributes.iter().find(|(name, _)| name == "http.response.status_code");
            if let Some((_, Value::Int(status))) = status {
                answered.push(format!("{} {status}", span.name));
            }
        };
        let result = read(file, &mut |packet| table.packet(&packet, &mut take));
        table.end_all(&mut take);
        result
    };
    (result, answered, table.counters())
}

/// Four bytes as a number.
fn number(file: &[u8], at: usize) -> usize {
    u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes")) as usize
}

const CAPTURES: [&str; 2] = ["http1.pcap", "http2-sll2.pcapng"];

#[test]
fn cut_anywhere() {
    for name in CAPTURES {
        let whole = capture(name);
        let (result, all, _) = decode(&whole);
        assert!(result.is_ok() && all.len() > 10, "{name}: {result:?} {all:?}");
        let all: BTreeSet<String> = all.into_iter().collect();
        let mut most = 0;
        // Bytes that make it a capture: pcap's header, or pcapng's first block, whose length stands in it.
        let head = if name.ends_with("ng") { number(&whole, 4) } else { 24 };
        // Every place of the first packets, and then some in each.
        for cut in (0..600).chain((600..whole.len()).step_by(29)) {
            let (result, found, _) = decode(&whole[..cut]);
            let is_right = match &result {
                Ok(()) => true,
                Err(CaptureError::NotACapture) => cut < head,
                Err(error) => matches!(error, CaptureError::Truncated),
            };
            assert!(is_right, "{name} cut at {cut}: {result:?}");
            assert!(found.iter().all(|request| all.contains(request)), "{name} cut at {cut}: {found:?}");
            assert!(found.len() >= most, "{name} cut at {cut}: {} after {most}", found.len());
            most = found.len();
        }
    }
}

/// Lengths that are not there.
const LIES: [u32; 5] = [0, 13, 0xffff, 0x7fff_ffff, u32::MAX];

#[test]
fn lengths_that_lie() {
    let whole = capture("http1.pcap");
    let all: BTreeSet<String> = decode(&whole).1.into_iter().collect();
    let mut at = 24;
    while at + 16 <= whole.len() {
        let length = number(&whole, at + 8) as u32;
        // What was captured of a packet, and how long it was.
        for field in [8, 12] {
            for lie in LIES.into_iter().chain([length - 1, length + 1]) {
                let mut file = whole.clone();
                file[at + field..at + field + 4].copy_from_slice(&lie.to_le_bytes());
                let (result, found, counters) = decode(&file);
                assert!(found.iter().all(|request| all.contains(request)), "{lie} at {at}: {found:?}");
                // Nothing is lost without a word: the reading fails, or something is counted, or all is there.
                let is_told = counters.malformed_packets + counters.gaps + counters.other_packets > 0
                    || counters.duplicates > 0
                    || counters.connections > 0;
                assert!(result.is_err() || is_told, "{lie} at {at}: {counters:?}");
            }
        }
        at += 16 + length as usize;
    }
}

#[test]
fn blocks_that_lie() {
    let whole = capture("http2-sll2.pcapng");
    let all: BTreeSet<String> = decode(&whole).1.into_iter().collect();
    let mut at = 0;
    while at + 12 <= whole.len() {
        let length = number(&whole, at + 4);
        // The kind of the block, its length, and whatever numbers it begins with: interfaces, times, lengths.
        for field in (0..length.min(28)).step_by(4) {
            for lie in LIES {
                let mut file = whole.clone();
                file[at + field..at + field + 4].copy_from_slice(&lie.to_le_bytes());
                let (_, found, _) = decode(&file);
                assert!(
                    found.iter().all(|request| all.contains(request)),
                    "{lie} at {at}+{field}: {found:?}"
                );
            }
        }
        at += length;
    }
}

#[test]
fn link_types_that_are_not_read() {
    let mut file = capture("http1.pcap");
    let packets = decode(&file).2.packets;
    for link in [2_u32, 147, 220, 0xffff] {
        file[20..24].copy_from_slice(&link.to_le_bytes());
        let (result, found, counters) = decode(&file);
        assert!(result.is_ok() && found.is_empty());
        assert_eq!((counters.packets, counters.unknown_links, counters.connections), (packets, packets, 0));
    }
}

#[test]
fn packets_of_no_interface() {
    let whole = capture("http2-sll2.pcapng");
    // The interface that packets say they are of is one that nobody described.
    let (mut file, mut at, mut changed) = (whole.clone(), 0, 0);
    while at + 12 <= whole.len() {
        if number(&whole, at) == 6 {
            file[at + 8..at + 12].copy_from_slice(&99_u32.to_le_bytes());
            changed += 1;
        }
        at += number(&whole, at + 4);
    }
    let (result, found, counters) = decode(&file);
    assert!(result.is_ok() && found.is_empty() && changed > 10);
    assert_eq!((counters.packets, counters.unknown_links), (changed, changed));
}
