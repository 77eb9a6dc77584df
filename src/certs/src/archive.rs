use std::collections::BTreeSet;
use std::iter;

use fairlead_contract::{Configuration, HostPattern, Ledger, Paths, Subject};
use jiff::{SignedDuration, Timestamp};

use crate::acme::forget_order;
use crate::store::{self, StoreError};
use crate::words::chain;

/// How long a certificate stays in its place after the last route that had one of its names.
const GRACE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What to do about a certificate that no route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Leave,
    /// Write down since when it is unused, or that it is used again.
    Note(Option<Timestamp>),
    Archive,
}

/// Moves certificates that no route has needed for [`GRACE`] into the archive; none is ever deleted.
///
/// Does nothing as long as a file cannot be read or understood, because its routes would be missing.
/// Pairs that somebody else put into the store have no ledger and stay where they are.
pub(crate) fn archive_unused(
    paths: &Paths,
    configuration: &Configuration,
    subjects: &[Subject],
    now: Timestamp,
) {
    if !configuration.problems.is_empty() {
        return;
    }
    let hosts: Vec<_> = subjects.iter().flat_map(|subject| &subject.hosts).collect();
    let wanted: BTreeSet<_> = subjects
        .iter()
        .filter_map(|subject| subject.hosts.first())
        .collect();
    let stored = store::list(paths).unwrap_or_else(|error| {
        tracing::warn!("{}", chain(&error));
        Vec::new()
    });
    for name in stored {
        if wanted.contains(&name) {
            continue;
        }
        let _about = tracing::error_span!("about", certificate = %name).entered();
        if let Err(error) = archive_if_unused(paths, configuration, &name, &hosts, now) {
            tracing::warn!("{}", chain(&error));
        }
    }
}

fn archive_if_unused(
    paths: &Paths,
    configuration: &Configuration,
    name: &HostPattern,
    hosts: &[&HostPattern],
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(ledger) = store::take_stock(paths, name).ledger else {
        return Ok(());
    };
    match decide(name, &ledger, hosts, now) {
        Step::Leave => Ok(()),
        Step::Note(unused_since) => {
            let noted = Ledger {
                unused_since,
                ..ledger
            };
            store::write_ledger(&paths.certificate(name), &noted)
        }
        Step::Archive => {
            let place = store::archive(paths, name, now)?;
            for acme in configuration.config.authorities() {
                forget_order(paths, &acme.directory, name);
            }
            tracing::info!(
                "no route has needed it for {} days: it is in {} now",
                GRACE.as_hours() / 24,
                place.display()
            );
            Ok(())
        }
    }
}

/// Decides about a certificate that has a ledger, when routes have these hosts.
fn decide(name: &HostPattern, ledger: &Ledger, hosts: &[&HostPattern], now: Timestamp) -> Step {
    let mut names = iter::once(name).chain(&ledger.names);
    if names.any(|name| hosts.iter().any(|host| overlap(name, host))) {
        return match ledger.unused_since {
            Some(_) => Step::Note(None),
            None => Step::Leave,
        };
    }
    match ledger.unused_since {
        None => Step::Note(Some(now)),
        Some(since) if now.duration_since(since) >= GRACE => Step::Archive,
        Some(_) => Step::Leave,
    }
}

/// Whether one name could be served under both.
fn overlap(one: &HostPattern, other: &HostPattern) -> bool {
    one.includes(other) || other.includes(one)
}

#[cfg(test)]
mod tests {
    use fairlead_contract::Provider;

    use super::*;

    fn pattern(name: &str) -> HostPattern {
        HostPattern::parse(name).unwrap()
    }

    fn day(day: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * day)
    }

    fn decide_on(names: &[&str], unused_since: Option<i64>, host: &str, today: i64) -> Step {
        let ledger = Ledger {
            names: names.iter().map(|name| pattern(name)).collect(),
            provider: Provider::Internal,
            issued: None,
            failure: None,
            unused_since: unused_since.map(day),
        };
        decide(&pattern(names[0]), &ledger, &[&pattern(host)], day(today))
    }

    #[test]
    fn thirty_days_without_a_route_for_any_of_its_names_archive_a_certificate() {
        let names = &["a.test", "b.test"];
        assert_eq!(decide_on(names, None, "c.test", 1), Step::Note(Some(day(1))));
        assert_eq!(decide_on(names, Some(1), "c.test", 30), Step::Leave);
        assert_eq!(decide_on(names, Some(1), "c.test", 31), Step::Archive);
        assert_eq!(decide_on(names, Some(1), "b.test", 31), Step::Note(None));
        assert_eq!(decide_on(names, None, "b.test", 31), Step::Leave);
    }

    #[test]
    fn a_wildcard_is_needed_by_the_names_it_covers_and_the_other_way_round() {
        assert_eq!(
            decide_on(&["*.a.test"], Some(1), "x.a.test", 99),
            Step::Note(None)
        );
        assert_eq!(
            decide_on(&["x.a.test"], Some(1), "*.a.test", 99),
            Step::Note(None)
        );
        assert_eq!(
            decide_on(&["*.a.test"], Some(1), "*.a.test", 99),
            Step::Note(None)
        );
        assert_eq!(decide_on(&["*.a.test"], Some(1), "a.test", 99), Step::Archive);
    }

    #[test]
    fn a_clock_that_was_ahead_archives_nothing() {
        assert_eq!(decide_on(&["a.test"], Some(99), "c.test", 1), Step::Leave);
    }
}
