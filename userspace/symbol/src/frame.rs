//! What an address turns out to be.

use std::sync::Arc;

/// Who made the code at an address: the values of `profile.frame.type` (OpenTelemetry semantic conventions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameKind {
    /// The Linux kernel or a module.
    Kernel,
    /// Compiled, of no language known better (C, C++, assembler).
    Native,
    /// Compiled by rustc.
    Rust,
    /// Compiled by Go.
    Go,
    /// Compiled at run time by V8 (named by a perf map).
    V8Js,
    /// Compiled at run time by a Java virtual machine.
    Jvm,
    /// Compiled at run time by something else.
    Jit,
}

impl FrameKind {
    /// The value of `profile.frame.type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Rust => "rust",
            Self::Go => "go",
            Self::V8Js => "v8js",
            Self::Jvm => "jvm",
            // The conventions have no name for other code made at run time.
            Self::Native | Self::Jit => "native",
        }
    }
}

/// One function of the source at an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceFrame {
    /// Demangled name.
    pub function: Arc<str>,
    /// Name as the linker knows it, where it differs.
    pub system_name: Option<Arc<str>>,
    /// Source file.
    pub file: Option<Arc<str>>,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// Whether the compiler put this function's code into its caller.
    pub inlined: bool,
}

/// All functions of the source at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbolized {
    /// Callee first; all but the last are inlined. Empty: no symbol covers the address.
    pub frames: Vec<SourceFrame>,
    /// Who made the code.
    pub kind: FrameKind,
}
