use std::collections::BTreeSet;

use fairlead_contract::{Failure, HostPattern, Issued, Ledger};
use jiff::Timestamp;

use crate::backoff::LONGEST_ASKED;
use crate::pair::Leaf;
use crate::renewal::find_due;
use crate::wanted::{Issuer, Wanted};

/// What is known of one certificate before the pass.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) stored: Stored,
    pub(crate) ledger: Option<Ledger>,
}

impl Known {
    /// The certificate in the store with what the ledger says of it. One that the ledger does not
    /// speak of was put there by hand.
    pub(crate) fn recorded(&self) -> Option<(&Leaf, &Issued)> {
        let Stored::Whole(leaf) = &self.stored else {
            return None;
        };
        let issued = self.ledger.as_ref()?.issued.as_ref()?;
        (issued.not_after == leaf.not_after).then_some((leaf, issued))
    }
}

/// What the store holds under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Absent,
    /// Files that are no pair, and why.
    Broken(String),
    /// Files that could not be read, and why. Not the same as absent.
    Unreadable(String),
    /// Not even the ledger could be read, and why.
    Unknown(String),
    Whole(Leaf),
}

/// What to do about one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It serves, and is not due yet.
    Keep,
    /// Ask `issuer` now.
    Obtain { issuer: Issuer, reason: Reason },
    /// The last attempts failed; ask again from then on.
    Wait { until: Timestamp, reason: Reason },
    /// Nothing can be done before somebody changes something; the text says what.
    Hindered(String),
}

/// Why a certificate is wanted, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// There is none.
    Missing,
    /// The store's files are no pair.
    Broken,
    /// The operator revoked it.
    Revoked,
    /// Its names are not the route's.
    Names,
    /// Somebody else is to sign now.
    Issuer,
    /// Its time has come.
    Due,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "there is none",
            Self::Broken => "the stored files are no pair",
            Self::Revoked => "it was revoked",
            Self::Names => "its names changed",
            Self::Issuer => "its issuer changed",
            Self::Due => "it is due for renewal",
        }
    }
}

/// Decides what to do about one certificate at the instant `now`.
///
/// Reads no clock, socket or file. `authority_key` is the key identifier of the internal authority,
/// whose certificates are worth nothing once its key is another.
pub(crate) fn decide(
    wanted: &Wanted,
    known: &Known,
    authority_key: Option<&[u8]>,
    now: Timestamp,
) -> Decision {
    let reason = match &known.stored {
        Stored::Unreadable(cause) | Stored::Unknown(cause) => return Decision::Hindered(cause.clone()),
        Stored::Absent => Reason::Missing,
        Stored::Broken(_) => Reason::Broken,
        Stored::Whole(leaf) => match find_reason(wanted, leaf, known, authority_key, now) {
            Some(reason) => reason,
            None => return Decision::Keep,
        },
    };
    let issuer = match &wanted.issuer {
        Ok(issuer) => issuer,
        Err(hindrance) => return Decision::Hindered(hindrance.clone()),
    };
    match find_waiting(wanted, issuer, known.ledger.as_ref(), now) {
        Some(until) => Decision::Wait { until, reason },
        None => Decision::Obtain {
            issuer: issuer.clone(),
            reason,
        },
    }
}

/// The failures that count for the next attempt: those with the same names at the same issuer.
pub(crate) fn counting_failure<'a>(
    wanted: &Wanted,
    issuer: &Issuer,
    ledger: Option<&'a Ledger>,
) -> Option<&'a Failure> {
    let ledger = ledger?;
    let failure = ledger.failure.as_ref()?;
    let same_issuer = failure.issuer.as_ref() == Some(&issuer.to_string());
    (same_issuer && as_set(&ledger.names) == as_set(&wanted.names)).then_some(failure)
}

fn find_reason(
    wanted: &Wanted,
    leaf: &Leaf,
    known: &Known,
    authority_key: Option<&[u8]>,
    now: Timestamp,
) -> Option<Reason> {
    let issued = known.recorded().map(|(_, issued)| issued);
    if issued.is_some_and(|issued| issued.revoked.is_some()) {
        return Some(Reason::Revoked);
    }
    if !leaf.names_exactly(&wanted.names) {
        return Some(Reason::Names);
    }
    if is_of_another_issuer(wanted, leaf, issued, authority_key) {
        return Some(Reason::Issuer);
    }
    (find_due(leaf, issued) <= now).then_some(Reason::Due)
}

/// A certificate that no ledger speaks of, or says so of, was put there by hand and stays until it is due.
fn is_of_another_issuer(
    wanted: &Wanted,
    leaf: &Leaf,
    issued: Option<&Issued>,
    authority_key: Option<&[u8]>,
) -> bool {
    match (&wanted.issuer, issued) {
        (Ok(Issuer::Internal), Some(issued)) if issued.issuer == "internal" => {
            leaf.authority_key.as_deref() != authority_key
        }
        (Ok(_), Some(issued)) if issued.issuer == Issued::BY_HAND => false,
        (Ok(issuer), Some(issued)) => {
            issued.issuer != issuer.to_string() && !wanted.fallbacks.contains(&issued.issuer)
        }
        (Ok(_), None) | (Err(_), _) => false,
    }
}

/// Until when a directory is not to be asked because it said so in an attempt that counts.
pub(crate) fn left_alone_until(
    failure: Option<&Failure>,
    directory: &str,
    now: Timestamp,
) -> Option<Timestamp> {
    let failure = failure?;
    let until = *failure.left_alone.get(directory)?;
    is_waiting(failure, until, now).then_some(until)
}

fn find_waiting(
    wanted: &Wanted,
    issuer: &Issuer,
    ledger: Option<&Ledger>,
    now: Timestamp,
) -> Option<Timestamp> {
    let failure = counting_failure(wanted, issuer, ledger)?;
    is_waiting(failure, failure.next_try, now).then_some(failure.next_try)
}

/// A failure in the future is one of a clock that was set back since: it says nothing about now. Nor does a wait that is
/// longer than any.
fn is_waiting(failure: &Failure, until: Timestamp, now: Timestamp) -> bool {
    let wait = now.duration_until(until);
    failure.last <= now && wait.is_positive() && wait <= LONGEST_ASKED
}

fn as_set(names: &[HostPattern]) -> BTreeSet<&HostPattern> {
    names.iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fairlead_contract::{KeyType, Provider, RenewalInfo, Window};
    use jiff::SignedDuration;

    use super::*;

    const DIRECTORY: &str = "https://ca.test/directory";

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_hours(24 * day)
    }

    fn patterns(names: &[&str]) -> Vec<HostPattern> {
        names
            .iter()
            .map(|name| HostPattern::parse(name).unwrap())
            .collect()
    }

    fn acme() -> Issuer {
        Issuer::Acme(DIRECTORY.to_owned())
    }

    fn wanted(names: &[&str], issuer: Issuer) -> Wanted {
        Wanted {
            name: HostPattern::parse(names[0]).unwrap(),
            names: patterns(names),
            provider: Provider::Acme,
            challenge: None,
            key_type: KeyType::P256,
            issuer: Ok(issuer),
            fallbacks: Vec::new(),
        }
    }

    /// Valid from day 0 to day 90, so due on day 60.
    fn leaf(names: &[&str]) -> Leaf {
        Leaf {
            names: names.iter().map(ToString::to_string).collect(),
            not_before: at(0),
            not_after: at(90),
            authority_key: Some(vec![1]),
            serial: vec![7],
        }
    }

    fn issued(issuer: &str) -> Issued {
        Issued {
            issuer: issuer.to_owned(),
            at: at(0),
            not_after: at(90),
            due: at(60),
            revoked: None,
            renewal_info: None,
        }
    }

    /// Failed on day 1, waits until day 2.
    fn failure(issuer: Option<&str>) -> Failure {
        Failure {
            issuer: issuer.map(str::to_owned),
            attempts: 3,
            since: at(0),
            last: at(1),
            error: "no".to_owned(),
            next_try: at(2),
            left_alone: BTreeMap::new(),
        }
    }

    fn ledger(names: &[&str], issued: Option<Issued>, failure: Option<Failure>) -> Option<Ledger> {
        Some(Ledger {
            names: patterns(names),
            provider: Provider::Acme,
            issued,
            failure,
            unused_since: None,
        })
    }

    fn decide_on(wanted: &Wanted, stored: Stored, ledger: Option<Ledger>, day: i64) -> Decision {
        decide(wanted, &Known { stored, ledger }, Some(&[1]), at(day))
    }

    fn obtain(reason: Reason) -> Decision {
        Decision::Obtain {
            issuer: acme(),
            reason,
        }
    }

    #[test]
    fn what_is_missing_broken_or_due_is_obtained_and_the_rest_is_kept() {
        let names = ["a.test", "b.test"];
        let swapped = ["b.test", "a.test"];
        let ours = || ledger(&names, Some(issued(DIRECTORY)), None);
        let whole = || Stored::Whole(leaf(&names));
        for (stored, ledger, day, expected) in [
            (Stored::Absent, None, 0, obtain(Reason::Missing)),
            (Stored::Broken("x".into()), ours(), 1, obtain(Reason::Broken)),
            (whole(), ours(), 1, Decision::Keep),
            (whole(), ours(), 59, Decision::Keep),
            (whole(), ours(), 60, obtain(Reason::Due)),
            (whole(), ours(), 1000, obtain(Reason::Due)),
            (whole(), ours(), -5, Decision::Keep),
            (Stored::Whole(leaf(&swapped)), ours(), 1, Decision::Keep),
            (Stored::Whole(leaf(&["a.test"])), ours(), 1, obtain(Reason::Names)),
            (
                Stored::Whole(leaf(&["a.test", "b.test", "c.test"])),
                ours(),
                1,
                obtain(Reason::Names),
            ),
            (
                whole(),
                ledger(&names, Some(issued("https://other.test")), None),
                1,
                obtain(Reason::Issuer),
            ),
            (
                whole(),
                ledger(&names, Some(issued("internal")), None),
                1,
                obtain(Reason::Issuer),
            ),
            (whole(), None, 1, Decision::Keep),
            (whole(), None, 60, obtain(Reason::Due)),
        ] {
            let shown = format!("{stored:?} {ledger:?} {day}");
            assert_eq!(
                decide_on(&wanted(&names, acme()), stored, ledger, day),
                expected,
                "{shown}"
            );
        }
    }

    #[test]
    fn a_revoked_certificate_is_due_whatever_its_time() {
        let revoked = Issued {
            revoked: Some(at(1)),
            ..issued(DIRECTORY)
        };
        let ledger = ledger(&["a.test"], Some(revoked), None);
        let stored = Stored::Whole(leaf(&["a.test"]));
        let decision = decide_on(&wanted(&["a.test"], acme()), stored, ledger, 1);
        assert_eq!(decision, obtain(Reason::Revoked));
    }

    #[test]
    fn the_authoritys_window_decides_for_the_certificate_it_was_named_for() {
        let advised = |not_after| Issued {
            not_after,
            due: at(20),
            renewal_info: Some(RenewalInfo {
                next_question: at(1),
                failures: 0,
                window: Some(Window {
                    start: at(19),
                    end: at(21),
                    explanation: None,
                }),
            }),
            ..issued(DIRECTORY)
        };
        for (not_after, day, expected) in [
            (at(90), 19, Decision::Keep),
            (at(90), 20, obtain(Reason::Due)),
            // Somebody put another certificate there since.
            (at(80), 20, Decision::Keep),
            (at(80), 60, obtain(Reason::Due)),
        ] {
            let ledger = ledger(&["a.test"], Some(advised(not_after)), None);
            let stored = Stored::Whole(leaf(&["a.test"]));
            let decision = decide_on(&wanted(&["a.test"], acme()), stored, ledger, day);
            assert_eq!(decision, expected, "{not_after} {day}");
        }
    }

    #[test]
    fn a_certificate_from_a_fallback_stays_until_it_is_due() {
        let other = "https://other.test";
        let wanted = Wanted {
            fallbacks: vec![other.to_owned()],
            ..wanted(&["a.test"], acme())
        };
        for (issuer, day, expected) in [
            (other, 59, Decision::Keep),
            (other, 60, obtain(Reason::Due)),
            ("https://third.test", 59, obtain(Reason::Issuer)),
        ] {
            let ledger = ledger(&["a.test"], Some(issued(issuer)), None);
            let decision = decide_on(&wanted, Stored::Whole(leaf(&["a.test"])), ledger, day);
            assert_eq!(decision, expected, "{issuer} {day}");
        }
    }

    #[test]
    fn a_failure_holds_back_its_own_names_and_issuer_until_the_next_try() {
        let missing = |until| Decision::Wait {
            until,
            reason: Reason::Missing,
        };
        for (names, issuer, day, expected) in [
            (&["a.test"][..], Some(DIRECTORY), 1, missing(at(2))),
            (&["a.test"], Some(DIRECTORY), 2, obtain(Reason::Missing)),
            // The clock was set back behind the failure.
            (&["a.test"], Some(DIRECTORY), 0, obtain(Reason::Missing)),
            (
                &["a.test"],
                Some("https://other.test"),
                1,
                obtain(Reason::Missing),
            ),
            (&["a.test", "b.test"], Some(DIRECTORY), 1, obtain(Reason::Missing)),
            (&["a.test"], None, 1, obtain(Reason::Missing)),
        ] {
            let ledger = ledger(names, None, Some(failure(issuer)));
            let shown = format!("{ledger:?} {day}");
            assert_eq!(
                decide_on(&wanted(&["a.test"], acme()), Stored::Absent, ledger, day),
                expected,
                "{shown}"
            );
        }
    }

    #[test]
    fn nothing_waits_for_longer_than_a_week_whatever_somebody_wrote_into_the_ledger() {
        for (next_try, waits) in [(at(8), true), (at(9), false), (Timestamp::MAX, false)] {
            let failure = Failure {
                next_try,
                ..failure(Some(DIRECTORY))
            };
            let ledger = ledger(&["a.test"], None, Some(failure));
            let decision = decide_on(&wanted(&["a.test"], acme()), Stored::Absent, ledger, 1);
            assert_eq!(matches!(decision, Decision::Wait { .. }), waits, "{next_try}");
        }
    }

    #[test]
    fn a_directory_is_left_alone_until_the_time_it_asked_for() {
        let failure = Failure {
            left_alone: BTreeMap::from([(DIRECTORY.to_owned(), at(4))]),
            ..failure(Some(DIRECTORY))
        };
        for (directory, day, expected) in [
            (DIRECTORY, 3, Some(at(4))),
            (DIRECTORY, 4, None),
            (DIRECTORY, 0, None),
            ("https://other.test", 3, None),
        ] {
            assert_eq!(
                left_alone_until(Some(&failure), directory, at(day)),
                expected,
                "{directory} {day}"
            );
        }
        assert_eq!(left_alone_until(None, DIRECTORY, at(3)), None);
    }

    #[test]
    fn a_failed_renewal_waits_although_it_is_due() {
        let ledger = ledger(
            &["a.test"],
            Some(issued(DIRECTORY)),
            Some(Failure {
                last: at(61),
                next_try: at(62),
                ..failure(Some(DIRECTORY))
            }),
        );
        let decision = decide_on(
            &wanted(&["a.test"], acme()),
            Stored::Whole(leaf(&["a.test"])),
            ledger,
            61,
        );
        assert_eq!(
            decision,
            Decision::Wait {
                until: at(62),
                reason: Reason::Due
            }
        );
    }

    #[test]
    fn unreadable_is_not_missing() {
        for stored in [Stored::Unreadable, Stored::Unknown] {
            let stored = stored("permission denied".to_owned());
            let decision = decide_on(&wanted(&["a.test"], acme()), stored, None, 0);
            assert_eq!(decision, Decision::Hindered("permission denied".to_owned()));
        }
    }

    #[test]
    fn a_hindrance_matters_only_once_a_certificate_is_wanted() {
        let wanted = Wanted {
            issuer: Err("write this".to_owned()),
            ..wanted(&["a.test"], acme())
        };
        let ours = || ledger(&["a.test"], Some(issued(DIRECTORY)), None);
        let hindered = Decision::Hindered("write this".to_owned());
        assert_eq!(decide_on(&wanted, Stored::Absent, None, 0), hindered);
        let whole = || Stored::Whole(leaf(&["a.test"]));
        assert_eq!(decide_on(&wanted, whole(), ours(), 1), Decision::Keep);
        assert_eq!(decide_on(&wanted, whole(), ours(), 60), hindered);
    }

    #[test]
    fn another_key_of_the_internal_authority_is_another_issuer() {
        let wanted = wanted(&["a.test"], Issuer::Internal);
        let known = Known {
            stored: Stored::Whole(leaf(&["a.test"])),
            ledger: ledger(&["a.test"], Some(issued("internal")), None),
        };
        let renewal = Decision::Obtain {
            issuer: Issuer::Internal,
            reason: Reason::Issuer,
        };
        assert_eq!(decide(&wanted, &known, Some(&[1]), at(1)), Decision::Keep);
        assert_eq!(decide(&wanted, &known, Some(&[2]), at(1)), renewal);
    }
}
