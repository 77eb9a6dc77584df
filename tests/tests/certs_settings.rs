//! What the settings say about keys, profiles, chains and accounts is what an authority is asked for.

use std::fs;
use std::path::Path;
use std::process::Command;

use fairlead_contract::write_atomically;
use fairlead_tests::{
    AcmePeer, AcmeScript, Alternate, Answer, Answering, Client, Environment, Pebble, PebbleSettings, Program,
    Proxy, Upstream, route,
};
use serde_json::json;

/// An installation whose certificates come from the peer; `more` are further lines of `[acme]`.
async fn installation(script: AcmeScript, more: &str) -> (Environment, AcmePeer) {
    let environment = Environment::new();
    let peer = AcmePeer::start(&environment, script).await;
    environment.write_config(&format!("{}{more}", peer.settings()));
    environment.declare(&["a.test"], "");
    (environment, peer)
}

/// What openssl says of the first certificate in a file.
fn describe(chain: &Path) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-text", "-in"]).arg(chain);
    let output = command.output().expect("cannot run openssl: install openssl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_has_the_kind_of_key_that_is_wanted_and_the_proxy_serves_it() {
    let environment = Environment::new();
    let upstream = Upstream::saying("hello").await;
    for (host, more) in [("p384.test", ""), ("rsa.test", "key-type = \"rsa2048\"\n")] {
        let text = route(&[host], &[upstream.address()]) + more;
        environment.write_routes(&format!("{host}.toml"), &text);
    }
    environment.write_config("[certificates]\nprovider = \"internal\"\nkey-type = \"p384\"\n");
    environment.pass();
    let proxy = Proxy::start(&environment);
    let client = Client::trusting(fs::read(environment.paths().internal_ca_file()).unwrap());
    for (host, expected) in [
        ("p384.test", "NIST CURVE: P-384"),
        ("rsa.test", "Public-Key: (2048 bit)"),
    ] {
        let said = describe(&environment.certificate(host).chain_file());
        assert!(said.contains(expected), "{said}");
        let response = client.get(&proxy, &format!("https://{host}/")).await;
        assert_eq!(response.status(), 200, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_kind_of_key_is_taken_for_the_next_certificate() {
    let (environment, peer) = installation(AcmeScript::default(), "").await;
    environment.pass();
    let config = format!("{}[certificates]\nkey-type = \"rsa3072\"\n", peer.settings());
    environment.write_config(&config);
    let chain = environment.certificate("a.test").chain_file();
    environment.pass();
    assert!(describe(&chain).contains("NIST CURVE: P-256"));
    environment.declare(&["a.test", "b.test"], "");
    environment.pass();
    assert!(describe(&chain).contains("Public-Key: (3072 bit)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_told_where_it_may_write_to_and_when_that_changes() {
    let (environment, peer) = installation(AcmeScript::default(), "email = \"a@example.com\"\n").await;
    let contacts = || -> Vec<_> {
        let told = peer.requests("/account/").into_iter();
        told.map(|request| request.payload["contact"].clone()).collect()
    };
    environment.pass();
    assert_eq!(contacts(), [json!(["mailto:a@example.com"])]);
    for (host, more, contact) in [
        (
            "b.test",
            "email = \"b@example.com\"\n",
            json!(["mailto:b@example.com"]),
        ),
        ("c.test", "", json!([])),
    ] {
        environment.write_config(&format!("{}{more}", peer.settings()));
        environment.declare(&[host], "");
        environment.pass();
        assert_eq!(contacts().last(), Some(&contact));
    }
    environment.declare(&["d.test"], "");
    environment.pass();
    assert_eq!((contacts().len(), peer.requests("/account").len()), (3, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_ordered_only_where_it_is_offered() {
    let (environment, peer) = installation(AcmeScript::default(), "profile = \"shortlived\"\n").await;
    peer.change(|script| script.profiles = vec!["classic", "tlsserver"]);
    let finished = environment.failing_pass();
    let expected = "the authority offers no profile \"shortlived\": write one it offers (classic, tlsserver)";
    assert!(finished.stderr.contains(expected), "{}", finished.stderr);
    assert_eq!(peer.requests("/order").len(), 0);

    // Nothing was ordered, so there is nothing to wait for.
    peer.change(|script| script.profiles.push("shortlived"));
    environment.pass();
    assert_eq!(peer.requests("/order")[0].payload["profile"], "shortlived");
    environment.write_config(&peer.settings());
    environment.declare(&["a.test", "b.test"], "");
    environment.pass();
    let last = peer.requests("/order").pop().expect("there are orders");
    assert_eq!(last.payload.get("profile"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_chains_the_preferred_one_is_stored() {
    for (alternate, preferred, expected) in [
        (Alternate::Offered, "", AcmePeer::ROOT),
        (Alternate::Offered, AcmePeer::ROOT, AcmePeer::ROOT),
        (Alternate::Offered, AcmePeer::OTHER_ROOT, AcmePeer::OTHER_ROOT),
        (Alternate::Offered, "unknown", AcmePeer::ROOT),
        (Alternate::Missing, AcmePeer::OTHER_ROOT, AcmePeer::ROOT),
        (Alternate::Absent, AcmePeer::OTHER_ROOT, AcmePeer::ROOT),
    ] {
        let script = AcmeScript {
            alternate,
            ..AcmeScript::default()
        };
        let more = match preferred {
            "" => String::new(),
            name => format!("preferred-chain = {name:?}\n"),
        };
        let (environment, peer) = installation(script, &more).await;
        let finished = environment.pass();
        let is_default = preferred.is_empty() || preferred == expected;
        let told = finished.stderr.contains("the authority offers no chain to");
        assert_eq!(
            told, !is_default,
            "{alternate:?} {preferred}: {}",
            finished.stderr
        );
        verify(&environment, &peer, expected);
        let is_direct = environment.pair("a.test").0.contains(&peer.root(AcmePeer::ROOT));
        assert_eq!(is_direct, expected == AcmePeer::ROOT, "{alternate:?} {preferred}");
    }
}

/// Fails unless openssl builds a chain to this root, which must be all it trusts, from what is stored.
fn verify(environment: &Environment, peer: &AcmePeer, root: &str) {
    let file = environment.root().join("root.pem");
    write_atomically(&file, peer.root(root).as_bytes(), 0o644).expect("a root can be written");
    let chain = environment.certificate("a.test").chain_file();
    let mut command = Command::new("openssl");
    command.args(["verify", "-no-CApath", "-no-CAstore", "-CAfile"]);
    command.arg(file).arg("-untrusted").arg(&chain).arg(&chain);
    let output = command.output().expect("cannot run openssl: install openssl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{root}: {said}");
}

const EXTERNAL_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

#[test]
fn an_account_is_bound_to_the_one_the_operator_has_there() {
    let environment = Environment::new();
    let answering = Answering::start(&environment);
    let mut settings = PebbleSettings::new(answering.address());
    settings.external_account = Some(("kid-1", EXTERNAL_KEY));
    let pebble = Pebble::start(settings);
    environment.write_config(&pebble.settings());
    environment.declare(&["a.test"], "");
    let finished = environment.failing_pass();
    let expected = "write what it gave you for that as \"external-account\" beside its directory";
    assert!(finished.stderr.contains(expected), "{}", finished.stderr);

    let key = environment.root().join("eab");
    let bind = |secret: &str| {
        write_atomically(&key, secret.as_bytes(), 0o600).expect("a secret can be written");
        let external = format!("external-account = {{ key-id = \"kid-1\", key = {key:?} }}\n");
        environment.write_config(&format!("{}{external}", pebble.settings()));
    };
    bind("not base64url!");
    let finished = environment.failing_pass();
    let expected = "the key of the external-account is not base64url";
    assert!(finished.stderr.contains(expected), "{}", finished.stderr);

    bind(&format!("{EXTERNAL_KEY}\n"));
    environment.pass();
    environment.declare(&["b.test"], "");
    environment.pass();
    assert_eq!((pebble.accounts(), pebble.orders()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_subdomains_share_a_certificate_that_a_new_one_needs_no_order_for() {
    let environment = Environment::new();
    let upstream = Upstream::saying("hello").await;
    let declare = |host: &str| {
        environment.write_routes(&format!("{host}.toml"), &route(&[host], &[upstream.address()]));
    };
    let certificates = || -> Vec<_> {
        let entries = fs::read_dir(environment.paths().certificates_dir()).expect("there is a store");
        let names = entries.map(|entry| entry.expect("it can be listed").file_name());
        names
            .filter(|name| name != "internal-ca.pem" && name != ".renewed")
            .collect()
    };
    environment.write_config("[certificates]\nprovider = \"internal\"\nwildcards = [\"a.test\"]\n");
    declare("x.a.test");
    environment.pass();
    let before = environment.pair("*.a.test");
    let proxy = Proxy::start(&environment);
    let client = Client::trusting(fs::read(environment.paths().internal_ca_file()).unwrap());
    declare("y.a.test");
    environment.pass();
    proxy.reload();
    assert_eq!(environment.pair("*.a.test"), before);
    assert_eq!(certificates(), ["*.a.test"]);
    for uri in ["https://x.a.test/", "https://y.a.test/"] {
        assert_eq!(client.get(&proxy, uri).await.status(), 200, "{uri}");
    }
    assert!(proxy.status().loaded.names_without_certificate.is_empty());
    let told = environment.run(Program::Cli, &["why", "y.a.test"]).stdout;
    assert!(told.contains("valid until"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_authority_wants_of_the_operator_is_told_with_the_page_and_the_present_certificate_stays() {
    let (environment, peer) = installation(AcmeScript::default(), "").await;
    environment.pass();
    let before = environment.pair("a.test");
    let mut terms = Answer::problem(403, "userActionRequired");
    terms.body["instance"] = "https://ca.test/terms".into();
    peer.change(|script| script.ordering = Some(terms));
    environment.declare(&["a.test", "b.test"], "");
    environment.failing_pass();
    let failure = environment
        .ledger("a.test")
        .failure
        .expect("a failure is remembered");
    let expected = "such as agreeing to new terms: see https://ca.test/terms; it said: as the test wants it";
    assert!(failure.error.contains(expected), "{}", failure.error);
    assert_eq!(environment.pair("a.test"), before);

    // Not asked again at once.
    let orders = peer.requests("/order").len();
    environment.pass();
    assert_eq!(peer.requests("/order").len(), orders);
}
