//! The stack memory of threads that were blocked before the measurement began: nothing in the kernel can read the memory of
//! a thread that does not run, so it tells the registers, and the memory is read here.

use std::fs::File;
use std::os::unix::fs::FileExt;

use descry_decode::StackCopy;
use descry_decode::ids::Tid;

/// Bytes of stack read at most.
const MAX_BYTES: usize = 256 << 10;

/// A copy with stack memory: its own, or that of its thread if the thread is still where it was. None: it is not.
pub fn with_memory(mut copy: StackCopy) -> Option<StackCopy> {
    if copy.stack.is_empty() {
        copy.stack = read(copy.tid, copy.start.0)?;
        // It may have gone on while its memory was read.
        if !is_blocked_at(copy.tid, stack_pointer_and_pc(&copy.registers)?) {
            return None;
        }
    }
    Some(copy)
}

/// Of registers in DWARF's order: 17 are those of x86_64 (rsp is 7, rip 16), 33 those of aarch64 (sp is 31, pc 32).
fn stack_pointer_and_pc(registers: &[u64]) -> Option<(u64, u64)> {
    let (pc, others) = registers.split_last()?;
    let stack_pointer = if registers.len() == 17 { others.get(7)? } else { others.last()? };
    Some((*stack_pointer, *pc))
}

/// Whether the thread is blocked with these registers: the last two words of `/proc/TID/syscall`.
fn is_blocked_at(tid: Tid, (stack_pointer, pc): (u64, u64)) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{tid}/syscall")) else { return false };
    let mut words = text
        .split_ascii_whitespace()
        .rev()
        .map(|word| word.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()));
    words.next() == Some(Some(pc)) && words.next() == Some(Some(stack_pointer))
}

fn read(tid: Tid, start: u64) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{tid}/mem")).ok()?;
    let mut bytes = vec![0; MAX_BYTES];
    let mut len = 0;
    // A read ends before the first page that is not there.
    while let Some(rest) = bytes.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match memory.read_at(rest, start + len as u64) {
            Ok(read) if read > 0 => len += read,
            _ => break,
        }
    }
    bytes.truncate(len);
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_that_matter() {
        let mut registers: Vec<u64> = (0..17).collect();
        assert_eq!(stack_pointer_and_pc(&registers), Some((7, 16)));
        registers.extend(17..33);
        assert_eq!(stack_pointer_and_pc(&registers), Some((31, 32)));
        assert_eq!(stack_pointer_and_pc(&[]), None);
    }
}
