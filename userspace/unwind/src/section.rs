//! The two kinds of tables behind one face: `.eh_frame` (LSB core specification, "Exception Frames") and
//! `.debug_frame` (DWARF 5, section 6.4).

use crate::elf::Architecture;
use gimli::{
    BaseAddresses, CommonInformationEntry, DebugFrame, EhFrame, EndianSlice, FrameDescriptionEntry,
    LittleEndian, Register, RegisterRule, UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow,
    Vendor,
};
use rustc_hash::FxHashMap;

pub(crate) type Slice<'a> = EndianSlice<'a, LittleEndian>;
pub(crate) type Cie<'a> = CommonInformationEntry<Slice<'a>>;
pub(crate) type Fde<'a> = FrameDescriptionEntry<Slice<'a>>;

/// Scratch space to run instructions in. gimli's own has room for 192 registers and 4 nested states, and copying it
/// took a third of a walk; the two architectures have at most 50 registers that code saves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scratch;

impl UnwindContextStorage<usize> for Scratch {
    type Rules = [(Register, RegisterRule<usize>); 64];
    type Stack = Box<[UnwindTableRow<usize, Self>; 8]>;
}

pub(crate) type Context = UnwindContext<usize, Scratch>;
pub(crate) type UnwindRow = UnwindTableRow<usize, Scratch>;

/// A longer CIE is refused: its instructions run again for every one of its functions, so that the work of a
/// hostile file would grow with the product. The longest known ones (signal trampolines) have about 150 bytes.
const MAX_CIE_BYTES: usize = 1024;
/// CIEs remembered at once (about 150 B each); real files have at most a few hundred.
const MAX_CACHED_CIES: usize = 4096;

/// Which of the two formats a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    EhFrame,
    DebugFrame,
}

pub(crate) fn eh_frame(data: &[u8], architecture: Architecture) -> EhFrame<Slice<'_>> {
    let mut section = EhFrame::new(data, LittleEndian);
    section.set_address_size(8);
    section.set_vendor(vendor(architecture));
    section
}

pub(crate) fn debug_frame(data: &[u8], architecture: Architecture) -> DebugFrame<Slice<'_>> {
    let mut section = DebugFrame::new(data, LittleEndian);
    section.set_address_size(8);
    section.set_vendor(vendor(architecture));
    section
}

fn vendor(architecture: Architecture) -> Vendor {
    match architecture {
        Architecture::X86_64 => Vendor::Default,
        Architecture::Aarch64 => Vendor::AArch64,
    }
}

/// The CIE at `offset`, unless it is too long or made for addresses of another size.
pub(crate) fn cie<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    offset: S::Offset,
) -> gimli::Result<Cie<'a>> {
    let cie = section.cie_from_offset(bases, offset)?;
    if cie.address_size() != 8 {
        return Err(gimli::Error::UnsupportedAddressSize(cie.address_size()));
    }
    if cie.entry_len() > MAX_CIE_BYTES {
        return Err(gimli::Error::UnsupportedOffset);
    }
    Ok(cie)
}

/// The FDE at `offset`.
pub(crate) fn fde_alone<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    offset: usize,
) -> gimli::Result<Fde<'a>> {
    section.fde_from_offset(bases, S::Offset::from(offset), cie)
}

/// The FDE at `offset`, with its CIE taken from `cies` when it was seen before.
pub(crate) fn fde<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    offset: usize,
    cies: &mut CieCache<'a>,
) -> gimli::Result<Fde<'a>> {
    section.fde_from_offset(bases, S::Offset::from(offset), |section, bases, at| {
        cies.get(gimli::UnwindOffset::into(at), || cie(section, bases, at))
    })
}

/// CIEs of one section by offset.
#[derive(Default)]
pub(crate) struct CieCache<'a>(FxHashMap<usize, Option<Cie<'a>>>);

impl<'a> CieCache<'a> {
    fn get(
        &mut self,
        offset: usize,
        parse: impl FnOnce() -> gimli::Result<Cie<'a>>,
    ) -> gimli::Result<Cie<'a>> {
        if self.0.len() >= MAX_CACHED_CIES && !self.0.contains_key(&offset) {
            self.0.clear();
        }
        let cie = self.0.entry(offset).or_insert_with(|| parse().ok());
        cie.clone().ok_or(gimli::Error::NotCieId(offset as u64))
    }
}
