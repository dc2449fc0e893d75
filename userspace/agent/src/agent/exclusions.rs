//! What the rules leave out of which process, told to the kernel side: switches of threads, system calls and messages that
//! nobody wants to know of cost next to nothing.

use std::collections::BTreeMap;
use std::ops::Bound;

use descry_abi::limits::EXCLUSION_SLOTS;
use descry_config::{Config, Switches};
use descry_decode::Lifecycle;
use descry_decode::ids::{Comm, Tgid};
use descry_probe::{Exclusion, Session};
use descry_process::identity;
use descry_process::target::processes;
use rustc_hash::FxHashMap;

use super::rules::Rules;
use crate::failure::Failure;

/// Processes that are judged anew with each window: reading who one is takes a tenth of a millisecond.
const JUDGED_A_WINDOW: usize = 64;
/// Of processes that begin one is judged in so many nanoseconds, and so many at once.
const JUDGED_EVERY: u64 = 10_000_000;
const JUDGED_AT_ONCE: u64 = 100;

/// What was told of whom.
pub struct Exclusions {
    /// What is measured at all and left out of some.
    may: Exclusion,
    /// What is left out of a process; those of which nothing is are not there.
    told: BTreeMap<Tgid, Exclusion>,
    untold: FxHashMap<Tgid, Exclusion>,
    /// Who was judged anew last; those with higher ids come next.
    last_judged: Tgid,
    /// From when on the next process that begins may be judged (ns since boot).
    next_began: u64,
    /// Times that the kernel side could not be told.
    full: u64,
}

impl Exclusions {
    /// What the rules of a configuration may leave out of some processes.
    pub fn wanted(config: &Config) -> Exclusion {
        // Who listens on a port of a rule shows when it accepts a connection there.
        let has_ports = config.rules.iter().any(|rule| !rule.ports.is_empty());
        let leaves_out = |part: fn(&Switches) -> bool| {
            !part(&config.others) || config.rules.iter().any(|rule| !part(&rule.switches()))
        };
        Exclusion {
            waits: config.off_cpu.enabled && leaves_out(|switches| switches.off_cpu),
            syscalls: config.syscalls.enabled && leaves_out(|switches| switches.syscalls),
            messages: config.requests.enabled && !has_ports && leaves_out(|switches| switches.requests),
        }
    }

    /// Of a kernel side that knows of nobody; none: nothing is left out of anybody.
    pub fn new(config: &Config) -> Option<Self> {
        let may = Self::wanted(config);
        (may != Exclusion::default()).then(|| Self {
            may,
            told: BTreeMap::new(),
            untold: FxHashMap::default(),
            last_judged: Tgid(0),
            next_began: 0,
            full: 0,
        })
    }

    /// A process was judged.
    pub fn met(&mut self, tgid: Tgid, switches: &Switches) {
        let parts = Exclusion {
            waits: self.may.waits && !switches.off_cpu,
            syscalls: self.may.syscalls && !switches.syscalls,
            messages: self.may.messages && !switches.requests,
        };
        if parts == self.told.get(&tgid).copied().unwrap_or_default() {
            return;
        }
        if parts == Exclusion::default() {
            self.told.remove(&tgid);
        } else if !lives(tgid) {
            // It was heard of its end, and nobody would say when its number is another's.
            return;
        } else if self.told.len() < EXCLUSION_SLOTS as usize || self.told.contains_key(&tgid) {
            self.told.insert(tgid, parts);
        } else {
            self.full += 1;
            return;
        }
        self.untold.insert(tgid, parts);
    }

    /// A process has a child, of which the kernel side leaves out the same by itself.
    pub fn forked(&mut self, fork: &Lifecycle) {
        if let Some(parts) = self.told.get(&Tgid(fork.other)).copied()
            && self.told.len() < EXCLUSION_SLOTS as usize
        {
            self.told.insert(fork.tgid, parts);
        }
    }

    /// A process runs another program.
    pub fn began(&mut self, exec: &Lifecycle, rules: &mut Rules) {
        self.ended(exec.tgid);
        // Who has no turn is judged by what is measured of it.
        let next = self.next_began.max(exec.time.0.saturating_sub(JUDGED_AT_ONCE * JUDGED_EVERY));
        if next <= exec.time.0 {
            self.next_began = next + JUDGED_EVERY;
            self.judge(exec.tgid, rules);
        }
    }

    /// A process has ended. The kernel side knows, unless it is told of it only now.
    pub fn ended(&mut self, tgid: Tgid) {
        if self.told.remove(&tgid).is_some() {
            self.untold.insert(tgid, Exclusion::default());
        }
    }

    /// Judges all processes of the machine.
    pub fn judge_all(&mut self, rules: &mut Rules) {
        // Without /proc nobody can be judged, and all are measured.
        for tgid in processes().unwrap_or_default() {
            self.judge(tgid, rules);
            // It may be the child of one, and nobody heard of it.
            self.untold.entry(tgid).or_insert_with(|| self.told.get(&tgid).copied().unwrap_or_default());
        }
    }

    /// Judges some of those of which something is left out anew: they may be in another cgroup, or listen, meanwhile.
    pub fn judge_some(&mut self, rules: &mut Rules) {
        let after = (Bound::Excluded(self.last_judged), Bound::Unbounded);
        let some: Vec<Tgid> = self.told.range(after).map(|(tgid, _)| *tgid).take(JUDGED_A_WINDOW).collect();
        // After the last comes the first.
        self.last_judged = some.last().copied().unwrap_or(Tgid(0));
        for tgid in some {
            // Of its end nobody heard if the ring was full.
            if lives(tgid) {
                self.judge(tgid, rules);
            } else {
                self.ended(tgid);
            }
        }
    }

    fn judge(&mut self, tgid: Tgid, rules: &mut Rules) {
        let mut read = None;
        let who = &mut read;
        let switches = rules.of(tgid, Comm::default(), move || {
            *who = identity::read(tgid).ok();
            who.as_ref()
        });
        self.met(tgid, switches);
    }

    /// Tells the kernel side what is new.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn tell(&mut self, session: &mut Session) -> Result<(), Failure> {
        for (tgid, parts) in self.untold.drain() {
            if !session.exclude(tgid, parts)? {
                self.told.remove(&tgid);
                self.full += 1;
            }
        }
        Ok(())
    }

    /// Times since the last call that the kernel side could not be told of a process: it measures what is left out later.
    pub fn take_full(&mut self) -> u64 {
        std::mem::take(&mut self.full)
    }
}

/// Whether a process has not ended.
fn lives(tgid: Tgid) -> bool {
    identity::stat(tgid).is_ok_and(|stat| !stat.has_ended)
}

#[cfg(test)]
mod tests {
    use std::process::id;

    use descry_decode::ids::{BootNanos, Tid};

    use super::*;

    /// No process has it: it is above the kernel's limit.
    const GONE: Tgid = Tgid(1 << 30);
    const ALL: Exclusion = Exclusion { waits: true, syscalls: true, messages: true };
    const NOTHING_WANTED: &str = "{off_cpu: false, syscalls: false, requests: false}";

    fn config(rest: &str) -> Config {
        let file = format!("off_cpu: {{enabled: true}}\nsyscalls: {{enabled: true}}\n{rest}");
        descry_config::load(&file, |_| None).unwrap().config
    }

    fn event(tgid: Tgid, other: Tgid, time: u64) -> Lifecycle {
        Lifecycle { time: BootNanos(time), tgid, tid: Tid(tgid.0), other: other.0, comm: Comm::default() }
    }

    #[test]
    fn only_what_some_rule_leaves_out_is_looked_for() {
        assert_eq!(Exclusions::wanted(&config("")), Exclusion::default());
        assert!(Exclusions::new(&config("rules: [{comm: a, profile: false}]")).is_none());
        let others = format!("others: {NOTHING_WANTED}");
        assert_eq!(Exclusions::wanted(&config(&others)), ALL);
        // Who listens there is known by its messages.
        let by_port = Exclusions::wanted(&config(&format!("rules: [{{ports: [80]}}]\n{others}")));
        assert_eq!(by_port, Exclusion { messages: false, ..ALL });
        let measured = descry_config::load(&others, |_| None).unwrap().config;
        assert_eq!(Exclusions::wanted(&measured), Exclusion { messages: true, ..Exclusion::default() });
    }

    #[test]
    fn the_kernel_side_hears_of_those_that_live_until_they_end() {
        let config_now = config(&format!("others: {NOTHING_WANTED}"));
        let mut exclusions = Exclusions::new(&config_now).unwrap();
        let own = Tgid(id());
        exclusions.met(GONE, &config_now.others);
        assert!(exclusions.untold.is_empty(), "nobody would say when its number is another's");
        exclusions.met(own, &config_now.others);
        assert_eq!(exclusions.untold.remove(&own), Some(ALL));
        exclusions.met(own, &config_now.others);
        assert!(exclusions.untold.is_empty(), "it knows");

        exclusions.forked(&event(GONE, own, 0));
        assert!(exclusions.untold.is_empty(), "it does so by itself");
        // The end of that child got lost.
        exclusions.judge_some(&mut Rules::new(&config_now));
        assert_eq!(exclusions.untold.remove(&GONE), Some(Exclusion::default()));
        assert_eq!(exclusions.told.keys().copied().collect::<Vec<_>>(), [own]);

        exclusions.met(own, &config("").others);
        assert_eq!(exclusions.untold.remove(&own), Some(Exclusion::default()), "it is wanted again");
    }

    #[test]
    fn programs_that_start_are_judged_at_a_bounded_rate() {
        let config = config(&format!("others: {NOTHING_WANTED}"));
        let (mut exclusions, mut rules) = (Exclusions::new(&config).unwrap(), Rules::new(&config));
        let own = Tgid(id());
        let mut is_judged = |time: u64| {
            exclusions.began(&event(own, Tgid(0), time), &mut rules);
            exclusions.told.contains_key(&own)
        };
        let second = 1_000_000_000;
        let at_once = (0..1000).filter(|_| is_judged(100 * second)).count() as u64;
        assert_eq!(at_once, JUDGED_AT_ONCE + 1);
        assert!(is_judged(101 * second));
    }
}
