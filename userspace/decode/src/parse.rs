//! Bytes of one ring record to an [`Event`].

use std::mem::offset_of;

use descry_abi::event::{
    EventKind, Lifecycle as RawLifecycle, MAX_REGISTERS, RequestWait as RawRequestWait, SAMPLE_HAS_COPY,
    SAMPLE_IN_KERNEL, SAMPLE_KERNEL_THREAD, SampleHeader, StackCopyHeader, UnwindEnd, Wait as RawWait,
};
use descry_abi::function::{FunctionArguments, FunctionCall, MAX_ARGUMENT_TEXT, MAX_ARGUMENTS};
use descry_abi::limits::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES, STACK_COPY_BYTES};
use descry_abi::net as net_abi;
use descry_abi::offcpu::{FileKind, NO_STACK, WaitKey, WaitKind, WaitState};
use descry_abi::syscall::{PATH_BYTES, SlowCall as RawSlowCall};
use descry_abi::tcp::ConnectFailed;
use descry_abi::template::Exchange;

use crate::event::{
    Argument, Arguments, Call, Event, Lifecycle, RequestWait, Sample, SlowCall, StackCopy, Wait, WaitOf,
};
use crate::ids::{
    BootNanos, CgroupId, Comm, Cpu, FunctionNumber, RequestId, RuntimeAddress, StackId, SyscallNumber, Tgid,
    Tid, UnitId,
};
use crate::net;

/// Why a record is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends before its fields do.
    #[error("a record of kind {kind} needs {needed} bytes and has {len}")]
    Truncated {
        /// The record's kind, 0 where even that is missing.
        kind: u16,
        /// Bytes that its own lengths ask for.
        needed: usize,
        /// Bytes that it has.
        len: usize,
    },
    /// No event has this number.
    #[error("no event has kind {kind}")]
    UnknownKind {
        /// The number.
        kind: u16,
    },
    /// A number is outside what the kernel side can write.
    #[error("a record of kind {kind} says {field} = {value}")]
    OutOfRange {
        /// The record's kind.
        kind: u16,
        /// The field.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

/// A reader of native-endian fields, in order.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    kind: u16,
}

impl<'a> Fields<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let slice = self.slice(N)?;
        slice.try_into().map_err(|_| DecodeError::Truncated { kind: self.kind, needed: N, len: slice.len() })
    }

    pub(crate) fn slice(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.saturating_add(len);
        let slice = self.bytes.get(self.at..end).ok_or(DecodeError::Truncated {
            kind: self.kind,
            needed: end,
            len: self.bytes.len(),
        })?;
        self.at = end;
        Ok(slice)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take().map(u8::from_ne_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_ne_bytes)
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    fn addresses(&mut self, count: usize) -> Result<Vec<RuntimeAddress>, DecodeError> {
        let words = self.slice(count * 8)?.as_chunks::<8>().0;
        Ok(words.iter().map(|word| RuntimeAddress(u64::from_ne_bytes(*word))).collect())
    }

    pub(crate) fn bounded(
        &self,
        field: &'static str,
        value: usize,
        max: usize,
    ) -> Result<usize, DecodeError> {
        if value <= max {
            return Ok(value);
        }
        Err(DecodeError::OutOfRange { kind: self.kind, field, value: value as u64 })
    }
}

/// Decodes one record. Bytes after its last field (the ring pads to 8) are ignored.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let mut fields = Fields { bytes, at: 0, kind: 0 };
    let number = fields.u16()?;
    fields.kind = number;
    match EventKind::from_u16(number).ok_or(DecodeError::UnknownKind { kind: number })? {
        EventKind::Sample => sample(&mut fields).map(Event::Sample),
        EventKind::SlowCall => slow_call(fields).map(|call| Event::SlowCall(Box::new(call))),
        EventKind::StackCopy => stack_copy(fields).map(Event::StackCopy),
        EventKind::Exec => lifecycle(fields).map(Event::Exec),
        EventKind::Fork => lifecycle(fields).map(Event::Fork),
        EventKind::Exit => lifecycle(fields).map(Event::Exit),
        EventKind::Comm => lifecycle(fields).map(Event::Comm),
        EventKind::Stack => {
            let mut sample = sample(&mut fields)?;
            let id = StackId(std::mem::take(&mut sample.weight));
            Ok(Event::Stack(id, sample))
        }
        EventKind::Wait => wait(fields).map(Event::Wait),
        EventKind::RequestWait => request_wait(fields).map(Event::RequestWait),
        EventKind::ConnectionOpened => net::opened(fields).map(Event::Opened),
        EventKind::Message => net::message(fields).map(Event::Message),
        EventKind::Exchange => net::exchange(fields).map(Event::Exchange),
        EventKind::ConnectionClosed => net::closed(fields).map(Event::Closed),
        EventKind::ConnectFailed => net::connect_failed(fields).map(Event::ConnectFailed),
        EventKind::FunctionCall => call(fields).map(Event::Call),
        EventKind::FunctionArguments => arguments(fields).map(Event::Arguments),
    }
}

/// The [`Event::time`] of the event that a record is: what orders records before they are decoded.
///
/// # Errors
/// If the record is of no known kind, or too short to have a time.
pub fn time_of(bytes: &[u8]) -> Result<BootNanos, DecodeError> {
    let mut fields = Fields { bytes, at: 0, kind: 0 };
    let number = fields.u16()?;
    fields.kind = number;
    fields.at = match EventKind::from_u16(number).ok_or(DecodeError::UnknownKind { kind: number })? {
        EventKind::Sample | EventKind::SlowCall | EventKind::Stack => offset_of!(SampleHeader, time),
        EventKind::StackCopy => offset_of!(StackCopyHeader, time),
        EventKind::Exec | EventKind::Fork | EventKind::Exit | EventKind::Comm => {
            offset_of!(RawLifecycle, time)
        }
        EventKind::Wait => offset_of!(RawWait, time),
        EventKind::RequestWait => offset_of!(RawRequestWait, end),
        EventKind::ConnectionOpened => offset_of!(net_abi::Opened, time),
        EventKind::Message => offset_of!(net_abi::Message, time),
        EventKind::Exchange => offset_of!(Exchange, end),
        EventKind::ConnectionClosed => offset_of!(net_abi::Closed, time),
        EventKind::ConnectFailed => offset_of!(ConnectFailed, end),
        EventKind::FunctionCall => offset_of!(FunctionCall, end),
        EventKind::FunctionArguments => offset_of!(FunctionArguments, start),
    };
    fields.u64().map(BootNanos)
}

fn sample(fields: &mut Fields<'_>) -> Result<Sample, DecodeError> {
    let flags = fields.u16()?;
    let kernel_frames = fields.u16()?;
    let kernel_frames = fields.bounded("kernel_frames", kernel_frames.into(), MAX_KERNEL_FRAMES)?;
    let user_frames = fields.u16()?;
    let user_frames = fields.bounded("user_frames", user_frames.into(), MAX_USER_FRAMES)?;
    let time = BootNanos(fields.u64()?);
    let tgid = Tgid(fields.u32()?);
    let tid = Tid(fields.u32()?);
    let cpu = Cpu(fields.u32()?);
    let end = fields.u16()?;
    let end = UnwindEnd::from_u16(end).ok_or(DecodeError::OutOfRange {
        kind: fields.kind,
        field: "end",
        value: end.into(),
    })?;
    fields.u16()?;
    let sample = Sample {
        time,
        tgid,
        tid,
        cpu,
        end,
        cgroup: CgroupId(fields.u64()?),
        weight: fields.u64()?,
        unit: UnitId(fields.u64()?),
        request: RequestId(fields.u64()?),
        comm: Comm(fields.take()?),
        in_kernel: flags & SAMPLE_IN_KERNEL != 0,
        kernel_thread: flags & SAMPLE_KERNEL_THREAD != 0,
        has_copy: flags & SAMPLE_HAS_COPY != 0,
        kernel: Vec::new(),
        user: Vec::new(),
    };
    debug_assert_eq!(fields.at, size_of::<SampleHeader>());
    let kernel = fields.addresses(kernel_frames)?;
    let user = fields.addresses(user_frames)?;
    Ok(Sample { kernel, user, ..sample })
}

fn slow_call(mut fields: Fields<'_>) -> Result<SlowCall, DecodeError> {
    let sample = sample(&mut fields)?;
    let from = fields.at;
    let start = BootNanos(fields.u64()?);
    let result = fields.u64()? as i64;
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = fields.u64()?;
    }
    let number = SyscallNumber(fields.u32()?);
    let path_len = fields.u16()?;
    let path_len = fields.bounded("path_len", path_len.into(), PATH_BYTES)?;
    let has_arguments = fields.u16()? != 0;
    debug_assert_eq!(fields.at - from, size_of::<RawSlowCall>());
    let path = (path_len > 0).then(|| fields.slice(path_len).map(<[u8]>::to_vec)).transpose()?;
    Ok(SlowCall { sample, start, result, arguments: has_arguments.then_some(arguments), number, path })
}

fn stack_copy(mut fields: Fields<'_>) -> Result<StackCopy, DecodeError> {
    let registers_len = fields.u16()?;
    let registers_len = fields.bounded("registers_len", registers_len.into(), MAX_REGISTERS)?;
    let len = fields.u32()?;
    let len = fields.bounded("len", len as usize, STACK_COPY_BYTES)?;
    let time = BootNanos(fields.u64()?);
    let tgid = Tgid(fields.u32()?);
    let tid = Tid(fields.u32()?);
    let start = RuntimeAddress(fields.u64()?);
    let all = fields.slice(MAX_REGISTERS * 8)?.as_chunks::<8>().0;
    let registers = all[..registers_len].iter().map(|word| u64::from_ne_bytes(*word)).collect();
    debug_assert_eq!(fields.at, size_of::<StackCopyHeader>());
    let stack = fields.slice(len)?.to_vec();
    Ok(StackCopy { time, tgid, tid, registers, start, stack })
}

fn lifecycle(mut fields: Fields<'_>) -> Result<Lifecycle, DecodeError> {
    fields.u16()?;
    let tgid = Tgid(fields.u32()?);
    let tid = Tid(fields.u32()?);
    let other = fields.u32()?;
    let time = BootNanos(fields.u64()?);
    let comm = Comm(fields.take()?);
    debug_assert_eq!(fields.at, size_of::<RawLifecycle>());
    Ok(Lifecycle { time, tgid, tid, other, comm })
}

fn wait(mut fields: Fields<'_>) -> Result<Wait, DecodeError> {
    fields.take::<6>()?;
    let (time, duration) = (BootNanos(fields.u64()?), fields.u64()?);
    let of = wait_of(&wait_key(&mut fields)?)?;
    debug_assert_eq!(fields.at, size_of::<RawWait>());
    Ok(Wait { time, duration, of })
}

fn request_wait(mut fields: Fields<'_>) -> Result<RequestWait, DecodeError> {
    fields.take::<6>()?;
    let (start, runnable) = (BootNanos(fields.u64()?), BootNanos(fields.u64()?));
    let (end, request) = (BootNanos(fields.u64()?), RequestId(fields.u64()?));
    let of = wait_of(&wait_key(&mut fields)?)?;
    debug_assert_eq!(fields.at, size_of::<RawRequestWait>());
    Ok(RequestWait { start, runnable, end, request, of })
}

fn wait_key(fields: &mut Fields<'_>) -> Result<WaitKey, DecodeError> {
    Ok(WaitKey {
        stack: fields.u64()?,
        waker: fields.u64()?,
        tgid: fields.u32()?,
        tid: fields.u32()?,
        syscall: i32::from_ne_bytes(fields.take()?),
        kind: fields.u8()?,
        state: fields.u8()?,
        file: fields.u8()?,
        epoch: fields.u8()?,
    })
}

/// Reads the key of a sum of waits.
pub fn wait_of(key: &WaitKey) -> Result<WaitOf, DecodeError> {
    let out_of_range = |field, value: u8| DecodeError::OutOfRange {
        kind: EventKind::Wait as u16,
        field,
        value: value.into(),
    };
    let known = |id: u64| (id != NO_STACK).then_some(StackId(id));
    Ok(WaitOf {
        stack: known(key.stack),
        waker: known(key.waker),
        tgid: Tgid(key.tgid),
        tid: Tid(key.tid),
        syscall: u32::try_from(key.syscall).ok(),
        kind: WaitKind::from_u8(key.kind).ok_or(out_of_range("kind", key.kind))?,
        state: WaitState::from_u8(key.state).ok_or(out_of_range("state", key.state))?,
        file: FileKind::from_u8(key.file).ok_or(out_of_range("file", key.file))?,
    })
}

fn call(mut fields: Fields<'_>) -> Result<Call, DecodeError> {
    let call = Call {
        depth: fields.u16()?,
        function: FunctionNumber(fields.u32()?),
        start: BootNanos(fields.u64()?),
        end: BootNanos(fields.u64()?),
        parent: Some(BootNanos(fields.u64()?)).filter(|start| start.0 != 0),
        root: BootNanos(fields.u64()?),
        tgid: Tgid(fields.u32()?),
        tid: Tid(fields.u32()?),
        unit: UnitId(fields.u64()?),
        request: RequestId(fields.u64()?),
        comm: Comm(fields.take()?),
    };
    debug_assert_eq!(fields.at, size_of::<FunctionCall>());
    Ok(call)
}

fn arguments(mut fields: Fields<'_>) -> Result<Arguments, DecodeError> {
    let failed = fields.u16()?;
    let function = FunctionNumber(fields.u32()?);
    let start = BootNanos(fields.u64()?);
    let tgid = Tgid(fields.u32()?);
    let tid = Tid(fields.u32()?);
    let unit = UnitId(fields.u64()?);
    let words = fields.slice(MAX_ARGUMENTS * 8)?.as_chunks::<8>().0;
    let lengths: [u8; 8] = fields.take()?;
    let mut values = [const { None }; MAX_ARGUMENTS];
    for (index, (value, word)) in values.iter_mut().zip(words).enumerate() {
        let text = fields.slice(MAX_ARGUMENT_TEXT)?;
        let len = lengths.get(index).copied().unwrap_or_default().into();
        let len = fields.bounded("lengths", len, MAX_ARGUMENT_TEXT)?;
        if failed & 1 << index == 0 {
            *value = Some(Argument { word: u64::from_ne_bytes(*word), text: text[..len].to_vec() });
        }
    }
    debug_assert_eq!(fields.at, size_of::<FunctionArguments>());
    Ok(Arguments { function, start, tgid, tid, unit, values })
}
