//! A message of DNS (RFC 1035, section 4), as far as it is there.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of a message's header.
pub(super) const HEADER: usize = 12;
/// The response code "server failure".
pub(super) const SERVFAIL: u16 = 2;
/// Addresses of an answer that are told.
const MAX_ADDRESSES: usize = 64;
/// Bytes of a name in a message (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 255;
/// The most jumps that a name of this length can have; more go in a circle.
const MAX_JUMPS: usize = 128;
/// Types of records.
const A: u16 = 1;
const AAAA: u16 = 28;
const OPT: u16 = 41;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// As it stands in the message; what is not printable is `\DDD`.
    pub name: Box<str>,
    kind: u16,
    class: u16,
}

impl Question {
    /// Whether an answer to one is an answer to the other (RFC 4343: letters count without their case).
    pub fn is_same(&self, other: &Self) -> bool {
        (self.kind, self.class) == (other.kind, other.class) && self.name.eq_ignore_ascii_case(&other.name)
    }

    /// The type's name (IANA, "Resource Record (RR) TYPEs"); others by RFC 3597, section 5.
    pub fn kind_name(&self) -> Cow<'static, str> {
        let name = match self.kind {
            A => "A",
            2 => "NS",
            5 => "CNAME",
            6 => "SOA",
            12 => "PTR",
            13 => "HINFO",
            15 => "MX",
            16 => "TXT",
            AAAA => "AAAA",
            33 => "SRV",
            35 => "NAPTR",
            39 => "DNAME",
            43 => "DS",
            46 => "RRSIG",
            47 => "NSEC",
            48 => "DNSKEY",
            50 => "NSEC3",
            52 => "TLSA",
            64 => "SVCB",
            65 => "HTTPS",
            251 => "IXFR",
            252 => "AXFR",
            255 => "ANY",
            257 => "CAA",
            kind => return Cow::Owned(format!("TYPE{kind}")),
        };
        Cow::Borrowed(name)
    }
}

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub id: u16,
    pub is_answer: bool,
    pub opcode: u8,
    /// The first question; none: there is none, or it was not captured.
    pub question: Option<Question>,
    /// Response code, with the bits that EDNS adds; none: the message is not whole.
    pub code: Option<u16>,
    /// Addresses of the answer; none if not all could be read.
    pub addresses: Box<[Box<str>]>,
}

impl Packet {
    /// Reads a message. None: it is none. `whole`: nothing is missing at its end.
    pub fn read(bytes: &[u8], whole: bool) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let (id, flags) = (reader.u16()?, reader.u16()?);
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        let [questions, answers, authorities, additional] = counts;
        let opcode = (flags >> 11 & 0xf) as u8;
        // No other operations are defined (IANA, "DNS OpCodes"), and nobody asks several questions at once.
        if opcode > 6 || questions > 4 {
            return None;
        }
        let mut first = None;
        let mut is_complete = true;
        for _ in 0..questions {
            match reader.question() {
                Some(question) => drop(first.get_or_insert(question)),
                None => is_complete = false,
            }
        }
        if !is_complete && whole {
            return None;
        }
        let mut records = Records::default();
        let count = u32::from(answers) + u32::from(authorities) + u32::from(additional);
        for index in 0..count {
            if !is_complete || reader.record(index < u32::from(answers), &mut records).is_none() {
                is_complete = false;
                break;
            }
        }
        let code = (flags & 0xf) | records.extended_code << 4;
        Some(Self {
            id,
            is_answer: flags >> 15 != 0,
            opcode,
            question: first,
            code: (is_complete && whole).then_some(code),
            addresses: if is_complete { records.addresses.into() } else { Box::default() },
        })
    }
}

/// What records tell.
#[derive(Debug, Default)]
struct Records {
    addresses: Vec<Box<str>>,
    extended_code: u16,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u16(&mut self) -> Option<u16> {
        let value = self.bytes.get(self.at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))?;
        self.at += 2;
        Some(value)
    }

    fn question(&mut self) -> Option<Question> {
        let name = self.name()?;
        Some(Question { name, kind: self.u16()?, class: self.u16()? })
    }

    fn record(&mut self, is_answer: bool, records: &mut Records) -> Option<()> {
        self.skip_name()?;
        let (kind, _, ttl, _) = (self.u16()?, self.u16()?, self.u16()?, self.u16()?);
        let length = usize::from(self.u16()?);
        let data = self.bytes.get(self.at..)?.get(..length)?;
        self.at += length;
        let address = match (kind, data.len()) {
            (A, 4) => data.first_chunk().map(|it: &[u8; 4]| Ipv4Addr::from(*it).to_string()),
            (AAAA, 16) => data.first_chunk().map(|it: &[u8; 16]| Ipv6Addr::from(*it).to_string()),
            // The upper bits of the response code stand where others have their time to live (RFC 6891, 6.1.3).
            (OPT, _) => {
                records.extended_code = ttl >> 8;
                None
            }
            _ => None,
        };
        if let Some(address) = address.filter(|_| is_answer && records.addresses.len() < MAX_ADDRESSES) {
            records.addresses.push(address.into());
        }
        Some(())
    }

    /// Steps over a name.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            let length = *self.bytes.get(self.at)?;
            match length {
                0 => {
                    self.at += 1;
                    return Some(());
                }
                1..=63 => self.at += 1 + usize::from(length),
                0xc0.. => {
                    self.at += 2;
                    return (self.at <= self.bytes.len()).then_some(());
                }
                _ => return None,
            }
        }
    }

    /// Reads a name, also one that goes on elsewhere (section 4.1.4).
    fn name(&mut self) -> Option<Box<str>> {
        let mut at = self.at;
        self.skip_name()?;
        let (mut name, mut length, mut jumps) = (String::new(), 0, 0);
        loop {
            let label = *self.bytes.get(at)?;
            match label {
                0 if name.is_empty() => return Some(".".into()),
                0 => return Some(name.into()),
                1..=63 => {
                    let text = self.bytes.get(at + 1..)?.get(..usize::from(label))?;
                    length += text.len() + 1;
                    if length > MAX_NAME {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    text.iter().for_each(|byte| escape(*byte, &mut name));
                    at += 1 + usize::from(label);
                }
                0xc0.. => {
                    jumps += 1;
                    if jumps > MAX_JUMPS {
                        return None;
                    }
                    at = usize::from(u16::from_be_bytes([label & 0x3f, *self.bytes.get(at + 1)?]));
                }
                _ => return None,
            }
        }
    }
}

/// As the semantic conventions write `dns.question.name`.
fn escape(byte: u8, name: &mut String) {
    match byte {
        b'\t' => name.push_str("\\t"),
        b'\r' => name.push_str("\\r"),
        b'\n' => name.push_str("\\n"),
        b'\\' | b'"' | b'\'' => {
            name.push('\\');
            name.push(char::from(byte));
        }
        b'.' => name.push_str("\\."),
        32..=126 => name.push(char::from(byte)),
        _ => name.push_str(&format!("\\{byte:03}")),
    }
}

/// The name of a response code (IANA, "DNS RCODEs").
pub(super) fn code_name(code: u16) -> &'static str {
    match code {
        0 => "NOERROR",
        1 => "FORMERR",
        SERVFAIL => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        11 => "DSOTYPENI",
        16 => "BADVERS",
        17 => "BADKEY",
        18 => "BADTIME",
        19 => "BADMODE",
        20 => "BADNAME",
        21 => "BADALG",
        22 => "BADTRUNC",
        23 => "BADCOOKIE",
        _ => "_OTHER",
    }
}

/// The name of a span of an operation that is no query (IANA, "DNS OpCodes").
pub(super) fn opcode_name(opcode: u8) -> Option<&'static str> {
    match opcode {
        0 => None,
        2 => Some("DNS STATUS"),
        4 => Some("DNS NOTIFY"),
        5 => Some("DNS UPDATE"),
        6 => Some("DNS DSO"),
        _ => Some("DNS"),
    }
}
