//! Files and lines of one unit.

use std::sync::Arc;

use gimli::{LineProgramHeader, Reader as _, Unit};
use rustc_hash::FxHashMap;

use super::Result;
use super::units::Units;
use crate::reader::SectionReader;

/// Bytes of a path; longer ones are cut.
const MAX_PATH: usize = 4096;

/// A place in the source, its file by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) file: u64,
    /// 0: unknown.
    pub(super) line: u64,
    /// 0: unknown.
    pub(super) column: u64,
}

/// Runs the line program of a unit and tells the position of each address with these indices (ascending).
pub(super) fn run(
    unit: &Unit<SectionReader>,
    addresses: &[u64],
    indices: &[usize],
    lowest: u64,
    positions: &mut FxHashMap<usize, Position>,
) -> Result<()> {
    let Some(program) = unit.line_program.clone() else { return Ok(()) };
    let address_of = |index: &usize| addresses.get(*index).copied().unwrap_or(u64::MAX);
    let mut rows = program.rows();
    let mut before: Option<(u64, Position)> = None;
    while let Some((_, row)) = rows.next_row()? {
        // A row holds up to the address of the next one of its sequence.
        if let Some((start, position)) =
            before.take().filter(|(start, _)| *start >= lowest && *start < row.address())
        {
            let first = indices.partition_point(|index| address_of(index) < start);
            for index in indices.get(first..).unwrap_or_default() {
                if address_of(index) >= row.address() {
                    break;
                }
                positions.entry(*index).or_insert(position);
            }
        }
        if !row.end_sequence() {
            let column = match row.column() {
                gimli::ColumnType::LeftEdge => 0,
                gimli::ColumnType::Column(column) => column.get(),
            };
            let line = row.line().map_or(0, |line| line.get());
            before = Some((row.address(), Position { file: row.file_index(), line, column }));
        }
    }
    Ok(())
}

/// The names of a unit's files, each put together once.
pub(super) struct Files<'a> {
    units: &'a Units,
    unit: &'a Unit<SectionReader>,
    known: FxHashMap<u64, Option<Arc<str>>>,
}

impl<'a> Files<'a> {
    pub(super) fn new(units: &'a Units, unit: &'a Unit<SectionReader>) -> Self {
        Self { units, unit, known: FxHashMap::default() }
    }

    /// The path of a file by its number in the line program.
    pub(super) fn path(&mut self, index: u64) -> Option<Arc<str>> {
        if let Some(known) = self.known.get(&index) {
            return known.clone();
        }
        let program = self.unit.line_program.as_ref()?;
        let path =
            self.put_together(program.header(), index).map(|path| crate::name::cut(&path, MAX_PATH).into());
        self.known.insert(index, path.clone());
        path
    }

    fn put_together(&self, header: &LineProgramHeader<SectionReader>, index: u64) -> Option<String> {
        let file = header.file(index)?;
        let string = |value| {
            let reader = self.units.dwarf.attr_string(self.unit, value).ok()?;
            Some(reader.to_string_lossy().ok()?.into_owned())
        };
        let mut path = match &self.unit.comp_dir {
            Some(directory) => directory.to_string_lossy().ok()?.into_owned(),
            None => String::new(),
        };
        if let Some(directory) = file.directory(header).and_then(string) {
            join(&mut path, &directory);
        }
        join(&mut path, &string(file.path_name())?);
        Some(path)
    }
}

fn join(path: &mut String, part: &str) {
    if part.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(part);
}
