//! Functions that return to a return probe: the kernel has put its own address in the place of theirs.

use descry_abi::limits::MAX_RETURN_PROBES;

use crate::config::{RETURN_ADDRESS, RETURN_NEXT, RETURN_STACK, TASK_UTASK, UTASK_RETURNS};
use crate::registers::RETURN_ADDRESS_BYTES;
use crate::task::{Task, member};

/// Where the function returns to whose caller's stack pointer is `sp`, if the return probes' own address `pc` stands in the
/// place of that; 0: it does not. A global function: the verifier checks it once.
///
/// The kernel keeps what it replaced in a list (kernel/events/uprobes.c): where it lay, or on aarch64 the stack pointer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn probed_return(pc: u64, sp: u64) -> u64 {
    let task = Task::current();
    if TASK_UTASK.load() == 0 || pc == 0 || pc != task.return_trampoline() {
        return 0;
    }
    let place = sp.wrapping_sub(RETURN_ADDRESS_BYTES);
    let word = |base: u64, offset: u32| member::<u64>(base, offset).unwrap_or_default();
    let mut instance = word(word(task.0, TASK_UTASK.load()), UTASK_RETURNS.load());
    for _ in 0..MAX_RETURN_PROBES {
        if instance == 0 {
            break;
        }
        if word(instance, RETURN_STACK.load()) == place {
            return word(instance, RETURN_ADDRESS.load());
        }
        instance = word(instance, RETURN_NEXT.load());
    }
    0
}
