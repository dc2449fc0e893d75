//! Names that a misspelt pattern may have meant.

use std::cmp::Reverse;

use crate::pattern::without_parameters;

/// Names that are compared at most; comparing takes the product of two lengths.
const MAX_COMPARED: usize = 200_000;
/// Bytes of a name that are compared.
const MAX_NAME: usize = 128;
/// How alike two names must be, from 0 to 1.
const LEAST: f64 = 0.75;

/// The names nearest to `wanted`, best first, at most `count`.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>, count: usize) -> Vec<&'a str> {
    let wanted: String = wanted.replace('*', "").chars().take(MAX_NAME).collect();
    let alike = |name: &str| {
        let whole = without_parameters(name);
        let last = whole.rsplit("::").next().unwrap_or(whole);
        let compare = |name: &str| {
            if name.len() > MAX_NAME { 0.0 } else { strsim::jaro_winkler(&wanted, name) }
        };
        compare(whole).max(compare(last))
    };
    let mut found: Vec<(Reverse<u64>, &str)> = names
        .take(MAX_COMPARED)
        .map(|name| (alike(name), name))
        .filter(|(alike, _)| *alike >= LEAST)
        .map(|(alike, name)| (Reverse((alike * 1e9) as u64), name))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(count).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_come_first() {
        let check = |wanted: &str, expected: &[&str]| {
            let names = ["handle_request", "handle_response", "main", "space::compute(int)"];
            assert_eq!(nearest(wanted, names.into_iter(), 2), expected, "{wanted}");
        };
        check("handle_requst", &["handle_request", "handle_response"]);
        check("compute*x", &["space::compute(int)"]);
        check("zzz", &[]);
    }
}
