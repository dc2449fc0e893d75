//! Spans that differ in their ids and times only, between two drains: what they add up to is added to the metrics at once.
//!
//! A span whose attributes are [shared](descry_assemble::span::AttributeSet) was made like others of its connection. To look
//! up the row of each would cost more than to make it.

use descry_abi::histogram::Histogram;
use descry_aggregate::histogram::record;
use descry_aggregate::request::Exemplar;
use descry_assemble::span::Span;
use rustc_hash::FxHashMap;

use super::connections::Owned;

/// Groups that are kept at most; about 2 KiB each.
const MAX_GROUPS: usize = 512;

/// Spans by what they have in common.
#[derive(Default)]
pub struct Alike(FxHashMap<usize, Group>);

/// Spans that are alike.
pub struct Group {
    pub owned: Owned,
    /// The first of them.
    pub span: Span,
    /// How long they took (ns).
    pub durations: Durations,
    /// The one of the traces that are kept that took longest, and the last one that took no longer.
    pub exemplars: [Option<Exemplar>; 2],
}

/// How long spans took (ns).
pub enum Durations {
    /// One.
    One(u64),
    /// Many.
    Many(Box<Histogram>),
}

impl Durations {
    fn add(&mut self, duration: u64) {
        if let Self::One(first) = self {
            let mut many = Box::<Histogram>::default();
            record(&mut many, *first);
            *self = Self::Many(many);
        }
        if let Self::Many(many) = self {
            record(many, duration);
        }
    }
}

impl Alike {
    /// Takes a span, if it is like others; false: it has to be added alone. `is_exemplar`: its trace will be kept.
    pub fn takes(&mut self, owned: &Owned, span: &Span, is_exemplar: bool) -> bool {
        let Some(shared) = span.attributes.shared() else { return false };
        // Its group holds on to them, so that no others come to this address.
        let address = std::ptr::from_ref(shared).addr();
        let duration = span.end.0.saturating_sub(span.start.0);
        let has_room = self.0.len() < MAX_GROUPS;
        let group = match self.0.get_mut(&address) {
            Some(group) => {
                group.durations.add(duration);
                group
            }
            None if has_room => self.0.entry(address).or_insert_with(|| Group {
                owned: owned.clone(),
                span: span.clone(),
                durations: Durations::One(duration),
                exemplars: [None; 2],
            }),
            None => return false,
        };
        if is_exemplar {
            let exemplar = Exemplar { trace: span.trace, span: span.span, time: span.end, duration };
            let [longest, other] = &mut group.exemplars;
            let is_longest = longest.is_none_or(|longest| duration > longest.duration);
            *other = if is_longest { longest.replace(exemplar).or(*other) } else { Some(exemplar) };
        }
        true
    }

    /// Takes them out.
    pub fn take(&mut self) -> impl Iterator<Item = Group> {
        self.0.drain().map(|(_, group)| group)
    }
}

#[cfg(test)]
mod tests {
    use descry_aggregate::request::Ends;
    use descry_assemble::span::{SpanId, TraceId};
    use descry_decode::ids::UnixNanos;
    use descry_export::span::SpanProcess;

    use super::*;

    fn span(name: &'static str) -> Span {
        let times = (UnixNanos(1000), UnixNanos(1000));
        Span::internal((TraceId([1; 16]), SpanId([1; 8])), name.into(), times)
    }

    #[test]
    fn spans_are_alike_that_share_their_attributes() {
        let owned =
            Owned { process: SpanProcess::new(Vec::new()), ends: Ends::default(), traces_per_second: None };
        let shared = |name| Span { attributes: span(name).attributes.share(), ..span(name) };
        let (one, other, alone) = (shared("one"), shared("other"), span("alone"));
        let took = |span: &Span, duration: u64| Span { end: UnixNanos(1000 + duration), ..span.clone() };
        let mut alike = Alike::default();
        assert!(!alike.takes(&owned, &alone, true));
        for (span, duration, is_exemplar) in
            [(&one, 50, true), (&other, 5, false), (&one, 70, true), (&one, 90, false), (&one, 60, true)]
        {
            assert!(alike.takes(&owned, &took(span, duration), is_exemplar));
        }
        let mut groups: Vec<Group> = alike.take().collect();
        groups.sort_by_key(|group| group.span.name.clone());
        let [one, other] = groups.as_slice() else { panic!("{} groups", groups.len()) };
        let Durations::Many(durations) = &one.durations else { panic!("one of many") };
        assert_eq!((durations.count, durations.sum, durations.max), (4, 270, 90));
        assert_eq!(one.exemplars.map(|it| it.map(|it| it.duration)), [Some(70), Some(60)]);
        assert!(matches!(other.durations, Durations::One(5)));
        assert_eq!(other.exemplars, [None; 2]);
        assert_eq!(alike.take().count(), 0);
    }
}
