//! Records of the ring in the order of their times.
//!
//! Each CPU writes in order; together they are a little out of it. The bytes of all that is in the ring are copied to
//! one buffer, and what is sorted are their places: an event is made of a record when its turn comes, and is gone before the
//! next one is.

use descry_decode::ids::BootNanos;
use descry_decode::{DecodeError, Event, decode, time_of};

/// Bytes of the buffer that are kept for the next time.
const KEPT: usize = 2 << 20;

/// Records of one turn.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    time: BootNanos,
    start: usize,
    len: usize,
}

impl Records {
    /// Adds one.
    ///
    /// # Errors
    /// If it has no time: it is no event.
    pub fn push(&mut self, record: &[u8]) -> Result<(), DecodeError> {
        let place = Place { time: time_of(record)?, start: self.bytes.len(), len: record.len() };
        self.bytes.extend_from_slice(record);
        self.places.push(place);
        Ok(())
    }

    /// Bytes of all.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Each with its time, by that; those of one time as they came: a copy comes before its sample.
    pub fn events(&mut self) -> impl Iterator<Item = (BootNanos, Result<Event, DecodeError>)> {
        self.places.sort_by_key(|place| place.time);
        let record = |place: &Place| self.bytes.get(place.start..place.start + place.len).unwrap_or_default();
        self.places.iter().map(move |place| (place.time, decode(record(place))))
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.places.clear();
        self.places.shrink_to(KEPT / size_of::<Place>());
    }
}

#[cfg(test)]
mod tests {
    use descry_abi::event::EventKind;
    use descry_abi::net;

    use super::*;

    fn closed(time: u64, connection: u64) -> Vec<u8> {
        let mut record = vec![0; size_of::<net::Closed>()];
        record[..2].copy_from_slice(&(EventKind::ConnectionClosed as u16).to_ne_bytes());
        record[8..16].copy_from_slice(&time.to_ne_bytes());
        record[16..24].copy_from_slice(&connection.to_ne_bytes());
        record
    }

    fn connections(records: &mut Records) -> Vec<u64> {
        let connection = |event| match event {
            (_, Ok(Event::Closed(closed))) => closed.connection.0,
            other => panic!("{other:?}"),
        };
        records.events().map(connection).collect()
    }

    #[test]
    fn events_come_by_their_times_and_those_of_one_time_as_they_came() {
        let mut records = Records::default();
        for (time, connection) in [(5, 1), (7, 2), (3, 3), (7, 4), (5, 5)] {
            records.push(&closed(time, connection)).unwrap();
        }
        assert_eq!(records.bytes(), 5 * size_of::<net::Closed>());
        assert_eq!(connections(&mut records), [3, 1, 5, 2, 4]);
        records.clear();
        records.push(&closed(1, 6)).unwrap();
        assert_eq!(connections(&mut records), [6]);
    }

    #[test]
    fn what_has_no_time_is_refused() {
        let mut records = Records::default();
        assert!(records.push(&[0xff; 64]).is_err());
        assert!(records.push(&closed(1, 1)[..12]).is_err());
        assert_eq!(records.events().count(), 0);
    }
}
