//! Authorities that take their time or forget everything, and clocks that are wrong.

use std::fs;
use std::process::Command;

use fairlead_contract::Ledger;
use fairlead_tests::{AcmePeer, AcmeScript, Answer, Environment, Installation, Made, Program};
use jiff::{SignedDuration, Timestamp};

const NAME: &str = "a.test";

/// What came of a pass whose clock is off by so much, as faketime(1) writes it: its exit code.
fn pass_at(environment: &Environment, offset: &str) -> Option<i32> {
    let mut command = Command::new("faketime");
    command.args(["-f", offset]).arg(Program::Certs.path());
    environment.equip(&mut command);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    environment.start(command).finish().status.code()
}

#[test]
fn a_clock_that_is_off_by_an_hour_costs_no_order_and_no_certificate() {
    let installation = Installation::new();
    let environment = &installation.environment;
    for (offset, name) in [("+1h", "ahead.test"), ("-1h", "behind.test")] {
        environment.declare(&[name], "");
        assert_eq!(pass_at(environment, offset), Some(0));
        let at = environment
            .issued(name)
            .at
            .duration_since(Timestamp::now())
            .as_mins();
        assert!(
            at.abs() >= 58,
            "{name} was stored {at} minutes from now: does faketime work?"
        );
    }
    let pairs = || ["ahead.test", "behind.test"].map(|name| environment.pair(name));
    let before = pairs();
    for offset in ["-1h", "+0h", "+1h", "-1h"] {
        assert_eq!(pass_at(environment, offset), Some(0));
    }
    assert_eq!(pairs(), before);
    assert_eq!(
        installation.made(),
        Made {
            accounts: 1,
            orders: 2
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_months_off_costs_no_order_for_what_only_seems_due() {
    let environment = Environment::new();
    let peer = AcmePeer::start(&environment, AcmeScript::default()).await;
    environment.write_config(&peer.settings());
    environment.declare(&[NAME], "");
    environment.pass();
    let before = environment.pair(NAME);
    assert_eq!(pass_at(&environment, "+100d"), Some(1));
    let error = environment.failure(NAME).error;
    assert!(
        error.contains("clock is 2400 hours ahead of the authority's"),
        "{error}"
    );
    assert_eq!(pass_at(&environment, "-100d"), Some(0));
    environment.pass();
    assert!(environment.ledger(NAME).failure.is_none());
    assert_eq!(
        (environment.pair(NAME), peer.requests("/finalize/").len()),
        (before, 1)
    );
}

/// The files that such a pass opens.
fn opened_at(environment: &Environment, offset: &str) -> String {
    let file = environment.root().join("opened");
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=openat", "-o"]).arg(&file);
    command
        .args(["faketime", "-f", offset])
        .arg(Program::Certs.path());
    environment.equip(&mut command);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let finished = environment.start(command).finish();
    assert!(finished.status.success(), "{}", finished.stderr);
    fs::read_to_string(file).expect("strace writes a log")
}

#[test]
fn pairs_that_were_seen_are_not_read_again_until_something_happens_to_them() {
    let environment = Environment::new();
    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    for name in [NAME, "b.test"] {
        environment.declare(&[name], "");
    }
    // Files that changed a moment ago are read again, so the moment must be over.
    for _ in 0..2 {
        assert_eq!(pass_at(&environment, "+1h"), Some(0));
    }
    let before = environment.pair("b.test");
    assert!(!opened_at(&environment, "+1h").contains(".test/key.pem"));

    let [one, other] = [NAME, "b.test"].map(|name| environment.certificate(name));
    fs::rename(other.key_file(), one.key_file()).unwrap();
    fs::copy(one.key_file(), other.key_file()).unwrap();
    let opened = opened_at(&environment, "+1h");
    assert!(opened.contains("a.test/key.pem") && opened.contains("b.test/key.pem"));
    assert_eq!(environment.pair("b.test"), before);
    let broken = one.path().join("key.pem.broken");
    assert_eq!(fs::read_to_string(broken).unwrap(), before.1);
    assert!(
        opened_at(&environment, "+48h").contains("b.test/key.pem"),
        "a day is over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_at_rest_is_asked_about_when_the_authority_said() {
    let environment = Environment::new();
    let in_days = |days: i64| Timestamp::now() + SignedDuration::from_hours(24 * days);
    let window = serde_json::json!({ "suggestedWindow": { "start": in_days(20), "end": in_days(30) } });
    let script = AcmeScript {
        renewal_info: Some(Answer {
            status: 200,
            retry_after: Some("21600"),
            body: window,
        }),
        ..AcmeScript::default()
    };
    let peer = AcmePeer::start(&environment, script).await;
    environment.write_config(&peer.settings());
    environment.declare(&[NAME], "");
    environment.pass();
    for (offset, questions) in [("+1h", 1), ("+1h", 1), ("+6h", 1), ("+8h", 2), ("+8h", 2)] {
        assert_eq!(pass_at(&environment, offset), Some(0));
        assert_eq!(peer.requests("/renewal-info/").len(), questions, "{offset}");
    }
    let opened = opened_at(&environment, "+8h");
    assert!(!opened.contains("a.test/key.pem"), "it was not at rest");
}

#[test]
fn a_failure_under_a_clock_that_was_ahead_holds_nothing_back_once_it_is_right() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&[NAME], "");
    installation.answering.refuse(NAME);
    assert_eq!(pass_at(environment, "+1h"), Some(1));
    installation.answering.admit(NAME);
    environment.pass();
    assert_eq!(installation.made().orders, 2);
}

#[test]
fn an_authority_that_is_slow_to_validate_is_waited_for_with_one_order() {
    let installation = Installation::with(|settings| settings.slowest_validation = 4);
    for name in [NAME, "b.test", "c.test"] {
        installation.environment.declare(&[name], "");
    }
    installation.environment.pass();
    assert_eq!(
        installation.made(),
        Made {
            accounts: 1,
            orders: 3
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_in_validation_is_answered_by_the_pass_that_takes_up_its_order() {
    let environment = Environment::new();
    let script = AcmeScript {
        validating: Some(environment.paths().challenges_dir()),
        ..AcmeScript::default()
    };
    let peer = AcmePeer::start(&environment, script).await;
    environment.write_config(&peer.settings());
    environment.declare(&[NAME], "");
    environment.pass();
    // It was told of already, which it may be only once.
    assert_eq!(peer.requests("/challenge").len(), 0);
    assert_eq!(peer.requests("/finalize/").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_stays_in_processing_is_taken_up_when_the_authority_said() {
    let environment = Environment::new();
    let script = AcmeScript {
        processing: Some("3600"),
        ..AcmeScript::default()
    };
    let peer = AcmePeer::start(&environment, script).await;
    environment.write_config(&peer.settings());
    environment.declare(&[NAME], "");
    let finished = environment.failing_pass();
    let said = "the authority is not done yet; the same order is taken up next time";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
    let failure = environment.failure(NAME);
    let wait = failure.next_try.duration_since(failure.last).as_mins();
    assert!((58..=62).contains(&wait), "{wait} minutes");
    environment.pass();

    peer.change(|script| script.processing = None);
    environment.end_waiting(NAME);
    environment.pass();
    let ordered = peer
        .requests("/order")
        .into_iter()
        .filter(|request| request.path == "/order");
    assert_eq!(ordered.count(), 1);
    assert_eq!(peer.requests("/finalize/").len(), 1);
}

#[test]
fn after_an_authority_forgot_all_in_mid_order_a_new_account_and_order_are_the_operators_to_start() {
    let mut installation = Installation::new();
    installation.environment.declare(&[NAME], "");
    installation.answering.hold();
    let running = installation.environment.spawn(Program::Certs, &[]);
    installation.answering.wait_for_requests();
    installation.pebble.stop();
    installation.pebble.start_again();
    installation.answering.release();
    let environment = &installation.environment;
    assert_eq!(running.finish().status.code(), Some(1));
    let Ledger { issued, failure, .. } = environment.ledger(NAME);
    assert!(issued.is_none() && failure.is_some());
    assert_eq!(installation.challenges(), 0, "answers stay published");

    environment.end_waiting(NAME);
    environment.failing_pass();
    let expected = format!(
        "remove {} to register a new one",
        installation.account_file().display()
    );
    let error = environment.failure(NAME).error;
    assert!(error.contains(&expected), "{error}");

    fs::remove_file(installation.account_file()).unwrap();
    let orders = installation.made().orders;
    environment.end_waiting(NAME);
    environment.pass();
    assert_eq!(installation.made().orders, orders + 1);
    environment.pass();
    assert_eq!(installation.made().orders, orders + 1);
}
