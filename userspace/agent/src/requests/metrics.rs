//! What requests add up to, for whoever sends it: metrics of every request, and who asked whom.

use descry_abi::histogram::Histogram;
use descry_aggregate::request::{Exemplar, Limits, RequestMetrics, ServiceGraph, Temporality};
use descry_aggregate::tcp::TcpPeers;
use descry_assemble::span::Span;
use descry_decode::Opened;
use descry_decode::ids::{Tgid, UnixNanos};
use descry_export::otlp::metrics::{Interval, Metric, MetricsRequests, ProcessMetrics, metrics_requests};
use descry_export::otlp::{MAX_REQUEST_BYTES, OtlpOptions};
use descry_export::span::{
    EdgeRow, MetricsByProcess, SpanProcess, TcpRow, edge_metrics, edge_rows, process_metrics,
    request_metrics, tcp_metrics, tcp_rows,
};
use descry_process::Attributes;
use descry_process::identity::host::Host;
use descry_process::identity::{self, ResourceOptions};

use super::alike::{Alike, Durations, Group};
use super::connections::Owned;
use crate::counted::counters;

counters! {
    /// Counters of the metrics of requests.
    MetricCounters = "descry.requests.metrics." {
        /// Requests that are added up in the row of all others, because too many kinds were told apart.
        overflow,
        /// Requests in no metric, because too many processes had some.
        process_dropped,
        /// Requests whose edge of the service graph is that of all others, because there were too many.
        edge_overflow,
        /// Times that what TCP did with a peer found no room, because too many were told apart.
        tcp_peer_dropped,
        /// Points of metrics that were too large for a request to the receiver.
        point_oversized,
    }
}

/// Adds requests up.
pub struct Metrics {
    /// None: nobody is told.
    requests: Option<RequestMetrics<SpanProcess>>,
    graph: ServiceGraph,
    /// What neither of them has yet.
    alike: Alike,
    /// What TCP did.
    pub tcp: TcpPeers<SpanProcess>,
    temporality: Temporality,
    began: UnixNanos,
    told: UnixNanos,
    /// Whose metrics the graph's are.
    own: Attributes,
    oversized: u64,
}

impl Metrics {
    /// Nothing yet. Without a temporality only the service graph is kept, for [`Metrics::edges`].
    pub fn new(temporality: Option<Temporality>, now: UnixNanos) -> Self {
        Self {
            requests: temporality.map(|_| RequestMetrics::new(Limits::default())),
            graph: ServiceGraph::new(temporality.unwrap_or_default()),
            alike: Alike::default(),
            tcp: TcpPeers::new(temporality.unwrap_or_default()),
            temporality: temporality.unwrap_or_default(),
            began: now,
            told: now,
            own: own_resource(),
            oversized: 0,
        }
    }

    /// A process has an end of a connection.
    pub fn met(&mut self, opened: &Opened, process: &SpanProcess) {
        if let (Some(own), Some(other)) = (opened.local, opened.remote) {
            self.graph.met(own, other, process.service().clone());
        }
    }

    /// Adds a request; see [`Metrics::settle`]. `is_exemplar`: its trace will be kept, so that it may stand for others.
    pub fn record(&mut self, owned: &Owned, span: &Span, is_exemplar: bool) {
        if !self.alike.takes(owned, span, is_exemplar) {
            self.record_alone(owned, span, is_exemplar);
        }
    }

    /// Adds what was put off, since it comes many at a time. Call it before anything is told.
    pub fn settle(&mut self) {
        let mut alike = std::mem::take(&mut self.alike);
        for Group { owned, span, durations, exemplars } in alike.take() {
            match durations {
                Durations::One(_) => self.record_alone(&owned, &span, exemplars[0].is_some()),
                Durations::Many(durations) => self.record_many(&owned, &span, &durations, &exemplars),
            }
        }
        self.alike = alike;
    }

    fn record_alone(&mut self, owned: &Owned, span: &Span, is_exemplar: bool) {
        self.graph.record(span, owned.process.service(), owned.ends);
        if let Some(requests) = &mut self.requests {
            requests.record(&owned.process, span, is_exemplar);
        }
    }

    /// Adds requests that differ from a span in their times only, with some of them that may stand for others.
    pub fn record_many(
        &mut self,
        owned: &Owned,
        span: &Span,
        durations: &Histogram,
        exemplars: &[Option<Exemplar>],
    ) {
        self.graph.record_many(span, owned.process.service(), owned.ends, durations);
        if let Some(requests) = &mut self.requests {
            requests.record_many(&owned.process, span, durations, exemplars);
        }
    }

    /// A process ended, or runs another program.
    pub fn ended(&mut self, process: &SpanProcess) {
        if let Some(requests) = &mut self.requests {
            requests.ended(process);
        }
    }

    /// Everything that is to be told now. Call it now and then, and at the end.
    pub fn tell(&mut self, now: UnixNanos) -> MetricsRequests {
        self.settle();
        if self.requests.is_none() {
            return MetricsRequests::default();
        }
        let start = match self.temporality {
            Temporality::Cumulative => self.began,
            Temporality::Delta => self.told,
        };
        let (mut metrics, own) = self.since_told();
        if !own.is_empty() {
            metrics.push(ProcessMetrics { resource: &self.own, metrics: own });
        }
        let interval = Interval { start, end: now };
        let made = metrics_requests(&metrics, interval, &OtlpOptions::default(), MAX_REQUEST_BYTES);
        drop(metrics);
        if let Some(requests) = &mut self.requests {
            requests.told(self.temporality);
        }
        self.graph.told();
        self.tcp.told();
        self.told = now;
        self.oversized += made.oversized_points;
        made
    }

    /// What is counted since the beginning of each process, and of the node; nothing where that is not kept.
    pub fn since_the_beginning(&self) -> (Vec<ProcessMetrics<'_>>, Vec<Metric>) {
        match self.temporality {
            Temporality::Cumulative => self.since_told(),
            Temporality::Delta => Default::default(),
        }
    }

    fn since_told(&self) -> (Vec<ProcessMetrics<'_>>, Vec<Metric>) {
        let Some(requests) = &self.requests else { return Default::default() };
        let mut metrics = MetricsByProcess::default();
        request_metrics(requests, self.temporality, &mut metrics);
        let mut node = tcp_metrics(&self.tcp, self.temporality, &mut metrics);
        node.extend(edge_metrics(&self.graph, self.temporality));
        (process_metrics(metrics), node)
    }

    /// Who asked whom since the beginning, most requests first.
    pub fn edges(&self) -> Vec<EdgeRow> {
        edge_rows(&self.graph)
    }

    /// What TCP did since the beginning, those with the most to tell first.
    pub fn tcp_rows(&self) -> Vec<TcpRow> {
        tcp_rows(&self.tcp)
    }

    /// What found no room.
    pub fn counters(&self) -> MetricCounters {
        let requests = self.requests.as_ref().map(RequestMetrics::counters).unwrap_or_default();
        MetricCounters {
            overflow: requests.overflow,
            process_dropped: requests.process_dropped,
            edge_overflow: self.graph.counters().overflow,
            tcp_peer_dropped: self.tcp.over_limit(),
            point_oversized: self.oversized,
        }
    }
}

impl MetricCounters {
    /// What was lost, as the last line of a measurement names it; nothing that is zero.
    pub fn lost(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let lost =
            [("metric_process_dropped", self.process_dropped), ("point_oversized", self.point_oversized)];
        lost.into_iter().filter(|(_, count)| *count > 0)
    }
}

/// descry's own Resource; empty where /proc says nothing.
fn own_resource() -> Attributes {
    let tgid = Tgid(std::process::id());
    let own = identity::read(tgid)
        .map(|own| identity::resource(tgid, &own, &Host::read(), ResourceOptions::default()));
    own.unwrap_or_default()
}
