//! One perf ring: opening, mapping, and reading in order.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya_obj::generated::{perf_event_attr, perf_event_mmap_page};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::ProbeError;

/// Data pages of a ring: a power of two. 128 KiB hold about 1000 mappings.
const PAGES: usize = 32;
/// A record's header says its size in 16 bits.
const MAX_RECORD: usize = 1 << 16;

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_DUMMY: u64 = 9;
const PERF_SAMPLE_TID: u64 = 1 << 1;
const PERF_SAMPLE_TIME: u64 = 1 << 2;
const PERF_FLAG_FD_CLOEXEC: u64 = 1 << 3;

/// The ring of one CPU.
pub(super) struct Ring {
    memory: NonNull<std::ffi::c_void>,
    bytes: usize,
    page: usize,
    record: Vec<u8>,
    event: OwnedFd,
}

// SAFETY: the mapping belongs to this value alone, and only `&mut self` reads it.
unsafe impl Send for Ring {}

impl Ring {
    pub(super) fn open(cpu: u32) -> Result<Self, ProbeError> {
        let event = open_event(cpu)?;
        let page = page_size()?;
        let bytes = page * (PAGES + 1);
        let failed = |source: nix::Error| ProbeError::System {
            action: "map a perf ring into memory (is /proc/sys/kernel/perf_event_mlock_kb too low?)",
            source: source.into(),
        };
        let len = NonZeroUsize::new(bytes).ok_or_else(|| failed(nix::Error::EINVAL))?;
        // SAFETY: a new shared mapping of the event's ring, at an address that the kernel chooses.
        let memory = unsafe {
            mmap(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &event, 0)
        }
        .map_err(failed)?;
        Ok(Self { memory, bytes, page, record: Vec::new(), event })
    }

    /// Readable when there are records.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn cursors(&self) -> (&AtomicU64, &AtomicU64) {
        let control = self.memory.cast::<perf_event_mmap_page>().as_ptr();
        // SAFETY: the first page of the mapping is the control page, and lives as long as `self`. Both fields are
        // aligned words that the kernel and this process use as atomics (perf_event_open(2)).
        unsafe {
            (
                AtomicU64::from_ptr(&raw mut (*control).data_head),
                AtomicU64::from_ptr(&raw mut (*control).data_tail),
            )
        }
    }

    /// Hands over each whole record since the last call.
    pub(super) fn drain(&mut self, mut handle: impl FnMut(&[u8])) {
        let size = (self.bytes - self.page) as u64;
        let (head, tail) = self.cursors();
        let (head, mut at) = (head.load(Ordering::Acquire), tail.load(Ordering::Relaxed));
        let mut record = std::mem::take(&mut self.record);
        while head.wrapping_sub(at) >= 8 {
            record.resize(8, 0);
            self.copy(at % size, &mut record);
            let len = usize::from(u16::from_ne_bytes([record[6], record[7]]));
            if len < 8 || len as u64 > head.wrapping_sub(at) {
                // A ring that is not what the kernel promises: nothing behind this point can be read.
                at = head;
                break;
            }
            record.resize(len.min(MAX_RECORD), 0);
            self.copy(at % size, &mut record);
            handle(&record);
            at = at.wrapping_add(len as u64);
        }
        self.cursors().1.store(at, Ordering::Release);
        self.record = record;
    }

    /// Copies out of the ring, around its end where need be.
    fn copy(&self, offset: u64, to: &mut [u8]) {
        let size = self.bytes - self.page;
        let offset = offset as usize;
        let first = to.len().min(size - offset);
        // SAFETY: `offset < size` and both parts lie in the data pages; the kernel does not write between tail and
        // head.
        unsafe {
            let data = self.memory.cast::<u8>().as_ptr().add(self.page);
            std::ptr::copy_nonoverlapping(data.add(offset), to.as_mut_ptr(), first);
            std::ptr::copy_nonoverlapping(data, to.as_mut_ptr().add(first), (to.len() - first).min(size));
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `open` and nothing points into it any more.
        if let Err(error) = unsafe { munmap(self.memory, self.bytes) } {
            tracing::debug!(%error, "cannot unmap a perf ring");
        }
    }
}

fn page_size() -> Result<usize, ProbeError> {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0).ok_or_else(|| {
        ProbeError::System {
            action: "learn the page size",
            source: io::Error::from(io::ErrorKind::Unsupported),
        }
    })
}

/// An event that counts nothing, on one CPU, for all processes.
fn open_event(cpu: u32) -> Result<OwnedFd, ProbeError> {
    // SAFETY: a perf_event_attr of zeros is valid.
    let mut attr: perf_event_attr = unsafe { std::mem::zeroed() };
    attr.type_ = PERF_TYPE_SOFTWARE;
    attr.size = size_of::<perf_event_attr>() as u32;
    attr.config = PERF_COUNT_SW_DUMMY;
    attr.sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME;
    attr.clockid = libc::CLOCK_BOOTTIME;
    attr.set_use_clockid(1);
    attr.set_mmap(1);
    attr.set_mmap2(1);
    attr.set_comm(1);
    attr.set_comm_exec(1);
    attr.set_sample_id_all(1);
    attr.set_exclude_kernel(1);
    // Every record makes the descriptor readable.
    attr.set_watermark(1);
    attr.__bindgen_anon_2.wakeup_watermark = 1;
    // SAFETY: the attribute outlives the call; pid -1 is all processes, group -1 is none (perf_event_open(2)).
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)
    };
    if fd < 0 {
        return Err(ProbeError::System {
            action: "follow new mappings (perf_event_open)",
            source: io::Error::last_os_error(),
        });
    }
    // SAFETY: the call returned a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    tracing::trace!(cpu, fd = fd.as_raw_fd(), "following new mappings");
    Ok(fd)
}
