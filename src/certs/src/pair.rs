use std::collections::BTreeSet;

use fairlead_contract::HostPattern;
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::parse_x509_certificate;

/// A chain and the key of its leaf, both PEM, known to belong together.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) leaf: Leaf,
}

impl Pair {
    /// Reads the two files of a pair. A part that is cut off, or a key that is not the leaf's, is refused.
    pub(crate) fn parse(chain: &[u8], key: &[u8]) -> Result<Self, InvalidPair> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| InvalidPair::NotText);
        let (leaf, public_key) = parse_chain(chain)?;
        let private_key = PrivateKeyDer::from_pem_slice(key).map_err(InvalidPair::KeyPem)?;
        let private_key = KeyPair::try_from(&private_key).map_err(InvalidPair::Key)?;
        if private_key.subject_public_key_info() != public_key {
            return Err(InvalidPair::Mismatch);
        }
        Ok(Self {
            chain: text(chain)?,
            key: text(key)?,
            leaf,
        })
    }
}

/// What the first certificate of a chain says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leaf {
    /// The DNS names among its SANs, in lower case.
    pub(crate) names: BTreeSet<String>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// Which key of the issuer signed it (RFC 5280 4.2.1.1).
    pub(crate) authority_key: Option<Vec<u8>>,
    /// As it is encoded, with the leading zero of a positive number (RFC 5280 4.1.2.2).
    pub(crate) serial: Vec<u8>,
}

impl Leaf {
    /// Whether it holds these names and no other.
    pub(crate) fn names_exactly(&self, names: &[HostPattern]) -> bool {
        self.names == names.iter().map(HostPattern::to_string).collect()
    }

    /// Whether a client that asks for the name gets what it asked for (RFC 9525 6.3).
    pub(crate) fn covers(&self, name: &HostPattern) -> bool {
        let mut patterns = self.names.iter().filter_map(|name| HostPattern::parse(name).ok());
        patterns.any(|pattern| pattern.includes(name))
    }

    /// Two thirds of the lifetime: 60 days of 90, 4 of 6.
    pub(crate) fn due(&self) -> Timestamp {
        let lifetime = self.not_after.duration_since(self.not_before);
        let third = SignedDuration::from_secs(lifetime.as_secs() / 3);
        self.not_after.saturating_sub(third).unwrap_or(self.not_before)
    }
}

/// The common name of whoever issued the topmost certificate of a chain.
pub(crate) fn find_root_name(chain: &[u8]) -> Option<String> {
    let topmost = CertificateDer::pem_slice_iter(chain).last()?.ok()?;
    let topmost = parse_certificate(&topmost).ok()?;
    let name = topmost.issuer().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// Whether two chains begin with the same certificate.
pub(crate) fn is_same_leaf(chain: &str, other: &str) -> bool {
    let leaf = |chain: &str| CertificateDer::from_pem_slice(chain.as_bytes()).ok();
    leaf(chain).is_some_and(|first| Some(first) == leaf(other))
}

fn parse_chain(chain: &[u8]) -> Result<(Leaf, Vec<u8>), InvalidPair> {
    let certificates = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(InvalidPair::ChainPem)?;
    let mut parsed = certificates.iter().map(parse_certificate);
    let leaf = parsed.next().ok_or(InvalidPair::Empty)??;
    parsed.try_for_each(|issuer| issuer.map(drop))?;
    let public_key = leaf.tbs_certificate.subject_pki.raw.to_vec();
    Ok((read_leaf(&leaf)?, public_key))
}

fn parse_certificate<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, InvalidPair> {
    match parse_x509_certificate(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(InvalidPair::Certificate(error.into())),
    }
}

fn read_leaf(certificate: &X509Certificate<'_>) -> Result<Leaf, InvalidPair> {
    let time = |seconds| Timestamp::from_second(seconds).map_err(InvalidPair::Time);
    let names = match certificate
        .subject_alternative_name()
        .map_err(InvalidPair::Certificate)?
    {
        Some(names) => names.value.general_names.iter().filter_map(dns_name).collect(),
        None => BTreeSet::new(),
    };
    let authority_key =
        certificate
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(authority) => {
                    Some(authority.key_identifier.as_ref()?.0.to_vec())
                }
                _ => None,
            });
    let validity = certificate.validity();
    Ok(Leaf {
        names,
        not_before: time(validity.not_before.timestamp())?,
        not_after: time(validity.not_after.timestamp())?,
        authority_key,
        serial: certificate.tbs_certificate.raw_serial().to_vec(),
    })
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

/// Why two files are not a pair.
#[derive(Debug, Error)]
pub(crate) enum InvalidPair {
    #[error("the chain is not PEM")]
    ChainPem(#[source] pem::Error),
    #[error("the chain holds no certificate")]
    Empty,
    #[error("the chain holds a certificate that cannot be read")]
    Certificate(#[source] X509Error),
    #[error("the certificate is valid at times that cannot be")]
    Time(#[source] jiff::Error),
    #[error("the key is not PEM")]
    KeyPem(#[source] pem::Error),
    #[error("the key cannot be read")]
    Key(#[source] rcgen::Error),
    #[error("the key is not the certificate's")]
    Mismatch,
    #[error("the files are not text")]
    NotText,
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, date_time_ymd};

    use super::*;

    fn pair(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.not_before = date_time_ymd(2026, 1, 1);
        parameters.not_after = date_time_ymd(2026, 4, 1);
        let key = KeyPair::generate().unwrap();
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_leaf_says_its_names_and_when_it_is_due() {
        let (chain, key) = pair(&["A.test", "*.b.test"]);
        let leaf = Pair::parse(chain.as_bytes(), key.as_bytes()).unwrap().leaf;
        let patterns = |names: &[&str]| -> Vec<HostPattern> {
            names
                .iter()
                .map(|name| HostPattern::parse(name).unwrap())
                .collect()
        };
        assert!(leaf.names_exactly(&patterns(&["*.b.test", "a.test"])));
        assert!(!leaf.names_exactly(&patterns(&["a.test"])));
        assert!(!leaf.names_exactly(&patterns(&["*.b.test", "a.test", "c.test"])));
        for (name, covered) in [
            ("a.test", true),
            ("x.b.test", true),
            ("*.b.test", true),
            ("b.test", false),
            ("x.y.b.test", false),
            ("*.a.test", false),
        ] {
            assert_eq!(leaf.covers(&HostPattern::parse(name).unwrap()), covered, "{name}");
        }
        assert_eq!(leaf.due().to_string(), "2026-03-02T00:00:00Z");
    }

    #[test]
    fn files_that_do_not_belong_together_are_no_pair() {
        let (chain, key) = pair(&["a.test"]);
        let (other_chain, _) = pair(&["a.test"]);
        let cut = |text: &str| text[..text.len() / 2].to_owned();
        for (chain, key, expected) in [
            (
                other_chain.clone(),
                key.clone(),
                "the key is not the certificate's",
            ),
            (cut(&chain), key.clone(), "the chain is not PEM"),
            (
                format!("{chain}{}", cut(&other_chain)),
                key.clone(),
                "the chain is not PEM",
            ),
            (chain.clone(), cut(&key), "the key is not PEM"),
            (String::new(), key.clone(), "the chain holds no certificate"),
            (
                "garbage".to_owned(),
                key.clone(),
                "the chain holds no certificate",
            ),
            (chain.clone(), chain.clone(), "the key is not PEM"),
        ] {
            let error = Pair::parse(chain.as_bytes(), key.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{chain}{key}");
        }
    }
}
