use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use fairlead_contract::{Acme, ExternalAccount};
use instant_acme::{Account, ExternalAccountKey, Key, NewAccount};
use rcgen::KeyPair;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use crate::acme::AcmeError;
use crate::acme::client::BoundedClient;
use crate::acme::order::persist;
use crate::secret::{read_secret, read_secret_file, write_secret};

const HEADING: &str = "\
# Written by fairlead-certs: the account at an ACME server. Whoever reads the key owns the account.
";

/// The account at one directory, as it is kept on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Record {
    directory: String,
    /// The account's URL; `None` before the authority has confirmed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// The address that the authority was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    key: String,
}

/// Opens the account kept in the file `path`, registering it at `acme`'s directory if there is none.
///
/// The key is on disk before the authority hears of it, and registering a known key again gives the
/// same account (RFC 8555 7.3.1), so an interruption never leads to a second one. Only of an account
/// that is bound to an external one the library makes the key itself, and it is on disk afterwards.
pub(crate) async fn open(
    path: &Path,
    acme: &Acme,
    client: impl Fn() -> Result<BoundedClient, AcmeError>,
) -> Result<Account, AcmeError> {
    let (account, mut record) = match (read(path)?, &acme.external_account) {
        (Some(record), external) if record.url.is_some() || external.is_none() => {
            resume(path, record, client).await?
        }
        (_, Some(external)) => register_bound(path, acme, external, client).await?,
        (_, None) => resume(path, make(path, &acme.directory)?, client).await?,
    };
    if record.email != acme.email {
        tell_email(&account, acme.email.as_deref()).await?;
        record.email.clone_from(&acme.email);
        write(path, &record)?;
    }
    Ok(account)
}

/// Opens the account of a record, registering it if the authority has not confirmed it yet.
async fn resume(
    path: &Path,
    mut record: Record,
    client: impl Fn() -> Result<BoundedClient, AcmeError>,
) -> Result<(Account, Record), AcmeError> {
    if let Some(url) = record.url.clone() {
        let key = pkcs8(path, &record)?;
        let builder = Account::builder_with_http(Box::new(client()?));
        let account = builder.from_parts(url, key, record.directory.clone()).await?;
        return Ok((account, record));
    }
    let (account, _) = persist(async || {
        let der = pkcs8(path, &record)?;
        let key = Key::from_pkcs8_der(der.clone_key())?;
        let builder = Account::builder_with_http(Box::new(client()?));
        let created = builder.create_from_key((key, PrivateKeyDer::Pkcs8(der)), record.directory.clone());
        Ok(created.await?)
    })
    .await?;
    record.url = Some(account.id().to_owned());
    confirm(path, &record)?;
    Ok((account, record))
}

/// Registers an account that is bound to one the operator has there already (RFC 8555 7.3.4).
async fn register_bound(
    path: &Path,
    acme: &Acme,
    external: &ExternalAccount,
    client: impl Fn() -> Result<BoundedClient, AcmeError>,
) -> Result<(Account, Record), AcmeError> {
    let secret = read_secret_file(&external.key)?;
    let secret = BASE64URL_NOPAD
        .decode(secret.trim_end_matches('=').as_bytes())
        .map_err(AcmeError::ExternalAccountKey)?;
    let external = ExternalAccountKey::new(external.key_id.clone(), &secret);
    let new = NewAccount {
        contact: &[],
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, credentials) = persist(async || {
        let builder = Account::builder_with_http(Box::new(client()?));
        let created = builder.create(&new, acme.directory.clone(), Some(&external));
        Ok(created.await?)
    })
    .await?;
    let record = Record {
        directory: acme.directory.clone(),
        url: Some(account.id().to_owned()),
        email: None,
        key: KeyPair::try_from(credentials.private_key())?.serialize_pem(),
    };
    confirm(path, &record)?;
    Ok((account, record))
}

/// Keeps an account that the authority has just confirmed.
fn confirm(path: &Path, record: &Record) -> Result<(), AcmeError> {
    write(path, record)?;
    let account = record.url.as_deref().unwrap_or_default();
    tracing::info!(account, "registered an account at {}", record.directory);
    Ok(())
}

async fn tell_email(account: &Account, email: Option<&str>) -> Result<(), AcmeError> {
    let contacts: Vec<String> = email.iter().map(|address| format!("mailto:{address}")).collect();
    let contacts: Vec<&str> = contacts.iter().map(String::as_str).collect();
    persist(async || Ok(account.update_contacts(&contacts).await?)).await
}

fn read(path: &Path) -> Result<Option<Record>, AcmeError> {
    let Some(text) = read_secret(path)? else {
        return Ok(None);
    };
    match toml::from_str(&text) {
        Ok(record) => Ok(Some(record)),
        // The error's own display quotes the file, and with it the key.
        Err(error) => Err(unusable(path, error.message())),
    }
}

fn make(path: &Path, directory: &str) -> Result<Record, AcmeError> {
    let record = Record {
        directory: directory.to_owned(),
        url: None,
        email: None,
        key: KeyPair::generate()?.serialize_pem(),
    };
    write(path, &record)?;
    Ok(record)
}

fn write(path: &Path, record: &Record) -> Result<(), AcmeError> {
    let text = format!("{HEADING}\n{}", toml::to_string(record)?);
    Ok(write_secret(path, &text)?)
}

fn pkcs8(path: &Path, record: &Record) -> Result<PrivatePkcs8KeyDer<'static>, AcmeError> {
    let key = KeyPair::from_pem(&record.key).map_err(|error| unusable(path, &error.to_string()))?;
    Ok(key.into())
}

fn unusable(path: &Path, cause: &str) -> AcmeError {
    AcmeError::AccountFile {
        path: path.to_owned(),
        cause: cause.to_owned(),
    }
}

/// A directory's file, readable and never shared by two: `ca.test_directory.toml`.
pub(crate) fn file_name(directory: &str) -> PathBuf {
    let rest = directory.strip_prefix("https://").unwrap_or(directory);
    let mut name = String::with_capacity(rest.len() + 5);
    for byte in rest.bytes() {
        match byte {
            b'/' => name.push('_'),
            b'.' | b'-' | b':' => name.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => name.push(byte.into()),
            byte => name.push_str(&format!("%{byte:02X}")),
        }
    }
    PathBuf::from(name + ".toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directorys_file_is_readable_and_its_own() {
        for (directory, expected) in [
            (
                "https://acme-v02.api.letsencrypt.org/directory",
                "acme-v02.api.letsencrypt.org_directory.toml",
            ),
            ("https://127.0.0.1:14000/dir", "127.0.0.1:14000_dir.toml"),
            ("https://ca.test/a_b", "ca.test_a%5Fb.toml"),
            ("https://ca.test/../../x", "ca.test_.._.._x.toml"),
            ("https://ca.test/?a\n", "ca.test_%3Fa%0A.toml"),
        ] {
            assert_eq!(file_name(directory), Path::new(expected));
        }
    }

    #[test]
    fn a_damaged_account_is_said_without_its_key() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("account.toml");
        write_secret(&path, "directory = \"x\"\nkey = \"SECRET\"\nextra = 1\n").unwrap();
        let error = crate::words::chain(&read(&path).unwrap_err());
        assert!(error.contains("account.toml holds no usable account"), "{error}");
        assert!(!error.contains("SECRET"), "{error}");
    }
}
