//! Any text as SQL of both dialects: what comes out is bounded, the same without what was not captured, but for its end,
//! and the same if it is known already.
#![no_main]

use descry_assemble::sql::{Backslash, Dialect, MAX_SUMMARY, MAX_TEXT, known_statement, statement};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for backslash in [Backslash::Unknown, Backslash::Escapes, Backslash::Plain] {
        for dialect in [Dialect::PostgreSql(backslash), Dialect::MySql(backslash)] {
            let told = statement(input, true, dialect);
            assert_eq!(*known_statement(input, true, dialect), told);
            assert!(told.text.len() <= MAX_TEXT + 3);
            let summary = told.summary.unwrap_or_default();
            assert!(summary.chars().count() <= MAX_SUMMARY);
            let half = input.get(..input.len() / 2).unwrap_or_default();
            let part = statement(half, false, dialect).summary.unwrap_or_default();
            assert!(summary.starts_with(&*part), "{part} is no beginning of {summary}");
        }
    }
});
