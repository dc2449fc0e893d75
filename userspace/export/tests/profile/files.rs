//! Each format against the file that it is to be. `UPDATE_GOLDEN=1` writes these files anew: look at the difference.

use crate::support;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use descry_aggregate::profile::Profile;
use descry_export::format::{Format, WriteOptions, write};
use descry_export::otlp::{self, OtlpOptions};
use opentelemetry_proto::tonic::profiles::v1development::ProfilesData;
use prost::Message;
use serde_json::Value;

fn options() -> WriteOptions {
    WriteOptions { otlp: OtlpOptions { scope_version: "1.2.3".to_owned() }, ..WriteOptions::default() }
}

fn bytes(profile: &Profile, format: Format, options: &WriteOptions) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(profile, format, &mut bytes, options).unwrap();
    let mut again = Vec::new();
    write(profile, format, &mut again, options).unwrap();
    assert_eq!(bytes, again, "{format} is not the same twice");
    bytes
}

fn text(profile: &Profile, format: Format, options: &WriteOptions) -> String {
    String::from_utf8(bytes(profile, format, options)).unwrap()
}

fn indented(json: &str) -> String {
    let value = serde_json::from_str(json).unwrap();
    serde_json::to_string_pretty(&sorted(value)).unwrap() + "\n"
}

/// With members by name: whether serde_json keeps their order depends on features that other crates ask for.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> =
                members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            Value::Object(members.into_iter().collect())
        }
        Value::Array(values) => values.into_iter().map(sorted).collect(),
        other => other,
    }
}

fn check(name: &str, actual: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../tests/golden/profile", name].iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display()));
    similar(name, actual, &expected);
}

fn similar(name: &str, actual: &str, expected: &str) {
    for (number, (actual, expected)) in actual.lines().zip(expected.lines()).enumerate() {
        assert_eq!(actual, expected, "{name}, line {}", number + 1);
    }
    assert_eq!(actual, expected, "{name}");
}

#[test]
fn text_is_a_table_of_hot_functions() {
    check("cpu.txt", &text(&support::cpu(), Format::Text, &options()));
    check("off-cpu.txt", &text(&support::off_cpu(), Format::Text, &options()));
    check("empty.txt", &text(&support::empty(), Format::Text, &options()));
    let narrow = WriteOptions { per_thread: true, top: 5, width: Some(100), ..options() };
    check("threads-narrow.txt", &text(&support::cpu(), Format::Text, &narrow));
}

#[test]
fn colored_text_has_only_its_own_escapes() {
    let plain = text(&support::cpu(), Format::Text, &options());
    let colored = text(&support::cpu(), Format::Text, &WriteOptions { color: true, ..options() });
    assert!(!plain.contains('\x1b'));
    let stripped =
        ["\x1b[0m", "\x1b[1m", "\x1b[2m"].iter().fold(colored, |text, code| text.replace(code, ""));
    assert_eq!(stripped, plain);
}

#[test]
fn folded_has_a_line_a_stack() {
    check("cpu.folded", &text(&support::cpu(), Format::Folded, &options()));
    check("off-cpu.folded", &text(&support::off_cpu(), Format::Folded, &options()));
    let threads = WriteOptions { per_thread: true, ..options() };
    check("threads.folded", &text(&support::cpu(), Format::Folded, &threads));
    let user = WriteOptions { kernel: false, inlines: false, ..options() };
    check("user-no-inlines.folded", &text(&support::cpu(), Format::Folded, &user));
    assert_eq!(text(&support::empty(), Format::Folded, &options()), "");
}

/// Title and color of each box; the rest is inferno's.
fn boxes(svg: &str) -> String {
    let mut boxes = String::new();
    for part in svg.split("<title>").skip(1) {
        let (title, rest) = part.split_once("</title>").unwrap();
        let fill = rest.split_once("fill=\"").map_or("", |(_, fill)| fill.split('"').next().unwrap());
        boxes.push_str(&format!("{fill} {title}\n"));
    }
    boxes
}

#[test]
fn flamegraph_shows_each_stack() {
    let svg = text(&support::cpu(), Format::Flamegraph, &options());
    assert!(svg.contains("CPU time of cruncher and odd; name\\n\\u{1b}[31m 7"));
    check("cpu.svg.boxes", &boxes(&svg));
    check("off-cpu.svg.boxes", &boxes(&text(&support::off_cpu(), Format::Flamegraph, &options())));
    check("empty.svg", &text(&support::empty(), Format::Flamegraph, &options()));
}

#[test]
fn flamegraph_draws_a_function_once_beside_one_whose_name_begins_alike() {
    let mut profile = support::cpu();
    profile.functions[3].name = "main::inner".into();
    profile.stacks[1].locations = vec![3];
    profile.stacks[2].locations = vec![4];
    profile.stacks[2].truncated = false;
    profile.stacks[3].locations = vec![0, 4];
    let svg = text(&profile, Format::Flamegraph, &options());
    let of_odd = boxes(&svg);
    let of_main: Vec<_> = of_odd.lines().filter(|line| line.contains(" main (")).collect();
    assert_eq!(of_main.len(), 2, "one below each process: {of_odd}");
}

fn pprof(profile: &Profile) -> descry_proto::pprof::Profile {
    let mut message = Vec::new();
    let file = bytes(profile, Format::Pprof, &options());
    flate2::read::GzDecoder::new(file.as_slice()).read_to_end(&mut message).unwrap();
    Message::decode(message.as_slice()).unwrap()
}

#[test]
fn pprof_has_values_labels_and_mappings() {
    check("cpu.pprof", &format!("{:#?}\n", pprof(&support::cpu())));
    let off_cpu = pprof(&support::off_cpu());
    assert!(off_cpu.string_table.iter().any(|text| text == "offcpu"));
    assert_eq!(off_cpu.period_type, None);
    assert_eq!(pprof(&support::empty()).sample, []);
}

#[test]
fn otlp_keeps_the_rules_and_says_the_same_in_json() {
    for (name, profile) in [
        ("cpu.otlp.json", support::cpu()),
        ("timed.otlp.json", support::timed()),
        ("off-cpu.otlp.json", support::off_cpu()),
        ("empty.otlp.json", support::empty()),
    ] {
        let data = ProfilesData::decode(bytes(&profile, Format::Otlp, &options()).as_slice()).unwrap();
        assert_eq!(otlp::check(&data), Ok(()), "{name}");
        assert_eq!(data, otlp::profiles_data(&profile, &options().otlp));
        check(name, &indented(&text(&profile, Format::OtlpJson, &options())));
    }
    for (kernel, inlines) in [(false, true), (true, false), (false, false)] {
        let options = WriteOptions { kernel, inlines, ..options() };
        let data = bytes(&support::timed(), Format::Otlp, &options);
        assert_eq!(otlp::check(&ProfilesData::decode(data.as_slice()).unwrap()), Ok(()));
    }
}

#[test]
fn firefox_and_speedscope_hold_the_same_stacks() {
    for (kind, profile) in [
        ("cpu", support::cpu()),
        ("timed", support::timed()),
        ("off-cpu", support::off_cpu()),
        ("empty", support::empty()),
    ] {
        check(&format!("{kind}.firefox.json"), &indented(&text(&profile, Format::Firefox, &options())));
        if kind != "timed" {
            check(
                &format!("{kind}.speedscope.json"),
                &indented(&text(&profile, Format::Speedscope, &options())),
            );
        }
    }
    let threads = WriteOptions { per_thread: true, ..options() };
    check("threads.speedscope.json", &indented(&text(&support::cpu(), Format::Speedscope, &threads)));
}

#[test]
fn formats_have_names_and_endings() {
    for (path, format) in [
        ("a.svg", Some(Format::Flamegraph)),
        ("dir.svg/cpu.pb.gz", Some(Format::Pprof)),
        ("a.otlp", Some(Format::Otlp)),
        ("a.otlp.json", Some(Format::OtlpJson)),
        ("a.firefox.json", Some(Format::Firefox)),
        ("A.SPEEDSCOPE.JSON", Some(Format::Speedscope)),
        ("a.folded", Some(Format::Folded)),
        ("a.txt", Some(Format::Text)),
        ("a.json", None),
        ("a", None),
        ("/", None),
    ] {
        assert_eq!(Format::from_path(Path::new(path)), format, "{path}");
    }
    for name in Format::names() {
        assert_eq!(Format::from_str(name).unwrap().name(), name);
    }
    let error = Format::from_str("svg").unwrap_err().to_string();
    assert!(error.contains("\"svg\"") && error.contains("flamegraph"), "{error}");
}

/// Takes some bytes, then fails.
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_fails_is_an_error_of_each_format() {
    for name in Format::names() {
        let format = Format::from_str(name).unwrap();
        let error = write(&support::cpu(), format, &mut Full(20), &options()).unwrap_err();
        assert_eq!(error.source.kind(), std::io::ErrorKind::StorageFull, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}
