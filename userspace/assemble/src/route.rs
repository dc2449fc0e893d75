//! Routes: what paths of HTTP requests have in common, so that names of spans are few.
//!
//! A path that a configured pattern matches is named by it. Of any other, segments that look like ids are drawn
//! together. `GET /users/42` and `GET /users/43` are both `/users/{id}`.

use std::borrow::Cow;
use std::str::FromStr;

/// Segments of a path that a name has at most; the rest becomes [`REST`].
const MAX_SEGMENTS: usize = 8;
/// Longest segment that may be a name.
const MAX_SEGMENT: usize = 48;
/// What stands for an id.
const ID: &str = "{id}";
/// What stands for all further segments.
const REST: &str = "*";

/// Patterns of routes, in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<Pattern>);

impl FromIterator<Pattern> for Routes {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

/// A pattern: `/users/{id}/files/*`. `{NAME}` is any one segment, `*` at the end any number of further ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    segments: Vec<Part>,
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Any,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No slash.
    #[error("a route begins with /")]
    NoSlash,
    /// A star before the end.
    #[error("* stands only for the last segments of a route")]
    StarInside,
    /// `{` without `}`, or within a segment.
    #[error("{{NAME}} stands for a whole segment of a route")]
    Braces,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let path = text.strip_prefix('/').ok_or(PatternError::NoSlash)?;
        let open = path == REST || path.ends_with("/*");
        let path = if open { path.trim_end_matches(REST).trim_end_matches('/') } else { path };
        let mut segments = Vec::new();
        for segment in path.split('/').filter(|_| !path.is_empty()) {
            let inside = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            segments.push(match inside {
                Some(name) if !name.is_empty() && !name.contains(['{', '}']) => Part::Any,
                _ if segment.contains(['{', '}']) => return Err(PatternError::Braces),
                _ if segment.contains('*') => return Err(PatternError::StarInside),
                _ => Part::Literal(segment.into()),
            });
        }
        Ok(Self { text: text.into(), segments, open })
    }
}

impl Pattern {
    fn matches(&self, path: &str) -> bool {
        let path = path.strip_prefix('/').unwrap_or(path);
        let mut found = path.split('/').filter(|_| !path.is_empty());
        for part in &self.segments {
            match (part, found.next()) {
                (Part::Any, Some(_)) => {}
                (Part::Literal(text), Some(segment)) if **text == *segment => {}
                _ => return false,
            }
        }
        self.open || found.next().is_none()
    }
}

impl Routes {
    /// The route of a path (without its query).
    pub fn of(&self, path: &str) -> Cow<'static, str> {
        match self.0.iter().find(|pattern| pattern.matches(path)) {
            Some(pattern) => Cow::Owned(pattern.text.to_string()),
            None => guess(path),
        }
    }
}

/// A path with its ids drawn together.
fn guess(path: &str) -> Cow<'static, str> {
    let Some(inside) = path.strip_prefix('/') else { return Cow::Borrowed(REST) };
    if inside.is_empty() {
        return Cow::Borrowed("/");
    }
    let mut route = String::with_capacity(path.len().min(MAX_SEGMENTS * (MAX_SEGMENT + 1)));
    for (index, segment) in inside.split('/').enumerate() {
        route.push('/');
        if index == MAX_SEGMENTS {
            route.push_str(REST);
            break;
        }
        route.push_str(if is_id(segment) { ID } else { segment });
    }
    Cow::Owned(route)
}

/// Whether a segment looks like one of many: numbers, UUIDs, hashes, tokens, addresses of mail, what is not a plain name.
fn is_id(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    let hex = || bytes.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    let mixed = || {
        bytes.iter().any(u8::is_ascii_lowercase)
            && bytes.iter().filter(|byte| byte.is_ascii_uppercase()).count() >= 4
            && !bytes.iter().any(|byte| b"-_.".contains(byte))
    };
    if bytes.len() > MAX_SEGMENT || !bytes.iter().all(is_name) {
        return true;
    }
    match digits {
        0 => false,
        // `v1`, `oauth2`, `2fa`, `s3` are names; `7` is not.
        1 => digits == bytes.len() || (bytes.len() >= 8 && hex()),
        2..=3 => {
            digits == bytes.len()
                || (bytes.len() >= 8 && hex())
                || (bytes.len() >= 12 && mixed())
                || bytes.len() >= 24
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], path: &str, expected: &str) {
        let routes: Routes = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        assert_eq!(routes.of(path), expected, "{path}");
    }

    #[test]
    fn names_stay() {
        for path in [
            "/",
            "/users",
            "/api/v1/users",
            "/api/v2.1/oauth2/2fa",
            "/a//b/",
            "/static/app.min.js",
            "/order-items/by_name/~me",
            "/internationalization-of-applications",
            "/getUserProfileByEmail",
        ] {
            check(&[], path, path);
        }
    }

    #[test]
    fn ids_are_drawn_together() {
        check(&[], "/users/42", "/users/{id}");
        check(&[], "/users/7/orders/20240131", "/users/{id}/orders/{id}");
        check(&[], "/u/123e4567-e89b-12d3-a456-426614174000/x", "/u/{id}/x");
        check(&[], "/commit/deadbee5", "/commit/{id}");
        check(&[], "/c/cus_9s6XKzkNRiz8i3", "/c/{id}");
        check(&[], "/t/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/t/{id}");
        check(&[], "/t/dGhpc0lzQVRva2VuQWJj", "/t/{id}");
        check(&[], "/mail/a@example.com", "/mail/{id}");
        check(&[], "/name/J%C3%BCrgen", "/name/{id}");
        check(&[], "/assets/app.3f2a9c1b77.js", "/assets/{id}");
        check(&[], "/days/2024-01-31", "/days/{id}");
        check(&[], "/1/2/3/4/5/6/7/8/9/10", "/{id}/{id}/{id}/{id}/{id}/{id}/{id}/{id}/*");
        check(&[], &format!("/{}", "a".repeat(200)), "/{id}");
        check(&[], "*", "*");
        check(&[], "", "*");
    }

    #[test]
    fn patterns_come_first() {
        check(&["/users/{name}"], "/users/joe", "/users/{name}");
        check(&["/users/{name}"], "/users/joe/x", "/users/joe/x");
        check(&["/files/*"], "/files/a/b/c", "/files/*");
        check(&["/files/*"], "/files", "/files/*");
        check(&["/a/{x}/*", "/a/{x}"], "/a/1", "/a/{x}/*");
        check(&["/"], "/", "/");
        check(&["/*"], "/any/thing", "/*");
    }

    #[test]
    fn what_is_no_pattern() {
        let error = |text: &str| text.parse::<Pattern>().unwrap_err();
        assert_eq!(error("users"), PatternError::NoSlash);
        assert_eq!(error("/a/*/b"), PatternError::StarInside);
        assert_eq!(error("/a/{b"), PatternError::Braces);
        assert_eq!(error("/a/x{b}"), PatternError::Braces);
        assert_eq!(error("/a/{}"), PatternError::Braces);
    }
}
