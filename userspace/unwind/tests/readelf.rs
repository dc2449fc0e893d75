//! Rows against an independent reader: what `readelf --debug-dump=frames-interp` says of real files.
//!
//! Both are constant between the addresses at which either of them changes, so agreement at each such address is
//! agreement everywhere.
#![cfg(target_arch = "x86_64")]

mod files;

use descry_abi::unwind::{CfaKind, FAR, FpKind};
use descry_decode::ids::ElfAddress;
use descry_unwind::{Limits, Rule, rows};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;

/// The two instruction sets, with readelf's names of what matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    fn of(elf: &[u8]) -> Self {
        if elf[18] == 62 { Self::X86_64 } else { Self::Aarch64 }
    }

    fn sp(self) -> &'static str {
        if self == Self::X86_64 { "rsp" } else { "sp" }
    }

    /// Number of the return address.
    fn ra(self) -> &'static str {
        if self == Self::X86_64 { "ra=16" } else { "ra=30" }
    }

    fn fp(self) -> &'static str {
        if self == Self::X86_64 { "rbp" } else { "x29" }
    }
}

/// What readelf prints for an address: the columns of the CFA, the frame pointer and the return address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    cfa: String,
    fp: String,
    ra: String,
}

/// The words of "rsp+16" or "c-16".
fn words(text: &str, register: &str) -> Option<i64> {
    let bytes: i64 = text.strip_prefix(register)?.parse().ok()?;
    (bytes % 8 == 0).then_some(bytes / 8)
}

/// readelf prints one letter for "not said" and for "undefined", another for "the same".
fn unsaved(text: &str) -> bool {
    matches!(text, "u" | "s")
}

impl Said {
    /// Whether `rule` says the same, as far as a rule can.
    fn agrees(&self, rule: Rule, machine: Machine) -> bool {
        if rule.cfa == CfaKind::Signal {
            return self.cfa == "exp" && self.ra == "exp";
        }
        let x86_64 = machine == Machine::X86_64;
        if self.ra == "u" && (x86_64 || rule.cfa == CfaKind::End) {
            return rule.cfa == CfaKind::End;
        }
        let fp = words(&self.fp, "c");
        // Which expression it is, readelf does not say here.
        let fp_by_expression = self.fp == "exp";
        if fp_by_expression && rule.cfa == CfaKind::Complex {
            return true;
        }
        let kinds: &[FpKind] = match (machine, fp, words(&self.ra, "c")) {
            (Machine::X86_64, Some(_), Some(-1)) => &[FpKind::AtCfa],
            (Machine::X86_64, None, Some(-1)) if unsaved(&self.fp) => &[FpKind::Same, FpKind::Undefined],
            (Machine::X86_64, None, Some(-1)) if fp_by_expression => &[FpKind::AtFp, FpKind::AtCfa],
            (Machine::Aarch64, Some(fp), Some(ra)) if ra == fp + 1 => &[FpKind::AtCfa],
            (Machine::Aarch64, None, None) if unsaved(&self.fp) && unsaved(&self.ra) => {
                &[FpKind::SameReturnInRegister]
            }
            _ => return rule.cfa == CfaKind::Complex,
        };
        let (cfa, cfa_words) = match (words(&self.cfa, machine.sp()), words(&self.cfa, machine.fp())) {
            (Some(words), _) => (CfaKind::Sp, words),
            (_, Some(words)) => (CfaKind::Fp, words),
            _ if self.cfa == "exp" => {
                let exact = [CfaKind::Complex, CfaKind::Plt, CfaKind::SpDeref, CfaKind::FpDeref];
                return exact.contains(&rule.cfa);
            }
            _ => return rule.cfa == CfaKind::Complex,
        };
        let far = if rule.cfa == CfaKind::SpFar { FAR as i64 / 8 } else { 0 };
        let found = if rule.cfa == CfaKind::SpFar { CfaKind::Sp } else { rule.cfa };
        (found, i64::from(rule.cfa_words) + far) == (cfa, cfa_words)
            && kinds.contains(&rule.fp)
            && (fp_by_expression || i64::from(rule.fp_words) == fp.unwrap_or(0))
    }
}

/// The output of readelf as address -> what is said from there on; `None`: no function.
fn parse(text: &str, machine: Machine) -> BTreeMap<u64, Option<Said>> {
    let hex = |text: &str| u64::from_str_radix(text, 16).expect("a hexadecimal number");
    let mut rows = BTreeMap::new();
    let mut ends = Vec::new();
    let mut cies: HashMap<String, Said> = HashMap::new();
    let mut columns: Vec<String> = Vec::new();
    // The CIE at hand, if it is one; CIEs whose return address is in an unusual register, and whether this one's is.
    let mut cie = None;
    let mut odd = BTreeSet::new();
    let mut is_odd = false;
    for line in text.lines() {
        // A register in a column has its name beside it: "r9 (r9)".
        let line = line.replace(" (", "(");
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.contains(" CIE ") {
            cie = Some(words[0].to_owned());
            is_odd = words.last() != Some(&machine.ra());
            if is_odd {
                odd.insert(words[0].to_owned());
            }
        } else if let Some(at) = words.iter().position(|word| word.starts_with("cie=")) {
            cie = None;
            let offset = &words[at]["cie=".len()..];
            is_odd = odd.contains(offset);
            let (start, end) = words[at + 1]["pc=".len()..].split_once("..").expect("a range");
            let (start, end) = (hex(start), hex(end));
            if start < end {
                // Rows of its own, if any, replace the CIE's. A CIE without instructions has none.
                let none = || Said { cfa: "u".into(), fp: "u".into(), ra: "exp".into() };
                let initial = cies.get(offset).cloned();
                rows.insert(start, Some(initial.unwrap_or_else(none)));
                ends.push(end);
            }
        } else if words.first() == Some(&"LOC") {
            columns = words.into_iter().map(str::to_owned).collect();
        } else if words.len() == columns.len() && words.first().is_some_and(|w| w.len() == 16) {
            let column =
                |name| columns.iter().position(|c| *c == name).map_or("u", |at| words[at]).to_owned();
            let ra = if is_odd { "exp".into() } else { column("ra") };
            let said = Said { cfa: column("CFA"), fp: column(machine.fp()), ra };
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
    let machine = Machine::of(&bytes);
    let said = parse(&readelf(file), machine);
    let addresses: BTreeSet<u64> = said.keys().copied().chain(rows.iter().map(|(at, _)| at.0)).collect();
    for address in &addresses {
        let rule = rows.find(ElfAddress(*address));
        let expected = said.range(..=address).next_back().and_then(|(_, said)| said.as_ref());
        let agrees = match expected {
            Some(said) => said.agrees(rule, machine),
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
fn libc_of_aarch64() {
    match files::libc_of_aarch64() {
        Some(path) => assert!(compare(&path) > 10_000),
        None => eprintln!("not compared: Debian's libc6-arm64-cross is not installed"),
    }
}

#[test]
fn rust_release() {
    assert!(compare(&files::libstd()) > 5_000);
}

#[test]
fn this_program() {
    assert!(compare(&files::this_program()) > 5_000);
}
