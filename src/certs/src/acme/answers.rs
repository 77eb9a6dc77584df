use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fairlead_contract::{Token, remove_if_present, write_atomically};
use instant_acme::ChallengeHandle;

use crate::acme::AcmeError;
use crate::words::chain;

/// The answers to an order's HTTP-01 challenges (RFC 8555 8.3), each a file that the proxy serves.
///
/// They stand until this value is dropped: an authority asks from several places, several times.
pub(crate) struct Answers {
    directory: PathBuf,
    tokens: Vec<Token>,
    /// The challenges the authority was told of, by URL.
    ready: BTreeSet<String>,
}

impl Answers {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            tokens: Vec::new(),
            ready: BTreeSet::new(),
        }
    }

    /// Publishes the answer to a challenge.
    pub(crate) fn publish(&mut self, challenge: &ChallengeHandle<'_>) -> Result<(), AcmeError> {
        let token = Token::parse(&challenge.token)?;
        let path = self.directory.join(token.as_str());
        self.tokens.push(token);
        write_atomically(&path, challenge.key_authorization().as_str().as_bytes(), 0o644)?;
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

impl Drop for Answers {
    fn drop(&mut self) {
        for token in &self.tokens {
            if let Err(error) = remove_if_present(&self.directory.join(token.as_str())) {
                tracing::warn!("{}", chain(&error));
            }
        }
    }
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
        let is_answer = entry
            .file_name()
            .to_str()
            .is_some_and(|name| Token::parse(name).is_ok());
        if is_answer && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_are_removed() {
        let root = tempfile::tempdir().unwrap();
        for name in ["DGyRejmCefe7v4NfDGDKfA", ".new-1", "a.test.pem"] {
            write_atomically(&root.path().join(name), b"x", 0o644).unwrap();
        }
        fs::create_dir(root.path().join("directory")).unwrap();
        remove_leftover_answers(root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
        assert!(!root.path().join("DGyRejmCefe7v4NfDGDKfA").exists());
        remove_leftover_answers(&root.path().join("missing")).unwrap();
    }
}
