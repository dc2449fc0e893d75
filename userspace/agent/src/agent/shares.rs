//! How many samples of which process the rules want, told to the kernel side: those that nobody wants cost next to nothing.

use descry_abi::limits::MAX_SAMPLE_SHARES;
use descry_config::{Config, Switches};
use descry_decode::ids::Tgid;
use descry_probe::Session;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::failure::Failure;

/// What was told of whom. A process is judged by its first sample in each window.
pub struct Shares {
    /// Samples a second and CPU of processes that have no frequency of their own.
    frequency: u64,
    told: FxHashSet<Tgid>,
    untold: FxHashMap<Tgid, u64>,
    /// Processes that ended, or run another program: they may have done so before the kernel side was told of them.
    ended: Vec<Tgid>,
    /// Whether what the kernel side knows is of no use any more.
    is_stale: bool,
    /// Samples of processes that found no room.
    full: u64,
}

impl Shares {
    /// Whether the rules of a configuration may want fewer samples of one process than of another.
    pub fn are_wanted(config: &Config) -> bool {
        let rules = config.rules.iter().map(|rule| (rule.profile, rule.frequency));
        let mut all = rules.chain([(config.others.profile, config.others.frequency)]);
        config.profile.enabled && all.any(|(profile, frequency)| !profile || frequency.is_some())
    }

    /// By the rules of a configuration; none: they want as many of each.
    pub fn new(config: &Config) -> Option<Self> {
        Self::are_wanted(config).then(|| Self {
            frequency: config.profile.frequency,
            told: FxHashSet::default(),
            untold: FxHashMap::default(),
            ended: Vec::new(),
            is_stale: true,
            full: 0,
        })
    }

    /// A sample came of a process with which this is done.
    pub fn met(&mut self, tgid: Tgid, switches: &Switches) {
        let frequency = if switches.profile { switches.frequency } else { Some(0) };
        if let Some(frequency) = frequency.filter(|frequency| *frequency < self.frequency)
            && !self.told.contains(&tgid)
        {
            if self.told.len() >= MAX_SAMPLE_SHARES as usize {
                self.full += 1;
                return;
            }
            self.told.insert(tgid);
            self.untold.insert(tgid, frequency);
        }
    }

    /// A process runs another program, or has ended: its number stands for something else.
    pub fn ended(&mut self, tgid: Tgid) {
        if self.told.remove(&tgid) && self.untold.remove(&tgid).is_none() {
            self.ended.push(tgid);
        }
    }

    /// Tells the kernel side what is new.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn tell(&mut self, session: &mut Session) -> Result<(), Failure> {
        if std::mem::take(&mut self.is_stale) {
            session.sample_alike();
        }
        for tgid in self.ended.drain(..) {
            session.sample_all_of(tgid);
        }
        for (tgid, frequency) in self.untold.drain() {
            self.full += u64::from(!session.sample_less(tgid, frequency)?);
        }
        Ok(())
    }

    /// Judges every process anew: it may have changed, or listen elsewhere.
    pub fn forget(&mut self) {
        self.told.clear();
        self.untold.clear();
        self.ended.clear();
        self.is_stale = true;
    }

    /// Samples since the last call of processes that found no room: more of them are taken than are wanted.
    pub fn take_full(&mut self) -> u64 {
        std::mem::take(&mut self.full)
    }
}
