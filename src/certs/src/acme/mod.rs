//! Certificates from an ACME server (RFC 8555).

mod account;
mod answers;
mod budget;
mod chain;
mod client;
mod downloads;
mod error;
mod order;
mod own_address;
mod pending;
mod preflight;
mod presented;
mod reach;
mod renewal_info;
mod replacing;
mod revocation;
mod signed;

use std::path::PathBuf;
use std::time::Duration;

use fairlead_contract::{Acme, Challenge, HostPattern, Paths, file_name, remove_if_present};
use instant_acme::Account;
use tokio::time::timeout;

use crate::acme::answers::Answers;
use crate::acme::budget::Budget;
use crate::acme::chain::prefer;
use crate::acme::client::BoundedClient;
use crate::acme::downloads::Downloads;
use crate::acme::error::is_of_type;
use crate::acme::order::{Delivered, Wishes, obtain_chain};
use crate::acme::pending::Pending;
use crate::acme::preflight::{find_kinds, find_obstacle};
use crate::acme::reach::look;
use crate::acme::renewal_info::{ask, identify};
use crate::acme::signed::Resources;
use crate::dns::Zones;
use crate::pair::{Leaf, Pair};
use crate::renewal::Answer;
use crate::wanted::Wanted;
use crate::words;

pub(crate) use crate::acme::answers::remove_leftover_answers;
pub(crate) use crate::acme::error::AcmeError;
pub(crate) use crate::acme::presented::remove_leftover_records;
pub(crate) use crate::acme::revocation::revoke;

/// How long one certificate may take, from the order to the chain.
const ORDER_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The authority of one directory, and our account there.
pub(crate) struct Authority {
    account: Account,
    account_file: PathBuf,
    acme: Acme,
    downloads: Downloads,
    paths: Paths,
}

impl Authority {
    /// Opens the account, registering it first if there is none.
    pub(crate) async fn open(paths: &Paths, acme: &Acme) -> Result<Self, AcmeError> {
        let account_file = account_file(paths, acme);
        let downloads = Downloads::default();
        let client = || BoundedClient::new(acme.ca_file.as_deref(), &downloads);
        let account = account::open(&account_file, acme, client).await;
        Ok(Self {
            account: account.map_err(|error| error.advise(&account_file))?,
            account_file,
            acme: acme.clone(),
            downloads,
            paths: paths.clone(),
        })
    }

    /// Asks when a certificate is to be renewed (RFC 9773 4).
    pub(crate) async fn ask_about(&self, leaf: &Leaf) -> Result<Answer, AcmeError> {
        ask(&self.account, leaf).await
    }

    /// Fails if an order would be needed and none is left of those that may be made.
    pub(crate) fn check_budget(&self, wanted: &Wanted, present: Option<&Leaf>) -> Result<(), AcmeError> {
        let path = self.pending_file(wanted);
        let pending = Pending::find(path, &self.acme.directory, &wanted.names, wanted.key_type)?;
        match pending.and_then(|pending| pending.order().map(drop)) {
            Some(()) => Ok(()),
            None => self.budget(present).check(),
        }
    }

    /// Fails if our clock makes certificates due that are not.
    pub(crate) fn check_clock(&self) -> Result<(), AcmeError> {
        self.downloads.check_clock()
    }

    fn pending_file(&self, wanted: &Wanted) -> PathBuf {
        pending_file(&self.paths, &self.acme.directory, &wanted.name)
    }

    fn budget(&self, present: Option<&Leaf>) -> Budget<'_> {
        Budget::new(&self.paths, &self.acme, present.is_some())
    }

    /// Obtains a certificate for exactly the names wanted, in the place of `present`, which this
    /// authority issued (RFC 9773 5).
    ///
    /// The key and the order's URL are on disk before the authority is asked to sign. They stay there
    /// until [`forget_order`] or a final refusal, so that whatever cuts this short, the next call takes
    /// up the same order.
    pub(crate) async fn obtain(&self, wanted: &Wanted, present: Option<&Leaf>) -> Result<Pair, AcmeError> {
        let path = self.pending_file(wanted);
        let mut pending = Pending::open(path, &self.acme.directory, &wanted.names, wanted.key_type)?;
        let kinds = self.judge(&pending, wanted).await?;
        let delivered = match self.lead_to_its_end(&mut pending, &kinds, present).await {
            Ok(delivered) => delivered,
            Err(error) => {
                if error.is_final() {
                    forget_order(&self.paths, &self.acme.directory, &wanted.name);
                }
                return Err(self.explain(error).await);
            }
        };
        let preferred = self.acme.preferred_chain.as_deref();
        let chain = prefer(preferred, delivered, &self.account, &self.downloads).await;
        check(&chain, &pending).inspect_err(|error| {
            if error.is_for_another() {
                forget_order(&self.paths, &self.acme.directory, &wanted.name);
            }
        })
    }

    /// Returns the kinds of challenge that may be answered, if an order could succeed.
    async fn judge(&self, pending: &Pending, wanted: &Wanted) -> Result<Vec<Challenge>, AcmeError> {
        let kinds = permitted(&self.acme, wanted.challenge);
        // An order that is under way may need nothing of the DNS any more, and nobody to ask here.
        if pending.order().is_some() {
            let able = find_kinds(&self.paths, &self.acme, &wanted.names, &kinds).await;
            return Ok(able.unwrap_or(kinds));
        }
        find_obstacle(&self.acme, wanted, async || self.caa_identities().await).await?;
        Ok(find_kinds(&self.paths, &self.acme, &wanted.names, &kinds).await?)
    }

    /// Within [`ORDER_LIMIT`]. No answer to a challenge is left when this returns.
    async fn lead_to_its_end(
        &self,
        pending: &mut Pending,
        kinds: &[Challenge],
        present: Option<&Leaf>,
    ) -> Result<Delivered, AcmeError> {
        let zones = self.acme.dns.as_ref();
        let zones = zones
            .map(|dns| Zones::open(dns, &self.acme.resolvers))
            .transpose()?;
        let wishes = Wishes {
            replaces: present.and_then(identify),
            profile: self.acme.profile.as_deref(),
            budget: self.budget(present),
        };
        let mut answers = Answers::new(&self.paths, &self.acme.directory, kinds, zones.as_ref());
        let obtaining = obtain_chain(&self.account, pending, &wishes, &mut answers);
        let obtained = timeout(ORDER_LIMIT, obtaining).await;
        answers.withdraw().await;
        obtained.map_err(|_| AcmeError::OrderLimit(ORDER_LIMIT))?
    }

    /// Asked for again each time, because it is seldom needed.
    async fn caa_identities(&self) -> Result<Vec<String>, AcmeError> {
        let client = BoundedClient::new(self.acme.ca_file.as_deref(), &self.downloads)?;
        let resources = Resources::read(&self.acme.directory, client).await?;
        Ok(resources.caa_identities().to_vec())
    }

    /// Says what the operator can do about it, and what we see of the names ourselves.
    async fn explain(&self, error: AcmeError) -> AcmeError {
        match error.advise(&self.account_file) {
            AcmeError::Authorizations { rejections, .. } => AcmeError::Authorizations {
                seen: look(&self.paths, &self.acme.resolvers, &rejections).await,
                rejections,
            },
            // Also what it says where it only does not want to sign for a name.
            error
                if error
                    .problem()
                    .is_some_and(|problem| is_of_type(problem, "unauthorized")) =>
            {
                let client = || BoundedClient::new(self.acme.ca_file.as_deref(), &self.downloads);
                match account::is_shut(&self.account_file, &self.acme, client).await {
                    true => error.blame_account(&self.account_file),
                    false => error,
                }
            }
            error => error,
        }
    }
}

/// Gives our account another key, and returns the account's URL.
pub(crate) async fn roll_over(paths: &Paths, acme: &Acme) -> Result<String, AcmeError> {
    let file = account_file(paths, acme);
    let client = || BoundedClient::new(acme.ca_file.as_deref(), &Downloads::default());
    let changed = account::roll_over(&file, acme, client).await;
    changed.map_err(|error| error.advise(&file))
}

/// Gives our account up, and returns its URL.
pub(crate) async fn deactivate(paths: &Paths, acme: &Acme) -> Result<String, AcmeError> {
    let file = account_file(paths, acme);
    let client = || BoundedClient::new(acme.ca_file.as_deref(), &Downloads::default());
    let ended = account::deactivate(&file, acme, client).await;
    ended.map_err(|error| error.advise(&file))
}

/// Where our account is kept.
pub(crate) fn account_file(paths: &Paths, acme: &Acme) -> PathBuf {
    paths.account_dir().join(account::file_name(&acme.directory))
}

/// Lets go of the order at a directory after a certificate was stored, or when it led to nothing.
pub(crate) fn forget_order(paths: &Paths, directory: &str, name: &HostPattern) {
    if let Err(error) = remove_if_present(&pending_file(paths, directory, name)) {
        tracing::warn!("{}", words::chain(&error));
    }
}

/// Each directory's order has a file of its own: a fallback must not take the place of an order that its
/// authority may still end. No name has an `@`.
fn pending_file(paths: &Paths, directory: &str, name: &HostPattern) -> PathBuf {
    let directory = account::file_name(directory);
    let file = file_name(&format!("{name}@{}", directory.display()));
    paths.pending_orders_dir().join(file)
}

/// The kinds of challenge that the settings let us answer, the best first.
fn permitted(acme: &Acme, challenge: Option<Challenge>) -> Vec<Challenge> {
    match challenge {
        Some(kind) => vec![kind],
        None if acme.dns.is_some() => vec![Challenge::Http01, Challenge::TlsAlpn01, Challenge::Dns01],
        None => vec![Challenge::Http01, Challenge::TlsAlpn01],
    }
}

/// Believes nothing about what was delivered: the key must be ours and the names those we asked for.
fn check(delivered: &str, pending: &Pending) -> Result<Pair, AcmeError> {
    let pair = Pair::parse(delivered.as_bytes(), pending.key().as_bytes()).map_err(AcmeError::Delivered)?;
    if !pair.leaf.names_exactly(pending.names()) {
        return Err(AcmeError::DeliveredNames(pair.leaf.names.into_iter().collect()));
    }
    Ok(pair)
}
