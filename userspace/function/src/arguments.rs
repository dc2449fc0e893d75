//! Where a function's arguments are when it is entered, and how they are shown.
//!
//! Of functions by DWARF: the types of its parameters say in which registers they are passed (System V ABI, AMD64
//! supplement, 3.2.3). Numbers, pointers and text are read; what follows the first parameter that is passed in another
//! way than in one register is not. Of USDT probes by their notes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use descry_abi::function::{
    ARGUMENT_IN_MEMORY, ARGUMENT_IN_REGISTER, ARGUMENT_IS_CONSTANT, ArgumentPlace, ArgumentPlaces,
    MAX_ARGUMENTS,
};
use descry_decode::Argument;
use descry_decode::ids::ElfAddress;
use gimli::{
    AttributeValue, DebuggingInformationEntry, Dwarf, DwarfSections, EndianSlice, LittleEndian, SectionId,
    Unit, constants as dw,
};
use object::read::elf::ElfFile64;
use object::{CompressionFormat, Endianness, Object, ObjectSection};
use rustc_hash::FxHashMap;

/// Bytes of one section of debug information at most, and of all that had to be decompressed: a file of some kilobytes may
/// claim any number.
const MAX_SECTION: u64 = 512 << 20;
/// The sections that are read.
const SECTIONS: [SectionId; 7] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];
/// Bytes of a parameter's name at most.
const MAX_NAME: usize = 64;
/// Types that stand for another one, in a row, at most.
const MAX_TYPE_DEPTH: usize = 16;

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number with a sign, of so many bytes.
    Signed(u8),
    /// A whole number without one.
    Unsigned(u8),
    /// Yes or no.
    Bool,
    /// An address.
    Pointer,
    /// The address of text that ends in a zero byte.
    Text,
}

/// An argument that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the source.
    pub name: Arc<str>,
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub place: ArgumentPlace,
}

impl Parameter {
    /// Its value as C would write it.
    pub fn show(&self, argument: &Argument) -> String {
        let word = argument.word;
        let unused = |size: u8| 64_u32.saturating_sub(u32::from(size) * 8).min(63);
        match self.kind {
            Kind::Signed(size) => ((word << unused(size)) as i64 >> unused(size)).to_string(),
            Kind::Unsigned(size) => (word << unused(size) >> unused(size)).to_string(),
            Kind::Bool => (word & 0xff != 0).to_string(),
            Kind::Pointer => format!("{word:#x}"),
            Kind::Text if word == 0 => "NULL".to_owned(),
            Kind::Text => format!("{:?}", String::from_utf8_lossy(&argument.text)),
        }
    }
}

/// The places as the kernel side wants them.
pub fn places(parameters: &[Parameter]) -> ArgumentPlaces {
    let mut places = ArgumentPlaces::default();
    for (place, parameter) in places.iter_mut().zip(parameters) {
        *place = parameter.place;
    }
    places
}

/// All arguments of a call, `NAME=VALUE`; those that could not be read are `?`.
pub fn show(parameters: &[Parameter], values: &[Option<Argument>]) -> String {
    let mut text = String::new();
    for (parameter, value) in parameters.iter().zip(values) {
        let separator = if text.is_empty() { "" } else { ", " };
        let value = value.as_ref().map_or_else(|| "?".to_owned(), |value| parameter.show(value));
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{}={value}", parameter.name);
    }
    text
}

/// Registers of integer arguments, by their place in `struct pt_regs` (arch/x86/include/uapi/asm/ptrace.h): rdi, rsi,
/// rdx, rcx, r8, r9.
const PASSED_IN: [u8; MAX_ARGUMENTS] = [14, 13, 12, 11, 9, 8];

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;

/// The parameters of the functions at these addresses, by the debug information in a file. What is damaged is left out.
pub fn parameters(bytes: &[u8], wanted: &[ElfAddress]) -> FxHashMap<ElfAddress, Vec<Parameter>> {
    let mut found = wanted.iter().map(|address| (*address, Vec::new())).collect();
    let Ok(file) = ElfFile64::<Endianness>::parse(bytes) else { return FxHashMap::default() };
    let mut left = MAX_SECTION;
    let mut content = |id: SectionId| {
        let data = file.section_by_name(id.name())?.compressed_data().ok()?;
        if data.format == CompressionFormat::None {
            return (data.uncompressed_size <= MAX_SECTION).then_some(Cow::Borrowed(data.data));
        }
        left = left.checked_sub(data.uncompressed_size)?;
        data.decompress().ok()
    };
    let load = |id: SectionId| -> Result<_, gimli::Error> {
        Ok(SECTIONS.contains(&id).then(|| content(id)).flatten().unwrap_or_default())
    };
    let Ok(sections) = DwarfSections::load(load) else { return FxHashMap::default() };
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    let mut headers = dwarf.units();
    while let Ok(Some(header)) = headers.next() {
        // A unit that is damaged keeps what was found in it.
        if let Ok(unit) = dwarf.unit(header) {
            let _ = of_unit(&dwarf, &unit, &mut found);
        }
    }
    found
}

fn of_unit(
    dwarf: &Dwarf<Slice<'_>>,
    unit: &Unit<Slice<'_>>,
    found: &mut FxHashMap<ElfAddress, Vec<Parameter>>,
) -> gimli::Result<()> {
    let mut current: Option<Current> = None;
    let mut entries = unit.entries();
    while let Some(entry) = entries.next_dfs()? {
        if current.as_ref().is_some_and(|current| entry.depth() <= current.depth) {
            current = None;
        }
        match (entry.tag(), &mut current) {
            (dw::DW_TAG_subprogram, _) => {
                let address = match entry.attr_value(dw::DW_AT_low_pc) {
                    Some(AttributeValue::Addr(address)) => Some(address),
                    Some(AttributeValue::DebugAddrIndex(index)) => dwarf.address(unit, index).ok(),
                    _ => None,
                };
                let address = address
                    .map(ElfAddress)
                    .filter(|address| found.get(address).is_some_and(|parameters| parameters.is_empty()));
                current = address.map(|address| Current { address, depth: entry.depth(), used: Some(0) });
            }
            (dw::DW_TAG_formal_parameter, Some(current)) if entry.depth() == current.depth + 1 => {
                let parameter = current.parameter(dwarf, unit, entry);
                if let (Some(parameter), Some(list)) = (parameter, found.get_mut(&current.address)) {
                    list.push(parameter);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The function whose parameters are read.
struct Current {
    address: ElfAddress,
    depth: isize,
    /// Registers that are used up; none: where the next one is cannot be told.
    used: Option<usize>,
}

impl Current {
    fn parameter(
        &mut self,
        dwarf: &Dwarf<Slice<'_>>,
        unit: &Unit<Slice<'_>>,
        entry: &Entry<'_>,
    ) -> Option<Parameter> {
        let origin = match entry.attr_value(dw::DW_AT_abstract_origin) {
            Some(AttributeValue::UnitRef(offset)) => unit.entry(offset).ok(),
            _ => None,
        };
        let attribute = |name| {
            entry.attr_value(name).or_else(|| origin.as_ref().and_then(|origin| origin.attr_value(name)))
        };
        let kind = match attribute(dw::DW_AT_type) {
            Some(AttributeValue::UnitRef(offset)) => kind(unit, offset),
            _ => Passed::Otherwise,
        };
        let kind = match kind {
            Passed::InRegister(kind) => kind,
            // In a register of another kind.
            Passed::Float => return None,
            Passed::Otherwise => {
                self.used = None;
                return None;
            }
        };
        let used = self.used?;
        let register = *PASSED_IN.get(used)?;
        self.used = Some(used + 1);
        let name = attribute(dw::DW_AT_name).and_then(|name| dwarf.attr_string(unit, name).ok());
        let name =
            name.map(|name| String::from_utf8_lossy(name.slice()).chars().take(MAX_NAME).collect::<String>());
        let is_text = u8::from(kind == Kind::Text);
        Some(Parameter {
            name: name.unwrap_or_else(|| format!("arg{}", used + 1)).into(),
            kind,
            place: ArgumentPlace {
                source: ARGUMENT_IN_REGISTER,
                register,
                is_text,
                ..ArgumentPlace::default()
            },
        })
    }
}

/// How a type is passed.
enum Passed {
    InRegister(Kind),
    Float,
    Otherwise,
}

fn kind(unit: &Unit<Slice<'_>>, mut offset: gimli::UnitOffset) -> Passed {
    let mut is_pointed_at = false;
    for _ in 0..MAX_TYPE_DEPTH {
        let Ok(entry) = unit.entry(offset) else { break };
        let size = entry.attr_value(dw::DW_AT_byte_size).and_then(|size| size.udata_value());
        let size = size.and_then(|size| u8::try_from(size).ok());
        match entry.tag() {
            dw::DW_TAG_typedef
            | dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type => {}
            dw::DW_TAG_pointer_type | dw::DW_TAG_reference_type | dw::DW_TAG_rvalue_reference_type => {
                if is_pointed_at {
                    return Passed::InRegister(Kind::Pointer);
                }
                is_pointed_at = true;
            }
            dw::DW_TAG_base_type => {
                let encoding = match entry.attr_value(dw::DW_AT_encoding) {
                    Some(AttributeValue::Encoding(encoding)) => encoding,
                    _ => return Passed::Otherwise,
                };
                let is_character = matches!(encoding, dw::DW_ATE_signed_char | dw::DW_ATE_unsigned_char);
                return match (encoding, size) {
                    _ if is_pointed_at && is_character => Passed::InRegister(Kind::Text),
                    _ if is_pointed_at => Passed::InRegister(Kind::Pointer),
                    (dw::DW_ATE_boolean, _) => Passed::InRegister(Kind::Bool),
                    (dw::DW_ATE_signed | dw::DW_ATE_signed_char, Some(size @ 1..=8)) => {
                        Passed::InRegister(Kind::Signed(size))
                    }
                    (dw::DW_ATE_unsigned | dw::DW_ATE_unsigned_char | dw::DW_ATE_UTF, Some(size @ 1..=8)) => {
                        Passed::InRegister(Kind::Unsigned(size))
                    }
                    (dw::DW_ATE_float, Some(4 | 8)) => Passed::Float,
                    _ => Passed::Otherwise,
                };
            }
            dw::DW_TAG_enumeration_type if !is_pointed_at => {
                return size.map_or(Passed::Otherwise, |size| Passed::InRegister(Kind::Unsigned(size)));
            }
            _ if is_pointed_at => return Passed::InRegister(Kind::Pointer),
            _ => return Passed::Otherwise,
        }
        match entry.attr_value(dw::DW_AT_type) {
            Some(AttributeValue::UnitRef(next)) => offset = next,
            // `void *`.
            _ if is_pointed_at => return Passed::InRegister(Kind::Pointer),
            _ => break,
        }
    }
    Passed::Otherwise
}

/// Names of the registers in the order of `struct pt_regs`, as long ones are called.
const REGISTERS: [(&str, u8); 16] = [
    ("r15", 0),
    ("r14", 1),
    ("r13", 2),
    ("r12", 3),
    ("bp", 4),
    ("bx", 5),
    ("r11", 6),
    ("r10", 7),
    ("r9", 8),
    ("r8", 9),
    ("ax", 10),
    ("cx", 11),
    ("dx", 12),
    ("si", 13),
    ("di", 14),
    ("sp", 19),
];

/// The arguments of a USDT probe by its note: `SIZE@PLACE` each, a negative size for numbers with a sign. What has another
/// form is left out.
pub fn usdt_parameters(note: &str) -> Vec<Parameter> {
    let parameter = |(index, text): (usize, &str)| {
        let (size, place) = text.split_once('@')?;
        let size: i8 = size.parse().ok()?;
        let kind =
            if size < 0 { Kind::Signed(size.unsigned_abs()) } else { Kind::Unsigned(size.unsigned_abs()) };
        Some(Parameter { name: format!("arg{}", index + 1).into(), kind, place: usdt_place(place)? })
    };
    note.split_ascii_whitespace().take(MAX_ARGUMENTS).enumerate().filter_map(parameter).collect()
}

fn usdt_place(text: &str) -> Option<ArgumentPlace> {
    let place =
        |source, register, offset| ArgumentPlace { source, register, offset, ..ArgumentPlace::default() };
    if let Some(constant) = text.strip_prefix('$') {
        return Some(place(ARGUMENT_IS_CONSTANT, 0, constant.parse().ok()?));
    }
    if let Some(name) = text.strip_prefix('%') {
        return Some(place(ARGUMENT_IN_REGISTER, register(name)?, 0));
    }
    let (offset, rest) = text.split_once('(')?;
    let name = rest.strip_prefix('%')?.strip_suffix(')')?;
    let offset = if offset.is_empty() { 0 } else { offset.parse().ok()? };
    Some(place(ARGUMENT_IN_MEMORY, register(name)?, offset))
}

/// `rdi`, `edi`, `di`, `dil`, `r8`, `r8d` to the place in `struct pt_regs`.
fn register(name: &str) -> Option<u8> {
    let numbered = name.starts_with('r') && name.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    let long = if numbered {
        name.trim_end_matches(['d', 'w', 'b']).to_owned()
    } else {
        match name.strip_prefix(['r', 'e']).unwrap_or(name) {
            // al to dl are the low bytes of ax to dx; sil, dil, bpl, spl of si, di, bp, sp.
            low @ ("al" | "bl" | "cl" | "dl") => low.replace('l', "x"),
            other => other.trim_end_matches('l').to_owned(),
        }
    };
    REGISTERS.iter().find(|(register, _)| *register == long).map(|(_, place)| *place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usdt_notes() {
        let check = |note: &str, expected: &[(Kind, u8, u8, i32)]| {
            let found = usdt_parameters(note);
            let found: Vec<_> = found
                .iter()
                .map(|it| (it.kind, it.place.source, it.place.register, it.place.offset))
                .collect();
            assert_eq!(found, expected, "{note}");
        };
        check(
            "-4@%edi 8@16(%rsp) 8@%r8 1@%al 4@%r10d -8@(%rax) 8@%rbx",
            &[
                (Kind::Signed(4), ARGUMENT_IN_REGISTER, 14, 0),
                (Kind::Unsigned(8), ARGUMENT_IN_MEMORY, 19, 16),
                (Kind::Unsigned(8), ARGUMENT_IN_REGISTER, 9, 0),
                (Kind::Unsigned(1), ARGUMENT_IN_REGISTER, 10, 0),
                (Kind::Unsigned(4), ARGUMENT_IN_REGISTER, 7, 0),
                (Kind::Signed(8), ARGUMENT_IN_MEMORY, 10, 0),
            ],
        );
        check("-4@$-5", &[(Kind::Signed(4), ARGUMENT_IS_CONSTANT, 0, -5)]);
        check("8f@%xmm0 8@name(%rip) @ 8@ x", &[]);
        check("", &[]);
    }

    #[test]
    fn parameters_by_debug_information() {
        const FILE: &[u8] = include_bytes!("../../../tests/fuzz/corpus/function/dwarf4_compressed");
        let check = |file: &[u8], function: &str, expected: &[(&str, Kind)]| {
            let binary = crate::Binary::parse(file, None).expect("a file");
            let function = binary.functions.iter().find(|it| it.name() == function).expect("a function");
            let found = parameters(file, &[function.address]).remove(&function.address).unwrap_or_default();
            let found: Vec<_> = found.iter().map(|it| (&*it.name, it.kind)).collect();
            assert_eq!(found, expected);
        };
        check(FILE, "add", &[("left", Kind::Signed(4)), ("right", Kind::Unsigned(1))]);
        let named = [
            ("name", Kind::Text),
            ("color", Kind::Unsigned(4)),
            ("yes", Kind::Bool),
            ("where", Kind::Pointer),
            ("last", Kind::Unsigned(8)),
        ];
        check(FILE, "named", &named);
        // A structure: in how many registers it is, if in any, is not looked into.
        check(FILE, "many", &[]);

        // Elf64_Chdr of .debug_info: type, reserved, size.
        let (mut bomb, header) = (FILE.to_vec(), 0x560);
        bomb[header + 8..header + 16].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        check(&bomb, "add", &[]);
    }

    #[test]
    fn values_are_shown_by_their_kind() {
        let check = |kind: Kind, word: u64, text: &str, expected: &str| {
            let parameter = Parameter { name: "x".into(), kind, place: ArgumentPlace::default() };
            let argument = Argument { word, text: text.into() };
            assert_eq!(parameter.show(&argument), expected);
        };
        check(Kind::Signed(4), 0xdead_beef_ffff_fffe, "", "-2");
        check(Kind::Unsigned(2), 0xffff_0001, "", "1");
        check(Kind::Unsigned(8), u64::MAX, "", "18446744073709551615");
        check(Kind::Bool, 0x100, "", "false");
        check(Kind::Pointer, 0x7f00, "", "0x7f00");
        check(Kind::Text, 1, "a\"b\n", "\"a\\\"b\\n\"");
        check(Kind::Text, 0, "", "NULL");
    }
}
