//! What every measuring command says last, on stderr: what it took, what was lost, what it cost.

use std::collections::BTreeMap;
use std::time::Duration;

use descry_telemetry::ProcessUsage;

/// What descry itself took so far; none where the system does not say.
pub fn usage() -> Option<ProcessUsage> {
    ProcessUsage::now().inspect_err(|error| tracing::warn!(%error, "own usage")).ok()
}

/// `0 lost`, or what was lost by reason.
pub fn lost_text(lost: &BTreeMap<&'static str, u64>) -> String {
    if lost.is_empty() {
        return "0 lost".to_owned();
    }
    let reasons: Vec<String> = lost.iter().map(|(name, count)| format!("{name} {count}")).collect();
    format!("lost: {}", reasons.join(", "))
}

/// `; descry took ...`, to be put behind the rest of the line; empty where nothing is known.
pub fn usage_text(usage: Option<ProcessUsage>) -> String {
    usage.map_or_else(String::new, |usage| {
        let cpu = Duration::from_nanos(usage.cpu_ns);
        let mib = usage.peak_rss_bytes as f64 / f64::from(1 << 20);
        format!("; descry took {:.2} s CPU, {mib:.1} MiB peak", cpu.as_secs_f64())
    })
}
