//! What the settings say about keys, profiles, chains and accounts is what an authority is asked for.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use fairlead_tests::{AcmePeer, AcmeScript, Client, Environment, Proxy, Upstream, route};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

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

fn trusting(root: &Path) -> Client {
    let root = CertificateDer::from_pem_file(root).expect("the root is PEM");
    let mut roots = RootCertStore::empty();
    roots.add(root).expect("the root is a certificate");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has these versions");
    Client::new(tls.with_root_certificates(roots).with_no_client_auth())
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
    let client = trusting(&environment.paths().internal_ca_file());
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
