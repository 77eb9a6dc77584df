use jiff::Timestamp;
use thiserror::Error;

use crate::acme::AcmeError;
use crate::backoff::AskedToWait;
use crate::internal::InternalError;
use crate::kept::KeptError;
use crate::store::StoreError;
use crate::words::chain;

/// Why an attempt brought no certificate into the store.
#[derive(Debug, Error)]
pub(crate) enum AttemptError {
    #[error("the internal certificate authority cannot be used: {0}")]
    NoInternal(String),
    #[error("the account cannot be used: {cause}")]
    NoAccount {
        cause: String,
        is_local: bool,
        is_down: bool,
        asked: Option<AskedToWait>,
    },
    #[error("{}", join(.0))]
    Several(Vec<(String, Self)>),
    #[error("{directory} asked to be left alone until {until}")]
    LeftAlone { directory: String, until: Timestamp },
    #[error("its issuer was not opened")]
    NotOpened,
    #[error(transparent)]
    Kept(#[from] KeptError),
    #[error(transparent)]
    Internal(#[from] InternalError),
    #[error(transparent)]
    Acme(#[from] AcmeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AttemptError {
    /// Whether the fault lies on this machine and nobody was asked: then there is nothing to wait for.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::NoAccount { is_local, .. } => *is_local,
            Self::Acme(error) => error.is_local(),
            Self::NoInternal(_) | Self::NotOpened | Self::Internal(_) | Self::Kept(_) => true,
            // The authority may have been asked already; what it made is kept for the next try.
            Self::Store(_) | Self::Several(_) | Self::LeftAlone { .. } => false,
        }
    }

    /// Whether the authority cannot do anything at present, for anybody.
    pub(crate) fn is_down(&self) -> bool {
        match self {
            Self::NoAccount { is_down, .. } => *is_down,
            Self::LeftAlone { .. } => true,
            Self::Acme(error) => error.is_down(),
            _ => false,
        }
    }

    /// Who was asked, and what each said about the next attempt; it was to be `issuer`.
    pub(crate) fn asked(&self, issuer: &str) -> Vec<(String, Option<AskedToWait>)> {
        match self {
            Self::Several(tried) => tried
                .iter()
                .map(|(directory, error)| (directory.clone(), error.asked_to_wait()))
                .collect(),
            error => vec![(issuer.to_owned(), error.asked_to_wait())],
        }
    }

    fn asked_to_wait(&self) -> Option<AskedToWait> {
        match self {
            Self::LeftAlone { until, .. } => Some(AskedToWait::Until(*until)),
            Self::NoAccount { asked, .. } => *asked,
            Self::Acme(error) => error.asked_to_wait(),
            _ => None,
        }
    }
}

/// A refusal is an answer: what the authorities before it said is in the log.
fn join(tried: &[(String, AttemptError)]) -> String {
    match tried.last() {
        Some((_, refusal)) if !refusal.is_down() => chain(refusal),
        _ => {
            let causes: Vec<_> = tried.iter().map(|(_, error)| chain(error)).collect();
            format!("every authority is down: {}", causes.join("; "))
        }
    }
}
