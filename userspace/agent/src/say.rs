//! Words on stderr.

/// Writes a line to stderr. Whoever reads it may be gone, which is no reason to end.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}
