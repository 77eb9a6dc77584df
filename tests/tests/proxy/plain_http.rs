//! Port 80: challenges and redirects, never content.

use std::fs;

use fairlead_contract::write_atomically;
use fairlead_tests::{Proxy, Site, Upstream, Wire, route};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_redirected_with_path_and_query() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let port = proxy.https().port();
    for (line, host) in [
        ("GET /x%20y//z?q=1&r=%2F HTTP/1.1", "a.test"),
        ("POST /x%20y//z?q=1&r=%2F HTTP/1.1", "A.Test:80"),
        ("GET http://a.test/x%20y//z?q=1&r=%2F HTTP/1.1", "a.test"),
    ] {
        let answer = ask(
            &proxy,
            &format!("{line}\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
        let location = format!("location: https://a.test:{port}/x%20y//z?q=1&r=%2F\r\n");
        assert!(
            answer
                .to_ascii_lowercase()
                .contains(&location.to_ascii_lowercase()),
            "{answer}"
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_takes_several_requests_and_head_brings_no_body() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let mut wire = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
    for _ in 0..2 {
        wire.write("HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert!(wire.read_head().await.starts_with("HTTP/1.1 308 "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeclared_host_gets_nothing() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    for host in ["b.test", "127.0.0.1", "[::1]:80"] {
        let answer = ask(&proxy, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{host}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_s_hosts_are_redirected_too() {
    let site = Site::of("*.w.test", Upstream::saying("a").await.address());
    let answer = ask(&site.start(), "GET / HTTP/1.1\r\nHost: x.w.test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_one_valid_host_is_bad() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test/evil\r\n\r\n",
    ] {
        let answer = ask(&proxy, request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
    }
}

/// The authority asks for a name that may have no route yet, right after the file was written.
#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_answered_as_soon_as_its_file_is_there() {
    // Whatever else is asked of b.test is sent to HTTPS.
    let site = Site::of("b.test", Upstream::saying("b").await.address());
    let proxy = site.start();
    let file = site.environment.paths().challenges_dir().join("Token-_1");
    for host in ["a.test", "A.tEsT", "b.test"] {
        let request = challenge("Token-_1").replace("a.test", host);
        let ask = async || ask(&proxy, &request).await;
        assert!(ask().await.starts_with("HTTP/1.1 404 "), "{host}");
        write_atomically(&file, b"Token-_1.thumbprint", 0o644).unwrap();
        for _ in 0..2 {
            let answer = ask().await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
            assert!(
                answer.ends_with("\r\n\r\nToken-_1.thumbprint"),
                "{host}: {answer}"
            );
        }
        fs::remove_file(&file).unwrap();
        assert!(ask().await.starts_with("HTTP/1.1 404 "), "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_cannot_name_a_file_elsewhere() {
    let site = Site::of("b.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let runtime = &site.environment.paths().runtime;
    for directory in [runtime.clone(), site.environment.paths().challenges_dir()] {
        write_atomically(&directory.join("private.txt"), b"private", 0o644).unwrap();
    }
    let absolute = format!("%2F{}", runtime.join("private.txt").display());
    for token in [
        "../private.txt",
        "..%2Fprivate.txt",
        "%2e%2e/private.txt",
        "..\\private.txt",
        "private.txt",
        "",
        ".",
        "..",
        &absolute,
    ] {
        let answer = ask(&proxy, &challenge(token)).await;
        assert!(
            !answer.contains("private\r\n") && !answer.ends_with("private"),
            "{token}: {answer}"
        );
        assert!(
            answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 400 "),
            "{token}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_finish_its_request_is_dropped() {
    let site = Site::new();
    site.environment
        .write_routes("a.toml", &route(&["a.test"], &["127.0.0.1:1".parse().unwrap()]));
    site.environment
        .write_config("[proxy]\nheader-timeout = \"500ms\"\n");
    let proxy = site.start();
    for sent in ["", "GET / HTTP/1.1\r\nHost: a.test\r\n"] {
        let mut wire = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
        wire.write(sent).await;
        wire.read_rest().await;
    }
}

fn challenge(token: &str) -> String {
    format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

async fn ask(proxy: &Proxy, request: &str) -> String {
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let mut wire = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
    wire.write(request).await;
    wire.read_rest().await
}
