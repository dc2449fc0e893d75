//! OTLP as lines of JSON, one request a line ("OpenTelemetry Protocol File Exporter" of the specification).
//!
//! A signal has two files: `SIGNAL.jsonl` is written to; when it has half of the bytes that are allowed it becomes
//! `SIGNAL.previous.jsonl`, in the place of the one before.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::delivery::{Verdict, json};
use crate::send::{DropReason, Signal};
use descry_spool::{Request, SIGNALS};

/// Bytes that are looked through at a time for the end of the last whole line.
const BLOCK: usize = 64 << 10;

/// The files of a directory.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    /// Bytes of one file at most.
    limit: u64,
    /// One for each signal that can wait.
    lines: Vec<(Signal, Lines)>,
}

/// The file that is written to.
#[derive(Debug)]
struct Lines {
    file: File,
    length: u64,
}

impl Files {
    /// Opens the files for `limit` bytes altogether, and makes the directory when it is not there. A last line that is
    /// not whole is cut off.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn open(directory: &Path, limit: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let open = |signal: Signal| Ok((signal, Lines::open(&path(directory, &signal))?));
        let lines = SIGNALS.into_iter().map(|(_, signal)| open(signal)).collect::<io::Result<Vec<_>>>()?;
        // Each signal has two files.
        let files = lines.len() as u64 * 2;
        Ok(Self { directory: directory.to_owned(), limit: limit / files, lines })
    }

    pub(super) fn write(&mut self, request: &Request) -> Verdict {
        let mut line = match json(request) {
            Ok(line) => line,
            Err(error) => {
                let reason = DropReason::Encoding.as_str();
                return Verdict::Refused { reason, detail: error.to_string() };
            }
        };
        line.push(b'\n');
        match self.append(&request.signal, &line) {
            Ok(()) => Verdict::Sent { rejected: 0 },
            Err(error) => {
                let directory = self.directory.display();
                Verdict::Later { detail: format!("cannot write to {directory}: {error}") }
            }
        }
    }

    fn append(&mut self, signal: &Signal, line: &[u8]) -> io::Result<()> {
        let path = path(&self.directory, signal);
        let Some((_, lines)) = self.lines.iter_mut().find(|(known, _)| known == signal) else {
            return Ok(());
        };
        // Somebody may have taken the file away, to read it elsewhere.
        if !path.exists() {
            *lines = Lines::open(&path)?;
        }
        if lines.length > 0 && lines.length + line.len() as u64 > self.limit {
            let previous = self.directory.join(format!("{}.previous.jsonl", signal.name));
            std::fs::rename(&path, previous)?;
            *lines = Lines::open(&path)?;
        }
        lines.append(line)
    }
}

fn path(directory: &Path, signal: &Signal) -> PathBuf {
    directory.join(format!("{}.jsonl", signal.name))
}

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        let length = whole_lines(&file, size)?;
        if length < size {
            file.set_len(length)?;
        }
        Ok(Self { file, length })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all_at(line, self.length) {
            // If this fails too, the next line is written over what there is.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }
}

/// How many bytes of the file are whole lines.
fn whole_lines(file: &File, size: u64) -> io::Result<u64> {
    let mut end = size;
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let part = block.get_mut(..(end - start) as usize).unwrap_or_default();
        file.read_exact_at(part, start)?;
        if let Some(last) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
