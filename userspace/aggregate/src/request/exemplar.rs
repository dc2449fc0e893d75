//! Exemplars: a few requests of a row, by which a reader finds their traces (OpenTelemetry data model, "Exemplars").

use descry_assemble::span::{SpanId, TraceId};
use descry_decode::ids::UnixNanos;

/// Exemplars of a row at most.
pub const EXEMPLARS: usize = 4;

/// One duration, and the span that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// The span's trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// When it ended.
    pub time: UnixNanos,
    /// How long it took (ns).
    pub duration: u64,
}

/// The longest of all that were offered, and a random choice of the others in which each has the same chance (Vitter's
/// algorithm R): the one that somebody looks for first, and what is usual.
#[derive(Clone, Debug, Default)]
pub(super) struct Reservoir {
    longest: Option<Exemplar>,
    others: [Option<Exemplar>; EXEMPLARS - 1],
    /// How many others were offered.
    offered: u64,
}

impl Reservoir {
    pub(super) fn offer(&mut self, exemplar: Exemplar, random: &mut Random) {
        let other = match &mut self.longest {
            Some(longest) if longest.duration >= exemplar.duration => exemplar,
            longest => match longest.replace(exemplar) {
                Some(shorter) => shorter,
                None => return,
            },
        };
        let place = if self.offered < self.others.len() as u64 {
            self.offered
        } else {
            random.below(self.offered + 1)
        };
        self.offered += 1;
        if let Some(place) = usize::try_from(place).ok().and_then(|place| self.others.get_mut(place)) {
            *place = Some(other);
        }
    }

    pub(super) fn kept(&self) -> Vec<Exemplar> {
        self.longest.into_iter().chain(self.others.into_iter().flatten()).collect()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Numbers for a choice that nobody has to be unable to guess (xorshift64). The same sequence each time, so that the
/// stage stays a function of its input.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    /// A number below `limit`, which is not zero.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(durations: impl Iterator<Item = u64>) -> Vec<u64> {
        kept_by(durations, &mut Random::default())
    }

    fn kept_by(durations: impl Iterator<Item = u64>, random: &mut Random) -> Vec<u64> {
        let mut reservoir = Reservoir::default();
        for duration in durations {
            let (trace, span) = (TraceId([1; 16]), SpanId([1; 8]));
            reservoir.offer(Exemplar { trace, span, time: UnixNanos(duration), duration }, random);
        }
        reservoir.kept().iter().map(|exemplar| exemplar.duration).collect()
    }

    #[test]
    fn few_are_all_kept_and_the_longest_comes_first() {
        assert_eq!(kept([].into_iter()), []);
        assert_eq!(kept([5].into_iter()), [5]);
        assert_eq!(kept([5, 9, 7, 7].into_iter()), [9, 5, 7, 7]);
    }

    #[test]
    fn of_many_the_longest_and_some_from_everywhere() {
        // One sequence for all rounds: begun anew it would choose the same places each time.
        let (mut sum, mut random) = (0, Random::default());
        for round in 0..200 {
            let numbers = (1..1000).map(|number| (number * 7919 + round) % 10_007);
            let kept = kept_by(numbers, &mut random);
            assert_eq!(kept.len(), EXEMPLARS);
            let truth = (1..1000).map(|number| (number * 7919 + round) % 10_007).max();
            assert_eq!(kept.first().copied(), truth);
            sum += kept.iter().skip(1).sum::<u64>();
        }
        // 600 numbers around 5,000.
        assert!((4500..5500).contains(&(sum / 600)), "{}", sum / 600);
    }
}
