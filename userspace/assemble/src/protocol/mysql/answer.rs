//! Where the answer to a command ends ("Text Resultset", "COM_STMT_PREPARE Response", "LOCAL INFILE").
//!
//! Nothing here needs the capabilities that both sides agreed on at a login that nobody may have seen: an EOF packet
//! has five bytes, the OK packet that stands for it has at least seven.

use super::packet::{lenenc, u16_at};

/// More result sets follow (`SERVER_MORE_RESULTS_EXISTS`).
const MORE_RESULTS: u16 = 1 << 3;
/// The rows stay in a cursor (`SERVER_STATUS_CURSOR_EXISTS`).
const CURSOR: u16 = 1 << 6;
/// No row begins with this byte, but for one with a field of 16 MiB.
const EOF: u8 = 0xfe;
const ERR: u8 = 0xff;
const OK: u8 = 0;
const LOCAL_INFILE: u8 = 0xfb;

/// What shape an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Result sets, or OK.
    Results,
    /// Rows at once, from a cursor.
    Rows,
    /// OK or an error.
    Simple,
    /// One packet of whatever kind.
    Packet,
    /// Definitions up to an EOF.
    Definitions,
    /// A statement's id and two lists of definitions.
    Prepared,
    /// Packets of a login, to and fro, up to OK.
    Login,
}

/// Where an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    /// Column definitions that are still to come.
    Columns(u64),
    /// Behind them: rows, or an EOF before those.
    AfterColumns,
    Rows,
    /// Lists of a prepared statement: definitions to come of this one and of the next.
    Lists(u64, u64),
    /// Behind one list comes an EOF, or the next.
    AfterList(u64),
}

/// An answer that is not complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    shape: Shape,
    place: Place,
}

/// What a packet did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more to come.
    More,
    /// The server asks for a file.
    Infile,
    /// The answer is complete; the server's status, if it told.
    Done(Option<u16>),
    /// The answer is complete with the packet before: this one belongs to the next.
    DoneBefore,
    /// The statement has this id; there is more to come or not.
    Prepared { id: u32, done: bool },
    /// The command failed with this code.
    Failed(Option<u16>),
}

impl Answer {
    pub fn new(shape: Shape) -> Self {
        Self { shape, place: if shape == Shape::Rows { Place::Rows } else { Place::First } }
    }

    /// Whether only an EOF that may or may not come is missing.
    pub fn is_almost_done(&self) -> bool {
        self.place == Place::AfterList(0)
    }

    /// Takes a packet. `number`: the packet's, which begins anew with each answer.
    pub fn packet(&mut self, payload: &[u8], length: u64, number: u8) -> Step {
        let first = payload.first().copied();
        let is_eof = first == Some(EOF) && length < 9;
        match (self.place, first) {
            (Place::AfterList(0), _) if !is_eof || number <= 1 => Step::DoneBefore,
            (Place::First, _) if self.shape == Shape::Packet && first != Some(ERR) => Step::Done(None),
            (_, Some(ERR)) if !matches!(self.place, Place::Columns(_) | Place::Lists(..)) => {
                Step::Failed(u16_at(payload, 1))
            }
            (Place::First, first) => self.first(first, payload, length),
            (Place::Columns(left), _) => {
                self.place = if left <= 1 { Place::AfterColumns } else { Place::Columns(left - 1) };
                Step::More
            }
            (Place::AfterColumns, _) if is_eof => {
                let status = eof_status(payload, length);
                if length > 5 || status.is_some_and(|status| status & CURSOR != 0) {
                    return self.result_done(status);
                }
                self.place = Place::Rows;
                Step::More
            }
            (Place::AfterColumns | Place::Rows, _) if first == Some(EOF) && length < super::packet::FULL => {
                self.result_done(eof_status(payload, length))
            }
            (Place::AfterColumns | Place::Rows, _) => {
                self.place = Place::Rows;
                Step::More
            }
            (Place::AfterList(0), _) => Step::Done(None),
            (Place::AfterList(next), _) if is_eof => {
                self.place = Place::Lists(next, 0);
                Step::More
            }
            // No EOF stands between the lists: this is the next one's first definition.
            (Place::AfterList(next), _) => {
                self.place = if next <= 1 { Place::AfterList(0) } else { Place::Lists(next - 1, 0) };
                Step::More
            }
            (Place::Lists(left, next), _) => {
                self.place = if left <= 1 { Place::AfterList(next) } else { Place::Lists(left - 1, next) };
                Step::More
            }
        }
    }

    fn first(&mut self, first: Option<u8>, payload: &[u8], length: u64) -> Step {
        match (self.shape, first) {
            (Shape::Prepared, Some(OK)) => self.prepared(payload),
            (Shape::Definitions, Some(EOF)) if length < 9 => Step::Done(eof_status(payload, length)),
            (Shape::Definitions, _) => Step::More,
            // A login goes on with other packets until OK.
            (Shape::Login, Some(OK)) => Step::Done(ok_status(payload)),
            (Shape::Login, _) => Step::More,
            (_, Some(OK)) => self.result_done(ok_status(payload)),
            (Shape::Results, Some(LOCAL_INFILE)) => Step::Infile,
            (Shape::Results, _) => match lenenc(payload) {
                Some((columns, rest)) if columns > 0 => {
                    // MariaDB tells so if it leaves out definitions that the client knows.
                    self.place = if rest == [0] { Place::AfterColumns } else { Place::Columns(columns) };
                    Step::More
                }
                _ => Step::Done(None),
            },
            _ => Step::Done(eof_status(payload, length)),
        }
    }

    fn prepared(&mut self, payload: &[u8]) -> Step {
        let (id, columns, parameters) =
            (super::packet::u32_at(payload, 1), u16_at(payload, 5), u16_at(payload, 7));
        let (Some(id), Some(columns), Some(parameters)) = (id, columns, parameters) else {
            return Step::Done(None);
        };
        let (columns, parameters) = (u64::from(columns), u64::from(parameters));
        self.place = match (parameters, columns) {
            (0, 0) => return Step::Prepared { id, done: true },
            (0, columns) => Place::Lists(columns, 0),
            (parameters, columns) => Place::Lists(parameters, columns),
        };
        Step::Prepared { id, done: false }
    }

    fn result_done(&mut self, status: Option<u16>) -> Step {
        if status.is_some_and(|status| status & MORE_RESULTS != 0) {
            self.place = Place::First;
            return Step::More;
        }
        Step::Done(status)
    }
}

/// The status in an EOF packet (kind, warnings, status) or in the OK packet that stands for it.
fn eof_status(payload: &[u8], length: u64) -> Option<u16> {
    if length > 5 { ok_status(payload) } else { u16_at(payload, 3) }
}

/// The status in an OK packet: kind, rows, last id, status.
fn ok_status(payload: &[u8]) -> Option<u16> {
    let (_, rest) = lenenc(payload.get(1..)?)?;
    let (_, rest) = lenenc(rest)?;
    u16_at(rest, 0)
}
