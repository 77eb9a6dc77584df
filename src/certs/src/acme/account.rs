use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use fairlead_contract::{Acme, ExternalAccount};
use instant_acme::{Account, Error, Key};
use rcgen::KeyPair;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::acme::AcmeError;
use crate::acme::client::BoundedClient;
use crate::acme::error::is_of_type;
use crate::acme::order::persist;
use crate::acme::signed::{By, Resources, public_key, sign, sign_external};
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
    /// What a roll-over that has not ended is to put in the place of `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_key: Option<String>,
    /// The operator gave it up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deactivated: bool,
}

/// Opens the account kept in the file `path`, registering it at `acme`'s directory if there is none.
///
/// The key is on disk before the authority hears of it, and registering a known key again gives the
/// same account (RFC 8555 7.3.1), so an interruption never leads to a second one.
pub(crate) async fn open(
    path: &Path,
    acme: &Acme,
    client: impl Fn() -> Result<BoundedClient, AcmeError>,
) -> Result<Account, AcmeError> {
    let record = match read(path)? {
        Some(record) => record,
        None => make(path, &acme.directory)?,
    };
    if let (None, Some(external)) = (&record.url, &acme.external_account) {
        bind(path, &record, external, client()?).await?;
    }
    let (account, mut record) = resume(path, record, client).await?;
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
    if record.deactivated {
        return Err(AcmeError::AccountDeactivated(path.to_owned()));
    }
    if let Some(url) = record.url.clone() {
        let record = settle(path, record, &client).await?;
        let key = pkcs8(path, &record.key)?;
        let builder = Account::builder_with_http(Box::new(client()?));
        let account = builder.from_parts(url, key, record.directory.clone()).await?;
        return Ok((account, record));
    }
    let (account, _) = persist(async || {
        let der = pkcs8(path, &record.key)?;
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

/// Registers the account of a record as one that is bound to an account the operator has there already
/// (RFC 8555 7.3.4). The library would make another key for it.
async fn bind(
    path: &Path,
    record: &Record,
    external: &ExternalAccount,
    client: BoundedClient,
) -> Result<(), AcmeError> {
    let secret = read_secret_file(&external.key)?;
    let secret = BASE64URL_NOPAD
        .decode(secret.trim_end_matches('=').as_bytes())
        .map_err(AcmeError::ExternalAccountKey)?;
    let key = key_pair(path, &record.key)?;
    let resources = Resources::read(&record.directory, client).await?;
    let place = resources.new_account();
    let account = json!({
        "termsOfServiceAgreed": true,
        "externalAccountBinding": sign_external(&external.key_id, &secret, place, &public_key(&key)?),
    });
    resources.post(place, By::Key(&key), &account).await?;
    Ok(())
}

/// Ends a roll-over that was cut short: the new key holds if the authority knows the account by it.
async fn settle(
    path: &Path,
    mut record: Record,
    client: &impl Fn() -> Result<BoundedClient, AcmeError>,
) -> Result<Record, AcmeError> {
    let Some(next) = record.next_key.take() else {
        return Ok(record);
    };
    let known = persist(async || {
        let der = pkcs8(path, &next)?;
        let key = Key::from_pkcs8_der(der.clone_key())?;
        let builder = Account::builder_with_http(Box::new(client()?));
        let found = builder.from_key((key, PrivateKeyDer::Pkcs8(der)), record.directory.clone());
        Ok(found.await?)
    })
    .await;
    match known {
        Ok(_) => record.key = next,
        Err(error) if is_unknown(&error) => {}
        Err(error) => return Err(error),
    }
    write(path, &record)?;
    Ok(record)
}

fn is_unknown(error: &AcmeError) -> bool {
    error
        .problem()
        .is_some_and(|problem| is_of_type(problem, "accountDoesNotExist"))
}

/// A registered account: its URL and its key.
pub(crate) struct Identity {
    pub(crate) url: String,
    pub(crate) key: KeyPair,
}

/// The account kept in the file `path`; `None` if there is none that the authority knows.
pub(crate) async fn identify(
    path: &Path,
    client: impl Fn() -> Result<BoundedClient, AcmeError>,
) -> Result<Option<Identity>, AcmeError> {
    match read(path)? {
        Some(record) if record.url.is_some() && !record.deactivated => {
            let record = settle(path, record, &client).await?;
            identity(path, &record).map(Some)
        }
        _ => Ok(None),
    }
}

/// Gives the account another key, and returns its URL (RFC 8555 7.3.5).
///
/// The new key is on disk before the authority hears of it, because the old one is dead as soon as it
/// does. Whatever cuts this short, [`settle`] finds out which of the two holds.
pub(crate) async fn roll_over(
    path: &Path,
    acme: &Acme,
    client: impl Fn() -> Result<BoundedClient, AcmeError>,
) -> Result<String, AcmeError> {
    let (mut record, Identity { url, key }, resources) = find(path, acme, &client).await?;
    let next = KeyPair::generate()?;
    record.next_key = Some(next.serialize_pem());
    write(path, &record)?;
    let place = resources.key_change()?;
    let change = json!({ "account": url, "oldKey": public_key(&key)? });
    let change = sign(By::Key(&next), place, None, &change)?;
    resources.post(place, By::Account(&url, &key), &change).await?;
    record.key = next.serialize_pem();
    record.next_key = None;
    write(path, &record)?;
    Ok(url)
}

/// Gives the account up, and returns its URL (RFC 8555 7.3.6).
pub(crate) async fn deactivate(
    path: &Path,
    acme: &Acme,
    client: impl Fn() -> Result<BoundedClient, AcmeError>,
) -> Result<String, AcmeError> {
    let (mut record, Identity { url, key }, resources) = find(path, acme, &client).await?;
    let order = json!({ "status": "deactivated" });
    let answer = resources.post(&url, By::Account(&url, &key), &order).await?;
    let answer: Value = serde_json::from_slice(&answer).map_err(Error::from)?;
    if answer["status"] != order["status"] {
        return Err(AcmeError::Protocol(Error::Str(
            "the account's status deactivated",
        )));
    }
    record.deactivated = true;
    write(path, &record)?;
    Ok(url)
}

/// Whether the authority refuses the account itself, whatever it is used for (RFC 8555 7.3.6).
pub(crate) async fn is_shut(
    path: &Path,
    acme: &Acme,
    client: impl Fn() -> Result<BoundedClient, AcmeError>,
) -> bool {
    let Ok((_, Identity { url, key }, resources)) = find(path, acme, &client).await else {
        return false;
    };
    // An update that changes nothing (RFC 8555 7.3.2).
    let asked = resources.post(&url, By::Account(&url, &key), &json!({})).await;
    match asked {
        Ok(account) => serde_json::from_slice(&account)
            .is_ok_and(|account: Value| account["status"].as_str().is_some_and(|status| status != "valid")),
        Err(error) => error
            .problem()
            .is_some_and(|problem| is_of_type(problem, "unauthorized")),
    }
}

/// The account that the operator speaks of, with its record, and where its authority is asked.
async fn find(
    path: &Path,
    acme: &Acme,
    client: &impl Fn() -> Result<BoundedClient, AcmeError>,
) -> Result<(Record, Identity, Resources), AcmeError> {
    let record = read(path)?.filter(|record| record.url.is_some());
    let record = record.ok_or_else(|| AcmeError::NoAccount(acme.directory.clone()))?;
    if record.deactivated {
        return Err(AcmeError::AccountDeactivated(path.to_owned()));
    }
    let record = settle(path, record, client).await?;
    let identity = identity(path, &record)?;
    let resources = Resources::read(&acme.directory, client()?).await?;
    Ok((record, identity, resources))
}

fn identity(path: &Path, record: &Record) -> Result<Identity, AcmeError> {
    Ok(Identity {
        url: record.url.clone().unwrap_or_default(),
        key: key_pair(path, &record.key)?,
    })
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
        next_key: None,
        deactivated: false,
        key: KeyPair::generate()?.serialize_pem(),
    };
    write(path, &record)?;
    Ok(record)
}

fn write(path: &Path, record: &Record) -> Result<(), AcmeError> {
    let text = format!("{HEADING}\n{}", toml::to_string(record)?);
    Ok(write_secret(path, &text)?)
}

fn pkcs8(path: &Path, pem: &str) -> Result<PrivatePkcs8KeyDer<'static>, AcmeError> {
    Ok(key_pair(path, pem)?.into())
}

fn key_pair(path: &Path, pem: &str) -> Result<KeyPair, AcmeError> {
    KeyPair::from_pem(pem).map_err(|error| unusable(path, &error.to_string()))
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
