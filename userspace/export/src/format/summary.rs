//! What a profile measured, in words for people.

use std::collections::BTreeSet;
use std::time::Duration;

use descry_aggregate::profile::{Profile, ProfileKind};

use super::escape::printable;

/// Processes named one by one in a title.
const NAMED_PROCESSES: usize = 3;

/// What was measured, and of whom: `CPU time of nginx, postgres and 3 other programs`.
pub fn subject(profile: &Profile) -> String {
    let what = match profile.kind {
        ProfileKind::Cpu => "CPU time",
        ProfileKind::OffCpu => "Off-CPU time",
        ProfileKind::Wall => "Elapsed time",
    };
    let names: BTreeSet<_> = profile.processes.iter().map(|process| printable(&process.name)).collect();
    let others = names.len().saturating_sub(NAMED_PROCESSES);
    let mut named: Vec<_> = names.iter().take(NAMED_PROCESSES).map(|name| name.to_string()).collect();
    if others > 0 {
        named.push(format!("{others} other program{}", if others == 1 { "" } else { "s" }));
    }
    match named.split_last() {
        None => what.to_owned(),
        Some((only, [])) => format!("{what} of {only}"),
        Some((last, rest)) => format!("{what} of {} and {last}", rest.join(", ")),
    }
}

/// How much was measured: `990 samples at 99 Hz over 10.0 s: 10.0 s of CPU time`.
pub fn extent(profile: &Profile) -> String {
    let count = |waits: bool| {
        let counted = profile.samples.iter().filter(|sample| sample.waited.is_some() == waits);
        counted.fold(0u64, |sum, sample| sum.saturating_add(sample.count))
    };
    let (samples, waits) = (count(false), count(true));
    let rate = match profile.period {
        0 => String::new(),
        period => {
            let hertz = 1e9 / period as f64;
            let digits = if hertz < 10.0 { 1 } else { 0 };
            format!(" at {hertz:.digits$} Hz")
        }
    };
    let time = match profile.kind {
        ProfileKind::Cpu => "of CPU time",
        ProfileKind::OffCpu => "off the CPU",
        ProfileKind::Wall => "elapsed",
    };
    let noun = |count, one: &str| format!("{} {one}{}", grouped(count), if count == 1 { "" } else { "s" });
    let counted = match (samples, waits) {
        (samples, 0) => format!("{}{rate}", noun(samples, "sample")),
        (0, waits) => noun(waits, "wait"),
        (samples, waits) => format!("{}{rate} and {}", noun(samples, "sample"), noun(waits, "wait")),
    };
    let over = duration(u64::try_from(profile.duration.as_nanos()).unwrap_or(u64::MAX));
    format!("{counted} over {over}: {} {time}", duration(total_weight(profile)))
}

/// Sum of the weights (ns).
pub fn total_weight(profile: &Profile) -> u64 {
    profile.samples.iter().fold(0u64, |sum, sample| sum.saturating_add(sample.weight))
}

/// Nanoseconds with three or four digits and a unit.
pub fn duration(nanos: u64) -> String {
    let seconds = Duration::from_nanos(nanos).as_secs_f64();
    match nanos {
        0 => "0 s".to_owned(),
        1..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} us", seconds * 1e6),
        1_000_000..1_000_000_000 => format!("{:.1} ms", seconds * 1e3),
        1_000_000_000..100_000_000_000 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// Decimal digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units_and_groups() {
        for (nanos, text) in [
            (0, "0 s"),
            (999, "999 ns"),
            (1_500, "1.5 us"),
            (12_345_678, "12.3 ms"),
            (1_234_000_000, "1.23 s"),
            (123_400_000_000, "123 s"),
        ] {
            assert_eq!(duration(nanos), text);
        }
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
