//! A table of the reasons of waits: how many, how long together, the longest. Time on a CPU, where that was measured too,
//! has a line of its own.

use std::collections::BTreeMap;
use std::io::{self, Write};

use descry_aggregate::profile::{Profile, state_name};

use super::WriteOptions;
use super::summary::{duration, grouped, total_weight};
use super::text::percent;

#[derive(Default)]
struct Sum {
    count: u64,
    total: u64,
    longest: u64,
}

/// Writes the table; nothing where there are no waits.
pub fn write(profile: &Profile, out: &mut dyn Write, options: &WriteOptions) -> io::Result<()> {
    if profile.samples.iter().all(|sample| sample.waited.is_none()) {
        return Ok(());
    }
    let mut sums: BTreeMap<_, Sum> = BTreeMap::new();
    for sample in &profile.samples {
        let sum = sums.entry(sample.waited).or_default();
        sum.count = sum.count.saturating_add(sample.count);
        sum.total = sum.total.saturating_add(sample.weight);
        sum.longest = sum.longest.max(sample.longest);
    }
    let mut rows: Vec<_> = sums.into_iter().collect();
    // The map gave them by reason; a stable sort leaves equal times in that order.
    rows.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.total));
    let total = total_weight(profile);
    let (bold, plain) = if options.color { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    writeln!(out)?;
    writeln!(
        out,
        "{bold}{:>7}  {:>10}  {:>12}  {:>10}  {:<15}  state{plain}",
        "time %", "time", "count", "longest", "reason",
    )?;
    for (waited, sum) in rows {
        let share = percent(sum.total, total);
        let time = duration(sum.total);
        match waited {
            Some(waited) => writeln!(
                out,
                "{bold}{share:>7}{plain}  {time:>10}  {:>12}  {:>10}  {:<15}  {}",
                grouped(sum.count),
                duration(sum.longest),
                waited.reason.as_str(),
                state_name(waited.state),
            )?,
            None => writeln!(out, "{bold}{share:>7}{plain}  {time:>10}  {:>12}  {:>10}  on CPU", "-", "-")?,
        }
    }
    Ok(())
}
