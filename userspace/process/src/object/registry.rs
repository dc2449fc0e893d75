//! All binaries that are open, least recently used ones closed first.

use std::num::NonZeroUsize;
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use descry_decode::ids::Tgid;
use lru::LruCache;
use nix::errno::Errno;

use crate::counter::ObjectCounters;
use crate::object::content::Content;
use crate::object::error::ObjectError;
use crate::object::open::{self, FileReference, Found};
use crate::object::{Object, ObjectId, vdso};

/// How many files are remembered for each that may be open (about 150 B each).
const REMEMBERED_PER_OPEN: usize = 16;

/// What makes two files the same binary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileKey {
    /// A GNU build id. The other two guard against a build id that was kept while the file was changed.
    BuildId {
        /// Lower-case hex.
        build_id: Arc<str>,
        /// Length of the file (bytes).
        size: u64,
        /// Hash of the file's ends and length.
        htlhash: Arc<str>,
    },
    /// The file itself, where it has no build id.
    File(FileVersion),
    /// The kernel's.
    Vdso,
}

/// A version of a file on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileVersion {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// `st_mtim` (ns).
    pub modified: i128,
    /// `st_size` (bytes).
    pub size: u64,
}

/// How much the registry keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLimits {
    /// Files held open at most; each takes a descriptor and about 1 KiB.
    pub open: NonZeroUsize,
}

impl Default for ObjectLimits {
    fn default() -> Self {
        Self { open: const { NonZeroUsize::new(1024).expect("not zero") } }
    }
}

/// What is known of a file version.
#[derive(Clone, Debug)]
enum Known {
    Object(FileKey),
    NotElf,
}

/// All binaries that are open.
#[derive(Debug)]
pub struct Objects {
    open: LruCache<ObjectId, Arc<Object>>,
    ids: LruCache<FileKey, ObjectId>,
    known: LruCache<FileVersion, Known>,
    next: u32,
    counters: ObjectCounters,
}

impl Objects {
    /// An empty registry.
    pub fn new(limits: ObjectLimits) -> Self {
        let remembered =
            limits.open.saturating_mul(const { NonZeroUsize::new(REMEMBERED_PER_OPEN).expect("not zero") });
        Self {
            open: LruCache::new(limits.open),
            ids: LruCache::new(remembered),
            known: LruCache::new(remembered),
            next: 0,
            counters: ObjectCounters::default(),
        }
    }

    /// Counters so far.
    pub fn counters(&self) -> ObjectCounters {
        self.counters
    }

    /// The binary of this id, and makes it the most recently used one. `None`: closed to stay within the limit.
    pub fn get(&mut self, id: ObjectId) -> Option<&Arc<Object>> {
        self.open.get(&id)
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The binary that a process has mapped; see `open.rs` for where it is looked for.
    pub fn acquire(&mut self, tgid: Tgid, wanted: &FileReference<'_>) -> Result<Arc<Object>, ObjectError> {
        let found = match open::find(tgid, wanted) {
            Err(ObjectError::Unavailable { source, .. }) if out_of_descriptors(&source) => {
                self.close_half();
                open::find(tgid, wanted)
            }
            other => other,
        };
        let found = found.inspect_err(|error| match error {
            ObjectError::NotRegular { .. } => self.counters.not_regular += 1,
            _ => self.counters.unavailable += 1,
        })?;
        self.admit(wanted.path, &found)
    }

    /// The kernel's vdso, for processes of descry's own architecture.
    pub fn vdso(&mut self) -> Result<Arc<Object>, ObjectError> {
        if let Some(object) = self.ids.get(&FileKey::Vdso).and_then(|id| self.open.get(id)) {
            self.counters.reused += 1;
            return Ok(object.clone());
        }
        let content = Content::Bytes(vdso::read().inspect_err(|_| self.counters.unavailable += 1)?);
        let id = self.next_id();
        let object = Object::parse(id, "[vdso]".into(), content).map_err(|source| {
            self.counters.not_elf += 1;
            ObjectError::NotElf { path: "[vdso]".into(), source }
        })?;
        Ok(self.insert(FileKey::Vdso, object))
    }

    fn admit(&mut self, path: &Path, found: &Found) -> Result<Arc<Object>, ObjectError> {
        let metadata = &found.metadata;
        let version = FileVersion {
            device: metadata.st_dev(),
            inode: metadata.st_ino(),
            modified: i128::from(metadata.st_mtime()) * 1_000_000_000 + i128::from(metadata.st_mtime_nsec()),
            size: metadata.st_size(),
        };
        match self.known.get(&version) {
            Some(Known::NotElf) => return Err(ObjectError::KnownBad { path: path.to_owned() }),
            Some(Known::Object(key)) => {
                if let Some(object) = self.ids.get(key).and_then(|id| self.open.get(id)) {
                    self.counters.reused += 1;
                    return Ok(object.clone());
                }
            }
            None => {}
        }
        let file = match found.open() {
            Err(source) if out_of_descriptors(&source) => {
                self.close_half();
                found.open()
            }
            other => other,
        };
        let file = file.map_err(|source| {
            self.counters.unavailable += 1;
            ObjectError::Unavailable { path: path.to_owned(), source }
        })?;
        let content = Content::File { file, len: version.size };
        let name = path.to_string_lossy().into();
        let parsed = Object::parse(self.next_id(), name, content).map_err(|source| {
            self.counters.not_elf += 1;
            self.known.put(version, Known::NotElf);
            ObjectError::NotElf { path: path.to_owned(), source }
        })?;
        let key = match &parsed.gnu_build_id {
            Some(build_id) => FileKey::BuildId {
                build_id: build_id.clone(),
                size: version.size,
                htlhash: parsed.htlhash.clone(),
            },
            None => FileKey::File(version),
        };
        self.known.put(version, Known::Object(key.clone()));
        Ok(self.insert(key, parsed))
    }

    /// Puts a binary in place, under the id that it had before if it was known.
    fn insert(&mut self, key: FileKey, mut object: Object) -> Arc<Object> {
        if let Some(&id) = self.ids.get(&key) {
            if let Some(open) = self.open.get(&id) {
                self.counters.reused += 1;
                return open.clone();
            }
            object.id = id;
            self.counters.reopened += 1;
        } else {
            self.next = self.next.wrapping_add(1);
            self.ids.put(key, object.id);
            self.counters.opened += 1;
        }
        self.counters.bad_sections += u64::from(object.bad_sections);
        let object = Arc::new(object);
        if self.open.push(object.id, object.clone()).is_some_and(|(id, _)| id != object.id) {
            self.counters.evicted += 1;
        }
        object
    }

    fn next_id(&self) -> ObjectId {
        ObjectId(self.next)
    }

    fn close_half(&mut self) {
        self.counters.out_of_descriptors += 1;
        for _ in 0..self.open.len().div_ceil(2) {
            self.open.pop_lru();
            self.counters.evicted += 1;
        }
    }
}

fn out_of_descriptors(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}
