use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fairlead_contract::{Challenge, Host, InvalidHost, Paths, Token, remove_if_present, write_atomically};
use instant_acme::ChallengeHandle;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use crate::acme::AcmeError;
use crate::acme::presented::{Presented, take_all_back};
use crate::dns::{Record, Zones};
use crate::words::chain;

/// The answers to an order's challenges: files that the proxy answers from, and records in the DNS.
///
/// The files stand until this value is dropped and the records until [`Self::withdraw`]: an authority
/// asks from several places, several times.
pub(crate) struct Answers<'a> {
    paths: &'a Paths,
    /// Of the authority that asks.
    directory: &'a str,
    /// The kinds that may be used, the best first.
    kinds: &'a [Challenge],
    zones: Option<&'a Zones<'a>>,
    files: BTreeSet<PathBuf>,
    records: Vec<Record>,
    /// The challenges the authority was told of, by URL.
    ready: BTreeSet<String>,
}

impl<'a> Answers<'a> {
    pub(crate) fn new(
        paths: &'a Paths,
        directory: &'a str,
        kinds: &'a [Challenge],
        zones: Option<&'a Zones<'a>>,
    ) -> Self {
        Self {
            paths,
            directory,
            kinds,
            zones,
            files: BTreeSet::new(),
            records: Vec::new(),
            ready: BTreeSet::new(),
        }
    }

    /// The kinds of challenge that may be answered, the best first. Of wildcards, the DNS alone can tell.
    pub(crate) fn kinds(&self, is_wildcard: bool) -> &[Challenge] {
        match is_wildcard {
            true => &[Challenge::Dns01],
            false => self.kinds,
        }
    }

    /// Publishes the answer to a challenge.
    pub(crate) async fn publish(
        &mut self,
        kind: Challenge,
        challenge: &ChallengeHandle<'_>,
    ) -> Result<(), AcmeError> {
        let authorization = challenge.key_authorization();
        match kind {
            Challenge::Http01 => {
                let token = Token::parse(&challenge.token)?;
                let path = self.paths.challenges_dir().join(token.as_str());
                self.write(path, authorization.as_str(), 0o644)
            }
            Challenge::TlsAlpn01 => {
                let host = name_of(challenge)?;
                let pem = certify(&host, authorization.digest().as_ref())?;
                // The key is worth nothing once the challenge is over, and nothing to others before.
                self.write(self.paths.alpn_challenge_file(&host), &pem, 0o640)
            }
            Challenge::Dns01 => {
                let host = name_of(challenge)?;
                self.add_record(&host, authorization.dns_value()).await
            }
        }
    }

    async fn add_record(&mut self, host: &Host, value: String) -> Result<(), AcmeError> {
        let zones = self.zones.ok_or(AcmeError::NoZones)?;
        let record = zones.place(host, value).await?;
        if !self.records.contains(&record) {
            // Before it is there: whatever comes between, it is taken back.
            Presented::remember(self.paths, self.directory, &record)?;
            self.records.push(record.clone());
            zones.present(&record).await?;
        }
        Ok(())
    }

    /// Waits until the authority can see what was published.
    pub(crate) async fn wait_until_seen(&self) -> Result<(), AcmeError> {
        match self.zones {
            Some(zones) if !self.records.is_empty() => Ok(zones.wait_for(&self.records).await?),
            _ => Ok(()),
        }
    }

    /// Takes the records back.
    pub(crate) async fn withdraw(mut self) {
        let records = std::mem::take(&mut self.records);
        if let Some(zones) = self.zones {
            take_all_back(self.paths, zones, &records).await;
        }
    }

    fn write(&mut self, path: PathBuf, text: &str, mode: u32) -> Result<(), AcmeError> {
        let written = write_atomically(&path, text.as_bytes(), mode);
        self.files.insert(path);
        written?;
        Ok(())
    }

    /// Whether the authority was told of the challenge already, which it may be only once.
    pub(crate) fn is_ready(&self, challenge: &ChallengeHandle<'_>) -> bool {
        self.ready.contains(&challenge.url)
    }

    pub(crate) fn remember_ready(&mut self, challenge: &ChallengeHandle<'_>) {
        self.ready.insert(challenge.url.clone());
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        for path in &self.files {
            if let Err(error) = remove_if_present(path) {
                tracing::warn!("{}", chain(&error));
            }
        }
    }
}

/// The name in question; of a wildcard, what stands behind `*.`.
fn name_of(challenge: &ChallengeHandle<'_>) -> Result<Host, InvalidHost> {
    Host::parse(&challenge.identifier().identifier.authorized(false).to_string())
}

/// A key, and a certificate for the one name that holds the digest of the key authorization
/// (RFC 8737 3), PEM.
pub(crate) fn certify(host: &Host, digest: &[u8]) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(vec![host.to_string()])?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    Ok(parameters.self_signed(&key)?.pem() + &key.serialize_pem())
}

/// Removes what passes left that were killed. Only for a pass that runs alone.
pub(crate) fn remove_leftover_answers(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        // Who never asks an ACME server needs no such directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let is_answer = entry.file_name().to_str().is_some_and(is_answer);
        if is_answer && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_answer(name: &str) -> bool {
    let host = name.strip_suffix(".pem");
    Token::parse(name).is_ok() || host.is_some_and(|host| Host::parse(host).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_are_removed() {
        let root = tempfile::tempdir().unwrap();
        for name in ["DGyRejmCefe7v4NfDGDKfA", "a.test.pem", ".new-1", "notes.txt"] {
            write_atomically(&root.path().join(name), b"x", 0o644).unwrap();
        }
        fs::create_dir(root.path().join("directory")).unwrap();
        remove_leftover_answers(root.path()).unwrap();
        let entries = fs::read_dir(root.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".new-1", "directory", "notes.txt"]);
        remove_leftover_answers(&root.path().join("missing")).unwrap();
    }
}
