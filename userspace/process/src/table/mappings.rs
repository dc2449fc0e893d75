//! The executable mappings of one process, sorted, with the newest on top where they overlap. Pure.

use std::sync::Arc;

use descry_decode::ids::{BootNanos, ElfAddress, FileOffset, RuntimeAddress};

use crate::maps::{Device, MAX_MAPPINGS};
use crate::object::ObjectId;

/// What a mapping is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingTarget {
    /// A binary.
    Object {
        /// Which.
        id: ObjectId,
        /// Runtime address - ELF address (wrapping).
        bias: u64,
    },
    /// Code made at run time, in no ELF file.
    Anonymous,
    /// The fixed page of old system calls.
    Vsyscall,
    /// A file that descry cannot use; its name is all there is.
    Unreadable,
}

/// An executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMapping {
    /// First address.
    pub start: RuntimeAddress,
    /// First address after it.
    pub end: RuntimeAddress,
    /// Where in the file `start` lies.
    pub offset: FileOffset,
    /// The file's path as the process saw it, or the kernel's name for what is mapped; empty: it has none.
    pub name: Arc<str>,
    /// What it is of.
    pub target: MappingTarget,
    /// Device and inode number of the file, where they are known.
    pub inode: Option<(Device, u64)>,
    /// When it was seen; the mapping may be older.
    pub since: BootNanos,
}

impl TableMapping {
    fn cut(&self, start: u64, end: u64) -> Option<Self> {
        (start < end).then(|| Self {
            start: RuntimeAddress(start),
            end: RuntimeAddress(end),
            offset: FileOffset(self.offset.0.wrapping_add(start.wrapping_sub(self.start.0))),
            ..self.clone()
        })
    }

    /// Equal but for when it was seen.
    fn same(&self, other: &Self) -> bool {
        *self == Self { since: self.since, ..other.clone() }
    }
}

/// What an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A binary.
    Object {
        /// Which.
        id: ObjectId,
        /// The address in its own numbering.
        address: ElfAddress,
    },
    /// Code made at run time.
    Anonymous,
    /// The fixed page of old system calls.
    Vsyscall,
    /// A file that descry cannot use, so that `[NAME+0xOFFSET]` is all that can be said.
    Unreadable {
        /// The file's path as the process saw it.
        name: Arc<str>,
        /// Where in the file.
        offset: FileOffset,
    },
    /// No known mapping.
    Unknown,
}

/// The mappings of one process: sorted, without overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mappings(Vec<TableMapping>);

impl Mappings {
    pub(super) fn as_slice(&self) -> &[TableMapping] {
        &self.0
    }

    pub(super) fn find(&self, address: RuntimeAddress) -> Option<&TableMapping> {
        let after = self.0.partition_point(|mapping| mapping.start <= address);
        self.0.get(after.checked_sub(1)?).filter(|mapping| address < mapping.end)
    }

    fn overlapping(&self, start: RuntimeAddress, end: RuntimeAddress) -> std::ops::Range<usize> {
        let first = self.0.partition_point(|mapping| mapping.end <= start);
        let last = self.0.partition_point(|mapping| mapping.start < end);
        first..last.max(first)
    }

    /// Whether something newer than `time` lies where `mapping` would.
    pub(super) fn is_stale(&self, mapping: &TableMapping, time: BootNanos) -> bool {
        let range = self.overlapping(mapping.start, mapping.end);
        self.0.get(range).is_some_and(|under| under.iter().any(|mapping| mapping.since > time))
    }

    /// Maps over what was there, as mmap(2) does. False: there are too many, and nothing changed.
    pub(super) fn insert(&mut self, mapping: TableMapping) -> bool {
        let range = self.overlapping(mapping.start, mapping.end);
        let under = self.0.get(range.clone()).unwrap_or(&[]);
        let left = under.first().and_then(|first| first.cut(first.start.0, mapping.start.0.min(first.end.0)));
        let right = under.last().and_then(|last| last.cut(mapping.end.0.max(last.start.0), last.end.0));
        if self.0.len() - under.len() + 3 > MAX_MAPPINGS {
            return false;
        }
        self.0.splice(range, left.into_iter().chain([mapping]).chain(right));
        true
    }

    /// Takes what `/proc` says now; `mappings` is sorted. True: something changed.
    pub(super) fn replace(&mut self, mappings: Vec<TableMapping>) -> bool {
        let same =
            self.0.len() == mappings.len() && self.0.iter().zip(&mappings).all(|(old, new)| old.same(new));
        self.0 = mappings;
        !same
    }

    /// Drops all that was seen before `time`. True: something changed.
    pub(super) fn drop_before(&mut self, time: BootNanos) -> bool {
        let before = self.0.len();
        self.0.retain(|mapping| mapping.since >= time);
        self.0.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64, name: &str) -> TableMapping {
        TableMapping {
            start: RuntimeAddress(start),
            end: RuntimeAddress(end),
            offset: FileOffset(start),
            name: name.into(),
            target: MappingTarget::Unreadable,
            inode: None,
            since: BootNanos(0),
        }
    }

    /// Inserts in order; `expected` lists (start, end, name). An offset that equals its start shows right cuts.
    fn check(inserted: &[(u64, u64, &str)], expected: &[(u64, u64, &str)]) {
        let mut mappings = Mappings::default();
        for (start, end, name) in inserted {
            assert!(mappings.insert(mapping(*start, *end, name)));
        }
        let found: Vec<_> =
            mappings.as_slice().iter().map(|found| (found.start.0, found.end.0, &*found.name)).collect();
        assert_eq!(found, expected);
        assert!(
            mappings.as_slice().iter().all(|found| found.offset.0 == found.start.0),
            "offsets follow cuts"
        );
    }

    #[test]
    fn newer_mappings_cover_older_ones() {
        check(&[(10, 20, "a"), (30, 40, "b")], &[(10, 20, "a"), (30, 40, "b")]);
        check(&[(30, 40, "b"), (10, 20, "a")], &[(10, 20, "a"), (30, 40, "b")]);
        check(&[(10, 40, "a"), (20, 30, "b")], &[(10, 20, "a"), (20, 30, "b"), (30, 40, "a")]);
        check(&[(10, 20, "a"), (20, 30, "b"), (15, 25, "c")], &[(10, 15, "a"), (15, 25, "c"), (25, 30, "b")]);
        check(&[(10, 20, "a"), (20, 30, "b"), (5, 35, "c")], &[(5, 35, "c")]);
        check(&[(10, 20, "a"), (10, 20, "b")], &[(10, 20, "b")]);
        check(&[(10, 20, "a"), (5, 10, "b"), (20, 25, "c")], &[(5, 10, "b"), (10, 20, "a"), (20, 25, "c")]);
        check(&[(10, 20, "a"), (30, 40, "b"), (20, 30, "c")], &[(10, 20, "a"), (20, 30, "c"), (30, 40, "b")]);
    }

    #[test]
    fn addresses_are_found_between_start_and_end() {
        let mut mappings = Mappings::default();
        assert!(mappings.insert(mapping(10, 20, "a")));
        let name = |address| mappings.find(RuntimeAddress(address)).map(|found| found.name.to_string());
        assert_eq!(name(9), None);
        assert_eq!(name(10).as_deref(), Some("a"));
        assert_eq!(name(19).as_deref(), Some("a"));
        assert_eq!(name(20), None);
        assert_eq!(name(u64::MAX), None);
    }
}
