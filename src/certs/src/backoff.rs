use std::collections::BTreeMap;

use fairlead_contract::Failure;
use jiff::{SignedDuration, Timestamp};

const SHORTEST: SignedDuration = SignedDuration::from_mins(1);
const LONGEST: SignedDuration = SignedDuration::from_hours(24);
/// The least wait after a rate limit that came without a date (RFC 8555 6.6).
const RATE_LIMITED: SignedDuration = SignedDuration::from_hours(1);
/// No authority is believed that it wants to be left alone for longer.
pub(crate) const LONGEST_ASKED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// An attempt that failed.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// Who was to sign.
    pub(crate) issuer: String,
    pub(crate) error: String,
    /// Who was asked, and what each said about the next attempt.
    pub(crate) asked: Vec<(String, Option<AskedToWait>)>,
}

/// What the authority said about the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskedToWait {
    /// Its Retry-After.
    Until(Timestamp),
    /// It limits our rate and named no date.
    RateLimited,
}

/// Adds an attempt to those before it and says when the next one is due.
///
/// One minute after the first failure, then twice as long each time, up to a day; longer if the
/// authority asked for it, up to a week. `jitter`, in `0.0..1.0`, adds up to a quarter, so that
/// certificates that failed together do not come back together; randomness belongs to the caller. Of
/// several authorities the first one counts that may be asked again; the others are left alone for longer.
pub(crate) fn add_failure(
    previous: Option<&Failure>,
    attempt: Attempt,
    now: Timestamp,
    jitter: f64,
) -> Failure {
    let attempts = previous.map_or(0, |failure| failure.attempts).saturating_add(1);
    let wait = double(SHORTEST, attempts)
        .min(LONGEST)
        .mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0);
    let wait = SignedDuration::from_secs(wait.as_secs());
    let after = |wait| now.saturating_add(wait).unwrap_or(now);
    let asked = attempt.asked.into_iter().map(|(directory, asked)| {
        let until = asked.map(|asked| match asked {
            AskedToWait::RateLimited => after(RATE_LIMITED),
            AskedToWait::Until(date) => date.min(after(LONGEST_ASKED)),
        });
        (directory, until)
    });
    let asked: Vec<_> = asked.collect();
    // One that said nothing may be asked at any time.
    let first = asked.iter().map(|(_, until)| until.unwrap_or(now)).min();
    let next_try = after(wait).max(first.unwrap_or(now));
    let mut left_alone: BTreeMap<_, _> = previous
        .map(|failure| failure.left_alone.clone())
        .unwrap_or_default();
    left_alone.extend(
        asked
            .into_iter()
            .filter_map(|(directory, until)| Some((directory, until?))),
    );
    left_alone.retain(|_, until| *until > next_try);
    Failure {
        issuer: Some(attempt.issuer),
        attempts,
        since: previous.map_or(now, |failure| failure.since),
        last: now,
        error: attempt.error,
        next_try,
        left_alone,
    }
}

/// Records what stands in the way when nobody was asked. There is nothing to wait for, so as long as
/// it stays the same the record does too.
pub(crate) fn add_hindrance(previous: Option<&Failure>, error: String, now: Timestamp) -> Failure {
    match previous {
        Some(failure) if failure.issuer.is_none() && failure.error == error => failure.clone(),
        _ => Failure {
            issuer: None,
            attempts: 0,
            since: now,
            last: now,
            error,
            next_try: now,
            left_alone: BTreeMap::new(),
        },
    }
}

/// `first` after the first attempt, then twice as long each time.
pub(crate) fn double(first: SignedDuration, attempts: u32) -> SignedDuration {
    let doublings = attempts.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_mins(minutes)
    }

    fn attempt(asked: Option<AskedToWait>) -> Attempt {
        Attempt {
            issuer: "https://ca.test".to_owned(),
            error: "no".to_owned(),
            asked: vec![("https://ca.test".to_owned(), asked)],
        }
    }

    #[test]
    fn waiting_doubles_from_a_minute_to_a_day() {
        let mut failure = None;
        let mut waits = Vec::new();
        for _ in 0..40 {
            let next = add_failure(failure.as_ref(), attempt(None), at(0), 0.0);
            waits.push(next.next_try.duration_since(at(0)).as_secs() / 60);
            failure = Some(next);
        }
        assert_eq!(waits[..6], [1, 2, 4, 8, 16, 32]);
        assert_eq!(waits[10..14], [1024, 1440, 1440, 1440]);
        assert_eq!(waits[39], 1440);
        assert_eq!(failure.unwrap().attempts, 40);
    }

    #[test]
    fn jitter_adds_up_to_a_quarter() {
        for (jitter, seconds) in [(0.0, 60), (0.5, 67), (1.0, 75), (9.0, 75), (-9.0, 60)] {
            let failure = add_failure(None, attempt(None), at(0), jitter);
            assert_eq!(
                failure.next_try.duration_since(at(0)).as_secs(),
                seconds,
                "{jitter}"
            );
        }
    }

    #[test]
    fn the_authority_is_believed_within_bounds() {
        let week = 7 * 24 * 60;
        for (asked, minutes) in [
            (None, 1),
            (Some(AskedToWait::RateLimited), 60),
            (Some(AskedToWait::Until(at(30))), 30),
            (Some(AskedToWait::Until(at(0))), 1),
            (Some(AskedToWait::Until(at(-5000))), 1),
            (Some(AskedToWait::Until(at(2 * 365 * 24 * 60))), week),
            (Some(AskedToWait::Until(Timestamp::MAX)), week),
        ] {
            let failure = add_failure(None, attempt(asked), at(0), 0.0);
            assert_eq!(failure.next_try, at(minutes), "{asked:?}");
        }
    }

    #[test]
    fn of_several_authorities_the_first_that_may_be_asked_counts_and_the_others_are_left_alone() {
        let until = |minutes| Some(AskedToWait::Until(at(minutes)));
        let after = |previous: Option<&Failure>, asked: &[(&str, Option<AskedToWait>)]| {
            let asked = asked
                .iter()
                .map(|(directory, asked)| ((*directory).to_owned(), *asked));
            let attempt = Attempt {
                asked: asked.collect(),
                ..attempt(None)
            };
            add_failure(previous, attempt, at(0), 0.0)
        };
        for (asked, next_try, left_alone) in [
            (vec![("a", None), ("b", until(90))], at(1), vec![("b", at(90))]),
            (
                vec![("a", until(30)), ("b", until(90))],
                at(30),
                vec![("b", at(90))],
            ),
            (
                vec![("a", until(90)), ("b", until(30))],
                at(30),
                vec![("a", at(90))],
            ),
            (
                vec![("a", until(30)), ("b", Some(AskedToWait::RateLimited))],
                at(30),
                vec![("b", at(60))],
            ),
            (vec![("a", None), ("b", None)], at(1), vec![]),
            (vec![("a", until(30)), ("b", until(30))], at(30), vec![]),
        ] {
            let failure = after(None, &asked);
            assert_eq!(failure.next_try, next_try, "{asked:?}");
            let left_alone = left_alone
                .into_iter()
                .map(|(name, until)| (name.to_owned(), until));
            assert_eq!(failure.left_alone, left_alone.collect(), "{asked:?}");
        }
        // An attempt that did not come to them leaves them alone, too.
        let first = after(None, &[("a", None), ("b", until(90))]);
        let begun = after(Some(&first), &[]);
        assert_eq!((begun.next_try, begun.left_alone), (at(2), first.left_alone));
    }

    #[test]
    fn failures_remember_when_they_began() {
        let first = add_failure(None, attempt(None), at(0), 0.0);
        let second = add_failure(Some(&first), attempt(None), at(7), 0.0);
        assert_eq!((second.since, second.last, second.attempts), (at(0), at(7), 2));
    }

    #[test]
    fn a_lasting_hindrance_is_recorded_once() {
        let first = add_hindrance(None, "write this".to_owned(), at(0));
        assert_eq!((first.attempts, first.next_try), (0, at(0)));
        assert_eq!(add_hindrance(Some(&first), "write this".to_owned(), at(9)), first);
        assert_eq!(
            add_hindrance(Some(&first), "write that".to_owned(), at(9)).since,
            at(9)
        );
    }
}
