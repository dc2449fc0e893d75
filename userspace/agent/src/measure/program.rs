//! What a process runs.

use std::sync::Arc;

use descry_process::object::Object;

/// The program of a process, with what it has mapped.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its executable.
    pub object: Arc<Object>,
    /// What runs it, as in `process.runtime.name`.
    pub runtime: Option<&'static str>,
    /// Paths of the files that are mapped, as the process sees them.
    pub files: Vec<Arc<str>>,
}

impl Program {
    /// Whether a file is mapped whose path has one of these parts.
    pub fn has_file_like(&self, parts: &[&str]) -> bool {
        self.files.iter().any(|file| parts.iter().any(|part| file.contains(part)))
    }
}
