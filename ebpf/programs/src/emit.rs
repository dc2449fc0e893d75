//! The only writer of the ring, and of the counters.

use core::arch::asm;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_ringbuf_query};
use descry_abi::counter::Counter;
use descry_abi::event::{Lifecycle, RequestWait, SampleHeader, StackCopyHeader, Wait};
use descry_abi::function::FunctionCall;
use descry_abi::limits::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES, RING_BAND, STACK_COPY_BYTES};
use descry_abi::net::{Closed, MAX_CAPTURE, MESSAGE_UNSEEN, Message, Opened};
use descry_abi::syscall::{PATH_BYTES, SlowCall};
use descry_abi::tcp::ConnectFailed;
use descry_abi::template::{Exchange, LEFT_OUT};

use crate::config::RING_WAKE_BANDS;
use crate::maps::{COUNTS, CopyState, EVENTS, NetState, State};

/// Bytes of messages after which a CPU looks how full the ring is: an eighth of a band, so that a few CPUs look in each band.
const UNLOOKED: u64 = RING_BAND / 8;

/// Adds one to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    count_many(counter, 1);
}

/// Adds so many to a counter.
#[inline(always)]
pub fn count_many(counter: Counter, number: u64) {
    if let Some(count) = COUNTS.get_ptr_mut(counter as u32) {
        // SAFETY: the entry is this CPU's own, and the pointer was checked by the lookup.
        unsafe { *count = (*count).wrapping_add(number) }
    }
}

/// Sends a sample: the state's header with its frames.
#[inline(always)]
pub fn stack(state: *const State) {
    count(if header_and_frames(state) { Counter::Samples } else { Counter::RingFullSample });
}

/// Sends the stack of a wait; false: the ring was full.
#[inline(always)]
pub fn wait_stack(state: *const State) -> bool {
    let sent = header_and_frames(state);
    count(if sent { Counter::WaitStacks } else { Counter::RingFullStack });
    sent
}

/// The flags of a record. Userspace drains the ring by the clock: waking it costs the watched program 50 times as much as
/// the record. It is woken while the ring's bytes pass a band at each of its quarters, so that a burst does not wait for the
/// clock.
#[inline(always)]
pub fn waking() -> u64 {
    // SAFETY: the helper wants a ring, and reads its positions only.
    let in_ring =
        unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), BPF_RB_AVAIL_DATA.into()) };
    let (band, quarter) = (in_ring / RING_BAND, RING_WAKE_BANDS.load());
    // A ring's size is a power of two, and so is a quarter of it.
    let passes = band >= quarter && band & (quarter - 1) == 0;
    let flags = if passes { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    flags.into()
}

/// Sends the state's header with its frames.
#[inline(always)]
fn header_and_frames(state: *const State) -> bool {
    // SAFETY: `state` is a per-CPU entry that was checked by its lookup.
    let frames = unsafe { u64::from((*state).header.kernel_frames) + u64::from((*state).header.user_frames) };
    if frames > (MAX_KERNEL_FRAMES + MAX_USER_FRAMES) as u64 {
        return false;
    }
    let len = size_of::<SampleHeader>() + frames as usize * 8;
    // SAFETY: header and frames are neighbours in a repr(C) struct, and `frames` was bounded above.
    let record = unsafe { core::slice::from_raw_parts((&raw const (*state).header).cast::<u64>(), len / 8) };
    EVENTS.output_untyped::<[u64]>(record, waking()).is_ok()
}

/// Sends the state's header with its frames and `more` bytes that follow them: a slow system call.
#[inline(always)]
pub fn slow_call(state: *const State, more: u64) {
    // SAFETY: as in `stack`.
    let frames = unsafe { u64::from((*state).header.kernel_frames) + u64::from((*state).header.user_frames) };
    if frames > (MAX_KERNEL_FRAMES + MAX_USER_FRAMES) as u64
        || more > (size_of::<SlowCall>() + PATH_BYTES) as u64
    {
        return;
    }
    // SAFETY: as above.
    if unsafe { (*state).header.request } & LEFT_OUT != 0 {
        return count(Counter::PartsLeftOut);
    }
    let words = (size_of::<SampleHeader>() + more as usize) / 8 + frames as usize;
    // SAFETY: as in `stack`; the frames have FRAME_SLOTS words, enough for both.
    let record = unsafe { core::slice::from_raw_parts((&raw const (*state).header).cast::<u64>(), words) };
    match EVENTS.output_untyped::<[u64]>(record, waking()) {
        Ok(()) => count(Counter::SyscallSlow),
        Err(_) => count(Counter::RingFullSyscall),
    }
}

/// Sends a stack copy with `len` bytes; false: the ring was full.
#[inline(always)]
pub fn stack_copy(copy: *const CopyState, len: u64) -> bool {
    if len > STACK_COPY_BYTES as u64 {
        return false;
    }
    let words = (size_of::<StackCopyHeader>() + len as usize) / 8;
    // SAFETY: header and bytes are neighbours in a repr(C) struct, and `len` was bounded above.
    let record = unsafe { core::slice::from_raw_parts((&raw const (*copy).header).cast::<u64>(), words) };
    let sent = EVENTS.output_untyped::<[u64]>(record, waking()).is_ok();
    if !sent {
        count(Counter::RingFullCopy);
    }
    sent
}

/// Sends a lifecycle event.
#[inline(always)]
pub fn lifecycle(event: &Lifecycle) {
    // SAFETY: a Lifecycle is five words without padding.
    let words = unsafe { &*core::ptr::from_ref(event).cast::<[u64; size_of::<Lifecycle>() / 8]>() };
    if EVENTS.output_untyped::<[u64; 5]>(words, waking()).is_err() {
        count(Counter::RingFullLifecycle);
    }
}

/// Sends a wait that found no room among the sums.
#[inline(always)]
pub fn wait(wait: &Wait) {
    // SAFETY: a Wait is seven words without padding.
    let words = unsafe { &*core::ptr::from_ref(wait).cast::<[u64; size_of::<Wait>() / 8]>() };
    let sent = EVENTS.output_untyped::<[u64; 7]>(words, waking()).is_ok();
    count(if sent { Counter::WaitsSent } else { Counter::RingFullWait });
}

/// Sends a long wait of a request.
#[inline(always)]
pub fn request_wait(wait: &RequestWait) {
    if wait.request & LEFT_OUT != 0 {
        return count(Counter::PartsLeftOut);
    }
    // SAFETY: a RequestWait is nine words without padding.
    let words = unsafe { &*core::ptr::from_ref(wait).cast::<[u64; size_of::<RequestWait>() / 8]>() };
    let sent = EVENTS.output_untyped::<[u64; 9]>(words, waking()).is_ok();
    count(if sent { Counter::RequestWaits } else { Counter::RingFullRequestWait });
}

/// The same for messages, which come by the hundred thousand: a CPU looks after every so many bytes of them.
#[inline(always)]
fn waking_at_times(state: *mut NetState, len: u64) -> u64 {
    // SAFETY: `state` is this CPU's own.
    let unlooked = unsafe { &mut (*state).unlooked };
    *unlooked = unlooked.wrapping_add(len);
    if *unlooked < UNLOOKED {
        return BPF_RB_NO_WAKEUP.into();
    }
    *unlooked = 0;
    waking()
}

/// Sends a message with `len` of its bytes.
#[inline(always)]
pub fn message(state: *mut NetState, len: u64) {
    let Some(len) = at_most(len, MAX_CAPTURE as u64) else { return };
    let words = (size_of::<Message>() + len as usize + 7) / 8;
    // SAFETY: record and bytes are neighbours in a repr(C) struct, and `len` was bounded above.
    let record = unsafe { core::slice::from_raw_parts((&raw const (*state).message).cast::<u64>(), words) };
    match EVENTS.output_untyped::<[u64]>(record, waking_at_times(state, words as u64 * 8)) {
        Ok(()) => count(Counter::Messages),
        Err(_) => count(Counter::RingFullMessage),
    }
}

/// A number, if it is no greater. What is reckoned with it comes after a comparison of the very register, so that the
/// verifier knows the bound.
#[inline(always)]
fn at_most(number: u64, bound: u64) -> Option<u64> {
    let number = opaque(number);
    (number <= bound).then(|| opaque(number))
}

/// The same number, of which the compiler knows nothing.
#[inline(always)]
fn opaque(mut number: u64) -> u64 {
    // SAFETY: the register keeps its value.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// A message with room for up to `N` of its bytes.
#[repr(C)]
struct Record<const N: usize> {
    message: Message,
    bytes: [u8; N],
}

/// Sends a message with as many of its bytes as it says, which are read from the program straight into the ring: a probe
/// in a program can be preempted, so there is no room of a CPU's own. The ring wants the size to be constant.
#[inline(always)]
pub fn plaintext(message: &Message, from: u64) {
    const SMALL: u32 = 256;
    const MIDDLE: u32 = 1024;
    match message.captured {
        0..=SMALL => read_into::<{ SMALL as usize }>(message, from),
        0..=MIDDLE => read_into::<{ MIDDLE as usize }>(message, from),
        _ => read_into::<MAX_CAPTURE>(message, from),
    }
}

#[inline(always)]
fn read_into<const N: usize>(message: &Message, from: u64) {
    let Some(mut entry) = EVENTS.reserve_untyped::<Record<N>>(0) else {
        return count(Counter::RingFullMessage);
    };
    let record = entry.as_mut_ptr();
    let len = message.captured.min(N as u32);
    // SAFETY: the ring gave room for the whole record, `len` is at most the room for bytes, and the helper checks the
    // address that it reads from.
    unsafe {
        (*record).message = *message;
        if bpf_probe_read_user((&raw mut (*record).bytes).cast(), len, from as *const c_void) != 0 {
            count(Counter::BufferUnreadable);
            (*record).message.captured = 0;
            (*record).message.flags |= MESSAGE_UNSEEN;
        }
    }
    entry.submit(waking());
    count(Counter::Messages);
}

/// Sends a connection's first sight; false: the ring was full.
#[inline(always)]
pub fn opened(event: &Opened) -> bool {
    // SAFETY: an Opened is nine words without padding.
    let words = unsafe { &*core::ptr::from_ref(event).cast::<[u64; size_of::<Opened>() / 8]>() };
    let sent = EVENTS.output_untyped::<[u64; 9]>(words, waking()).is_ok();
    if !sent {
        count(Counter::RingFullConnection);
    }
    sent
}

/// Sends the state's exchange.
#[inline(always)]
pub fn exchange(state: *mut NetState) {
    const WORDS: usize = size_of::<Exchange>() / 8;
    // SAFETY: `state` is this CPU's own; an Exchange is ten words without padding.
    let words = unsafe { &*(&raw const (*state).exchange).cast::<[u64; WORDS]>() };
    match EVENTS.output_untyped::<[u64; WORDS]>(words, waking_at_times(state, size_of::<Exchange>() as u64)) {
        Ok(()) => count(Counter::Exchanges),
        Err(_) => count(Counter::RingFullExchange),
    }
}

/// Sends a connection's end.
#[inline(always)]
pub fn closed(event: &Closed) {
    // SAFETY: a Closed is three words without padding.
    let words = unsafe { &*core::ptr::from_ref(event).cast::<[u64; size_of::<Closed>() / 8]>() };
    if EVENTS.output_untyped::<[u64; 3]>(words, waking()).is_err() {
        count(Counter::RingFullConnection);
    }
}

/// Sends a connect that failed.
#[inline(always)]
pub fn connect_failed(event: &ConnectFailed) {
    // SAFETY: a ConnectFailed is eight words without padding.
    let words = unsafe { &*core::ptr::from_ref(event).cast::<[u64; size_of::<ConnectFailed>() / 8]>() };
    if EVENTS.output_untyped::<[u64; 8]>(words, waking()).is_err() {
        count(Counter::RingFullConnection);
    }
}

/// Sends a call of a traced function; false: the ring was full.
#[inline(always)]
pub fn function_call(call: &FunctionCall) -> bool {
    if call.request & LEFT_OUT != 0 {
        count(Counter::PartsLeftOut);
        return true;
    }
    // SAFETY: a FunctionCall is ten words without padding.
    let words = unsafe { &*core::ptr::from_ref(call).cast::<[u64; size_of::<FunctionCall>() / 8]>() };
    EVENTS.output_untyped::<[u64; 10]>(words, waking()).is_ok()
}
