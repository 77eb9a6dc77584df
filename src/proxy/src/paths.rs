//! Routes by path, and what becomes of the path on the way to an upstream.

use std::borrow::Cow;

use fairlead_contract::{PathPrefix, Route};
use http::Uri;
use thiserror::Error;

use crate::authority::path_and_query;

/// Values by path prefix, the longest first.
pub(crate) struct ByPath<T>(Vec<(PathPrefix, T)>);

/// Two programs could send the request to two routes, so that the limits of one of them would not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the path leads to one route as it is written and to another one once it is decoded")]
pub(crate) struct AmbiguousPath;

impl<T> Default for ByPath<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByPath<T> {
    pub(crate) fn of(prefix: PathPrefix, value: T) -> Self {
        Self(vec![(prefix, value)])
    }

    /// Keeps the value that is there.
    pub(crate) fn insert(&mut self, prefix: PathPrefix, value: T) {
        if self.0.iter().any(|(present, _)| *present == prefix) {
            return;
        }
        let is_longer = |(present, _): &(PathPrefix, T)| present.as_str().len() >= prefix.as_str().len();
        let place = self.0.partition_point(is_longer);
        self.0.insert(place, (prefix, value));
    }

    /// The value of the longest prefix of the path.
    ///
    /// The path must lead to the same one however an upstream decodes it: `/x/../admin` and `/%61dmin`
    /// are not let through to a route whose upstream would take them for `/admin`.
    pub(crate) fn find(&self, path: &str) -> Result<Option<&T>, AmbiguousPath> {
        if let [(prefix, value)] = &self.0[..]
            && prefix.is_root()
        {
            return Ok(Some(value));
        }
        let written = self.longest(path);
        match decode(path) {
            Cow::Owned(decoded) if self.longest(&decoded) != written => Err(AmbiguousPath),
            _ => Ok(written.map(|place| &self.0[place].1)),
        }
    }

    fn longest(&self, path: &str) -> Option<usize> {
        // The form `*` of OPTIONS is about everything a host has (RFC 9112 3.2.4).
        let path = if path == "*" { "/" } else { path };
        self.0
            .iter()
            .position(|(prefix, _)| prefix.rest_of(path).is_some())
    }
}

/// The path as the most lenient reader takes it: escapes decoded, `\` for `/`, parameters and empty
/// segments left out, `.` and `..` followed.
fn decode(path: &str) -> Cow<'_, str> {
    let is_plain = !path.contains(['%', '\\', ';']) && !path.contains("//") && !path.contains("/.");
    if is_plain {
        return Cow::Borrowed(path);
    }
    let bytes = unescape(path.as_bytes());
    let text = String::from_utf8_lossy(&bytes);
    let mut segments = Vec::new();
    for segment in text.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

fn unescape(path: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let escape = (byte == b'%').then(|| after.split_at_checked(2)).flatten();
        let decoded = escape.and_then(|(digits, after)| {
            let digits = str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        let (byte, after) = decoded.unwrap_or((byte, after));
        bytes.push(byte);
        rest = after;
    }
    bytes
}

/// The path and query as they go further, with the route's prefix stripped or replaced.
pub(crate) fn rewritten<'a>(uri: &'a Uri, route: &Route) -> Cow<'a, str> {
    let target = path_and_query(uri);
    let moved = route.replacement().and_then(|prefix| {
        let rest = target.strip_prefix(route.path.as_str())?;
        let slash = if rest.starts_with('/') || !prefix.is_root() {
            ""
        } else {
            "/"
        };
        Some(format!("{}{slash}{rest}", prefix.as_str()))
    });
    moved.map_or(Cow::Borrowed(target), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(prefixes: &[&str]) -> ByPath<String> {
        let mut table = ByPath::default();
        for prefix in prefixes {
            let prefix = PathPrefix::parse(prefix).unwrap();
            table.insert(prefix.clone(), prefix.to_string());
        }
        table
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        for prefixes in [["/", "/api", "/api/v1"], ["/api/v1", "/", "/api"]] {
            let table = table(&prefixes);
            for (path, expected) in [
                ("/", "/"),
                ("/apis", "/"),
                ("/api", "/api"),
                ("/api/v", "/api"),
                ("/api/v1/x", "/api/v1"),
                ("*", "/"),
            ] {
                assert_eq!(table.find(path), Ok(Some(&expected.to_owned())), "{path}");
            }
        }
        assert_eq!(table(&["/api"]).find("/"), Ok(None));
    }

    #[test]
    fn a_path_that_could_be_read_as_another_routes_is_refused() {
        let alone = table(&["/"]);
        assert!(alone.find("/x/../admin").is_ok());
        let table = table(&["/", "/admin"]);
        for path in [
            "/x/../admin",
            "/%61dmin",
            "//admin",
            "/./admin/",
            "/admin%2fx",
            "/admin;a=b",
            "/\\admin",
            "/admin/../x",
            "/admin/%2e%2E/x",
            "/%2e%2e/admin",
        ] {
            assert_eq!(table.find(path), Err(AmbiguousPath), "{path}");
        }
        for path in [
            "/x%20y",
            "/x//y",
            "/admin/a//b",
            "/admin/%zz",
            "/%",
            "/x/..",
            "/a;b=c",
        ] {
            assert!(table.find(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_prefix_is_taken_away_or_replaced() {
        for (path, replacement, asked, expected) in [
            ("/api", Some("/"), "/api", "/"),
            ("/api", Some("/"), "/api?q", "/?q"),
            ("/api", Some("/"), "/api/", "/"),
            ("/api", Some("/"), "/api/x%20y?q=%2F", "/x%20y?q=%2F"),
            ("/api", Some("/v1"), "/api", "/v1"),
            ("/api", Some("/v1"), "/api/x?q", "/v1/x?q"),
            ("/", Some("/v1"), "/", "/v1/"),
            ("/", Some("/v1"), "/x", "/v1/x"),
            ("/api", None, "/api/x", "/api/x"),
        ] {
            let prefix = |text| PathPrefix::parse(text).unwrap();
            let route = Route {
                path: prefix(path),
                replace_prefix: replacement.map(prefix),
                ..Route::default()
            };
            let uri = asked.parse().unwrap();
            assert_eq!(
                rewritten(&uri, &route),
                expected,
                "{path} {replacement:?} {asked}"
            );
        }
    }
}
