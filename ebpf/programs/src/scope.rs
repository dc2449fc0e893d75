//! Is this task watched? One look-up for most tasks, watched or not.

use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id};
use descry_abi::counter::Counter;
use descry_abi::limits::{MAX_CGROUP_DEPTH, SCOPE_FILTER_SLOTS};
use descry_abi::scope::{SCOPE_SEVERAL, ScopeKind};

use crate::config::{PID_NAMESPACE, SCOPE_KIND};
use crate::emit::count;
use crate::maps::{SCOPE_CGROUPS, SCOPE_FILTER, SCOPE_TGIDS};
use crate::task::Task;

const ALL: u32 = ScopeKind::All as u32;
const PROCESSES: u32 = ScopeKind::Processes as u32;

/// Whether the running task is watched.
#[inline(always)]
pub fn current_is_watched(tgid: u32) -> bool {
    match SCOPE_KIND.load() {
        ALL => true,
        PROCESSES => has_process(tgid),
        _ => current_in_cgroups(),
    }
}

/// Whether a task that is not the running one is watched.
#[inline(always)]
pub fn task_is_watched(task: Task, tgid: u32) -> bool {
    match SCOPE_KIND.load() {
        ALL => true,
        PROCESSES => has_process(tgid),
        _ => task_in_cgroups(task),
    }
}

fn task_in_cgroups(task: Task) -> bool {
    let mut cgroup = task.cgroup();
    for _ in 0..MAX_CGROUP_DEPTH {
        let Some(own) = cgroup else { return false };
        let Some(id) = own.id() else { return false };
        if SCOPE_CGROUPS.get_ptr(id).is_some() {
            return true;
        }
        cgroup = own.parent();
    }
    false
}

/// Whether a process is watched by its id.
#[inline(always)]
pub fn has_process(tgid: u32) -> bool {
    match filter(tgid) {
        SCOPE_SEVERAL => SCOPE_TGIDS.get_ptr(tgid).is_some(),
        only => only != 0 && only == u64::from(tgid),
    }
}

/// The word of the filter for this id.
#[inline(always)]
fn filter(tgid: u32) -> u64 {
    // SAFETY: the pointer was checked by the lookup; the word is written at once.
    SCOPE_FILTER.get_ptr(tgid & (SCOPE_FILTER_SLOTS - 1)).map_or(0, |word| unsafe { *word })
}

/// False: a process of this id is not watched by it. True: ask [`has_process`].
#[inline(always)]
fn may_have_process(tgid: u32) -> bool {
    filter(tgid) != 0
}

/// False: a process of this id is surely not watched.
#[inline(always)]
pub fn may_be_watched(tgid: u32) -> bool {
    SCOPE_KIND.load() != PROCESSES || may_have_process(tgid)
}

/// Whether the running task is surely not watched, by what a few instructions can tell: `tgid` is the kernel's own id of
/// its process.
#[inline(always)]
pub fn is_surely_out(tgid: u32) -> bool {
    SCOPE_KIND.load() == PROCESSES && PID_NAMESPACE.load() == 0 && !may_have_process(tgid)
}

/// Puts a process in scope.
#[inline(always)]
pub fn add_process(tgid: u32) {
    if SCOPE_TGIDS.insert(tgid, 0, 0).is_err() {
        count(Counter::ScopeFull);
    }
    // The one that is there already stays the only one.
    if filter(tgid) != u64::from(tgid) {
        set_several(tgid);
    }
}

/// Takes a process out of scope: its number may be given to another.
#[inline(always)]
pub fn remove_process(tgid: u32) {
    if filter(tgid) == u64::from(tgid) {
        set_several(tgid);
    }
    // It need not be there.
    let _ = SCOPE_TGIDS.remove(tgid);
}

/// The map is to be asked. Whoever else writes to the filter while programs run writes the same, so no write is lost.
#[inline(always)]
fn set_several(tgid: u32) {
    if let Some(word) = SCOPE_FILTER.get_ptr_mut(tgid & (SCOPE_FILTER_SLOTS - 1)) {
        // SAFETY: the pointer was checked by the lookup.
        unsafe { *word = SCOPE_SEVERAL }
    }
}

#[inline(always)]
fn current_in_cgroups() -> bool {
    // SAFETY: the helpers have no preconditions.
    let own = unsafe { bpf_get_current_cgroup_id() };
    if SCOPE_CGROUPS.get_ptr(own).is_some() {
        return true;
    }
    // The root (level 0) is everything, so the search begins below it. 0: no ancestor at this level.
    for level in 1..MAX_CGROUP_DEPTH {
        // SAFETY: as above.
        let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if ancestor == 0 {
            return false;
        }
        if SCOPE_CGROUPS.get_ptr(ancestor).is_some() {
            return true;
        }
    }
    false
}
