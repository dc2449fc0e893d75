//! Any segments in a spool's directory, and any sequence of what is done with the spool: every item is accounted for.
//!
//! An input is `limit` (two bytes, the lower first, times 16), how many segments there are (one byte, modulo 4), the
//! segments, then what is done, a byte each. A segment is
//!
//! ```text
//! kind    bit 0  the rest is records, behind the mark      bit 1  its name is nearly one of descry's
//! number  one byte, in its name
//! length  two bytes, the lower first, modulo 1024
//! bytes   as many: as they are, or records, each a length, a state and the payload; the checksum is made for it
//! ```
#![no_main]

use descry_spool::{Lost, Request, Restored, Signal, Spool, SpoolError};
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

thread_local! {
    static DIRECTORY: TempDir = TempDir::new().expect("a temporary directory");
}

/// What a segment begins with.
const MARK: &[u8] = b"descryQ\x01";
/// Bytes of the smallest limit: a request of 250 bytes must go into a quarter of it.
const LEAST: u64 = 2048;
/// Bytes of a segment's name, `0000000000000000.spool`.
const NAME: usize = 22;
/// Things done at most.
const STEPS: usize = 256;

fuzz_target!(|input: &[u8]| {
    DIRECTORY.with(|directory| {
        let directory = directory.path();
        clear(directory);
        let mut input = input;
        let limit = LEAST + u64::from(short(&mut input)) * 16;
        for _ in 0..byte(&mut input) % 4 {
            segment(directory, &mut input);
        }
        Running::open(directory, limit).run(&input[..input.len().min(STEPS)]);
    });
});

fn byte(input: &mut &[u8]) -> u8 {
    input.split_off_first().copied().unwrap_or(0)
}

fn short(input: &mut &[u8]) -> u16 {
    u16::from_le_bytes([byte(input), byte(input)])
}

fn clear(directory: &Path) {
    for entry in fs::read_dir(directory).expect("read_dir") {
        fs::remove_file(entry.expect("an entry").path()).expect("remove");
    }
}

fn segment(directory: &Path, input: &mut &[u8]) {
    let (kind, number) = (byte(input), byte(input));
    let length = usize::from(short(input)) % 1024;
    let (mut bytes, rest) = input.split_at(length.min(input.len()));
    *input = rest;
    let mut content = Vec::new();
    if kind & 1 == 0 {
        content.extend(bytes);
    } else {
        content.extend(MARK);
        while !bytes.is_empty() {
            let (length, state) = (usize::from(byte(&mut bytes)), byte(&mut bytes));
            let (payload, rest) = bytes.split_at(length.min(bytes.len()));
            bytes = rest;
            let length = (payload.len() as u32).to_le_bytes();
            let mut checksum = crc32fast::Hasher::new();
            checksum.update(&length);
            checksum.update(payload);
            content.extend(length);
            content.extend(checksum.finalize().to_le_bytes());
            content.push(state);
            content.extend(payload);
        }
    }
    let name = if kind & 2 == 0 { format!("{number:016x}.spool") } else { format!("{number:x}.spool") };
    fs::write(directory.join(name), content).expect("write");
}

/// An open spool, and what became of its items so far.
struct Running<'a> {
    directory: &'a Path,
    limit: u64,
    spool: Spool,
    came: u64,
    went: u64,
    lost: Lost,
    given: Option<Request>,
    appended: u32,
}

impl<'a> Running<'a> {
    fn open(directory: &'a Path, limit: u64) -> Self {
        let (spool, restored) = Spool::open(directory, limit).expect("open");
        assert_eq!(restored.items, spool.items());
        assert!(restored.requests > 0 || spool.is_empty());
        let lost = Lost::default();
        Self { directory, limit, spool, came: restored.items, went: 0, lost, given: None, appended: 0 }
    }

    fn run(mut self, steps: &[u8]) {
        for step in steps {
            match step % 6 {
                0 | 1 => self.append(usize::from(step / 6) * 6),
                2 => self.next(),
                3 => self.done(),
                4 => self.give_back(),
                _ => self = self.opened_anew(),
            }
            self.check();
        }
        self = self.opened_anew();
        self.check();
        loop {
            self.next();
            if self.given.is_none() {
                break;
            }
            self.done();
        }
        assert!(self.spool.is_empty() && self.spool.items() == 0);
        self.check();
    }

    /// Every item waits, was taken, or is lost; that of a request under way is told once its fate is known.
    fn check(&self) {
        let waiting = self.spool.items();
        if self.given.is_none() {
            assert_eq!(self.came, self.went + self.lost.items + waiting, "{:?}", self.spool);
        }
        let entries = fs::read_dir(self.directory).expect("read_dir").map(|entry| entry.expect("an entry"));
        let own = entries.filter(|entry| entry.file_name().len() == NAME);
        let on_disk: u64 = own.map(|file| file.metadata().expect("metadata").len()).sum();
        assert_eq!(on_disk, self.spool.bytes(), "{:?}", self.spool);
    }

    fn append(&mut self, size: usize) {
        let items = u64::from(self.appended % 7);
        self.appended += 1;
        let request = Request { signal: Signal::TRACES, items, body: vec![0xa5; size].into() };
        self.spool.append(&request, &mut self.lost).expect("append");
        self.came += items;
        assert!(self.spool.bytes() <= self.limit, "{:?}", self.spool);
    }

    fn next(&mut self) {
        if self.given.is_some() {
            self.give_back();
        }
        self.given = self.spool.next(&mut self.lost).expect("next");
        assert!(self.given.is_some() || self.spool.is_empty());
    }

    fn done(&mut self) {
        self.spool.done().expect("done");
        self.went += self.given.take().map_or(0, |request| request.items);
    }

    /// What is given back comes again, unless it is lost.
    fn give_back(&mut self) {
        let lost = self.lost.items;
        self.spool.give_back(&mut self.lost);
        let Some(request) = self.given.take() else { return assert_eq!(self.lost.items, lost) };
        if self.lost.items == lost && request.items > 0 {
            assert_eq!(self.spool.next(&mut self.lost).expect("next"), Some(request));
            self.spool.give_back(&mut self.lost);
            assert_eq!(self.lost.items, lost);
        }
    }

    /// The next run finds what this one leaves; nobody else has it meanwhile.
    fn opened_anew(mut self) -> Self {
        self.give_back();
        let other = Spool::open(self.directory, self.limit);
        assert!(matches!(other, Err(SpoolError::InUse { .. })), "{other:?}");
        let items = self.spool.items();
        drop(self.spool);
        let (spool, restored) = Spool::open(self.directory, self.limit).expect("open");
        assert_eq!((restored.items, spool.items()), (items, items));
        drop(spool);
        let (spool, again) = Spool::open(self.directory, self.limit).expect("open");
        let waits = |restored: Restored| (restored.requests, restored.items);
        assert_eq!(waits(again), waits(restored));
        Self { spool, ..self }
    }
}
