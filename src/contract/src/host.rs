use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A DNS host name: ASCII, lower case, without a trailing dot.
///
/// Labels hold letters, digits, hyphens and underscores, at most 63 of them; the whole name has at
/// most 253 characters (RFC 1035 2.3.4). A name that could be read as an IP address is refused.
/// Internationalized names are written in their `xn--` form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(Box<str>);

impl Host {
    /// Reads a name as a client or a person may write it: any letter case, one trailing dot allowed.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        let name = text.strip_suffix('.').unwrap_or(text);
        match find_fault(name) {
            Some(fault) => Err(InvalidHost {
                text: text.to_owned(),
                fault,
            }),
            None => Ok(Self(name.to_ascii_lowercase().into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the first label, if anything does: the part a wildcard would share.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, parent)| parent)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Host {
    type Error = InvalidHost;

    fn try_from(text: String) -> Result<Self, InvalidHost> {
        Self::parse(&text)
    }
}

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        Self::parse(text)
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0.into()
    }
}

/// What a route or a certificate declares: one name, or every direct subdomain of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    Exact(Host),
    /// `*.example.com`, held as `example.com`. Covers one label only (RFC 6125 6.4.3).
    Wildcard(Host),
}

impl HostPattern {
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        match text.strip_prefix("*.") {
            Some(parent) => Host::parse(parent)
                .map(Self::Wildcard)
                .map_err(|error| InvalidHost {
                    text: text.to_owned(),
                    fault: error.fault,
                }),
            None => Host::parse(text).map(Self::Exact),
        }
    }

    pub fn covers(&self, host: &Host) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Wildcard(parent) => host.parent() == Some(parent.as_str()),
        }
    }

    /// Whether it covers all that `other` stands for.
    pub fn includes(&self, other: &Self) -> bool {
        match other {
            Self::Exact(host) => self.covers(host),
            Self::Wildcard(_) => self == other,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidHost;

    fn try_from(text: String) -> Result<Self, InvalidHost> {
        Self::parse(&text)
    }
}

impl FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        Self::parse(text)
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

/// The text is not a host name. The text is shown escaped, so it is safe in a log or a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a host name: {fault}")]
pub struct InvalidHost {
    text: String,
    fault: &'static str,
}

fn find_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > MAX_NAME {
        return Some("it is longer than 253 characters");
    }
    name.as_bytes()
        .split(|byte| *byte == b'.')
        .find_map(find_label_fault)
        .or_else(|| ends_in_a_number(name).then_some("IP addresses cannot be hosts"))
}

fn find_label_fault(label: &[u8]) -> Option<&'static str> {
    if label.is_empty() {
        return Some("a label between the dots is empty");
    }
    if label.len() > MAX_LABEL {
        return Some("a label is longer than 63 characters");
    }
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
    if !label.iter().all(is_allowed) {
        return Some(character_fault(label));
    }
    if label.starts_with(b"-") || label.ends_with(b"-") {
        return Some("a label starts or ends with a hyphen");
    }
    None
}

fn character_fault(label: &[u8]) -> &'static str {
    if !label.is_ascii() {
        "write internationalized names in their xn-- form"
    } else if label.contains(&b'*') {
        "a wildcard is a whole first label, as in *.example.com"
    } else {
        "labels hold letters, digits, hyphens and underscores"
    }
}

/// Whether URL parsers read the name as an IPv4 address ("ends in a number", WHATWG URL 3.5).
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit_once('.').map_or(name, |(_, last)| last);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_the_same(text in r"(\*\.)?[a-zA-Z0-9_-]{1,9}(\.[a-zA-Z0-9_-]{1,9}){0,3}\.?") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(&host.to_string()), Ok(host));
            }
            if let Ok(pattern) = HostPattern::parse(&text) {
                prop_assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern));
            }
        }
    }

    #[test]
    fn a_host_is_lower_case_without_its_trailing_dot() {
        assert_eq!(
            Host::parse("WWW.Example.COM.").unwrap().as_str(),
            "www.example.com"
        );
        assert_eq!(Host::parse("localhost").unwrap().as_str(), "localhost");
        assert_eq!(
            Host::parse("_dmarc.a-b.test").unwrap().as_str(),
            "_dmarc.a-b.test"
        );
    }

    #[test]
    fn what_is_not_a_dns_name_is_refused() {
        let long_label = "a".repeat(64);
        let long_name = ["a"; 128].join(".");
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "a.test..",
            "a b",
            "a\nb",
            "a/b",
            "a:80",
            "a@b",
            "bücher.test",
            "*",
            "a.*.test",
            "a*.test",
            "-a.test",
            "a-.test",
            "127.0.0.1",
            "1",
            "0x7f.1",
            "a.0x",
            "a.1",
            "[::1]",
            "::1",
            &long_label,
            &long_name,
        ] {
            assert!(Host::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_refused_name_is_shown_escaped() {
        let error = Host::parse("a\u{1b}[31m\n").unwrap_err().to_string();
        assert!(
            error.starts_with(r#""a\u{1b}[31m\n" is not a host name"#),
            "{error}"
        );
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let wildcard = HostPattern::parse("*.Example.com").unwrap();
        let covers = |name| wildcard.covers(&Host::parse(name).unwrap());
        assert!(covers("a.example.com"));
        assert!(!covers("example.com"));
        assert!(!covers("a.b.example.com"));
        assert!(!covers("aexample.com"));
        assert_eq!(wildcard.to_string(), "*.example.com");
    }

    #[test]
    fn only_a_whole_first_label_can_be_a_wildcard() {
        for text in ["*.", "*", "*.*.test", "a.*.test", "*a.test"] {
            assert!(HostPattern::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
