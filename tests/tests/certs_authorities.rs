//! Several ACME servers: each route's is its own, and nobody else is asked unless that one is down.

use std::fs;

use fairlead_tests::{AcmePeer, AcmeRequest, AcmeScript, Answer, Delivery, Environment};

/// An installation with two peers: `[acme]`, whose further keys are `more`, and `[authority.other]`.
struct Installation {
    environment: Environment,
    main: AcmePeer,
    other: AcmePeer,
}

impl Installation {
    async fn new(more: &str) -> Self {
        let environment = Environment::new();
        let main = AcmePeer::start(&environment, AcmeScript::default()).await;
        let other = AcmePeer::start(&environment, AcmeScript::default()).await;
        let config = format!(
            "{}{more}{}",
            main.settings(),
            other.settings_as("authority.other")
        );
        environment.write_config(&config);
        Self {
            environment,
            main,
            other,
        }
    }

    /// How many orders were made at the first.
    fn orders(&self) -> usize {
        let requests = self.main.requests("/order");
        requests.iter().filter(|request| request.path == "/order").count()
    }

    /// How many certificates each of them signed.
    fn signed(&self) -> (usize, usize) {
        let signed = |peer: &AcmePeer| peer.requests("/finalize/").len();
        (signed(&self.main), signed(&self.other))
    }

    fn make_due(&self, name: &str) {
        self.environment.change_ledger(name, |ledger| {
            let issued = ledger.issued.as_mut().expect("there is a certificate");
            let info = issued.renewal_info.as_mut().expect("it was asked about");
            issued.due = issued.at;
            info.window = Some(fairlead_contract::Window {
                start: issued.at,
                end: issued.not_after,
                explanation: None,
            });
        });
    }
}

fn down() -> Option<Answer> {
    Some(Answer::problem(503, "serverInternal"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_gets_its_certificate_from_the_authority_it_names_with_an_account_of_its_own() {
    let installation = Installation::new("").await;
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    environment.declare(&["b.test"], "provider = \"other\"");
    environment.pass();
    assert_eq!(environment.issued("a.test").issuer, installation.main.directory());
    assert_eq!(
        environment.issued("b.test").issuer,
        installation.other.directory()
    );
    assert_eq!(installation.signed(), (1, 1));
    let files = fs::read_dir(environment.paths().account_dir()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.ends_with("_directory.toml")).count(), 2);

    // Another name is another issuer.
    environment.declare(&["a.test"], "provider = \"other\"");
    environment.pass();
    assert_eq!(installation.signed(), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_not_there_is_said_and_no_other_is_asked() {
    let installation = Installation::new("").await;
    let environment = &installation.environment;
    environment.write_discovery(
        "[[route]]\nhosts = [\"a.test\"]\nupstreams = [\"http://127.0.0.1:9\"]\nprovider = \"othr\"\n",
    );
    environment.failing_pass();
    let error = environment.ledger("a.test").failure.unwrap().error;
    assert!(error.contains("there is no [authority.othr] in"), "{error}");
    assert_eq!(installation.signed(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_is_asked_as_long_as_the_first_is_down_and_its_certificate_is_kept_until_it_is_due() {
    let installation = Installation::new("fallback = [\"other\"]\n").await;
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    installation.main.change(|script| script.down = down());
    let finished = environment.pass();
    assert!(finished.stderr.contains("is down: "), "{}", finished.stderr);
    assert_eq!(
        environment.issued("a.test").issuer,
        installation.other.directory()
    );

    installation.main.change(|script| script.down = None);
    environment.pass();
    assert_eq!(installation.signed(), (0, 1));
    installation.make_due("a.test");
    environment.pass();
    assert_eq!(installation.signed(), (1, 1));
    assert_eq!(environment.issued("a.test").issuer, installation.main.directory());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_are_down_each_is_named_and_the_next_try_begins_with_the_first() {
    let installation = Installation::new("fallback = [\"other\"]\n").await;
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    for peer in [&installation.main, &installation.other] {
        peer.change(|script| script.down = down());
    }
    environment.failing_pass();
    let failure = environment.ledger("a.test").failure.unwrap();
    assert_eq!(
        (failure.issuer, failure.attempts),
        (Some(installation.main.directory()), 1)
    );
    assert!(
        failure.error.starts_with("every authority is down: "),
        "{}",
        failure.error
    );
    for peer in [&installation.main, &installation.other] {
        peer.change(|script| script.down = None);
    }
    installation.environment.end_waiting("a.test");
    environment.pass();
    assert_eq!(installation.signed(), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_authority_that_is_down_or_limits_the_rate_is_left_alone_for_as_long_as_it_asked() {
    let installation = Installation::new("fallback = [\"other\"]\n").await;
    let Installation {
        environment,
        main,
        other,
        ..
    } = &installation;
    environment.declare(&["a.test"], "");
    let down_for = |retry_after| Answer {
        retry_after: Some(retry_after),
        ..Answer::problem(503, "serverInternal")
    };
    main.change(|script| script.down = down());
    other.change(|script| {
        script.ordering = Some(Answer {
            retry_after: Some("7200"),
            ..Answer::problem(429, "rateLimited")
        });
    });
    let wait = || {
        environment.failing_pass();
        let failure = environment.failure("a.test");
        failure.next_try.duration_since(failure.last).as_mins()
    };
    // The first one did not ask for anything.
    assert!((1..=2).contains(&wait()));
    assert_eq!(other.requests("/order").len(), 1);

    main.change(|script| script.down = Some(down_for("3600")));
    environment.end_waiting("a.test");
    assert!(
        (59..=60).contains(&wait()),
        "from its answer to the failure takes a moment"
    );
    assert_eq!(other.requests("/order").len(), 1);
    let failure = environment.failure("a.test");
    let left_alone = format!("{} asked to be left alone until ", other.directory());
    assert!(failure.error.contains(&left_alone), "{}", failure.error);
    assert_eq!(failure.left_alone.len(), 1);

    other.change(|script| script.ordering = None);
    environment.change_ledger("a.test", |ledger| {
        let failure = ledger.failure.as_mut().expect("it failed");
        failure.next_try = failure.last;
        failure.left_alone.clear();
    });
    environment.pass();
    assert_eq!(installation.signed(), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_an_authority_that_went_down_is_taken_up_though_the_fallback_was_asked_meanwhile() {
    let installation = Installation::new("fallback = [\"other\"]\n").await;
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    installation
        .main
        .change(|script| script.processing = Some("3600"));
    environment.failing_pass();
    installation.main.change(|script| {
        script.processing = None;
        script.down = down();
    });
    installation.other.change(|script| script.ordering = down());
    environment.end_waiting("a.test");
    environment.failing_pass();
    assert_eq!(installation.other.requests("/order").len(), 1);

    installation.main.change(|script| script.down = None);
    environment.end_waiting("a.test");
    environment.pass();
    let orders = installation.main.requests("/order");
    assert_eq!(
        orders.iter().filter(|request| request.path == "/order").count(),
        1
    );
    assert_eq!(environment.issued("a.test").issuer, installation.main.directory());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_answer_and_nobody_else_is_asked() {
    let installation = Installation::new("fallback = [\"other\"]\n").await;
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    for refusal in [
        Answer::problem(429, "rateLimited"),
        Answer::problem(400, "rejectedIdentifier"),
    ] {
        installation.main.change(|script| script.ordering = Some(refusal));
        environment.failing_pass();
        installation.environment.end_waiting("a.test");
    }
    assert_eq!(installation.signed(), (0, 0));
    assert_eq!(installation.other.requests("/order").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_back_its_own_names_in_later_passes_too_until_the_authority_said() {
    let installation = Installation::new("").await;
    let environment = &installation.environment;
    for (name, retry_after, minutes) in [
        ("a.test", Some("7200"), 118..=120),
        ("b.test", None, 58..=75),
        ("c.test", Some("Sat, 01 Jan 2000 00:00:00 GMT"), 0..=2),
    ] {
        environment.declare(&[name], "");
        let limit = Answer {
            retry_after,
            ..Answer::problem(429, "rateLimited")
        };
        installation.main.change(|script| script.ordering = Some(limit));
        environment.failing_pass();
        let failure = environment.failure(name);
        let wait = failure.next_try.duration_since(failure.last).as_mins();
        assert!(minutes.contains(&wait), "{name} waits for {wait} minutes");
    }
    installation.main.change(|script| script.ordering = None);
    environment.declare(&["d.test"], "");
    environment.pass();
    environment.pass();
    assert_eq!((installation.orders(), installation.signed()), (4, (1, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_given_up_only_if_the_authority_says_that_it_has_none() {
    let installation = Installation::new("").await;
    let environment = &installation.environment;
    let look = |answer| installation.main.change(|script| script.looking = answer);
    let begin = |name: &str| {
        look(None);
        installation
            .main
            .change(|script| script.processing = Some("3600"));
        environment.declare(&[name], "");
        environment.failing_pass();
        environment.end_waiting(name);
        installation.main.change(|script| script.processing = None);
    };
    begin("a.test");
    for answer in [
        Answer::problem(500, "serverInternal"),
        Answer::problem(400, "serverInternal"),
        Answer::problem(429, "rateLimited"),
    ] {
        look(Some(answer));
        environment.failing_pass();
        environment.end_waiting("a.test");
    }
    look(None);
    environment.pass();
    assert_eq!(installation.orders(), 1);

    let nothing_there = Answer {
        status: 404,
        retry_after: None,
        body: serde_json::Value::Null,
    };
    for (name, answer, orders) in [
        ("b.test", nothing_there, 3),
        ("c.test", Answer::problem(404, "malformed"), 5),
    ] {
        begin(name);
        look(Some(answer));
        environment.pass();
        assert_eq!(installation.orders(), orders, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_nonces_without_another_one_cost_no_order() {
    let installation = Installation::new("").await;
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    installation.main.change(|script| script.refused_nonces = 7);
    environment.pass();
    assert_eq!(installation.signed(), (1, 0));

    // There is an end to it.
    environment.declare(&["b.test"], "");
    installation
        .main
        .change(|script| script.refused_nonces = usize::MAX);
    environment.failing_pass();
    assert!(environment.failure("b.test").error.contains("badNonce"));

    // Nor if they are refused when there is an order already.
    installation.main.change(|script| {
        script.refused_nonces = 0;
        script.finalizing = Some(Answer::problem(400, "badNonce"));
    });
    environment.end_waiting("b.test");
    environment.failing_pass();
    installation.main.change(|script| script.finalizing = None);
    environment.end_waiting("b.test");
    let orders = installation.orders();
    environment.pass();
    assert_eq!(installation.orders(), orders);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_is_ordered_before_what_is_to_be_renewed() {
    let installation = Installation::new("").await;
    let environment = &installation.environment;
    const RENEWED: usize = 20;
    let names: Vec<_> = (0..RENEWED).map(|number| format!("n{number}.test")).collect();
    for name in &names {
        environment.declare(&[name], "");
    }
    environment.pass();
    environment.pass();
    for name in &names {
        installation.make_due(name);
    }
    environment.declare(&["z.test"], "");
    environment.pass();
    let orders = installation.main.requests("/order");
    let ordered = orders.iter().filter(|request| request.path == "/order");
    let ordered: Vec<_> = ordered
        .map(|request| &request.payload["identifiers"][0]["value"])
        .collect();
    assert_eq!(ordered.len(), RENEWED + RENEWED + 1);
    // Four are under way at once, and how many others are heard before the first of them is the network's choice; the
    // last one begins only when all but three have ended.
    let heard_before = ordered[RENEWED..].iter().position(|name| **name == "z.test");
    assert!(
        heard_before.is_some_and(|others| others < RENEWED - 3),
        "{ordered:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_nonce_is_used_twice_by_orders_that_run_at_once() {
    let installation = Installation::new("").await;
    for number in 0..20 {
        installation
            .environment
            .declare(&[&format!("n{number}.test")], "");
    }
    installation.environment.pass();
    let requests = installation.main.requests("/");
    let mut nonces: Vec<_> = requests
        .iter()
        .filter_map(|request| request.nonce.as_str())
        .collect();
    let number = nonces.len();
    nonces.sort_unstable();
    nonces.dedup();
    assert!(number > 3 * 20, "{number} requests were signed");
    assert_eq!(nonces.len(), number);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_may_move_to_other_urls_from_one_pass_to_the_next() {
    let installation = Installation::new("").await;
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    environment.pass();
    installation.main.change(|script| script.below = "/v2");
    environment.declare(&["b.test"], "");
    environment.pass();
    assert_eq!(installation.main.requests("/finalize/").len(), 1);
    assert_eq!(installation.main.requests("/v2/finalize/").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_signing_request_is_told_and_the_next_try_has_another_key() {
    let installation = Installation::new("").await;
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    let refusal = Some(Answer::problem(400, "badCSR"));
    installation.main.change(|script| script.finalizing = refusal);
    environment.failing_pass();
    let error = environment.failure("a.test").error;
    assert!(error.contains("as the test wants it (badCSR)"), "{error}");
    installation.main.change(|script| script.finalizing = None);
    environment.end_waiting("a.test");
    environment.pass();
    let keys: Vec<_> = installation
        .main
        .requests("/finalize/")
        .iter()
        .map(AcmeRequest::requested_key)
        .collect();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_ready_although_it_says_so_is_asked_for_again_and_not_made_anew() {
    let installation = Installation::new("").await;
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    installation.main.change(|script| script.not_ready = 1);
    environment.pass();
    assert_eq!(installation.signed(), (2, 0));

    environment.declare(&["b.test"], "");
    installation.main.change(|script| script.not_ready = usize::MAX);
    environment.failing_pass();
    let error = environment.failure("b.test").error;
    assert!(
        error.contains("not done yet; the same order is taken up"),
        "{error}"
    );
    installation.main.change(|script| script.not_ready = 0);
    environment.end_waiting("b.test");
    environment.pass();
    assert_eq!(installation.orders(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_cut_off_is_fetched_again_and_one_for_another_key_or_name_costs_its_order() {
    let installation = Installation::new("").await;
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    for (delivery, expected, orders) in [
        (Delivery::Cut, "the chain is not PEM", 1),
        (Delivery::Unavailable, "answered 503 Service Unavailable", 1),
        (Delivery::ForAnotherKey, "the key is not the certificate's", 1),
        (
            Delivery::ForAnotherName,
            "a certificate for other names (other.test); it was rejected",
            2,
        ),
        (Delivery::Cut, "the chain is not PEM", 3),
    ] {
        installation.main.change(|script| script.delivery = delivery);
        environment.failing_pass();
        let error = environment.failure("a.test").error;
        assert!(error.contains(expected), "{error}");
        assert!(!environment.certificate("a.test").chain_file().exists());
        assert_eq!(installation.orders(), orders);
        environment.end_waiting("a.test");
    }
    installation
        .main
        .change(|script| script.delivery = Delivery::Whole);
    environment.pass();
    assert_eq!(installation.orders(), 3);
}
