//! Who is believed about the client, and what routes change in headers.

use fairlead_tests::{Proxy, Site, Upstream, Wire, body, get, request_on, route};
use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed_and_the_chain_goes_on() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    site.environment
        .write_config("[proxy]\ntrusted-proxies = [\"127.0.0.0/8\", \"fd00::/8\"]\n");
    let proxy = site.start();
    let request = Request::get("https://a.test/")
        .header("x-forwarded-for", "198.51.100.1")
        .header("x-forwarded-host", "outer.test")
        .header("x-forwarded-proto", "https")
        .header("x-real-ip", "198.51.100.1")
        .body(body::empty())
        .unwrap();
    let echo = site.client().fetch(&proxy, request).await.into_body();
    for line in [
        "x-forwarded-for: 198.51.100.1, 127.0.0.1\n",
        "x-forwarded-host: outer.test\n",
        "x-forwarded-proto: https\n",
        "x-real-ip: 198.51.100.1\n",
    ] {
        assert!(echo.contains(line), "{line}{echo}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_tell_of_the_client_in_the_words_of_rfc_7239() {
    let site = Site::new();
    let upstream = Upstream::echoing().await;
    site.serve_with(&["a.test"], &[upstream.address()], "forwarded = true\n");
    let proxy = site.start();
    let ask = async || {
        let request = Request::get("https://a.test/").header("forwarded", "for=198.51.100.1");
        let request = request.body(body::empty()).unwrap();
        let echo = site.client().fetch(&proxy, request).await.into_body();
        let fields = echo.lines().filter_map(|line| line.strip_prefix("forwarded: "));
        fields.map(str::to_owned).collect::<Vec<_>>()
    };
    let own = "for=127.0.0.1;host=\"a.test\";proto=https";
    assert_eq!(ask().await, [own]);
    site.environment
        .write_config("[proxy]\ntrusted-proxies = [\"127.0.0.1\"]\n");
    proxy.reload();
    assert_eq!(ask().await, ["for=198.51.100.1", own]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trusted_proxy_took_over_https_is_not_redirected() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let outcome = async |proxy: &Proxy| ask(proxy, "X-Forwarded-Proto: https\r\n").await[..13].to_owned();
    let proxy = site.start();
    assert_eq!(outcome(&proxy).await, "HTTP/1.1 308 ");
    site.environment
        .write_config("[proxy]\ntrusted-proxies = [\"127.0.0.1\"]\n");
    proxy.reload();
    assert_eq!(outcome(&proxy).await, "HTTP/1.1 200 ");
    assert!(ask(&proxy, "").await.starts_with("HTTP/1.1 308 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_edited_last_and_the_host_may_be_replaced() {
    let upstream = Upstream::echoing().await;
    let site = Site::new();
    let edits = "request-headers = [{ replace = \"Host\", value = \"inner.test\" }, { delete = \"X-Forwarded-For\" }, \
                 { default = \"X-A\", value = \"new\" }, { add = \"X-B\", value = \"2\" }]\n";
    site.serve_with(&["a.test"], &[upstream.address()], edits);
    let proxy = site.start();
    let request = Request::get("https://a.test/")
        .header("x-a", "old")
        .header("x-b", "1")
        .body(body::empty())
        .unwrap();
    let echo = site.client().fetch(&proxy, request).await.into_body();
    for line in [
        "host: inner.test\n",
        "x-forwarded-host: a.test\n",
        "x-a: old\n",
        "x-b: 1\n",
        "x-b: 2\n",
    ] {
        assert!(echo.contains(line), "{line}{echo}");
    }
    assert!(!echo.contains("x-forwarded-for"), "{echo}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hsts_stands_on_every_answer_over_https_and_on_none_without() {
    let site = Site::new();
    site.certify(&["a.test"]);
    let hsts = "hsts = \"max-age=60; includeSubDomains\"\n";
    let dead = super::dead_end().await;
    let routes = [
        route(&["a.test"], &[Upstream::saying("a").await.address()]) + hsts + "https-only = false\n",
        route(&["a.test"], &[dead]) + hsts + "path = \"/dead\"\n",
        format!("[[route]]\nhosts = [\"a.test\"]\nredirect = \"/\"\npath = \"/moved\"\n{hsts}"),
    ];
    site.environment.write_routes("a.toml", &routes.concat());
    let proxy = site.start();
    for (path, status) in [("/", 200), ("/dead", 502), ("/moved", 308)] {
        let response = site
            .client()
            .fetch(&proxy, get(&format!("https://a.test{path}")))
            .await;
        assert_eq!(response.status(), status);
        assert_eq!(
            response.headers()["strict-transport-security"],
            "max-age=60; includeSubDomains"
        );
    }
    let plain = ask(&proxy, "").await;
    assert!(
        plain.starts_with("HTTP/1.1 200 ") && !plain.contains("strict-transport"),
        "{plain}"
    );
}

/// One request for `/` over plain HTTP.
async fn ask(proxy: &Proxy, field: &str) -> String {
    let mut wire = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
    wire.write(format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\n{field}Connection: close\r\n\r\n"
    ))
    .await;
    wire.read_rest().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_says_who_the_client_is() {
    let site = Site::new();
    let upstream = Upstream::echoing().await;
    site.serve_with(&["a.test"], &[upstream.address()], "https-only = false\n");
    site.environment
        .write_config("[proxy]\nproxy-protocol = [\"127.0.0.1\"]\n");
    let proxy = site.start();
    let version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x1f\x90\0\x50";
    for (header, client) in [
        (&b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n"[..], "192.0.2.7"),
        (version_2, "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        let mut tcp = TcpStream::connect(proxy.https()).await.unwrap();
        tcp.write_all(header).await.unwrap();
        let tls = site.client().connect_on(tcp, "a.test", &["h2"]).await.unwrap();
        let response = request_on(tls, get("https://a.test/")).await;
        let echo = body::read(response.into_body()).await.0;
        assert!(echo.contains(&format!("x-forwarded-for: {client}\n")), "{echo}");
        let mut wire = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
        wire.write(header).await;
        wire.write("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
            .await;
        let echo = wire.read_rest().await;
        assert!(echo.contains(&format!("x-forwarded-for: {client}\n")), "{echo}");
    }
    assert_eq!(ask(&proxy, "").await, "", "who says nothing is not answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_can_say_who_they_are() {
    let site = Site::new();
    let upstream = Upstream::echoing().await;
    site.serve_with(&["a.test"], &[upstream.address()], "https-only = false\n");
    site.environment
        .write_config("[proxy]\nproxy-protocol = [\"10.0.0.0/8\"]\n");
    let proxy = site.start();
    let mut wire = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
    wire.offer("PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await;
    assert!(wire.read_rest().await.starts_with("HTTP/1.1 400 "));
    assert!(ask(&proxy, "").await.contains("x-forwarded-for: 127.0.0.1\n"));
}
