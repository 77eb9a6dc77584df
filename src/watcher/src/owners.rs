use std::collections::BTreeMap;
use std::fmt;

use fairlead_contract::{HostPattern, Owner, PathPrefix, Rejection, Scope};
use jiff::{SignedDuration, Timestamp};

use crate::container::{Container, Service};
use crate::known::Known;

/// How long hosts are kept for containers that are gone: time enough for a restart or a replacement.
pub(crate) const GRACE: SignedDuration = SignedDuration::from_mins(2);

/// Containers that ask for hosts together.
pub(crate) struct Claimant<'a> {
    pub(crate) service: Service<'a>,
    /// The primary first. Never empty.
    pub(crate) hosts: Vec<&'a HostPattern>,
    pub(crate) path: &'a PathPrefix,
    /// The oldest first. Never empty.
    pub(crate) containers: Vec<&'a str>,
}

impl Claimant<'_> {
    fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.hosts.iter().map(|host| Scope {
            host: (*host).clone(),
            path: self.path.clone(),
        })
    }

    fn has_any_of(&self, containers: &[String]) -> bool {
        containers
            .iter()
            .any(|name| self.containers.contains(&name.as_str()))
    }

    fn is(&self, owner: &Owner) -> bool {
        self.has_any_of(&owner.containers) || self.replaces(owner)
    }

    /// Whether it took the owner's place under another name.
    fn replaces(&self, owner: &Owner) -> bool {
        self.service == service(owner) && owner.hosts.first() == self.hosts.first().copied()
    }
}

fn service(owner: &Owner) -> Service<'_> {
    (owner.project.as_deref(), owner.service.as_deref())
}

/// Who has which host and path.
pub(crate) struct Owners<'a>(BTreeMap<Scope, Holder<'a>>);

enum Holder<'a> {
    /// The place of the operator's route.
    Operator(&'a str),
    /// The claimant, by index and by its oldest container.
    Claimant(usize, &'a str),
    /// Who left, and may come back.
    Absent(&'a Owner),
}

impl<'a> Owners<'a> {
    /// Gives each host and path to the operator, to nobody as long as it is kept for one of the `absent`,
    /// to the claimant that had it, or else to the first claimant.
    pub(crate) fn decide(claimants: &[Claimant<'a>], absent: &'a [Owner], known: &'a Known) -> Self {
        let mut asking: BTreeMap<Scope, Vec<usize>> = BTreeMap::new();
        for (index, claimant) in claimants.iter().enumerate() {
            for scope in claimant.scopes() {
                asking.entry(scope).or_default().push(index);
            }
        }
        let before = by_scope(&known.present.owners);
        let absent = by_scope(absent);
        let holder = |scope: &Scope, asking: &[usize]| {
            if let Some(place) = known.operator.get(scope) {
                return Holder::Operator(place);
            }
            if let Some(owner) = absent.get(scope) {
                return Holder::Absent(owner);
            }
            let incumbent = before.get(scope).and_then(|owner| find(owner, asking, claimants));
            let index = incumbent.unwrap_or(asking[0]);
            Holder::Claimant(index, claimants[index].containers[0])
        };
        Self(
            asking
                .into_iter()
                .map(|(scope, asking)| {
                    let holder = holder(&scope, &asking);
                    (scope, holder)
                })
                .collect(),
        )
    }

    pub(crate) fn is(&self, scope: &Scope, index: usize) -> bool {
        matches!(self.0.get(scope), Some(Holder::Claimant(owner, _)) if *owner == index)
    }

    /// Says whose these are; nothing if there are none.
    pub(crate) fn explain(&self, scopes: impl Iterator<Item = Scope>) -> Option<String> {
        let lost: Vec<(Scope, &Holder<'_>)> = scopes
            .filter_map(|scope| self.0.get(&scope).map(|holder| (scope, holder)))
            .collect();
        let sentences: Vec<String> = lost
            .iter()
            .map(|(scope, holder)| format!("{scope} {holder}"))
            .collect();
        let advice = match lost.iter().all(|(_, holder)| matches!(holder, Holder::Absent(_))) {
            true => "wait, or take the host out of the labels here",
            false => "take the host out of the labels here, or out of there",
        };
        (!lost.is_empty()).then(|| format!("{}: {advice}", sentences.join("; ")))
    }
}

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator(place) => write!(f, "is routed by the operator at {place}"),
            Self::Claimant(_, container) => {
                write!(f, "belongs to the container {}", container.escape_debug())
            }
            Self::Absent(owner) => {
                write!(
                    f,
                    "is kept for the container {}",
                    owner.containers.join(", ").escape_debug()
                )?;
                match owner.left {
                    Some(left) => write!(f, ", which left, until {}", end_of_grace(left)),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Finds the owners that are gone for less than the grace, each with the hosts that are kept for it.
///
/// Who runs and asks for a host no more has given it up; who asks for it and was rejected has not.
pub(crate) fn absent(
    claimants: &[Claimant<'_>],
    running: &[Container],
    rejections: &[Rejection],
    known: &Known,
) -> Vec<Owner> {
    let kept = |owner: &Owner| {
        let left = owner.left.unwrap_or(known.now).min(known.now);
        let is_gone = !running.iter().any(|container| is_of(container, owner));
        let was_rejected = |host: &HostPattern| {
            let mut of_owner = rejections
                .iter()
                .filter(|rejection| owner.containers.contains(&rejection.container));
            of_owner.any(|rejection| rejection.hosts.contains(host))
        };
        let has = |scope: &Scope| {
            let mut own = claimants.iter().filter(|claimant| claimant.is(owner));
            own.any(|claimant| claimant.scopes().any(|claimed| claimed == *scope))
        };
        let scopes = owner.scopes().filter(|scope| {
            !known.operator.contains_key(scope) && !has(scope) && (is_gone || was_rejected(&scope.host))
        });
        let hosts: Vec<HostPattern> = scopes.map(|scope| scope.host).collect();
        let is_kept = !hosts.is_empty() && known.now < end_of_grace(left);
        is_kept.then(|| Owner {
            hosts,
            left: Some(left),
            ..owner.clone()
        })
    };
    known.present.owners.iter().filter_map(kept).collect()
}

/// Whether the container is of the owner's, whatever it asks for.
fn is_of(container: &Container, owner: &Owner) -> bool {
    let is_same_service = owner.service.is_some() && container.service() == service(owner);
    is_same_service || owner.containers.contains(&container.name)
}

fn end_of_grace(left: Timestamp) -> Timestamp {
    left.saturating_add(GRACE).unwrap_or(Timestamp::MAX)
}

/// The claimant that is this owner: by its containers, or else as their replacement.
fn find(owner: &Owner, asking: &[usize], claimants: &[Claimant<'_>]) -> Option<usize> {
    let mut asking = asking.iter().copied();
    let by_container = asking
        .clone()
        .find(|index| claimants[*index].has_any_of(&owner.containers));
    by_container.or_else(|| asking.find(|index| claimants[*index].replaces(owner)))
}

fn by_scope(owners: &[Owner]) -> BTreeMap<Scope, &Owner> {
    let scopes = |owner: &Owner| owner.scopes().collect::<Vec<_>>();
    owners
        .iter()
        .flat_map(|owner| scopes(owner).into_iter().map(move |scope| (scope, owner)))
        .collect()
}
