//! Programs whose execution units are not threads: the kernel side is told how to find them.

use std::sync::Arc;

use descry_abi::unit::UnitRule;
use descry_decode::ids::Tgid;
use descry_probe::Session;
use descry_process::object::ObjectId;
use descry_symbol::{ObjectSource, goroutine_rule};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::measure::Tracker;

/// Programs whose rule is remembered at most; 60 B each.
const MAX_PROGRAMS: usize = 4096;
/// Processes that were looked at, remembered at most.
const MAX_PROCESSES: usize = 65_536;

/// The rules.
#[derive(Default)]
pub struct Units {
    by_program: FxHashMap<ObjectId, Option<UnitRule>>,
    met: FxHashSet<Tgid>,
    untold: Vec<(Tgid, UnitRule)>,
}

impl Units {
    /// A process is there: finds its rule, if it was not looked at before.
    pub fn met(&mut self, tracker: &mut Tracker, tgid: Tgid) {
        if self.met.len() >= MAX_PROCESSES {
            self.met.clear();
        }
        if !self.met.insert(tgid) {
            return;
        }
        let Some(program) = tracker.go_program(tgid) else { return };
        if self.by_program.len() >= MAX_PROGRAMS {
            self.by_program.clear();
        }
        let rule = *self.by_program.entry(program.id).or_insert_with(|| {
            let source = ObjectSource {
                open_path: program.open_path()?,
                name: Arc::clone(&program.path),
                debug_path: None,
                is_go: true,
                is_rust: false,
            };
            let rule = goroutine_rule(&source);
            if rule.is_none() {
                tracing::info!(path = %program.path, "a version of Go that is not known: its threads are its units");
            }
            rule
        });
        if let Some(rule) = rule {
            self.untold.push((tgid, rule));
        }
    }

    /// A process ended, or runs another program.
    pub fn forget(&mut self, tgid: Tgid) {
        self.met.remove(&tgid);
    }

    /// Tells the kernel side what is new.
    pub fn tell(&mut self, session: &mut Session) {
        for (tgid, rule) in self.untold.drain(..) {
            session.set_unit_rule(tgid, rule);
        }
    }
}
