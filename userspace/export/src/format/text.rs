//! A table of hot functions; of waits also one of their reasons.
//!
//! `self` is the time in a function itself, `total` the time in it and in what it called; a function that is on a stack
//! more than once counts once. Functions are told apart by name and binary.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};

use descry_aggregate::profile::{NamedFrame, Profile};
use indexmap::IndexMap;

use super::WriteOptions;
use super::escape::printable;
use super::reasons;
use super::summary::{duration, extent, grouped, subject, total_weight};

/// Narrowest column for function names, however narrow the terminal is.
const MIN_FUNCTION_WIDTH: usize = 20;
/// Widest column for function names, where the width is not known.
const MAX_FUNCTION_WIDTH: usize = 100;

/// Binary of code that is in no file.
const NO_FILE: &str = "-";

/// What rows are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    function: String,
    binary: String,
    thread: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    itself: u64,
    total: u64,
}

/// Writes the table.
pub fn write(profile: &Profile, out: &mut dyn Write, options: &WriteOptions) -> io::Result<()> {
    writeln!(out, "{}", subject(profile))?;
    writeln!(out, "{}", extent(profile))?;
    reasons::write(profile, out, options)?;
    let mut rows: Vec<_> = rows(profile, options).into_iter().collect();
    if rows.is_empty() {
        return Ok(());
    }
    // The map gave them by name; a stable sort leaves equal times in that order.
    rows.sort_by_key(|(_, times)| std::cmp::Reverse((times.itself, times.total)));
    let more = rows.len().saturating_sub(options.top);
    rows.truncate(options.top);
    writeln!(out)?;
    write_rows(&rows, total_weight(profile), out, options)?;
    if more > 0 {
        writeln!(out, "... and {} more function{}", grouped(more as u64), if more == 1 { "" } else { "s" })?;
    }
    let truncated = profile
        .samples
        .iter()
        .filter(|sample| profile.stacks.get(sample.stack as usize).is_some_and(|stack| stack.truncated));
    match truncated.fold(0u64, |sum, sample| sum.saturating_add(sample.count)) {
        0 => Ok(()),
        1 => writeln!(out, "1 sample has a stack whose root is missing"),
        count => writeln!(out, "{} samples have stacks whose root is missing", grouped(count)),
    }
}

fn rows(profile: &Profile, options: &WriteOptions) -> BTreeMap<Key, Times> {
    let mut rows: IndexMap<Key, Times> = IndexMap::new();
    // Rows of the frames of a stack, root first: a stack is met once a process, thread and CPU.
    let mut stacks: HashMap<(u32, String), Vec<usize>> = HashMap::new();
    for sample in &profile.samples {
        let thread = match (&sample.thread, options.per_thread) {
            (Some((tid, name)), true) => format!("{} ({tid})", printable(&name.to_string())),
            _ => String::new(),
        };
        let stack = match stacks.entry((sample.stack, thread)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let thread = new.key().1.clone();
                let keys = profile.named_frames(sample.stack).map(|frame| key(profile, &frame, &thread));
                new.insert(keys.map(|key| row(&mut rows, key)).collect())
            }
        };
        if let Some((_, times)) = stack.last().and_then(|&leaf| rows.get_index_mut(leaf)) {
            times.itself = times.itself.saturating_add(sample.weight);
        }
        for row in stack.iter().collect::<HashSet<_>>() {
            if let Some((_, times)) = rows.get_index_mut(*row) {
                times.total = times.total.saturating_add(sample.weight);
            }
        }
    }
    rows.into_iter().collect()
}

/// Index of the row, which is added where it is new.
fn row(rows: &mut IndexMap<Key, Times>, key: Key) -> usize {
    let entry = rows.entry(key);
    let row = entry.index();
    entry.or_default();
    row
}

fn key(profile: &Profile, frame: &NamedFrame<'_>, thread: &str) -> Key {
    let mapping = profile.locations.get(frame.location as usize).and_then(|location| location.mapping);
    let mapping = mapping.and_then(|index| profile.mappings.get(index as usize));
    let binary = mapping.map_or(NO_FILE, |mapping| mapping.path.rsplit('/').next().unwrap_or(NO_FILE));
    Key {
        function: printable(&frame.name).into_owned(),
        binary: printable(binary).into_owned(),
        thread: thread.to_owned(),
    }
}

fn write_rows(
    rows: &[(Key, Times)],
    total: u64,
    out: &mut dyn Write,
    options: &WriteOptions,
) -> io::Result<()> {
    let longest = |text: fn(&Key) -> &str, title: &str| {
        rows.iter().map(|(key, _)| columns(text(key))).max().unwrap_or(0).max(title.len())
    };
    let binary_width = longest(|key| &key.binary, "binary");
    let thread_width = if options.per_thread { longest(|key| &key.thread, "thread") } else { 0 };
    // Before the function's column: two of 7, two of 10, and two spaces after each.
    let taken =
        2 * 7 + 2 * 10 + 4 * 2 + 2 + binary_width + if thread_width > 0 { thread_width + 2 } else { 0 };
    let room = options.width.map_or(MAX_FUNCTION_WIDTH, |width| width.saturating_sub(taken));
    let function_width = longest(|key| &key.function, "function").min(room.max(MIN_FUNCTION_WIDTH));

    let (bold, dim, plain) = if options.color { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let thread = |text: &str| match thread_width {
        0 => String::new(),
        width => format!("{}  ", padded(text, width)),
    };
    writeln!(
        out,
        "{bold}{:>7}  {:>10}  {:>7}  {:>10}  {}  {}binary{plain}",
        "self %",
        "self",
        "total %",
        "total",
        padded("function", function_width),
        thread("thread"),
    )?;
    for (key, times) in rows {
        writeln!(
            out,
            "{bold}{:>7}{plain}  {:>10}  {:>7}  {:>10}  {}  {}{dim}{}{plain}",
            percent(times.itself, total),
            duration(times.itself),
            percent(times.total, total),
            duration(times.total),
            padded(&key.function, function_width),
            thread(&key.thread),
            key.binary,
        )?;
    }
    Ok(())
}

pub(super) fn percent(part: u64, total: u64) -> String {
    format!("{:.2}%", 100.0 * part as f64 / total.max(1) as f64)
}

/// Columns on a terminal, for all but the widest scripts.
pub fn columns(text: &str) -> usize {
    text.chars().count()
}

/// Filled with spaces, or cut with `...` at the end.
pub fn padded(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return format!("{text:<width$}");
    }
    let kept: String = text.chars().take(width.saturating_sub(3)).collect();
    format!("{kept}...")
}
