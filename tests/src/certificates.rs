use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fairlead_contract::{HostPattern, write_atomically};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType, IsCa,
    KeyPair, SanType, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, SupportedProtocolVersion, WantsVerifier};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::{Client, Environment};

/// A certificate authority of the test's own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    name: &'static str,
}

/// A chain and its key, PEM, as they stand in the store.
#[derive(Clone, Debug)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Pair {
    /// The certificate itself, as a handshake shows it.
    pub fn leaf(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).expect("the chain is PEM")
    }
}

impl Authority {
    #[expect(clippy::new_without_default, reason = "it makes a key")]
    pub fn new() -> Self {
        Self::named("the test's root")
    }

    pub fn named(name: &'static str) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(root_params(name), key).expect("a root can be signed");
        Self { issuer, name }
    }

    /// A new key and a certificate for `names`, valid until long after any test.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2090)
    }

    /// The same with the year in which it ends.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names can stand in a certificate");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("a certificate can be signed");
        Pair {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A certificate for the other authority, PEM: whoever trusts this one trusts that one too.
    pub fn cross_sign(&self, other: &Self) -> String {
        let certificate = root_params(other.name).signed_by(other.issuer.key(), &self.issuer);
        certificate.expect("a certificate can be signed").pem()
    }

    /// A certificate for a signing request (RFC 2986, DER), valid for this long before and after now, PEM; for `name`
    /// alone if there is one.
    pub fn sign(&self, request: &[u8], name: Option<&str>, before: Duration, after: Duration) -> String {
        let mut request = CertificateSigningRequestParams::from_der(&request.into())
            .expect("it is a signing request and signed with its key");
        if let Some(name) = name {
            let name = name.try_into().expect("a name is ASCII");
            request.params.subject_alt_names = vec![SanType::DnsName(name)];
        }
        let now = SystemTime::now();
        request.params.not_before = (now - before).into();
        request.params.not_after = (now + after).into();
        request.params.use_authority_key_identifier_extension = true;
        let certificate = request
            .signed_by(&self.issuer)
            .expect("a certificate can be signed");
        certificate.pem()
    }

    /// The root, PEM.
    pub fn root(&self) -> String {
        self.issuer.pem()
    }

    /// Clients that trust this authority and nobody else, with each of these versions of TLS.
    pub fn client_with(&self, versions: &[&'static SupportedProtocolVersion]) -> Client {
        trusting(self.root().as_bytes(), versions)
    }

    pub fn client(&self) -> Client {
        self.client_with(rustls::ALL_VERSIONS)
    }
}

fn root_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Under the name of what it signs, OpenSSL would take that for self-signed.
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Client {
    /// A client that trusts this authority, in PEM form, and nobody else.
    pub fn trusting(root: impl AsRef<[u8]>) -> Self {
        trusting(root.as_ref(), rustls::ALL_VERSIONS)
    }
}

fn trusting(root: &[u8], versions: &[&'static SupportedProtocolVersion]) -> Client {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(root).expect("the root is PEM");
    roots.add(root).expect("the root is a certificate");
    Client::new(
        configure(versions)
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

fn configure(versions: &[&'static SupportedProtocolVersion]) -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("the provider has these versions")
}

impl Environment {
    /// Puts a pair into the store, in the certs program's place.
    pub fn store(&self, name: &str, pair: &Pair) {
        let name = HostPattern::parse(name).expect("a certificate is named after a host");
        let directory = self.paths().certificate(&name);
        std::fs::create_dir_all(directory.path()).expect("the store can be written");
        write_atomically(&directory.key_file(), pair.key.as_bytes(), 0o640)
            .expect("the store can be written");
        write_atomically(&directory.chain_file(), pair.chain.as_bytes(), 0o644)
            .expect("the store can be written");
    }
}
