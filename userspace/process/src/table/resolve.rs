//! From what `/proc` or perf says of a mapping to the binary that it is of.

use std::path::Path;
use std::sync::Arc;

use descry_decode::ids::{BootNanos, Tgid};

use super::{MappingTarget, ProcessTable, TableMapping};
use crate::identity::{self, Identity};
use crate::maps::{Mapping, MappingSource};
use crate::object::{FileReference, Object, ObjectError};

impl ProcessTable {
    /// Finds the binary of a mapping. `current`: `/proc` has just told of it, so that the file there needs no proof.
    pub(super) fn resolve_mapping(
        &mut self,
        tgid: Tgid,
        mapping: &Mapping,
        build_id: Option<&[u8]>,
        current: bool,
        since: BootNanos,
    ) -> TableMapping {
        let name: Arc<str> = match &mapping.source {
            MappingSource::File { path, .. } => path.to_string_lossy().into(),
            MappingSource::Vdso => "[vdso]".into(),
            MappingSource::Vsyscall => "[vsyscall]".into(),
            MappingSource::Anonymous => "".into(),
            MappingSource::Special(name) => name.as_str().into(),
        };
        let inode = (mapping.inode != 0).then_some((mapping.device, mapping.inode));
        let target = match &mapping.source {
            MappingSource::File { path, .. } => {
                let wanted = FileReference {
                    path,
                    inode,
                    build_id,
                    range: Some((mapping.start, mapping.end)),
                    current,
                };
                match self.objects.acquire(tgid, &wanted) {
                    Ok(object) => self.target(&object, mapping),
                    // A file in memory that is no ELF file is a compiler's way to write what it may not execute.
                    Err(ObjectError::NotElf { .. } | ObjectError::KnownBad { .. }) if is_memfd(path) => {
                        MappingTarget::Anonymous
                    }
                    Err(error) => {
                        tracing::debug!(%tgid, %error, "a mapped file will have no names");
                        MappingTarget::Unreadable
                    }
                }
            }
            // A 32-bit process has a vdso of its own kind, always below 4 GiB.
            MappingSource::Vdso if mapping.start.0 > u64::from(u32::MAX) => match self.objects.vdso() {
                Ok(object) => self.target(&object, mapping),
                Err(error) => {
                    tracing::debug!(%error, "the vdso will have no names");
                    MappingTarget::Unreadable
                }
            },
            MappingSource::Anonymous => MappingTarget::Anonymous,
            MappingSource::Vsyscall => MappingTarget::Vsyscall,
            MappingSource::Vdso | MappingSource::Special(_) => MappingTarget::Unreadable,
        };
        TableMapping {
            start: mapping.start,
            end: mapping.end,
            offset: mapping.offset,
            name,
            target,
            inode,
            since,
        }
    }

    /// What runs the program of a process, by its name, its binary and its libraries.
    pub(super) fn runtime_name(
        &mut self,
        identity: &Identity,
        mappings: &[TableMapping],
    ) -> Option<&'static str> {
        let program = identity.executable_path.as_deref()?;
        let is_program = |mapping: &&TableMapping| &*mapping.name == program;
        if let Some(MappingTarget::Object { id, .. }) =
            mappings.iter().find(is_program).map(|found| found.target)
            && self.objects.get(id).is_some_and(|object| object.is_go)
        {
            return Some("go");
        }
        let files = mappings.iter().map(|mapping| &*mapping.name);
        identity::runtime_name(identity.executable_name()?, files)
    }

    fn target(&self, object: &Object, mapping: &Mapping) -> MappingTarget {
        match object.bias(mapping.start, mapping.offset, self.page_size) {
            Some(bias) => MappingTarget::Object { id: object.id, bias },
            None => MappingTarget::Unreadable,
        }
    }
}

fn is_memfd(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().starts_with(b"/memfd:")
}
