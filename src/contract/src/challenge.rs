use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How it is shown to an ACME server that a name is ours (RFC 8555 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Challenge {
    /// A file on port 80.
    #[serde(rename = "http-01")]
    Http01,
    /// A certificate on port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A TXT record in the DNS.
    #[serde(rename = "dns-01")]
    Dns01,
}

impl Challenge {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// An HTTP-01 token: base64url characters only (RFC 8555 8.3), so it can be a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Longer ones than any authority makes are refused before they reach the file system.
    const MAX: usize = 200;

    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(allowed) {
            return Err(InvalidToken);
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a challenge token holds 1 to 200 letters, digits, hyphens and underscores")]
pub struct InvalidToken;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_cannot_leave_its_directory() {
        assert!(Token::parse("DGyRejmCefe7v4NfDGDKfA_-").is_ok());
        for text in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a.b",
            "a%2Fb",
            "a\0b",
            "ä",
            &"a".repeat(201),
        ] {
            assert_eq!(Token::parse(text), Err(InvalidToken), "{text:?}");
        }
    }
}
