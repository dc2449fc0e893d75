//! Records of connections from bytes, as the kernel side writes them.

use std::net::SocketAddr;

use descry_decode::ids::{BootNanos, ConnectionId, RequestId, TemplateId, Tgid, Tid, UnitId};
use descry_decode::{DecodeError, Event, KnownAnswer, KnownExchange, Role, Transport, time_of};

/// Decodes, and sees to it that the time is the same where that is asked for alone.
fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let event = descry_decode::decode(bytes)?;
    assert_eq!(time_of(bytes), Ok(event.time()));
    Ok(event)
}

fn opened(family: u16, socket_type: u16, role: u8, local: [u8; 16], remote: [u8; 16]) -> Vec<u8> {
    let mut record = Vec::new();
    record.extend([16u16, family, socket_type].map(u16::to_ne_bytes).concat());
    record.extend([role, 0]);
    record.extend(123u64.to_ne_bytes());
    record.extend([7u32, 8].map(u32::to_ne_bytes).concat());
    record.extend(99u64.to_ne_bytes());
    record.extend(local);
    record.extend(remote);
    record.extend([80u16, 40_000].map(u16::to_ne_bytes).concat());
    record.extend(0u32.to_ne_bytes());
    record
}

fn address(bytes: &[u8]) -> [u8; 16] {
    let mut address = [0; 16];
    address[..bytes.len()].copy_from_slice(bytes);
    address
}

/// (transport, local, remote) of a connection's first sight.
fn check(record: &[u8], transport: Transport, local: Option<&str>, remote: Option<&str>) {
    let Ok(Event::Opened(opened)) = decode(record) else { panic!("not a first sight: {:?}", decode(record)) };
    let parse = |text: Option<&str>| text.map(|text| text.parse::<SocketAddr>().expect("an address"));
    assert_eq!((opened.transport, opened.local, opened.remote), (transport, parse(local), parse(remote)));
    assert_eq!((opened.time, opened.tgid, opened.tid), (BootNanos(123), Tgid(7), Tid(8)));
    assert_eq!((opened.connection, opened.role), (ConnectionId(99), Role::Accepted));
}

#[test]
fn a_first_sight() {
    let (one, two) = (address(&[127, 0, 0, 1]), address(&[10, 1, 2, 3]));
    check(&opened(2, 1, 1, one, two), Transport::Tcp, Some("127.0.0.1:80"), Some("10.1.2.3:40000"));
    check(&opened(2, 2, 1, one, two), Transport::Udp, Some("127.0.0.1:80"), Some("10.1.2.3:40000"));
    check(&opened(1, 1, 1, one, two), Transport::Unix, None, None);
    check(&opened(16, 3, 1, one, two), Transport::Other, None, None);
    let mut mapped = [0; 16];
    mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 1, 2, 3]);
    let six = address(&[0x20, 1, 0xd, 0xb8]);
    check(&opened(10, 1, 1, six, mapped), Transport::Tcp, Some("[2001:db8::]:80"), Some("10.1.2.3:40000"));
}

#[test]
fn a_message() {
    let mut record = Vec::new();
    record.extend([17u16, 1].map(u16::to_ne_bytes).concat());
    record.extend(5u32.to_ne_bytes());
    record.extend(123u64.to_ne_bytes());
    record.extend([7u32, 8].map(u32::to_ne_bytes).concat());
    record.extend([99u64, 4096, 10_000, 8, 1 << 48 | 1].map(u64::to_ne_bytes).concat());
    record.extend(b"GET /\0\0\0");
    let Ok(Event::Message(message)) = decode(&record) else { panic!("not a message") };
    assert_eq!((message.time, message.tgid, message.tid), (BootNanos(123), Tgid(7), Tid(8)));
    assert_eq!((message.connection, message.offset, message.len), (ConnectionId(99), 4096, 10_000));
    assert_eq!((message.unit, message.request), (UnitId(8), RequestId(1 << 48 | 1)));
    assert!(message.sent);
    assert_eq!(message.bytes, b"GET /");

    record[4..8].copy_from_slice(&4097u32.to_ne_bytes());
    let error = decode(&record).expect_err("no message").to_string();
    assert_eq!(error, "a record of kind 17 says captured = 4097");
}

#[test]
fn an_end() {
    let mut record = [18u16, 0, 0, 0].map(u16::to_ne_bytes).concat();
    record.extend([123u64, 99].map(u64::to_ne_bytes).concat());
    let Ok(Event::Closed(closed)) = decode(&record) else { panic!("not an end") };
    assert_eq!((closed.time, closed.connection), (BootNanos(123), ConnectionId(99)));
}

#[test]
fn an_exchange_that_is_known() {
    let mut record = Vec::new();
    record.extend([19u16, 1].map(u16::to_ne_bytes).concat());
    record.extend([5u32, 6, 240].map(u32::to_ne_bytes).concat());
    record.extend([100u64, 123].map(u64::to_ne_bytes).concat());
    record.extend([7u32, 8].map(u32::to_ne_bytes).concat());
    record.extend([99u64, 40, 4096, 8, 1 << 63 | 3].map(u64::to_ne_bytes).concat());
    let Ok(Event::Exchange(exchange)) = decode(&record) else { panic!("not an exchange") };
    let answer = KnownAnswer { template: TemplateId(6), offset: 4096, len: 240 };
    let expected = KnownExchange {
        connection: ConnectionId(99),
        is_client: true,
        template: TemplateId(5),
        start: BootNanos(100),
        end: BootNanos(123),
        tgid: Tgid(7),
        tid: Tid(8),
        offset: 40,
        answer: Some(answer),
        unit: UnitId(8),
        request: RequestId(1 << 63 | 3),
    };
    assert_eq!(exchange, expected);
    // Its answer comes in full.
    record[8..12].copy_from_slice(&0u32.to_ne_bytes());
    assert_eq!(decode(&record), Ok(Event::Exchange(KnownExchange { answer: None, ..expected })));
    assert!(matches!(decode(&record[..79]), Err(DecodeError::Truncated { kind: 19, .. })));
}
