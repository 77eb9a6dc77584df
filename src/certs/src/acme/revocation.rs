use data_encoding::BASE64URL_NOPAD;
use fairlead_contract::{Acme, Paths};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

use crate::acme::account::{self, Identity};
use crate::acme::client::BoundedClient;
use crate::acme::downloads::Downloads;
use crate::acme::error::is_of_type;
use crate::acme::signed::{By, Resources};
use crate::acme::{AcmeError, account_file};
use crate::pair::InvalidPair;
use crate::words;

/// Revokes the certificate of a pair, both PEM (RFC 8555 7.6): in the name of our account, or by its own
/// key if there is no account that may. One that is revoked already counts.
///
/// `reason` is a code of RFC 5280 5.3.1.
pub(crate) async fn revoke(
    paths: &Paths,
    acme: &Acme,
    chain: &[u8],
    key: &str,
    reason: u8,
) -> Result<(), AcmeError> {
    let leaf = CertificateDer::from_pem_slice(chain).map_err(InvalidPair::ChainPem)?;
    let key = KeyPair::from_pem(key)?;
    let client = || BoundedClient::new(acme.ca_file.as_deref(), &Downloads::default());
    let resources = Resources::read(&acme.directory, client()?).await?;
    let request = json!({ "certificate": BASE64URL_NOPAD.encode(&leaf), "reason": reason });
    let ask = async |by: By<'_>| {
        let answer = resources.post(resources.revoke_cert()?, by, &request).await;
        accept_revoked(answer.map(|_| ()))
    };
    if let Some(Identity { url, key }) = account::identify(&account_file(paths, acme), client).await? {
        match ask(By::Account(&url, &key)).await {
            Err(error) if is_not_allowed(&error) => {
                tracing::debug!(
                    "the account may not revoke it, so its own key does: {}",
                    words::chain(&error)
                );
            }
            ended => return ended,
        }
    }
    ask(By::Key(&key)).await
}

fn accept_revoked(answer: Result<(), AcmeError>) -> Result<(), AcmeError> {
    answer.or_else(|error| match error.problem() {
        Some(problem) if is_of_type(problem, "alreadyRevoked") => Ok(()),
        _ => Err(error),
    })
}

fn is_not_allowed(error: &AcmeError) -> bool {
    const TYPES: [&str; 2] = ["unauthorized", "accountDoesNotExist"];
    error
        .problem()
        .is_some_and(|problem| TYPES.iter().any(|name| is_of_type(problem, name)))
}
