//! DNS-01 against a real Pebble: each way a record gets into the DNS, and where it is put.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use fairlead_contract::write_atomically;
use fairlead_tests::{Environment, Named, Pebble, PebbleSettings, Peer, PeerRequest, Program};

/// Nobody answers there: neither HTTP-01 nor TLS-ALPN-01 could succeed.
fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

fn configure(environment: &Environment, pebble: &Pebble, dns: &str) {
    let text = format!(
        "{}challenge = \"dns-01\"\nresolvers = [\"{}\"]\n[acme.dns]\n{dns}",
        pebble.settings(),
        pebble.dns()
    );
    environment.write_config(&text);
}

/// The error that a pass leaves behind which must fail.
fn fail(environment: &Environment, name: &str) -> String {
    environment.failing_pass();
    environment.failure(name).error
}

fn bind(environment: &Environment, zones: &[(&str, &str)], open: &[&str]) -> (Named, Pebble) {
    bind_with(environment, zones, open, "")
}

/// The same with more keys of `[acme.dns]`.
fn bind_with(
    environment: &Environment,
    zones: &[(&str, &str)],
    open: &[&str],
    more: &str,
) -> (Named, Pebble) {
    let named = Named::start(zones, open);
    let mut settings = PebbleSettings::new(nowhere());
    settings.dns = Some(named.address());
    let pebble = Pebble::start(settings);
    let key = environment.secret("key", Named::key());
    let dns = format!(
        "{more}[acme.dns.rfc2136]\nserver = \"{}\"\nkey-name = \"fairlead\"\nkey = {key:?}\n",
        named.address().ip()
    );
    configure(environment, &pebble, &dns);
    (named, pebble)
}

#[test]
fn bind_takes_the_records_of_a_wildcard_and_its_parent_and_gives_them_back() {
    let environment = Environment::new();
    let keep = "_acme-challenge TXT \"somebody else's\"";
    let (named, pebble) = bind(&environment, &[("a.test", keep)], &["a.test"]);
    environment.declare(&["*.a.test", "a.test", "b.sub.a.test"], "");
    environment.pass();
    let names = environment.ledger("*.a.test").names.len();
    assert_eq!((names, pebble.orders()), (3, 1));
    assert_eq!(named.texts("_acme-challenge.a.test"), "\"somebody else's\"\n");
    assert_eq!(named.texts("_acme-challenge.b.sub.a.test"), "");
}

#[test]
fn a_delegated_challenge_is_answered_where_the_aliases_lead() {
    let environment = Environment::new();
    let alias = "_acme-challenge CNAME hop.alias.test.";
    let hop = "hop CNAME b.deep.alias.test.";
    let (_named, _pebble) = bind(
        &environment,
        &[("b.test", alias), ("alias.test", hop)],
        &["alias.test"],
    );
    environment.declare(&["b.test"], "");
    environment.pass();
}

#[test]
fn a_zone_that_refuses_the_key_says_so() {
    let environment = Environment::new();
    let (_named, pebble) = bind(&environment, &[("c.test", "")], &[]);
    environment.declare(&["c.test"], "");
    let error = fail(&environment, "c.test");
    assert!(
        error.contains("refused to change the zone c.test.: Query Refused (does its policy let this key"),
        "{error}"
    );
    // Nothing was wrong with the order.
    assert!(environment.pending_file("c.test", &pebble.directory()).exists());
    assert_eq!(pebble.orders(), 1);
}

#[test]
fn a_server_of_the_zone_that_does_not_get_the_record_is_named_and_the_authority_not_bothered() {
    let environment = Environment::new();
    let silent = "@ NS silent\nsilent A 127.0.0.1";
    let impatient = "propagation-timeout = \"2s\"\n";
    let (_named, _pebble) = bind_with(&environment, &[("d.test", silent)], &["d.test"], impatient);
    environment.declare(&["d.test"], "");
    let error = fail(&environment, "d.test");
    assert!(
        error.contains(
            "the record at _acme-challenge.d.test. was not seen at 127.0.0.1 within 2 seconds (propagation-timeout"
        ),
        "{error}"
    );
}

#[test]
fn a_server_of_the_zone_needs_to_be_reached_at_one_of_its_addresses() {
    let environment = Environment::new();
    // BIND does not listen there, as a server does not that a machine without IPv6 asks.
    let (_named, _pebble) = bind(&environment, &[("e.test", "ns AAAA ::1")], &["e.test"]);
    environment.declare(&["e.test"], "");
    environment.pass();
}

#[test]
fn a_program_of_the_operators_is_called_and_its_complaint_passed_on() {
    let environment = Environment::new();
    let pebble = Pebble::start(PebbleSettings::new(nowhere()));
    let (hook, log) = (environment.root().join("hook"), environment.root().join("log"));
    let script = format!(
        "#!/bin/sh\nset -eu\necho \"$*\" >>{}\ncase $3 in (_acme-challenge.bad.*) echo no such zone >&2; exit 3;; esac\n\
         [ \"$2\" = cleanup ] || curl -sf --data \"{{\\\"host\\\": \\\"$3\\\", \\\"value\\\": \\\"$4\\\"}}\" {}/set-txt\n",
        log.display(),
        pebble.records().url()
    );
    write_atomically(&hook, script.as_bytes(), 0o755).unwrap();
    let dns = format!("propagation-delay = \"1ms\"\n[acme.dns.exec]\ncommand = [{hook:?}, \"first\"]\n");
    configure(&environment, &pebble, &dns);
    environment.declare(&["*.a.test"], "");
    environment.pass();
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<_> = log.lines().map(|line| line.rsplit_once(' ').unwrap()).collect();
    assert_eq!(lines[0].0, "first present _acme-challenge.a.test.");
    assert_eq!(lines[1], ("first cleanup _acme-challenge.a.test.", lines[0].1));

    environment.declare(&["bad.test"], "");
    let error = fail(&environment, "bad.test");
    assert!(
        error.contains("first failed: exit status: 3: no such zone"),
        "{error}"
    );
}

/// An installation with a program that puts records where Pebble looks, logs what it is called with, and does the worst
/// that the test has asked it for by a file.
struct Hooked {
    environment: Environment,
    pebble: Pebble,
}

impl Hooked {
    const NAME: &str = "a.test";
    /// With this file the certs program is killed as soon as the record is there.
    const KILLS: &str = "kills";
    /// With this one there is another route as soon as the record is there.
    const CHURNS: &str = "churns";
    /// With this one nothing is taken back.
    const STICKS: &str = "sticks";

    fn new() -> Self {
        let environment = Environment::new();
        let pebble = Pebble::start(PebbleSettings::new(nowhere()));
        let root = environment.root().display();
        let script = format!(
            "#!/bin/sh\nset -eu\ncd {root}\necho \"$*\" >>log\n\
             if [ \"$1\" = cleanup ]; then test ! -e sticks; exit; fi\n\
             if [ -e churns ]; then n=n$(ls etc/routes.d | wc -l).test; \
             sed s/{name}/$n/ etc/routes.d/{name}.toml >new; mv new etc/routes.d/$n.toml; fi\n\
             curl -sf --data \"{{\\\"host\\\": \\\"$2\\\", \\\"value\\\": \\\"$3\\\"}}\" {}/set-txt\n\
             [ ! -e kills ] || kill -9 $PPID\n",
            pebble.records().url(),
            name = Self::NAME,
        );
        let hook = environment.root().join("hook");
        write_atomically(&hook, script.as_bytes(), 0o755).expect("a program can be written");
        let dns = format!("propagation-delay = \"1ms\"\n[acme.dns.exec]\ncommand = [{hook:?}]\n");
        configure(&environment, &pebble, &dns);
        environment.declare(&[Self::NAME], "");
        Self { environment, pebble }
    }

    fn ask_for(&self, what: &str) {
        let file = self.environment.root().join(what);
        write_atomically(&file, b"", 0o644).expect("a file can be written");
    }

    fn ask_no_more_for(&self, what: &str) {
        fs::remove_file(self.environment.root().join(what)).expect("it was asked for");
    }

    /// What the program was called with since the last question, without the name.
    fn calls(&self) -> Vec<(String, String)> {
        let log = self.environment.root().join("log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        let calls = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        calls
            .map(|words| (words[0].to_owned(), words[2].to_owned()))
            .collect()
    }

    /// The files that remember records.
    fn remembered(&self) -> Vec<PathBuf> {
        let directory = self.environment.paths().account_dir().join("records");
        let entries = fs::read_dir(directory).expect("records were remembered");
        let entries = entries.map(|entry| entry.expect("it can be listed"));
        entries.map(|entry| entry.path()).collect()
    }
}

fn calls(verbs: &[&str], value: &str) -> Vec<(String, String)> {
    let calls = verbs.iter();
    calls.map(|verb| ((*verb).to_owned(), value.to_owned())).collect()
}

#[test]
fn a_record_of_a_killed_pass_is_taken_back_by_the_next_one_and_its_order_goes_on() {
    let hooked = Hooked::new();
    let environment = &hooked.environment;
    hooked.ask_for(Hooked::KILLS);
    let killed = environment.run(Program::Certs, &[]);
    assert_eq!(killed.status.signal(), Some(9), "{}", killed.stderr);
    let presented = hooked.calls();
    let value = presented[0].1.clone();
    assert_eq!(presented, calls(&["present"], &value));

    // The next try is later, but the record goes now.
    hooked.ask_no_more_for(Hooked::KILLS);
    environment.pass();
    assert_eq!(hooked.calls(), calls(&["cleanup"], &value));
    assert_eq!(hooked.remembered(), [] as [PathBuf; 0]);
    environment.end_waiting(Hooked::NAME);
    environment.pass();
    assert_eq!(hooked.calls(), calls(&["present", "cleanup"], &value));
    assert_eq!(hooked.remembered(), [] as [PathBuf; 0]);
    assert_eq!(hooked.pebble.orders(), 1);
}

#[test]
fn a_pass_ends_although_the_files_never_stay_as_they_are_and_asks_for_another() {
    let hooked = Hooked::new();
    let environment = &hooked.environment;
    let is_another_wanted = || environment.paths().certs_dirty_file().exists();
    hooked.ask_for(Hooked::CHURNS);
    environment.pass();
    assert_eq!((hooked.pebble.orders(), is_another_wanted()), (3, true));
    hooked.ask_no_more_for(Hooked::CHURNS);
    environment.pass();
    assert_eq!((hooked.pebble.orders(), is_another_wanted()), (4, false));
}

#[test]
fn a_record_that_cannot_be_taken_back_is_named_and_tried_again_for_a_week() {
    let hooked = Hooked::new();
    let environment = &hooked.environment;
    hooked.ask_for(Hooked::STICKS);
    let passed = environment.pass();
    let stays = "a record stays in the DNS until the next pass, at _acme-challenge.a.test.: the program ";
    assert!(passed.stderr.contains(stays), "{}", passed.stderr);
    let value = hooked.calls()[0].1.clone();
    assert!(environment.pass().stderr.contains(stays));
    assert_eq!(hooked.calls(), calls(&["cleanup"], &value));

    let file = hooked.remembered().pop().expect("it is remembered");
    let text = fs::read_to_string(&file).unwrap();
    let since = text.lines().find(|line| line.starts_with("since")).unwrap();
    let old = text.replace(since, "since = \"2000-01-01T00:00:00Z\"");
    write_atomically(&file, old.as_bytes(), 0o600).unwrap();
    let passed = environment.pass();
    let by_hand = format!("take it away by hand: the record {value} stays at _acme-challenge.a.test.");
    assert!(passed.stderr.contains(&by_hand), "{}", passed.stderr);
    assert_eq!((hooked.calls(), hooked.remembered()), (vec![], vec![]));

    // Who may change the DNS no more cannot take anything back.
    write_atomically(&file, text.as_bytes(), 0o600).unwrap();
    environment.write_config(&hooked.pebble.settings());
    let passed = environment.pass();
    assert!(passed.stderr.contains(&by_hand), "{}", passed.stderr);
    assert_eq!((hooked.calls(), hooked.remembered()), (vec![], vec![]));
}

#[test]
fn an_httpreq_peer_is_asked_with_its_password() {
    let environment = Environment::new();
    let pebble = Pebble::start(PebbleSettings::new(nowhere()));
    let (seen, records) = (Arc::new(Mutex::new(Vec::new())), pebble.records());
    let peer = Peer::start({
        let seen = seen.clone();
        move |request| {
            seen.lock().unwrap().push(request.clone());
            if request.path == "/hook/present" {
                records.set_text(text(request, "fqdn"), text(request, "value"));
            }
            200
        }
    });
    let password = environment.secret("password", "secret\n");
    let dns = format!(
        "propagation-delay = \"1ms\"\n[acme.dns.httpreq]\nendpoint = \"{}/hook\"\nusername = \"me\"\npassword = {password:?}\n",
        peer.url()
    );
    configure(&environment, &pebble, &dns);
    environment.declare(&["a.test"], "");
    environment.pass();
    let seen = seen.lock().unwrap();
    let paths: Vec<_> = seen.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(paths, ["/hook/present", "/hook/cleanup"]);
    assert_eq!(text(&seen[0], "fqdn"), "_acme-challenge.a.test.");
    assert_eq!(seen[0].body, seen[1].body);
    // "me:secret"
    assert!(
        seen[0]
            .headers
            .contains(&"authorization: Basic bWU6c2VjcmV0".to_owned())
    );
}

#[test]
fn an_acme_dns_account_answers_for_the_name_that_is_delegated_to_it() {
    let environment = Environment::new();
    let pebble = Pebble::start(PebbleSettings::new(nowhere()));
    let records = pebble.records();
    records.set_alias("_acme-challenge.a.test.", "d420.auth.test.");
    records.set_alias("_acme-challenge.b.test.", "unknown.auth.test.");
    let peer = Peer::start(move |request| {
        let allowed = ["x-api-user: user", "x-api-key: secret"];
        let is_user = allowed
            .iter()
            .all(|header| request.headers.contains(&(*header).to_owned()));
        if !is_user || request.path != "/update" || text(request, "subdomain") != "d420" {
            return 401;
        }
        records.set_text("d420.auth.test.", text(request, "txt"));
        200
    });
    let account = |password: &str| {
        format!(
            r#"{{"a.test": {{"username": "user", "password": "{password}", "fulldomain": "d420.auth.test",
                "subdomain": "d420", "allowfrom": []}}}}"#
        )
    };
    let accounts = environment.secret("accounts", &account("wrong"));
    let dns = format!(
        "propagation-delay = \"1ms\"\n[acme.dns.acme-dns]\nserver = \"{}\"\naccounts = {accounts:?}\n",
        peer.url()
    );
    configure(&environment, &pebble, &dns);
    environment.declare(&["a.test"], "");
    let error = fail(&environment, "a.test");
    assert!(
        error.contains("/update cannot be called: it answered 401"),
        "{error}"
    );

    // Other names are another matter, and do not wait.
    environment.secret("accounts", &account("secret"));
    environment.declare(&["a.test", "*.a.test"], "");
    environment.pass();
    environment.declare(&["b.test"], "");
    let error = fail(&environment, "b.test");
    assert!(
        error.contains("the account for unknown.auth.test. is not among"),
        "{error}"
    );
}

#[test]
fn a_secret_that_is_missing_or_open_to_others_is_named() {
    let environment = Environment::new();
    let (_named, pebble) = bind(&environment, &[("a.test", "")], &["a.test"]);
    let key = environment.root().join("key");
    let text = fs::read_to_string(environment.paths().config_file()).unwrap();
    environment.declare(&["a.test"], "");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let error = fail(&environment, "a.test");
    assert!(error.contains("can be read by others (mode 0644)"), "{error}");

    let by_name = text.replace(&format!("{key:?}"), "\"tsig\"");
    environment.write_config(&by_name);
    for (names, expected) in [
        (
            &["b.a.test"][..],
            "the credential \"tsig\" is not there: give fairlead-certs.service a LoadCredential=",
        ),
        (
            &["c.a.test"],
            "tsig is not there; a secret that fairlead.toml names belongs there",
        ),
    ] {
        environment.declare(names, "");
        let mut command = environment.command(Program::Certs);
        if names == ["c.a.test"] {
            command.env("CREDENTIALS_DIRECTORY", environment.root());
        }
        let finished = environment.start(command).finish();
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
    }
    let tsig = environment.root().join("tsig");
    write_atomically(&tsig, Named::key().as_bytes(), 0o400).unwrap();
    environment.declare(&["d.a.test"], "");
    let mut command = environment.command(Program::Certs);
    command.env("CREDENTIALS_DIRECTORY", environment.root());
    environment.start(command).finish();
    assert!(environment.ledger("d.a.test").issued.is_some());
    drop(pebble);
}

fn text<'a>(request: &'a PeerRequest, key: &str) -> &'a str {
    request.body[key].as_str().unwrap_or_default()
}
