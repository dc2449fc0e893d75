//! Any file to name addresses in: an answer for each address, within the limits.
//!
//! The last byte of the input says what is known of the file: bit 0 Go, bit 1 Rust, bit 2 that it is its own debug file,
//! bit 3 that others can write to it, so that a copy of it is read. Panics of blazesym are caught by the crate and are no
//! findings; its own are.
#![no_main]

use descry_decode::ids::ElfAddress;
use descry_symbol::{Limits, ObjectSource, Options, SymbolError, Symbolizer};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::fs::Permissions;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Once};
use tempfile::NamedTempFile;

thread_local! {
    static FILE: RefCell<NamedTempFile> =
        RefCell::new(NamedTempFile::new().expect("a temporary file"));
}

/// Addresses looked up: every 8 bytes of the code in the seeds.
const ADDRESSES: std::ops::Range<u64> = 0x40..0x80;

/// libFuzzer's hook ends the process at every panic, caught or not.
static HOOK: Once = Once::new();

fn let_panics_be_caught() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some("symbols") {
            hook(panic);
        }
    }));
}

fuzz_target!(|input: &[u8]| {
    HOOK.call_once(let_panics_be_caught);
    let Some((&known, content)) = input.split_last() else { return };
    FILE.with_borrow_mut(|file| {
        file.as_file().set_len(0).expect("set_len");
        file.seek(SeekFrom::Start(0)).expect("seek");
        file.write_all(content).expect("write");
        let mode = if known & 8 != 0 { 0o666 } else { 0o600 };
        file.as_file().set_permissions(Permissions::from_mode(mode)).expect("chmod");
        let path = file.path().to_path_buf();
        let source = ObjectSource {
            debug_path: (known & 4 != 0).then(|| path.clone()),
            open_path: path,
            name: Arc::from("/fuzzed"),
            is_go: known & 1 != 0,
            is_rust: known & 2 != 0,
        };
        let limits = Limits { max_work: 1 << 20, max_decompressed_bytes: 16 << 20, ..Limits::default() };
        let addresses: Vec<ElfAddress> = ADDRESSES.map(|n| ElfAddress(n * 8)).collect();
        let outcome =
            Symbolizer::new(Options { limits, ..Options::default() }).symbolize_object(&source, &addresses);
        assert_eq!(outcome.symbols.len(), addresses.len());
        let panicked = outcome.problems.iter().find(|problem| matches!(problem, SymbolError::Thread { .. }));
        assert!(panicked.is_none(), "{panicked:?}");
    });
});
