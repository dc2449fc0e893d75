//! The service graph for people and for scripts.

use std::borrow::Cow;
use std::io::{self, Write};

use descry_aggregate::histogram::quantile;
use descry_aggregate::request::{Edge, Node, ServiceGraph};

use super::TableStyle;
use crate::format::{columns, duration, grouped, padded, printable};

/// Rows of the table at most; JSON has all.
const MAX_ROWS: usize = 40;
/// Columns of the protocol.
const PROTOCOL_WIDTH: usize = 10;
/// Widest column of a name, where the terminal's width is not known.
const MAX_NAME_WIDTH: usize = 48;
/// Narrowest column of a name.
const MIN_NAME_WIDTH: usize = 16;

/// Who asked whom, how often and how long. Times are the client's where it is watched, else the server's; those of
/// quantiles are at most 9 % off.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EdgeRow {
    /// `service.name` of who asked, or its address.
    pub client: String,
    /// `service.name` of who was asked, or its address and port.
    pub server: String,
    /// The protocol; empty: it is not known.
    pub protocol: String,
    /// As the Collector's service graph connector says it: nothing, `database` or `virtual_node`.
    pub connection_type: &'static str,
    /// Requests.
    pub count: u64,
    /// Those that failed.
    pub errors: u64,
    /// Half of them took no longer.
    pub p50_ns: u64,
    /// 95 of a hundred took no longer.
    pub p95_ns: u64,
    /// 99 of a hundred took no longer.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// A row for each edge, those with the most requests first.
pub fn edge_rows(graph: &ServiceGraph) -> Vec<EdgeRow> {
    graph.all().iter().map(row).collect()
}

fn row(edge: &Edge<'_>) -> EdgeRow {
    let times = if edge.client_durations.count > 0 { edge.client_durations } else { edge.server_durations };
    let at = |share| quantile(times, share).unwrap_or_default();
    let name = |node| if edge.is_overflow { descry_aggregate::OTHERS.into() } else { node_name(node) };
    EdgeRow {
        client: name(edge.client).into_owned(),
        server: name(edge.server).into_owned(),
        protocol: edge.protocol.to_owned(),
        connection_type: edge.connected.name(),
        count: edge.requests,
        errors: edge.failed,
        p50_ns: at(0.50),
        p95_ns: at(0.95),
        p99_ns: at(0.99),
        max_ns: times.max,
    }
}

/// How an end of an edge is called.
pub(super) fn node_name(node: &Node) -> Cow<'_, str> {
    match node {
        Node::Service(name) => Cow::Borrowed(name),
        Node::Server(address) => Cow::Owned(address.to_string()),
        Node::Client(address) => Cow::Owned(address.to_string()),
        Node::Unknown => Cow::Borrowed("unknown"),
    }
}

/// Writes the edges with the most requests under a heading; nothing where there is none.
///
/// # Errors
///
/// When `out` fails.
pub fn edge_table(rows: &[EdgeRow], out: &mut dyn Write, style: TableStyle) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let shown = rows.get(..MAX_ROWS).unwrap_or(rows);
    let names = |of: fn(&EdgeRow) -> &str, title: &str| {
        let names: Vec<Cow<'_, str>> = shown.iter().map(|row| printable(of(row))).collect();
        // Beside both names: counts of 10 and 8, two times of 9, the protocol, an arrow, and two spaces between them.
        let taken = 10 + 8 + 2 * 9 + PROTOCOL_WIDTH + 2 + 7 * 2;
        let room = style.width.map_or(MAX_NAME_WIDTH, |width| width.saturating_sub(taken) / 2);
        let longest = names.iter().map(|name| columns(name)).max().unwrap_or(0).max(title.len());
        (names, longest.min(room.max(MIN_NAME_WIDTH)))
    };
    let (clients, client_width) = names(|row| &row.client, "client");
    let (servers, server_width) = names(|row| &row.server, "server");
    let (bold, plain) = if style.color { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    writeln!(
        out,
        "\n{bold}{:>10}  {:>8}  {:>9}  {:>9}  {:<PROTOCOL_WIDTH$}  {}  ->  {}{plain}",
        "count",
        "errors",
        "p50",
        "p99",
        "protocol",
        padded("client", client_width),
        padded("server", server_width).trim_end(),
    )?;
    for ((row, client), server) in shown.iter().zip(&clients).zip(&servers) {
        let protocol = if row.protocol.is_empty() { "-" } else { &row.protocol };
        writeln!(
            out,
            "{:>10}  {:>8}  {:>9}  {:>9}  {:<PROTOCOL_WIDTH$}  {}  ->  {}",
            grouped(row.count),
            grouped(row.errors),
            duration(row.p50_ns),
            duration(row.p99_ns),
            printable(protocol),
            padded(client, client_width),
            padded(server, server_width).trim_end(),
        )?;
    }
    if rows.len() > shown.len() {
        writeln!(out, "{} more edges", rows.len() - shown.len())?;
    }
    Ok(())
}
