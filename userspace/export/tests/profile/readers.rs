//! The programs that people read profiles with take the files, and see the same in them.
//!
//! Ignored unless asked for (`cargo test -p descry-export -- --ignored readers`): it needs python3, node and npm, and
//! installs the readers from PyPI and npm below cargo's target directory, once. The scripts are in `tests/readers`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use descry_export::format::{Format, WriteOptions, write};

use crate::support;

fn script(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../tests/readers", name].iter().collect()
}

fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// Where the readers are installed.
fn installed() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readers");
    run(Command::new("sh").arg(script("install.sh")).arg(&dir));
    dir
}

/// Every format of every profile, as files.
fn files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let profiles = [
        ("cpu", support::cpu()),
        ("timed", support::timed()),
        ("off-cpu", support::off_cpu()),
        ("empty", support::empty()),
    ];
    for (name, profile) in &profiles {
        for ending in ["pb.gz", "otlp", "otlp.json", "firefox.json", "speedscope.json", "svg"] {
            let path = dir.path().join(format!("{name}.{ending}"));
            let mut file = std::fs::File::create(&path).unwrap();
            let format = Format::from_path(&path).unwrap();
            write(profile, format, &mut file, &WriteOptions::default()).unwrap();
        }
    }
    dir
}

#[test]
#[ignore = "installs readers from PyPI and npm"]
fn readers_take_every_file_and_see_the_same() {
    let (readers, files) = (installed(), files());
    let python = readers.join("venv/bin/python3");
    let pprof = |arguments: &[&str], name: &str| {
        let mut command = Command::new(readers.join("venv/bin/go"));
        run(command.args(["tool", "pprof"]).args(arguments).arg(files.path().join(name)))
    };
    for name in ["cpu", "timed", "off-cpu", "empty"] {
        let path = |ending: &str| files.path().join(format!("{name}.{ending}"));
        run(Command::new(&python).arg(script("otlp.py")).args([path("otlp"), path("otlp.json")]));
        let schema = readers.join("node_modules/speedscope/dist/release/file-format-schema.json");
        run(Command::new(&python).arg(script("schema.py")).arg(&schema).arg(path("speedscope.json")));
        run(Command::new(&python).arg(script("svg.py")).arg(path("svg")));
        pprof(&["-raw"], &format!("{name}.pb.gz"));
        let mut node = Command::new("node");
        run(node.arg(script("pprof.cjs")).arg(path("pb.gz")).env("NODE_PATH", readers.join("node_modules")));
    }

    let top = pprof(&["-top", "-sample_index=samples"], "cpu.pb.gz");
    for expected in ["File: cruncher", "54 total", "32 59.26%", "cruncher::work", "[truncated]"] {
        assert!(top.contains(expected), "no {expected:?} in go tool pprof -top:\n{top}");
    }
    let tags = pprof(&["-tags"], "cpu.pb.gz");
    for expected in ["cruncher", "worker;1", "pid", "tid"] {
        assert!(tags.contains(expected), "no {expected:?} in go tool pprof -tags:\n{tags}");
    }
    let waits = pprof(&["-top"], "off-cpu.pb.gz");
    assert!(waits.contains("Type: offcpu") && waits.contains("1.23s"), "{waits}");

    let firefox = |name: &str| {
        let mut command = Command::new("sh");
        run(command.arg(script("firefox.sh")).arg(&readers).arg(files.path().join(name)))
    };
    let cpu = firefox("cpu.firefox.json");
    for expected in ["cruncher::work", "do_syscall_64", "worker;1"] {
        assert!(cpu.contains(expected), "no {expected:?} in what the Firefox Profiler reads:\n{cpu}");
    }
    assert!(firefox("timed.firefox.json").contains("cruncher::work"));
    assert!(firefox("off-cpu.firefox.json").contains("do_syscall_64"));
}
