use std::net::IpAddr;
use std::time::Duration;

use fairlead_contract::{Acme, Challenge, Host, HostPattern, Paths};
use futures_util::{StreamExt, stream};
use hickory_resolver::proto::rr::rdata::CAA;
use thiserror::Error;
use tokio::time::{Instant, timeout, timeout_at};

use crate::acme::AcmeError;
use crate::acme::own_address::is_own;
use crate::acme::reach::find_fault;
use crate::dns::{Addresses, Lookup};
use crate::wanted::Wanted;
use crate::words;

/// How long all questions before an order may take.
const LIMIT: Duration = Duration::from_secs(10);

const QUESTIONS_AT_ONCE: usize = 8;

/// What is certain to make an order fail.
#[derive(Debug, Error)]
pub(crate) enum Obstacle {
    #[error("{0} is not in the DNS; give it an A or AAAA record that leads to this machine")]
    NoSuchName(Host),
    #[error("{0} has no address in the DNS; give it an A or AAAA record that leads to this machine")]
    NoAddress(Host),
    #[error(
        "the CAA records of {holder} let {} issue for {name}, and this authority is {}; add a record for it, or \
         ask another authority",
        list(permitted, "nobody"),
        list(identities, "none of them")
    )]
    Forbidden {
        name: HostPattern,
        holder: String,
        permitted: Vec<String>,
        identities: Vec<String>,
    },
    #[error(
        "{seen}; this machine has no other address for it, so the authority would see the same: leave port {port} to \
         fairlead-proxy, or write \"check-ports = false\" beside the directory in fairlead.toml if what comes from \
         outside takes another way"
    )]
    Port { seen: String, port: u16 },
}

fn list(names: &[String], none: &str) -> String {
    match names.is_empty() {
        true => none.to_owned(),
        false => names.join(" or "),
    }
}

/// Asks the resolvers that the operator named whether an order could succeed.
///
/// Only what they are certain about is an obstacle. The system's resolvers are not asked this: behind them
/// names can be others than those that the authority sees.
pub(crate) async fn find_obstacle(
    acme: &Acme,
    wanted: &Wanted,
    identities: impl AsyncFn() -> Result<Vec<String>, AcmeError>,
) -> Result<(), AcmeError> {
    if acme.resolvers.is_empty() {
        return Ok(());
    }
    let preflight = Preflight {
        lookup: Lookup::new(&acme.resolvers)?,
        needs_addresses: needs_addresses(acme, wanted),
        identities,
    };
    let found = stream::iter(&wanted.names)
        .map(|name| preflight.judge(name))
        .buffered(QUESTIONS_AT_ONCE)
        .filter_map(async |judged| {
            judged.unwrap_or_else(|error| {
                tracing::debug!("not known before the order: {}", words::chain(&error));
                None
            })
        });
    let mut found = std::pin::pin!(found);
    match timeout(LIMIT, found.next()).await {
        Ok(Some(obstacle)) => Err(obstacle.into()),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Returns the kinds of challenge without those that are certain to fail, because another server answers at this machine's
/// own public address, or nobody.
///
/// Other addresses say nothing: a router may not lead back in, and the resolver may know others than the authority.
pub(crate) async fn find_kinds(
    paths: &Paths,
    acme: &Acme,
    names: &[HostPattern],
    kinds: &[Challenge],
) -> Result<Vec<Challenge>, Obstacle> {
    let mut able = kinds.to_vec();
    if acme.check_ports == Some(false) || kinds == [Challenge::Dns01] {
        return Ok(able);
    }
    let deadline = Instant::now() + LIMIT;
    let hosts = timeout_at(deadline, find_hosts_here(acme, names)).await;
    let hosts = hosts.unwrap_or_default();
    let mut first = None;
    for kind in kinds {
        let fault = timeout_at(deadline, find_fault_of_any(paths, *kind, &hosts)).await;
        let Ok(Some(obstacle)) = fault else {
            break;
        };
        able.retain(|able| able != kind);
        first.get_or_insert(obstacle);
    }
    match first {
        Some(obstacle) if able.is_empty() => Err(obstacle),
        Some(obstacle) => {
            tracing::info!("{} is used instead: {obstacle}", able[0].as_str());
            Ok(able)
        }
        None => Ok(able),
    }
}

/// The hosts that lead to this machine's own public addresses and to no other, with these.
async fn find_hosts_here(acme: &Acme, names: &[HostPattern]) -> Vec<(Host, Vec<IpAddr>)> {
    let Ok(lookup) = Lookup::new(&acme.resolvers) else {
        return Vec::new();
    };
    let lookup = &lookup;
    let exact = names.iter().filter_map(|name| match name {
        HostPattern::Exact(host) => Some(host),
        HostPattern::Wildcard(_) => None,
    });
    stream::iter(exact)
        .map(async |host| (host, lookup.find_addresses(host).await))
        .buffer_unordered(QUESTIONS_AT_ONCE)
        .filter_map(async |(host, found)| match found {
            Ok(Addresses::At(ips)) if ips.iter().copied().all(is_own) => Some((host.clone(), ips)),
            _ => None,
        })
        .collect()
        .await
}

async fn find_fault_of_any(
    paths: &Paths,
    kind: Challenge,
    hosts: &[(Host, Vec<IpAddr>)],
) -> Option<Obstacle> {
    let faults = stream::iter(hosts)
        .map(|(host, addresses)| find_fault(paths, kind, host, addresses))
        .buffer_unordered(QUESTIONS_AT_ONCE)
        .filter_map(async |fault| fault);
    std::pin::pin!(faults).next().await
}

/// Whether the authority is certain to connect to the names.
fn needs_addresses(acme: &Acme, wanted: &Wanted) -> bool {
    match wanted.challenge {
        Some(Challenge::Http01 | Challenge::TlsAlpn01) => true,
        Some(Challenge::Dns01) => false,
        None => acme.dns.is_none(),
    }
}

struct Preflight<I> {
    lookup: Lookup,
    needs_addresses: bool,
    identities: I,
}

impl<I: AsyncFn() -> Result<Vec<String>, AcmeError>> Preflight<I> {
    async fn judge(&self, name: &HostPattern) -> Result<Option<Obstacle>, AcmeError> {
        if let HostPattern::Exact(host) = name
            && self.needs_addresses
        {
            match self.lookup.find_addresses(host).await? {
                Addresses::At(_) => {}
                Addresses::Absent => return Ok(Some(Obstacle::NoAddress(host.clone()))),
                Addresses::NoSuchName => return Ok(Some(Obstacle::NoSuchName(host.clone()))),
            }
        }
        self.judge_caa(name).await
    }

    async fn judge_caa(&self, name: &HostPattern) -> Result<Option<Obstacle>, AcmeError> {
        let (HostPattern::Exact(host) | HostPattern::Wildcard(host)) = name;
        let Some((holder, records)) = self.lookup.find_caa(host).await? else {
            return Ok(None);
        };
        let is_wildcard = matches!(name, HostPattern::Wildcard(_));
        let Some(permitted) = find_permitted(&records, is_wildcard) else {
            return Ok(None);
        };
        let identities = (self.identities)().await?;
        // An authority that does not say what it is called cannot be told from those that may not.
        let mut is_permitted = identities
            .iter()
            .map(|name| permitted.contains(&name.to_ascii_lowercase()));
        let may_issue = identities.is_empty() || is_permitted.any(|is_permitted| is_permitted);
        Ok((!may_issue).then(|| Obstacle::Forbidden {
            name: name.clone(),
            holder: holder.to_string().trim_end_matches('.').to_owned(),
            permitted,
            identities,
        }))
    }
}

/// The authorities that the records let issue (RFC 8659 4); `None` if they do not restrict that.
///
/// What else a record says, such as which account may order, is for the authority to judge.
fn find_permitted(records: &[CAA], is_wildcard: bool) -> Option<Vec<String>> {
    let of = |tag: &str| -> Vec<_> {
        let records = records.iter();
        records
            .filter(|record| record.tag.eq_ignore_ascii_case(tag))
            .collect()
    };
    let relevant = match of("issuewild") {
        wild if is_wildcard && !wild.is_empty() => wild,
        _ => of("issue"),
    };
    let issuers = relevant.iter().map(|record| read_issuer(&record.value));
    let issuers = issuers.filter(|issuer| !issuer.is_empty());
    (!relevant.is_empty()).then(|| issuers.collect())
}

/// The domain name before the parameters (RFC 8659 4.2).
fn read_issuer(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let issuer = text.split(';').next().unwrap_or_default();
    issuer.trim().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tag: &str, value: &str) -> CAA {
        let mut record = CAA::new_issue(false, None, Vec::new());
        record.tag = tag.to_owned();
        record.value = value.as_bytes().to_vec();
        record
    }

    #[test]
    fn caa_records_permit_those_they_name_and_wildcards_by_their_own_if_there_are_any() {
        let ca = || record("issue", "CA.test; accounturi=https://ca.test/1");
        for (records, is_wildcard, expected) in [
            (vec![], false, None),
            (vec![record("iodef", "mailto:a@a.test")], false, None),
            (vec![ca()], false, Some(vec!["ca.test"])),
            (vec![ca()], true, Some(vec!["ca.test"])),
            (
                vec![ca(), record("Issue", " b.test. ")],
                false,
                Some(vec!["ca.test", "b.test"]),
            ),
            (vec![record("issue", ";")], false, Some(vec![])),
            (vec![ca(), record("issuewild", ";")], true, Some(vec![])),
            (vec![ca(), record("issuewild", ";")], false, Some(vec!["ca.test"])),
            (vec![record("issuewild", "ca.test")], false, None),
        ] {
            let permitted = find_permitted(&records, is_wildcard);
            let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect());
            assert_eq!(permitted, expected, "{records:?} {is_wildcard}");
        }
    }
}
