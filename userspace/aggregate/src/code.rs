//! A place in code, before it has a name.

use std::sync::Arc;

use descry_decode::ids::{ElfAddress, FileOffset, RuntimeAddress, Tgid};
use descry_process::object::ObjectId;

/// A place in code. Return addresses have been turned into the address of their call (minus one).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CodeRef {
    /// In the kernel.
    Kernel(RuntimeAddress),
    /// In a binary.
    Object {
        /// Which.
        id: ObjectId,
        /// In its own numbering.
        address: ElfAddress,
    },
    /// Made at run time by this process.
    Jit {
        /// The process.
        tgid: Tgid,
        /// Where in it.
        address: RuntimeAddress,
    },
    /// In a file that cannot be used.
    Unreadable {
        /// Its path.
        name: Arc<str>,
        /// Where in it.
        offset: FileOffset,
    },
    /// In no known mapping.
    Unknown(RuntimeAddress),
    /// No code: words that stand in a stack.
    Label(Arc<str>),
}
