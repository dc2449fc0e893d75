//! What walks in userspace ask about a process, and how new mappings get into the table.

use descry_decode::ids::{ElfAddress, RuntimeAddress, Tgid};
use descry_probe::MmapEvent;
use descry_process::maps::Device;
use descry_process::table::{self, ProcessTable, Resolved};
use descry_unwind::walk::{Code, CodeSource};
use rustc_hash::FxHashSet;

use super::tables::UnwindTables;

/// Tells the table of a new mapping.
pub fn apply(processes: &mut ProcessTable, event: &MmapEvent) {
    use std::os::unix::ffi::OsStrExt;
    let (major, minor) = event.device;
    let mapped = table::MmapEvent {
        time: event.time,
        start: event.start,
        len: event.len,
        offset: event.offset,
        inode: Some((Device { major, minor }, event.inode)),
        path: event.path.as_os_str().as_bytes().to_vec(),
        build_id: None,
    };
    processes.apply_mmap(event.tgid, &mapped);
}

/// What a walk in userspace may ask about the process.
pub struct ProcessCode<'a> {
    /// The process.
    pub tgid: Tgid,
    /// What is mapped.
    pub processes: &'a mut ProcessTable,
    /// The tables of binaries.
    pub tables: &'a mut UnwindTables,
    /// Processes read anew since the last sync.
    pub reread: &'a mut FxHashSet<Tgid>,
}

impl CodeSource for ProcessCode<'_> {
    fn code(&mut self, address: RuntimeAddress) -> Code {
        let mut resolved = self.processes.resolve(self.tgid, address);
        // It may lie in a mapping that no event told of; once a sync is often enough to ask.
        if resolved == Resolved::Unknown
            && self.reread.insert(self.tgid)
            && self.processes.load(self.tgid).is_ok()
        {
            resolved = self.processes.resolve(self.tgid, address);
        }
        match resolved {
            Resolved::Object { id, address: ElfAddress(elf_address) } => {
                let Some(object) = self.processes.objects().get(id).cloned() else { return Code::NotLoaded };
                match self.tables.cfi(&object) {
                    Some(cfi) => Code::Cfi { cfi, bias: address.0.wrapping_sub(elf_address) },
                    None => Code::FramePointer,
                }
            }
            Resolved::Anonymous | Resolved::Vsyscall | Resolved::Unreadable { .. } => Code::FramePointer,
            Resolved::Unknown => Code::Unmapped,
        }
    }
}
