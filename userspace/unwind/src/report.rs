//! What was found and what was left out while a file's tables were read.

/// Bounds on what one file may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one section after decompression; a larger one is left out.
    pub section_bytes: u64,
    /// Functions (FDEs) of one file; further ones are left out. 24 B each while rows are built.
    pub fdes: usize,
    /// Rows of one file; functions that come after are left out. 12 B each.
    pub rows: usize,
}

impl Default for Limits {
    /// Room for the largest programs known (Chromium: 0.7 M functions, 5 M rows).
    fn default() -> Self {
        Self { section_bytes: 64 << 20, fdes: 4 << 20, rows: 16 << 20 }
    }
}

/// Named counts of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Functions (FDEs) that were read.
    pub fdes: u64,
    /// Rows that came out, gaps between functions included.
    pub rows: u64,
    /// CIEs that could not be read; each costs the functions that refer to it.
    pub bad_cies: u64,
    /// FDEs that could not be read, those of bad CIEs included.
    pub bad_fdes: u64,
    /// Entries whose length points out of the section, so that the ones after had to be searched for.
    pub bad_lengths: u64,
    /// Functions left out because one of their instructions is unknown or wrong.
    pub bad_instructions: u64,
    /// Rows whose rule only the userspace walk can follow.
    pub complex_rules: u64,
    /// Functions that begin inside another one; the other one ends there.
    pub overlapping: u64,
    /// Functions of a table of lower rank (`.debug_frame`, the debug file) that another table describes too.
    pub duplicates: u64,
    /// Functions that do not lie in executable segments, as the linker leaves them behind for removed code.
    pub outside_code: u64,
    /// Functions left out because of [`Limits`].
    pub over_limit: u64,
    /// Sections left out: compressed in an unknown or broken way, or larger than [`Limits::section_bytes`].
    pub bad_sections: u64,
    /// Debug files left out: not ELF, or for another architecture.
    pub bad_debug_files: u64,
}

impl Report {
    /// All counts with their names, for metrics and messages.
    pub fn counts(&self) -> [(&'static str, u64); 13] {
        [
            ("fdes", self.fdes),
            ("rows", self.rows),
            ("bad_cies", self.bad_cies),
            ("bad_fdes", self.bad_fdes),
            ("bad_lengths", self.bad_lengths),
            ("bad_instructions", self.bad_instructions),
            ("complex_rules", self.complex_rules),
            ("overlapping", self.overlapping),
            ("duplicates", self.duplicates),
            ("outside_code", self.outside_code),
            ("over_limit", self.over_limit),
            ("bad_sections", self.bad_sections),
            ("bad_debug_files", self.bad_debug_files),
        ]
    }
}
