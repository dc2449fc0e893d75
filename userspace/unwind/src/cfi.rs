//! The call frame information of one file, kept for walks: found once, looked up by address.

use crate::Error;
use crate::elf::{Architecture, Frames, Table};
use crate::fde::Functions;
use crate::report::{Limits, Report};
use crate::search_table::SearchTable;
use crate::section::{self, Format, Slice};
use descry_decode::ids::ElfAddress;
use gimli::UnwindSection;
use std::sync::Arc;

/// The bytes of a file, owned or mapped.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A file's tables with what it takes to find the entry of an address in some tens of nanoseconds: `.eh_frame_hdr`
/// where the linker made one, else an index in memory (24 B a function).
pub struct Cfi {
    file: Bytes,
    debug: Option<Bytes>,
    frames: Frames,
    search: Option<SearchTable>,
    /// What `search` does not cover.
    functions: Functions,
}

impl Cfi {
    /// Finds the tables of `file` and of its debug file.
    ///
    /// # Errors
    /// When the file as a whole cannot be used.
    pub fn new(file: Bytes, debug: Option<Bytes>, limits: &Limits) -> Result<(Self, Report), Error> {
        let mut report = Report::default();
        let (data, debug_data) = ((*file).as_ref(), debug.as_ref().map(|debug| (**debug).as_ref()));
        let frames = Frames::find(data, debug_data, limits, &mut report)?;
        let search = frames.search_table(data);
        let first = usize::from(search.is_some());
        let debug_data = debug_data.unwrap_or_default();
        let functions = Functions::collect(&frames, first, data, debug_data, limits, &mut report);
        Ok((Self { file, debug, frames, search, functions }, report))
    }

    /// The instruction set of the file.
    pub fn architecture(&self) -> Architecture {
        self.frames.architecture
    }

    /// Whether the address is in a signal trampoline that has no entry of its own.
    pub(crate) fn is_trampoline(&self, address: ElfAddress) -> bool {
        self.frames.trampoline.as_ref().is_some_and(|range| range.contains(&address.0))
    }

    /// Gives the entry that covers `address` to `visitor`; `None`: there is none, or it is broken.
    pub(crate) fn visit<V: Visitor>(&self, address: ElfAddress, visitor: V) -> Option<V::Output> {
        let file = (*self.file).as_ref();
        if let (Some(search), Some(table)) = (&self.search, self.frames.tables.first())
            && let Some(offset) = search.search(file, address.0)
            && let Some(section) = self.eh_frame(table)
            && let Ok(fde) = section::fde_alone(&section, &table.bases, offset)
            && fde.contains(address.0)
        {
            return Some(visitor.visit(&section, &table.bases, &fde));
        }
        let function = self.functions.find(address.0)?;
        let table = self.frames.tables.get(function.table as usize)?;
        let offset = function.offset as usize;
        if let Some(section) = self.eh_frame(table) {
            let fde = section::fde_alone(&section, &table.bases, offset).ok()?;
            return Some(visitor.visit(&section, &table.bases, &fde));
        }
        let section = section::debug_frame(self.data(table), self.frames.architecture);
        let fde = section::fde_alone(&section, &table.bases, offset).ok()?;
        Some(visitor.visit(&section, &table.bases, &fde))
    }

    fn data<'a>(&'a self, table: &'a Table) -> &'a [u8] {
        let debug = self.debug.as_ref().map(|debug| (**debug).as_ref()).unwrap_or_default();
        table.data((*self.file).as_ref(), debug)
    }

    fn eh_frame<'a>(&'a self, table: &'a Table) -> Option<gimli::EhFrame<Slice<'a>>> {
        (table.format == Format::EhFrame)
            .then(|| section::eh_frame(self.data(table), self.frames.architecture))
    }
}

impl std::fmt::Debug for Cfi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cfi").field("architecture", &self.frames.architecture).finish_non_exhaustive()
    }
}

/// What is done with an entry: a closure that takes either kind of section.
pub(crate) trait Visitor {
    type Output;

    fn visit<'a, S: UnwindSection<Slice<'a>>>(
        self,
        section: &S,
        bases: &gimli::BaseAddresses,
        fde: &section::Fde<'a>,
    ) -> Self::Output;
}
