//! The certs program against a real Pebble, and alone with its own authority.

use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use fairlead_contract::{CertificateDir, Provider, write_atomically};
use fairlead_tests::{
    Authority, Client, Environment, Installation, Named, Pebble, PebbleSettings, Program, Proxy, Upstream,
    route,
};
use jiff::{SignedDuration, Timestamp};

fn openssl(arguments: &[&str], file: &Path) -> Output {
    let mut command = Command::new("openssl");
    command.args(arguments).arg(file);
    command.output().expect("cannot run openssl: install openssl")
}

/// The SANs of the stored certificate, as openssl reads them.
fn sans(environment: &Environment, name: &str) -> String {
    let chain = environment.certificate(name).chain_file();
    let output = openssl(&["x509", "-noout", "-ext", "subjectAltName", "-in"], &chain);
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().unwrap_or_default().trim().to_owned()
}

/// Fails unless openssl builds a chain from the stored certificate to the root, for this host.
fn verify(environment: &Environment, name: &str, host: &str, root: &Path) {
    let chain = environment.certificate(name).chain_file();
    let (root, chain_text) = (root.display().to_string(), chain.display().to_string());
    let output = openssl(
        &[
            "verify",
            "-CAfile",
            &root,
            "-purpose",
            "sslserver",
            "-verify_hostname",
            host,
            "-untrusted",
            &chain_text,
        ],
        &chain,
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).expect("the directory is there").count()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .expect("the file is there")
        .permissions()
        .mode()
        & 0o7777
}

fn entries(directory: &CertificateDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).expect("the directory is there");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("the directory can be listed").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_route_gets_one_certificate_for_all_its_hosts_and_the_next_pass_orders_nothing() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&["a.test", "b.test"], "");
    write_atomically(&environment.paths().certs_dirty_file(), b"", 0o644).unwrap();
    let began = Instant::now();
    environment.pass();
    println!(
        "one issuance against Pebble, account included: {} ms",
        began.elapsed().as_millis()
    );

    assert_eq!(sans(environment, "a.test"), "DNS:a.test, DNS:b.test");
    let root = environment.root().join("pebble-root.pem");
    write_atomically(&root, installation.pebble.root().as_bytes(), 0o644).unwrap();
    verify(environment, "a.test", "b.test", &root);
    let directory = environment.certificate("a.test");
    assert_eq!(entries(&directory), ["fullchain.pem", "key.pem", "state.toml"]);
    assert_eq!(
        (mode(&directory.key_file()), mode(&directory.chain_file())),
        (0o640, 0o644)
    );
    let account = installation.account_file();
    assert_eq!(mode(&account), 0o600);
    assert!(fs::read_to_string(&account).unwrap().contains("ops@example.com"));
    let ledger = environment.ledger("a.test");
    assert_eq!((ledger.provider, &ledger.failure), (Provider::Acme, &None));
    let issued = ledger.issued.clone().unwrap();
    assert_eq!(issued.issuer, installation.pebble.directory());
    assert_eq!(
        issued.not_after.duration_since(issued.due).as_hours(),
        30 * 24 - 1
    );

    assert_eq!(installation.challenges(), 0, "answers stay published");
    assert!(!environment.paths().certs_dirty_file().exists());
    let before = environment.pair("a.test");
    environment.pass();
    assert_eq!(environment.pair("a.test"), before);
    let kept = environment.ledger("a.test");
    assert_eq!(kept.failure, None);
    assert_eq!(
        kept.issued.map(|kept| (kept.at, kept.due)),
        Some((issued.at, issued.due))
    );
    assert_eq!(
        (installation.pebble.orders(), installation.pebble.accounts()),
        (1, 1)
    );
}

#[test]
fn changed_names_bring_a_new_certificate_at_once_from_the_same_account() {
    let installation = Installation::with(|settings| settings.reused_authorizations = 100);
    installation.environment.declare(&["a.test"], "");
    installation.environment.pass();
    installation.environment.declare(&["a.test", "b.test"], "");
    installation.environment.pass();
    assert_eq!(
        sans(&installation.environment, "a.test"),
        "DNS:a.test, DNS:b.test"
    );
    assert_eq!(
        (installation.pebble.orders(), installation.pebble.accounts()),
        (2, 1)
    );
}

#[test]
fn a_certificate_is_renewed_when_two_thirds_of_its_lifetime_are_over() {
    let installation = Installation::with(|settings| settings.validity = Duration::from_secs(4));
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    environment.pass();
    let first = environment.pair("a.test");
    let due = environment.ledger("a.test").issued.unwrap().due;
    while environment.pair("a.test") == first {
        environment.pass();
    }
    let second = environment.ledger("a.test").issued.unwrap();
    assert!(second.at >= due, "renewed at {}, due at {due}", second.at);
    assert_ne!(environment.pair("a.test").1, first.1, "the key is a new one");
}

#[test]
fn a_failure_takes_down_itself_alone_and_waits_for_its_next_try() {
    let installation = Installation::new();
    let environment = &installation.environment;
    installation.answering.refuse("bad.test");
    for hosts in [&["good.test"][..], &["bad.test", "fine.test"], &["other.test"]] {
        environment.declare(hosts, "");
    }
    let finished = environment.failing_pass();
    assert!(
        finished.stderr.contains("certificate=bad.test"),
        "{}",
        finished.stderr
    );
    for name in ["good.test", "other.test"] {
        assert_eq!(sans(environment, name), format!("DNS:{name}"));
    }
    let first = environment.failure("bad.test");
    assert!(
        first.error.contains("for bad.test the authority said: "),
        "{}",
        first.error
    );
    assert!(first.error.contains("(unauthorized)"), "{}", first.error);
    assert_eq!(first.attempts, 1);
    assert!(first.next_try > first.last);
    assert_eq!(installation.challenges(), 0, "answers stay published");

    environment.pass();
    assert_eq!(installation.pebble.orders(), 3, "it was tried before its time");
    assert_eq!(environment.failure("bad.test"), first);

    environment.end_waiting("bad.test");
    environment.failing_pass();
    let second = environment.failure("bad.test");
    assert_eq!((second.attempts, second.since), (2, first.since));
    assert_eq!(installation.pebble.orders(), 4);

    // Other names are another matter, and do not wait.
    environment.declare(&["bad.test"], "");
    environment.failing_pass();
    assert_eq!(environment.failure("bad.test").attempts, 1);
    assert_eq!(installation.pebble.orders(), 5);
}

#[test]
fn a_hundred_restarts_cost_no_order() {
    let installation = Installation::new();
    installation.environment.declare(&["a.test"], "");
    for _ in 0..100 {
        installation.environment.pass();
    }
    assert_eq!(
        (installation.pebble.orders(), installation.pebble.accounts()),
        (1, 1)
    );
}

#[test]
fn what_the_authority_rejects_is_said_in_its_own_words() {
    let installation = Installation::with(|settings| settings.blocked = vec!["blocked.test"]);
    installation.environment.declare(&["blocked.test"], "");
    installation.environment.failing_pass();
    let error = installation.environment.failure("blocked.test").error;
    assert!(
        error.contains("issuance is forbidden by policy: \"blocked.test\" (rejectedIdentifier)"),
        "{error}"
    );
}

#[test]
fn refused_nonces_cost_neither_a_certificate_nor_an_order() {
    let installation = Installation::with(|settings| settings.refused_nonces = 50);
    let names: Vec<_> = (0..6).map(|number| format!("n{number}.test")).collect();
    for name in &names {
        installation.environment.declare(&[name], "");
    }
    installation.environment.pass();
    for name in &names {
        assert_eq!(sans(&installation.environment, name), format!("DNS:{name}"));
    }
    assert_eq!(
        (installation.pebble.orders(), installation.pebble.accounts()),
        (names.len(), 1)
    );
}

#[test]
fn an_authority_that_is_down_costs_nothing_but_the_new_certificate() {
    let mut installation = Installation::new();
    installation.environment.declare(&["a.test"], "");
    installation.environment.pass();
    let before = installation.environment.pair("a.test");
    installation.pebble.stop();
    installation.environment.declare(&["a.test", "b.test"], "");
    installation.environment.failing_pass();
    assert_eq!(installation.environment.pair("a.test"), before);
    let ledger = installation.environment.ledger("a.test");
    assert!(ledger.issued.is_some());
    let error = ledger.failure.unwrap().error;
    assert!(
        error.contains(&format!("cannot reach {}", installation.pebble.directory())),
        "{error}"
    );
    assert!(error.contains("Connection refused"), "{error}");
}

#[test]
fn a_directory_that_is_a_web_page_is_said_and_tried_again_later() {
    let environment = Environment::new();
    let authority = Authority::new();
    let pair = authority.issue(&["127.0.0.1"]);
    let file = |name: &str, text: &str| {
        let path = environment.root().join(name);
        write_atomically(&path, text.as_bytes(), 0o600).unwrap();
        path
    };
    let (chain, key) = (file("chain.pem", &pair.chain), file("key.pem", &pair.key));
    let root = file("root.pem", &authority.root());
    let mut command = Command::new("openssl");
    command.args(["s_server", "-www", "-accept", "127.0.0.1:0", "-cert"]);
    let server = environment.start({
        command.arg(chain).arg("-key").arg(key);
        command
    });
    // It writes the port it got: "ACCEPT 127.0.0.1:40000".
    let line = server.wait_for_output("ACCEPT ");
    let address = line.trim().trim_start_matches("ACCEPT ").to_owned();
    environment.write_config(&format!(
        "[acme]\ndirectory = \"https://{address}/\"\naccept-terms = true\nca-file = {root:?}\n"
    ));
    environment.declare(&["a.test"], "");
    environment.failing_pass();
    let failure = environment.failure("a.test");
    assert!(
        failure.error.contains("is not what RFC 8555 asks for"),
        "{}",
        failure.error
    );
    assert!(failure.next_try > failure.last);
}

#[test]
fn an_account_the_authority_forgot_is_not_replaced_behind_the_operators_back() {
    let mut installation = Installation::new();
    installation.environment.declare(&["a.test"], "");
    installation.environment.pass();
    installation.pebble.stop();
    installation.pebble.start_again();
    installation.environment.declare(&["b.test"], "");
    installation.environment.failing_pass();
    let error = installation.environment.failure("b.test").error;
    let expected = format!(
        "remove {} to register a new one",
        installation.account_file().display()
    );
    assert!(error.contains(&expected), "{error}");

    fs::remove_file(installation.account_file()).unwrap();
    installation.environment.end_waiting("b.test");
    installation.environment.pass();
}

#[test]
fn an_account_that_was_shut_elsewhere_is_named_and_not_replaced() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    environment.pass();
    let file = installation.account_file();
    let before = fs::read(&file).unwrap();
    let finished = environment.run(Program::Certs, &["account", "deactivate"]);
    assert!(finished.status.success(), "{}", finished.stderr);
    // Whoever did it, our file does not know.
    write_atomically(&file, &before, 0o600).unwrap();

    environment.declare(&["b.test"], "");
    environment.failing_pass();
    let error = environment.failure("b.test").error;
    let expected = format!("remove {} to register a new one", file.display());
    assert!(
        error.contains(&expected) && error.contains("deactivated"),
        "{error}"
    );
    assert_eq!(fs::read(&file).unwrap(), before);

    fs::remove_file(&file).unwrap();
    environment.end_waiting("b.test");
    environment.pass();
}

#[test]
fn a_ledger_that_cannot_be_understood_is_set_aside_and_its_certificate_stays() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    environment.pass();
    let pair = environment.pair("a.test");
    let path = environment.certificate("a.test").ledger_file();
    let damaged = fs::read_to_string(&path).unwrap().replace("[issued]", "[isued]");
    write_atomically(&path, damaged.as_bytes(), 0o644).unwrap();
    let finished = environment.pass();
    assert!(finished.stderr.contains("isued"), "{}", finished.stderr);
    let aside = path.with_file_name("state.toml.broken");
    assert_eq!(fs::read_to_string(aside).unwrap(), damaged);
    assert_eq!(
        environment.issued("a.test").issuer,
        installation.pebble.directory()
    );
    assert_eq!(
        (environment.pair("a.test"), installation.made().orders),
        (pair, 1)
    );
}

#[test]
fn a_killed_pass_leaves_an_order_that_the_next_one_takes_up() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    installation.answering.hold();
    let killed = environment.spawn(Program::Certs, &[]);
    installation.answering.wait_for_requests();
    drop(killed);
    assert_eq!(installation.challenges(), 1);
    let pending = environment.pending_file("a.test", &installation.pebble.directory());
    assert_eq!(mode(&pending), 0o600);
    let kept = fs::read_to_string(&pending).unwrap();
    assert_eq!(
        environment.failure("a.test").error,
        "an attempt began and has not ended"
    );
    installation.answering.release();

    // Counted as a failure, so that a pass that dies each time does not order each time.
    environment.pass();
    assert_eq!(installation.challenges(), 0, "answers stay published");
    environment.end_waiting("a.test");
    environment.pass();
    let (_, key) = environment.pair("a.test");
    assert!(kept.contains(&key), "the key was made anew");
    assert_eq!(installation.pebble.orders(), 1);
    assert!(!pending.exists());
}

#[test]
fn a_stored_pair_that_does_not_match_is_set_aside_and_replaced() {
    let installation = Installation::new();
    let environment = &installation.environment;
    for host in ["a.test", "b.test"] {
        environment.declare(&[host], "");
    }
    environment.pass();
    let b_before = environment.pair("b.test");
    let wrong_key = b_before.1.as_bytes();
    write_atomically(&environment.certificate("a.test").key_file(), wrong_key, 0o640).unwrap();
    let finished = environment.pass();
    assert!(
        finished.stderr.contains("the key is not the certificate's"),
        "{}",
        finished.stderr
    );
    let names = entries(&environment.certificate("a.test"));
    assert_eq!(
        names,
        [
            "fullchain.pem",
            "fullchain.pem.broken",
            "key.pem",
            "key.pem.broken",
            "state.toml"
        ]
    );
    assert_ne!(environment.pair("a.test").1.as_bytes(), wrong_key);
    assert_eq!(environment.pair("b.test"), b_before);
    assert_eq!(installation.pebble.orders(), 3);
}

#[test]
fn what_cannot_be_read_is_told_and_left_alone_and_harms_no_other() {
    let environment = Environment::new();
    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    environment.declare(&["b.test"], "");
    environment.pass();
    let key = environment.certificate("b.test").key_file();
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    let stray = environment.paths().certificates_dir().join("a.test");
    write_atomically(&stray, b"a note", 0o644).unwrap();
    for host in ["a.test", "c.test"] {
        environment.declare(&[host], "");
    }
    environment.failing_pass();
    assert_eq!(sans(&environment, "c.test"), "DNS:c.test");
    assert_eq!(fs::read_to_string(&stray).unwrap(), "a note");
    assert!(key.is_dir());
    for (name, expected) in [
        (
            "a.test",
            format!("{} is not a directory; move it away", stray.display()),
        ),
        (
            "b.test",
            format!("failing: cannot read {}: it is not a regular file", key.display()),
        ),
    ] {
        for command in [&["why", name][..], &["certs"]] {
            let told = environment.run(Program::Cli, command).stdout;
            assert!(told.contains(&expected), "{command:?}: {told}");
        }
    }

    fs::remove_file(&stray).unwrap();
    fs::remove_dir(&key).unwrap();
    environment.pass();
    for name in ["a.test", "b.test"] {
        assert_eq!(environment.ledger(name).failure, None);
    }
}

#[test]
fn what_killed_passes_left_is_removed_once_it_is_old() {
    let environment = Environment::new();
    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    environment.declare(&["a.test"], "");
    environment.pass();
    let (paths, certificate) = (environment.paths(), environment.certificate("a.test"));
    let leave = |name: &str, age: Duration| {
        let directories = [
            certificate.path().to_owned(),
            paths.certificates_dir(),
            paths.account_dir(),
            paths.account_dir().join("internal"),
            paths.challenges_dir(),
        ];
        let changed = SystemTime::now() - age;
        directories.map(|directory| {
            let left = directory.join(name);
            let made = File::create(&left).and_then(|file| file.set_modified(changed));
            made.expect("a file can be left");
            left
        })
    };
    let old = leave(".new-OldOne", Duration::from_secs(2 * 60 * 60));
    let young = leave(".new-Young1", Duration::from_secs(60));
    environment.pass();
    for left in old {
        assert!(!left.exists(), "{}", left.display());
    }
    for left in young {
        assert!(left.exists(), "{}", left.display());
    }
}

#[test]
fn a_certificates_key_that_others_can_read_is_closed_and_that_is_said() {
    let environment = Environment::new();
    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    environment.declare(&["a.test"], "");
    environment.pass();
    let (pair, key) = (
        environment.pair("a.test"),
        environment.certificate("a.test").key_file(),
    );
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let expected = format!(
        "{} was open to others (mode 0644) and is not any more",
        key.display()
    );
    let told = environment.pass().stderr;
    assert!(told.contains(&expected), "{told}");
    assert_eq!((mode(&key), environment.pair("a.test")), (0o640, pair));
    assert!(!environment.pass().stderr.contains("was open to others"));
}

#[test]
fn an_account_key_that_others_can_read_is_refused_until_that_is_put_right() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    environment.pass();
    let account = installation.account_file();
    fs::set_permissions(&account, Permissions::from_mode(0o644)).unwrap();
    environment.declare(&["b.test"], "");
    let finished = environment.failing_pass();
    let expected = format!(
        "{} holds a key and can be read by others (mode 0644)",
        account.display()
    );
    assert!(finished.stderr.contains(&expected), "{}", finished.stderr);
    assert!(environment.failure("b.test").error.contains(&expected));

    // Nobody was asked, so there is nothing to wait for.
    fs::set_permissions(&account, Permissions::from_mode(0o600)).unwrap();
    environment.pass();
    assert_eq!(
        (installation.pebble.orders(), installation.pebble.accounts()),
        (2, 1)
    );
}

/// The files of the store are written on a file system of five pages: ledger, chain and key of the
/// present certificate, the count of orders, and room for one more file.
#[test]
fn a_full_disk_leaves_the_present_pair_and_the_order_is_not_lost() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    environment.pass();
    let before = environment.pair("a.test");
    environment.declare(&["a.test", "b.test"], "");
    let script = r#"
        set -eu
        cp -r "$STORE/a.test" "$OUT/present"
        mount -t tmpfs -o size=20k tmpfs "$STORE"
        cp -r "$OUT/present" "$STORE/a.test"
        "$0" "$@" && exit 9
        cp -r "$STORE/a.test" "$OUT/full"
        mount -o remount,size=1m "$STORE"
        sed -i 's/^next-try = .*/next-try = "2000-01-01T00:00:00Z"/' "$STORE/a.test/state.toml"
        "$0" "$@"
        cp -r "$STORE/a.test" "$OUT/room"
    "#;
    let out = environment.root().join("out");
    fs::create_dir(&out).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "/bin/sh", "-c", script])
        .arg(Program::Certs.path())
        .arg("--config-dir")
        .arg(&environment.paths().config)
        .arg("--state-dir")
        .arg(&environment.paths().state)
        .arg("--runtime-dir")
        .arg(&environment.paths().runtime)
        .env("STORE", environment.paths().certificates_dir())
        .env("OUT", &out);
    let finished = environment.start(command).finish();
    assert!(finished.status.success(), "{}", finished.stderr);

    let full = CertificateDir::new(out.join("full"));
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!((read(full.chain_file()), read(full.key_file())), before);
    assert_eq!(entries(&full), ["fullchain.pem", "key.pem", "state.toml"]);
    let ledger = read(full.ledger_file());
    assert!(ledger.contains("No space left on device"), "{ledger}");
    let room = CertificateDir::new(out.join("room"));
    assert_ne!(read(room.chain_file()), before.0);
    assert_eq!(
        installation.pebble.orders(),
        2,
        "the certificate was ordered again instead of fetched"
    );
}

#[test]
fn files_that_change_while_a_pass_runs_are_looked_at_before_it_ends() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    installation.answering.hold();
    let running = environment.spawn(Program::Certs, &[]);
    installation.answering.wait_for_requests();
    environment.declare(&["late.test"], "");
    installation.answering.release();
    let finished = running.finish();
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(sans(environment, "late.test"), "DNS:late.test");
}

#[test]
fn two_passes_at_once_order_once() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    installation.answering.hold();
    let first = environment.spawn(Program::Certs, &[]);
    installation.answering.wait_for_requests();
    let second = environment.spawn(Program::Certs, &[]);
    second.wait_for_log("another pass is under way");
    let told = environment.run(Program::Cli, &["certs"]);
    assert!(told.status.success(), "{}", told.stdout);
    let (begun, failing) = ("an attempt began", "failing");
    assert!(
        told.stdout.contains(begun) && !told.stdout.contains(failing),
        "{}",
        told.stdout
    );
    installation.answering.release();
    for finished in [first.finish(), second.finish()] {
        assert!(finished.status.success(), "{}", finished.stderr);
    }
    assert_eq!(installation.pebble.orders(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_names_than_the_authority_takes_are_split_and_the_proxy_finds_the_pair_of_each() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.write_config(&format!("{}max-names = 2\n", installation.pebble.settings()));
    let upstream = Upstream::saying("hello").await;
    let hosts = ["a.test", "b.test", "c.test", "d.test", "e.test"];
    environment.write_routes("five.toml", &route(&hosts, &[upstream.address()]));
    environment.pass();
    for (name, expected) in [
        ("a.test", "DNS:a.test, DNS:b.test"),
        ("c.test", "DNS:c.test, DNS:d.test"),
        ("e.test", "DNS:e.test"),
    ] {
        assert_eq!(sans(environment, name), expected);
    }
    environment.pass();
    assert_eq!(installation.pebble.orders(), 3);
    let proxy = Proxy::start(environment);
    let client = Client::trusting(installation.pebble.root());
    for host in hosts {
        let uri = format!("https://{host}/");
        assert_eq!(client.get(&proxy, &uri).await.status(), 200, "{uri}");
    }
    let checked = environment.run(Program::Cli, &["check"]);
    let note = "five.toml:1:1: the certificate named a.test would have 5 names, and its authority takes 2";
    assert!(
        checked.status.success() && checked.stderr.contains(note),
        "{}",
        checked.stderr
    );
}

#[test]
fn routes_that_say_the_same_subject_share_its_certificate() {
    let installation = Installation::new();
    let environment = &installation.environment;
    for host in ["a.test", "b.test"] {
        environment.declare(&[host], "subject = [\"b.test\", \"a.test\"]");
    }
    environment.pass();
    assert_eq!(sans(environment, "b.test"), "DNS:b.test, DNS:a.test");
    assert!(!environment.certificate("a.test").path().exists());
    assert_eq!(installation.pebble.orders(), 1);
    let told = environment.run(Program::Cli, &["why", "a.test"]).stdout;
    assert!(told.contains("✓ certificate valid until"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_answers_each_kind_of_challenge_and_serves_the_certificate() {
    let environment = Environment::new();
    let upstream = Upstream::saying("hello").await;
    for (host, challenge) in [("one.test", "http-01"), ("two.test", "tls-alpn-01")] {
        let route = route(&[host], &[upstream.address()]);
        let text = format!("{route}challenge = \"{challenge}\"\n");
        environment.write_routes(&format!("{host}.toml"), &text);
    }
    let proxy = Proxy::start(&environment);
    let mut settings = PebbleSettings::new(proxy.http());
    settings.tls_port = proxy.https().port();
    let pebble = Pebble::start(settings);
    environment.write_config(&pebble.settings());
    environment.pass();
    assert_eq!(
        count(&environment.paths().challenges_dir()),
        0,
        "answers stay published"
    );
    proxy.reload();
    let client = Client::trusting(pebble.root());
    for uri in ["https://one.test/", "https://two.test/"] {
        assert_eq!(client.get(&proxy, uri).await.status(), 200, "{uri}");
    }
}

#[test]
fn a_name_of_253_characters_gets_a_certificate_by_each_kind_of_challenge() {
    let environment = Environment::new();
    // The server that makes names up has no room in its answers for those.
    let named = Named::start(&[("bbbbb", "* A 127.0.0.1"), ("ccccc", "* A 127.0.0.1")], &[]);
    let long = |end: &str| format!("{}.{end}", ["a".repeat(61).as_str(); 4].join("."));
    let (proxy, _pebble) = start_validated(&environment, Some(named.address()));
    for (end, challenge) in [("bbbbb", "http-01"), ("ccccc", "tls-alpn-01")] {
        let route = route(&[&long(end)], &[proxy.http()]);
        let text = format!("{route}challenge = \"{challenge}\"\n");
        environment.write_routes(&format!("{end}.toml"), &text);
    }
    environment.pass();
    for end in ["bbbbb", "ccccc"] {
        assert_eq!(sans(&environment, &long(end)), format!("DNS:{}", long(end)));
    }
    assert_eq!(count(&environment.paths().account_dir().join("pending")), 0);
}

#[test]
fn a_name_in_several_certificates_is_shown_for_one_after_the_other_by_tls_alpn_01() {
    let environment = Environment::new();
    let (_proxy, pebble) = start_validated(&environment, None);
    let hosts = ["a.test", "b.test", "c.test", "d.test"];
    for host in hosts {
        let more = format!("subject = [\"{host}\", \"shared.test\"]\nchallenge = \"tls-alpn-01\"");
        environment.declare(&[host], &more);
    }
    environment.pass();
    for host in hosts {
        assert_eq!(sans(&environment, host), format!("DNS:{host}, DNS:shared.test"));
    }
    assert_eq!(pebble.orders(), 4);
}

/// A proxy, and a Pebble that validates there and takes a moment for it.
fn start_validated(environment: &Environment, dns: Option<SocketAddr>) -> (Proxy, Pebble) {
    let proxy = Proxy::start(environment);
    let mut settings = PebbleSettings::new(proxy.http());
    settings.tls_port = proxy.https().port();
    settings.slowest_validation = 1;
    settings.dns = dns;
    let pebble = Pebble::start(settings);
    environment.write_config(&pebble.settings());
    (proxy, pebble)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kind_of_challenge_is_the_routes_or_else_the_configured_one() {
    let environment = Environment::new();
    let proxy = Proxy::start(&environment);
    let nobody = SocketAddr::new(proxy.http().ip(), 1);
    let mut settings = PebbleSettings::new(nobody);
    settings.tls_port = proxy.https().port();
    let pebble = Pebble::start(settings);
    environment.write_config(&format!("{}challenge = \"tls-alpn-01\"\n", pebble.settings()));
    environment.declare(&["a.test", "b.test"], "");
    environment.declare(&["c.test"], "challenge = \"http-01\"");
    environment.failing_pass();
    assert_eq!(sans(&environment, "a.test"), "DNS:a.test, DNS:b.test");
    let error = environment.failure("c.test").error;
    assert!(
        error.contains("http://c.test:1/.well-known/acme-challenge/"),
        "{error}"
    );
}

#[test]
fn the_internal_authority_signs_what_openssl_believes() {
    let environment = Environment::new();
    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    environment.declare(&["app.localhost", "*.app.localhost"], "");
    environment.declare(&["*.wild.test"], "");
    environment.pass();
    let root = environment.paths().internal_ca_file();
    verify(&environment, "app.localhost", "app.localhost", &root);
    verify(&environment, "app.localhost", "x.app.localhost", &root);
    verify(&environment, "*.wild.test", "y.wild.test", &root);
    assert_eq!(mode(&root), 0o644);
    let key = environment.paths().account_dir().join("internal/key.pem");
    assert_eq!((mode(&key), mode(key.parent().unwrap())), (0o600, 0o700));
    let before = environment.pair("app.localhost");
    environment.pass();
    assert_eq!(environment.pair("app.localhost"), before);
    assert_eq!(
        environment.ledger("app.localhost").issued.unwrap().issuer,
        "internal"
    );

    // Without its key the authority is another one, and signs everything anew.
    fs::remove_file(&key).unwrap();
    environment.pass();
    verify(&environment, "app.localhost", "app.localhost", &root);
}

#[test]
fn what_acme_needs_from_the_operator_is_said_and_done_without_waiting() {
    let environment = Environment::new();
    environment.declare(&["a.test"], "");
    environment.declare(&["*.b.test"], "");
    environment.declare(&["fine.test"], "provider = \"internal\"");
    environment.declare(&["off.test"], "provider = \"off\"");
    environment.failing_pass();
    let error = environment.failure("a.test").error;
    let config_file = environment.paths().config_file();
    let expected = format!(
        "write \"accept-terms = true\" under [acme] in {}",
        config_file.display()
    );
    assert!(error.contains(&expected), "{error}");
    let error = environment.failure("*.b.test").error;
    assert!(
        error.contains("wildcards need DNS-01: say under [acme.dns]"),
        "{error}"
    );
    assert_eq!(sans(&environment, "fine.test"), "DNS:fine.test");
    assert!(!environment.certificate("off.test").path().exists());
    let before = environment.failure("a.test");
    environment.failing_pass();
    assert_eq!(environment.failure("a.test"), before);

    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    environment.pass();
    assert_eq!(environment.ledger("*.b.test").failure, None);
}

#[test]
fn faulty_settings_are_no_reason_to_change_a_certificate_and_faulty_routes_none_to_stop() {
    let environment = Environment::new();
    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    environment.declare(&["a.test"], "");
    environment.pass();
    let before = environment.pair("a.test");
    let ledger_before = environment.ledger("a.test");

    environment.write_config("[certificates]\nprovider = \"internel\"\n");
    let finished = environment.failing_pass();
    let expected = format!("{}:2:", environment.paths().config_file().display());
    assert!(finished.stderr.contains(&expected), "{}", finished.stderr);
    assert_eq!(
        (environment.pair("a.test"), environment.ledger("a.test")),
        (before, ledger_before)
    );

    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    environment.write_routes("bad.toml", "[[route]]\nhosts = []\n");
    environment.declare(&["b.test"], "");
    environment.pass();
    assert_eq!(sans(&environment, "b.test"), "DNS:b.test");
}

#[test]
fn a_certificate_put_there_by_hand_stays_until_it_is_due() {
    let environment = Environment::new();
    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    let authority = Authority::new();
    environment.store("a.test", &authority.issue(&["a.test"]));
    environment.store("old.test", &authority.issue_until(&["old.test"], 2024));
    environment.declare(&["a.test"], "");
    environment.declare(&["old.test"], "");
    let (present, old) = (environment.pair("a.test"), environment.pair("old.test"));
    for _ in 0..3 {
        environment.pass();
        assert_eq!(environment.pair("a.test"), present);
    }
    assert_eq!(environment.issued("a.test").issuer, "by hand");
    assert_ne!(environment.pair("old.test"), old);
    assert_eq!(environment.issued("old.test").issuer, "internal");
}

#[test]
fn a_certificate_that_no_route_needs_is_archived_after_a_month_and_not_while_a_file_is_wrong() {
    let environment = Environment::new();
    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    for host in ["gone.test", "stays.test"] {
        environment.declare(&[host], "");
    }
    environment.pass();
    let before = environment.pair("gone.test");
    fs::remove_file(environment.paths().routes_dir().join("gone.test.toml")).unwrap();
    environment.pass();
    assert!(environment.ledger("gone.test").unused_since.is_some());
    assert_eq!(environment.ledger("stays.test").unused_since, None);

    environment.change_ledger("gone.test", |ledger| {
        ledger.unused_since = Some(Timestamp::now() - SignedDuration::from_hours(31 * 24));
    });
    environment.write_routes("wrong.toml", "[[route]]\nhosts = [\"gone.test\"\n");
    environment.pass();
    assert_eq!(environment.pair("gone.test"), before);

    fs::remove_file(environment.paths().routes_dir().join("wrong.toml")).unwrap();
    environment.pass();
    assert!(!environment.certificate("gone.test").path().exists());
    let archived: Vec<_> = fs::read_dir(environment.paths().archive_dir()).unwrap().collect();
    let [Ok(place)] = archived.as_slice() else {
        panic!("{archived:?}");
    };
    let place = CertificateDir::new(place.path());
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!((read(place.chain_file()), read(place.key_file())), before);

    environment.declare(&["gone.test"], "");
    environment.pass();
    assert_ne!(environment.pair("gone.test"), before);
}
