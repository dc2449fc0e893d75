//! All functions of a file by address: where the FDE of each one is.

use crate::elf::{Frames, Table};
use crate::report::{Limits, Report};
use crate::section::{self, CieCache, Format, Slice};
use gimli::UnwindSection;

/// One function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Offset of the FDE in its table.
    pub(crate) offset: u32,
    /// Number of the table.
    pub(crate) table: u32,
}

/// The functions of a file, sorted by start and free of overlap.
#[derive(Debug, Default)]
pub(crate) struct Functions(Vec<Function>);

impl Functions {
    /// Walks through every table from `first` on.
    pub(crate) fn collect(
        frames: &Frames,
        first: usize,
        file: &[u8],
        debug: &[u8],
        limits: &Limits,
        report: &mut Report,
    ) -> Self {
        let mut all = Self::default();
        for (number, table) in frames.tables.iter().enumerate().skip(first) {
            let data = table.data(file, debug);
            let mut walk = Walk { frames, limits, report, table, number, data, found: Vec::new() };
            match table.format {
                Format::EhFrame => {
                    let section = section::eh_frame(data, frames.architecture);
                    let search = frames.search_table(file).filter(|_| number == 0);
                    walk.through(&section, || search.map(|s| s.offsets(file)).unwrap_or_default());
                }
                Format::DebugFrame => {
                    walk.through(&section::debug_frame(data, frames.architecture), Vec::new);
                }
            }
            let found = walk.found;
            all.merge(found, report);
        }
        all
    }

    /// Adds the functions of the next table, where no earlier one knows the address.
    fn merge(&mut self, mut found: Vec<Function>, report: &mut Report) {
        found.sort_by_key(|function| function.start);
        let before = found.len();
        found.retain(|function| !self.overlaps(function));
        report.duplicates += (before - found.len()) as u64;
        // The one that begins last wins, as in the binary search of the runtime's own unwinder.
        let before = found.len();
        found.dedup_by_key(|function| function.start);
        report.overlapping += (before - found.len()) as u64;
        let mut next_start = u64::MAX;
        for function in found.iter_mut().rev() {
            if function.end > next_start {
                function.end = next_start;
                report.overlapping += 1;
            }
            next_start = function.start;
        }
        if self.0.is_empty() {
            self.0 = found;
        } else if !found.is_empty() {
            self.0.append(&mut found);
            self.0.sort_by_key(|function| function.start);
        }
    }

    fn overlaps(&self, function: &Function) -> bool {
        let after = self.0.partition_point(|known| known.start < function.end);
        after
            .checked_sub(1)
            .and_then(|index| self.0.get(index))
            .is_some_and(|known| known.end > function.start)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Function> {
        self.0.iter()
    }

    pub(crate) fn find(&self, address: u64) -> Option<&Function> {
        let after = self.0.partition_point(|function| function.start <= address);
        self.0.get(after.checked_sub(1)?).filter(|function| address < function.end)
    }
}

struct Walk<'a, 'r> {
    frames: &'a Frames,
    limits: &'a Limits,
    report: &'r mut Report,
    table: &'a Table,
    number: usize,
    data: &'a [u8],
    found: Vec<Function>,
}

impl<'a> Walk<'a, '_> {
    /// Goes from entry to entry by their lengths. Where a length is wrong, `offsets` (those of `.eh_frame_hdr`) says
    /// where the next function is.
    fn through<S>(&mut self, section: &S, offsets: impl FnOnce() -> Vec<usize>)
    where
        S: UnwindSection<Slice<'a>>,
    {
        let mut cies = CieCache::default();
        let (mut offsets, mut known) = (Some(offsets), Vec::new());
        let mut at = 0;
        while at < self.data.len() {
            match Entry::read(self.data, at, self.table.format) {
                Some(Entry { kind: Kind::Cie, end }) => {
                    let cie = section::cie(section, &self.table.bases, S::Offset::from(at));
                    self.report.bad_cies += u64::from(cie.is_err());
                    at = end;
                }
                Some(Entry { kind: Kind::Fde, end }) => {
                    self.add(section, at, &mut cies);
                    at = end;
                }
                Some(Entry { kind: Kind::Terminator, .. }) if self.table.terminated => return,
                Some(Entry { kind: Kind::Terminator, end }) => at = end,
                None => {
                    self.report.bad_lengths += 1;
                    if let Some(offsets) = offsets.take() {
                        known = offsets();
                    }
                    let next = known.partition_point(|offset| *offset <= at);
                    let Some(next) = known.get(next) else { return };
                    at = *next;
                }
            }
        }
    }

    fn add<S: UnwindSection<Slice<'a>>>(&mut self, section: &S, at: usize, cies: &mut CieCache<'a>) {
        let Ok(fde) = section::fde(section, &self.table.bases, at, cies) else {
            self.report.bad_fdes += 1;
            return;
        };
        let (start, len) = (fde.initial_address(), fde.len());
        let (Some(end), Ok(offset)) = (start.checked_add(len), u32::try_from(at)) else {
            self.report.bad_fdes += 1;
            return;
        };
        // Linkers leave functions of no length where they folded identical ones.
        if len == 0 {
            return;
        }
        let code = &self.frames.code;
        if !code.is_empty() && !code.iter().any(|range| range.start <= start && end <= range.end) {
            self.report.outside_code += 1;
            return;
        }
        if self.found.len() >= self.limits.fdes {
            self.report.over_limit += 1;
            return;
        }
        self.report.fdes += 1;
        self.found.push(Function { start, end, offset, table: self.number as u32 });
    }
}

enum Kind {
    Cie,
    Fde,
    Terminator,
}

/// The head of an entry: what it is and where the next one begins.
struct Entry {
    kind: Kind,
    end: usize,
}

impl Entry {
    /// `None`: the length is reserved or leads out of the section.
    fn read(data: &[u8], at: usize, format: Format) -> Option<Self> {
        let short = u32::from_le_bytes(*data.get(at..)?.first_chunk()?);
        let (body, len, wide) = match short {
            // A terminator; entries of other objects may follow it.
            0 => return Some(Self { kind: Kind::Terminator, end: at + 4 }),
            0xffff_ffff => {
                let long = u64::from_le_bytes(*data.get(at + 4..)?.first_chunk()?);
                (at + 12, usize::try_from(long).ok()?, true)
            }
            0xffff_fff0.. => return None,
            _ => (at + 4, short as usize, false),
        };
        let end = body.checked_add(len).filter(|end| *end <= data.len())?;
        let kind = match (format, wide, data.get(body..end)?) {
            (Format::DebugFrame, true, [255, 255, 255, 255, 255, 255, 255, 255, ..]) => Kind::Cie,
            (Format::DebugFrame, false, [255, 255, 255, 255, ..]) => Kind::Cie,
            (Format::EhFrame, _, [0, 0, 0, 0, ..]) => Kind::Cie,
            _ => Kind::Fde,
        };
        Some(Self { kind, end })
    }
}
