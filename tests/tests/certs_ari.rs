//! When the authority decides over renewals (RFC 9773), which Debian's Pebble does not.

use std::time::Duration;

use fairlead_contract::Issued;
use fairlead_tests::{AcmePeer, AcmeScript, Answer, Environment};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

/// An installation with one certificate for 90 days from a peer that offers renewal info.
struct Installation {
    environment: Environment,
    peer: AcmePeer,
}

impl Installation {
    async fn new(renewal_info: Answer) -> Self {
        let environment = Environment::new();
        let script = AcmeScript {
            renewal_info: Some(renewal_info),
            ..AcmeScript::default()
        };
        let peer = AcmePeer::start(&environment, script).await;
        environment.write_config(&peer.settings());
        environment.declare(&["a.test"], "");
        let installation = Self { environment, peer };
        installation.environment.pass();
        installation
    }

    fn issued(&self) -> Issued {
        self.environment.issued("a.test")
    }

    fn orders(&self) -> usize {
        self.peer.requests("/finalize/").len()
    }

    fn questions(&self) -> usize {
        self.peer.requests("/renewal-info/").len()
    }

    /// Lets the time until the next question pass.
    fn end_waiting(&self) {
        self.environment.change_ledger("a.test", |ledger| {
            let issued = ledger.issued.as_mut().expect("there is a certificate");
            let info = issued.renewal_info.as_mut().expect("it was asked about");
            info.next_question = issued.at;
        });
    }
}

fn in_days(days: i64) -> Timestamp {
    let at = Timestamp::now() + SignedDuration::from_hours(24 * days);
    Timestamp::from_second(at.as_second()).expect("it is near")
}

fn window(start: Timestamp, end: Timestamp, retry_after: &'static str) -> Answer {
    Answer {
        status: 200,
        retry_after: Some(retry_after),
        body: json!({
            "suggestedWindow": { "start": start, "end": end },
            "explanationURL": "https://ca.test/why",
        }),
    }
}

fn waiting(issued: &Issued) -> SignedDuration {
    let info = issued.renewal_info.as_ref().expect("it was asked about");
    info.next_question.duration_since(Timestamp::now())
}

/// As long as a pass may take.
fn is_about(wait: SignedDuration, expected: SignedDuration) -> bool {
    wait <= expected && wait > expected - SignedDuration::from_secs(30)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_in_the_window_is_kept_until_the_window_moves() {
    let (start, end) = (in_days(20), in_days(30));
    let installation = Installation::new(window(start, end, "21600")).await;
    assert_eq!(
        installation.questions(),
        0,
        "a new certificate is asked about later"
    );
    installation.environment.pass();
    let first = installation.issued();
    assert!(start <= first.due && first.due <= end, "{}", first.due);
    let info = first.renewal_info.clone().expect("it was asked about");
    let suggested = info.window.expect("the authority answered");
    assert_eq!((suggested.start, suggested.end), (start, end));
    assert_eq!(suggested.explanation.as_deref(), Some("https://ca.test/why"));
    assert!(is_about(waiting(&first), SignedDuration::from_hours(6)));

    installation.environment.pass();
    assert_eq!(installation.questions(), 1, "it was asked before its time");
    assert_eq!(installation.issued(), first);
    installation.end_waiting();
    installation.environment.pass();
    assert_eq!(installation.questions(), 2);
    assert_eq!(installation.issued().due, first.due);

    let (start, end) = (in_days(40), in_days(41));
    installation
        .peer
        .change(|script| script.renewal_info = Some(window(start, end, "21600")));
    installation.end_waiting();
    installation.environment.pass();
    let moved = installation.issued().due;
    assert!(start <= moved && moved <= end, "{moved}");
    assert_eq!(installation.orders(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_in_the_past_brings_a_certificate_in_the_same_pass_that_says_what_it_replaces() {
    let installation = Installation::new(window(in_days(-2), in_days(-1), "21600")).await;
    let old = installation.environment.pair("a.test");
    installation.environment.pass();
    assert_ne!(installation.environment.pair("a.test"), old);
    let questions = installation.peer.requests("/renewal-info/");
    let orders = installation.peer.requests("/order");
    let named = questions[0].path.trim_start_matches("/renewal-info/");
    assert_eq!(orders[0].payload.get("replaces"), None);
    assert_eq!(orders[1].payload["replaces"], named);
    assert_eq!((orders.len(), installation.orders()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_replaced_already_is_ordered_without_saying_so() {
    for (status, kind) in [
        (409, "alreadyReplaced"),
        (404, "malformed"),
        (403, "unauthorized"),
    ] {
        let installation = Installation::new(window(in_days(-2), in_days(-1), "21600")).await;
        let refusal = Answer::problem(status, kind);
        installation
            .peer
            .change(|script| script.replacing = Some(refusal));
        installation.environment.pass();
        let orders = installation.peer.requests("/order");
        let replacing = orders.iter().map(|order| order.payload.get("replaces").is_some());
        assert_eq!(replacing.collect::<Vec<_>>(), [false, true, false], "{kind}");
        assert_eq!(installation.orders(), 2, "{kind}");
        assert_eq!(installation.environment.ledger("a.test").failure, None, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_overlooks_what_is_replaced_makes_one_order_for_a_renewal() {
    let installation = Installation::new(window(in_days(-2), in_days(-1), "21600")).await;
    let old = installation.environment.pair("a.test");
    installation
        .peer
        .change(|script| script.overlooks_replacing = true);
    installation.environment.pass();
    assert_ne!(installation.environment.pair("a.test"), old);
    let orders = installation.peer.requests("/order");
    assert!(orders[1].payload.get("replaces").is_some());
    assert_eq!((orders.len(), installation.orders()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_refusal_of_a_replacing_order_is_a_failure() {
    let installation = Installation::new(window(in_days(-2), in_days(-1), "21600")).await;
    let refusal = Answer::problem(403, "rejectedIdentifier");
    installation
        .peer
        .change(|script| script.replacing = Some(refusal));
    installation.environment.failing_pass();
    assert_eq!(installation.peer.requests("/order").len(), 2);
    assert!(installation.issued().renewal_info.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_no_use_leaves_two_thirds_of_the_lifetime_and_is_asked_for_again() {
    let no_window = Answer {
        body: json!({ "suggestedWindow": {} }),
        ..window(in_days(1), in_days(2), "21600")
    };
    let silent = Answer {
        retry_after: None,
        ..window(in_days(1), in_days(2), "")
    };
    let installation = Installation::new(Answer::problem(503, "serverInternal")).await;
    let own = installation.issued().due;
    for answer in [
        Answer::problem(503, "serverInternal"),
        window(in_days(2), in_days(1), "21600"),
        window(in_days(1), in_days(1), "21600"),
        window(in_days(1), in_days(91), "21600"),
        no_window,
        silent,
    ] {
        let shown = format!("{answer:?}");
        installation
            .peer
            .change(|script| script.renewal_info = Some(answer));
        installation.environment.pass();
        let issued = installation.issued();
        let info = issued.renewal_info.clone().expect("it was asked about");
        assert_eq!((issued.due, info.window), (own, None), "{shown}");
        let wait = SignedDuration::from_mins(1 << (info.failures - 1));
        assert!(is_about(waiting(&issued), wait), "{shown}");
        installation.end_waiting();
    }
    assert_eq!((installation.questions(), installation.orders()), (6, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_the_next_question_is_the_authoritys_within_a_minute_and_a_day() {
    let answer = |retry_after| window(in_days(20), in_days(30), retry_after);
    let installation = Installation::new(answer("0")).await;
    for (retry_after, wait) in [
        ("0", SignedDuration::from_mins(1)),
        ("7200", SignedDuration::from_hours(2)),
        ("99999999", SignedDuration::from_hours(24)),
        ("18446744073709551615", SignedDuration::from_hours(24)),
        ("Sat, 01 Jan 2000 00:00:00 GMT", SignedDuration::from_mins(1)),
    ] {
        installation
            .peer
            .change(|script| script.renewal_info = Some(answer(retry_after)));
        installation.environment.pass();
        assert!(is_about(waiting(&installation.issued()), wait), "{retry_after}");
        installation.end_waiting();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_offers_no_renewal_info_is_asked_once_a_day() {
    let installation = Installation::new(window(in_days(1), in_days(2), "1")).await;
    installation.peer.change(|script| script.renewal_info = None);
    for _ in 0..3 {
        installation.environment.pass();
    }
    assert_eq!(installation.peer.requests("/directory").len(), 2);
    assert!(is_about(
        waiting(&installation.issued()),
        SignedDuration::from_hours(24)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_replaced_and_not_asked_about() {
    let environment = Environment::new();
    let day = Duration::from_secs(24 * 60 * 60);
    let script = AcmeScript {
        renewal_info: Some(window(in_days(20), in_days(30), "21600")),
        validity: (90 * day, Duration::ZERO),
        ..AcmeScript::default()
    };
    let peer = AcmePeer::start(&environment, script).await;
    environment.write_config(&peer.settings());
    environment.declare(&["a.test"], "");
    environment.pass();
    environment.pass();
    assert_eq!(peer.requests("/renewal-info/").len(), 0);
    assert_eq!(peer.requests("/finalize/").len(), 2);
}
