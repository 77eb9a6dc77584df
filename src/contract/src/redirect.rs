use std::fmt;
use std::str::FromStr;

use http::StatusCode;
use http::uri::{Scheme, Uri};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::Host;
use crate::short_form::text_or_table;

/// An answer that sends the client elsewhere. In TOML the target alone, or a table with `to` and `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Redirect {
    pub to: Target,
    pub status: RedirectStatus,
}

impl Redirect {
    /// Whether clients of `host` come back with the same request.
    pub(crate) fn leads_back_to(&self, host: &Host) -> bool {
        let Target::Origin(origin) = &self.to else {
            return false;
        };
        let uri = origin.parse::<Uri>().ok();
        let target = uri.as_ref().and_then(Uri::host);
        target.is_some_and(|target| Host::parse(target).as_ref() == Ok(host))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    to: Target,
    #[serde(default)]
    status: RedirectStatus,
}

impl<'de> Deserialize<'de> for Redirect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a URL such as \"https://example.com\", or a table with `to` and `status`";
        text_or_table::<_, _, Table>(deserializer, expected)
    }
}

impl From<Table> for Redirect {
    fn from(Table { to, status }: Table) -> Self {
        Self { to, status }
    }
}

impl FromStr for Redirect {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        Ok(Self {
            to: text.to_owned().try_into()?,
            status: RedirectStatus::default(),
        })
    }
}

/// Where a redirect leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// `https://HOST` without a path: the path and query of the request follow it.
    Origin(String),
    /// A URL or an absolute path: exactly there.
    Place(String),
}

impl Target {
    /// The value of Location for a request with this path and query.
    pub fn location(&self, path_and_query: &str) -> String {
        match self {
            Self::Origin(origin) => format!("{origin}{path_and_query}"),
            Self::Place(place) => place.clone(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin(text) | Self::Place(text) => f.write_str(text),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = InvalidTarget;

    fn try_from(text: String) -> Result<Self, InvalidTarget> {
        let is_path = text.starts_with('/') && !text.starts_with("//");
        let uri = text
            .parse::<Uri>()
            .ok()
            .filter(|_| text.bytes().all(|byte| byte.is_ascii_graphic()));
        let Some(uri) = uri else {
            return Err(InvalidTarget { text });
        };
        let is_web = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
        let has_user = uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'));
        match uri.authority() {
            _ if is_path => Ok(Self::Place(text)),
            Some(authority) if is_web && !has_user => Ok(if text.ends_with(authority.as_str()) {
                Self::Origin(text)
            } else {
                Self::Place(text)
            }),
            _ => Err(InvalidTarget { text }),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

/// The text leads nowhere. It is shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{text:?} is not a place to redirect to: write a URL with http:// or https://, or a path that starts with /"
)]
pub struct InvalidTarget {
    text: String,
}

/// 301, 302, 307 or 308 (RFC 9110 15.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct RedirectStatus(StatusCode);

impl RedirectStatus {
    pub fn get(self) -> StatusCode {
        self.0
    }
}

impl Default for RedirectStatus {
    /// 308: the method and the body stay as they are.
    fn default() -> Self {
        Self(StatusCode::PERMANENT_REDIRECT)
    }
}

impl TryFrom<u16> for RedirectStatus {
    type Error = InvalidStatus;

    fn try_from(status: u16) -> Result<Self, InvalidStatus> {
        let valid = StatusCode::from_u16(status)
            .ok()
            .filter(|_| matches!(status, 301 | 302 | 307 | 308));
        valid.map(Self).ok_or(InvalidStatus(status))
    }
}

impl From<RedirectStatus> for u16 {
    fn from(status: RedirectStatus) -> Self {
        status.0.as_u16()
    }
}

/// The number is not that of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} is none of 301, 302, 307 and 308")]
pub struct InvalidStatus(u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_takes_the_path_along_and_a_place_does_not() {
        for (text, location) in [
            ("https://b.test", "https://b.test/x?q"),
            ("http://b.test:8080", "http://b.test:8080/x?q"),
            ("https://b.test/", "https://b.test/"),
            ("https://b.test/y?z", "https://b.test/y?z"),
            ("https://b.test?z", "https://b.test?z"),
            ("/login", "/login"),
        ] {
            let target = Target::try_from(text.to_owned()).unwrap();
            assert_eq!(target.location("/x?q"), location);
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "b.test",
            "//b.test/x",
            "ftp://b.test",
            "javascript:alert(1)",
            "https://",
            "https://u@b.test",
            "https://b.test/a b",
            "https://b.test/\n",
        ] {
            assert!(
                Target::try_from(text.to_owned()).is_err(),
                "{text:?} was accepted"
            );
        }
        assert!(RedirectStatus::try_from(303).is_err());
    }
}
