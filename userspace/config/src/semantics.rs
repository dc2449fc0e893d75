//! What a schema cannot say: settings that belong together, times and sizes out of range, files that cannot be read.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::destination::Destination;
use crate::model::Config;
use crate::problem::Step;
use crate::scalar::{Period, Size};

const MIB: u64 = 1 << 20;
/// The largest file with a header's value (bytes).
const MAX_HEADER_FILE: u64 = 64 << 10;
/// Rules at most: each is tried for each new process.
const MAX_RULES: usize = 256;
/// Destinations at most: each has a thread and a queue.
const MAX_DESTINATIONS: usize = 16;

/// Endpoints of one destination, its filters, its patterns of redaction at most: each is tried for what is sent.
const MAX_ENDPOINTS: usize = 16;
const MAX_FILTERS: usize = 64;
const MAX_PATTERNS: usize = 64;

/// Where and why.
type Found = (Vec<Step>, String);

/// Every mistake.
pub(crate) fn problems(config: &Config) -> Vec<Found> {
    let mut found = Vec::new();
    let path = |keys: &[&str]| keys.iter().map(|key| Step::Key((*key).to_owned())).collect::<Vec<_>>();
    for (index, rule) in config.rules.iter().enumerate() {
        let patterns = [&rule.exe, &rule.comm, &rule.cgroup, &rule.container, &rule.unit];
        if patterns.iter().all(|pattern| pattern.is_none()) && rule.ports.is_empty() {
            let reason =
                "the rule fits nothing; give it exe, comm, cgroup, container, unit or ports".to_owned();
            found.push((vec![Step::Key("rules".to_owned()), Step::Item(index)], reason));
        }
    }
    let rules = config
        .rules
        .iter()
        .enumerate()
        .map(|(index, rule)| (vec![Step::Key("rules".to_owned()), Step::Item(index)], rule.frequency));
    for (mut at, frequency) in rules.chain([(path(&["others"]), config.others.frequency)]) {
        let most = config.profile.frequency;
        if frequency.is_some_and(|frequency| frequency > most) {
            at.push(Step::Key("frequency".to_owned()));
            found.push((at, format!("it must not be above {most}, that of `profile`")));
        }
    }
    if config.rules.len() > MAX_RULES {
        found.push((path(&["rules"]), format!("there are more than {MAX_RULES} rules")));
    }
    let window = (Duration::from_secs(1), Duration::from_secs(600));
    period(&config.profile.window, window, path(&["profile", "window"]), &mut found);
    let long = (Duration::from_micros(100), Duration::from_secs(3600));
    if let Some(slower_than) = &config.syscalls.slower_than {
        period(slower_than, long, path(&["syscalls", "slower_than"]), &mut found);
    }
    if let Some(longer_than) = &config.off_cpu.longer_than {
        period(longer_than, long, path(&["off_cpu", "longer_than"]), &mut found);
    }
    size(&config.file.size, 16 * MIB, path(&["file", "size"]), &mut found);
    if !config.health.address.0.ip().is_loopback() {
        let reason = "only loopback addresses are served, like 127.0.0.1:8687".to_owned();
        found.push((path(&["health", "address"]), reason));
    }
    if config.destinations.len() > MAX_DESTINATIONS {
        found.push((path(&["destinations"]), format!("there are more than {MAX_DESTINATIONS} destinations")));
    }
    let (mut names, mut directories) = (BTreeSet::new(), BTreeSet::new());
    for (index, destination) in config.destinations.iter().enumerate() {
        let at = |keys: &[&str]| {
            let mut path = vec![Step::Key("destinations".to_owned()), Step::Item(index)];
            path.extend(keys.iter().map(|key| Step::Key((*key).to_owned())));
            path
        };
        if destination.name.is_empty() {
            found.push((at(&["name"]), "a name has characters".to_owned()));
        }
        if !names.insert(&destination.name) {
            found.push((at(&["name"]), format!("{:?} is the name of another one", destination.name)));
        }
        if let Some(directory) = &destination.spool.directory
            && !directories.insert(directory)
        {
            found.push((at(&["spool", "directory"]), "it is another destination's".to_owned()));
        }
        self::destination(destination, &at, &mut found);
    }
    found
}

fn destination(destination: &Destination, at: &dyn Fn(&[&str]) -> Vec<Step>, found: &mut Vec<Found>) {
    let timeout = (Duration::from_millis(100), Duration::from_secs(300));
    period(&destination.timeout, timeout, at(&["timeout"]), found);
    size(&destination.queue.size, 4 * MIB, at(&["queue", "size"]), found);
    size(&destination.spool.size, 16 * MIB, at(&["spool", "size"]), found);
    for (key, there, most) in [
        ("more_endpoints", destination.more_endpoints.len(), MAX_ENDPOINTS - 1),
        ("filters", destination.filters.len(), MAX_FILTERS),
    ] {
        if there > most {
            found.push((at(&[key]), format!("there are more than {most}")));
        }
    }
    if destination.redaction.patterns.len() > MAX_PATTERNS {
        found.push((at(&["redaction", "patterns"]), format!("there are more than {MAX_PATTERNS}")));
    }
    for (name, file) in &destination.header_files {
        readable(file, MAX_HEADER_FILE, at(&["header_files", name]), found);
        if destination.headers.contains_key(name) {
            found.push((at(&["header_files", name]), "it is among the headers too".to_owned()));
        }
    }
    let tls = &destination.tls;
    for (key, file) in [("ca", &tls.ca), ("certificate", &tls.certificate), ("key", &tls.key)] {
        if let Some(file) = file {
            readable(file, u64::MAX, at(&["tls", key]), found);
        }
    }
    match (&tls.certificate, &tls.key) {
        (Some(_), None) => found.push((at(&["tls", "certificate"]), "it needs its key too".to_owned())),
        (None, Some(_)) => found.push((at(&["tls", "key"]), "it needs its certificate too".to_owned())),
        _ => {}
    }
}

fn period(value: &Period, (least, most): (Duration, Duration), path: Vec<Step>, found: &mut Vec<Found>) {
    if value.0 < least || value.0 > most {
        let format = humantime::format_duration;
        found.push((path, format!("it must be from {} to {}", format(least), format(most))));
    }
}

fn size(value: &Size, least: u64, path: Vec<Step>, found: &mut Vec<Found>) {
    if value.0 < least {
        found.push((path, format!("it must be {}MiB or more", least / MIB)));
    }
}

fn readable(file: &Path, most: u64, path: Vec<Step>, found: &mut Vec<Found>) {
    let reason = match std::fs::metadata(file) {
        Ok(metadata) if !metadata.is_file() => Some("it is no regular file".to_owned()),
        Ok(metadata) if metadata.len() > most => Some(format!("it is larger than {most} bytes")),
        // Opened only once it is known that opening does not block.
        Ok(_) => File::open(file).err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(reason) = reason {
        // A path may hold what a terminal would obey.
        let file = file.to_string_lossy();
        found.push((path, format!("{} cannot be read: {reason}", file.escape_debug())));
    }
}
