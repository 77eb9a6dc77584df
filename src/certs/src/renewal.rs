use fairlead_contract::{Issued, RenewalInfo, Window};
use jiff::{SignedDuration, Timestamp};

use crate::backoff::double;
use crate::pair::Leaf;

/// No authority is asked more often, whatever it says (RFC 9773 4.3).
const SHORTEST: SignedDuration = SignedDuration::from_mins(1);
/// No longer is it believed that nothing changes.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);
/// How long at most until it is asked again after questions in vain.
const LONGEST_AFTER_FAILURE: SignedDuration = SignedDuration::from_hours(6);

/// What came of a question about a certificate's renewal (RFC 9773).
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The window, and after how long to ask again.
    Window(Window, SignedDuration),
    /// The authority says nothing about renewal.
    NotOffered,
    /// It could not be asked, or its answer is of no use.
    Failed,
}

/// Returns the instant from which a certificate is due for renewal: what was chosen in the authority's
/// window, or two thirds of its lifetime. Never after its end, whatever somebody wrote into the ledger.
pub(crate) fn find_due(leaf: &Leaf, issued: Option<&Issued>) -> Timestamp {
    match issued {
        Some(issued) if window_of(issued).is_some() => issued.due.min(leaf.not_after),
        _ => leaf.due(),
    }
}

/// From when on to ask about a certificate. Once it has expired there is nothing to ask (RFC 9773 4.3), but then it is
/// due, too. What is to be later than any question is from a clock that was set back since.
pub(crate) fn next_question(issued: &Issued, now: Timestamp) -> Timestamp {
    match &issued.renewal_info {
        Some(info) if now.duration_until(info.next_question) <= LONGEST => info.next_question,
        _ => Timestamp::MIN,
    }
}

/// What is known of a certificate after an answer.
///
/// A new window is one in which `jitter`, in `0.0..1.0`, places the instant (RFC 9773 4.2); randomness
/// belongs to the caller. As long as the window stays the same the instant does too, and what fails
/// changes neither.
pub(crate) fn take_answer(
    leaf: &Leaf,
    issued: &Issued,
    answer: Answer,
    now: Timestamp,
    jitter: f64,
) -> Issued {
    let (failures, wait, window) = match answer {
        Answer::Window(window, wait) => (0, wait.clamp(SHORTEST, LONGEST), Some(window)),
        Answer::NotOffered => (0, LONGEST, None),
        Answer::Failed => {
            let failures = failures(issued).saturating_add(1);
            let wait = double(SHORTEST, failures).min(LONGEST_AFTER_FAILURE);
            (failures, wait, window_of(issued).cloned())
        }
    };
    let due = match &window {
        Some(new) if window_of(issued).is_some_and(|old| spans(old) == spans(new)) => issued.due,
        Some(window) => choose(window, jitter),
        None => leaf.due(),
    };
    Issued {
        due,
        renewal_info: Some(RenewalInfo {
            next_question: now.saturating_add(wait).unwrap_or(now),
            failures,
            window,
        }),
        ..issued.clone()
    }
}

/// How often the authority was asked in vain since its last answer.
pub(crate) fn failures(issued: &Issued) -> u32 {
    issued.renewal_info.as_ref().map_or(0, |info| info.failures)
}

fn window_of(issued: &Issued) -> Option<&Window> {
    issued.renewal_info.as_ref()?.window.as_ref()
}

fn spans(window: &Window) -> (Timestamp, Timestamp) {
    (window.start, window.end)
}

fn choose(window: &Window, jitter: f64) -> Timestamp {
    let length = window.end.duration_since(window.start);
    let after = length.mul_f64(jitter.clamp(0.0, 1.0)).as_secs();
    let chosen = window.start.saturating_add(SignedDuration::from_secs(after));
    chosen.unwrap_or(window.start)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_hours(hours)
    }

    /// Valid for 90 hours, so due after 60 by itself.
    fn leaf() -> Leaf {
        Leaf {
            names: BTreeSet::new(),
            not_before: at(0),
            not_after: at(90),
            authority_key: None,
            serial: Vec::new(),
        }
    }

    fn issued() -> Issued {
        Issued {
            issuer: "https://ca.test".to_owned(),
            at: at(0),
            not_after: at(90),
            due: at(60),
            revoked: None,
            renewal_info: None,
        }
    }

    fn window(start: i64, end: i64) -> Answer {
        let window = Window {
            start: at(start),
            end: at(end),
            explanation: None,
        };
        Answer::Window(window, SignedDuration::from_hours(6))
    }

    fn take(issued: &Issued, answer: Answer, jitter: f64) -> Issued {
        take_answer(&leaf(), issued, answer, at(1), jitter)
    }

    #[test]
    fn an_instant_in_the_window_is_chosen_once() {
        for (jitter, due) in [(0.0, at(10)), (0.5, at(15)), (1.0, at(20))] {
            let first = take(&issued(), window(10, 20), jitter);
            assert_eq!(find_due(&leaf(), Some(&first)), due);
            let second = take(&first, window(10, 20), 0.9);
            assert_eq!(find_due(&leaf(), Some(&second)), due);
            let moved = take(&second, window(-20, -10), jitter);
            assert!(find_due(&leaf(), Some(&moved)) <= at(-10));
        }
    }

    #[test]
    fn without_an_answer_two_thirds_of_the_lifetime_decide() {
        assert_eq!(find_due(&leaf(), None), at(60));
        assert_eq!(find_due(&leaf(), Some(&issued())), at(60));
        for answer in [Answer::Failed, Answer::NotOffered] {
            let taken = take(&issued(), answer.clone(), 0.5);
            assert_eq!(find_due(&leaf(), Some(&taken)), at(60), "{answer:?}");
        }
    }

    #[test]
    fn what_fails_leaves_the_last_answer_and_what_is_withdrawn_does_not() {
        let first = take(&issued(), window(10, 20), 0.5);
        assert_eq!(take(&first, Answer::Failed, 0.9).due, at(15));
        assert_eq!(take(&first, Answer::NotOffered, 0.9).due, at(60));
    }

    #[test]
    fn the_next_question_waits_as_asked_for_within_a_minute_and_a_day() {
        let minute = SignedDuration::from_mins(1);
        for (asked, wait) in [
            (SignedDuration::ZERO, minute),
            (SignedDuration::from_hours(6), SignedDuration::from_hours(6)),
            (SignedDuration::MAX, SignedDuration::from_hours(24)),
        ] {
            let Answer::Window(window, _) = window(10, 20) else {
                unreachable!("it is a window");
            };
            let taken = take(&issued(), Answer::Window(window, asked), 0.5);
            assert_eq!(next_question(&taken, at(1)), at(1) + wait, "{asked}");
        }
    }

    #[test]
    fn questions_in_vain_become_rarer_up_to_six_hours_until_one_is_answered() {
        let mut issued = issued();
        let mut waits = Vec::new();
        for _ in 0..12 {
            issued = take(&issued, Answer::Failed, 0.5);
            waits.push(next_question(&issued, at(1)).duration_since(at(1)).as_secs() / 60);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]);
        assert_eq!(failures(&take(&issued, window(10, 20), 0.5)), 0);
    }

    #[test]
    fn a_certificate_that_was_never_asked_about_or_under_a_clock_that_was_ahead_is_to_be_at_once() {
        assert_eq!(next_question(&issued(), at(1)), Timestamp::MIN);
        let asked = take(&issued(), window(10, 20), 0.5);
        for (now, expected) in [(at(1), at(7)), (at(-17), at(7)), (at(-18), Timestamp::MIN)] {
            assert_eq!(next_question(&asked, now), expected, "{now}");
        }
    }

    #[test]
    fn no_ledger_makes_a_certificate_due_after_its_end() {
        let advised = Issued {
            due: at(1000),
            ..take(&issued(), window(10, 20), 0.5)
        };
        assert_eq!(find_due(&leaf(), Some(&advised)), at(90));
    }
}
