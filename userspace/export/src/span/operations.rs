//! Spans of one kind of work added up.

use std::cmp::Reverse;

use descry_aggregate::OTHERS;
use descry_assemble::span::{Span, SpanKind, Status};
use descry_process::Attributes;
use hdrhistogram::Histogram;
use indexmap::{Equivalent, IndexMap};
use rustc_hash::FxBuildHasher;

use super::{kind_name, resource_text};

/// Kinds of work that are kept apart; spans of more are added up as [`OTHERS`]. One takes about 12 KiB.
const MAX_OPERATIONS: usize = 2048;
/// Decimal digits that durations are kept to: quantiles are at most 1 % off.
const DIGITS: u8 = 2;

/// Spans of one service, name and kind. Durations are nanoseconds; those of quantiles are at most 1 % off.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Operation {
    /// `service.name` of the process.
    pub service: String,
    /// The name of the spans.
    pub name: String,
    /// The kind of the spans, as [`kind_name`] says it.
    pub kind: &'static str,
    /// How many.
    pub count: u64,
    /// Those that failed.
    pub errors: u64,
    /// Half of the spans took no longer.
    pub p50_ns: u64,
    /// 95 of a hundred took no longer.
    pub p95_ns: u64,
    /// 99 of a hundred took no longer.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// Adds spans up by service, name and kind; keeps a bounded number of kinds of work.
#[derive(Debug, Default)]
pub struct Operations {
    by_key: IndexMap<Key, Sum, FxBuildHasher>,
    seen: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    service: String,
    name: String,
    kind: SpanKind,
}

/// A [`Key`] before it is known whether one has to be kept.
#[derive(Hash)]
struct BorrowedKey<'a> {
    service: &'a str,
    name: &'a str,
    kind: SpanKind,
}

impl Equivalent<Key> for BorrowedKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.service == key.service && self.name == key.name && self.kind == key.kind
    }
}

impl BorrowedKey<'_> {
    fn to_owned(&self) -> Key {
        Key { service: self.service.to_owned(), name: self.name.to_owned(), kind: self.kind }
    }
}

#[derive(Debug)]
struct Sum {
    errors: u64,
    max: u64,
    durations: Histogram<u32>,
}

impl Sum {
    fn new() -> Self {
        let durations = Histogram::new(DIGITS).expect("a histogram of 0 to 5 digits can be made");
        Self { errors: 0, max: 0, durations }
    }
}

impl Operations {
    /// Adds a span of the process that `resource` describes.
    pub fn record(&mut self, span: &Span, resource: &Attributes) {
        self.record_many(span, resource, span.end.0.saturating_sub(span.start.0), 1);
    }

    /// Adds so many that differ from a span in their times only: this is how long each took (ns).
    pub fn record_many(&mut self, span: &Span, resource: &Attributes, duration: u64, number: u64) {
        self.seen += number;
        let service = resource_text(resource, "service.name");
        let key = BorrowedKey { service, name: &span.name, kind: span.kind };
        let sum = match self.by_key.get_index_of(&key) {
            Some(place) => &mut self.by_key[place],
            None if self.by_key.len() < MAX_OPERATIONS => {
                self.by_key.entry(key.to_owned()).or_insert_with(Sum::new)
            }
            None => {
                let others = BorrowedKey { service: OTHERS, name: OTHERS, kind: span.kind };
                self.by_key.entry(others.to_owned()).or_insert_with(Sum::new)
            }
        };
        sum.errors += if matches!(span.status, Status::Error(_)) { number } else { 0 };
        sum.max = sum.max.max(duration);
        // The histogram grows with its longest duration; one that it cannot grow to counts as the longest that it holds.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if sum.durations.record_n(duration, number).is_err() {
            sum.durations.saturating_record_n(duration, number);
        }
    }

    /// Spans that were added.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// A row for each kind of work, those with the most spans first.
    pub fn rows(&self) -> Vec<Operation> {
        let mut rows: Vec<Operation> = self.by_key.iter().map(|(key, sum)| row(key, sum)).collect();
        rows.sort_by(|a, b| {
            let order =
                |row: &Operation| (Reverse(row.count), row.service.clone(), row.name.clone(), row.kind);
            order(a).cmp(&order(b))
        });
        rows
    }
}

fn row(key: &Key, sum: &Sum) -> Operation {
    // The histogram gives the upper end of what it does not tell apart.
    let quantile = |share| sum.durations.value_at_quantile(share).min(sum.max);
    Operation {
        service: key.service.clone(),
        name: key.name.clone(),
        kind: kind_name(key.kind),
        count: sum.durations.len(),
        errors: sum.errors,
        p50_ns: quantile(0.50),
        p95_ns: quantile(0.95),
        p99_ns: quantile(0.99),
        max_ns: sum.max,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::borrow::Cow;

    use descry_assemble::span::{Attribute, SpanId, TraceId, Value};
    use descry_decode::ids::UnixNanos;
    use descry_process::AttributeValue;

    use super::*;

    pub(crate) fn attribute(name: &'static str, value: Value) -> Attribute {
        (Cow::Borrowed(name), value)
    }

    /// A request that took 2.5 ms.
    pub(crate) fn span() -> Span {
        Span {
            trace: TraceId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
            span: SpanId([0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8]),
            parent: None,
            trace_state: "".into(),
            flags: 1,
            parent_is_remote: None,
            kind: SpanKind::Server,
            name: "GET /users/{id}".into(),
            start: UnixNanos(1_700_000_000_000_000_000),
            end: UnixNanos(1_700_000_000_002_500_000),
            status: Status::Unset,
            attributes: vec![
                attribute("http.request.method", Value::Static("GET")),
                attribute("http.response.status_code", Value::Int(200)),
            ]
            .into(),
            events: Vec::new(),
            links: Vec::new(),
        }
    }

    pub(crate) fn resource() -> Attributes {
        vec![
            ("service.name".into(), AttributeValue::Text("shop".to_owned())),
            ("process.pid".into(), AttributeValue::Int(42)),
            ("process.command_args".into(), AttributeValue::List(vec!["a".to_owned(), "b".to_owned()])),
        ]
    }

    /// Rows of spans of these (name, kind, duration, whether it failed), as (name, kind, count, errors, max).
    fn check(
        spans: &[(&'static str, SpanKind, u64, bool)],
        expected: &[(&str, &str, u64, u64, u64)],
    ) -> Vec<Operation> {
        let mut operations = Operations::default();
        for (name, kind, duration, failed) in spans {
            let status = if *failed { Status::Error("".into()) } else { Status::Unset };
            let end = UnixNanos(span().start.0 + duration);
            operations
                .record(&Span { name: (*name).into(), kind: *kind, end, status, ..span() }, &resource());
        }
        let rows = operations.rows();
        let found: Vec<_> =
            rows.iter().map(|row| (row.name.as_str(), row.kind, row.count, row.errors, row.max_ns)).collect();
        assert_eq!(found, expected);
        assert_eq!(operations.seen(), spans.len() as u64);
        rows
    }

    #[test]
    fn spans_of_one_kind_are_added_up() {
        check(&[], &[]);
        let (server, client) = (SpanKind::Server, SpanKind::Client);
        check(
            &[
                ("a", server, 5, false),
                ("b", server, 7, true),
                ("b", client, 1, false),
                ("b", server, 9, false),
            ],
            &[("b", "server", 2, 1, 9), ("a", "server", 1, 0, 5), ("b", "client", 1, 0, 1)],
        );
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let spans: Vec<_> = (1..=1000).map(|n| ("a", SpanKind::Server, n * 1_234_567, false)).collect();
        let rows = check(&spans, &[("a", "server", 1000, 0, 1_234_567_000)]);
        for (found, truth) in [(rows[0].p50_ns, 500), (rows[0].p95_ns, 950), (rows[0].p99_ns, 990)] {
            let truth = truth * 1_234_567;
            assert!(found.abs_diff(truth) * 100 <= truth, "{found} is not {truth}");
        }
    }

    #[test]
    fn any_duration_counts() {
        let spans =
            [("a", SpanKind::Server, 0, false), ("a", SpanKind::Server, u64::MAX - span().start.0, false)];
        let rows = check(&spans, &[("a", "server", 2, 0, u64::MAX - span().start.0)]);
        assert_eq!((rows[0].p50_ns, rows[0].p99_ns), (0, rows[0].max_ns));
    }

    #[test]
    fn too_many_kinds_become_one() {
        let mut operations = Operations::default();
        for number in 0..MAX_OPERATIONS + 5 {
            operations.record(&Span { name: number.to_string().into(), ..span() }, &resource());
        }
        let rows = operations.rows();
        assert_eq!((rows.len(), rows[0].count, rows[0].name.as_str()), (MAX_OPERATIONS + 1, 5, OTHERS));
    }
}
