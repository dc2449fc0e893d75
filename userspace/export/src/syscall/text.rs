//! Tables for people: work, blocking waits, what had not returned, slow calls.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use descry_aggregate::syscalls::{ProcessName, SlowSyscall, SyscallReport, SyscallRow};
use descry_decode::syscall::Interface;

use super::quantiles;
use crate::format::{columns, duration, grouped, padded, printable};
use crate::span::TableStyle;

/// Rows of one table at most; the JSON has all.
const MAX_ROWS: usize = 100;
/// Columns of a process at most.
const MAX_PROCESS: usize = 28;
/// Columns of a call's name at most.
const MAX_NAME: usize = 28;
/// Errors that are named in a row at most.
const MAX_ERRORS: usize = 4;
/// Frames of a slow call's stack at most; the JSON has all.
const MAX_FRAMES: usize = 12;

/// Writes the report.
///
/// # Errors
///
/// When `out` fails.
pub fn text(report: &SyscallReport, out: &mut dyn Write, style: TableStyle) -> io::Result<()> {
    let nanos = u64::try_from(report.duration.as_nanos()).unwrap_or(u64::MAX);
    let (waits, work): (Vec<_>, Vec<_>) = report.rows.iter().partition(|row| row.blocking);
    let calls = |rows: &[&SyscallRow]| rows.iter().map(|row| row.durations.count).sum::<u64>();
    writeln!(
        out,
        "{} system calls in {}: {} of work, {} of blocking waits",
        grouped(calls(&work) + calls(&waits)),
        duration(nanos),
        duration(total(&work)),
        duration(total(&waits)),
    )?;
    table("work", &work, out, style)?;
    table("blocking waits: time for others, not work", &waits, out, style)?;
    in_flight(report, out, style)?;
    if let Some(slow) = &report.slow {
        slow_calls(slow, out, style)?;
    }
    Ok(())
}

fn total(rows: &[&SyscallRow]) -> u64 {
    rows.iter().fold(0, |sum, row| sum.saturating_add(row.durations.sum))
}

fn heading(title: &str, out: &mut dyn Write, style: TableStyle) -> io::Result<()> {
    let (bold, plain) = emphasis(style);
    writeln!(out, "\n{bold}{title}{plain}")
}

fn emphasis(style: TableStyle) -> (&'static str, &'static str) {
    if style.color { ("\x1b[1m", "\x1b[0m") } else { ("", "") }
}

/// The longest of some texts, at least the title, at most so many columns.
fn width<'a>(texts: impl Iterator<Item = &'a String>, title: &str, most: usize) -> usize {
    texts.map(|text| columns(text)).max().unwrap_or(0).max(title.len()).min(most)
}

fn table(title: &str, rows: &[&SyscallRow], out: &mut dyn Write, style: TableStyle) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    heading(title, out, style)?;
    let shown = rows.get(..MAX_ROWS).unwrap_or(rows);
    let processes: Vec<_> = shown.iter().map(|row| process(&row.process)).collect();
    let names: Vec<_> = shown.iter().map(|row| name(&row.name, row.interface)).collect();
    let process_width = width(processes.iter(), "process", MAX_PROCESS);
    let name_width = width(names.iter(), "syscall", MAX_NAME);
    let all = total(rows);
    writeln!(
        out,
        "{:>9}  {:>6}  {:>11}  {:>9}  {:>9}  {:>9}  {:>9}  {}  {}  errors",
        "total",
        "%",
        "calls",
        "p50",
        "p95",
        "p99",
        "max",
        padded("syscall", name_width),
        padded("process", process_width),
    )?;
    for ((row, process), name) in shown.iter().zip(&processes).zip(&names) {
        let [p50, p95, p99] = quantiles(&row.durations).map(duration);
        let line = format!(
            "{:>9}  {:>5.1}%  {:>11}  {p50:>9}  {p95:>9}  {p99:>9}  {:>9}  {}  {}  {}",
            duration(row.durations.sum),
            100.0 * row.durations.sum as f64 / all.max(1) as f64,
            grouped(row.durations.count),
            duration(row.durations.max),
            padded(name, name_width),
            padded(process, process_width),
            errors(row),
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    if rows.len() > shown.len() {
        writeln!(out, "... and {} more rows", grouped((rows.len() - shown.len()) as u64))?;
    }
    Ok(())
}

fn process((tgid, name): &ProcessName) -> String {
    if tgid.0 == 0 { printable(name).into_owned() } else { format!("{}({tgid})", printable(name)) }
}

fn name(name: &str, interface: Interface) -> String {
    if interface == Interface::NATIVE { name.to_owned() } else { format!("{name} [{}]", interface.name()) }
}

/// `ENOENT 3, EAGAIN 1`, those that came most first, and calls that never returned.
fn errors(row: &SyscallRow) -> String {
    let mut errors: Vec<_> = row.errors.iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let more: u64 = errors.iter().skip(MAX_ERRORS).map(|(_, count)| **count).sum();
    let mut parts: Vec<String> =
        errors.iter().take(MAX_ERRORS).map(|(name, count)| format!("{name} {}", grouped(**count))).collect();
    if more > 0 {
        parts.push(format!("others {}", grouped(more)));
    }
    if row.unreturned.count > 0 {
        parts.push(format!("never returned {}", grouped(row.unreturned.count)));
    }
    parts.join(", ")
}

/// Calls that had not returned: threads of a process in the same call together.
fn in_flight(report: &SyscallReport, out: &mut dyn Write, style: TableStyle) -> io::Result<()> {
    if report.open.is_empty() {
        return Ok(());
    }
    heading("in flight when the measurement ended", out, style)?;
    let mut groups: BTreeMap<_, (u64, u64, bool)> = BTreeMap::new();
    for open in &report.open {
        let key = (name(&open.name, open.interface), process(&open.process));
        let (threads, longest, before) = groups.entry(key).or_default();
        *threads += 1;
        if open.elapsed > *longest {
            (*longest, *before) = (open.elapsed, open.begun_before);
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (_, longest, _))| std::cmp::Reverse(*longest));
    let name_width = width(groups.iter().map(|((name, _), _)| name), "syscall", MAX_NAME);
    writeln!(out, "{:>8}  {:>12}  {}  process", "threads", "for", padded("syscall", name_width))?;
    for ((name, process), (threads, longest, before)) in groups.iter().take(MAX_ROWS) {
        // It began before the measurement: how long before is not known.
        let longest = format!("{}{}", if *before { ">= " } else { "" }, duration(*longest));
        writeln!(out, "{:>8}  {longest:>12}  {}  {process}", grouped(*threads), padded(name, name_width))?;
    }
    if groups.len() > MAX_ROWS {
        writeln!(out, "... and {} more rows", grouped((groups.len() - MAX_ROWS) as u64))?;
    }
    Ok(())
}

fn slow_calls(slow: &[SlowSyscall], out: &mut dyn Write, style: TableStyle) -> io::Result<()> {
    heading(&format!("slow calls: {}", grouped(slow.len() as u64)), out, style)?;
    for call in slow {
        let start = UNIX_EPOCH.checked_add(Duration::from_nanos(call.start.0));
        let start = start.map_or_else(String::new, |time| humantime::format_rfc3339_millis(time).to_string());
        let mark = if call.blocking { "  [blocking]" } else { "" };
        writeln!(
            out,
            "{start}  {:>9}  {}{}{mark}  {}",
            duration(call.duration),
            process(&call.process),
            thread(call),
            printable(&invocation(call)),
        )?;
        for frame in call.stack.iter().take(MAX_FRAMES) {
            writeln!(out, "    {}", printable(frame))?;
        }
        match call.stack.len().saturating_sub(MAX_FRAMES) {
            0 if call.truncated => writeln!(out, "    [truncated]")?,
            0 => {}
            more => writeln!(out, "    ... {more} more frames")?,
        }
    }
    Ok(())
}

/// The thread, if it is not its process's first.
fn thread(call: &SlowSyscall) -> String {
    if call.tid.0 == call.process.0.0 {
        return String::new();
    }
    format!(" {}({})", printable(&call.thread), call.tid)
}

/// `read(fd=3</etc/passwd>, buf=0x7f00, count=4096) = -1 EINTR`.
fn invocation(call: &SlowSyscall) -> String {
    let arguments = call.arguments.as_ref().map_or_else(
        || "...".to_owned(),
        |arguments| {
            let shown: Vec<String> =
                arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
            shown.join(", ")
        },
    );
    let result = call.error.as_ref().map_or_else(|| call.result.to_string(), |error| format!("-1 {error}"));
    format!("{}({arguments}) = {result}", name(&call.name, call.interface))
}
