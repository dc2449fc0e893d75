//! How many samples of which process the rules want, told to the kernel side: those that nobody wants cost next to nothing.

use descry_abi::limits::MAX_SAMPLE_SHARES;
use descry_config::{Config, Switches};
use descry_decode::ids::Tgid;
use descry_probe::Session;
use rustc_hash::FxHashSet;

use crate::failure::Failure;

/// What was told of whom. A process is judged by its first sample in each window.
pub struct Shares {
    /// Samples a second and CPU of processes that have no frequency of their own.
    frequency: u64,
    told: FxHashSet<Tgid>,
    untold: Vec<(Tgid, u64)>,
    /// Whether what the kernel side knows is of no use any more.
    is_stale: bool,
    /// Processes that found no room.
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
            untold: Vec::new(),
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
            self.untold.push((tgid, frequency));
        }
    }

    /// A process runs another program, or has ended: the kernel side has forgotten what it was told.
    pub fn ended(&mut self, tgid: Tgid) {
        self.told.remove(&tgid);
    }

    /// Tells the kernel side what is new.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn tell(&mut self, session: &mut Session) -> Result<(), Failure> {
        if std::mem::take(&mut self.is_stale) {
            session.sample_alike();
        }
        for (tgid, frequency) in self.untold.drain(..) {
            self.full += u64::from(!session.sample_less(tgid, frequency)?);
        }
        Ok(())
    }

    /// Judges every process anew: it may have changed, or listen elsewhere.
    pub fn forget(&mut self) {
        self.told.clear();
        self.untold.clear();
        self.is_stale = true;
    }

    /// Times that a process found no room since the last call: more of its samples are taken than are wanted.
    pub fn take_full(&mut self) -> u64 {
        std::mem::take(&mut self.full)
    }
}
