use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::HostPattern;

/// The beginning of a request's path, in whole segments: `/api` covers `/api` and `/api/x`, not `/apis`.
///
/// Held without a slash at its end; `/` covers every path. Written as plain text, because two programs
/// could read escapes and dots differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPrefix(Box<str>);

impl PathPrefix {
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        match find_fault(text) {
            Some(fault) => Err(InvalidPath {
                text: text.to_owned(),
                fault,
            }),
            None => Ok(Self(text.strip_suffix('/').unwrap_or(text).into())),
        }
    }

    /// Whether it covers every path.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Empty for `/`, else without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the prefix in a path it covers: nothing, or text that begins with a slash.
    pub fn rest_of<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(&*self.0)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "/" } else { &self.0 })
    }
}

impl TryFrom<String> for PathPrefix {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        Self::parse(&text)
    }
}

impl FromStr for PathPrefix {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        Self::parse(text)
    }
}

impl From<PathPrefix> for String {
    fn from(prefix: PathPrefix) -> Self {
        prefix.to_string()
    }
}

/// The text is not the beginning of a path. The text is shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a path: {fault}")]
pub struct InvalidPath {
    text: String,
    fault: &'static str,
}

fn find_fault(text: &str) -> Option<&'static str> {
    let Some(segments) = text.strip_prefix('/') else {
        return Some("it must start with /");
    };
    if !text.bytes().all(is_allowed) {
        return Some("it may hold letters, digits, / and -._~!$&'()*+,=:@");
    }
    let segments = segments.strip_suffix('/').unwrap_or(segments);
    let is_empty_or_dots = |segment| matches!(segment, "" | "." | "..");
    (text != "/" && segments.split('/').any(is_empty_or_dots))
        .then_some("a segment between the slashes is empty, . or ..")
}

/// A character of a path (RFC 3986 3.3), without those that begin an escape or parameters.
fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,=:@".contains(&byte)
}

/// What only one route can have: a host, and a part of its paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    pub host: HostPattern,
    pub path: PathPrefix,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_segment() {
        for (prefix, path, rest) in [
            ("/", "/", Some("/")),
            ("/", "/x", Some("/x")),
            ("/api", "/api", Some("")),
            ("/api", "/api/", Some("/")),
            ("/api/", "/api/x", Some("/x")),
            ("/api", "/apis", None),
            ("/api", "/", None),
            ("/api", "/API", None),
        ] {
            let prefix = PathPrefix::parse(prefix).unwrap();
            assert_eq!(prefix.rest_of(path), rest, "{prefix} {path}");
        }
    }

    #[test]
    fn what_could_be_read_differently_is_refused() {
        for text in [
            "", "api", "//", "/a//b", "/a//", "/.", "/a/../b", "/a%2Fb", "/a;b", "/a?b", "/a#b", "/a b",
            "/ä", "/a\\b",
        ] {
            assert!(PathPrefix::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
