//! What TCP did for processes, as OTLP metrics, for people and for scripts.
//!
//! OpenTelemetry's semantic conventions have no names for it, so descry has its own:
//!
//! | what | name |
//! |---|---|
//! | from the SYN to the connection (exponential histogram, `s`) | `descry.tcp.connect.duration` |
//! | connects that failed (sum, `{connect}`) | `descry.tcp.connect.failures` |
//! | smoothed round trip times (exponential histogram, `s`) | `descry.tcp.rtt` |
//! | segments that were sent again (sum, `{segment}`) | `descry.tcp.retransmits` |
//!
//! Each with `network.peer.address`, and `network.peer.port` where the process called.

use std::borrow::Cow;
use std::io::{self, Write};

use descry_abi::histogram::Histogram;
use descry_abi::tcp::TcpPeer;
use descry_aggregate::histogram::{add, quantile};
use descry_aggregate::request::Temporality;
use descry_aggregate::tcp::{Peer, Row, TcpPeers};
use descry_assemble::span::{Attribute, Value};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::metrics::{MetricsByProcess, OVERFLOW, durations, sum};
use super::{SpanProcess, TableStyle};
use crate::format::{columns, duration, grouped, padded, printable};
use crate::otlp::metrics::{DurationsPoint, Metric, Number, NumberPoint};

/// Rows of the table at most; JSON has all.
const MAX_ROWS: usize = 40;
/// Widest column of a service's name.
const MAX_NAME_WIDTH: usize = 32;

/// What TCP did for a process with a peer. Those of quantiles are at most 9 % off; 0: nothing was measured.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TcpRow {
    /// `service.name` of the process.
    pub service: String,
    /// Address and port of who was called, address of who called.
    pub peer: String,
    /// Connects that succeeded.
    pub connects: u64,
    /// Those that failed.
    pub failed: u64,
    /// Half of the connects took no longer.
    pub connect_p50_ns: u64,
    /// 99 of a hundred took no longer.
    pub connect_p99_ns: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
    /// Half of the round trips took no longer.
    pub rtt_p50_ns: u64,
    /// 99 of a hundred took no longer.
    pub rtt_p99_ns: u64,
}

/// Adds the metrics of each process; gives those of all peers that found no room.
pub fn tcp_metrics<'a>(
    tcp: &'a TcpPeers<SpanProcess>,
    temporality: Temporality,
    to: &mut MetricsByProcess<'a>,
) -> Vec<Metric> {
    let mut rows: Vec<Row<'a, SpanProcess>> = tcp.since_told().collect();
    // Stable, so that the rows of a process stay in their order.
    rows.sort_by_key(|row| row.process.map(|process| std::ptr::from_ref(process.resource()).addr()));
    let mut overflow = Vec::new();
    for rows in rows.chunk_by(|a, b| a.process == b.process) {
        let metrics = of_rows(rows, temporality);
        match rows.first().and_then(|row| row.process) {
            Some(process) => to.entry(process).or_default().extend(metrics),
            None => overflow.extend(metrics),
        }
    }
    overflow
}

fn of_rows(rows: &[Row<'_, SpanProcess>], temporality: Temporality) -> Vec<Metric> {
    type Count = fn(&Row<'_, SpanProcess>) -> u64;
    type Times = for<'r> fn(&'r Row<'_, SpanProcess>) -> &'r Histogram;
    let times = |name, description, of: Times| {
        let points = rows.iter().filter(|row| of(row).count > 0).map(|row| DurationsPoint {
            attributes: attributes(row.peer),
            histogram: *of(row),
            exemplars: Vec::new(),
        });
        durations(name, description, points.collect(), temporality)
    };
    let counts = |name, description, unit, of: Count| {
        let points = rows.iter().filter(|row| of(row) > 0).map(|row| NumberPoint {
            attributes: attributes(row.peer),
            value: Number::Int(i64::try_from(of(row)).unwrap_or(i64::MAX)),
        });
        sum(name, description, unit, points.collect(), temporality)
    };
    let metrics = [
        times(
            "descry.tcp.connect.duration",
            "From the SYN of a TCP connection to its establishment.",
            |row| &row.counts.connects,
        ),
        counts("descry.tcp.connect.failures", "TCP connects that failed.", "{connect}", |row| {
            row.counts.failed
        }),
        times("descry.tcp.rtt", "Smoothed round trip times of TCP connections.", |row| {
            &row.counts.round_trips
        }),
        counts("descry.tcp.retransmits", "TCP segments that were sent again.", "{segment}", |row| {
            row.counts.retransmits
        }),
    ];
    metrics.into_iter().filter(|metric| !metric.points.is_empty()).collect()
}

fn attributes(peer: Peer) -> Vec<Attribute> {
    let Peer::Address(address) = peer else { return vec![OVERFLOW] };
    let host = Value::Text(address.ip().to_canonical().to_string().into());
    let mut attributes = vec![(Cow::Borrowed("network.peer.address"), host)];
    if address.port() != 0 {
        attributes.push((Cow::Borrowed("network.peer.port"), Value::Int(address.port().into())));
    }
    attributes
}

/// A row for each service and peer, those with the most to tell first.
pub fn tcp_rows(tcp: &TcpPeers<SpanProcess>) -> Vec<TcpRow> {
    let mut by_service: IndexMap<(Option<&str>, Peer), TcpPeer, FxBuildHasher> = IndexMap::default();
    for Row { process, peer, counts } in tcp.all() {
        let sum = by_service.entry((process.map(|process| &**process.service()), peer)).or_default();
        add(&mut sum.connects, &counts.connects);
        add(&mut sum.round_trips, &counts.round_trips);
        sum.failed += counts.failed;
        sum.retransmits += counts.retransmits;
    }
    by_service.into_iter().map(|((service, peer), counts)| row(service, peer, &counts)).collect()
}

fn row(service: Option<&str>, peer: Peer, counts: &TcpPeer) -> TcpRow {
    let at = |times, share| quantile(times, share).unwrap_or_default();
    let others = || descry_aggregate::OTHERS.to_owned();
    TcpRow {
        service: service.map_or_else(others, str::to_owned),
        peer: match peer {
            Peer::Address(address) if address.port() == 0 => address.ip().to_canonical().to_string(),
            Peer::Address(address) => address.to_string(),
            Peer::Others => others(),
        },
        connects: counts.connects.count,
        failed: counts.failed,
        connect_p50_ns: at(&counts.connects, 0.50),
        connect_p99_ns: at(&counts.connects, 0.99),
        retransmits: counts.retransmits,
        rtt_p50_ns: at(&counts.round_trips, 0.50),
        rtt_p99_ns: at(&counts.round_trips, 0.99),
    }
}

/// Writes the rows with the most to tell under a heading; nothing where there is none.
///
/// # Errors
///
/// When `out` fails.
pub fn tcp_table(rows: &[TcpRow], out: &mut dyn Write, style: TableStyle) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let shown = rows.get(..MAX_ROWS).unwrap_or(rows);
    let services: Vec<Cow<'_, str>> = shown.iter().map(|row| printable(&row.service)).collect();
    let longest = services.iter().map(|name| columns(name)).max().unwrap_or(0);
    let width = longest.max("service".len()).min(MAX_NAME_WIDTH);
    let time = |nanos| if nanos == 0 { "-".to_owned() } else { duration(nanos) };
    let (bold, plain) = if style.color { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    writeln!(
        out,
        "\n{bold}{:>10}  {:>8}  {:>9}  {:>9}  {:>8}  {:>9}  {:>9}  {}  peer{plain}",
        "connects",
        "failed",
        "p50",
        "p99",
        "retrans",
        "rtt p50",
        "rtt p99",
        padded("service", width),
    )?;
    for (row, service) in shown.iter().zip(&services) {
        writeln!(
            out,
            "{:>10}  {:>8}  {:>9}  {:>9}  {:>8}  {:>9}  {:>9}  {}  {}",
            grouped(row.connects),
            grouped(row.failed),
            time(row.connect_p50_ns),
            time(row.connect_p99_ns),
            grouped(row.retransmits),
            time(row.rtt_p50_ns),
            time(row.rtt_p99_ns),
            padded(service, width),
            row.peer,
        )?;
    }
    if rows.len() > shown.len() {
        writeln!(out, "{} more peers", rows.len() - shown.len())?;
    }
    Ok(())
}
