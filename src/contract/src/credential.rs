use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A name and the hash of its password, `NAME:HASH` as `htpasswd -B` writes it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Credential {
    pub user: String,
    pub hash: PasswordHash,
}

/// In the form of the program that made it.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    Bcrypt(String),
    Argon2(String),
}

// Who sees a log need not see a hash.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl TryFrom<String> for Credential {
    type Error = InvalidCredential;

    fn try_from(text: String) -> Result<Self, InvalidCredential> {
        let (user, hash) = text.split_once(':').ok_or(InvalidCredential::Form)?;
        if user.is_empty() || user.chars().any(char::is_control) {
            return Err(InvalidCredential::Form);
        }
        Ok(Self {
            user: user.to_owned(),
            hash: PasswordHash::parse(hash).ok_or_else(|| InvalidCredential::Hash(user.to_owned()))?,
        })
    }
}

impl PasswordHash {
    fn parse(text: &str) -> Option<Self> {
        let starts_with = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"$./+=,".contains(&byte);
        if !text.bytes().all(allowed) {
            return None;
        }
        if starts_with(&["$2a$", "$2b$", "$2y$"]) && text.len() == 60 {
            return Some(Self::Bcrypt(text.to_owned()));
        }
        // Algorithm, version, parameters, salt and hash.
        (starts_with(&["$argon2id$v=19$", "$argon2i$v=19$"]) && text.split('$').count() == 6)
            .then(|| Self::Argon2(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Bcrypt(text) | Self::Argon2(text) => text,
        }
    }
}

impl From<Credential> for String {
    fn from(credential: Credential) -> Self {
        format!("{}:{}", credential.user, credential.hash.as_str())
    }
}

/// The text does not say who may come in. A hash, or a password in its place, is not shown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidCredential {
    #[error("a credential is written NAME:HASH, as `htpasswd -nB NAME` prints it")]
    Form,
    #[error("what stands behind {0:?} is no hash of bcrypt ($2y$…) or argon2 ($argon2id$v=19$…)")]
    Hash(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slow_hashes_are_accepted_and_none_is_shown() {
        let bcrypt = format!("ann:$2y$05${}", "a".repeat(53));
        for text in [
            bcrypt.as_str(),
            "bob:$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g",
        ] {
            let credential = Credential::try_from(text.to_owned()).unwrap();
            assert!(!format!("{credential:?}").contains('$'));
            assert_eq!(String::from(credential), text);
        }
        for text in [
            "",
            "ann",
            ":x",
            "ann:secret",
            "ann:$apr1$x$y",
            "ann:{SHA}x",
            "ann:$2y$05$short",
            "a\nb:$2y$",
        ] {
            let error = Credential::try_from(text.to_owned()).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
