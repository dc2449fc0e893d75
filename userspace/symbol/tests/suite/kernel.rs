//! Kernel addresses. The live test needs to see them (root, `kernel.kptr_restrict` below 2); set
//! `DESCRY_TEST_NO_KALLSYMS=1` where that cannot be.

use std::io::Write as _;

use descry_decode::ids::RuntimeAddress;
use descry_symbol::{FrameKind, Options, SymbolError, Symbolizer};

const KALLSYMS: &str = "\
ffffffff81000000 T _stext
ffffffff81000100 t local_alias
ffffffff81000100 T do_things
ffffffff81000200 d not_code
ffffffff81000300 T last_function
ffffffffc0000000 t module_start\t[ext4]
ffffffffc0000040 t _RNvCs1234_7mycrate3foo\t[rust_module]
ffffffffc0100000 t bpf_prog_6deef7357e7b4530_sd_fw_egress\t[bpf]
garbage
ffffffffc0100040 t
";

fn check(text: &str, expected: &[(u64, &str)]) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it is written");
    let addresses: Vec<_> = expected.iter().map(|(address, _)| RuntimeAddress(*address)).collect();
    let mut symbolizer = Symbolizer::new(Options::default()).with_kallsyms(file.path());
    // The second time comes from memory.
    for _ in 0..2 {
        let outcome = symbolizer.symbolize_kernel(&addresses);
        assert!(outcome.problems.is_empty());
        for ((address, name), symbol) in expected.iter().zip(&outcome.symbols) {
            let found = symbol.frames.first().map_or("", |frame| &*frame.function);
            assert_eq!(found, *name, "{address:#x}");
            assert_eq!(symbol.kind, FrameKind::Kernel);
        }
    }
}

#[test]
fn addresses_get_the_symbol_below_them() {
    check(
        KALLSYMS,
        &[
            (0xffff_ffff_8100_01ff, "do_things"),
            (0xffff_ffff_8100_0000, "_stext"),
            (0xffff_ffff_8100_0200, ""),
            (0xffff_ffff_8100_0310, "last_function"),
            (0xffff_ffff_8100_0100, "do_things"),
            (0xffff_ffff_8200_0000, ""),
            (0xffff_ffff_c000_0010, "module_start"),
            (0xffff_ffff_c000_0041, "mycrate::foo"),
            (0xffff_ffff_c010_0001, "bpf_prog_6deef7357e7b4530_sd_fw_egress"),
            (0x1000, ""),
        ],
    );
}

#[test]
fn hidden_addresses_are_told() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(b"0000000000000000 T _stext\n0000000000000000 T do_things\n").expect("it is written");
    let mut symbolizer = Symbolizer::new(Options::default()).with_kallsyms(file.path());
    let outcome = symbolizer.symbolize_kernel(&[RuntimeAddress(0xffff_ffff_8100_0000)]);
    assert!(outcome.symbols[0].frames.is_empty());
    assert!(matches!(outcome.problems[..], [SymbolError::KernelAddressesHidden]), "{:?}", outcome.problems);
}

#[test]
fn the_running_kernel_has_names() {
    if std::env::var_os("DESCRY_TEST_NO_KALLSYMS").is_some() {
        return;
    }
    let text = std::fs::read_to_string("/proc/kallsyms").expect("kallsyms is readable");
    let mut known = Vec::new();
    for wanted in ["schedule", "vfs_read", "do_exit"] {
        let line = text.lines().find(|line| line.split_whitespace().nth(2) == Some(wanted));
        let address = line.and_then(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok());
        let address = address.filter(|address| *address != 0);
        known.push((wanted, address.expect("root sees addresses; or set DESCRY_TEST_NO_KALLSYMS=1")));
    }
    let addresses: Vec<_> = known.iter().map(|(_, address)| RuntimeAddress(address + 1)).collect();
    let outcome = Symbolizer::new(Options::default()).symbolize_kernel(&addresses);
    for ((wanted, _), symbol) in known.iter().zip(&outcome.symbols) {
        assert_eq!(&*symbol.frames[0].function, *wanted);
    }
}
