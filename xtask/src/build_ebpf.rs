//! Builds the kernel side: one object for each architecture, as alike on every machine as the compiler allows.
//!
//! Two compilers can do it on a machine without patches: Debian's `rustc-web`, which has `core` for BPF prebuilt,
//! and rustup's nightly with `rust-src`, which builds `core` itself.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{self, cargo_home, output, quiet, step, which};
use crate::install::{self, EBPF_LINKER, EBPF_RUST};
use crate::repo;
use crate::source_hash;
use crate::strip;

/// The architectures that objects are built for; an object fits the register layout of one.
pub const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

const TARGET: &str = "bpfel-unknown-none";
const LINKER_VERSION: &str = "0.13";
const INSTALL_LINKER: [&str; 7] =
    ["install", "bpf-linker", "--version", "0.13.0", "--no-default-features", "--features", "llvm-22"];
const LLVM: &str = "/usr/lib/llvm-22";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// The options of `build-ebpf`.
#[derive(clap::Args)]
pub struct Args {
    /// Install what is missing (apt as root, and cargo).
    #[arg(long)]
    install: bool,
    /// Only check that the objects were built from the sources as they are now.
    #[arg(long, conflicts_with = "install")]
    check: bool,
    /// Where the objects go.
    #[arg(long, value_name = "DIR", default_value = "ebpf/prebuilt")]
    out: PathBuf,
}

/// Builds the objects, or checks them.
pub fn run(args: &Args) -> Result<()> {
    let directory = match args.out.is_absolute() {
        true => args.out.clone(),
        // A default is meant from the root of the checkout, a path that was typed from where one stands.
        false if args.out == Path::new("ebpf/prebuilt") => repo::root().join(&args.out),
        false => env::current_dir()?.join(&args.out),
    };
    if args.check {
        return source_hash::check(&directory);
    }
    build(&directory, args.install)
}

/// Builds the objects and the hash of their sources into `directory`.
pub fn build(directory: &Path, may_install: bool) -> Result<()> {
    let toolchain = Toolchain::find_or_install(may_install)?;
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    for arch in ARCHITECTURES {
        let object = toolchain.build(arch)?;
        let to = directory.join(format!("descry.{arch}.bpf.o"));
        let size = strip::without_dwarf(&object, &to)?;
        eprintln!("    {}: {size} bytes", repo::shown(&to));
    }
    source_hash::write(directory)
}

enum Compiler {
    /// Debian's rustc at [`DEBIAN_RUSTC`], driven by whichever cargo runs this.
    Debian,
    /// `rustup run nightly`, with the directory of its sources.
    Nightly { sysroot: PathBuf },
}

struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

impl Toolchain {
    fn find_or_install(may_install: bool) -> Result<Self> {
        if may_install {
            if Compiler::find().is_none() {
                install::ensure(EBPF_RUST, "compiling the kernel side")?;
            }
            if find_linker().is_none() {
                install::ensure(EBPF_LINKER, "compiling bpf-linker")?;
                step(format!("installing bpf-linker: cargo {}", INSTALL_LINKER.join(" ")));
                quiet(
                    repo::cargo()
                        .args(INSTALL_LINKER)
                        .arg("--force")
                        .env_remove("CARGO_TARGET_DIR")
                        .env("LLVM_PREFIX", LLVM)
                        .env("LLVM_SYS_221_PREFIX", LLVM),
                )?;
            }
        }
        match (Compiler::find(), find_linker()) {
            (Some(compiler), Some(linker)) => Ok(Self { compiler, linker }),
            (compiler, linker) => bail!("{}", what_to_install(compiler.is_none(), linker.is_none())),
        }
    }

    fn build(&self, arch: &str) -> Result<PathBuf> {
        step(format!("building the kernel side for {arch} with {}", self.compiler.name()));
        let programs = repo::root().join("ebpf/programs");
        if !programs.join("Cargo.toml").exists() {
            bail!("{} is not there", repo::shown(&programs.join("Cargo.toml")));
        }
        // Of their own, since both architectures are one target to cargo.
        let target_dir = repo::target().join("ebpf-build").join(arch);
        let mut command = self.compiler.cargo(&programs);
        command
            .args(["build", "--quiet", "--release", "--target", TARGET])
            .arg("--target-dir")
            .arg(&target_dir)
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
            .env("CARGO_ENCODED_RUSTFLAGS", self.compiler.flags(arch).join("\u{1f}"));
        if let Compiler::Nightly { .. } = self.compiler {
            command.arg("-Zbuild-std=core");
        }
        command::run(&mut command)?;
        Ok(target_dir.join(TARGET).join("release/descry"))
    }
}

impl Compiler {
    fn find() -> Option<Self> {
        if debian_has_core() {
            return Some(Self::Debian);
        }
        let rustup = which("rustup")?;
        let mut rustc = Command::new(rustup);
        rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN");
        let answer = rustc.output().ok().filter(|answer| answer.status.success())?;
        let sysroot = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
        sysroot.join("lib/rustlib/src/rust/library/core").is_dir().then_some(Self::Nightly { sysroot })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Debian => "Debian's rustc",
            Self::Nightly { .. } => "rustup's nightly",
        }
    }

    fn cargo(&self, directory: &Path) -> Command {
        let mut command = match self {
            Self::Debian => {
                let mut command = repo::cargo();
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Self::Nightly { .. } => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
                command
            }
        };
        command.current_dir(directory).env_remove("RUSTC_WRAPPER").env_remove("RUSTC_WORKSPACE_WRAPPER");
        command
    }

    /// The flags of rustc, with every path of this machine replaced: objects are committed, and should come
    /// out alike elsewhere.
    fn flags(&self, arch: &str) -> Vec<String> {
        let mut flags: Vec<String> = vec![
            format!("--cfg=bpf_target_arch=\"{arch}\""),
            // A fifth fewer instructions for the verifier than the default of v1.
            "-Ctarget-cpu=v3".into(),
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
        ];
        let mut remap = |from: &Path, to: &str| {
            flags.push(format!("--remap-path-prefix={}={to}", from.display()));
        };
        // The last one that matches wins: the checkout may lie below the home.
        remap(&cargo_home(), "/cargo");
        if let Self::Nightly { sysroot } = self {
            remap(sysroot, "/rust");
        }
        remap(&repo::target(), "/target");
        remap(repo::root(), "/descry");
        flags
    }
}

fn debian_has_core() -> bool {
    if !Path::new(DEBIAN_RUSTC).exists() {
        return false;
    }
    let Ok(sysroot) = output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"])) else { return false };
    let library = Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib");
    fs::read_dir(library).is_ok_and(|files| {
        files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn find_linker() -> Option<PathBuf> {
    let linker = which("bpf-linker")?;
    let version = output(Command::new(&linker).arg("--version")).ok()?;
    version.strip_prefix("bpf-linker ")?.starts_with(LINKER_VERSION).then_some(linker)
}

fn what_to_install(compiler: bool, linker: bool) -> String {
    let mut text = String::from("the kernel side cannot be built here yet.");
    if compiler {
        text += &format!(
            "\n\nA Rust compiler with `core` for {TARGET} is missing. Either, on Debian, as root:\n  {}\n\
             or, anywhere:\n  rustup toolchain install nightly --component rust-src",
            install::apt_line(EBPF_RUST),
        );
    }
    if linker {
        text += &format!(
            "\n\nbpf-linker {LINKER_VERSION} is missing. On Debian:\n  {}   (as root)\n  \
             LLVM_PREFIX={LLVM} LLVM_SYS_221_PREFIX={LLVM} cargo {}\n\
             elsewhere, with LLVM 22 where your system has it: cargo install bpf-linker --version 0.13.0",
            install::apt_line(EBPF_LINKER),
            INSTALL_LINKER.join(" "),
        );
    }
    text += "\n\nOn Debian, `cargo xtask build-ebpf --install` as root does all of this. \
             Plain `cargo build` needs none of it: it takes the objects in ebpf/prebuilt.";
    text
}
