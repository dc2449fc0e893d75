//! Queries of URLs without what they ask for.

/// Longest query that is told (bytes).
const MAX_QUERY: usize = 512;
/// What stands for a value (semantic conventions, `url.query`).
const REDACTED: &str = "REDACTED";

/// A query with its values masked: of `id=4&q=me` comes `id=REDACTED&q=REDACTED`. What is no plain name with a value is
/// masked as a whole.
pub(super) fn masked(query: &str) -> Box<str> {
    let mut masked = String::new();
    for part in query.split('&') {
        let name = part.split_once('=').map(|(name, _)| name).filter(|name| is_name(name));
        let name_len = name.map_or(0, |name| name.len() + 1);
        if masked.len() + 1 + name_len + REDACTED.len() > MAX_QUERY {
            break;
        }
        if !masked.is_empty() {
            masked.push('&');
        }
        if let Some(name) = name {
            masked.push_str(name);
            masked.push('=');
        }
        masked.push_str(REDACTED);
    }
    masked.into()
}

/// Whether this is how programmers name parameters.
fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.[]".contains(&byte);
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    (1..=32).contains(&name.len()) && digits <= 3 && name.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: &str) {
        assert_eq!(*masked(query), *expected, "{query}");
    }

    #[test]
    fn values_are_masked() {
        check("id=4&q=me", "id=REDACTED&q=REDACTED");
        check("secret", "REDACTED");
        check("", "REDACTED");
        check("f[0]=a=b&&=x", "f[0]=REDACTED&REDACTED&REDACTED");
        check("4111111111111111=x", "REDACTED");
        check("joe%40example.com=x", "REDACTED");
        assert!(masked(&"a=1&".repeat(1000)).len() <= MAX_QUERY);
    }
}
