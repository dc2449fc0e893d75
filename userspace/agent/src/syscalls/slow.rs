//! Calls that took long: their arguments are looked up at once, since descriptors are closed and processes end; their stacks
//! are named at the end.

use descry_aggregate::syscalls::{ProcessName, SlowSyscall};
use descry_aggregate::{CodeRef, KnownCode};
use descry_assemble::span::{Span, SpanId, TraceId};
use descry_decode::SlowCall;
use descry_decode::ids::{Tgid, UnixNanos};
use descry_decode::syscall::{self, Interface, Value};
use descry_export::syscall::slow_span;
use descry_process::descriptor::Descriptors;
use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;
use uuid::Uuid;

use crate::measure::Tracker;

/// Calls kept at most (some 500 B each).
const MAX_CALLS: usize = 10_000;
/// Different places in code at most (some 40 B each).
const MAX_CODE: usize = 1 << 18;

/// Collects them.
#[derive(Default)]
pub struct SlowCalls {
    calls: Vec<Pending>,
    code: IndexSet<CodeRef, FxBuildHasher>,
    descriptors: Descriptors,
}

/// A call without the names of its stack.
struct Pending {
    /// Its start is in boot time.
    call: SlowSyscall,
    /// Indices of the places in code.
    stack: Vec<usize>,
}

impl SlowCalls {
    /// Takes a call; false: there are too many.
    pub fn add(&mut self, tracker: &mut Tracker, slow: &SlowCall) -> bool {
        let sample = &slow.sample;
        let located = tracker.locate(sample);
        if self.calls.len() >= MAX_CALLS {
            return false;
        }
        let has_room = self.code.len() + located.code.len() <= MAX_CODE;
        let places = if has_room { located.code } else { &[] };
        let stack = places.iter().map(|place| self.code.insert_full(place.clone()).0).collect();
        let (process, truncated) = ((sample.tgid, located.process), located.truncated || !has_room);
        let call = SlowSyscall { truncated, ..self.describe(slow, process) };
        self.calls.push(Pending { call, stack });
        true
    }

    /// A call as people read it, without its stack. Its start is in boot time.
    pub fn describe(&mut self, slow: &SlowCall, process: ProcessName) -> SlowSyscall {
        let sample = &slow.sample;
        let interface = syscall::interface(slow.number);
        let name = syscall::name(slow.number);
        SlowSyscall {
            process,
            tid: sample.tid,
            thread: sample.comm.to_string(),
            start: UnixNanos(slow.start.0),
            duration: sample.weight,
            blocking: syscall::is_blocking(&name),
            arguments: self.arguments(&name, interface, slow),
            name,
            interface,
            result: slow.result,
            error: syscall::error_of(slow.result).map(syscall::error_name),
            stack: Vec::new(),
            truncated: false,
            unit: sample.unit,
            request: sample.request,
        }
    }

    /// A call as a span, without its stack.
    pub fn span(&mut self, slow: &SlowCall, process: ProcessName, boot_to_unix: i64) -> Span {
        let mut call = self.describe(slow, process);
        call.start = UnixNanos(call.start.0.saturating_add_signed(boot_to_unix));
        let (trace, span) = new_ids();
        slow_span(&call, trace, span)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// The places in code that are to be named.
    pub fn code(&self) -> Vec<CodeRef> {
        self.code.iter().cloned().collect()
    }

    fn arguments(
        &mut self,
        name: &str,
        interface: Interface,
        slow: &SlowCall,
    ) -> Option<Vec<(&'static str, String)>> {
        // Other interfaces pass them in other registers.
        let registers = slow.arguments.as_ref().filter(|_| interface == Interface::NATIVE)?;
        let arguments = syscall::arguments(name, registers).into_iter();
        Some(arguments.map(|argument| (argument.name, self.shown(&argument.value, slow))).collect())
    }

    fn shown(&mut self, value: &Value, slow: &SlowCall) -> String {
        match (value, &slow.path) {
            (Value::Descriptor(number), _) => self.descriptor(slow.sample.tgid, *number),
            (Value::Path(_), Some(path)) => format!("{:?}", String::from_utf8_lossy(path)),
            _ => value.to_string(),
        }
    }

    fn descriptor(&mut self, tgid: Tgid, number: i32) -> String {
        match self.descriptors.describe(tgid, number) {
            Some(description) => format!("{number}<{description}>"),
            None => number.to_string(),
        }
    }

    /// The calls by their times, with the names that were found for [`SlowCalls::code`].
    pub fn finish(self, code: &[KnownCode], boot_to_unix: i64) -> Vec<SlowSyscall> {
        let mut calls: Vec<SlowSyscall> = self
            .calls
            .into_iter()
            .map(|Pending { mut call, stack }| {
                call.start = UnixNanos(call.start.0.saturating_add_signed(boot_to_unix));
                let places = stack.iter().filter_map(|index| code.get(*index));
                call.stack = places.flat_map(frames).collect();
                call
            })
            .collect();
        calls.sort_by_key(|call| call.start);
        calls
    }
}

/// The functions at a place, callee first: `function (file:line)`, `[FILE+0xOFFSET]` where there is no name.
fn frames(code: &KnownCode) -> Vec<String> {
    if code.symbolized.frames.is_empty() {
        let path = code.mapping.as_ref().map_or("unknown", |mapping| &mapping.path);
        let file = path.rsplit('/').next().unwrap_or(path);
        return vec![format!("[{file}+{:#x}]", code.address)];
    }
    let frame = |frame: &descry_symbol::SourceFrame| match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{} ({file}:{line})", frame.function),
        _ => frame.function.to_string(),
    };
    code.symbolized.frames.iter().map(frame).collect()
}

/// Ids of a new trace and of its first span: random, and never zero, since a UUID's version is not.
pub fn new_ids() -> (TraceId, SpanId) {
    let [.., a, b, c, d, e, f, g, h] = Uuid::new_v4().into_bytes();
    (TraceId(Uuid::new_v4().into_bytes()), SpanId([a, b, c, d, e, f, g, h]))
}
