//! Which route answers: by Host, never by SNI, and only where the certificate covers it.

use fairlead_tests::{Proxy, Site, Upstream, Wire, body, get, route, within};
use http::Request;

#[tokio::test(flavor = "multi_thread")]
async fn the_host_decides_and_not_the_sni() {
    let site = Site::new();
    site.environment.write_routes(
        "a.toml",
        &route(&["a.test"], &[Upstream::saying("a").await.address()]),
    );
    site.environment.write_routes(
        "b.toml",
        &route(&["b.test"], &[Upstream::saying("b").await.address()]),
    );
    site.certify(&["a.test", "b.test"]);
    let proxy = site.start();
    let client = site.client();
    let mut h1 = client.h1(&proxy, "a.test").await;
    assert_eq!(
        body::read(client.send(&mut h1, get("https://b.test/")).await.into_body())
            .await
            .0,
        "b"
    );
    assert_eq!(
        body::read(client.send(&mut h1, get("https://a.test/")).await.into_body())
            .await
            .0,
        "a"
    );
    let mut h2 = client.h2(&proxy, "a.test").await;
    let response = within(h2.send_request(get("https://b.test/"))).await.unwrap();
    assert_eq!(body::read(response.into_body()).await.0, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_the_certificate_does_not_cover_is_misdirected() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    site.serve(&["b.test"], &[upstream.address()]);
    let proxy = site.start();
    let client = site.client();
    // One host is declared, the others are not: nobody learns which.
    for host in ["b.test", "c.test", "127.0.0.1", "[::1]"] {
        let uri = format!("https://{host}/");
        let mut h1 = client.h1(&proxy, "a.test").await;
        assert_eq!(
            body::read_response(client.send(&mut h1, get(&uri)).await)
                .await
                .status(),
            421
        );
        let again = client.send(&mut h1, get("https://a.test/")).await;
        assert_eq!(
            again.status(),
            200,
            "the connection is still good for its own host"
        );
        let mut h2 = client.h2(&proxy, "a.test").await;
        assert_eq!(within(h2.send_request(get(&uri))).await.unwrap().status(), 421);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_covered_host_without_a_route_is_not_found() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    site.certify(&["a.test", "b.test"]);
    let proxy = site.start();
    let client = site.client();
    let mut h1 = client.h1(&proxy, "a.test").await;
    assert_eq!(client.send(&mut h1, get("https://b.test/")).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_host_comes_before_a_wildcard() {
    let site = Site::new();
    let wild = route(&["*.w.test"], &[Upstream::saying("wild").await.address()]);
    let exact = route(&["x.w.test"], &[Upstream::saying("exact").await.address()]);
    site.environment.write_routes("1.toml", &wild);
    site.environment.write_routes("2.toml", &exact);
    site.certify(&["*.w.test"]);
    let proxy = site.start();
    assert_eq!(
        site.client().get(&proxy, "https://x.w.test/").await.body(),
        "exact"
    );
    assert_eq!(
        site.client().get(&proxy, "https://y.w.test/").await.body(),
        "wild"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_beside_the_primary_are_redirected_to_it() {
    let site = Site::new();
    let upstream = Upstream::saying("primary").await;
    site.serve_with(
        &["www.a.test", "a.test"],
        &[upstream.address()],
        "redirect-to-primary = true\n",
    );
    let proxy = site.start();
    let response = site.client().get(&proxy, "https://a.test/x%20y/?q=1&r=%2F").await;
    assert_eq!(response.status(), 308);
    let expected = format!("https://www.a.test:{}/x%20y/?q=1&r=%2F", proxy.https().port());
    assert_eq!(response.headers()["location"], expected);
    assert_eq!(
        site.client().get(&proxy, "https://www.a.test/").await.body(),
        "primary"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_may_carry_a_port_a_dot_and_capitals() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    for host in ["a.test:443", "a.test:8443", "a.test:", "A.Test", "a.test."] {
        let answer = ask(&site, &proxy, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_one_valid_host_is_bad() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test:port\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test:65536\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a..test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \u{e4}.test\r\n\r\n",
        "GET https://user@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET https://a.test/ HTTP/1.1\r\n\r\n",
    ] {
        let answer = ask(&site, &proxy, request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_form_that_agrees_is_forwarded_in_origin_form() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let answer = ask(
        &site,
        &site.start(),
        "GET https://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n",
    )
    .await;
    assert!(answer.contains("\r\n\r\nGET /x?y HTTP/1.1\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_request_with_two_opinions_of_its_host_is_bad() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let mut h2 = site.client().h2(&proxy, "a.test").await;
    let agreeing = Request::get("https://a.test/")
        .header("host", "a.test")
        .body(body::empty())
        .unwrap();
    assert_eq!(within(h2.send_request(agreeing)).await.unwrap().status(), 200);
    let torn = Request::get("https://a.test/")
        .header("host", "b.test")
        .body(body::empty())
        .unwrap();
    assert_eq!(within(h2.send_request(torn)).await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_tunnel_by_connect() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let answer = ask(
        &site,
        &proxy,
        "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"),
        "{answer}"
    );
    let mut h2 = site.client().h2(&proxy, "a.test").await;
    let request = Request::connect("a.test:443").body(body::empty()).unwrap();
    let refused = within(h2.send_request(request)).await;
    assert!(refused.is_err() || refused.is_ok_and(|response| !response.status().is_success()));
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_s_route_serves_beside_the_operator_s() {
    let site = Site::of("a.test", Upstream::saying("operator").await.address());
    let contested = route(
        &["a.test", "b.test"],
        &[Upstream::saying("container").await.address()],
    );
    site.environment.write_discovery(&contested);
    site.certify(&["b.test"]);
    let proxy = site.start();
    assert_eq!(
        site.client().get(&proxy, "https://a.test/").await.body(),
        "operator"
    );
    assert_eq!(
        site.client().get(&proxy, "https://b.test/").await.body(),
        "container"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_reaches_the_upstream_as_it_was_written() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    for path in ["/", "/%2e%2e/x", "/a//b/./../c", "/?", "/?a=b&a=%26", "/;p=1"] {
        let answer = ask(
            &site,
            &proxy,
            &format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        )
        .await;
        assert!(
            answer.contains(&format!("\r\n\r\nGET {path} HTTP/1.1\n")),
            "{path}: {answer}"
        );
    }
}

/// One request over HTTP/1.1, byte by byte, and everything that comes back until the proxy closes.
async fn ask(site: &Site, proxy: &Proxy, request: &str) -> String {
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let stream = site
        .client()
        .connect(proxy.https(), "a.test", &["http/1.1"])
        .await
        .unwrap();
    let mut wire = Wire::new(stream);
    wire.write(request).await;
    wire.read_rest().await
}
