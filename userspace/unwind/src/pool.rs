//! Who has which slots of the kernel's tables.
//!
//! You ask for room for the tables of a file or the mappings of a process; you get a first slot, or what had to leave
//! for it. The pool keeps no table itself. Its duties and the caller's:
//!
//! - The kernel side may still read what was given back, for as long as one run of its program takes. So slots that
//!   are given back or evicted rest until the second [`Pool::tick`] after, and are never handed out before. On
//!   [`Reservation::Evicted`] the caller marks the mappings that point at the evicted files as not loaded, and asks
//!   again after a tick.
//! - Slots come in chunks of [`CHUNK_SLOTS`], each a map of its own in the kernel. A reservation says which chunks it
//!   opened, a tick which ones nobody uses any more.
//! - Tables of files may lie across chunks (see [`crate::layout`]); the mappings of a process lie in one.
//! - Files that were used since the tick before last are not evicted: a working set larger than the pool is refused
//!   ([`Reservation::Full`]) instead of turning around for ever.

use descry_abi::limits::CHUNK_SLOTS;
use descry_abi::unwind::MAPPING_SLOTS;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

const CHUNK: u64 = CHUNK_SLOTS as u64;

/// A range of slots that somebody has.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "slots that are not given back are lost"]
pub struct Slots {
    first: u32,
    len: u32,
}

impl Slots {
    /// The first slot.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// How many.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What came of a request for room.
#[derive(Debug, PartialEq, Eq)]
pub enum Reservation<K, T> {
    /// There is room. The chunks in `opened` were unused until now: their maps have to be made first.
    Ready {
        /// The room.
        slots: T,
        /// Numbers of the chunks that come into use.
        opened: Vec<u32>,
    },
    /// These files had to leave; there may be room after the next ticks.
    Evicted(Vec<K>),
    /// There is not enough room, and nothing unused that could leave. Count it; the code is walked in userspace.
    Full,
}

/// How full the pool is (slots of 8 bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All slots.
    pub capacity: u64,
    /// Slots of files.
    pub files: u64,
    /// Slots of mappings.
    pub mappings: u64,
    /// Slots given back that rest until a tick.
    pub resting: u64,
    /// Chunks in use.
    pub chunks: u32,
}

#[derive(Debug)]
struct File {
    slots: Slots,
    used: u64,
}

/// The allocator. `K` names a file.
#[derive(Debug)]
pub struct Pool<K> {
    capacity: u64,
    free: FreeList,
    files: FxHashMap<K, File>,
    mapping_slots: u64,
    /// Given back since the last tick, and between the two before.
    resting: [Vec<Slots>; 2],
    ticks: u64,
    /// Chunks for which the caller has maps.
    open: BTreeSet<u32>,
}

impl<K: Clone + Eq + Hash + Ord> Pool<K> {
    /// A pool of as many whole chunks as fit into `bytes`, but at least one.
    pub fn new(bytes: u64) -> Self {
        // The last slots of the 32-bit range are the `INDEX_*` marks.
        let chunks = (bytes / (CHUNK * 8)).clamp(1, u64::from(u32::MAX) / CHUNK - 1);
        let capacity = chunks * CHUNK;
        Self {
            capacity,
            free: FreeList::new(capacity),
            files: FxHashMap::default(),
            mapping_slots: 0,
            resting: [Vec::new(), Vec::new()],
            ticks: 0,
            open: BTreeSet::new(),
        }
    }

    /// Room for the tables of `file`, or the room that it has; gives its first slot.
    ///
    /// A file that needs another size has to be [removed](Self::remove_file) first.
    pub fn reserve_file(&mut self, file: K, slots: u64) -> Reservation<K, u32> {
        if let Some(first) = self.touch(&file) {
            return Reservation::Ready { slots: first, opened: Vec::new() };
        }
        match self.reserve(slots, false) {
            Reservation::Ready { slots, opened } => {
                let first = slots.first;
                self.files.insert(file, File { slots, used: self.ticks });
                Reservation::Ready { slots: first, opened }
            }
            Reservation::Evicted(files) => Reservation::Evicted(files),
            Reservation::Full => Reservation::Full,
        }
    }

    /// Room for `count` mappings of a process, in one chunk.
    pub fn reserve_mappings(&mut self, count: u32) -> Reservation<K, Slots> {
        let needed = u64::from(count) * MAPPING_SLOTS as u64;
        let reservation = self.reserve(needed, true);
        if matches!(reservation, Reservation::Ready { .. }) {
            self.mapping_slots += needed;
        }
        reservation
    }

    /// Gives back the mappings of a process.
    pub fn release_mappings(&mut self, slots: Slots) {
        self.mapping_slots = self.mapping_slots.saturating_sub(u64::from(slots.len));
        self.rest(slots);
    }

    /// Gives back the tables of a file; `false`: it has none.
    pub fn remove_file(&mut self, file: &K) -> bool {
        let removed = self.files.remove(file);
        let found = removed.is_some();
        if let Some(File { slots, .. }) = removed {
            self.rest(slots);
        }
        found
    }

    /// Notes that samples hit the file; gives the first slot of its tables.
    pub fn touch(&mut self, file: &K) -> Option<u32> {
        let file = self.files.get_mut(file)?;
        file.used = self.ticks;
        Some(file.slots.first)
    }

    /// Call this at a steady pace, at least some milliseconds apart. Slots that were given back before the previous
    /// tick become free; gives the chunks that nobody uses any more, whose maps may go.
    pub fn tick(&mut self) -> Vec<u32> {
        self.ticks += 1;
        let [recent, before] = &mut self.resting;
        for slots in before.drain(..) {
            self.free.insert(u64::from(slots.first), u64::from(slots.len));
        }
        std::mem::swap(recent, before);
        let closed: Vec<u32> =
            self.open.iter().copied().filter(|chunk| self.free.has_chunk(*chunk)).collect();
        for chunk in &closed {
            self.open.remove(chunk);
        }
        closed
    }

    /// How full the pool is.
    pub fn usage(&self) -> Usage {
        Usage {
            capacity: self.capacity,
            files: self.files.values().map(|file| u64::from(file.slots.len)).sum(),
            mappings: self.mapping_slots,
            resting: self.resting.iter().flatten().map(|slots| u64::from(slots.len)).sum(),
            chunks: self.open.len() as u32,
        }
    }

    fn rest(&mut self, slots: Slots) {
        let [recent, _] = &mut self.resting;
        recent.push(slots);
    }

    fn reserve(&mut self, len: u64, in_one_chunk: bool) -> Reservation<K, Slots> {
        if len > self.capacity || (in_one_chunk && len > CHUNK) {
            return Reservation::Full;
        }
        if let Some(first) = self.free.take(len, in_one_chunk) {
            // Both are below the capacity, which is below 2^32.
            let slots = Slots { first: first as u32, len: len as u32 };
            let opened = self.open(first, len);
            return Reservation::Ready { slots, opened };
        }
        self.make_room(len, in_one_chunk)
    }

    fn open(&mut self, first: u64, len: u64) -> Vec<u32> {
        let chunks = (first / CHUNK) as u32..first.saturating_add(len).div_ceil(CHUNK) as u32;
        chunks.filter(|chunk| self.open.insert(*chunk)).collect()
    }

    /// Evicts files, the longest unused first, until there will be room.
    fn make_room(&mut self, len: u64, in_one_chunk: bool) -> Reservation<K, Slots> {
        let mut future = self.free.clone();
        for slots in self.resting.iter().flatten() {
            future.insert(u64::from(slots.first), u64::from(slots.len));
        }
        let mut candidates: Vec<(u64, K)> = self
            .files
            .iter()
            .filter(|(_, file)| file.used + 1 < self.ticks)
            .map(|(key, file)| (file.used, key.clone()))
            .collect();
        candidates.sort_unstable();
        let mut evicted = Vec::new();
        let mut candidates = candidates.into_iter();
        while future.find(len, in_one_chunk).is_none() {
            let Some((_, key)) = candidates.next() else { return Reservation::Full };
            if let Some(file) = self.files.get(&key) {
                future.insert(u64::from(file.slots.first), u64::from(file.slots.len));
            }
            evicted.push(key);
        }
        for key in &evicted {
            self.remove_file(key);
        }
        Reservation::Evicted(evicted)
    }
}

/// Free ranges by first slot; neighbours are joined.
#[derive(Clone, Debug)]
struct FreeList(BTreeMap<u64, u64>);

impl FreeList {
    fn new(capacity: u64) -> Self {
        Self(BTreeMap::from([(0, capacity)]))
    }

    /// First place of `len` slots.
    fn find(&self, len: u64, in_one_chunk: bool) -> Option<u64> {
        self.0.iter().find_map(|(&first, &free)| {
            let end = first + free;
            let straddles = in_one_chunk && len > 0 && first / CHUNK != (first + len - 1) / CHUNK;
            let place = if straddles { (first / CHUNK + 1) * CHUNK } else { first };
            (place + len <= end).then_some(place)
        })
    }

    fn take(&mut self, len: u64, in_one_chunk: bool) -> Option<u64> {
        let place = self.find(len, in_one_chunk)?;
        if len == 0 {
            return Some(place);
        }
        let (&first, &free) = self.0.range(..=place).next_back()?;
        self.0.remove(&first);
        if place > first {
            self.0.insert(first, place - first);
        }
        let (end, taken) = (first + free, place + len);
        if end > taken {
            self.0.insert(taken, end - taken);
        }
        Some(place)
    }

    fn insert(&mut self, mut first: u64, mut len: u64) {
        if len == 0 {
            return;
        }
        if let Some((&before, &free)) = self.0.range(..first).next_back()
            && before + free == first
        {
            self.0.remove(&before);
            first = before;
            len += free;
        }
        if let Some(after) = self.0.remove(&(first + len)) {
            len += after;
        }
        self.0.insert(first, len);
    }

    fn has_chunk(&self, chunk: u32) -> bool {
        let start = u64::from(chunk) * CHUNK;
        self.0.range(..=start).next_back().is_some_and(|(first, free)| first + free >= start + CHUNK)
    }
}
