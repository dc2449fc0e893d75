//! What becomes of processes, as log records: programs that start, processes that end and how, connects that fail.

use std::borrow::Cow;
use std::collections::BTreeMap;

use descry_abi::event::EXIT_OUT_OF_MEMORY;
use descry_assemble::connect;
use descry_assemble::span::{Attribute, Value};
use descry_config::{Config, Logs};
use descry_decode::ids::{BootNanos, Comm, Tgid, UnixNanos};
use descry_decode::{ConnectFailed, Lifecycle};
use descry_export::otlp::{LogRecord, Severity};
use descry_pipeline::RateLimit;
use descry_process::{AttributeValue, Attributes};
use nix::sys::signal::Signal;

use crate::counted::counters;
use crate::measure::{Tracker, add_attributes};
use crate::syscalls::least_resource;

/// Records a second at most, of what goes well and of trouble each.
const RECORDS_A_SECOND: u32 = 1000;
/// Processes a second that are looked up in /proc for a record alone.
const LOOKUPS_A_SECOND: u32 = 100;

counters! {
    /// Counters of log records.
    LifeCounters = "descry.agent." {
        /// Log records that were made.
        log_records,
        /// Log records that were left out because too many came in a second.
        log_records_over_limit,
        /// Log records that tell only id and name of their process, because too many processes came in a second.
        log_records_of_unknown,
    }
}

/// Makes records.
pub struct Lives {
    settings: Logs,
    /// Attributes that each Resource gets unless it has them.
    attributes: BTreeMap<String, String>,
    limit: RateLimit,
    lookups: RateLimit,
    boot_to_unix: i64,
    counters: LifeCounters,
}

impl Lives {
    /// As a configuration says; `boot_to_unix` is Unix time minus boot time (ns).
    pub fn new(config: &Config, boot_to_unix: i64) -> Self {
        Self {
            settings: config.logs.clone(),
            attributes: config.resource.attributes.clone(),
            limit: RateLimit::new(RECORDS_A_SECOND),
            lookups: RateLimit::new(LOOKUPS_A_SECOND),
            boot_to_unix,
            counters: LifeCounters::default(),
        }
    }

    /// Counters so far.
    pub fn counters(&self) -> LifeCounters {
        self.counters
    }

    /// A process runs another program.
    pub fn exec(&mut self, tracker: &mut Tracker, event: &Lifecycle) -> Option<(Attributes, LogRecord)> {
        let about = About { severity: Severity::Info, event: "process.exec", attributes: Vec::new() };
        let (time, resource) = self.of(tracker, event.tgid, event.comm, event.time, &about)?;
        Some((resource, about.record(time, format!("{} was started", event.comm))))
    }

    /// A process has ended.
    pub fn exit(&mut self, tracker: &mut Tracker, event: &Lifecycle) -> Option<(Attributes, LogRecord)> {
        let (severity, body, attributes) = told(event.other, &event.comm.to_string());
        let about = About { severity, event: "process.exit", attributes };
        let (time, resource) = self.of(tracker, event.tgid, event.comm, event.time, &about)?;
        Some((resource, about.record(time, body)))
    }

    /// A process could not connect.
    pub fn connect_failed(
        &mut self,
        tracker: &mut Tracker,
        failed: &ConnectFailed,
    ) -> Option<(Attributes, LogRecord)> {
        let about = About {
            severity: Severity::Warn,
            event: "network.connect.failed",
            attributes: connect::attributes(failed),
        };
        let (time, resource) = self.of(tracker, failed.tgid, Comm::default(), failed.end, &about)?;
        let name = executable_name(&resource).unwrap_or("a process");
        let body = format!("{name} could not connect to {}: {}", failed.remote, connect::error(failed));
        let record = about.record(time, body);
        Some((resource, record))
    }

    /// When it was, and the Resource of whom it is about; none: it is not wanted, or one too many.
    fn of(
        &mut self,
        tracker: &mut Tracker,
        tgid: Tgid,
        comm: Comm,
        time: BootNanos,
        about: &About,
    ) -> Option<(UnixNanos, Attributes)> {
        let is_trouble = about.severity != Severity::Info;
        if !is_trouble && !self.settings.lifecycle {
            return None;
        }
        let time = UnixNanos(time.0.saturating_add_signed(self.boot_to_unix));
        let kind = if is_trouble { "trouble" } else { "life" };
        if !self.limit.takes(kind, time) {
            self.counters.log_records_over_limit += 1;
            return None;
        }
        self.counters.log_records += 1;
        let is_known = tracker.is_known(tgid);
        let resource = if is_known || self.lookups.takes("", time) {
            tracker.resource(tgid, comm).1
        } else {
            self.counters.log_records_of_unknown += 1;
            Attributes::new()
        };
        let mut resource = match resource.is_empty() {
            true => least_resource(&(tgid, comm.to_string().into())),
            false => resource,
        };
        add_attributes(&mut resource, &self.attributes);
        Some((time, resource))
    }
}

/// What a record says beside its words.
struct About {
    severity: Severity,
    event: &'static str,
    attributes: Vec<Attribute>,
}

impl About {
    fn record(self, time: UnixNanos, body: String) -> LogRecord {
        let Self { severity, event, attributes } = self;
        LogRecord { time, severity, event, body: body.into(), attributes }
    }
}

fn executable_name(resource: &Attributes) -> Option<&str> {
    resource.iter().find_map(|(name, value)| match value {
        AttributeValue::Text(text) if name == "process.executable.name" => Some(text.as_str()),
        _ => None,
    })
}

/// Severity, words and attributes of a wait status (`wait(2)`: the signal in bits 0 to 6, whether memory was dumped in
/// bit 7, the exit code in bits 8 to 15), beside which may be [`EXIT_OUT_OF_MEMORY`].
fn told(status: u32, name: &str) -> (Severity, String, Vec<Attribute>) {
    let (signal, dumped, code) = (status & 0x7f, status & 0x80 != 0, (status >> 8) & 0xff);
    if signal == 0 {
        let severity = if code == 0 { Severity::Info } else { Severity::Warn };
        let attributes = vec![("process.exit.code".into(), Value::Int(code.into()))];
        return (severity, format!("{name} exited with code {code}"), attributes);
    }
    let known = i32::try_from(signal).ok().and_then(|number| Signal::try_from(number).ok());
    let signal =
        known.map_or_else(|| format!("signal {signal}").into(), |signal| Cow::Borrowed(signal.as_str()));
    // Those that ask a program to end are no trouble.
    let is_asked = matches!(known, Some(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGPIPE));
    let severity = if is_asked { Severity::Info } else { Severity::Error };
    let is_out_of_memory = status & EXIT_OUT_OF_MEMORY != 0;
    let more = match (is_out_of_memory, dumped) {
        (true, _) => ": the kernel was out of memory, or its cgroup was",
        (false, true) => " and dumped its memory",
        (false, false) => "",
    };
    let body = format!("{name} was ended by {signal}{more}");
    let value = match signal {
        Cow::Borrowed(name) => Value::Static(name),
        Cow::Owned(name) => Value::Text(name.into()),
    };
    let attributes = vec![
        ("descry.process.exit.signal".into(), value),
        ("descry.process.exit.core_dumped".into(), Value::Bool(dumped)),
        ("descry.process.exit.out_of_memory".into(), Value::Bool(is_out_of_memory)),
    ];
    (severity, body, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u32, severity: Severity, body: &str) {
        let (found, words, _) = told(status, "a");
        assert_eq!((found, words.as_str()), (severity, body), "{status:#x}");
    }

    #[test]
    fn ends_are_told_as_they_were() {
        check(0, Severity::Info, "a exited with code 0");
        check(3 << 8, Severity::Warn, "a exited with code 3");
        check(15, Severity::Info, "a was ended by SIGTERM");
        check(11 | 0x80, Severity::Error, "a was ended by SIGSEGV and dumped its memory");
        check(9, Severity::Error, "a was ended by SIGKILL");
        let words = "a was ended by SIGKILL: the kernel was out of memory, or its cgroup was";
        check(9 | EXIT_OUT_OF_MEMORY, Severity::Error, words);
        check(40, Severity::Error, "a was ended by signal 40");
    }
}
