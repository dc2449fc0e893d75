//! Rows as the slots that the kernel side reads.
//!
//! ```text
//! first slot                                                         multiple of CHUNK_SLOTS
//! | index: a slot a page | rows of page 0, 1, 2... | unused, if a page's rows do not fit |  rows of page n...
//! ```
//!
//! The rule in force at the start of a page is, as a rule, the last row of the page before: the two share that row.
//! It is written again only where the rows of a page would lie in two chunks.

use crate::rows::Rows;
use crate::rule::Rule;
use descry_abi::limits::CHUNK_SLOTS;
use descry_abi::unwind::{CfaKind, IndexEntry, MAX_PAGE_ROWS, Mapping, PAGE_SHIFT, Row};
use descry_decode::ids::ElfAddress;

const CHUNK: u64 = CHUNK_SLOTS as u64;

/// Where the index of a file is: what [`Mapping`] holds beside the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Placement {
    /// Slot of the index entry of `first_page`.
    pub index: u32,
    /// Entries of the index.
    pub pages: u32,
    /// ELF address >> [`PAGE_SHIFT`] of the first entry.
    pub first_page: u32,
}

impl Placement {
    /// The mapping of `start..end` (runtime addresses) with these tables; ELF address = runtime address - `bias`.
    pub fn mapping(self, start: u64, end: u64, bias: u64) -> Mapping {
        let Self { index, pages, first_page } = self;
        Mapping { start, end, bias, index, pages, first_page, reserved: 0 }
    }
}

/// Why there are no tables; `E` is what the writer failed with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError<E> {
    /// Addresses or number of the rows do not fit the tables' 32-bit fields.
    #[error(
        "{rows} rows from {first} on do not fit into the kernel's tables; the file is unwound in userspace"
    )]
    TooLarge {
        /// How many rows.
        rows: usize,
        /// The first address.
        first: ElfAddress,
    },
    /// Slots could not be written.
    #[error(transparent)]
    Write(#[from] E),
}

/// How many slots [`layout`] needs at most, wherever the first one is.
pub fn slots_needed(rows: &Rows) -> u64 {
    let Some(Extent { pages, .. }) = Extent::of(rows) else { return 0 };
    let dense = pages + rows.len() as u64 + 1;
    // Each border of chunks costs the page that would straddle it, and the row in force written again.
    let lost = u64::from(MAX_PAGE_ROWS) + 1;
    let borders = dense / (CHUNK - lost) + 2;
    dense + borders * lost
}

/// Lays out the index and the rows from slot `first` on. `write` gets words and the number of the slot that they begin
/// at, in pieces: the rows first, each slot once.
///
/// # Errors
/// When the addresses reach past 2^40 or the slots past 2^32, and what `write` fails with.
pub fn layout<E>(
    rows: &Rows,
    first: u32,
    write: impl FnMut(u32, &[u64]) -> Result<(), E>,
) -> Result<Placement, LayoutError<E>> {
    let Some(extent) = Extent::of(rows) else { return Ok(Placement::default()) };
    let fits = u64::from(first).checked_add(slots_needed(rows)).is_some_and(|end| end < u64::from(u32::MAX));
    let (true, Ok(pages), Ok(first_page)) =
        (fits, u32::try_from(extent.pages), u32::try_from(extent.first_page))
    else {
        let first = ElfAddress(extent.first_page << PAGE_SHIFT);
        return Err(LayoutError::TooLarge { rows: rows.len(), first });
    };

    let mut index = vec![0; pages as usize];
    let mut writer =
        Writer { next: u64::from(first) + u64::from(pages), piece: Vec::new(), in_force: None, write };
    let mut rest = rows.iter().peekable();
    // The rule in force, and the rows that begin inside the page at hand.
    let mut rule = Row::default();
    let mut inside = Vec::new();
    for (page, slot) in index.iter_mut().enumerate() {
        let start = (u64::from(first_page) + page as u64) << PAGE_SHIFT;
        inside.clear();
        while let Some((address, next)) =
            rest.next_if(|(address, _)| address.0 >> PAGE_SHIFT << PAGE_SHIFT == start)
        {
            let row = next.row(address.0 as u16);
            if address.0 == start { rule = row } else { inside.push(row) }
        }
        if inside.is_empty() && rule.cfa_kind == CfaKind::None as u8 {
            continue;
        }
        *slot = writer.page(rule, &inside)?.to_slot();
        rule = inside.last().copied().unwrap_or(rule);
    }
    writer.flush()?;
    (writer.write)(first, &index)?;
    Ok(Placement { index: first, pages, first_page })
}

/// The pages from the first row to the last.
struct Extent {
    first_page: u64,
    pages: u64,
}

impl Extent {
    fn of(rows: &Rows) -> Option<Self> {
        let mut rows = rows.iter();
        let (first, _) = rows.next()?;
        let last = rows.next_back().map_or(first, |(last, _)| last);
        let first_page = first.0 >> PAGE_SHIFT;
        Some(Self { first_page, pages: (last.0 >> PAGE_SHIFT) - first_page + 1 })
    }
}

/// Words of a piece: enough that few are written, and little memory.
const PIECE: usize = 1 << 15;

struct Writer<W> {
    /// Number of the slot after the last.
    next: u64,
    /// The last words, not yet written.
    piece: Vec<u64>,
    /// The last row and its slot.
    in_force: Option<(Row, u64)>,
    write: W,
}

impl<E, W: FnMut(u32, &[u64]) -> Result<(), E>> Writer<W> {
    /// Puts the rows of a page: the one in force at its start, and those inside.
    fn page(&mut self, in_force: Row, inside: &[Row]) -> Result<IndexEntry, E> {
        let len = inside.len() as u64;
        let shared = self.in_force.filter(|(row, _)| *row == in_force).map(|(_, slot)| slot);
        let first = match shared {
            Some(slot) if slot / CHUNK == (slot + len) / CHUNK => slot,
            _ => {
                if self.next / CHUNK != (self.next + len) / CHUNK {
                    let border = (self.next / CHUNK + 1) * CHUNK;
                    while self.next < border {
                        self.put(0)?;
                    }
                }
                let slot = self.next;
                self.put(in_force.to_slot())?;
                slot
            }
        };
        for row in inside {
            self.put(row.to_slot())?;
        }
        let last = inside.last().copied().unwrap_or(in_force);
        self.in_force = Some((last, first + len));
        Ok(IndexEntry { first: first as u32, count: (len + 1) as u32 })
    }

    fn put(&mut self, word: u64) -> Result<(), E> {
        self.piece.push(word);
        self.next += 1;
        if self.piece.len() == PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), E> {
        let first = self.next - self.piece.len() as u64;
        (self.write)(first as u32, &self.piece)?;
        self.piece.clear();
        Ok(())
    }
}

/// Finds the rule in force at a runtime address as the kernel side does. `slots` begins with slot `first_slot`.
///
/// The reference for tests of the layout and of the kernel side.
pub fn find(slots: &[u64], first_slot: u32, mapping: &Mapping, address: u64) -> Option<Rule> {
    let slot = |number: u32| slots.get(number.checked_sub(first_slot)? as usize).copied();
    let address = address.wrapping_sub(mapping.bias);
    let page = u32::try_from((address >> PAGE_SHIFT).checked_sub(u64::from(mapping.first_page))?).ok()?;
    if page >= mapping.pages {
        return None;
    }
    let IndexEntry { first, count } = IndexEntry::from_slot(slot(mapping.index.checked_add(page)?)?);
    // The first row is in force whatever its address says.
    let mut low = 0;
    let mut high = count.checked_sub(1)?;
    while low < high {
        let middle = high - (high - low) / 2;
        if Row::from_slot(slot(first.checked_add(middle)?)?).pc_low <= address as u16 {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Rule::from_row(Row::from_slot(slot(first.checked_add(low)?)?)).filter(|rule| rule.cfa != CfaKind::None)
}
