//! Messages that equal a template are not sent: an exchange of two is told in short.
//!
//! A request that equals one is remembered with its connection. If its answer equals one too, both are told by one record;
//! if not, the request is told by its template, and the answer in full. Userspace has the template's bytes, so it can always
//! go on as if it had seen the message.

use aya_ebpf::bindings::BPF_NOEXIST;
use descry_abi::counter::Counter;
use descry_abi::event::EventKind;
use descry_abi::histogram::{BUCKETS, Histogram};
use descry_abi::net::{Connection, Role};
use descry_abi::template::{
    ANSWER, CountKey, Exchange, HAS_STATE, LEFT_OUT, MAX_CHAIN, MAX_START_WORDS, MAY_COUNT, START_WORDS,
    TEMPLATE_WORDS, TemplateKey, WORDS_AT_ONCE, Waiting, client_lot_of, differs, fold, no_digits,
};

use super::calls::Call;
use super::message::Moved;
use super::{MSG_TRUNC, payload, request};
use crate::atomic;
use crate::emit::{self, count};
use crate::histogram::bucket;
use crate::maps::{EMPTY_HISTOGRAM, EXCHANGE_COUNTS, NET_STATES, TEMPLATES, TEMPLATES_BY_KEY};
use crate::task::Ids;

/// A message whose bytes are in the state.
pub struct Whole {
    /// Its true length (bytes).
    pub len: u64,
    /// Of those, in the state.
    pub captured: u64,
    /// When.
    pub time: u64,
    /// Bytes of its direction before it.
    pub offset: u64,
    /// Number of the unit that moved it.
    pub unit: u64,
    /// The request that it belongs to.
    pub request: u64,
    pub is_sent: bool,
    /// The template that it equals if it is a request; 0: none.
    pub known: u64,
    /// Whether it equals the connection's last answer.
    pub is_last: bool,
}

/// The template that a message in the state equals if it is a request; 0: none.
#[inline(always)]
pub fn known(connection: &mut Connection, len: u64, captured: u64, is_sent: bool) -> u64 {
    let is_request = is_sent == (connection.role == Role::Connected as u8);
    if !is_request || captured != len {
        return 0;
    }
    let (of, start_words) = (connection.family.into(), connection.templates & START_WORDS);
    let known = find(of, len, captured, start_words, connection.last_request);
    if known != 0 {
        connection.last_request = known as u32;
    }
    known
}

/// Whether a message is the answer to the request that waits, and equals the last one: of that no more has to be read than is
/// compared. What is read is in the state.
#[inline(always)]
pub fn is_last_answer(connection: &Connection, moved: &Moved) -> bool {
    let is_answer = moved.is_sent != (connection.role == Role::Connected as u8);
    let request = connection.waiting.which as u32;
    if !is_answer || request == 0 || moved.flags & MSG_TRUNC != 0 {
        return false;
    }
    let Call { buffer, second, third, .. } = moved.call;
    let which = u64::from(connection.last_answer) << 32 | u64::from(ANSWER | request);
    read_and_compare(which, moved.len, buffer as u32, second, third) != 0
}

/// Reads as much of a message as is compared with a template: its number in the upper half of `which`, in the lower what it is
/// of. 1: they are equal. A global function, as [`find`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_and_compare(which: u64, len: u64, buffer: u32, second: u64, third: u64) -> u64 {
    let (number, of) = ((which >> 32) as u32, which as u32);
    let Some(template) = TEMPLATES.get_ptr(number) else { return 0 };
    // SAFETY: the pointer was checked by the lookup.
    let (its, its_len, words) = unsafe { ((*template).of, (*template).len, (*template).words) };
    if its != of || u64::from(its_len) != len {
        return 0;
    }
    let want = len.min(u64::from(words) * 8);
    if payload::copy_from(buffer, second, third, want) == want { equals(number, of, len, want) } else { 0 }
}

/// Takes a message of a connection of which templates may be known. True: it is told or remembered, and not to be sent.
#[inline(always)]
pub fn take(connection: &mut Connection, ids: Ids, message: &Whole) -> bool {
    let is_request = message.is_sent == (connection.role == Role::Connected as u8);
    if is_request {
        // One that waits still gets its answer, or none: others cannot be told apart by templates then.
        flush(connection);
        if message.known == 0 {
            if connection.templates & HAS_STATE != 0 {
                connection.templates &= !MAY_COUNT;
            }
            return false;
        }
        let request = match message.request {
            0 => request::left_out(client_lot_of(connection.id, message.time)),
            request => request,
        };
        let waiting = &mut connection.waiting;
        waiting.request = request;
        waiting.start = message.time;
        waiting.ids = u64::from(ids.tgid) << 32 | u64::from(ids.tid);
        waiting.offset = message.offset;
        waiting.unit = message.unit;
        let which = u64::from(connection.messages) << 32 | message.known;
        // SAFETY: the word is a map's, and aligned. Nobody else's is there, or it goes first: then this message is sent.
        return unsafe { atomic::put_if_zero(&raw mut connection.waiting.which, which) } == 0;
    }
    let request = connection.waiting.which as u32;
    if request == 0 {
        return false;
    }
    let answer = if message.is_last { connection.last_answer.into() } else { find_answer(request, message) };
    connection.last_answer = answer as u32;
    let Some(waiting) = end_wait(connection) else { return false };
    let may_count = waiting.request & LEFT_OUT != 0 && connection.templates & MAY_COUNT != 0;
    if answer != 0 && may_count && is_counted(connection, &waiting, message, answer) {
        pass_over(connection, &waiting, message);
    } else {
        tell(connection, &waiting, (answer != 0).then_some(message), answer as u32);
    }
    answer != 0
}

/// The template of an answer to a request that equals one; 0: none.
#[inline(always)]
fn find_answer(request: u32, message: &Whole) -> u64 {
    let start_words = TEMPLATES.get_ptr(request).map_or(0, |found| {
        // SAFETY: the pointer was checked by the lookup.
        unsafe { (*found).answer_start }
    });
    find(ANSWER | request, message.len, message.captured, start_words, 0)
}

/// Counts an exchange that is not told; false: there is no room.
#[inline(always)]
fn is_counted(connection: &Connection, waiting: &Waiting, message: &Whole, answer: u64) -> bool {
    let is_root = connection.role == Role::Accepted as u8 || waiting.request == LEFT_OUT;
    let duration = message.time.saturating_sub(waiting.start);
    count_exchange(connection.id, answer << 32 | u64::from(is_root), duration) != 0
}

/// Goes on as if neither the request nor its answer had been there: nobody is told of their bytes, and none are missing.
#[inline(always)]
fn pass_over(connection: &mut Connection, waiting: &Waiting, answer: &Whole) {
    let Connection { sent, received, write_begin, read_begin, .. } = connection;
    let (request, answered) = if answer.is_sent {
        ((received, read_begin), (sent, write_begin))
    } else {
        ((sent, write_begin), (received, read_begin))
    };
    let pass = |(total, begin): (&mut u64, &mut u32), offset: u64| {
        *begin = begin.wrapping_add((*total).wrapping_sub(offset) as u32);
        *total = offset;
    };
    pass(request, waiting.offset);
    pass(answered, answer.offset);
}

/// Adds an exchange to its row: the answer in the upper half of `both`, in the lower 1 if it begins a trace. 0: there is no
/// room. A global function, as [`find`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_exchange(connection: u64, both: u64, duration: u64) -> u64 {
    let key = CountKey { connection, answer: (both >> 32) as u32, is_root: both as u32 };
    let Some(row) = row(&key) else {
        count(Counter::ExchangeRowsFull);
        return 0;
    };
    let bucket = bucket(duration);
    // SAFETY: the pointer was checked by the lookup, the words are aligned, and the bucket is bounded.
    unsafe {
        atomic::add(&raw mut (*row).count, 1);
        atomic::add(&raw mut (*row).sum, duration);
        // Of several CPUs that have a longer one at once the first wins; the buckets tell of the others.
        let max = (*row).max;
        if duration > max {
            atomic::exchange(&raw mut (*row).max, max, duration);
        }
        if bucket < BUCKETS {
            atomic::add((&raw mut (*row).buckets).cast::<u64>().add(bucket), 1);
        }
    }
    count(Counter::ExchangesCounted);
    1
}

/// A row of counts, which is made where there is none.
#[inline(always)]
fn row(key: &CountKey) -> Option<*mut Histogram> {
    if let Some(row) = EXCHANGE_COUNTS.get_ptr_mut(key) {
        return Some(row);
    }
    let empty = EMPTY_HISTOGRAM.get_ptr(0)?;
    // SAFETY: the pointer was checked by the lookup.
    let empty = unsafe { &*empty };
    // Another CPU may have made it meanwhile: then it is there, which is all that counts.
    let _ = EXCHANGE_COUNTS.insert(key, empty, BPF_NOEXIST.into());
    EXCHANGE_COUNTS.get_ptr_mut(key)
}

/// Tells of a request that waits, if one does: what follows on its connection is sent in full.
#[inline(always)]
pub fn flush(connection: &mut Connection) {
    if let Some(waiting) = end_wait(connection) {
        tell(connection, &waiting, None, 0);
    }
}

/// The request that waits, if one does, which from now on none does. Another CPU may move the connection's other direction:
/// one of them gets it.
#[inline(always)]
fn end_wait(connection: &mut Connection) -> Option<Waiting> {
    let waiting = connection.waiting;
    if waiting.which == 0 {
        return None;
    }
    // SAFETY: the word is a map's, and aligned.
    let was = unsafe { atomic::exchange(&raw mut connection.waiting.which, waiting.which, 0) };
    (was == waiting.which).then_some(waiting)
}

/// Tells of a request, and of the answer if there is one.
#[inline(always)]
fn tell(connection: &Connection, waiting: &Waiting, message: Option<&Whole>, answer: u32) {
    let Some(state) = NET_STATES.get_ptr_mut(0) else { return count(Counter::NoState) };
    // SAFETY: `state` is this CPU's own: tracepoints run with preemption off.
    unsafe {
        (*state).exchange = Exchange {
            kind: EventKind::Exchange as u16,
            is_client: u16::from(connection.role == Role::Connected as u8),
            template: waiting.which as u32,
            answer,
            answer_len: message.map_or(0, |answer| answer.len as u32),
            start: waiting.start,
            end: message.map_or(waiting.start, |answer| answer.time),
            tgid: (waiting.ids >> 32) as u32,
            tid: waiting.ids as u32,
            connection: connection.id,
            offset: waiting.offset,
            answer_offset: message.map_or(0, |answer| answer.offset),
            unit: waiting.unit,
            request: waiting.request,
        };
    }
    send_exchange();
}

/// Sends the exchange in the state. A global function, as [`find`]. Returns 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn send_exchange() -> u64 {
    if let Some(state) = NET_STATES.get_ptr_mut(0) {
        emit::exchange(state);
    }
    0
}

/// The template that the message in the state equals; 0: none. `last`: the one that is asked first. A global function: the
/// verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find(of: u32, len: u64, captured: u64, start_words: u32, last: u32) -> u64 {
    if equals(last, of, len, captured) != 0 {
        return last.into();
    }
    let Some(state) = NET_STATES.get_ptr(0) else { return 0 };
    // SAFETY: `state` is this CPU's own, and its bytes are aligned to words.
    let words = unsafe { (&raw const (*state).bytes).cast::<u64>() };
    let whole_words = (captured / 8).min(start_words.into());
    let mut start = 0;
    for at in 0..MAX_START_WORDS as usize {
        if at as u64 >= whole_words {
            break;
        }
        // SAFETY: the buffer holds more words than these.
        start = fold(start, unsafe { *words.add(at) });
    }
    let key = TemplateKey { of, len: len as u32, start };
    let Some(number) = TEMPLATES_BY_KEY.get_ptr(&key) else { return 0 };
    // SAFETY: the pointer was checked by the lookup.
    let mut number = unsafe { *number };
    for _ in 0..MAX_CHAIN {
        if number != last && equals(number, of, len, captured) != 0 {
            return number.into();
        }
        let Some(template) = TEMPLATES.get_ptr(number) else { return 0 };
        // SAFETY: the pointer was checked by the lookup.
        number = unsafe { (*template).next };
        if number == 0 {
            return 0;
        }
    }
    0
}

/// 1: the message in the state equals this template. A global function, as [`find`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn equals(number: u32, of: u32, len: u64, captured: u64) -> u64 {
    let Some(template) = TEMPLATES.get_ptr(number) else { return 0 };
    // SAFETY: the pointer was checked by the lookup. Userspace says what a template is of after it has written the rest, and
    // writes another in its place long after it has taken that back.
    let template = unsafe { &*template };
    if template.of != of || u64::from(template.len) != len || u64::from(template.words) * 8 > captured + 7 {
        return 0;
    }
    let Some(state) = NET_STATES.get_ptr(0) else { return 0 };
    // SAFETY: `state` is this CPU's own, and its bytes are aligned to words.
    let words = unsafe { (&raw const (*state).bytes).cast::<u64>() };
    let mut different = 0;
    for begin in (0..TEMPLATE_WORDS).step_by(WORDS_AT_ONCE) {
        if begin as u32 >= template.words {
            break;
        }
        let is_open = template.open >> (begin / WORDS_AT_ONCE) & 1 != 0;
        for at in begin..begin + WORDS_AT_ONCE {
            // SAFETY: the buffer holds more words than a template, which has more than these.
            let (word, bytes) = unsafe { (*words.add(at), *template.bytes.get_unchecked(at)) };
            // SAFETY: as above.
            let mask = if is_open { unsafe { *template.mask.get_unchecked(at) } } else { u64::MAX };
            different |= differs(word, bytes, mask);
        }
        if different != 0 {
            return 0;
        }
    }
    if template.has_digits == 0 {
        return 1;
    }
    for at in 0..TEMPLATE_WORDS {
        if at as u32 >= template.words {
            break;
        }
        // SAFETY: the buffer holds more words than these.
        different |= no_digits(unsafe { *words.add(at) }, template.digits[at]);
    }
    u64::from(different == 0)
}
