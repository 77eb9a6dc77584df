use std::time::SystemTime;

use fairlead_contract::{HostPattern, KeyType, Paths, WriteError, read_file, write_atomically};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use thiserror::Error;

use crate::key::generate;
use crate::pair::{InvalidPair, Pair};
use crate::secret::{SecretError, read_secret, write_secret};

const ROOT_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Certificates begin this long ago, for clients whose clocks are behind.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// This machine's own certificate authority.
///
/// The key is the authority: the root is made from it, under the same name, whenever it is missing or
/// near its end, and what was signed before stays good.
pub(crate) struct InternalAuthority {
    key: KeyPair,
    now: Timestamp,
}

impl InternalAuthority {
    /// Opens the authority, or makes it, and publishes its root.
    pub(crate) fn open(paths: &Paths, now: Timestamp) -> Result<Self, InternalError> {
        let path = paths.internal_authority_dir().join("key.pem");
        let key = match read_secret(&path)? {
            Some(pem) => KeyPair::from_pem(&pem)?,
            None => {
                let key = KeyPair::generate()?;
                write_secret(&path, &key.serialize_pem())?;
                key
            }
        };
        let authority = Self { key, now };
        authority.publish_root(paths)?;
        Ok(authority)
    }

    /// What the certificates it signs name as their authority key (RFC 5280 4.2.1.1).
    pub(crate) fn key_identifier(&self) -> Vec<u8> {
        CertificateParams::default().key_identifier(&self.key)
    }

    /// Makes a key and signs a certificate for it.
    pub(crate) fn issue(&self, names: &[HostPattern], key_type: KeyType) -> Result<Pair, InternalError> {
        let key = generate(key_type)?;
        let names: Vec<String> = names.iter().map(HostPattern::to_string).collect();
        let mut parameters = CertificateParams::new(names)?;
        // Names stand among the SANs only; a common name could be too long (RFC 9525 2, RFC 5280 A.1).
        parameters.distinguished_name = DistinguishedName::new();
        parameters.not_before = self.system_time(-BACKDATED).into();
        parameters.not_after = self.system_time(LEAF_LIFETIME).into();
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        let issuer = Issuer::new(self.root_parameters(), &self.key);
        let chain = parameters.signed_by(&key, &issuer)?.pem();
        Ok(Pair::parse(chain.as_bytes(), key.serialize_pem().as_bytes())?)
    }

    /// The root outlives every certificate that is signed now.
    fn publish_root(&self, paths: &Paths) -> Result<(), InternalError> {
        let path = paths.internal_ca_file();
        let key = self.key.serialize_pem();
        let is_good = |root: Vec<u8>| {
            Pair::parse(&root, key.as_bytes())
                .is_ok_and(|pair| self.now.duration_until(pair.leaf.not_after) > 2 * LEAF_LIFETIME)
        };
        if !read_file(&path).is_ok_and(is_good) {
            let root = self.root_parameters().self_signed(&self.key)?;
            write_atomically(&path, root.pem().as_bytes(), 0o644)?;
        }
        Ok(())
    }

    fn root_parameters(&self) -> CertificateParams {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters
            .distinguished_name
            .push(DnType::CommonName, self.name());
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.not_before = self.system_time(-BACKDATED).into();
        parameters.not_after = self.system_time(ROOT_LIFETIME).into();
        parameters
    }

    /// Tells the roots of several machines apart in a list of trusted ones.
    fn name(&self) -> String {
        let identifier = self.key_identifier();
        let digits: String = identifier
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("fairlead internal CA {digits}")
    }

    fn system_time(&self, offset: SignedDuration) -> SystemTime {
        self.now.saturating_add(offset).unwrap_or(self.now).into()
    }
}

#[derive(Debug, Error)]
pub(crate) enum InternalError {
    #[error("the internal certificate authority cannot use its key")]
    Key(#[from] SecretError),
    #[error("the internal certificate authority cannot sign")]
    Sign(#[from] rcgen::Error),
    #[error("the internal certificate authority cannot publish its root")]
    Root(#[from] WriteError),
    #[error("the internal certificate authority made no pair")]
    Pair(#[from] InvalidPair),
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn paths(root: &Path) -> Paths {
        let paths = Paths {
            config: root.join("etc"),
            state: root.join("var"),
            runtime: root.join("run"),
        };
        fs::create_dir_all(paths.account_dir()).unwrap();
        fs::create_dir_all(paths.certificates_dir()).unwrap();
        paths
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn the_root_stays_the_same_until_it_is_near_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(directory.path());
        let root = || fs::read(paths.internal_ca_file()).unwrap();
        let first = InternalAuthority::open(&paths, now()).unwrap();
        let first_root = root();
        let again =
            InternalAuthority::open(&paths, now() + SignedDuration::from_hours(9 * 365 * 24)).unwrap();
        assert_eq!(root(), first_root);
        let later = now() + SignedDuration::from_hours(10 * 365 * 24 - 100 * 24);
        let late = InternalAuthority::open(&paths, later).unwrap();
        assert_ne!(root(), first_root);
        assert_eq!(first.key_identifier(), again.key_identifier());
        assert_eq!(
            (first.key_identifier(), first.name()),
            (late.key_identifier(), late.name())
        );
    }

    #[test]
    fn a_certificate_names_exactly_what_was_asked_and_who_signed() {
        let directory = tempfile::tempdir().unwrap();
        let authority = InternalAuthority::open(&paths(directory.path()), now()).unwrap();
        let names: Vec<_> = ["*.app.localhost", "app.localhost"]
            .iter()
            .map(|name| HostPattern::parse(name).unwrap())
            .collect();
        let leaf = authority.issue(&names, KeyType::P256).unwrap().leaf;
        assert!(leaf.names_exactly(&names));
        assert_eq!(leaf.authority_key, Some(authority.key_identifier()));
        assert_eq!(leaf.not_after, now() + LEAF_LIFETIME);
    }
}
