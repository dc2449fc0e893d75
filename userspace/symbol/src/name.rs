//! Names of the linker to names for people.
//!
//! Input is whatever a file holds; output is at most as long as asked, and otherwise unchanged: making it safe for a
//! terminal is the output's duty.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use cpp_demangle::{BorrowedSymbol, DemangleOptions, ParseOptions};

use crate::frame::FrameKind;

/// What ends a name that was cut.
const CUT: &str = "…";
/// Depth of nested types in a mangled name; each level costs stack.
const MAX_NESTING: u32 = 128;

/// A name as the linker knows it, and as people do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) function: Arc<str>,
    /// Where it differs from `function`.
    pub(crate) system_name: Option<Arc<str>>,
    /// What the name alone says of the language.
    pub(crate) kind: FrameKind,
}

impl Name {
    /// Reads a name of a symbol table or of debug information. `None` if it is empty.
    pub(crate) fn new(raw: &[u8], max_bytes: usize) -> Option<Self> {
        let raw = String::from_utf8_lossy(raw);
        let (system, suffix) = match raw.strip_suffix(PLT) {
            Some(name) => (name, PLT),
            None => (without_version(&raw), ""),
        };
        if system.is_empty() {
            return None;
        }
        let (readable, kind) = match demangle(system, max_bytes) {
            Some((readable, kind)) => (Some(readable), kind),
            None => (None, FrameKind::Native),
        };
        let put_together = |name: &str| -> Arc<str> { cut(&format!("{name}{suffix}"), max_bytes).into() };
        Some(match readable {
            Some(function) if function != system => {
                Self { function: put_together(&function), system_name: Some(put_together(system)), kind }
            }
            _ => Self { function: put_together(system), system_name: None, kind },
        })
    }
}

/// A linker's name as people write it, without its version, at most `max_bytes` long. `None` if it is empty.
pub fn readable(raw: &[u8], max_bytes: usize) -> Option<Arc<str>> {
    Name::new(raw, max_bytes).map(|name| name.function)
}

/// What this crate itself adds to the names of entries of a procedure linkage table.
const PLT: &str = "@plt";

/// `name@@VERSION` and `name@VERSION` (how GNU tools write versioned symbols) without the version.
fn without_version(name: &str) -> &str {
    match name.find('@') {
        Some(at) if at > 0 => name.get(..at).unwrap_or(name),
        _ => name,
    }
}

/// Text of at most `max_bytes` bytes; a longer one is cut between two characters and ends in a mark.
pub(crate) fn cut(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return text.into();
    }
    let end = char_boundary(text, max_bytes.saturating_sub(CUT.len()));
    format!("{}{CUT}", text.get(..end).unwrap_or_default()).into()
}

/// The last position at or below `at` that is between two characters.
fn char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn demangle(name: &str, max_bytes: usize) -> Option<(String, FrameKind)> {
    // Compilers add what makes clones different behind the mangled name: `.llvm.123`, `.cold`, `.constprop.0`.
    if let Ok(symbol) = rustc_demangle::try_demangle(name) {
        // A legacy name without its hash is C++'s (the two share the prefix `_ZN`); rustc_demangle tells them apart.
        let mut out = Bounded::new(max_bytes);
        // Stopped only by the bound, in which case the name is cut.
        let _ = write!(out, "{symbol:#}");
        return Some((out.finish(), FrameKind::Rust));
    }
    if !(name.starts_with("_Z") || name.starts_with("__Z") || name.starts_with("_GLOBAL_")) {
        return None;
    }
    // GNU's `[clone .isra.0]` tells nothing of the source; the linker's name keeps it.
    let (mangled, _) = name.split_once('.').unwrap_or((name, ""));
    let parse = ParseOptions::default().recursion_limit(MAX_NESTING);
    let (symbol, tail) = BorrowedSymbol::with_tail_and_options(mangled.as_bytes(), &parse).ok()?;
    if !tail.is_empty() {
        return None;
    }
    let mut out = Bounded::new(max_bytes);
    let options = DemangleOptions::new().no_return_type().recursion_limit(MAX_NESTING);
    if symbol.structured_demangle(&mut out, &options).is_err() && !out.full {
        return None;
    }
    Some((out.finish(), FrameKind::Native))
}

/// A string that refuses to grow: a mangled name of some hundred bytes may stand for gigabytes.
struct Bounded {
    text: String,
    max_bytes: usize,
    full: bool,
}

impl Bounded {
    fn new(max_bytes: usize) -> Self {
        Self { text: String::new(), max_bytes, full: false }
    }

    fn push(&mut self, part: &str) -> fmt::Result {
        if self.full {
            return Err(fmt::Error);
        }
        if self.text.len().saturating_add(part.len()) <= self.max_bytes {
            self.text.push_str(part);
            return Ok(());
        }
        self.full = true;
        let room = self.max_bytes.saturating_sub(self.text.len());
        self.text.push_str(part.get(..char_boundary(part, room)).unwrap_or_default());
        Err(fmt::Error)
    }

    fn finish(mut self) -> String {
        if self.full {
            let end = char_boundary(&self.text, self.max_bytes.saturating_sub(CUT.len()));
            self.text.truncate(end);
            self.text.push_str(CUT);
        }
        self.text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.push(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable() {
        let check = |raw: &str, function: &str, kind: FrameKind| {
            let name = Name::new(raw.as_bytes(), 4096).expect("not empty");
            assert_eq!(&*name.function, function, "{raw}");
            assert_eq!(name.kind, kind, "{raw}");
            assert_eq!(
                name.system_name.is_some(),
                raw.starts_with("_Z") && raw != "_Z" || raw.starts_with("_R"),
                "{raw}"
            );
        };
        check("qsort@@GLIBC_2.2.5", "qsort", FrameKind::Native);
        check("memcpy@GLIBC_2.14", "memcpy", FrameKind::Native);
        check(
            "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE",
            "core::fmt::Write::write_fmt",
            FrameKind::Rust,
        );
        check("_ZN4core3fmt5write17h0123456789abcdefE.llvm.77", "core::fmt::write", FrameKind::Rust);
        check("_RNvCs1234_7mycrate3foo", "mycrate::foo", FrameKind::Rust);
        check("_ZN5space3fooEii", "space::foo(int, int)", FrameKind::Native);
        check(
            "_ZNSt6vectorIiSaIiEE9push_backEOi",
            "std::vector<int, std::allocator<int> >::push_back(int&&)",
            FrameKind::Native,
        );
        check("_ZN5space3fooEii.isra.0", "space::foo(int, int)", FrameKind::Native);
        check("main.main", "main.main", FrameKind::Native);
        check("_Z", "_Z", FrameKind::Native);
        check("rand@plt", "rand@plt", FrameKind::Native);
        check("_ZN5space3fooEii@plt", "space::foo(int, int)@plt", FrameKind::Native);
        check("@", "@", FrameKind::Native);
        assert_eq!(Name::new(b"", 4096), None);
    }

    #[test]
    fn long_names_are_cut_and_say_so() {
        let long = "é".repeat(5000);
        let name = Name::new(long.as_bytes(), 101).expect("not empty");
        assert!(name.function.len() <= 101 && name.function.ends_with('…'), "{}", name.function);
        // Substitutions that double with every level.
        let mut bomb = String::from("_Z1fSt4pairIii");
        for level in 0..60 {
            let _ = write!(bomb, "S{}_S{0}_E", level);
        }
        let _ = Name::new(bomb.as_bytes(), 4096);
    }
}
