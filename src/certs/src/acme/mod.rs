//! Certificates from an ACME server (RFC 8555).

mod account;
mod answers;
mod client;
mod error;
mod order;
mod pending;

use std::path::PathBuf;
use std::time::Duration;

use fairlead_contract::{Acme, HostPattern, Paths};
use instant_acme::Account;
use tokio::time::timeout;

use crate::acme::answers::Answers;
use crate::acme::order::obtain_chain;
use crate::acme::pending::Pending;
use crate::pair::Pair;

pub(crate) use crate::acme::answers::remove_leftover_answers;
pub(crate) use crate::acme::error::AcmeError;

/// How long one certificate may take, from the order to the chain.
const ORDER_LIMIT: Duration = Duration::from_secs(5 * 60);

/// The authority of one directory, and our account there.
pub(crate) struct Authority {
    account: Account,
    account_file: PathBuf,
    directory: String,
    pending_dir: PathBuf,
    challenges_dir: PathBuf,
}

impl Authority {
    /// Opens the account, registering it first if there is none.
    pub(crate) async fn open(paths: &Paths, acme: &Acme) -> Result<Self, AcmeError> {
        let account_file = paths.account_dir().join(account::file_name(&acme.directory));
        let account = account::open(&account_file, acme).await;
        Ok(Self {
            account: account.map_err(|error| error.name_lost_account(&account_file))?,
            account_file,
            directory: acme.directory.clone(),
            pending_dir: paths.account_dir().join("pending"),
            challenges_dir: paths.challenges_dir(),
        })
    }

    /// Obtains a certificate for exactly these names.
    ///
    /// The key and the order's URL are on disk before the authority is asked to sign. They stay there
    /// until [`Self::forget`] or a final refusal, so that whatever cuts this short, the next call takes
    /// up the same order.
    pub(crate) async fn obtain(&self, name: &HostPattern, names: &[HostPattern]) -> Result<Pair, AcmeError> {
        let path = self.pending_file(name);
        let mut pending = Pending::open(path, &self.directory, names)?;
        let mut answers = Answers::new(&self.challenges_dir);
        let obtained = timeout(
            ORDER_LIMIT,
            obtain_chain(&self.account, &mut pending, &mut answers),
        )
        .await;
        let chain = match obtained.map_err(|_| AcmeError::OrderLimit(ORDER_LIMIT))? {
            Ok(chain) => chain,
            Err(error) => {
                if error.is_final() {
                    pending.remove()?;
                }
                return Err(error.name_lost_account(&self.account_file));
            }
        };
        check(&chain, &pending).inspect_err(|_| self.forget(name))
    }

    /// Lets go of the order after its certificate was stored, or when it led to nothing.
    pub(crate) fn forget(&self, name: &HostPattern) {
        if let Err(error) = fairlead_contract::remove_if_present(&self.pending_file(name)) {
            tracing::warn!("{}", crate::words::chain(&error));
        }
    }

    fn pending_file(&self, name: &HostPattern) -> PathBuf {
        self.pending_dir.join(format!("{name}.toml"))
    }
}

/// Believes nothing about what was delivered: the key must be ours and the names those we asked for.
fn check(chain: &str, pending: &Pending) -> Result<Pair, AcmeError> {
    let pair = Pair::parse(chain.as_bytes(), pending.key().as_bytes()).map_err(AcmeError::Delivered)?;
    if !pair.leaf.names_exactly(pending.names()) {
        return Err(AcmeError::DeliveredNames(pair.leaf.names.into_iter().collect()));
    }
    Ok(pair)
}
