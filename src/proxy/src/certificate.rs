use std::fmt;
use std::sync::Arc;

use fairlead_contract::{CertificateDir, Host, HostPattern, PairFiles, Problem};
use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, InconsistentKeys, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The protocol that authorities speak to validate TLS-ALPN-01 (RFC 8737 6.2).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

/// A chain and its key, ready to serve.
///
/// Each has a TLS configuration of its own, and with it keys of its own for session tickets: a
/// session never resumes under another certificate than the one it was made for.
pub(crate) struct Certificate {
    pub(crate) directory: CertificateDir,
    pub(crate) names: Vec<HostPattern>,
    pub(crate) not_after: Timestamp,
    config: Arc<ServerConfig>,
    /// The same, for clients whose order of cipher suites is kept.
    config_in_their_order: Arc<ServerConfig>,
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// Checks a pair of the store. `previous` is used again if the bytes are the same, so that its
    /// sessions go on.
    pub(crate) fn load(pair: &PairFiles, previous: Option<&Arc<Self>>) -> Result<Arc<Self>, Problem> {
        let fault = |file, error: &dyn fmt::Display| {
            Problem::new(file, format!("{error}; the certificate is not used"))
        };
        let (chain_file, key_file) = (pair.directory.chain_file(), pair.directory.key_file());
        let chain = pair
            .chain
            .as_ref()
            .map_err(|error| fault(&chain_file, &error.reason()))?;
        let key = pair
            .key
            .as_ref()
            .map_err(|error| fault(&key_file, &error.reason()))?;
        if let Some(same) = previous.filter(|previous| previous.chain == *chain && previous.key == *key) {
            return Ok(same.clone());
        }
        Self::parse(pair.directory.clone(), chain, key)
            .map(Arc::new)
            .map_err(|error| {
                fault(
                    if error.is_of_the_key() {
                        &key_file
                    } else {
                        &chain_file
                    },
                    &error,
                )
            })
    }

    fn parse(directory: CertificateDir, chain: &[u8], key: &[u8]) -> Result<Self, PairError> {
        let certificates = parse_chain(chain)?;
        let leaf = certificates.first().ok_or(PairError::EmptyChain)?;
        let (names, not_after) = read_leaf(leaf)?;
        let private =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| PairError::Key(error.to_string()))?;
        let config = configure(certify(certificates, private)?)?;
        let mut in_their_order = config.clone();
        in_their_order.ignore_client_order = false;
        Ok(Self {
            directory,
            names,
            not_after,
            config: Arc::new(config),
            config_in_their_order: Arc::new(in_their_order),
            chain: chain.to_vec(),
            key: key.to_vec(),
        })
    }

    /// What the client is shown. Who would rather not have AES, for want of instructions for it, need not.
    pub(crate) fn config(&self, hello: &ClientHello<'_>) -> &Arc<ServerConfig> {
        let known = |suite: &&CipherSuite| {
            let mut ours = aws_lc_rs::ALL_CIPHER_SUITES.iter();
            ours.any(|known| known.suite() == **suite)
        };
        match hello.cipher_suites().iter().find(known) {
            Some(
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            ) => &self.config_in_their_order,
            _ => &self.config,
        }
    }

    /// What its directory in the store is called.
    pub(crate) fn name(&self) -> String {
        let name = self.directory.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    pub(crate) fn covers(&self, host: &Host) -> bool {
        self.names.iter().any(|name| name.covers(host))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("directory", &self.directory)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why a pair cannot serve.
#[derive(Debug, Error)]
pub(crate) enum PairError {
    #[error("there is no certificate in the file")]
    EmptyChain,
    #[error("the chain cannot be read: {0}")]
    Chain(String),
    #[error("the leaf certificate cannot be read: {0}")]
    Leaf(String),
    #[error("the private key cannot be read: {0}")]
    Key(String),
    #[error("the key does not match the certificate beside it")]
    Mismatch,
    #[error("TLS cannot use the pair: {0}")]
    Tls(#[from] rustls::Error),
}

impl PairError {
    fn is_of_the_key(&self) -> bool {
        matches!(self, Self::Key(_) | Self::Mismatch)
    }
}

fn parse_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PairError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| PairError::Chain(error.to_string()))
}

fn read_leaf(leaf: &CertificateDer<'_>) -> Result<(Vec<HostPattern>, Timestamp), PairError> {
    let unreadable = |error: &dyn fmt::Display| PairError::Leaf(error.to_string());
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| unreadable(&error))?;
    let alternative = leaf
        .subject_alternative_name()
        .map_err(|error| unreadable(&error))?;
    let names = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => HostPattern::parse(name).ok(),
        _ => None,
    });
    let not_after =
        Timestamp::from_second(leaf.validity().not_after.timestamp()).map_err(|error| unreadable(&error))?;
    Ok((names.collect(), not_after))
}

fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, PairError> {
    let certified = combine(chain, key)?;
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(PairError::Mismatch),
        // Of an unknown kind of key the library cannot tell; the handshake will.
        Ok(()) | Err(rustls::Error::InconsistentKeys(_)) => Ok(certified),
        Err(error) => Err(error.into()),
    }
}

fn combine(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, PairError> {
    let key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| PairError::Key(error.to_string()))?;
    Ok(CertifiedKey::new(chain, key))
}

fn configure(certified: CertifiedKey) -> Result<ServerConfig, PairError> {
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(certified));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    // Tickets hold the whole session: nothing is kept here for each client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // As from Go's servers: whoever comes back with it gets the next one. A second would be a twentieth of a resumption.
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// What an authority is shown that validates TLS-ALPN-01: the chain and key in `pem`, and its
/// protocol alone (RFC 8737 3).
///
/// Whether they match is for the authority to see: the library reads no certificate with the critical
/// extension that this one must have.
pub(crate) fn configure_validation(pem: &[u8]) -> Result<ServerConfig, PairError> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| PairError::Key(error.to_string()))?;
    let mut config = configure(combine(parse_chain(pem)?, key)?)?;
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(config)
}

/// With AES-128 first, as browsers have it: processors have instructions for its hash too, and a handshake with that
/// of AES-256 takes a fifth more.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// A pair as the store would hold it, valid until the end of `year`.
    pub(crate) fn pair(directory: &str, names: &[&str], year: i32) -> PairFiles {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(year, 12, 31);
        PairFiles {
            directory: CertificateDir::new(PathBuf::from(directory)),
            chain: Ok(params.self_signed(&key).unwrap().pem().into_bytes()),
            key: Ok(key.serialize_pem().into_bytes()),
        }
    }

    #[test]
    fn a_certificate_covers_the_names_in_it() {
        let pair = pair("a.test", &["a.test", "*.B.test"], 2099);
        let certificate = Certificate::load(&pair, None).unwrap();
        let covers = |name| certificate.covers(&Host::parse(name).unwrap());
        assert!(covers("a.test") && covers("x.b.test"));
        assert!(!covers("x.a.test") && !covers("b.test") && !covers("x.y.b.test"));
        assert_eq!(certificate.name(), "a.test");
        assert_eq!(certificate.not_after, "2099-12-31T00:00:00Z".parse().unwrap());
    }

    #[test]
    fn what_cannot_serve_is_told_with_its_file() {
        let (good, other) = (
            pair("store/a.test", &["a.test"], 2099),
            pair("b.test", &["b.test"], 2099),
        );
        let with = |chain: &[u8], key: &[u8]| PairFiles {
            directory: good.directory.clone(),
            chain: Ok(chain.into()),
            key: Ok(key.into()),
        };
        let (chain, key) = (good.chain.as_ref().unwrap(), good.key.as_ref().unwrap());
        for (pair, file, fault) in [
            (
                with(chain, other.key.as_ref().unwrap()),
                "key.pem",
                "does not match",
            ),
            (with(chain, b"nothing"), "key.pem", "private key cannot be read"),
            (with(chain, chain), "key.pem", "private key cannot be read"),
            (with(b"nothing", key), "fullchain.pem", "no certificate"),
            (
                with(&chain[..chain.len() / 2], key),
                "fullchain.pem",
                "chain cannot be read",
            ),
            (
                with(
                    b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                    key,
                ),
                "fullchain.pem",
                "leaf certificate cannot be read",
            ),
        ] {
            let problem = Certificate::load(&pair, None).unwrap_err().to_string();
            assert!(problem.contains(&format!("store/a.test/{file}")), "{problem}");
            assert!(problem.contains(fault), "{problem}");
        }
    }

    #[test]
    fn the_same_bytes_stay_the_same_certificate() {
        let first = pair("a.test", &["a.test"], 2099);
        let loaded = Certificate::load(&first, None).unwrap();
        assert!(Arc::ptr_eq(
            &loaded,
            &Certificate::load(&first, Some(&loaded)).unwrap()
        ));
        let renewed = pair("a.test", &["a.test"], 2099);
        assert!(!Arc::ptr_eq(
            &loaded,
            &Certificate::load(&renewed, Some(&loaded)).unwrap()
        ));
    }
}
