//! `[FILE:]GLOB` and `FILE:0xADDRESS`.

use std::path::PathBuf;

use descry_decode::ids::ElfAddress;
use wildmatch::WildMatch;

/// What is traced.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// As the user wrote it.
    pub text: String,
    file: Option<WildMatch>,
    /// Which functions of the file.
    pub what: What,
}

/// Which functions of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Those whose readable name fits: `*` is any text, `?` any character.
    Glob(WildMatch),
    /// The one that begins at this address.
    Address(ElfAddress),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It names nothing.
    #[error("`{0}` names no function: write [FILE:]GLOB, like `main`, `libc.so*:mall*` or `FILE:0x1234`")]
    Empty(String),
    /// An address without its file.
    #[error("`{0}` is an address of no file: write FILE:0xADDRESS")]
    NoFile(String),
}

impl Pattern {
    /// Reads a pattern. The first colon that is not one of two (`a::b`) ends the file.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (file, name) = match single_colon(text) {
            Some(at) => (text.get(..at), text.get(at + 1..).unwrap_or_default()),
            None => (None, text),
        };
        if name.is_empty() || file == Some("") {
            return Err(PatternError::Empty(text.to_owned()));
        }
        let address = name.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let what = match address {
            Some(_) if file.is_none() => return Err(PatternError::NoFile(text.to_owned())),
            Some(address) => What::Address(ElfAddress(address)),
            None => What::Glob(WildMatch::new(name)),
        };
        Ok(Self { text: text.to_owned(), file: file.map(WildMatch::new), what })
    }

    /// Whether functions of the file at this path are meant: the pattern's file fits the whole path or its last part.
    pub fn is_of_file(&self, path: &str) -> bool {
        let last = path.rsplit('/').next().unwrap_or(path);
        self.file.as_ref().is_none_or(|file| file.matches(path) || file.matches(last))
    }

    /// The path of the one file that is meant, where the pattern says which.
    pub fn path(&self) -> Option<PathBuf> {
        let path = self.file.as_ref()?.pattern();
        (path.starts_with('/') && !path.contains(['*', '?'])).then(|| path.into())
    }

    /// Whether a function of this readable name is meant. Its parameters, and then its type arguments, may be left out.
    pub fn is_of_name(&self, name: &str) -> bool {
        let What::Glob(glob) = &self.what else { return false };
        let bare = without_parameters(name);
        glob.matches(name) || glob.matches(bare) || glob.matches(without_type_arguments(bare))
    }
}

/// Where the first colon is that has no neighbour.
fn single_colon(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let is_colon = |at: usize| bytes.get(at) == Some(&b':');
    (0..bytes.len()).find(|at| is_colon(*at) && !is_colon(at + 1) && !at.checked_sub(1).is_some_and(is_colon))
}

/// `f<int>(char const*) const` to `f<int>`.
pub(crate) fn without_parameters(name: &str) -> &str {
    let end = name.rfind(')').map_or(0, |at| at + 1);
    let after = name.get(end..).unwrap_or_default();
    // What may stand behind the parameters; anything else is part of the name.
    if end == 0 || !matches!(after.trim(), "" | "const" | "volatile" | "&" | "&&" | "const &" | "const &&") {
        return name;
    }
    bare(name, end, b'(', b')')
}

/// `f::<u32>` and `f<int>` to `f`.
fn without_type_arguments(name: &str) -> &str {
    if !name.ends_with('>') {
        return name;
    }
    let bare = bare(name, name.len(), b'<', b'>');
    bare.strip_suffix("::").unwrap_or(bare)
}

/// The name before the bracket that is closed right before `end`; all of it where nothing would be left.
fn bare(name: &str, end: usize, open: u8, close: u8) -> &str {
    let mut depth = 0_usize;
    for (at, byte) in name.as_bytes().iter().enumerate().take(end).rev() {
        if *byte == close {
            depth += 1;
        } else if *byte == open {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return name.get(..at).filter(|bare| !bare.is_empty()).unwrap_or(name);
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_as_people_write_them() {
        let check = |pattern: &str, name: &str, expected: bool| {
            let pattern = Pattern::parse(pattern).expect("a pattern");
            assert_eq!(pattern.is_of_name(name), expected, "{} of {name}", pattern.text);
        };
        check("main", "main", true);
        check("main", "domain", false);
        check("axum::*", "axum::serve::<T>", true);
        check("generics::largest", "generics::largest::<u32>", true);
        check("generics::largest::<u32>", "generics::largest::<u64>", false);
        check("space::foo", "space::foo(int, int)", true);
        check("space::foo", "space::foo<int>(int) const", true);
        check("*::operator()", "space::F::operator()(int)", true);
        check("(anonymous namespace)::f", "(anonymous namespace)::f(int)", true);
        check("<a::B as c::D>::e", "<a::B as c::D>::e", true);
        check("?ain", "main", true);
    }

    #[test]
    fn files_are_told_from_names() {
        let check = |pattern: &str, path: &str, expected: bool| {
            let pattern = Pattern::parse(pattern).expect("a pattern");
            assert_eq!(pattern.is_of_file(path), expected, "{} of {path}", pattern.text);
        };
        check("a::b", "/bin/anything", true);
        check("libc.so*:malloc", "/usr/lib/libc.so.6", true);
        check("libc.so*:malloc", "/usr/lib/libm.so.6", false);
        check("/usr/lib/libx.so:space::f", "/usr/lib/libx.so", true);
        check("/usr/lib/libx.so:f", "/opt/libx.so", false);
        let address = Pattern::parse("/bin/x:0x12ab").expect("a pattern");
        assert_eq!(address.what, What::Address(ElfAddress(0x12ab)));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let check = |text: &str, expected: PatternError| assert_eq!(Pattern::parse(text), Err(expected));
        for text in ["", "libc.so:", ":malloc"] {
            check(text, PatternError::Empty(text.to_owned()));
        }
        check("0x1234", PatternError::NoFile("0x1234".to_owned()));
    }
}
