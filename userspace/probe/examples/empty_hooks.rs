//! Attaches two programs that do nothing, to the beginning and the end of every system call, and says "attached"; ends when
//! its standard input does. With the argument "clock" they read the clock, which is the least that whoever tells how long
//! calls take must do. `cargo xtask bench syscalls` shows by it what of the cost of seeing calls is the kernel's own.

use std::io::{Read, Write};

use aya::Ebpf;
use aya::programs::RawTracePoint;
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

/// `r0 = 0; exit` (linux/bpf.h: `BPF_ALU64 | BPF_MOV | BPF_K`, `BPF_JMP | BPF_EXIT`).
const NOTHING: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
/// `call bpf_ktime_get_ns` (`BPF_JMP | BPF_CALL`; the helper is number 5).
const READ_CLOCK: [u8; 8] = [0x85, 0, 0, 0, 5, 0, 0, 0];
/// Programs with their tracepoints.
const PROGRAMS: [(&str, &str); 2] = [("empty_enter", "sys_enter"), ("empty_exit", "sys_exit")];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut code = match std::env::args().nth(1).as_deref() {
        Some("clock") => READ_CLOCK.to_vec(),
        _ => Vec::new(),
    };
    code.extend(NOTHING);
    let mut ebpf = Ebpf::load(&object(&code)?)?;
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

/// An ELF file with the programs, which are the same.
fn object(code: &[u8]) -> Result<Vec<u8>, object::write::Error> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    for (name, tracepoint) in PROGRAMS {
        let section = format!("raw_tp/{tracepoint}").into_bytes();
        let section = object.add_section(Vec::new(), section, SectionKind::Text);
        object.append_section_data(section, code, 8);
        object.add_symbol(Symbol {
            name: name.into(),
            value: 0,
            size: code.len() as u64,
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
