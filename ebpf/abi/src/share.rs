//! How many of a process's samples are taken.

/// A value of the map `SAMPLE_SHARES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SampleShare {
    /// So many of 2^32 samples are taken; 0: none is.
    pub taken: u32,
    /// Zero.
    pub reserved: u32,
    /// Time that one which is taken stands for (ns).
    pub weight: u64,
}
const _: () = assert!(size_of::<SampleShare>() == 16);
