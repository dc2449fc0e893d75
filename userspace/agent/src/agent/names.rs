//! Names of places in code, remembered from window to window: most samples are where those before were.

use std::num::NonZeroUsize;

use descry_aggregate::{CodeRef, KnownCode};
use descry_symbol::Counters;
use lru::LruCache;

use super::window::Window;
use crate::measure::Symbols;

/// Places remembered at most; some 400 bytes each.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(1 << 14).expect("not zero");

/// The memory.
pub struct Names {
    known: LruCache<CodeRef, KnownCode>,
    generation: u64,
    counters: Counters,
}

impl Names {
    /// One that knows nothing.
    pub fn new() -> Self {
        Self { known: LruCache::new(MAX_REMEMBERED), generation: 0, counters: Counters::default() }
    }

    /// What each place in the window's code is, in its order, and what was counted on the way until now.
    pub fn of(&mut self, window: &Window) -> (Vec<KnownCode>, Counters) {
        if self.generation != window.generation {
            self.generation = window.generation;
            self.known.clear();
        }
        let code = window.aggregator.code();
        let mut known: Vec<Option<KnownCode>> =
            code.iter().map(|place| self.known.get(place).cloned()).collect();
        let unknown: Vec<CodeRef> = code
            .iter()
            .zip(&known)
            .filter(|(_, known)| known.is_none())
            .map(|(place, _)| place.clone())
            .collect();
        if !unknown.is_empty() {
            let mut symbols = Symbols::new(&window.held, &window.owners, window.inlines);
            let named = symbols.resolve(&unknown, |_| {});
            self.counters.add(symbols.counters());
            let missing = known.iter_mut().filter(|known| known.is_none());
            for ((place, name), slot) in unknown.into_iter().zip(named).zip(missing) {
                // What a process makes at run time may be something else in the next window.
                if matches!(place, CodeRef::Kernel(_) | CodeRef::Object { .. }) {
                    self.known.put(place, name.clone());
                }
                *slot = Some(name);
            }
        }
        (known.into_iter().flatten().collect(), self.counters)
    }
}
