use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::DecodeError;
use fairlead_contract::{FileError, InvalidHost, InvalidToken, WriteError};
use http::StatusCode;
use hyper_util::client::legacy;
use instant_acme::{ChallengeType, Error, Problem};
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use crate::acme::preflight::Obstacle;
use crate::backoff::AskedToWait;
use crate::dns::DnsError;
use crate::pair::InvalidPair;
use crate::secret::SecretError;
use crate::store::StoreError;
use crate::words::escaped;

const URN: &str = "urn:ietf:params:acme:error:";

/// Why an ACME server gave no certificate.
#[derive(Debug, Error)]
pub(crate) enum AcmeError {
    #[error("the authority said: {}", words(.0))]
    Problem(Problem),
    #[error("{}{}", join(rejections), join_seen(seen))]
    Authorizations {
        rejections: Vec<Rejection>,
        /// What we see of these names ourselves.
        seen: Vec<String>,
    },
    #[error(
        "the {limit} orders a week that are for such certificates at {directory} are spent; the next may be made \
         from {until} on, or once orders-per-week there is greater"
    )]
    NoBudget {
        directory: String,
        limit: u32,
        until: Timestamp,
    },
    #[error("how many orders were spent cannot be understood; remove the file to count anew: {0}")]
    Orders(fairlead_contract::Problem),
    #[error(
        "this machine's clock is {} hours ahead of the authority's, so what seems due is not renewed: set it right \
         (\"timedatectl\" tells whether it is kept so)",
        .0.as_hours()
    )]
    ClockAhead(SignedDuration),
    #[error("nothing was ordered")]
    Obstacle(#[from] Obstacle),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the authority's answer is not what RFC 8555 asks for")]
    Protocol(#[source] Error),
    #[error("the authority offers no challenge for {} that may be answered ({})", escaped(name), kinds.join(", "))]
    NoChallenge { name: String, kinds: Vec<&'static str> },
    #[error("the authority's challenge is refused")]
    Token(#[from] InvalidToken),
    #[error("the authority asks about a name that cannot be ours")]
    Name(#[from] InvalidHost),
    #[error("there was no certificate after {} minutes; the same order is taken up next time", .0.as_secs() / 60)]
    OrderLimit(Duration),
    #[error("the authority is not done yet; the same order is taken up next time")]
    NotYet(Option<Timestamp>),
    #[error(
        "the authority wants it renewed between {start} and {end}, which is no time it could be renewed in"
    )]
    Window { start: Timestamp, end: Timestamp },
    #[error("an order was made, and where it is cannot be written down")]
    OrderNotKept(#[source] Box<Self>),
    #[error("the authority's order became invalid without a reason")]
    InvalidOrder,
    #[error("the authority delivered something else than a certificate for our key; it was rejected")]
    Delivered(#[source] InvalidPair),
    #[error("the authority delivered a certificate for other names ({}); it was rejected", escaped(&.0.join(", ")))]
    DeliveredNames(Vec<String>),
    #[error(
        "the authority does not accept our account any more: remove {} to register a new one; it said: {}",
        path.display(),
        words(problem)
    )]
    AccountGone { path: PathBuf, problem: Problem },
    #[error("the account was deactivated: remove {} to register a new one", .0.display())]
    AccountDeactivated(PathBuf),
    #[error("there is no account at {0}")]
    NoAccount(String),
    #[error(transparent)]
    Pair(#[from] InvalidPair),
    #[error(
        "the authority makes accounts only for those who have one there already: write what it gave you for \
         that as \"external-account\" beside its directory in fairlead.toml; it said: {}",
        words(.0)
    )]
    ExternalAccountRequired(Problem),
    #[error(
        "the authority wants something done by you before it signs again, such as agreeing to new terms{}; it \
         said: {}",
        instance.as_deref().map_or_else(String::new, |url| format!(": see {}", escaped(url))),
        words(problem)
    )]
    UserActionRequired {
        instance: Option<String>,
        problem: Problem,
    },
    #[error("the key of the external-account is not base64url")]
    ExternalAccountKey(#[source] DecodeError),
    #[error(
        "the authority offers no profile {wanted:?}: write one it offers ({}) beside its directory in fairlead.toml, or none",
        escaped(&offered.join(", "))
    )]
    NoProfile { wanted: String, offered: Vec<String> },
    #[error("{} holds no usable account: {cause}; remove it to register a new one", path.display())]
    AccountFile { path: PathBuf, cause: String },
    #[error("the roots in {} cannot be used (ca-file in fairlead.toml): {cause}", path.display())]
    CaFile { path: PathBuf, cause: String },
    #[error(
        "the system's trusted roots cannot be used; install ca-certificates, or set ca-file beside the directory in fairlead.toml"
    )]
    SystemRoots(#[source] rustls::Error),
    #[error("the authority asks for DNS-01, which needs [acme.dns] in fairlead.toml")]
    NoZones,
    #[error("the record for DNS-01 is not in the DNS")]
    Dns(#[from] DnsError),
    #[error("a key cannot be made or used")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Read(#[from] FileError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write what is kept of an account or order as TOML")]
    Render(#[from] toml::ser::Error),
}

impl AcmeError {
    /// Whether the order led to nothing for good. After anything else it can be taken up again.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Problem(problem) => !is_passing(problem),
            Self::Authorizations { .. }
            | Self::NoChallenge { .. }
            | Self::Token(_)
            | Self::Name(_)
            | Self::InvalidOrder => true,
            _ => false,
        }
    }

    /// Whether the authority says, when it is asked for an order, that there is none for us.
    pub(crate) fn is_gone(&self) -> bool {
        const PASSING: [StatusCode; 2] = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        match self {
            Self::Request(RequestError::Refused(refusal)) if refusal.problem.is_none() => {
                refusal.status.is_client_error() && !PASSING.contains(&refusal.status)
            }
            _ => self.problem().is_some_and(|problem| !is_passing(problem)),
        }
    }

    /// Whether what was delivered is for somebody else. Part of a chain can be fetched again.
    pub(crate) fn is_for_another(&self) -> bool {
        matches!(
            self,
            Self::Delivered(InvalidPair::Mismatch) | Self::DeliveredNames(_)
        )
    }

    /// Whether something has to change first, here or in the DNS, and no order was asked for.
    pub(crate) fn is_local(&self) -> bool {
        matches!(
            self,
            Self::AccountFile { .. }
                | Self::AccountDeactivated(_)
                | Self::NoAccount(_)
                | Self::Obstacle(_)
                | Self::ClockAhead(_)
                | Self::NoBudget { .. }
                | Self::Orders(_)
                | Self::Pair(_)
                | Self::ExternalAccountRequired(_)
                | Self::ExternalAccountKey(_)
                | Self::NoProfile { .. }
                | Self::CaFile { .. }
                | Self::SystemRoots(_)
                | Self::Key(_)
                | Self::Secret(_)
                | Self::Read(_)
                | Self::Write(_)
                | Self::Store(_)
                | Self::Render(_)
        )
    }

    /// Whether the authority does not answer, or says that it cannot.
    pub(crate) fn is_down(&self) -> bool {
        match self {
            Self::Request(RequestError::Refused(refusal)) => refusal.status.is_server_error(),
            Self::Request(_) => true,
            _ => false,
        }
    }

    /// What the authority said about the time of the next attempt.
    pub(crate) fn asked_to_wait(&self) -> Option<AskedToWait> {
        match self {
            Self::Request(RequestError::Refused(refusal)) => match refusal.retry_after {
                Some(date) => Some(AskedToWait::Until(date)),
                None => refusal.problem.as_ref().and_then(find_rate_limit),
            },
            Self::Problem(problem) => find_rate_limit(problem),
            Self::NotYet(date) => date.map(AskedToWait::Until),
            _ => None,
        }
    }

    /// Says what the operator can do about an account that the authority does not accept.
    pub(crate) fn advise(self, account_file: &Path) -> Self {
        let Some(problem) = self.problem() else {
            return self;
        };
        if is_of_type(problem, "accountDoesNotExist") {
            return self.blame_account(account_file);
        }
        if is_of_type(problem, "externalAccountRequired") {
            return Self::ExternalAccountRequired(problem.clone());
        }
        if is_of_type(problem, "userActionRequired") {
            return Self::UserActionRequired {
                instance: self.instance().map(str::to_owned),
                problem: problem.clone(),
            };
        }
        self
    }

    /// Says that it is the account that the authority does not accept.
    pub(crate) fn blame_account(self, account_file: &Path) -> Self {
        match self.problem() {
            Some(problem) => Self::AccountGone {
                path: account_file.to_owned(),
                problem: problem.clone(),
            },
            None => self,
        }
    }

    /// The page that a problem document sends people to (RFC 8555 7.3.3).
    fn instance(&self) -> Option<&str> {
        match self {
            Self::Request(RequestError::Refused(refusal)) => refusal.instance.as_deref(),
            _ => None,
        }
    }

    /// The problem document behind the error, if the authority sent one.
    pub(crate) fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Request(RequestError::Refused(refusal)) => refusal.problem.as_ref(),
            _ => None,
        }
    }
}

impl From<Error> for AcmeError {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::Problem(problem),
            Error::Timeout(next) => Self::NotYet(next.and_then(as_date)),
            Error::Other(other) => match other.downcast::<RequestError>() {
                Ok(error) => Self::Request(*error),
                Err(other) => Self::Protocol(Error::Other(other)),
            },
            error => Self::Protocol(error),
        }
    }
}

fn as_date(instant: Instant) -> Option<Timestamp> {
    Timestamp::now()
        .checked_add(instant.saturating_duration_since(Instant::now()))
        .ok()
}

/// Whether the problem is one of the moment: it says nothing against an order.
fn is_passing(problem: &Problem) -> bool {
    const TYPES: [&str; 3] = ["badNonce", "rateLimited", "serverInternal"];
    TYPES.iter().any(|name| is_of_type(problem, name))
}

/// Whether the problem is of the given type of RFC 8555 6.7.
pub(crate) fn is_of_type(problem: &Problem, name: &str) -> bool {
    problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(URN)) == Some(name)
}

/// A name that the authority found not to be ours.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) name: String,
    pub(crate) challenge: ChallengeType,
    pub(crate) problem: Problem,
}

fn join(rejections: &[Rejection]) -> String {
    let said = rejections.iter().map(|Rejection { name, problem, .. }| {
        format!("for {} the authority said: {}", escaped(name), words(problem))
    });
    said.collect::<Vec<_>>().join("; ")
}

fn join_seen(seen: &[String]) -> String {
    match seen {
        [] => String::new(),
        seen => format!("; seen from here, {}", escaped(&seen.join("; "))),
    }
}

/// A request that brought no usable response.
#[derive(Debug, Error)]
pub(crate) enum RequestError {
    #[error("{url} did not answer within {} seconds", limit.as_secs())]
    Limit { url: String, limit: Duration },
    #[error("cannot reach {url}")]
    Unreachable { url: String, source: legacy::Error },
    #[error("the answer of {url} broke off")]
    BrokenOff {
        url: String,
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("{0}")]
    Refused(Box<Refusal>),
}

/// An error response.
#[derive(Debug, Error)]
pub(crate) struct Refusal {
    pub(crate) url: String,
    pub(crate) status: StatusCode,
    pub(crate) problem: Option<Problem>,
    /// The problem's own URL, which the library has no place for.
    pub(crate) instance: Option<String>,
    pub(crate) retry_after: Option<Timestamp>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.problem {
            Some(problem) => write!(f, "the authority said: {}", words(problem)),
            None => write!(f, "{} answered {}", self.url, self.status),
        }
    }
}

/// The authority's own words, with those on single identifiers (RFC 8555 6.7.1).
pub(crate) fn words(problem: &Problem) -> String {
    let mut text = describe(problem.detail.as_deref(), problem.r#type.as_deref());
    for subproblem in &problem.subproblems {
        let name = match &subproblem.identifier {
            Some(identifier) => identifier.authorized(false).to_string(),
            None => "one name".to_owned(),
        };
        let described = describe(subproblem.detail.as_deref(), subproblem.r#type.as_deref());
        text.push_str(&format!("; for {}: {described}", escaped(&name)));
    }
    text
}

fn describe(detail: Option<&str>, kind: Option<&str>) -> String {
    let kind = kind.map(|kind| kind.strip_prefix(URN).unwrap_or(kind));
    let text = match (detail, kind) {
        (Some(detail), Some(kind)) => format!("{} ({kind})", detail.trim()),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => "nothing".to_owned(),
    };
    escaped(&text)
}

fn find_rate_limit(problem: &Problem) -> Option<AskedToWait> {
    is_of_type(problem, "rateLimited").then_some(AskedToWait::RateLimited)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> Problem {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn subproblems_name_their_identifiers() {
        let problem = problem(
            r#"{"type": "urn:ietf:params:acme:error:malformed", "detail": "Some of the identifiers are bad.",
                "subproblems": [
                    {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "No.\nNever.",
                     "identifier": {"type": "dns", "value": "a.test"}},
                    {"detail": "Hm"}]}"#,
        );
        assert_eq!(
            words(&problem),
            "Some of the identifiers are bad. (malformed); for a.test: No.\\u{a}Never. (rejectedIdentifier); \
             for one name: Hm"
        );
    }

    #[test]
    fn a_rate_limit_is_told_from_other_problems_and_its_date_kept() {
        let limited = || problem(r#"{"type": "urn:ietf:params:acme:error:rateLimited"}"#);
        let date = Timestamp::from_second(1_800_000_000).unwrap();
        let refused = |problem, retry_after| {
            AcmeError::from(RequestError::Refused(Box::new(Refusal {
                url: "https://ca.test/".to_owned(),
                status: StatusCode::TOO_MANY_REQUESTS,
                problem,
                instance: None,
                retry_after,
            })))
        };
        for (error, expected) in [
            (
                refused(Some(limited()), Some(date)),
                Some(AskedToWait::Until(date)),
            ),
            (refused(Some(limited()), None), Some(AskedToWait::RateLimited)),
            (refused(None, Some(date)), Some(AskedToWait::Until(date))),
            (refused(None, None), None),
            (AcmeError::Problem(limited()), Some(AskedToWait::RateLimited)),
            (AcmeError::InvalidOrder, None),
        ] {
            assert_eq!(error.asked_to_wait(), expected, "{error}");
        }
    }
}
