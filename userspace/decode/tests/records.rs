//! Records from bytes, as the kernel side writes them, and what is none.

use descry_abi::event::{MAX_REGISTERS, SAMPLE_HAS_COPY, SAMPLE_IN_KERNEL};
use descry_decode::ids::{
    BootNanos, CgroupId, Cpu, FunctionNumber, RequestId, RuntimeAddress, StackId, SyscallNumber, Tgid, Tid,
    UnitId,
};
use descry_decode::{DecodeError, Event, FileKind, UnwindEnd, Wait, WaitKind, WaitOf, WaitState, time_of};

/// Decodes, and sees to it that the time is the same where that is asked for alone.
fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let event = descry_decode::decode(bytes)?;
    assert_eq!(time_of(bytes), Ok(event.time()));
    Ok(event)
}

/// Fields in the order of the ABI, each in the machine's byte order.
#[derive(Default)]
struct Record(Vec<u8>);

impl Record {
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend(value);
        self
    }
}

fn sample(kernel_frames: u16, user_frames: u16, end: u16) -> Record {
    let flags = SAMPLE_IN_KERNEL | SAMPLE_HAS_COPY;
    Record::default()
        .u16(1)
        .u16(flags)
        .u16(kernel_frames)
        .u16(user_frames)
        .u64(123)
        .u32(7)
        .u32(8)
        .u32(3)
        .u16(end)
        .u16(0)
        .u64(99)
        .u64(1_000_000)
        .u64(8)
        .u64(0)
        .bytes(b"nginx\0\0\0\0\0\0\0\0\0\0\0")
}

#[test]
fn a_sample() {
    let record = sample(1, 2, 1).u64(0xffff_ffff_8100_0000).u64(0x1000).u64(0x2000);
    let Ok(Event::Sample(sample)) = decode(&record.0) else { panic!("not a sample") };
    assert_eq!((sample.time, sample.tgid, sample.tid, sample.cpu), (BootNanos(123), Tgid(7), Tid(8), Cpu(3)));
    assert_eq!((sample.cgroup, sample.weight), (CgroupId(99), 1_000_000));
    assert_eq!((sample.unit, sample.request), (UnitId(8), RequestId(0)));
    assert_eq!(sample.comm.to_string(), "nginx");
    assert!(sample.in_kernel && sample.has_copy && !sample.kernel_thread);
    assert_eq!(sample.kernel, [RuntimeAddress(0xffff_ffff_8100_0000)]);
    assert_eq!(sample.user, [RuntimeAddress(0x1000), RuntimeAddress(0x2000)]);
    assert_eq!(sample.end, UnwindEnd::Root);
}

#[test]
fn a_stack_copy() {
    let mut record = Record::default().u16(2).u16(17).u32(16).u64(123).u32(7).u32(8).u64(0x7ffe_0000);
    for register in 0..MAX_REGISTERS as u64 {
        record = record.u64(register * 10);
    }
    let record = record.bytes(b"sixteen bytes...");
    let Ok(Event::StackCopy(copy)) = decode(&record.0) else { panic!("not a copy") };
    assert_eq!((copy.time, copy.tid, copy.start), (BootNanos(123), Tid(8), RuntimeAddress(0x7ffe_0000)));
    assert_eq!(copy.registers.len(), 17);
    assert_eq!(copy.registers[16], 160);
    assert_eq!(copy.stack, b"sixteen bytes...");
}

fn slow_call(path_len: u16, has_arguments: u16) -> Record {
    let mut sample = sample(0, 1, 1).u64(0x1000);
    // The kind is the first field.
    sample.0[..2].copy_from_slice(&7u16.to_ne_bytes());
    let record = sample.u64(100).u64(-2i64 as u64);
    let record = (1..=6).fold(record, |record, argument| record.u64(argument * 0x10));
    record.u32(257).u16(path_len).u16(has_arguments)
}

#[test]
fn a_slow_call() {
    let record = slow_call(4, 1).bytes(b"/etc\0\0\0\0");
    let Ok(Event::SlowCall(call)) = decode(&record.0) else { panic!("not a slow call") };
    assert_eq!(
        (call.start, call.sample.time, call.sample.weight),
        (BootNanos(100), BootNanos(123), 1_000_000)
    );
    assert_eq!((call.number, call.result), (SyscallNumber(257), -2));
    assert_eq!(call.arguments, Some([0x10, 0x20, 0x30, 0x40, 0x50, 0x60]));
    assert_eq!(call.path.as_deref(), Some(b"/etc".as_slice()));
    assert_eq!(call.sample.user, [RuntimeAddress(0x1000)]);

    let Ok(Event::SlowCall(call)) = decode(&slow_call(0, 0).0) else { panic!("not a slow call") };
    assert_eq!((call.arguments, call.path), (None, None));
}

#[test]
fn lifecycle() {
    for (kind, expected) in [(3, "Exec"), (4, "Fork"), (5, "Exit"), (6, "Comm")] {
        let record = Record::default().u16(kind).u16(0).u32(7).u32(8).u32(9).u64(123).bytes(&[b'x'; 16]);
        let event = decode(&record.0).expect("an event");
        assert!(format!("{event:?}").starts_with(expected), "{event:?}");
        assert_eq!(event.time(), BootNanos(123));
    }
}

#[test]
fn a_call() {
    let record = |parent| {
        let times = Record::default().u16(8).u16(2).u32(41).u64(100).u64(350).u64(parent).u64(50);
        times.u32(7).u32(8).u64(8).u64(0).bytes(b"worker\0\0\0\0\0\0\0\0\0\0")
    };
    let Ok(Event::Call(call)) = decode(&record(70).0) else { panic!("not a call") };
    assert_eq!((call.function, call.depth), (FunctionNumber(41), 2));
    assert_eq!((call.start, call.end, call.root), (BootNanos(100), BootNanos(350), BootNanos(50)));
    assert_eq!((call.tgid, call.tid, call.unit), (Tgid(7), Tid(8), UnitId(8)));
    assert_eq!((call.parent, call.comm.to_string().as_str()), (Some(BootNanos(70)), "worker"));
    let Ok(Event::Call(call)) = decode(&record(0).0) else { panic!("not a call") };
    assert_eq!(call.parent, None);
}

#[test]
fn arguments() {
    let record = |length: u8| {
        let mut record = Record::default().u16(9).u16(0b10).u32(41).u64(100).u32(7).u32(8).u64(8);
        for word in 0..6 {
            record = record.u64(word * 11);
        }
        record.bytes(&[length, 0, 0, 0, 0, 0, 0, 0]).bytes(b"/etc/hosts").bytes(&[0; 6 * 128 - 10])
    };
    let Ok(Event::Arguments(arguments)) = decode(&record(10).0) else { panic!("no arguments") };
    assert_eq!((arguments.function, arguments.start), (FunctionNumber(41), BootNanos(100)));
    let [Some(path), None, Some(third), ..] = &arguments.values else { panic!("{:?}", arguments.values) };
    assert_eq!((path.word, path.text.as_slice()), (0, b"/etc/hosts".as_slice()));
    assert_eq!((third.word, third.text.as_slice()), (22, b"".as_slice()));
    assert_eq!(
        decode(&record(129).0).expect_err("too long").to_string(),
        "a record of kind 9 says lengths = 129"
    );
}

#[test]
fn what_is_no_record_is_an_error_that_says_why() {
    let error = |bytes: &[u8]| decode(bytes).expect_err("no event").to_string();
    assert_eq!(error(&[]), "a record of kind 0 needs 2 bytes and has 0");
    assert_eq!(error(&77u16.to_ne_bytes()), "no event has kind 77");
    assert_eq!(error(&sample(0, 0, 42).0), "a record of kind 1 says end = 42");
    assert_eq!(error(&sample(128, 0, 1).0), "a record of kind 1 says kernel_frames = 128");
    assert_eq!(error(&sample(0, 513, 1).0), "a record of kind 1 says user_frames = 513");
    assert_eq!(error(&sample(0, 2, 1).u64(0).0), "a record of kind 1 needs 96 bytes and has 88");
}

#[test]
fn every_truncation_is_an_error() {
    let record = sample(1, 2, 1).u64(1).u64(2).u64(3);
    for len in 0..record.0.len() {
        let result = decode(&record.0[..len]);
        assert!(matches!(result, Err(DecodeError::Truncated { .. })), "{len} bytes: {result:?}");
    }
}

#[test]
fn the_stack_of_a_wait() {
    let mut record = sample(1, 0, 1).u64(0xffff_ffff_8100_0000);
    record.0[..2].copy_from_slice(&10u16.to_ne_bytes());
    let Ok(Event::Stack(id, stack)) = decode(&record.0) else { panic!("not a stack") };
    assert_eq!((id, stack.weight), (StackId(1_000_000), 0));
    assert_eq!(stack.kernel, [RuntimeAddress(0xffff_ffff_8100_0000)]);
}

/// A wait of 5 us in this system call, of this kind and state.
fn wait(syscall: i32, kind: u8, state: u8, file: u8) -> Record {
    let record = Record::default().u16(11).u16(0).u32(0).u64(900).u64(5_000);
    let record = record.u64(77).u64(0).u32(7).u32(8).bytes(&syscall.to_ne_bytes());
    record.bytes(&[kind, state, file, 3])
}

#[test]
fn a_wait_of_a_request() {
    let key = wait(202, 0, 1, 0);
    let record =
        Record::default().u16(12).u16(0).u32(0).u64(100).u64(700).u64(900).u64(55).bytes(&key.0[24..]);
    let Ok(Event::RequestWait(told)) = decode(&record.0) else { panic!("not a wait of a request") };
    assert_eq!((told.start, told.runnable, told.end), (BootNanos(100), BootNanos(700), BootNanos(900)));
    assert_eq!((told.request, told.of.tid, told.of.syscall), (RequestId(55), Tid(8), Some(202)));
    assert_eq!(time_of(&record.0), Ok(BootNanos(900)));
    let cut = &record.0[..record.0.len() - 1];
    assert!(matches!(decode(cut), Err(DecodeError::Truncated { kind: 12, .. })));
}

/// What of a wait the test varies: system call, kind, state, file.
type Told = (Option<u32>, WaitKind, WaitState, FileKind);

#[test]
fn a_wait() {
    let check = |record: Record, expected: Result<Told, (&'static str, u64)>| {
        let wait = |(syscall, kind, state, file)| {
            let of = WaitOf {
                stack: Some(StackId(77)),
                waker: None,
                tgid: Tgid(7),
                tid: Tid(8),
                syscall,
                kind,
                state,
                file,
            };
            Event::Wait(Wait { time: BootNanos(900), duration: 5_000, of })
        };
        let wrong = |(field, value)| DecodeError::OutOfRange { kind: 11, field, value };
        assert_eq!(decode(&record.0), expected.map(wait).map_err(wrong));
    };
    let of = |syscall, kind, state, file| Ok((syscall, kind, state, file));
    let socket = FileKind::Socket;
    check(wait(202, 0, 1, 0), of(Some(202), WaitKind::Blocked, WaitState::Interruptible, FileKind::Unknown));
    check(wait(0, 0, 1, 12), of(Some(0), WaitKind::Blocked, WaitState::Interruptible, socket));
    check(wait(-1, 1, 0, 0), of(None, WaitKind::RunQueue, WaitState::Preempted, FileKind::Unknown));
    check(wait(-1, 2, 4, 0), of(None, WaitKind::OnCpu, WaitState::New, FileKind::Unknown));
    check(wait(0, 3, 0, 0), Err(("kind", 3)));
    check(wait(0, 0, 5, 0), Err(("state", 5)));
    check(wait(0, 0, 0, 3), Err(("file", 3)));
    let mut cut = wait(0, 0, 0, 0);
    cut.0.pop();
    assert!(matches!(decode(&cut.0), Err(DecodeError::Truncated { kind: 11, .. })));
}
