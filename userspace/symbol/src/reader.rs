//! A [`gimli::Reader`] over a section that is read page by page.
//!
//! A page is read when it is first needed and a few are kept, so that debug information of any size takes little
//! memory. Every byte handed out is paid for from the budget of the call: a file that refers to itself a million times
//! ends in [`gimli::Error::Io`], not in a long wait.

use std::borrow::Cow;
use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use gimli::{Error, LittleEndian, Reader, ReaderOffsetId, Result};
use lru::LruCache;

use crate::budget::Budget;
use crate::file::ObjectFile;

const PAGE: u64 = 16 * 1024;
/// Pages kept of one section (1 MiB).
const PAGES: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");
/// A string longer than this is taken for damage (bytes).
const MAX_STRING: u64 = 1 << 20;

/// Where the bytes of a section are.
#[derive(Debug)]
enum Bytes {
    Memory(Rc<[u8]>),
    File { file: Rc<ObjectFile>, offset: u64 },
}

#[derive(Debug)]
struct Source {
    bytes: Bytes,
    len: u64,
    pages: RefCell<LruCache<u64, Rc<[u8]>>>,
    budget: Rc<Budget>,
}

impl Source {
    /// The page that holds `at`, and its first position.
    fn page(&self, at: u64) -> Result<(Rc<[u8]>, u64)> {
        let (file, offset) = match &self.bytes {
            Bytes::Memory(bytes) => return Ok((bytes.clone(), 0)),
            Bytes::File { file, offset } => (file, *offset),
        };
        let start = at - at % PAGE;
        let mut pages = self.pages.borrow_mut();
        if let Some(page) = pages.get(&start) {
            return Ok((page.clone(), start));
        }
        let len = PAGE.min(self.len.saturating_sub(start)) as usize;
        self.budget.spend(len as u64).map_err(|_| Error::Io)?;
        let page: Rc<[u8]> = file.read_vec(offset.saturating_add(start), len).map_err(|_| Error::Io)?.into();
        pages.put(start, page.clone());
        Ok((page, start))
    }
}

/// A part of a section.
#[derive(Clone, Debug)]
pub(crate) struct SectionReader {
    source: Rc<Source>,
    start: u64,
    end: u64,
    page: Rc<[u8]>,
    page_start: u64,
}

impl SectionReader {
    fn new(bytes: Bytes, len: u64, budget: &Rc<Budget>) -> Self {
        let pages = RefCell::new(LruCache::new(PAGES));
        Self {
            source: Rc::new(Source { bytes, len, pages, budget: budget.clone() }),
            start: 0,
            end: len,
            page: Rc::default(),
            page_start: 0,
        }
    }

    /// A section as it lies in its file.
    pub(crate) fn from_file(file: &Rc<ObjectFile>, offset: u64, len: u64, budget: &Rc<Budget>) -> Self {
        // What the file does not hold cannot be read, so it does not count.
        let len = len.min(file.len().saturating_sub(offset));
        Self::new(Bytes::File { file: file.clone(), offset }, len, budget)
    }

    /// A section that was decompressed.
    pub(crate) fn from_memory(bytes: Vec<u8>, budget: &Rc<Budget>) -> Self {
        let len = bytes.len() as u64;
        Self::new(Bytes::Memory(bytes.into()), len, budget)
    }

    fn left(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    fn too_short(&self) -> Error {
        Error::UnexpectedEof(self.offset_id())
    }

    /// The bytes from the current position to the end of the page or of the reader.
    fn in_page(&self) -> &[u8] {
        let at = self.start.saturating_sub(self.page_start) as usize;
        let end = self.end.saturating_sub(self.page_start).min(self.page.len() as u64) as usize;
        self.page.get(at..end).unwrap_or_default()
    }

    fn turn_page(&mut self) -> Result<()> {
        let (page, start) = self.source.page(self.start)?;
        self.page = page;
        self.page_start = start;
        Ok(())
    }

    /// Reads across pages.
    #[cold]
    fn read_slowly(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            self.turn_page()?;
            let bytes = self.in_page();
            let len = bytes.len().min(rest.len());
            let (Some(to), Some(from)) = (rest.get_mut(..len), bytes.get(..len)) else { break };
            if len == 0 {
                return Err(Error::Io);
            }
            to.copy_from_slice(from);
            self.start += len as u64;
            done += len;
        }
        Ok(())
    }
}

impl Reader for SectionReader {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> usize {
        self.left() as usize
    }

    fn empty(&mut self) {
        self.end = self.start;
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        if len as u64 > self.left() {
            return Err(self.too_short());
        }
        self.end = self.start + len as u64;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.start.saturating_sub(base.start) as usize
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.start)
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        (id.0 >= self.start && id.0 <= self.end).then(|| (id.0 - self.start) as usize)
    }

    fn find(&self, byte: u8) -> Result<usize> {
        let mut cursor = self.clone();
        while cursor.start - self.start <= MAX_STRING {
            let bytes = cursor.in_page();
            let found = bytes.iter().position(|b| *b == byte);
            cursor.source.budget.spend(found.unwrap_or(bytes.len()) as u64).map_err(|_| Error::Io)?;
            if let Some(at) = found {
                return Ok((cursor.start - self.start) as usize + at);
            }
            cursor.start += bytes.len() as u64;
            if cursor.left() == 0 {
                break;
            }
            cursor.turn_page()?;
            if cursor.in_page().is_empty() {
                return Err(Error::Io);
            }
        }
        Err(self.too_short())
    }

    fn skip(&mut self, len: usize) -> Result<()> {
        if len as u64 > self.left() {
            return Err(self.too_short());
        }
        self.start += len as u64;
        Ok(())
    }

    fn split(&mut self, len: usize) -> Result<Self> {
        let mut part = self.clone();
        self.skip(len)?;
        part.end = self.start;
        Ok(part)
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        let mut bytes = vec![0; self.left().min(MAX_STRING) as usize];
        self.clone().read_slice(&mut bytes)?;
        Ok(bytes.into())
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        let bytes = self.to_slice()?.into_owned();
        String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Error::BadUtf8)
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        Ok(String::from_utf8_lossy(&self.to_slice()?).into_owned().into())
    }

    #[inline]
    fn read_slice(&mut self, buffer: &mut [u8]) -> Result<()> {
        let len = buffer.len();
        if len as u64 > self.left() {
            return Err(self.too_short());
        }
        self.source.budget.spend(len as u64).map_err(|_| Error::Io)?;
        match self.in_page().get(..len) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                self.start += len as u64;
                Ok(())
            }
            None => self.read_slowly(buffer),
        }
    }
}
