//! The pool of unwind tables: chunks of shared memory that come and go with use.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;

use aya::maps::{ArrayOfMaps, Map, MapData, MapError};
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_type};
use descry_abi::limits::CHUNK_SLOTS;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::ProbeError;

/// `BPF_F_MMAPABLE` (linux/bpf.h).
const MMAPABLE: u32 = 1 << 10;
const CHUNK_BYTES: usize = CHUNK_SLOTS * 8;
const NAME: &str = "TABLES";

/// Writer of the pool. Slots are numbered over all chunks; a chunk exists from [`Tables::create_chunk`] to
/// [`Tables::drop_chunk`] and costs 1 MiB of kernel memory meanwhile.
pub struct Tables {
    outer: ArrayOfMaps<MapData, MapData>,
    /// The outer map once more, for the one operation that aya has no function for.
    outer_fd: OwnedFd,
    chunks: Vec<Option<MapData>>,
}

impl Tables {
    pub(crate) fn new(map: Map) -> Result<Self, ProbeError> {
        let Map::ArrayOfMaps(data) = &map else { return Err(ProbeError::Missing { name: NAME }) };
        let outer_fd = data
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| ProbeError::System { action: "duplicate the descriptor of a map", source })?;
        let outer: ArrayOfMaps<MapData, MapData> = map.try_into().map_err(ProbeError::map(NAME))?;
        let chunks = (0..outer.len()).map(|_| None).collect();
        Ok(Self { outer, outer_fd, chunks })
    }

    /// Slots of the whole pool.
    pub fn capacity(&self) -> u32 {
        (self.chunks.len() * CHUNK_SLOTS) as u32
    }

    /// Makes sure that a chunk exists.
    pub fn create_chunk(&mut self, index: u32) -> Result<(), ProbeError> {
        let error = ProbeError::map(NAME);
        let Some(place) = self.chunks.get_mut(index as usize) else {
            return Err(error(MapError::OutOfBounds { index, max_entries: self.outer.len() }));
        };
        if place.is_none() {
            let array = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
            let chunk = aya_obj::Map::new_from_params(array, 4, CHUNK_BYTES as u32, 1, MMAPABLE);
            let chunk = MapData::create(chunk, "TABLES.chunk", None).map_err(&error)?;
            self.outer.set(index, &chunk, 0).map_err(&error)?;
            *place = Some(chunk);
        }
        Ok(())
    }

    /// Gives a chunk's memory back once no running program reads it. Nothing may point at its slots any more.
    pub fn drop_chunk(&mut self, index: u32) -> Result<(), ProbeError> {
        let Some(place) = self.chunks.get_mut(index as usize) else { return Ok(()) };
        if place.take().is_some() {
            remove(&self.outer_fd, index)?;
        }
        Ok(())
    }

    /// Writes words at a slot number; they may lie in several chunks, all of which must exist.
    pub fn write(&self, slot: u32, mut words: &[u64]) -> Result<(), ProbeError> {
        let mut slot = slot as usize;
        while !words.is_empty() {
            let (chunk, place) = (slot / CHUNK_SLOTS, slot % CHUNK_SLOTS);
            let (now, later) = words.split_at(words.len().min(CHUNK_SLOTS - place));
            let Some(Some(chunk)) = self.chunks.get(chunk) else {
                return Err(ProbeError::map(NAME)(MapError::OutOfBounds {
                    index: chunk as u32,
                    max_entries: self.outer.len(),
                }));
            };
            write_chunk(chunk, place, now)?;
            slot += now.len();
            words = later;
        }
        Ok(())
    }
}

/// Removes an entry of the outer map.
fn remove(outer: &OwnedFd, index: u32) -> Result<(), ProbeError> {
    // SAFETY: the attributes are zeroed, then set as BPF_MAP_DELETE_ELEM wants them (bpf(2)); the key outlives the call.
    let result = unsafe {
        let mut attr: bpf_attr = std::mem::zeroed();
        attr.__bindgen_anon_2.map_fd = outer.as_raw_fd() as u32;
        attr.__bindgen_anon_2.key = (&raw const index) as u64;
        libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_MAP_DELETE_ELEM, &raw mut attr, size_of::<bpf_attr>())
    };
    if result == 0 {
        return Ok(());
    }
    Err(ProbeError::System { action: "remove a chunk of unwind tables", source: io::Error::last_os_error() })
}

/// Writes words into one chunk through a mapping that lives only as long: mapped memory that was touched counts as
/// descry's own.
fn write_chunk(chunk: &MapData, place: usize, words: &[u64]) -> Result<(), ProbeError> {
    let failed = |errno: nix::Error| ProbeError::System {
        action: "map unwind tables into memory",
        source: errno.into(),
    };
    assert!(place + words.len() <= CHUNK_SLOTS, "words beyond the chunk");
    let Some(len) = NonZeroUsize::new(CHUNK_BYTES) else { return Ok(()) };
    // SAFETY: a new shared mapping of the map's value, at an address that the kernel chooses.
    let memory: NonNull<std::ffi::c_void> = unsafe {
        mmap(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, chunk.fd(), 0)
    }
    .map_err(failed)?;
    // SAFETY: the range was asserted to lie in the mapping, which no Rust reference points into. Programs that read it
    // meanwhile are not yet told of these slots.
    unsafe {
        let to = memory.cast::<u64>().as_ptr().add(place);
        std::ptr::copy_nonoverlapping(words.as_ptr(), to, words.len());
        munmap(memory, CHUNK_BYTES).map_err(failed)
    }
}
