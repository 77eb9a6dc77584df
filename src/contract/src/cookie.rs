use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The name of a cookie (RFC 6265 4.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CookieName(String);

impl CookieName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CookieName {
    type Error = InvalidCookieName;

    fn try_from(text: String) -> Result<Self, InvalidCookieName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.is_empty() || !text.bytes().all(allowed) {
            return Err(InvalidCookieName { text });
        }
        Ok(Self(text))
    }
}

impl From<CookieName> for String {
    fn from(name: CookieName) -> Self {
        name.0
    }
}

/// The text is not a cookie's name. It is shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not the name of a cookie")]
pub struct InvalidCookieName {
    text: String,
}
