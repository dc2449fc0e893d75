//! Rows against an independent reader: what `readelf --debug-dump=frames-interp` says of real files.
//!
//! Both are constant between the addresses at which either of them changes, so agreement at each such address is
//! agreement everywhere.
#![cfg(target_arch = "x86_64")]

mod files;

use descry_abi::unwind::{CfaKind, FpKind};
use descry_decode::ids::ElfAddress;
use descry_unwind::{Limits, Rule, rows};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;

/// What readelf prints for an address: the columns CFA, rbp and ra.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    cfa: String,
    rbp: String,
    ra: String,
}

impl Said {
    /// Whether `rule` says the same, as far as a rule can.
    fn agrees(&self, rule: Rule) -> bool {
        if self.ra == "u" {
            return rule.cfa == CfaKind::End;
        }
        let number = |text: &str| text.parse::<i64>().ok().filter(|n| n % 8 == 0).map(|n| n / 8);
        let fp = match self.rbp.as_str() {
            // readelf prints one letter for "not said" and for "undefined".
            "u" | "s" => matches!(rule.fp, FpKind::Same | FpKind::Undefined),
            at if at.starts_with('c') => {
                rule.fp == FpKind::AtCfa && number(&at[1..]) == Some(i64::from(rule.fp_words))
            }
            _ => return rule.cfa == CfaKind::Complex || (self.cfa == "exp" && rule.cfa == CfaKind::Signal),
        };
        if self.ra != "c-8" {
            return matches!(rule.cfa, CfaKind::Complex | CfaKind::Signal);
        }
        let cfa = match self.cfa.split_once('+') {
            Some(("rsp", words)) => {
                rule.cfa == CfaKind::Sp && number(words) == Some(i64::from(rule.cfa_words))
            }
            Some(("rbp", words)) => {
                rule.cfa == CfaKind::Fp && number(words) == Some(i64::from(rule.cfa_words))
            }
            None if self.cfa == "exp" => match rule.cfa {
                CfaKind::Complex => return true,
                kind => matches!(kind, CfaKind::Plt | CfaKind::SpDeref | CfaKind::FpDeref),
            },
            _ => return rule.cfa == CfaKind::Complex,
        };
        cfa && fp
    }
}

/// The output of readelf as address -> what is said from there on; `None`: no function.
fn parse(text: &str) -> BTreeMap<u64, Option<Said>> {
    let hex = |text: &str| u64::from_str_radix(text, 16).expect("a hexadecimal number");
    let mut rows = BTreeMap::new();
    let mut ends = Vec::new();
    let mut cies: HashMap<String, Said> = HashMap::new();
    let mut columns: Vec<String> = Vec::new();
    // The CIE at hand, if it is one.
    let mut cie = None;
    for line in text.lines() {
        // A register in a column has its name beside it: "r9 (r9)".
        let line = line.replace(" (", "(");
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.contains(" CIE ") {
            cie = Some(words[0].to_owned());
        } else if let Some(at) = words.iter().position(|word| word.starts_with("cie=")) {
            cie = None;
            let (start, end) = words[at + 1]["pc=".len()..].split_once("..").expect("a range");
            let (start, end) = (hex(start), hex(end));
            if start < end {
                // Rows of its own, if any, replace the CIE's. A CIE without instructions has none.
                let none = || Said { cfa: "u".into(), rbp: "u".into(), ra: "s".into() };
                let initial = cies.get(&words[at]["cie=".len()..]).cloned();
                rows.insert(start, Some(initial.unwrap_or_else(none)));
                ends.push(end);
            }
        } else if words.first() == Some(&"LOC") {
            columns = words.into_iter().map(str::to_owned).collect();
        } else if words.len() == columns.len() && words.first().is_some_and(|w| w.len() == 16) {
            let column =
                |name| columns.iter().position(|c| *c == name).map_or("u", |at| words[at]).to_owned();
            let said = Said { cfa: column("CFA"), rbp: column("rbp"), ra: column("ra") };
            match &cie {
                Some(offset) => drop(cies.insert(offset.clone(), said)),
                None => drop(rows.insert(hex(words[0]), Some(said))),
            }
        }
    }
    for end in ends {
        rows.entry(end).or_insert(None);
    }
    rows
}

fn readelf(file: &Path) -> String {
    let output = Command::new("readelf")
        .args(["--wide", "--debug-dump=frames-interp,no-follow-links"])
        .arg(file)
        .output()
        .expect("this test needs readelf (Debian: apt-get install binutils)");
    assert!(output.status.success(), "readelf failed on {}", file.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Compares all of one file; gives the number of addresses compared.
fn compare(file: &Path) -> usize {
    let bytes = std::fs::read(file).expect("a readable file");
    let (rows, report) = rows::build(&bytes, None, &Limits::default()).expect("rows");
    assert_eq!((report.bad_cies, report.bad_fdes, report.bad_instructions, report.overlapping), (0, 0, 0, 0));
    let said = parse(&readelf(file));
    let addresses: BTreeSet<u64> = said.keys().copied().chain(rows.iter().map(|(at, _)| at.0)).collect();
    for address in &addresses {
        let rule = rows.find(ElfAddress(*address));
        let expected = said.range(..=address).next_back().and_then(|(_, said)| said.as_ref());
        let agrees = match expected {
            Some(said) => said.agrees(rule),
            None => rule == Rule::NONE,
        };
        assert!(agrees, "{}: at {address:#x} readelf says {expected:?}, rows say {rule:?}", file.display());
    }
    // Most of a file must have rules that the kernel side can follow.
    assert!(report.complex_rules * 50 <= report.rows, "{}: {report:?}", file.display());
    addresses.len()
}

#[test]
fn libc() {
    assert!(compare(&files::libc()) > 10_000);
}

#[test]
fn libcrypto() {
    assert!(compare(&files::libcrypto()) > 10_000);
}

#[test]
fn python() {
    // The interpreter itself lies in the program or in a library, as it was configured.
    let (program, library) = files::python();
    assert!(compare(&program) + library.map_or(0, |library| compare(&library)) > 10_000);
}

#[test]
fn the_vdso() {
    let vdso = files::vdso();
    let path = std::env::temp_dir().join(format!("descry-vdso-{}.so", std::process::id()));
    std::fs::write(&path, vdso).expect("a temporary file");
    let compared = compare(&path);
    std::fs::remove_file(&path).expect("the file that was written");
    assert!(compared > 10);
}

#[test]
fn rust_release() {
    assert!(compare(&files::libstd()) > 5_000);
}

#[test]
fn this_program() {
    assert!(compare(&files::this_program()) > 5_000);
}
