//! Names of places in code, remembered from window to window: most samples are where those before were.

use std::num::NonZeroUsize;
use std::time::Instant;

use descry_aggregate::{CodeRef, KnownCode};
use descry_process::object::ObjectId;
use descry_symbol::{Counters, KernelNames};
use lru::LruCache;
use rustc_hash::FxHashMap;

use super::patience::Patience;
use super::window::Window;
use crate::measure::Symbols;

/// Places remembered at most; some 400 bytes each.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(1 << 14).expect("not zero");

/// The memory.
pub struct Names {
    known: LruCache<CodeRef, KnownCode>,
    /// Those of the window at hand.
    now: FxHashMap<CodeRef, KnownCode>,
    generation: u64,
    kernel: KernelNames,
    patience: Patience,
    counters: Counters,
}

impl Names {
    /// One that knows nothing.
    pub fn new() -> Self {
        Self {
            known: LruCache::new(MAX_REMEMBERED),
            now: FxHashMap::default(),
            generation: 0,
            kernel: KernelNames::default(),
            patience: Patience::default(),
            counters: Counters::default(),
        }
    }

    /// Finds out what the places in a window's code are. Returns what was counted on the way until now.
    pub fn learn(&mut self, window: &Window) -> Counters {
        if self.generation != window.generation {
            self.generation = window.generation;
            self.known.clear();
        }
        self.now.clear();
        let mut unknown: Vec<CodeRef> = Vec::new();
        for place in window.code() {
            match self.known.get(&place).cloned() {
                Some(name) => drop(self.now.insert(place, name)),
                None => unknown.push(place),
            }
        }
        if unknown.is_empty() {
            return self.counters;
        }
        let (patient, unknown) = self.patient(unknown);
        self.learn_by_tables(window, patient);
        let kernel = std::mem::take(&mut self.kernel);
        let symbols = Symbols::new(&window.held, &window.owners, window.inlines);
        let mut symbols = symbols.with_kernel_names(kernel);
        let named = symbols.resolve(&unknown, |_| {});
        let now = Instant::now();
        symbols.took().for_each(|(object, took)| self.patience.read(object, took, now));
        self.counters.add(symbols.counters());
        self.kernel = symbols.into_kernel_names();
        for (place, name) in unknown.into_iter().zip(named) {
            // What a process makes at run time may be something else in the next window, and so may what the kernel
            // loads; of that, `kernel` knows how long it may be believed.
            if matches!(place, CodeRef::Object { .. }) {
                self.known.put(place.clone(), name.clone());
            }
            self.now.insert(place, name);
        }
        self.counters
    }

    /// Those of binaries whose debug information is not worth to be read for them now, and all others.
    fn patient(&mut self, unknown: Vec<CodeRef>) -> (Vec<CodeRef>, Vec<CodeRef>) {
        let mut number: FxHashMap<ObjectId, usize> = FxHashMap::default();
        for place in &unknown {
            if let CodeRef::Object { id, .. } = place {
                *number.entry(*id).or_default() += 1;
            }
        }
        let now = Instant::now();
        number.retain(|object, places| self.patience.asks(*object, *places, now));
        unknown
            .into_iter()
            .partition(|place| matches!(place, CodeRef::Object { id, .. } if number.contains_key(id)))
    }

    /// Names places of binaries by their symbol tables, for this window alone.
    fn learn_by_tables(&mut self, window: &Window, places: Vec<CodeRef>) {
        if places.is_empty() {
            return;
        }
        let mut symbols = Symbols::by_tables(&window.held, &window.owners);
        let named = symbols.resolve(&places, |_| {});
        self.counters.add(symbols.counters());
        self.now.extend(places.into_iter().zip(named));
    }

    /// What each of these places is, which are among those that were learnt last, in their order.
    pub fn of(&self, code: &[CodeRef]) -> Vec<KnownCode> {
        code.iter().filter_map(|place| self.now.get(place).cloned()).collect()
    }
}
