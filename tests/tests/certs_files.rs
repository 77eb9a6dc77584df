//! Pairs that another program keeps are taken as they are, or not at all.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use fairlead_contract::write_atomically;
use fairlead_tests::{Authority, Environment, Pair, Program, Site, Upstream};

/// The files that the other program writes.
struct Kept {
    chain: PathBuf,
    key: PathBuf,
}

impl Kept {
    fn new(environment: &Environment, pair: &Pair) -> Self {
        let kept = Self {
            chain: environment.root().join("other-chain.pem"),
            key: environment.root().join("other-key.pem"),
        };
        kept.write(pair);
        kept
    }

    fn write(&self, pair: &Pair) {
        write_atomically(&self.chain, pair.chain.as_bytes(), 0o644).expect("a file can be written");
        write_atomically(&self.key, pair.key.as_bytes(), 0o640).expect("a file can be written");
    }

    fn provider(&self) -> String {
        format!(
            "provider = {{ fullchain = {:?}, key = {:?} }}\n",
            self.chain, self.key
        )
    }
}

fn both(pair: &Pair) -> (String, String) {
    (pair.chain.clone(), pair.key.clone())
}

fn failure(environment: &Environment) -> String {
    let failure = environment.ledger("a.test").failure;
    failure.expect("a failure is remembered").error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_taken_again_when_it_changes_and_only_then() {
    let site = Site::new();
    let environment = &site.environment;
    let upstream = Upstream::saying("hello").await;
    let first = site.authority.issue_until(&["a.test", "*.a.test"], 2080);
    let kept = Kept::new(environment, &first);
    let text = fairlead_tests::route(&["a.test", "x.a.test"], &[upstream.address()]) + &kept.provider();
    environment.write_routes("a.toml", &text);
    environment.pass();
    assert_eq!(environment.pair("a.test"), both(&first));
    let issued = environment.issued("a.test");
    assert_eq!(issued.issuer, kept.chain.display().to_string());
    assert_eq!(issued.due, issued.not_after);
    let proxy = site.start();
    let client = site.client();
    assert_eq!(client.get(&proxy, "https://x.a.test/").await.status(), 200);

    let inode = || {
        fs::metadata(environment.certificate("a.test").key_file())
            .unwrap()
            .ino()
    };
    let before = inode();
    environment.pass();
    assert_eq!((inode(), environment.issued("a.test")), (before, issued));
    let second = site.authority.issue(&["a.test", "*.a.test"]);
    kept.write(&second);
    environment.pass();
    assert_eq!(environment.pair("a.test"), both(&second));
    proxy.reload();
    assert_eq!(client.get(&proxy, "https://a.test/").await.status(), 200);
}

#[test]
fn what_cannot_be_taken_leaves_the_pair_before_and_is_made_by_nobody_else() {
    let environment = Environment::new();
    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    let authority = Authority::new();
    let good = authority.issue(&["a.test", "b.test"]);
    let kept = Kept::new(&environment, &good);
    environment.declare(&["a.test", "b.test"], &kept.provider());
    environment.pass();

    let half = Pair {
        chain: authority.issue(&["a.test", "b.test"]).chain,
        ..good.clone()
    };
    for (pair, expected) in [
        (
            &half,
            "other-chain.pem and its key are no pair: the key is not the certificate's",
        ),
        (
            &authority.issue(&["a.test"]),
            "other-chain.pem is for a.test and not for b.test",
        ),
    ] {
        kept.write(pair);
        environment.failing_pass();
        assert!(
            failure(&environment).contains(expected),
            "{}",
            failure(&environment)
        );
        assert_eq!(environment.pair("a.test"), both(&good));
    }
    fs::remove_file(&kept.key).unwrap();
    environment.failing_pass();
    let expected = "fairlead-certs must be able to read it: cannot read";
    assert!(
        failure(&environment).contains(expected),
        "{}",
        failure(&environment)
    );
    assert_eq!(environment.pair("a.test"), both(&good));

    // Nobody was asked, so there is nothing to wait for.
    kept.write(&good);
    environment.pass();
    assert_eq!(environment.ledger("a.test").failure, None);
}

#[test]
fn a_pair_can_be_two_credentials_of_the_service() {
    let environment = Environment::new();
    let pair = Authority::new().issue(&["a.test"]);
    Kept::new(&environment, &pair);
    let provider = "provider = { fullchain = \"other-chain.pem\", key = \"other-key.pem\" }\n";
    environment.declare(&["a.test"], provider);
    environment.failing_pass();
    let expected = "give fairlead-certs.service a LoadCredential= of that name";
    assert!(
        failure(&environment).contains(expected),
        "{}",
        failure(&environment)
    );
    let mut command = environment.command(Program::Certs);
    command.env("CREDENTIALS_DIRECTORY", environment.root());
    let finished = environment.start(command).finish();
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(environment.pair("a.test"), both(&pair));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_taken_in_every_form_that_programs_write_and_the_proxy_reads_them() {
    for form in [
        "openssl ecparam -name prime256v1 -genkey -out other-key.pem",
        "openssl genrsa -traditional -out other-key.pem 2048",
        "openssl genpkey -algorithm ed25519 -out other-key.pem",
    ] {
        let environment = Environment::new();
        let script = format!(
            "{form} && openssl req -x509 -key other-key.pem -subj /CN=x -addext subjectAltName=DNS:a.test -days 9 \
             -out other-chain.pem"
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]).current_dir(environment.root());
        let output = command.output().expect("cannot run openssl: install openssl");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let kept = Kept {
            chain: environment.root().join("other-chain.pem"),
            key: environment.root().join("other-key.pem"),
        };
        environment.declare(&["a.test"], &kept.provider());
        environment.pass();
        let status = fairlead_tests::Proxy::start(&environment).status();
        assert_eq!(status.loaded.certificates, 1, "{form}: {:?}", status.loaded.notes);
    }
}

#[test]
fn a_key_that_everybody_can_read_is_not_taken_until_that_is_put_right() {
    let environment = Environment::new();
    let authority = Authority::new();
    let first = authority.issue(&["a.test"]);
    let kept = Kept::new(&environment, &first);
    environment.declare(&["a.test"], &kept.provider());
    environment.pass();

    let second = authority.issue(&["a.test"]);
    kept.write(&second);
    let open_to = |mode| fs::set_permissions(&kept.key, Permissions::from_mode(mode)).unwrap();
    open_to(0o644);
    environment.failing_pass();
    let expected = format!(
        "{} holds a key and is open to everybody (mode 0644)",
        kept.key.display()
    );
    let error = failure(&environment);
    assert!(error.contains(&expected), "{error}");
    assert_eq!(environment.pair("a.test"), both(&first));
    open_to(0o640);
    environment.pass();
    assert_eq!(environment.pair("a.test"), both(&second));
}
