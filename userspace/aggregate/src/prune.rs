//! Takes out of a profile what is too little to show, and out of its tables what no sample refers to.

use std::fmt;
use std::time::Duration;

use crate::profile::Profile;

/// What was left out of a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Stacks, each by process, thread and reason.
    pub stacks: u64,
    /// Their waits.
    pub waits: u64,
    /// How long they were together (ns).
    pub time: u64,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Duration::from_nanos(self.time);
        write!(f, "{} stacks with {} waits, {time:.1?} together", self.stacks, self.waits)
    }
}

impl Profile {
    /// Leaves out stacks whose waits are shorter than `min` together. Time on a CPU stays.
    pub fn leave_out_waits_below(&mut self, min: Duration) -> LeftOut {
        let min = u64::try_from(min.as_nanos()).unwrap_or(u64::MAX);
        let mut left_out = LeftOut::default();
        self.samples.retain(|sample| {
            let stays = sample.waited.is_none() || sample.weight >= min;
            if !stays {
                left_out.stacks += 1;
                left_out.waits += sample.count;
                left_out.time = left_out.time.saturating_add(sample.weight);
            }
            stays
        });
        prune(self);
        left_out
    }
}

/// Where each entry of a table moves: those that are not used go, the others keep their order.
struct Moves(Vec<Option<u32>>);

impl Moves {
    fn new(len: usize, used: impl Iterator<Item = u32>) -> Self {
        let mut moves = vec![None; len];
        for index in used {
            if let Some(slot) = moves.get_mut(index as usize) {
                *slot = Some(0);
            }
        }
        for (new, slot) in moves.iter_mut().flatten().enumerate() {
            *slot = new as u32;
        }
        Self(moves)
    }

    /// The new index; an entry that is not there has none.
    fn of(&self, index: u32) -> u32 {
        self.0.get(index as usize).copied().flatten().unwrap_or_default()
    }

    fn apply<T>(&self, table: &mut Vec<T>) {
        let mut moves = self.0.iter();
        table.retain(|_| moves.next().is_some_and(Option::is_some));
    }
}

/// Takes out unused stacks, locations, functions, mappings and processes.
pub fn prune(profile: &mut Profile) {
    let processes = Moves::new(profile.processes.len(), profile.samples.iter().map(|sample| sample.process));
    let stacks = Moves::new(profile.stacks.len(), profile.samples.iter().map(|sample| sample.stack));
    processes.apply(&mut profile.processes);
    stacks.apply(&mut profile.stacks);
    for sample in &mut profile.samples {
        sample.process = processes.of(sample.process);
        sample.stack = stacks.of(sample.stack);
    }
    let used = profile.stacks.iter().flat_map(|stack| stack.locations.iter().copied());
    let locations = Moves::new(profile.locations.len(), used);
    locations.apply(&mut profile.locations);
    for location in profile.stacks.iter_mut().flat_map(|stack| &mut stack.locations) {
        *location = locations.of(*location);
    }
    let used = profile.locations.iter().flat_map(|location| location.lines.iter().map(|line| line.function));
    let functions = Moves::new(profile.functions.len(), used);
    let used = profile.locations.iter().filter_map(|location| location.mapping);
    let mappings = Moves::new(profile.mappings.len(), used);
    functions.apply(&mut profile.functions);
    mappings.apply(&mut profile.mappings);
    for location in &mut profile.locations {
        location.mapping = location.mapping.map(|mapping| mappings.of(mapping));
        for line in &mut location.lines {
            line.function = functions.of(line.function);
        }
    }
}
