//! The execution unit that the running thread works for.

use aya_ebpf::helpers::bpf_probe_read_user;
use descry_abi::limits::SCOPE_FILTER_SLOTS;
use descry_abi::unit::{UnitKey, UnitKind, UnitRule};

use crate::maps::{UNIT_FILTER, UNIT_RULES};
use crate::task::{Ids, Running};

/// A unit, and the one that made it where that is known.
#[derive(Clone, Copy)]
pub struct Unit {
    pub key: UnitKey,
    /// Number of the unit that made it; 0: unknown.
    pub parent: u64,
    /// Whether it is known for whom it works: not so of a thread that stands for units that cannot be found.
    pub is_known: bool,
}

impl Unit {
    /// The unit that made it.
    #[inline(always)]
    pub fn maker(&self) -> UnitKey {
        UnitKey { id: self.parent, ..self.key }
    }

    /// Whether it is a thread: it may turn from one request to another and back.
    #[inline(always)]
    pub fn is_thread(&self) -> bool {
        self.key.kind == UnitKind::Thread as u32
    }

    /// The number as events tell it: of a thread, that of descry's pid namespace.
    #[inline(always)]
    pub fn number(&self, ids: Ids) -> u64 {
        if self.is_thread() { ids.tid.into() } else { self.key.id }
    }
}

/// The running thread as a unit.
#[inline(always)]
pub fn thread() -> Unit {
    thread_of(Running::get())
}

#[inline(always)]
fn thread_of(task: Running) -> Unit {
    let key = UnitKey { kind: UnitKind::Thread as u32, tgid: 0, id: task.thread().into() };
    Unit { key, parent: 0, is_known: true }
}

/// The unit that the running thread works for; the thread itself where it works for none that is known.
#[inline(always)]
pub fn current(tgid: u32) -> Unit {
    of_task(Running::get(), tgid)
}

/// The same, of the running task.
#[inline(always)]
pub fn of_task(task: Running, tgid: u32) -> Unit {
    let slot = UNIT_FILTER.get_ptr(tgid & (SCOPE_FILTER_SLOTS - 1));
    // SAFETY: the pointer was checked by the lookup; the word is written at once.
    if slot.is_none_or(|word| unsafe { *word } == 0) {
        return thread_of(task);
    }
    let Some(rule) = UNIT_RULES.get_ptr(tgid) else { return thread_of(task) };
    // SAFETY: the pointer was checked by the lookup.
    let rule = unsafe { *rule };
    if rule.kind == UnitKind::Unknown as u32 {
        return Unit { is_known: false, ..thread_of(task) };
    }
    let pointer = task.thread_pointer();
    let found = if pointer == 0 { None } else { of_rule(&rule, pointer) };
    match found {
        Some((id, parent)) => Unit { key: UnitKey { kind: rule.kind, tgid, id }, parent, is_known: true },
        None => thread_of(task),
    }
}

#[inline(always)]
fn word(address: u64) -> Option<u64> {
    // SAFETY: bpf_probe_read_user checks the address and fails on a bad one.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}

#[inline(always)]
fn of_rule(rule: &UnitRule, thread_pointer: u64) -> Option<(u64, u64)> {
    let at = thread_pointer.wrapping_add_signed(rule.tls);
    if rule.kind == UnitKind::TokioTask as u32 {
        // SAFETY: bpf_probe_read_user checks the address and fails on a bad one.
        let alive =
            unsafe { bpf_probe_read_user(thread_pointer.wrapping_add_signed(rule.alive) as *const u8) };
        return word(at).filter(|id| *id != 0 && alive == Ok(1)).map(|id| (id, 0));
    }
    let mut g = word(at).filter(|g| *g != 0)?;
    let mut id = word(g + u64::from(rule.id))?;
    if id == 0 {
        // On a system stack: the goroutine that it works for is the one that its machine runs.
        let m = word(g + u64::from(rule.m))?;
        g = word(m.wrapping_add(rule.current.into())).filter(|g| *g != 0)?;
        id = word(g + u64::from(rule.id)).filter(|id| *id != 0)?;
    }
    let parent = if rule.parent == 0 { 0 } else { word(g + u64::from(rule.parent)).unwrap_or(0) };
    Some((id, parent))
}
