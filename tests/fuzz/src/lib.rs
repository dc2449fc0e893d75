//! What the targets share: small ELF files around fuzzed tables, and bytes of connections.
#![forbid(unsafe_code)]

pub mod connection;
pub mod template;

#[path = "../../../userspace/unwind/tests/support/mod.rs"]
#[expect(dead_code, reason = "the tests of descry-unwind use the rest")]
mod support;

use support::{AARCH64, Elf, Table, X86_64};
pub use support::{CODE, CODE_LEN};

/// The file that an input stands for, and a debug file for some.
///
/// Input that begins like an ELF file is one. Else its first byte says what surrounds the rest:
///
/// ```text
/// bit 0  aarch64 instead of x86_64
/// bit 1  .debug_frame instead of .eh_frame
/// bit 2  a search table, made of the first (at most 15) pairs of bytes; bits 4 to 7: how many
/// bit 3  no section headers (bit 2 set), or the second half is the debug file's .debug_frame (bit 2 clear)
/// ```
pub fn elf(input: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let Some((&shape, rest)) = input.split_first().filter(|_| !input.starts_with(b"\x7fELF")) else {
        return (input.to_vec(), None);
    };
    let machine = if shape & 1 == 0 { X86_64 } else { AARCH64 };
    let (header, flag) = (shape & 4 != 0, shape & 8 != 0);
    let (functions, rest) = rest.split_at(rest.len().min(2 * usize::from(shape >> 4) * usize::from(header)));
    let (rest, debug) = rest.split_at(if flag && !header { rest.len() / 2 } else { rest.len() });
    let functions = functions
        .chunks_exact(2)
        .map(|pair| (CODE + u64::from(pair[0]) * 64, usize::from(pair[1]) * 4))
        .collect();
    let table = Table { bytes: rest.to_vec(), functions, ..Table::default() };
    let mut file = Elf { machine, header, stripped: flag && header, ..Elf::default() };
    if shape & 2 == 0 {
        file.eh_frame = Some(table)
    } else {
        file.debug_frame = Some(table)
    }
    let debug = (!debug.is_empty()).then(|| {
        let table = Table { bytes: debug.to_vec(), ..Table::debug_frame() };
        Elf { machine, debug_frame: Some(table), ..Elf::default() }.bytes()
    });
    (file.bytes(), debug)
}
