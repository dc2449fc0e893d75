//! The code that the kernel maps into every process: read from this process's own memory, through a file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::maps::{self, MappingSource};
use crate::object::error::ObjectError;

/// Bytes of a vdso at most; it has one or two pages of code on every architecture.
const MAX_VDSO: u64 = 1 << 20;

/// The image.
pub(super) fn read() -> Result<Arc<[u8]>, ObjectError> {
    let failed = |what: &str, source: &dyn std::fmt::Display| ObjectError::NoVdso {
        reason: format!("{what}: {source}"),
    };
    let maps = File::open("/proc/self/maps")
        .and_then(|file| maps::parse(std::io::BufReader::new(file)))
        .map_err(|source| failed("/proc/self/maps", &source))?;
    let mapping =
        maps.mappings.iter().find(|mapping| mapping.source == MappingSource::Vdso).ok_or_else(|| {
            failed("/proc/self/maps", &"it names none (vdso=0 on the kernel's command line)")
        })?;
    let len = mapping.end.0.wrapping_sub(mapping.start.0).min(MAX_VDSO);
    let mut image = vec![0; len as usize];
    File::open("/proc/self/mem")
        .and_then(|memory| memory.read_exact_at(&mut image, mapping.start.0))
        .map_err(|source| failed("/proc/self/mem", &source))?;
    Ok(image.into())
}
