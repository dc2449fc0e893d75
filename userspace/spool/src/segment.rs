//! One file of the spool: a mark, then records. Written at its end, read from its start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::record::{self, DONE, RECORD_HEADER, Read, Request, STATE_OFFSET};

/// What a segment begins with; the last byte is the version of the form.
pub(crate) const MARK: [u8; 8] = *b"descryQ\x01";

/// A file with what waits in it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub number: u64,
    path: PathBuf,
    file: File,
    /// Where the next record is read.
    position: u64,
    /// Where the next record is written; also its length, with what is damaged.
    pub length: u64,
    /// Requests that wait in it, and their items.
    pub requests: u64,
    pub items: u64,
    /// Whether the system refused something of it, so that nothing more is written to it.
    pub is_sealed: bool,
}

/// A record that was read and not done with.
#[derive(Debug)]
pub(crate) struct Place {
    pub offset: u64,
    pub length: u64,
    pub items: u64,
}

pub(crate) fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}.spool"))
}

/// The number in a segment's file name; other files may have names that are nearly such ones.
pub(crate) fn number_of(path: &Path) -> Option<u64> {
    if path.extension()? != "spool" {
        return None;
    }
    let number = u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()?;
    (path_of(path.parent()?, number) == path).then_some(number)
}

impl Segment {
    /// A new one. Its content is data of watched programs: only its owner may read it.
    pub fn create(directory: &Path, number: u64) -> io::Result<Self> {
        let path = path_of(directory, number);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        if let Err(error) = file.write_all_at(&MARK, 0) {
            drop(file);
            // What could not be begun is not left behind; if that fails too, it is an empty segment at the next start.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let start = MARK.len() as u64;
        Ok(Self {
            number,
            path,
            file,
            position: start,
            length: start,
            requests: 0,
            items: 0,
            is_sealed: false,
        })
    }

    /// Whether no record was ever written to it.
    pub fn is_bare(&self) -> bool {
        self.length <= MARK.len() as u64
    }

    /// One of an earlier run. What follows a damaged record cannot be found; whether there was one is also returned.
    pub fn open(path: &Path, number: u64) -> io::Result<(Self, bool)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        let start = MARK.len() as u64;
        let mut segment = Self {
            number,
            path: path.to_owned(),
            file,
            position: start,
            length: size,
            requests: 0,
            items: 0,
            // Nothing is written behind what an earlier run wrote.
            is_sealed: true,
        };
        let mut mark = [0; MARK.len()];
        if size < start || segment.file.read_exact_at(&mut mark, 0).is_err() || mark != MARK {
            segment.position = size;
            return Ok((segment, size > 0));
        }
        let mut offset = start;
        let is_damaged = loop {
            match segment.read(offset)? {
                Read::Record { request, length, done } => {
                    offset += length as u64;
                    if !done {
                        segment.requests += 1;
                        segment.items = segment.items.saturating_add(request.items);
                    }
                }
                Read::End => break false,
                Read::Damaged => break true,
            }
        };
        Ok((segment, is_damaged))
    }

    /// Writes a record; after a failure nothing of it is left.
    pub fn append(&mut self, record: &[u8], items: u64) -> io::Result<()> {
        if let Err(error) = self.file.write_all_at(record, self.length) {
            // What was written of it would be found damaged at the next start.
            if self.file.set_len(self.length).is_err() {
                self.is_sealed = true;
            }
            return Err(error);
        }
        self.length += record.len() as u64;
        self.requests += 1;
        self.items = self.items.saturating_add(items);
        Ok(())
    }

    /// The next record that waits. A damaged one ends the segment: what follows it cannot be found.
    pub fn next(&mut self) -> io::Result<Option<(Request, Place)>> {
        loop {
            let offset = self.position;
            match self.read(offset)? {
                Read::Record { request, length, done } => {
                    let length = length as u64;
                    if done {
                        self.position += length;
                        continue;
                    }
                    let place = Place { offset, length, items: request.items };
                    return Ok(Some((request, place)));
                }
                Read::End | Read::Damaged => return Ok(None),
            }
        }
    }

    /// The record is not wanted any more, also not by a later run.
    pub fn done(&mut self, place: &Place) -> io::Result<()> {
        self.position = place.offset + place.length;
        self.requests = self.requests.saturating_sub(1);
        self.items = self.items.saturating_sub(place.items);
        self.file.write_all_at(&[DONE], place.offset + STATE_OFFSET)
    }

    /// Brings what was written to the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Removes the file.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(self.path)
    }

    fn read(&self, offset: u64) -> io::Result<Read> {
        let left = self.length.saturating_sub(offset);
        if left == 0 {
            return Ok(Read::End);
        }
        let mut header = [0; RECORD_HEADER];
        if left < header.len() as u64 {
            return Ok(Read::Damaged);
        }
        self.file.read_exact_at(&mut header, offset)?;
        let Some(length) = record::payload_length(&header) else { return Ok(Read::Damaged) };
        if left < (header.len() + length) as u64 {
            return Ok(Read::Damaged);
        }
        let mut payload = vec![0; length];
        self.file.read_exact_at(&mut payload, offset + header.len() as u64)?;
        Ok(record::decode(&header, &payload))
    }
}
