//! Any call frame information, registers and stack: the walk ends within its limit.
//!
//! The first 64 bytes are registers, 8 bits each of address and kind; then a length and that much stack; the rest is
//! the file, as in the target `rows`.
#![no_main]

use descry_decode::ids::RuntimeAddress;
use descry_fuzz::{CODE, CODE_LEN};
use descry_unwind::Limits;
use descry_unwind::cfi::Cfi;
use descry_unwind::walk::{Code, CodeSource, Stack, Walker};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const STACK: u64 = 0x7fff_0000_0000;
const MAX_FRAMES: usize = 40;

struct Process(Arc<Cfi>);

impl CodeSource for Process {
    fn code(&mut self, address: RuntimeAddress) -> Code {
        match address.0 {
            CODE..0x1_1000 => Code::Cfi { cfi: self.0.clone(), bias: 0 },
            0x1_1000..0x2_0000 => Code::FramePointer,
            0x2_0000..0x2_1000 => Code::NotLoaded,
            _ => Code::Unmapped,
        }
    }

    /// All other memory holds addresses of code.
    fn read(&mut self, address: RuntimeAddress, bytes: &mut [u8]) -> bool {
        let word = (CODE + address.0 % CODE_LEN).to_le_bytes();
        bytes.copy_from_slice(&word[..bytes.len()]);
        address.0 % 7 != 0
    }
}

/// A small number, an address of code or one of the stack.
fn value([kind, low]: [u8; 2]) -> u64 {
    let low = u64::from(low);
    match kind % 4 {
        0 => low,
        1 => CODE + (u64::from(kind / 4) << 8 | low),
        2 => STACK + low * 8,
        _ => u64::MAX - low,
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((head, rest)) = input.split_at_checked(67) else { return };
    let pairs: Vec<[u8; 2]> = head[..66].chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
    let mut registers: Vec<u64> = pairs.iter().map(|pair| value(*pair)).collect();
    let (stack, rest) = rest.split_at(rest.len().min(usize::from(head[66])));
    if rest.first().is_some_and(|shape| shape & 1 == 0) {
        registers.truncate(17);
    }
    // Words of the stack are registers of a kind, too.
    let stack: Vec<u8> =
        stack.chunks_exact(2).flat_map(|pair| value([pair[0], pair[1]]).to_le_bytes()).collect();
    let (file, debug) = descry_fuzz::elf(rest);
    let debug = debug.map(|debug| Arc::new(debug) as _);
    let Ok((cfi, _)) = Cfi::new(Arc::new(file), debug, &Limits::default()) else { return };
    let stack = Stack { start: RuntimeAddress(STACK), bytes: &stack };
    let walk = Walker::new().walk(&registers, stack, &mut Process(Arc::new(cfi)), MAX_FRAMES);
    assert!((1..=MAX_FRAMES).contains(&walk.frames.len()));
});
