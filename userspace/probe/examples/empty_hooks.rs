//! Attaches two programs that do nothing, to the beginning and the end of every system call, and says "attached"; ends when
//! its standard input does. `cargo xtask bench syscalls` shows by it what of the cost of seeing calls is the kernel's own.

use std::io::{Read, Write};

use aya::Ebpf;
use aya::programs::RawTracePoint;
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

/// `r0 = 0; exit` (linux/bpf.h: `BPF_ALU64 | BPF_MOV | BPF_K`, `BPF_JMP | BPF_EXIT`).
const NOTHING: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
/// Programs with their tracepoints.
const PROGRAMS: [(&str, &str); 2] = [("empty_enter", "sys_enter"), ("empty_exit", "sys_exit")];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut ebpf = Ebpf::load(&object()?)?;
    for (name, tracepoint) in PROGRAMS {
        let program: &mut RawTracePoint = ebpf.program_mut(name).ok_or(name)?.try_into()?;
        program.load()?;
        program.attach(tracepoint)?;
    }
    println!("attached");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// An ELF file with the programs.
fn object() -> Result<Vec<u8>, object::write::Error> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    for (name, tracepoint) in PROGRAMS {
        let section = format!("raw_tp/{tracepoint}").into_bytes();
        let section = object.add_section(Vec::new(), section, SectionKind::Text);
        object.append_section_data(section, &NOTHING, 8);
        object.add_symbol(Symbol {
            name: name.into(),
            value: 0,
            size: NOTHING.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    object.write()
}
