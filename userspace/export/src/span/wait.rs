//! Long waits of requests as spans. OpenTelemetry's semantic conventions have no names for waits, so descry has its own:
//!
//! | what | name |
//! |---|---|
//! | why the thread waited, as in profiles | `descry.off_cpu.reason` |
//! | how long it then waited for a CPU (s) | `descry.off_cpu.run_queue` |
//! | the system call in flight | `descry.syscall.name` |

use std::borrow::Cow;

use descry_aggregate::{Circumstances, reason};
use descry_assemble::span::{Attribute, Span, SpanId, TraceId, Value};
use descry_decode::ids::{BootNanos, Comm, SyscallNumber, UnixNanos};
use descry_decode::{RequestWait, WaitKind, syscall};

use crate::otlp::REASON;

/// A wait as a span without a parent. `boot_to_unix`: Unix time minus boot time (ns).
pub fn wait_span(wait: &RequestWait, thread: Comm, ids: (TraceId, SpanId), boot_to_unix: i64) -> Span {
    let is_blocked = wait.runnable > wait.start;
    let circumstances = Circumstances {
        kind: if is_blocked { WaitKind::Blocked } else { WaitKind::RunQueue },
        state: wait.of.state,
        file: wait.of.file,
        syscall: wait.of.syscall,
        kernel_thread: false,
    };
    let reason = reason(&circumstances, std::iter::empty()).as_str();
    let queued = wait.end.0.saturating_sub(wait.runnable.0);
    let mut attributes: Vec<Attribute> = vec![
        (Cow::Borrowed(REASON), Value::Static(reason)),
        (Cow::Borrowed("descry.off_cpu.run_queue"), Value::Double(queued as f64 / 1e9)),
        (Cow::Borrowed("thread.id"), Value::Int(wait.of.tid.0.into())),
    ];
    if let Some(number) = wait.of.syscall {
        let name = syscall::name(SyscallNumber(number)).into();
        attributes.push((Cow::Borrowed("descry.syscall.name"), Value::Text(name)));
    }
    let thread = thread.to_string();
    if !thread.is_empty() {
        attributes.push((Cow::Borrowed("thread.name"), Value::Text(thread.into())));
    }
    let unix = |time: BootNanos| UnixNanos(time.0.saturating_add_signed(boot_to_unix));
    let name = Cow::Owned(format!("wait: {reason}"));
    Span { attributes: attributes.into(), ..Span::internal(ids, name, (unix(wait.start), unix(wait.end))) }
}

#[cfg(test)]
mod tests {
    use descry_decode::ids::{RequestId, Tgid, Tid};
    use descry_decode::{FileKind, WaitOf, WaitState};

    use super::*;

    fn check(runnable: u64, syscall: Option<u32>, file: FileKind, expected: (&str, f64, Option<&str>)) {
        let of = WaitOf {
            stack: None,
            waker: None,
            tgid: Tgid(7),
            tid: Tid(8),
            syscall,
            kind: WaitKind::RunQueue,
            state: WaitState::Interruptible,
            file,
        };
        let (start, runnable, end) = (BootNanos(1_000), BootNanos(runnable), BootNanos(5_000));
        let wait = RequestWait { start, runnable, end, request: RequestId(3), of };
        let ids = (TraceId([1; 16]), SpanId([2; 8]));
        let span = wait_span(&wait, Comm(*b"waiter\0\0\0\0\0\0\0\0\0\0"), ids, 100);
        let queued = match span.attribute("descry.off_cpu.run_queue") {
            Some(Value::Double(seconds)) => *seconds,
            other => panic!("{other:?}"),
        };
        let reason = span.attribute(REASON).and_then(Value::as_text).unwrap_or_default();
        let syscall = span.attribute("descry.syscall.name").and_then(Value::as_text);
        assert_eq!((reason, queued, syscall), expected);
        assert_eq!(span.name, format!("wait: {reason}"));
        assert_eq!((span.start, span.end), (UnixNanos(1_100), UnixNanos(5_100)));
        assert_eq!(span.attribute("thread.name").and_then(Value::as_text), Some("waiter"));
    }

    #[test]
    fn waits_have_a_reason_and_their_share_of_the_run_queue() {
        let number = |call: libc::c_long| Some(call as u32);
        check(4_000, number(libc::SYS_futex), FileKind::Unknown, ("lock", 1e-6, Some("futex")));
        check(5_000, number(libc::SYS_read), FileKind::Socket, ("network read", 0.0, Some("read")));
        check(5_000, None, FileKind::Unknown, ("page fault", 0.0, None));
        // It never blocked.
        check(1_000, number(libc::SYS_read), FileKind::Pipe, ("run queue", 4e-6, Some("read")));
    }
}
