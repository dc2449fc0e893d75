//! Where the running goroutine of a Go program is found: by the version of Go that built it, which also a stripped
//! program tells.
//!
//! The offsets were read from the debug information of programs that these versions built (`runtime.g`, `runtime.m`;
//! x86_64). An unknown version gives nothing: a wrong offset would mix requests up.

use std::sync::Arc;

use descry_abi::unit::{UnitKind, UnitRule};

use crate::elf::ElfFile;
use crate::file::ObjectFile;
use crate::options::ObjectSource;

/// (minor version of Go 1, `g.goid`, `g.parentGoid`, `m.curg`), in bytes; before 1.21 a goroutine does not know who made
/// it.
const LAYOUTS: [(u32, u32, u32, u32); 8] = [
    (19, 152, 0, 192),
    (21, 152, 272, 192),
    (22, 152, 272, 192),
    (23, 160, 280, 192),
    (24, 160, 280, 192),
    (25, 152, 272, 184),
    (26, 152, 280, 184),
    (27, 152, 280, 184),
];
/// `g.m` in all of them.
const G_M: u32 = 48;
/// Where the linker puts `runtime.tlsg` on x86_64: the last word of the program's thread-local storage, which ends at the
/// thread pointer (System V ABI, TLS variant II; cmd/link/internal/ld).
const TLS: i64 = -8;

/// `.go.buildinfo` (debug/buildinfo): magic, pointer size (u8), flags (u8), padding to 32 bytes, then, if flag 2 is set
/// (Go 1.18 and later), the version: its length as a varint, and its text.
const MAGIC: &[u8] = b"\xff Go buildinf:";
const FLAGS_AT: usize = 15;
const FLAG_INLINE: u8 = 2;
const VERSION_AT: usize = 32;
const MAX_VERSION: usize = 64;

/// The rule for the goroutines of a program; none: it is no Go program for x86_64, or of a version that is not known.
pub fn goroutine_rule(source: &ObjectSource) -> Option<UnitRule> {
    let name = Arc::clone(&source.name);
    let file = ObjectFile::open(&source.open_path, &name).ok()?;
    let elf = ElfFile::parse(file, &name).ok()?;
    if elf.machine != object::elf::EM_X86_64.0 {
        return None;
    }
    let section = elf.section(".go.buildinfo")?;
    let len = section.size.min((VERSION_AT + 1 + MAX_VERSION) as u64);
    let bytes = elf.file.read_vec(section.offset, len as usize).ok()?;
    rule_of_version(minor_version(version(&bytes)?)?)
}

fn rule_of_version(minor: u32) -> Option<UnitRule> {
    let (_, id, parent, current) = LAYOUTS.into_iter().find(|(known, ..)| *known == minor)?;
    Some(UnitRule {
        kind: UnitKind::Goroutine as u32,
        id,
        tls: TLS,
        alive: 0,
        m: G_M,
        current,
        parent,
        reserved: 0,
    })
}

/// The version in a `.go.buildinfo`.
fn version(bytes: &[u8]) -> Option<&str> {
    if !bytes.starts_with(MAGIC) || bytes.get(FLAGS_AT)? & FLAG_INLINE == 0 {
        return None;
    }
    // Versions are shorter than what takes a second byte of the varint.
    let len = usize::from(*bytes.get(VERSION_AT)?);
    let text = bytes.get(VERSION_AT + 1..)?.get(..len).filter(|_| len <= MAX_VERSION)?;
    std::str::from_utf8(text).ok()
}

/// 27 of `go1.27.3`, `go1.27rc1`, `go1.27.3 X:something`.
fn minor_version(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("go1.")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| rest.get(..end).unwrap_or(rest));
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{minor_version, rule_of_version, version};

    fn check(text: &str, minor: Option<u32>) {
        let mut bytes = b"\xff Go buildinf:\x08\x02".to_vec();
        bytes.resize(32, 0);
        bytes.push(text.len() as u8);
        bytes.extend(text.as_bytes());
        assert_eq!(version(&bytes), Some(text));
        assert_eq!(minor_version(text), minor, "{text}");
        for len in 0..bytes.len() {
            assert_eq!(version(&bytes[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn versions() {
        check("go1.27.3", Some(27));
        check("go1.27rc1", Some(27));
        check("go1.22", Some(22));
        check("go1.25.5 X:nodwarf5", Some(25));
        check("devel go1.28-abc", None);
    }

    #[test]
    fn a_version_that_is_not_known_has_no_rule() {
        assert!(rule_of_version(27).is_some_and(|rule| (rule.id, rule.current) == (152, 184)));
        assert_eq!(rule_of_version(20), None);
        assert_eq!(rule_of_version(28), None);
    }
}
