//! USDT probes (`.note.stapsdt`): marks that a program's authors put into its code.
//!
//! Layout: <https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation>.

use std::sync::Arc;

use descry_decode::ids::{ElfAddress, FileOffset};
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, ObjectSegment};
use wildmatch::WildMatch;

use crate::binary::{Binary, BinaryError};

/// Notes that are read of a file at most.
const MAX_NOTES: usize = 65_536;
/// Name and type of a probe's note.
const NOTE_NAME: &[u8] = b"stapsdt\0";
const NOTE_TYPE: u32 = 3;

/// `PROVIDER:NAME`, each a glob.
#[derive(Clone, Debug, PartialEq)]
pub struct UsdtPattern {
    /// As the user wrote it.
    pub text: String,
    provider: WildMatch,
    name: WildMatch,
}

impl UsdtPattern {
    /// Reads a pattern; none: it has no colon.
    pub fn parse(text: &str) -> Option<Self> {
        let (provider, name) = text.split_once(':').filter(|(_, name)| !name.is_empty())?;
        Some(Self { text: text.to_owned(), provider: WildMatch::new(provider), name: WildMatch::new(name) })
    }

    /// Whether this probe is meant.
    pub fn is_of(&self, probe: &UsdtProbe) -> bool {
        self.provider.matches(&probe.provider) && self.name.matches(&probe.name)
    }
}

/// A probe in a file's code. One of a name may stand in many places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsdtProbe {
    /// Who put it there.
    pub provider: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its instruction, a nop.
    pub address: ElfAddress,
    /// Where that is in the file.
    pub offset: FileOffset,
    /// Where the counter is that is above zero while somebody listens.
    pub semaphore: Option<FileOffset>,
    /// Where its arguments are, as the note says (`-4@%edi 8@16(%rsp)`).
    pub arguments: Arc<str>,
}

/// The probes of a file. What is damaged is passed over.
pub fn probes(binary: &Binary<'_>, bytes: &[u8]) -> Result<Vec<UsdtProbe>, BinaryError> {
    let file = ElfFile64::<Endianness>::parse(bytes).map_err(|_| BinaryError::Damaged)?;
    let Some(notes) = file.section_by_name(".note.stapsdt").and_then(|section| section.data().ok()) else {
        return Ok(Vec::new());
    };
    // The linker writes the base twice; if the file was moved since (prelink), the two differ by as much.
    let base = file.section_by_name(".stapsdt.base").map(|section| section.address());
    let file_offset = |address: u64| {
        file.segments().find_map(|segment| {
            let (offset, len) = segment.file_range();
            let into = address.checked_sub(segment.address()).filter(|into| *into < len)?;
            offset.checked_add(into).map(FileOffset)
        })
    };
    let mut probes = Vec::new();
    let mut rest = notes;
    while let Some((description, next)) = note(rest).filter(|_| probes.len() < MAX_NOTES) {
        rest = next;
        let Some(probe) = description.and_then(Description::parse) else { continue };
        let moved = base.map_or(0, |base| base.wrapping_sub(probe.base));
        let address = ElfAddress(probe.location.wrapping_add(moved));
        let Some(offset) = binary.offset(address) else { continue };
        probes.push(UsdtProbe {
            provider: probe.provider.into(),
            name: probe.name.into(),
            address,
            offset,
            semaphore: Some(probe.semaphore)
                .filter(|semaphore| *semaphore != 0)
                .and_then(|semaphore| file_offset(semaphore.wrapping_add(moved))),
            arguments: probe.arguments.into(),
        });
    }
    Ok(probes)
}

/// The first note's description, if it is of a probe, and what follows the note.
fn note(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let padded = |len: u32| (len as usize).checked_next_multiple_of(4);
    let (name_len, len, kind) = (word(0)?, word(4)?, word(8)?);
    let name_end = padded(name_len)?.checked_add(12)?;
    let end = name_end.checked_add(padded(len)?)?;
    let is_probe = kind == NOTE_TYPE && bytes.get(12..)?.starts_with(NOTE_NAME);
    let description = bytes.get(name_end..name_end.checked_add(len as usize)?)?;
    // The last note may lack its padding.
    Some((is_probe.then_some(description), bytes.get(end..).unwrap_or_default()))
}

struct Description<'a> {
    location: u64,
    base: u64,
    semaphore: u64,
    provider: &'a str,
    name: &'a str,
    arguments: &'a str,
}

impl<'a> Description<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (words, rest) = bytes.split_at_checked(24)?;
        let mut words = words.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut texts =
            rest.split(|byte| *byte == 0).map(|text| std::str::from_utf8(text).unwrap_or_default());
        Some(Self {
            location: words.next()?,
            base: words.next()?,
            semaphore: words.next()?,
            provider: texts.next()?,
            name: texts.next()?,
            arguments: texts.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shared object with one probe, whose counter is in the second segment.
    const FILE: &[u8] = include_bytes!("../../../tests/fuzz/corpus/function/code");
    /// Where that segment's header says where it is in the file.
    const OFFSET: std::ops::Range<usize> = 64 + 56 + 8..64 + 56 + 16;

    #[test]
    fn a_probe_and_its_counter() {
        let check = |segment: u64, semaphore: Option<u64>| {
            let mut bytes = FILE.to_vec();
            bytes[OFFSET].copy_from_slice(&segment.to_le_bytes());
            let binary = Binary::parse(&bytes, None).expect("a file");
            let expected = UsdtProbe {
                provider: "app".into(),
                name: "request".into(),
                address: ElfAddress(0x3d0),
                offset: FileOffset(0x3d0),
                semaphore: semaphore.map(FileOffset),
                arguments: "-4@%edi 8@%rsi 8@-16(%rbp) -4@$7".into(),
            };
            assert_eq!(probes(&binary, &bytes), Ok(vec![expected]), "{segment:#x}");
        };
        check(0x460, Some(0x5b8));
        // Beyond the end of all files.
        check(u64::MAX - 0x100, None);
    }
}
