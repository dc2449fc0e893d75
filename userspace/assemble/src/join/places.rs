//! Where the spans of requests are that were answered lately.

use descry_decode::ids::{BootNanos, RequestId, UnixNanos};

use crate::span::{Span, SpanId, TraceId};

/// Places that get their memory at once.
const CHUNK: usize = 256;
/// Bits of a request's number that count; above them stands who counted.
const COUNT_BITS: u32 = 48;
/// 2^64 / the golden ratio: its multiples lie far from each other.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Where a request's span is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) flags: u8,
    /// The parent that the request itself named.
    pub(super) caller: Option<SpanId>,
    pub(super) start: UnixNanos,
    pub(super) end: UnixNanos,
    pub(super) is_shared: bool,
}

impl Place {
    /// Of this span. `is_shared`: other requests of the same connection were served meanwhile.
    pub fn of(span: &Span, is_shared: bool) -> Self {
        Self {
            trace: span.trace,
            span: span.span,
            flags: span.flags,
            caller: span.parent,
            start: span.start,
            end: span.end,
            is_shared,
        }
    }
}

type Slot = Option<(RequestId, BootNanos, Place)>;

/// As many as there are slots, each in the one that its number says: a newer request takes an older one's. Every CPU counts
/// its requests up, so those that follow each other are neighbours in memory, and nothing is ever looked for.
#[derive(Debug)]
pub(super) struct Places {
    chunks: Vec<Option<Box<[Slot]>>>,
}

impl Places {
    /// For so many requests, or a few more.
    pub fn new(remembered: usize) -> Self {
        let chunks = remembered.div_ceil(CHUNK).next_power_of_two();
        Self { chunks: vec![None; chunks] }
    }

    /// Remembers where a request's span is.
    pub fn insert(&mut self, request: RequestId, now: BootNanos, place: Place) {
        let (chunk, slot) = self.position(request);
        let chunk = self.chunks.get_mut(chunk).map(|it| it.get_or_insert_with(|| vec![None; CHUNK].into()));
        if let Some(slot) = chunk.and_then(|chunk| chunk.get_mut(slot)) {
            *slot = Some((request, now, place));
        }
    }

    /// Where a request's span is, if that was told after `since`.
    pub fn get(&self, request: RequestId, since: BootNanos) -> Option<Place> {
        let (chunk, slot) = self.position(request);
        let &(of, met, place) = self.chunks.get(chunk)?.as_ref()?.get(slot)?.as_ref()?;
        (of == request && met >= since).then_some(place)
    }

    fn position(&self, request: RequestId) -> (usize, usize) {
        let place = request.0.wrapping_add((request.0 >> COUNT_BITS).wrapping_mul(SPREAD)) as usize;
        ((place / CHUNK) & (self.chunks.len() - 1), place % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> Place {
        Place {
            trace: TraceId([0; 16]),
            span: SpanId(number.to_le_bytes()),
            flags: 0,
            caller: None,
            start: UnixNanos(0),
            end: UnixNanos(0),
            is_shared: false,
        }
    }

    #[test]
    fn the_last_requests_of_each_cpu_are_remembered() {
        let mut places = Places::new(1000);
        let request = |cpu: u64, number: u64| RequestId(cpu << COUNT_BITS | number);
        for number in 1..=2000 {
            places.insert(request(1, number), BootNanos(number), place(number));
            if number % 10 == 0 {
                places.insert(request(2, number / 10), BootNanos(number), place(number));
            }
        }
        let found = |cpu, number, since| {
            let place = places.get(request(cpu, number), BootNanos(since))?;
            Some(u64::from_le_bytes(place.span.0))
        };
        assert_eq!(found(1, 2000, 0), Some(2000));
        assert_eq!(found(1, 2000, 2000), Some(2000));
        assert_eq!(found(1, 2000, 2001), None, "too old");
        assert_eq!(found(1, 2001, 0), None, "never met");
        assert_eq!(found(1, 976, 0), None, "another has its place");
        let kept = (977..=2000).filter(|number| found(1, *number, 0) == Some(*number)).count();
        assert!(kept > 800, "{kept} of the last 1,024 of a busy CPU");
        let kept = (101..=200).filter(|number| found(2, *number, 0) == Some(number * 10)).count();
        assert!(kept > 40, "{kept} of the last 100 of a calm CPU");
    }
}
