use std::time::Duration;

use fairlead_contract::{Challenge, HostPattern};
use instant_acme::{
    Account, AuthorizationHandle, AuthorizationState, AuthorizationStatus, CertificateIdentifier,
    ChallengeHandle, ChallengeStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};

use crate::acme::AcmeError;
use crate::acme::answers::Answers;
use crate::acme::budget::Budget;
use crate::acme::error::{Rejection, is_of_type};
use crate::acme::pending::Pending;
use crate::pause::pause;
use crate::words;

/// The caller's limit ends the polling; this one only has to be longer.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(50))
    .backoff(1.5)
    .timeout(Duration::from_secs(20 * 60));

/// How often a step is tried whose nonces are refused (RFC 8555 6.5); the library tries each request
/// three times by itself.
const NONCE_ATTEMPTS: u32 = 10;

/// How long an order is left alone each time it is called not ready.
const NOT_READY_PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// How long it is left alone that says nothing of its names although it failed.
const EXPLANATION_PAUSE: Duration = Duration::from_secs(1);

/// What an order says beside the names.
pub(crate) struct Wishes<'a> {
    /// The certificate it takes the place of (RFC 9773 5).
    pub(crate) replaces: Option<CertificateIdentifier<'a>>,
    pub(crate) profile: Option<&'a str>,
    pub(crate) budget: Budget<'a>,
}

/// What came of an order.
pub(crate) struct Delivered {
    /// Where it was downloaded from.
    pub(crate) url: String,
    /// PEM.
    pub(crate) chain: String,
}

/// Leads an order to its end, whatever state it is in, and returns the chain (RFC 8555 7.4).
pub(crate) async fn obtain_chain(
    account: &Account,
    pending: &mut Pending,
    wishes: &Wishes<'_>,
    answers: &mut Answers<'_>,
) -> Result<Delivered, AcmeError> {
    let mut order = open(account, pending, wishes).await?;
    if order.state().status == OrderStatus::Pending {
        authorize(&mut order, answers).await?;
    }
    if order.state().status == OrderStatus::Ready {
        finalize(&mut order, &pending.signing_request()?).await?;
    }
    download(&mut order).await
}

/// Takes up the order that was under way, or makes a new one if there was none or it led to nothing.
async fn open(account: &Account, pending: &mut Pending, wishes: &Wishes<'_>) -> Result<Order, AcmeError> {
    if let Some(url) = pending.order().map(str::to_owned) {
        match persist(async || Ok(account.order(url.clone()).await?)).await {
            Ok(mut order) => {
                if order.state().status != OrderStatus::Invalid {
                    return Ok(order);
                }
            }
            Err(error) if error.is_gone() => {
                tracing::debug!("the order {url} cannot be taken up: {}", words::chain(&error));
            }
            Err(error) => return Err(error),
        }
    }
    let identifiers: Vec<_> = pending.names().iter().map(identify).collect();
    let order = make(account, &identifiers, wishes).await?;
    let kept = pending.set_order(Some(order.url().to_owned()));
    kept.map_err(|error| AcmeError::OrderNotKept(Box::new(error)))?;
    Ok(order)
}

/// Makes an order that says which certificate it replaces, and one that does not if that is why it
/// was refused (RFC 9773 5).
async fn make(account: &Account, names: &[Identifier], wishes: &Wishes<'_>) -> Result<Order, AcmeError> {
    check_profile(account, wishes.profile)?;
    wishes.budget.spend()?;
    let plain = || match wishes.profile {
        Some(profile) => NewOrder::new(names).profile(profile),
        None => NewOrder::new(names),
    };
    let Some(replaces) = &wishes.replaces else {
        return send(account, &plain()).await;
    };
    match send(account, &plain().replaces(replaces.clone())).await {
        Err(error) if may_be_for_replacing(&error) => {
            tracing::debug!(
                "ordered without saying what it replaces: {}",
                words::chain(&error)
            );
            send(account, &plain()).await
        }
        made => made,
    }
}

async fn send(account: &Account, order: &NewOrder<'_>) -> Result<Order, AcmeError> {
    persist(async || Ok(account.new_order(order).await?)).await
}

/// Refuses a profile that the directory does not name, before an order is spent on it.
fn check_profile(account: &Account, profile: Option<&str>) -> Result<(), AcmeError> {
    let mut offered: Vec<_> = account
        .profiles()
        .map(|profile| profile.name.to_owned())
        .collect();
    offered.sort();
    match profile {
        Some(wanted) if !offered.iter().any(|name| name == wanted) => Err(AcmeError::NoProfile {
            wanted: wanted.to_owned(),
            offered,
        }),
        _ => Ok(()),
    }
}

/// Besides the error made for it, those of an authority that does not know the certificate any more or
/// has issued it to another account.
fn may_be_for_replacing(error: &AcmeError) -> bool {
    const TYPES: [&str; 3] = ["alreadyReplaced", "malformed", "unauthorized"];
    match error {
        // No renewal info is offered, or the order is said to replace another certificate.
        AcmeError::Protocol(_) => true,
        error => error
            .problem()
            .is_some_and(|problem| TYPES.iter().any(|name| is_of_type(problem, name))),
    }
}

fn identify(name: &HostPattern) -> Identifier {
    Identifier::Dns(name.to_string())
}

async fn authorize(order: &mut Order, answers: &mut Answers<'_>) -> Result<(), AcmeError> {
    persist(async || answer_challenges(order, answers).await).await?;
    let polled = persist(async || Ok(order.poll_ready(&POLLING).await?)).await;
    match polled {
        Ok(OrderStatus::Invalid) => Err(explain(order).await.unwrap_or(AcmeError::InvalidOrder)),
        Ok(_) => Ok(()),
        // The order's own problem is often only that some authorization failed.
        Err(error @ AcmeError::Problem(_)) => Err(explain(order).await.unwrap_or(error)),
        Err(error) => Err(error),
    }
}

/// Answers the challenges of every authorization that is not valid already (RFC 8555 7.1.3): all
/// answers are there before the authority is told of the first.
async fn answer_challenges(order: &mut Order, answers: &mut Answers<'_>) -> Result<(), AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if let Some((kind, challenge)) = find_challenge(&mut authorization, answers)? {
            answers.publish(kind, &challenge).await?;
        }
    }
    answers.wait_until_seen().await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if let Some((_, mut challenge)) = find_challenge(&mut authorization, answers)?
            && challenge.status == ChallengeStatus::Pending
            && !answers.is_ready(&challenge)
        {
            challenge.set_ready().await?;
            answers.remember_ready(&challenge);
        }
    }
    Ok(())
}

/// The challenge that is still to be answered for an authorization. The authority may have been told of it already, by a
/// pass that took its answer along when it was killed (RFC 8555 7.1.6, 8.2).
fn find_challenge<'a>(
    authorization: &'a mut AuthorizationHandle<'a>,
    answers: &Answers<'_>,
) -> Result<Option<(Challenge, ChallengeHandle<'a>)>, AcmeError> {
    if authorization.status != AuthorizationStatus::Pending {
        return Ok(None);
    }
    let kind = choose(authorization, answers)?;
    let challenge = authorization.challenge(as_type(kind));
    const OPEN: [ChallengeStatus; 2] = [ChallengeStatus::Pending, ChallengeStatus::Processing];
    let is_open = |challenge: &ChallengeHandle<'_>| OPEN.contains(&challenge.status);
    Ok(challenge.filter(is_open).map(|challenge| (kind, challenge)))
}

/// The kind of challenge to answer: of those that may be, the first that is offered.
fn choose(authorization: &AuthorizationState, answers: &Answers<'_>) -> Result<Challenge, AcmeError> {
    let is_offered = |kind: &Challenge| {
        let offered = &authorization.challenges;
        offered.iter().any(|challenge| challenge.r#type == as_type(*kind))
    };
    let kinds = answers.kinds(authorization.identifier().wildcard);
    kinds
        .iter()
        .copied()
        .find(is_offered)
        .ok_or_else(|| AcmeError::NoChallenge {
            name: authorization.identifier().to_string(),
            kinds: kinds.iter().map(|kind| kind.as_str()).collect(),
        })
}

fn as_type(kind: Challenge) -> ChallengeType {
    match kind {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Dns01 => ChallengeType::Dns01,
    }
}

/// What the authority found wrong with the single names; `None` if it does not say. An order may be known to have
/// failed a moment before its names are.
async fn explain(order: &mut Order) -> Option<AcmeError> {
    let mut rejections = find_rejections(order).await;
    if rejections.is_empty() {
        pause(EXPLANATION_PAUSE).await;
        rejections = find_rejections(order).await;
    }
    (!rejections.is_empty()).then(|| AcmeError::Authorizations {
        rejections,
        seen: Vec::new(),
    })
}

async fn find_rejections(order: &mut Order) -> Vec<Rejection> {
    let mut rejections = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        // What cannot be fetched now explains nothing; the caller has the order's own problem.
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        rejections.extend(authorization.challenges.iter().filter_map(|challenge| {
            Some(Rejection {
                name: name.clone(),
                challenge: challenge.r#type.clone(),
                problem: challenge.error.clone()?,
            })
        }));
    }
    rejections
}

/// Asks for the certificate. An authority whose parts do not agree yet may call an order ready and then refuse it
/// as not ready (RFC 8555 7.4): that says nothing against the order, which is asked for again.
async fn finalize(order: &mut Order, request: &[u8]) -> Result<(), AcmeError> {
    for time in NOT_READY_PAUSES {
        match persist(async || Ok(order.finalize_csr(request).await?)).await {
            Err(error) if is_problem(&error, "orderNotReady") => tracing::debug!("{}", words::chain(&error)),
            ended => return ended,
        }
        pause(time).await;
        let state = persist(async || Ok(order.refresh().await?.status)).await?;
        if state != OrderStatus::Ready {
            break;
        }
    }
    match order.state().status {
        OrderStatus::Pending | OrderStatus::Ready => Err(AcmeError::NotYet(None)),
        OrderStatus::Processing | OrderStatus::Valid | OrderStatus::Invalid => Ok(()),
    }
}

async fn download(order: &mut Order) -> Result<Delivered, AcmeError> {
    let chain = match order.state().status {
        OrderStatus::Invalid => return Err(AcmeError::InvalidOrder),
        OrderStatus::Valid => {
            let chain = persist(async || Ok(order.certificate().await?)).await?;
            chain.ok_or(AcmeError::InvalidOrder)?
        }
        _ => persist(async || Ok(order.poll_certificate(&POLLING).await?)).await?,
    };
    let url = order.state().certificate.clone();
    Ok(Delivered {
        url: url.unwrap_or_default(),
        chain,
    })
}

/// Tries a step again as long as only its nonces are refused: the authority did nothing then.
pub(crate) async fn persist<T>(mut step: impl AsyncFnMut() -> Result<T, AcmeError>) -> Result<T, AcmeError> {
    let mut attempts = 1;
    loop {
        match step().await {
            Err(error) if attempts < NONCE_ATTEMPTS && is_problem(&error, "badNonce") => attempts += 1,
            ended => return ended,
        }
    }
}

fn is_problem(error: &AcmeError, kind: &str) -> bool {
    error.problem().is_some_and(|problem| is_of_type(problem, kind))
}
