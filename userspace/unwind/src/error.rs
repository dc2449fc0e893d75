//! Why a file gives no rows at all.

/// A file that cannot be used as a whole. Faults inside its tables are counted in [`crate::Report`] instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a 64-bit ELF file, or one whose headers are broken.
    #[error("not a readable 64-bit ELF file: {reason}; its code is unwound by frame pointers only")]
    Elf {
        /// What the parser said.
        reason: object::read::Error,
    },
    /// Another instruction set, or the other byte order.
    #[error("ELF file for {machine}; unwinding knows little-endian x86_64 and aarch64 only")]
    Machine {
        /// The architecture that the file's header names.
        machine: String,
    },
    /// No table of call frame information.
    #[error("no .eh_frame and no .debug_frame; its code is unwound by frame pointers only")]
    NoCallFrameInformation,
}
