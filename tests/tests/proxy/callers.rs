//! Who is believed about the client, and what routes change in headers.

use fairlead_tests::{Proxy, Site, Upstream, Wire, body, get, route};
use http::Request;
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
