//! Requests on disk: what could not be sent waits there, over the end of descry too.
//!
//! You give requests to [`Spool::append`] and take the oldest with [`Spool::next`]; it waits until [`Spool::done`]. The
//! directory holds segments, files of records with lengths and checksums. It never holds more than it may: the oldest
//! segment goes first, and what was in it is returned as [`Lost`].
//!
//! What survives: a record that was appended is there after descry is killed. After a loss of power those of closed
//! segments are there, and of the open one those that [`Spool::sync`] was called after. A record that was sent but not
//! yet marked is sent again after a kill; that is at most one.

#![forbid(unsafe_code)]

mod record;
mod segment;
mod signal;

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

pub use record::{Request, SIGNALS};
use segment::{MARK, Place, Segment};
pub use signal::Signal;

/// Bytes after which a segment is closed: a small part of the whole goes at a time.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Segments of earlier runs at most; a directory with more is none of descry's.
const MAX_SEGMENTS: usize = 1 << 16;

/// A spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The system refuses something.
    #[error("cannot use the spool {path}: {source}; give a directory that descry may write", path = path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// Another descry has it.
    #[error("the spool {path} is in use by another process; give each its own", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// What was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Items in requests that were dropped for newer ones.
    pub items: u64,
}

/// Why a request was not appended. It is lost.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// It is larger than the spool, or than any receiver takes.
    #[error("the request is too large for the spool")]
    TooLarge,
    /// The disk is full or broken.
    #[error("cannot write to the spool: {source}")]
    Io {
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// What an earlier run left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Requests that wait.
    pub requests: u64,
    /// Their items.
    pub items: u64,
    /// Segments that end in a record that was not wholly written, or that somebody has changed; what was lost in them is
    /// not known.
    pub damaged: u64,
}

/// The open directory.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    limit: u64,
    /// Oldest first; the last may be written to.
    segments: VecDeque<Segment>,
    /// The record that [`Spool::next`] gave last.
    given: Option<Given>,
    next_number: u64,
    _lock: Flock<File>,
}

/// A record that somebody tries to send.
#[derive(Debug)]
struct Given {
    segment: u64,
    place: Place,
}

impl Spool {
    /// Opens the directory, which is made when it is not there, for `limit` bytes at most.
    ///
    /// # Errors
    /// If it cannot be used, or another process uses it.
    pub fn open(directory: &Path, limit: u64) -> Result<(Self, Restored), SpoolError> {
        let failed = |source| SpoolError::Io { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let lock = directory.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock);
        let lock =
            Flock::lock(lock.map_err(failed)?, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
                match error {
                    nix::errno::Errno::EWOULDBLOCK => SpoolError::InUse { path: directory.to_owned() },
                    other => failed(other.into()),
                }
            })?;
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed)?.take(MAX_SEGMENTS) {
            numbers.extend(segment::number_of(&entry.map_err(failed)?.path()));
        }
        numbers.sort_unstable();
        let next_number = numbers.last().map_or(0, |last| last.saturating_add(1));
        let mut spool = Self {
            directory: directory.to_owned(),
            limit,
            segments: VecDeque::new(),
            given: None,
            next_number,
            _lock: lock,
        };
        let mut restored = Restored::default();
        for number in numbers {
            let path = segment::path_of(directory, number);
            let (segment, is_damaged) = Segment::open(&path, number).map_err(failed)?;
            restored.requests += segment.requests;
            restored.items = restored.items.saturating_add(segment.items);
            restored.damaged += u64::from(is_damaged);
            spool.segments.push_back(segment);
        }
        spool.remove_read();
        Ok((spool, restored))
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.iter().all(|segment| segment.requests == 0)
    }

    /// Items that wait, the given record's too unless its segment was dropped.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.segments.iter().map(|segment| segment.items).sum()
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Writes a request behind the others. What had to go for it is added to `lost`.
    ///
    /// # Errors
    /// If it could not be written; then it is lost.
    pub fn append(&mut self, request: &Request, lost: &mut Lost) -> Result<(), AppendError> {
        let record = record::encode(request).ok_or(AppendError::TooLarge)?;
        // A quarter, so that at least that much is kept when the oldest goes.
        if record.len() as u64 > self.limit / 4 {
            return Err(AppendError::TooLarge);
        }
        // It may begin a segment.
        let needed = (record.len() + MARK.len()) as u64;
        while self.bytes() + needed > self.limit {
            if !self.drop_oldest(lost) {
                break;
            }
        }
        loop {
            match self.write(&record, request.items) {
                Ok(()) => return Ok(()),
                // A full disk: the oldest goes for the newest, here too. A segment that was begun for this record and holds
                // nothing makes no room.
                Err(error) if is_full(&error) && !self.is_bare() && self.drop_oldest(lost) => {}
                Err(source) => return Err(AppendError::Io { source }),
            }
        }
    }

    /// Whether all that is there is the beginning of a segment.
    fn is_bare(&self) -> bool {
        self.segments.len() <= 1 && self.segments.iter().all(Segment::is_bare)
    }

    fn write(&mut self, record: &[u8], items: u64) -> io::Result<()> {
        let is_open = self.segments.back().is_some_and(|last| !last.is_sealed && last.length < SEGMENT_BYTES);
        if !is_open {
            if let Some(last) = self.segments.back_mut()
                && !last.is_sealed
            {
                last.sync()?;
                last.is_sealed = true;
            }
            let segment = Segment::create(&self.directory, self.next_number)?;
            self.next_number = self.next_number.saturating_add(1);
            self.segments.push_back(segment);
            // Else the name of the file may be gone after a loss of power.
            File::open(&self.directory)?.sync_all()?;
        }
        match self.segments.back_mut() {
            Some(last) => last.append(record, items),
            None => Ok(()),
        }
    }

    /// The oldest request that waits. The same until it is done with or given back.
    ///
    /// # Errors
    /// If it cannot be read; the segment is then passed over, and what was in it is added to `lost`.
    pub fn next(&mut self, lost: &mut Lost) -> io::Result<Option<Request>> {
        self.given = None;
        while let Some(first) = self.segments.front_mut() {
            match first.next() {
                Ok(Some((request, place))) => {
                    self.given = Some(Given { segment: first.number, place });
                    return Ok(Some(request));
                }
                // What the segment counts as waiting and cannot be found was damaged since it was written.
                Ok(None) => lost.items += first.items,
                Err(error) => {
                    self.drop_oldest(lost);
                    return Err(error);
                }
            }
            // The last one is also done with: the next record opens another.
            self.remove_oldest();
        }
        Ok(None)
    }

    /// The request that was given is sent, or will never be; whether it was still there. If its segment was dropped
    /// meanwhile there is nothing to do.
    ///
    /// # Errors
    /// If it cannot be marked; a later run sends it again.
    pub fn done(&mut self) -> io::Result<()> {
        let Some(given) = self.given.take() else { return Ok(()) };
        let segment = self.segments.iter_mut().find(|segment| segment.number == given.segment);
        let marked = segment.map_or(Ok(()), |segment| segment.done(&given.place));
        self.remove_read();
        marked
    }

    /// The request that was given could not be sent. It waits again, or is lost if its segment was dropped meanwhile.
    pub fn give_back(&mut self, lost: &mut Lost) {
        let Some(given) = self.given.take() else { return };
        if !self.segments.iter().any(|segment| segment.number == given.segment) {
            lost.items += given.place.items;
        }
    }

    /// Brings everything to the disk.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn sync(&self) -> io::Result<()> {
        self.segments.back().map_or(Ok(()), Segment::sync)
    }

    /// Drops the oldest segment; false: there is none. The record that is being sent is not lost with it: that is
    /// decided when its fate is known.
    fn drop_oldest(&mut self, lost: &mut Lost) -> bool {
        let Some(first) = self.segments.front() else { return false };
        let given = self.given.as_ref().filter(|given| given.segment == first.number);
        lost.items += first.items.saturating_sub(given.map_or(0, |given| given.place.items));
        self.remove_oldest();
        true
    }

    /// Removes the segments from the front in which nothing waits, save the one that is written to.
    fn remove_read(&mut self) {
        while self.segments.front().is_some_and(|first| first.requests == 0)
            && (self.segments.len() > 1 || self.segments.front().is_some_and(|first| first.is_sealed))
        {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(first) = self.segments.pop_front()
            && let Err(error) = first.remove()
        {
            // Its records are marked, or counted as lost; a later run may send the latter after all.
            tracing::warn!(directory = %self.directory.display(), %error, "cannot remove a part of the spool");
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
