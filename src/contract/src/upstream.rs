use std::fmt;
use std::str::FromStr;

use http::uri::{Authority, Scheme, Uri};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::short_form::text_or_table;

/// One place a route's requests go to.
///
/// In TOML a plain URL, or a table when the watcher says which container stands behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "Written")]
pub struct Upstream {
    pub url: UpstreamUrl,
    /// The container's name, for people and `fairlead why`; the proxy does not use it.
    pub container: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Url(UpstreamUrl),
    Table(Table),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    url: UpstreamUrl,
    container: Option<String>,
}

impl From<Upstream> for Written {
    fn from(upstream: Upstream) -> Self {
        match upstream.container {
            None => Self::Url(upstream.url),
            container => Self::Table(Table {
                url: upstream.url,
                container,
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a URL such as \"http://127.0.0.1:8080\", or a table with `url`";
        text_or_table::<_, _, Table>(deserializer, expected)
    }
}

impl From<Table> for Upstream {
    fn from(Table { url, container }: Table) -> Self {
        Self { url, container }
    }
}

impl FromStr for Upstream {
    type Err = InvalidUpstream;

    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        let url = UpstreamUrl::parse(text)?;
        Ok(Self { url, container: None })
    }
}

/// `http://HOST:PORT`: a scheme, a host and a port, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UpstreamUrl {
    host: Box<str>,
    port: u16,
}

impl UpstreamUrl {
    pub fn parse(text: &str) -> Result<Self, InvalidUpstream> {
        let invalid = |fault| InvalidUpstream {
            text: text.to_owned(),
            fault,
        };
        let uri: Uri = text.parse().map_err(|_| invalid("it is not a URL"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(invalid("it must start with http://"));
        }
        let authority = uri.authority().ok_or_else(|| invalid("it names no host"))?;
        if uri.path() != "/" || uri.query().is_some() || text.ends_with('/') {
            return Err(invalid("a path is not allowed; end it after the port"));
        }
        Self::from_authority(authority).map_err(invalid)
    }

    /// The address of a container, or of any service by its IP address.
    pub fn from_address(address: std::net::SocketAddr) -> Self {
        let host = match address.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self {
            host: host.into(),
            port: address.port(),
        }
    }

    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn from_authority(authority: &Authority) -> Result<Self, &'static str> {
        if authority.as_str().contains('@') {
            return Err("user names are not allowed");
        }
        match authority.port() {
            Some(port) if port.as_u16() == 0 => Err("port 0 cannot be connected to"),
            Some(port) => Ok(Self {
                host: authority.host().to_ascii_lowercase().into(),
                port: port.as_u16(),
            }),
            None if authority.as_str() == authority.host() => Ok(Self {
                host: authority.host().to_ascii_lowercase().into(),
                port: 80,
            }),
            None => Err("the port is not a number from 1 to 65535"),
        }
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl TryFrom<String> for UpstreamUrl {
    type Error = InvalidUpstream;

    fn try_from(text: String) -> Result<Self, InvalidUpstream> {
        Self::parse(&text)
    }
}

impl FromStr for UpstreamUrl {
    type Err = InvalidUpstream;

    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        Self::parse(text)
    }
}

impl From<UpstreamUrl> for String {
    fn from(url: UpstreamUrl) -> Self {
        url.to_string()
    }
}

/// The text is not an upstream's URL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not an upstream: {fault}")]
pub struct InvalidUpstream {
    text: String,
    fault: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_has_a_host_and_a_port() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://app.internal", "http://app.internal:80"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("HTTP://Web:81", "http://web:81"),
        ] {
            assert_eq!(UpstreamUrl::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_would_be_guessed_at_is_refused() {
        for text in [
            "",
            "127.0.0.1:80",
            "https://a:443",
            "ftp://a",
            "http://",
            "http://a:0",
            "http://a:65536",
            "http://a:b",
            "http://a:",
            "http://u:p@a:80",
            "http://a:80/",
            "http://a:80/x",
            "http://a:80?x",
            "http://a b:80",
            "http://a\n:80",
        ] {
            assert!(UpstreamUrl::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
