use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::SecretFile;
use crate::short_form::text_or_table;

/// Who makes a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Provider {
    /// The ACME server of `[acme]`.
    #[default]
    Acme,
    /// The ACME server of `[authority.NAME]`.
    Authority(AuthorityName),
    /// This machine's own certificate authority.
    Internal,
    /// Another program, which keeps a pair in files of its own.
    Files(PairPaths),
    /// Nobody: the operator puts a pair into the store.
    Off,
}

/// What an ACME server is called in the settings: lower-case letters, digits and hyphens, and none of
/// the other providers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct AuthorityName(String);

impl AuthorityName {
    pub fn parse(text: &str) -> Result<Self, InvalidAuthorityName> {
        const TAKEN: [&str; 4] = ["acme", "internal", "files", "off"];
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || TAKEN.contains(&text) || !text.bytes().all(allowed) {
            return Err(InvalidAuthorityName(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for AuthorityName {
    type Error = InvalidAuthorityName;

    fn try_from(text: String) -> Result<Self, InvalidAuthorityName> {
        Self::parse(&text)
    }
}

impl fmt::Display for AuthorityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} cannot be the name of an authority: lower-case letters, digits and hyphens can, except acme, \
     internal, files and off"
)]
pub struct InvalidAuthorityName(String);

/// A pair that another program keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PairPaths {
    /// The leaf first, then its issuers, PEM.
    pub fullchain: SecretFile,
    /// The leaf's private key, PEM.
    pub key: SecretFile,
}

impl fmt::Display for PairPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fullchain.0.display())
    }
}

impl Provider {
    /// One word for people.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Acme => "acme",
            Self::Authority(name) => &name.0,
            Self::Internal => "internal",
            Self::Files(_) => "files",
            Self::Off => "off",
        }
    }
}

impl FromStr for Provider {
    type Err = InvalidProvider;

    fn from_str(text: &str) -> Result<Self, InvalidProvider> {
        match text {
            "acme" => Ok(Self::Acme),
            "internal" => Ok(Self::Internal),
            "off" => Ok(Self::Off),
            name => AuthorityName::parse(name)
                .map(Self::Authority)
                .map_err(|_| InvalidProvider(text.to_owned())),
        }
    }
}

impl From<PairPaths> for Provider {
    fn from(paths: PairPaths) -> Self {
        Self::Files(paths)
    }
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "`acme`, `internal`, `off`, an authority's name or a table with `fullchain` and `key`";
        text_or_table::<_, _, PairPaths>(deserializer, expected)
    }
}

impl Serialize for Provider {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Files(paths) => paths.serialize(serializer),
            word => serializer.serialize_str(word.as_str()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is none of acme, internal and off, nor an authority's name, nor a table with fullchain and key"
)]
pub struct InvalidProvider(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Table {
        provider: Provider,
    }

    fn read(value: &str) -> Result<Table, String> {
        toml::from_str(&format!("provider = {value}")).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_provider_is_a_word_or_the_files_of_a_pair_and_reads_back() {
        for value in [
            "\"acme\"",
            "\"internal\"",
            "\"off\"",
            "\"staging-2\"",
            "{ fullchain = \"/etc/a.pem\", key = \"a-key\" }",
        ] {
            let table = read(value).unwrap();
            let text = toml::to_string(&table).unwrap();
            assert_eq!(toml::from_str(&text), Ok(table), "{text}");
        }
    }

    #[test]
    fn what_is_no_provider_is_said() {
        for (value, expected) in [
            (
                "\"ZeroSSL\"",
                "\"ZeroSSL\" is none of acme, internal and off, nor an authority's name, nor a table with \
                 fullchain and key",
            ),
            ("\"files\"", "\"files\" is none of"),
            ("{ fullchain = \"/etc/a.pem\" }", "missing field `key`"),
            (
                "{ fullchain = \"/a\", key = \"/b\", chain = 1 }",
                "unknown field `chain`",
            ),
            (
                "1",
                "invalid type: integer `1`, expected `acme`, `internal`, `off`, an auth",
            ),
        ] {
            let fault = read(value).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
