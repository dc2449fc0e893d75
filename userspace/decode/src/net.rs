//! Records of connections and messages.

use descry_abi::event::EventKind;
use descry_abi::net::{
    self, Closer, MAX_CAPTURE, MESSAGE_BEHIND_UNTOLD, MESSAGE_FROM_START, MESSAGE_PLAINTEXT, MESSAGE_SENT,
    Role,
};
use descry_abi::{tcp, template};

use crate::event::{
    Closed, ConnectFailed, KnownAnswer, KnownExchange, Message, Opened, Plaintext, Transport, address,
};
use crate::ids::{BootNanos, ConnectionId, RequestId, TemplateId, Tgid, Tid, UnitId};
use crate::parse::{DecodeError, Fields};

/// `AF_UNIX` (linux/socket.h); `SOCK_STREAM` and `SOCK_DGRAM` (linux/net.h).
const AF_UNIX: u16 = 1;
const SOCK_STREAM: u16 = 1;
const SOCK_DGRAM: u16 = 2;

pub(crate) fn opened(mut fields: Fields<'_>) -> Result<Opened, DecodeError> {
    let (family, socket_type) = (fields.u16()?, fields.u16()?);
    let [role, from_start] = fields.take()?;
    let role = Role::from_u8(role).ok_or(DecodeError::OutOfRange {
        kind: EventKind::ConnectionOpened as u16,
        field: "role",
        value: role.into(),
    })?;
    let time = BootNanos(fields.u64()?);
    let (tgid, tid) = (Tgid(fields.u32()?), Tid(fields.u32()?));
    let connection = ConnectionId(fields.u64()?);
    let (local, remote) = (fields.take()?, fields.take()?);
    let (local_port, remote_port) = (fields.u16()?, fields.u16()?);
    fields.u32()?;
    debug_assert_eq!(fields.position(), size_of::<net::Opened>());
    let (local, remote) = (address(family, local, local_port), address(family, remote, remote_port));
    let transport = match (local.is_some(), family, socket_type) {
        (true, _, SOCK_STREAM) => Transport::Tcp,
        (true, _, SOCK_DGRAM) => Transport::Udp,
        (false, AF_UNIX, SOCK_STREAM) => Transport::Unix,
        _ => Transport::Other,
    };
    let from_start = from_start == 1;
    Ok(Opened { time, tgid, tid, connection, transport, role, from_start, local, remote })
}

pub(crate) fn message(mut fields: Fields<'_>) -> Result<Message, DecodeError> {
    let flags = fields.u16()?;
    let captured = fields.u32()?;
    let captured = fields.bounded("captured", captured as usize, MAX_CAPTURE)?;
    let message = Message {
        time: BootNanos(fields.u64()?),
        tgid: Tgid(fields.u32()?),
        tid: Tid(fields.u32()?),
        connection: ConnectionId(fields.u64()?),
        sent: flags & MESSAGE_SENT != 0,
        is_behind_untold: flags & MESSAGE_BEHIND_UNTOLD != 0,
        offset: fields.u64()?,
        len: fields.u64()?,
        bytes: Vec::new(),
        unit: UnitId(fields.u64()?),
        request: RequestId(fields.u64()?),
        plaintext: (flags & MESSAGE_PLAINTEXT != 0)
            .then_some(Plaintext { from_start: flags & MESSAGE_FROM_START != 0 }),
    };
    debug_assert_eq!(fields.position(), size_of::<net::Message>());
    let bytes = fields.slice(captured)?.to_vec();
    Ok(Message { bytes, ..message })
}

pub(crate) fn exchange(mut fields: Fields<'_>) -> Result<KnownExchange, DecodeError> {
    let is_client = fields.u16()? == 1;
    let template = TemplateId(fields.u32()?);
    let (answer, answer_len) = (fields.u32()?, fields.u32()?);
    let (start, end) = (BootNanos(fields.u64()?), BootNanos(fields.u64()?));
    let (tgid, tid) = (Tgid(fields.u32()?), Tid(fields.u32()?));
    let connection = ConnectionId(fields.u64()?);
    let (offset, answer_offset) = (fields.u64()?, fields.u64()?);
    let (unit, request) = (UnitId(fields.u64()?), RequestId(fields.u64()?));
    debug_assert_eq!(fields.position(), size_of::<template::Exchange>());
    let answer = (answer != 0).then_some(KnownAnswer {
        template: TemplateId(answer),
        offset: answer_offset,
        len: answer_len.into(),
    });
    Ok(KnownExchange {
        connection,
        is_client,
        template,
        start,
        end,
        tgid,
        tid,
        offset,
        answer,
        unit,
        request,
    })
}

pub(crate) fn closed(mut fields: Fields<'_>) -> Result<Closed, DecodeError> {
    let [by, ..]: [u8; 6] = fields.take()?;
    let by = Closer::from_u8(by).ok_or(DecodeError::OutOfRange {
        kind: EventKind::ConnectionClosed as u16,
        field: "by",
        value: by.into(),
    })?;
    let (time, connection) = (BootNanos(fields.u64()?), ConnectionId(fields.u64()?));
    debug_assert_eq!(fields.position(), size_of::<net::Closed>());
    Ok(Closed { time, connection, by })
}

pub(crate) fn connect_failed(mut fields: Fields<'_>) -> Result<ConnectFailed, DecodeError> {
    let (family, error, remote_port) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let (start, end) = (BootNanos(fields.u64()?), BootNanos(fields.u64()?));
    let (tgid, tid) = (Tgid(fields.u32()?), Tid(fields.u32()?));
    let (request, unit) = (RequestId(fields.u64()?), UnitId(fields.u64()?));
    let remote = address(family, fields.take()?, remote_port).ok_or(DecodeError::OutOfRange {
        kind: EventKind::ConnectFailed as u16,
        field: "family",
        value: family.into(),
    })?;
    debug_assert_eq!(fields.position(), size_of::<tcp::ConnectFailed>());
    let error = (error != 0).then_some(error.into());
    Ok(ConnectFailed { start, end, tgid, tid, unit, request, remote, error })
}
