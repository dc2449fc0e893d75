//! The spool under what happens to disks and processes.
#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use descry_spool::{AppendError, Lost, Request, Restored, Signal, Spool, SpoolError};

const LIMIT: u64 = 16 << 20;

/// A request of `size` bytes that says its number.
fn numbered(number: u64, size: usize) -> Request {
    let mut body = vec![number as u8; size.max(8)];
    body[..8].copy_from_slice(&number.to_le_bytes());
    Request { signal: Signal::PROFILES, items: 2, body: body.into() }
}

fn number(request: &Request) -> u64 {
    u64::from_le_bytes(request.body[..8].try_into().unwrap())
}

fn open(directory: &Path, limit: u64) -> (Spool, Restored) {
    Spool::open(directory, limit).unwrap()
}

/// Appends without loss.
fn append(spool: &mut Spool, request: &Request) {
    let mut lost = Lost::default();
    spool.append(request, &mut lost).unwrap();
    assert_eq!(lost, Lost::default());
}

/// Takes everything out, and checks each request's content.
fn take_all(spool: &mut Spool) -> Vec<u64> {
    let (mut numbers, mut lost) = (Vec::new(), Lost::default());
    while let Some(request) = spool.next(&mut lost).unwrap() {
        assert_eq!(request, numbered(number(&request), request.body.len()));
        numbers.push(number(&request));
        spool.done().unwrap();
    }
    numbers
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "spool")).collect();
    files.sort();
    files
}

#[test]
fn what_goes_in_comes_out_in_order_and_once() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, restored) = open(directory.path(), LIMIT);
    assert_eq!(restored, Restored::default());
    for number in 0..100 {
        append(&mut spool, &numbered(number, 50_000));
    }
    assert_eq!(spool.items(), 200);
    // Given back: it comes again.
    let mut lost = Lost::default();
    assert_eq!(number(&spool.next(&mut lost).unwrap().unwrap()), 0);
    spool.give_back(&mut lost);
    assert_eq!(number(&spool.next(&mut lost).unwrap().unwrap()), 0);
    spool.done().unwrap();
    drop(spool);

    let (mut spool, restored) = open(directory.path(), LIMIT);
    assert_eq!(restored, Restored { requests: 99, items: 198, damaged: 0 });
    append(&mut spool, &numbered(100, 10));
    assert_eq!(take_all(&mut spool), (1..=100).collect::<Vec<_>>());
    assert!(spool.is_empty());
    drop(spool);
    assert_eq!(open(directory.path(), LIMIT).1, Restored::default());
}

#[test]
fn the_oldest_goes_first_and_the_bytes_stay_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), LIMIT);
    let mut lost = Lost::default();
    // One is under way while the segment that it is in is dropped.
    spool.append(&numbered(0, 1000), &mut lost).unwrap();
    assert!(spool.next(&mut lost).unwrap().is_some());
    for number in 1..60 {
        spool.append(&numbered(number, 600_000), &mut lost).unwrap();
        let on_disk: u64 = segments(directory.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!(on_disk <= LIMIT && on_disk == spool.bytes(), "{on_disk} bytes");
    }
    let dropped = lost.items;
    spool.give_back(&mut lost);
    assert_eq!(lost.items, dropped + 2, "the one under way is lost once its fate is known");
    let left = take_all(&mut spool);
    assert_eq!(left.last(), Some(&59));
    assert!(left.windows(2).all(|pair| pair[1] == pair[0] + 1), "{left:?}");
    assert_eq!(left.len() as u64 * 2 + lost.items, 120);
}

#[test]
fn what_is_too_large_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), LIMIT);
    let result = spool.append(&numbered(0, (LIMIT / 4) as usize), &mut Lost::default());
    assert!(matches!(result, Err(AppendError::TooLarge)), "{result:?}");
    assert!(spool.is_empty());
}

#[test]
fn two_processes_do_not_share_one() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path(), LIMIT);
    let second = Spool::open(directory.path(), LIMIT);
    assert!(matches!(second, Err(SpoolError::InUse { .. })), "{second:?}");
}

/// A segment cut at each of its lengths: every whole record is there, nothing else.
#[test]
fn a_torn_record_costs_itself_only() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), LIMIT);
    let mut ends = Vec::new();
    for number in 0..3 {
        append(&mut spool, &numbered(number, 20));
        ends.push(spool.bytes());
    }
    drop(spool);
    let file = segments(directory.path()).pop().unwrap();
    let whole = std::fs::read(&file).unwrap();
    for length in 0..=whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        let (mut spool, restored) = open(directory.path(), LIMIT);
        let expected = ends.iter().filter(|end| **end <= length as u64).count() as u64;
        assert_eq!(restored.requests, expected, "cut at {length}");
        let is_torn = length > 0 && !ends.contains(&(length as u64)) && length != 8;
        assert_eq!(restored.damaged, u64::from(is_torn), "cut at {length}");
        append(&mut spool, &numbered(9, 20));
        assert_eq!(take_all(&mut spool), (0..expected).chain([9]).collect::<Vec<_>>(), "cut at {length}");
        drop(spool);
        for file in segments(directory.path()) {
            std::fs::remove_file(file).unwrap();
        }
    }
}

/// Each byte changed: no request comes out that was not put in, and nothing panics.
#[test]
fn a_changed_byte_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), LIMIT);
    for number in 0..3 {
        append(&mut spool, &numbered(number, 20));
    }
    drop(spool);
    let file = segments(directory.path()).pop().unwrap();
    let whole = std::fs::read(&file).unwrap();
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 0x41;
        std::fs::write(&file, &changed).unwrap();
        let (mut spool, restored) = open(directory.path(), LIMIT);
        assert_eq!(restored.damaged, 1, "byte {place}");
        let numbers = take_all(&mut spool);
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "byte {place}");
        assert!(numbers.len() < 3, "byte {place}");
        drop(spool);
        for file in segments(directory.path()) {
            std::fs::remove_file(file).unwrap();
        }
    }
}

/// Damage that is done while the spool is open is counted, too.
#[test]
fn damage_behind_the_spool_s_back_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), LIMIT);
    for number in 0..3 {
        append(&mut spool, &numbered(number, 1000));
    }
    let file = segments(directory.path()).pop().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    // In the second record's body.
    file.write_all_at(b"x", 8 + 1018 + 500).unwrap();
    let mut lost = Lost::default();
    assert_eq!(number(&spool.next(&mut lost).unwrap().unwrap()), 0);
    spool.done().unwrap();
    assert!(spool.next(&mut lost).unwrap().is_none());
    assert_eq!(lost.items, 4);
    assert_eq!(spool.items(), 0);
}

const CHILD: &str = "DESCRY_TEST_SPOOL_WRITER";

/// Not a test of its own: the process that is killed. Appends for ever.
#[test]
fn writer() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let (mut spool, restored) = open(Path::new(&directory), 64 << 20);
    for number in restored.requests.. {
        let mut lost = Lost::default();
        spool.append(&numbered(number, 700_000), &mut lost).unwrap();
        assert_eq!(lost, Lost::default(), "nobody killed the writer");
    }
}

/// Killed in the middle of writes: each record that was finished is there, whole and in order.
#[test]
fn kill_loses_no_finished_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..8 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(CHILD, directory.path())
            .spawn()
            .unwrap();
        // Until it writes, and then into the middle of something.
        let end = Instant::now() + Duration::from_secs(30);
        let size =
            || segments(directory.path()).iter().map(|it| it.metadata().map_or(0, |it| it.len())).sum();
        let began: u64 = size();
        while size() < began + 1_000_000 && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(137 * (round + 1)));
        }
        writer.kill().unwrap();
        writer.wait().unwrap();

        let (spool, restored) = open(directory.path(), 64 << 20);
        assert!(restored.requests > before, "round {round}: {restored:?} after {before}");
        assert!(restored.damaged <= round + 1, "round {round}: {restored:?}");
        before = restored.requests;
        drop(spool);
    }
    let (mut spool, restored) = open(directory.path(), 64 << 20);
    assert_eq!(take_all(&mut spool), (0..restored.requests).collect::<Vec<_>>());
}

/// A disk of 4 MiB: the spool goes on with what fits, and says what it gave up. Needs root, to make the disk.
#[test]
fn a_full_disk_keeps_the_newest() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    if let Err(error) = mount(Some("descry"), path, Some("tmpfs"), MsFlags::empty(), Some("size=4m")) {
        eprintln!("skipped: cannot mount a tmpfs ({error})");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        let (mut spool, _) = open(path, 64 << 20);
        let mut lost = Lost::default();
        for number in 0..40 {
            spool.append(&numbered(number, 300_000), &mut lost).unwrap();
        }
        assert!(lost.items > 0);
        // Something else fills the rest: one segment may always go, then there is nothing left to give.
        drop(spool);
        let (mut spool, restored) = open(path, 64 << 20);
        assert_eq!((restored.items + lost.items, restored.damaged), (80, 0));
        let left = take_all(&mut spool);
        assert_eq!(left.last(), Some(&39));
        assert!(left.windows(2).all(|pair| pair[1] == pair[0] + 1), "{left:?}");

        let other = path.join("other");
        let filled = std::fs::write(&other, vec![1; 8 << 20]);
        assert!(filled.is_err());
        let refused = spool.append(&numbered(40, 300_000), &mut Lost::default());
        assert!(matches!(refused, Err(AppendError::Io { .. })), "{refused:?}");
        std::fs::remove_file(other).unwrap();
        // Nothing of the failed write is left in the way.
        append(&mut spool, &numbered(41, 300_000));
        drop(spool);
        let (mut spool, restored) = open(path, 64 << 20);
        assert_eq!((restored.requests, restored.damaged), (1, 0));
        assert_eq!(take_all(&mut spool), [41]);
    });
    umount2(path, MntFlags::MNT_DETACH).unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Sizes of what is on disk, as the spool counts them.
fn on_disk(directory: &Path) -> u64 {
    segments(directory).iter().map(|path| path.metadata().unwrap().len()).sum()
}

/// What an earlier run left is counted whole, and a segment that is begun, too.
#[test]
fn no_byte_more_than_it_may_hold() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), LIMIT);
    append(&mut spool, &numbered(0, 400));
    drop(spool);
    let file = segments(directory.path()).pop().unwrap();
    let file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
    file.write_all_at(&[0xff; 100], 8 + 418).unwrap();
    // The next record would fit, but not with the mark of the segment that it begins.
    let limit = 8 + 418 + 100 + 118;
    let (mut spool, restored) = open(directory.path(), limit);
    assert_eq!(restored, Restored { requests: 1, items: 2, damaged: 1 });
    assert_eq!(spool.bytes(), 8 + 418 + 100);
    let mut lost = Lost::default();
    for number in 1..3 {
        spool.append(&numbered(number, 100), &mut lost).unwrap();
        assert_eq!(on_disk(directory.path()), spool.bytes());
        assert!(spool.bytes() <= limit, "{spool:?}");
    }
    assert_eq!(lost.items, 2);
    assert_eq!(take_all(&mut spool), [1, 2]);
}

/// A record with a right checksum and more items than bytes was never written.
#[test]
fn numbers_of_items_that_cannot_be() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), LIMIT);
    let many = Request { items: u64::MAX, ..numbered(0, 100) };
    let result = spool.append(&many, &mut Lost::default());
    assert!(matches!(result, Err(AppendError::TooLarge)), "{result:?}");
    append(&mut spool, &numbered(0, 100));
    assert_eq!(take_all(&mut spool), [0]);
}

/// Files that are called nearly like segments are somebody else's.
#[test]
fn only_its_own_files() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["1.spool", "+000000000000002.spool", "000000000000000A.spool"] {
        std::fs::write(directory.path().join(name), b"other").unwrap();
    }
    let (mut spool, restored) = open(directory.path(), LIMIT);
    assert_eq!(restored, Restored::default());
    append(&mut spool, &numbered(0, 100));
    assert_eq!(take_all(&mut spool), [0]);
    assert_eq!(segments(directory.path()).iter().filter(|path| path.ends_with("1.spool")).count(), 1);
}
