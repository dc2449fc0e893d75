//! Sizes of files, and words that may not stand in them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use walkdir::{DirEntry, WalkDir};

use crate::repo;

/// A longer file has become two things.
const MOST_LINES: usize = 600;

/// What is read, by the ending of its name.
const READ: &[&str] =
    &["rs", "toml", "md", "sh", "c", "h", "cpp", "S", "go", "py", "js", "proto", "yml", "yaml"];

/// Directories with files that nobody writes by hand.
const NOT_WRITTEN: &[&str] = &["target", ".git", "generated", "golden", "corpus", "artifacts", "prebuilt"];

/// Whole words that may not stand; written in halves, since this file is read too.
const WORDS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK")];

/// Macros of unfinished or abandoned code.
const MACROS: &[&str] = &[concat!("to", "do!("), concat!("unimplement", "ed!("), concat!("d", "bg!(")];

pub(super) fn check(findings: &mut Vec<String>) -> Result<()> {
    for entry in WalkDir::new(repo::root()).sort_by_file_name().into_iter().filter_entry(written_by_hand) {
        let entry = entry?;
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if !entry.file_type().is_file() || !extension.is_some_and(|extension| READ.contains(&extension)) {
            continue;
        }
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        match String::from_utf8(bytes) {
            Ok(text) => file(path, &text, extension == Some("rs"), findings),
            Err(_) => findings.push(format!("{}: is not UTF-8", repo::shown(path))),
        }
    }
    Ok(())
}

fn written_by_hand(entry: &DirEntry) -> bool {
    !(entry.file_type().is_dir() && NOT_WRITTEN.iter().any(|name| entry.file_name() == *name))
}

fn file(path: &Path, text: &str, is_rust: bool, findings: &mut Vec<String>) {
    let shown = repo::shown(path);
    let lines = text.lines().count();
    if is_rust && lines > MOST_LINES {
        findings.push(format!(
            "{shown}: {lines} lines, more than {MOST_LINES}: look for the two things it has become"
        ));
    }
    for (index, line) in text.lines().enumerate() {
        let words = || line.split(|c: char| !c.is_alphanumeric() && c != '_');
        for word in WORDS {
            if words().any(|it| it == *word) {
                findings.push(format!("{shown}:{}: {word} may not stand", index + 1));
            }
        }
        for name in MACROS {
            if is_rust && line.contains(name) {
                findings.push(format!("{shown}:{}: {name}...) may not stand", index + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let mut findings = Vec::new();
        file(&repo::root().join("a.rs"), text, true, &mut findings);
        assert_eq!(findings, expected);
    }

    #[test]
    fn words_that_may_not_stand_are_found_as_words() {
        check("let TODOS = 1; // nothing\n", &[]);
        check(concat!("fn f() {}\n// TO", "DO: more\n"), &[concat!("a.rs:2: TO", "DO may not stand")]);
        check(concat!("d", "bg!(x);\n"), &[concat!("a.rs:1: d", "bg!(...) may not stand")]);
    }

    #[test]
    fn long_files_are_found() {
        check(&"\n".repeat(600), &[]);
        check(&"\n".repeat(601), &["a.rs: 601 lines, more than 600: look for the two things it has become"]);
    }
}
