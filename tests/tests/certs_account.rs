//! What is done by hand with an account and with certificates, against a real Pebble.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use fairlead_contract::write_atomically;
use fairlead_tests::{Environment, Finished, Installation, Made, Program};

fn certs(environment: &Environment, arguments: &[&str]) -> Finished {
    environment.run(Program::Certs, arguments)
}

/// Runs a command that must succeed, and returns what it says.
fn done(environment: &Environment, arguments: &[&str]) -> String {
    let finished = certs(environment, arguments);
    assert!(finished.status.success(), "{}", finished.stderr);
    finished.stdout
}

/// Runs a command that must fail, and returns why it did.
fn refused(environment: &Environment, arguments: &[&str]) -> String {
    let finished = certs(environment, arguments);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stdout);
    finished.stderr
}

fn serial(chain: &Path) -> String {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-serial", "-in"])
        .arg(chain)
        .output()
        .expect("cannot run openssl: install openssl");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.trim_start_matches("serial=").to_owned()
}

#[test]
fn an_account_goes_on_with_another_key() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    environment.pass();
    let before = fs::read_to_string(installation.account_file()).unwrap();
    let said = done(environment, &["account", "roll-over"]);
    assert!(said.contains("has a new key"), "{said}");
    let after = fs::read_to_string(installation.account_file()).unwrap();
    let key = |text: &str| text.split_once("-----BEGIN").unwrap().1.to_owned();
    assert_ne!(key(&after), key(&before));
    let mode = fs::metadata(installation.account_file())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    environment.declare(&["b.test"], "");
    environment.pass();
    let made = Made {
        accounts: 1,
        orders: 2,
    };
    assert_eq!(installation.made(), made);

    // The old key is worth nothing.
    write_atomically(&installation.account_file(), before.as_bytes(), 0o600).unwrap();
    environment.declare(&["c.test"], "");
    environment.failing_pass();
}

#[test]
fn nothing_is_ordered_for_an_account_that_was_given_up() {
    let installation = Installation::new();
    let environment = &installation.environment;
    assert!(refused(environment, &["account", "deactivate"]).contains("there is no account at"));
    environment.declare(&["a.test"], "");
    environment.pass();
    let file = installation.account_file().display().to_string();
    let said = done(environment, &["account", "deactivate"]);
    assert!(said.contains("is deactivated") && said.contains(&file), "{said}");

    environment.declare(&["b.test"], "");
    environment.failing_pass();
    let error = environment.failure("b.test").error;
    let expected = format!("the account was deactivated: remove {file} to register a new one");
    assert!(error.contains(&expected), "{error}");
    for command in ["deactivate", "roll-over"] {
        let error = refused(environment, &["account", command]);
        assert!(error.contains(&expected), "{error}");
    }
    assert_eq!(
        installation.made(),
        Made {
            accounts: 1,
            orders: 1
        }
    );

    // Nobody was asked, so there is nothing to wait for.
    fs::remove_file(installation.account_file()).unwrap();
    environment.pass();
    assert_eq!(
        installation.made(),
        Made {
            accounts: 2,
            orders: 2
        }
    );
}

#[test]
fn a_revoked_certificate_is_replaced_by_the_next_pass_and_revoking_it_again_is_no_fault() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&["a.test"], "");
    environment.pass();
    let before = environment.pair("a.test");
    let serial = serial(&environment.certificate("a.test").chain_file());
    assert_eq!(installation.pebble.status_of(&serial), "Valid");
    for _ in 0..2 {
        let said = done(environment, &["revoke", "a.test", "--reason", "key-compromise"]);
        assert!(said.contains("is revoked"), "{said}");
        assert_eq!(installation.pebble.status_of(&serial), "Revoked");
    }
    assert_eq!(
        environment.pair("a.test"),
        before,
        "it serves until there is another"
    );
    let told = environment.run(Program::Cli, &["certs"]).stdout;
    assert!(told.contains("revoked"), "{told}");

    let passed = environment.pass();
    assert!(
        passed.stderr.contains("because it was revoked"),
        "{}",
        passed.stderr
    );
    let (chain, key) = environment.pair("a.test");
    assert!(chain != before.0 && key != before.1);
    environment.pass();
    assert_eq!(
        installation.made(),
        Made {
            accounts: 1,
            orders: 2
        }
    );
}

#[test]
fn without_an_account_a_certificate_is_revoked_by_its_own_key() {
    let installation = Installation::new();
    let environment = &installation.environment;
    let kinds = ["p256", "p384", "rsa2048"];
    for kind in kinds {
        environment.declare(&[&format!("{kind}.test")], &format!("key-type = \"{kind}\""));
    }
    environment.pass();
    fs::remove_file(installation.account_file()).unwrap();
    for kind in kinds {
        let name = format!("{kind}.test");
        let serial = serial(&environment.certificate(&name).chain_file());
        done(environment, &["revoke", &name]);
        assert_eq!(installation.pebble.status_of(&serial), "Revoked", "{kind}");
    }
    assert_eq!(installation.made().accounts, 1);
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_changes() {
    let installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&["a.test"], "provider = \"internal\"");
    environment.pass();
    for (arguments, expected) in [
        (&["revoke", "a.test"][..], "it is from internal"),
        (
            &["revoke", "b.test"],
            "no certificate is known by the name b.test",
        ),
        (
            &["account", "roll-over", "--authority", "other"],
            "there is no [authority.other]",
        ),
        (&["account", "roll-over"], "there is no account at https://"),
    ] {
        let error = refused(environment, arguments);
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(environment.issued("a.test").revoked, None);

    chown(environment.paths().account_dir(), Some(65534), None).unwrap();
    let error = refused(environment, &["account", "roll-over"]);
    assert!(error.contains("run this as the user that has"), "{error}");
}
