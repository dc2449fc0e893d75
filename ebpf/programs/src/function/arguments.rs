//! The arguments of a call, from the registers at its entry.

use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user, bpf_probe_read_user_str,
    bpf_task_pt_regs,
};
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;
use descry_abi::function::{
    ARGUMENT_IN_MEMORY, ARGUMENT_IN_REGISTER, ARGUMENT_IS_CONSTANT, FunctionArguments, MAX_ARGUMENT_TEXT,
    MAX_ARGUMENTS, REGISTER_WORDS,
};

use crate::emit::{count, waking};
use crate::maps::{EVENTS, FUNCTION_ARGUMENTS};
use crate::registers::Registers;
use crate::task::Ids;

/// Sends the arguments of a call. They are read straight into the ring: room of a CPU's own could be overwritten by another
/// thread where the kernel is preemptible.
#[inline(always)]
pub fn send(function: u32, start: u64, ids: Ids, unit: u64) {
    // The bit of the cookie says that there are some.
    let Some(places) = FUNCTION_ARGUMENTS.get_ptr(function) else { return };
    let Some(mut entry) = EVENTS.reserve_untyped::<FunctionArguments>(0) else {
        return count(Counter::RingFullArguments);
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the ring gave room for the whole record, and every address that is read is checked by its helper. The
    // registers lie where the texts will be until the values have been taken from them.
    unsafe {
        (*record).kind = EventKind::FunctionArguments as u16;
        (*record).function = function;
        (*record).start = start;
        (*record).tgid = ids.tgid;
        (*record).tid = ids.tid;
        (*record).unit = unit;
        (*record).lengths = [0; 8];
        let words = (&raw mut (*record).texts).cast::<u64>();
        let saved = bpf_task_pt_regs(bpf_get_current_task_btf());
        let mut failed = 0;
        if bpf_probe_read_kernel(words.cast(), size_of::<Registers>() as u32, saved as *const _) != 0 {
            failed = (1 << MAX_ARGUMENTS) - 1;
        }
        for index in 0..MAX_ARGUMENTS {
            let place = (*places)[index];
            let offset = i64::from(place.offset) as u64;
            let register = *words.add(place.register as usize % REGISTER_WORDS);
            let value = &raw mut (*record).values[index];
            *value = match place.source {
                ARGUMENT_IN_REGISTER => register,
                ARGUMENT_IS_CONSTANT => offset,
                _ => 0,
            };
            if place.source == ARGUMENT_IN_MEMORY
                && bpf_probe_read_user(value.cast(), 8, register.wrapping_add(offset) as *const _) != 0
            {
                failed |= 1 << index;
            }
        }
        for index in 0..MAX_ARGUMENTS {
            if (*places)[index].is_text == 0 || failed & (1 << index) != 0 {
                continue;
            }
            let text = (&raw mut (*record).texts[index]).cast();
            let from = (*record).values[index] as *const _;
            match bpf_probe_read_user_str(text, MAX_ARGUMENT_TEXT as u32, from) {
                len @ 1.. => (*record).lengths[index] = (len - 1) as u8,
                _ => failed |= 1 << index,
            }
        }
        (*record).failed = failed;
    }
    entry.submit(waking());
}
