use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::{Argon2, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fairlead_contract::{Credential, PasswordHash};
use http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

/// How long a password that was right is remembered, so that not every request costs a hash.
const MEMORY: Duration = Duration::from_secs(60);
const MAX_REMEMBERED: usize = 1024;

/// Hashes are slow on purpose: guesses must not take every core from the sites.
static CHECKS: Semaphore = Semaphore::const_new(2);

/// Names and passwords (RFC 7617).
pub(crate) struct BasicAuth {
    /// Never empty.
    credentials: Vec<Credential>,
    /// What was right, as digests with a key of this value's own: no password stays in memory.
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    key: [u8; 32],
}

impl BasicAuth {
    /// `None` if there is nobody to ask for.
    pub(crate) fn new(credentials: &[Credential]) -> Option<Self> {
        (!credentials.is_empty()).then(|| Self {
            credentials: credentials.to_vec(),
            remembered: Mutex::default(),
            key: std::array::from_fn(|_| fastrand::u8(..)),
        })
    }

    /// Whether the request brings a name with its password. The hash is computed away from the threads
    /// that serve.
    pub(crate) async fn admits(&self, headers: &HeaderMap) -> bool {
        let Some((user, password)) = read(headers) else {
            return false;
        };
        let digest = self.digest(&user, &password);
        if self.remembers(&digest) {
            return true;
        }
        let known = self.credentials.iter().find(|credential| credential.user == user);
        // For a name that nobody has, time passes too: it must not show who has one.
        let hash = known.unwrap_or(&self.credentials[0]).hash.clone();
        let Ok(_permit) = CHECKS.acquire().await else {
            return false;
        };
        let verified = tokio::task::spawn_blocking(move || is_right(&password, &hash)).await;
        let is_right = known.is_some() && verified.unwrap_or(false);
        if is_right {
            self.remember(digest);
        }
        is_right
    }

    fn digest(&self, user: &str, password: &str) -> [u8; 32] {
        let hash = Sha256::new().chain_update(self.key).chain_update(user);
        hash.chain_update([b':']).chain_update(password).finalize().into()
    }

    fn remembers(&self, digest: &[u8; 32]) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered
            .get(digest)
            .is_some_and(|since| since.elapsed() < MEMORY)
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(digest, Instant::now());
    }
}

/// The name and password of the one Authorization field.
fn read(headers: &HeaderMap) -> Option<(String, String)> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (field, None) = (fields.next()?, fields.next()) else {
        return None;
    };
    let (scheme, encoded) = field.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn is_right(password: &str, hash: &PasswordHash) -> bool {
    match hash {
        PasswordHash::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
        PasswordHash::Argon2(hash) => Argon2::default()
            .verify_password(password.as_bytes(), hash.as_str())
            .is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let field = |value: &&str| (AUTHORIZATION, HeaderValue::try_from(*value).unwrap());
        values.iter().map(field).collect()
    }

    #[test]
    fn one_well_formed_field_is_read() {
        let read = |values: &[&str]| read(&headers(values));
        let ann = Some(("ann".to_owned(), "a:b".to_owned()));
        assert_eq!(read(&["Basic YW5uOmE6Yg=="]), ann);
        assert_eq!(read(&["bAsIc  YW5uOmE6Yg=="]), ann);
        for values in [
            &[][..],
            &["Basic"],
            &["Basic !"],
            &["Basic YW5u"],
            &["Bearer YW5uOmE6Yg=="],
            &["Basic YW5uOmE6Yg==", "Basic YW5uOmE6Yg=="],
        ] {
            assert_eq!(read(values), None, "{values:?}");
        }
    }
}
