use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::uri::{Authority, Uri};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::Host;
use crate::short_form::text_or_table;

/// One place a route's requests go to.
///
/// In TOML a plain URL, or a table to say more of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "Written")]
pub struct Upstream {
    pub url: UpstreamUrl,
    /// How its certificate is judged; means nothing without TLS.
    pub identity: Identity,
    /// Its share of the requests, beside the others of the route.
    pub weight: Weight,
    /// How its connections tell it whom they are made for; `None`: not at all.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The container's name, for people and `fairlead why`; the proxy does not use it.
    pub container: Option<String>,
}

impl Upstream {
    /// The upstream as `words` describe it.
    pub fn described(url: UpstreamUrl, words: UpstreamWords) -> Result<Self, InvalidUpstream> {
        let UpstreamWords {
            scheme,
            weight,
            server_name,
            verify,
            proxy_protocol,
        } = words;
        Self::try_from(Table {
            url: match (url, scheme) {
                (UpstreamUrl::Tcp { host, port, .. }, Some(protocol)) => {
                    UpstreamUrl::Tcp { protocol, host, port }
                }
                (url, _) => url,
            },
            weight: weight.unwrap_or_default(),
            ca_file: None,
            server_name,
            verify,
            proxy_protocol,
            container: None,
        })
    }
}

/// What a label can say of the upstream that its container is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UpstreamWords {
    pub scheme: Option<Protocol>,
    pub weight: Option<Weight>,
    pub server_name: Option<Host>,
    pub verify: Option<bool>,
    pub proxy_protocol: Option<ProxyProtocol>,
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
    #[serde(default, skip_serializing_if = "Weight::is_default")]
    weight: Weight,
    ca_file: Option<PathBuf>,
    server_name: Option<Host>,
    verify: Option<bool>,
    proxy_protocol: Option<ProxyProtocol>,
    container: Option<String>,
}

impl From<Upstream> for Written {
    fn from(upstream: Upstream) -> Self {
        let Upstream {
            url,
            identity,
            weight,
            proxy_protocol,
            container,
        } = upstream;
        let (server_name, ca_file, verify) = match identity {
            Identity::Unverified => (None, None, Some(false)),
            Identity::Verified { name, roots } => (name, roots, None),
        };
        let table = Table {
            url,
            weight,
            ca_file,
            server_name,
            verify,
            proxy_protocol,
            container,
        };
        if table.says_more() {
            Self::Table(table)
        } else {
            Self::Url(table.url)
        }
    }
}

impl Table {
    fn says_more(&self) -> bool {
        self.container.is_some()
            || self.speaks_of_tls()
            || self.proxy_protocol.is_some()
            || !self.weight.is_default()
    }

    fn speaks_of_tls(&self) -> bool {
        self.ca_file.is_some() || self.server_name.is_some() || self.verify.is_some()
    }
}

impl TryFrom<Table> for Upstream {
    type Error = InvalidUpstream;

    fn try_from(table: Table) -> Result<Self, InvalidUpstream> {
        let fault = |fault| InvalidUpstream {
            text: table.url.to_string(),
            fault,
        };
        if table.speaks_of_tls() && !table.url.is_tls() {
            return Err(fault(
                "ca-file, server-name and verify are for https:// and h2:// alone",
            ));
        }
        let identity = match (table.verify, &table.ca_file, &table.server_name) {
            (Some(false), None, None) => Identity::Unverified,
            (Some(false), _, _) => {
                return Err(fault(
                    "verify = false leaves ca-file and server-name without a meaning",
                ));
            }
            _ => Identity::Verified {
                name: table.server_name,
                roots: table.ca_file,
            },
        };
        Ok(Self {
            url: table.url,
            identity,
            weight: table.weight,
            proxy_protocol: table.proxy_protocol,
            container: table.container,
        })
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a URL such as \"http://127.0.0.1:8080\", or a table with `url`";
        text_or_table::<_, _, Table>(deserializer, expected)
    }
}

impl From<UpstreamUrl> for Upstream {
    fn from(url: UpstreamUrl) -> Self {
        Self {
            url,
            identity: Identity::default(),
            weight: Weight::default(),
            proxy_protocol: None,
            container: None,
        }
    }
}

impl FromStr for Upstream {
    type Err = InvalidUpstream;

    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        UpstreamUrl::parse(text).map(Self::from)
    }
}

/// Whom we expect behind an upstream's TLS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    Verified {
        /// The name in its certificate; `None` means the host of its URL.
        name: Option<Host>,
        /// A PEM file of authorities to trust; `None` means the system's.
        roots: Option<PathBuf>,
    },
    /// Anybody: enough against those who only listen.
    Unverified,
}

impl Default for Identity {
    fn default() -> Self {
        Self::Verified {
            name: None,
            roots: None,
        }
    }
}

impl Identity {
    pub fn roots(&self) -> Option<&Path> {
        match self {
            Self::Verified { roots, .. } => roots.as_deref(),
            Self::Unverified => None,
        }
    }
}

/// A version of the PROXY protocol, in whose header a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// A binary block.
    V2,
}

/// A share of the requests, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(NonZeroU16);

impl Weight {
    pub fn get(self) -> u16 {
        self.0.get()
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(NonZeroU16::MIN)
    }
}

/// What is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113 3.3).
    H2c,
    /// HTTP/2 over TLS.
    H2,
}

impl Protocol {
    const ALL: [Self; 4] = [Self::Http, Self::Https, Self::H2c, Self::H2];

    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }

    pub fn is_http2(self) -> bool {
        matches!(self, Self::H2c | Self::H2)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::H2 => "h2",
        }
    }

    fn port(self) -> u16 {
        if self.is_tls() { 443 } else { 80 }
    }
}

/// `PROTOCOL://HOST:PORT`, or `unix:/PATH` of a socket where HTTP/1.1 is spoken; and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum UpstreamUrl {
    Tcp {
        protocol: Protocol,
        /// A name, an IPv4 address, or an IPv6 address in brackets.
        host: Box<str>,
        port: u16,
    },
    Unix(PathBuf),
}

impl UpstreamUrl {
    pub fn parse(text: &str) -> Result<Self, InvalidUpstream> {
        let invalid = |fault| InvalidUpstream {
            text: text.to_owned(),
            fault,
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_socket(path).map_err(invalid);
        }
        let uri: Uri = text.parse().map_err(|_| invalid("it is not a URL"))?;
        let protocol = Protocol::ALL
            .into_iter()
            .find(|protocol| uri.scheme_str() == Some(protocol.as_str()))
            .ok_or_else(|| invalid("it must start with http://, https://, h2c://, h2:// or unix:/"))?;
        let authority = uri.authority().ok_or_else(|| invalid("it names no host"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.ends_with('/') {
            return Err(invalid("a path is not allowed; end it after the port"));
        }
        Self::from_authority(protocol, authority).map_err(invalid)
    }

    /// The address of a container, or of any service by its IP address; HTTP/1.1 is spoken there.
    pub fn from_address(address: SocketAddr) -> Self {
        let host = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self::Tcp {
            protocol: Protocol::Http,
            host: host.into(),
            port: address.port(),
        }
    }

    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Tcp { protocol, .. } => *protocol,
            Self::Unix(_) => Protocol::Http,
        }
    }

    /// As Host has it; a socket has none.
    pub fn authority(&self) -> Option<String> {
        match self {
            Self::Tcp { protocol, host, port } if *port == protocol.port() => Some(host.to_string()),
            Self::Tcp { host, port, .. } => Some(format!("{host}:{port}")),
            Self::Unix(_) => None,
        }
    }

    fn is_tls(&self) -> bool {
        self.protocol().is_tls()
    }

    fn from_authority(protocol: Protocol, authority: &Authority) -> Result<Self, &'static str> {
        if authority.as_str().contains('@') {
            return Err("user names are not allowed");
        }
        let port = match authority.port() {
            Some(port) if port.as_u16() == 0 => return Err("port 0 cannot be connected to"),
            Some(port) => port.as_u16(),
            None if authority.as_str() == authority.host() => protocol.port(),
            None => return Err("the port is not a number from 1 to 65535"),
        };
        Ok(Self::Tcp {
            protocol,
            host: authority.host().to_ascii_lowercase().into(),
            port,
        })
    }
}

fn parse_socket(path: &str) -> Result<UpstreamUrl, &'static str> {
    // As long as sockaddr_un holds (unix(7)).
    match path {
        _ if !path.starts_with('/') || path.starts_with("//") => {
            Err("write the whole path of the socket, as in unix:/run/app.sock")
        }
        _ if path.len() > 107 => Err("the path of a socket has at most 107 bytes"),
        _ if path.chars().any(char::is_control) => Err("the path holds a control character"),
        _ => Ok(UpstreamUrl::Unix(path.into())),
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { protocol, host, port } => write!(f, "{}://{host}:{port}", protocol.as_str()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for UpstreamUrl {
    type Error = InvalidUpstream;

    fn try_from(text: String) -> Result<Self, InvalidUpstream> {
        Self::parse(&text)
    }
}

impl From<UpstreamUrl> for String {
    fn from(url: UpstreamUrl) -> Self {
        url.to_string()
    }
}

/// The text is not an upstream's URL, or is none with what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not an upstream: {fault}")]
pub struct InvalidUpstream {
    text: String,
    fault: &'static str,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_the_same(
            text in r"(https?|h2c?)://([a-zA-Z0-9._-]{1,12}|\[[0-9a-fA-F:.]{2,12}\])(:[0-9]{1,5})?|unix:/[ -~]{1,30}",
        ) {
            if let Ok(url) = UpstreamUrl::parse(&text) {
                prop_assert_eq!(UpstreamUrl::parse(&url.to_string()), Ok(url));
            }
        }
    }

    #[test]
    fn an_upstream_has_a_protocol_a_host_and_a_port() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://app.internal", "http://app.internal:80"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("HTTP://Web:81", "http://web:81"),
            ("https://a", "https://a:443"),
            ("h2c://a", "h2c://a:80"),
            ("h2://a:50051", "h2://a:50051"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(UpstreamUrl::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_would_be_guessed_at_is_refused() {
        for text in [
            "",
            "127.0.0.1:80",
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
            "unix:",
            "unix:run/app.sock",
            "unix:///run/app.sock",
            "unix:/a\nb",
        ] {
            assert!(UpstreamUrl::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_upstream_reads_back_as_it_was_written() {
        for text in [
            "\"http://a:80\"",
            "{ container = \"web\", url = \"http://a:80\", weight = 3 }",
            "{ ca-file = \"/etc/ca.pem\", server-name = \"b.test\", url = \"https://a:443\" }",
            "{ url = \"h2://a:443\", verify = false }",
        ] {
            let read = |text: &str| {
                Upstream::deserialize(toml::de::ValueDeserializer::parse(text).unwrap()).unwrap()
            };
            let upstream = read(text);
            assert_eq!(toml::Value::try_from(&upstream).unwrap().to_string(), text);
        }
    }

    #[test]
    fn words_that_mean_nothing_together_are_refused() {
        for text in [
            "{ url = \"http://a\", verify = false }",
            "{ url = \"unix:/a\", server-name = \"a\" }",
            "{ url = \"https://a\", verify = false, server-name = \"a\" }",
            "{ url = \"https://a\", weight = 0 }",
        ] {
            let value = toml::de::ValueDeserializer::parse(text).unwrap();
            assert!(Upstream::deserialize(value).is_err(), "{text} was accepted");
        }
    }
}
