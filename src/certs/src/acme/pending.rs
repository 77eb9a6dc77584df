use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fairlead_contract::{HostPattern, KeyType};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};

use crate::acme::AcmeError;
use crate::key::generate;
use crate::secret::{read_secret, write_secret};
use crate::store::set_file_aside;

const HEADING: &str = "\
# Written by fairlead-certs: an order that has not ended, and the key its certificate will belong to.
";

/// An order under way, as it is kept on disk so that it survives a crash.
pub(crate) struct Pending {
    path: PathBuf,
    record: Record,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Record {
    directory: String,
    names: Vec<HostPattern>,
    #[serde(default)]
    key_type: KeyType,
    /// `None` before the authority has made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<String>,
    key: String,
}

impl Pending {
    /// What was kept for these names and kind of key at this directory.
    pub(crate) fn find(
        path: PathBuf,
        directory: &str,
        names: &[HostPattern],
        key_type: KeyType,
    ) -> Result<Option<Self>, AcmeError> {
        let kept = read(&path)?;
        // In which order the names are matters to nobody.
        let names: BTreeSet<_> = names.iter().collect();
        let is_ours = |record: &Record| {
            let kept: BTreeSet<_> = record.names.iter().collect();
            record.directory == directory && kept == names && record.key_type == key_type
        };
        Ok(kept.filter(is_ours).map(|record| Self { path, record }))
    }

    /// Opens what was kept for these names and kind of key at this directory, or makes a new key and
    /// keeps that.
    ///
    /// It is on disk when this returns, so no order is spent on a disk that could not hold its key.
    pub(crate) fn open(
        path: PathBuf,
        directory: &str,
        names: &[HostPattern],
        key_type: KeyType,
    ) -> Result<Self, AcmeError> {
        if let Some(kept) = Self::find(path.clone(), directory, names, key_type)? {
            return Ok(kept);
        }
        let record = Record {
            directory: directory.to_owned(),
            names: names.to_vec(),
            key_type,
            order: None,
            key: generate(key_type)?.serialize_pem(),
        };
        let pending = Self { path, record };
        pending.write()?;
        Ok(pending)
    }

    pub(crate) fn names(&self) -> &[HostPattern] {
        &self.record.names
    }

    /// PEM.
    pub(crate) fn key(&self) -> &str {
        &self.record.key
    }

    /// The URL of the order, if one was made.
    pub(crate) fn order(&self) -> Option<&str> {
        self.record.order.as_deref()
    }

    pub(crate) fn set_order(&mut self, url: Option<String>) -> Result<(), AcmeError> {
        self.record.order = url;
        self.write()
    }

    /// The certificate signing request (RFC 8555 7.4), DER: exactly the order's names, no subject.
    pub(crate) fn signing_request(&self) -> Result<Vec<u8>, AcmeError> {
        let names: Vec<String> = self.names().iter().map(HostPattern::to_string).collect();
        let mut parameters = CertificateParams::new(names)?;
        parameters.distinguished_name = DistinguishedName::new();
        let request = parameters.serialize_request(&KeyPair::from_pem(self.key())?)?;
        Ok(request.der().to_vec())
    }

    fn write(&self) -> Result<(), AcmeError> {
        let text = format!("{HEADING}\n{}", toml::to_string(&self.record)?);
        Ok(write_secret(&self.path, &text)?)
    }
}

/// What cannot be understood is set aside: the key in it may be that of a certificate which was issued.
fn read(path: &Path) -> Result<Option<Record>, AcmeError> {
    let Some(text) = read_secret(path)? else {
        return Ok(None);
    };
    let read = toml::from_str(&text).map(Some);
    read.or_else(|error| {
        let aside = set_file_aside(path)?;
        // The error's own display quotes the file, and with it the key.
        tracing::warn!(
            "an order under way cannot be understood and is set aside as {}: {}",
            aside.display(),
            error.message()
        );
        Ok(None)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_order_is_taken_up_for_the_same_names_directory_and_kind_of_key_only() {
        let root = tempfile::tempdir().unwrap();
        let names = |names: &[&str]| -> Vec<_> {
            names
                .iter()
                .map(|name| HostPattern::parse(name).unwrap())
                .collect()
        };
        let open_for = |directory: &str, wanted: &[&str], key_type| {
            let path = root.path().join("a.test.toml");
            Pending::open(path, directory, &names(wanted), key_type).unwrap()
        };
        let open = |directory: &str, wanted: &[&str]| open_for(directory, wanted, KeyType::P256);
        let mut first = open("https://ca.test", &["a.test"]);
        first
            .set_order(Some("https://ca.test/order/1".to_owned()))
            .unwrap();
        let again = open("https://ca.test", &["a.test"]);
        assert_eq!(again.record, first.record);
        let other_names = open("https://ca.test", &["a.test", "b.test"]);
        assert_eq!(other_names.order(), None);
        assert_ne!(other_names.key(), first.key());
        let same_names = open("https://ca.test", &["b.test", "a.test"]);
        assert_eq!(same_names.key(), other_names.key());
        let other_directory = open("https://other.test", &["a.test", "b.test"]);
        assert_ne!(other_directory.key(), other_names.key());
        let other_kind = open_for("https://other.test", &["a.test", "b.test"], KeyType::P384);
        assert_ne!(other_kind.key(), other_directory.key());
    }

    #[test]
    fn an_order_that_cannot_be_understood_is_set_aside_with_its_key() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.test.toml");
        let names = [HostPattern::parse("a.test").unwrap()];
        let open = || Pending::open(path.clone(), "https://ca.test", &names, KeyType::P256).unwrap();
        open();
        let damaged = fs::read_to_string(&path).unwrap().replace("names", "nmes");
        write_secret(&path, &damaged).unwrap();
        assert!(!damaged.contains(open().key()));
        let aside = root.path().join("a.test.toml.broken");
        assert_eq!(fs::read_to_string(aside).unwrap(), damaged);
    }
}
