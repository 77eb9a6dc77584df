//! Which headers pass, which are removed, which are set.

use std::collections::BTreeMap;

use fairlead_tests::{Body, Site, Upstream, Wire, accept, body, get, within};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_learns_who_asked_for_what_and_how() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let seen = echoed(&site, get("https://a.test/")).await;
    assert_eq!(seen["host"], ["a.test"]);
    assert_eq!(seen["x-forwarded-for"], ["127.0.0.1"]);
    assert_eq!(seen["x-forwarded-host"], ["a.test"]);
    assert_eq!(seen["x-forwarded-proto"], ["https"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_forge_where_it_comes_from() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let mut request = get("https://a.test/");
    for name in FORGED {
        request.headers_mut().append(name, "6.6.6.6".parse().unwrap());
        request.headers_mut().append(name, "7.7.7.7".parse().unwrap());
    }
    let seen = echoed(&site, request).await;
    let shown = format!("{seen:?}");
    assert!(
        !shown.contains("6.6.6.6") && !shown.contains("7.7.7.7"),
        "{shown}"
    );
    assert_eq!(seen["x-forwarded-for"], ["127.0.0.1"]);
}

const FORGED: [&str; 12] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
    "true-client-ip",
    "forwarded",
    "x-forwarded-user",
    // Programs behind CGI cannot tell them from those above.
    "x_forwarded_for",
    "X-Real_IP",
    "X_Forwarded-Email",
    // They would take it for the proxy that they are to use themselves.
    "proxy",
];

#[tokio::test(flavor = "multi_thread")]
async fn other_headers_pass_in_order_and_number() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let mut request = get("https://a.test/");
    for value in ["1", "2", "\"3, 4\""] {
        request.headers_mut().append("x-many", value.parse().unwrap());
    }
    request
        .headers_mut()
        .append("cookie", "a=1; b=2".parse().unwrap());
    request
        .headers_mut()
        .append("authorization", "Bearer x".parse().unwrap());
    let seen = echoed(&site, request).await;
    assert_eq!(seen["x-many"], ["1", "2", "\"3, 4\""]);
    assert_eq!(seen["cookie"], ["a=1; b=2"]);
    assert_eq!(seen["authorization"], ["Bearer x"]);
}

/// HTTP/2 clients may send one cookie per field; HTTP/1.1 allows one Cookie field (RFC 9113 8.2.3).
#[tokio::test(flavor = "multi_thread")]
async fn cookies_split_by_http_2_are_joined() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    let mut request = get("https://a.test/");
    for cookie in ["a=1", "b=2"] {
        request.headers_mut().append("cookie", cookie.parse().unwrap());
    }
    let response = within(site.client().h2(&proxy, "a.test").await.send_request(request))
        .await
        .unwrap();
    assert_eq!(
        fields(&body::read(response.into_body()).await.0)["cookie"],
        ["a=1; b=2"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_one_connection_does_not_reach_the_upstream() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let mut request = get("https://a.test/");
    for (name, value) in [
        ("connection", "X-Hop, keep-alive"),
        ("connection", "x-other-hop"),
        ("x-hop", "1"),
        ("x-other-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic eDp5"),
        ("te", "trailers, gzip"),
        ("x-stays", "1"),
    ] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let seen = echoed(&site, request).await;
    for name in [
        "x-hop",
        "x-other-hop",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
    ] {
        assert!(!seen.contains_key(name), "{name} in {seen:?}");
    }
    assert!(!format!("{:?}", seen.get("te")).contains("gzip"), "{seen:?}");
    assert_eq!(seen["x-stays"], ["1"]);
}

/// A client that calls Host or the forwarding headers its own connection's affair removes them for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn connection_cannot_name_away_what_the_proxy_sets() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let mut request = get("https://a.test/");
    let named = "host, x-forwarded-for, x-forwarded-host, x-forwarded-proto";
    request.headers_mut().append("connection", named.parse().unwrap());
    let seen = echoed(&site, request).await;
    assert_eq!(seen["host"], ["a.test"]);
    assert_eq!(seen["x-forwarded-for"], ["127.0.0.1"]);
    assert_eq!(seen["x-forwarded-proto"], ["https"]);
}

/// As a gateway must (RFC 9110 7.6.3).
#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_learns_which_way_a_request_came() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    let client = site.client();
    let request = || {
        let request = Request::get("https://a.test/").header("via", "1.0 first");
        request.body(body::empty()).unwrap()
    };
    let response = client
        .send(&mut client.h1(&proxy, "a.test").await, request())
        .await;
    assert!(
        !response.headers().contains_key("via"),
        "{:?}",
        response.headers()
    );
    let seen = fields(&body::read(response.into_body()).await.0);
    assert_eq!(seen["via"], ["1.0 first", "1.1 fairlead"]);
    let mut h2 = client.h2(&proxy, "a.test").await;
    let response = within(h2.send_request(request())).await.unwrap();
    let seen = fields(&body::read(response.into_body()).await.0);
    assert_eq!(seen["via"], ["1.0 first", "2 fairlead"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_no_further_than_it_may() {
    let upstream = Upstream::echoing().await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let ask = async |method: &str, hops: &str| {
        let request = Request::builder().method(method).uri("https://a.test/");
        let request = request.header("max-forwards", hops).body(body::empty());
        site.client().fetch(&proxy, request.unwrap()).await
    };
    assert_eq!(ask("OPTIONS", "0").await.status(), 200);
    assert_eq!(ask("TRACE", "0").await.status(), 501);
    assert_eq!(upstream.connections(), 0);
    for (hops, left) in [("3", "2"), ("99999999999", "4294967294"), ("+3", "+3")] {
        let echo = ask("OPTIONS", hops).await;
        assert_eq!(fields(echo.body())["max-forwards"], [left]);
    }
    assert_eq!(fields(ask("GET", "0").await.body())["max-forwards"], ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_one_connection_does_not_reach_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    let proxy = site.start();
    let answering = tokio::spawn(async move {
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut wire = accept(&listener).await;
            wire.read_head().await;
            wire.write(
                "HTTP/1.1 200 OK\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                 Proxy-Connection: close\r\nX-Stays: 1\r\nContent-Length: 2\r\n\r\nok",
            )
            .await;
            open.push(wire);
        }
    });
    let client = site.client();
    let over_h1 = client.get(&proxy, "https://a.test/").await;
    let over_h2 = within(
        client
            .h2(&proxy, "a.test")
            .await
            .send_request(get("https://a.test/")),
    )
    .await
    .unwrap();
    within(answering).await.unwrap();
    for headers in [over_h1.headers(), over_h2.headers()] {
        for name in ["x-hop", "keep-alive", "proxy-connection"] {
            assert!(!headers.contains_key(name), "{name} in {headers:?}");
        }
        let named = headers
            .get("connection")
            .map(|value| value.to_str().unwrap().to_lowercase());
        assert!(!named.is_some_and(|named| named.contains("x-hop")), "{headers:?}");
        assert_eq!(headers["x-stays"], "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_edits_its_responses_in_order() {
    let upstream = Upstream::start(|_| async {
        let response = Response::builder()
            .header("server", "upstream/1.0")
            .header("x-default", "upstream's")
            .header("x-replaced", "1")
            .header("x-replaced", "2");
        response.body(body::full("ok")).unwrap()
    })
    .await;
    let site = Site::new();
    site.serve_with(&["a.test"], &[upstream.address()], EDITS);
    let proxy = site.start();
    let response = site.client().get(&proxy, "https://a.test/").await;
    assert_edited(response.headers());
    assert!(
        !response.headers().contains_key("server"),
        "{:?}",
        response.headers()
    );
    assert_eq!(values(response.headers(), "x-default"), ["upstream's"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_edits_the_proxy_s_own_pages_too() {
    let site = Site::new();
    site.serve_with(
        &["a.test", "b.test"],
        &[super::dead_end().await],
        &format!("redirect-to-primary = true\n{EDITS}"),
    );
    let proxy = site.start();
    for (uri, status) in [("https://a.test/", 502), ("https://b.test/", 308)] {
        let response = site.client().get(&proxy, uri).await;
        assert_eq!(response.status(), status);
        assert_edited(response.headers());
        assert_eq!(values(response.headers(), "x-default"), ["route's"]);
    }
}

const EDITS: &str = r#"response-headers = [
    { delete = "Server" },
    { replace = "X-Replaced", value = "3" },
    { add = "X-Replaced", value = "4" },
    { default = "X-Default", value = "route's" },
    { replace = "Strict-Transport-Security", value = "max-age=31536000" },
]
"#;

fn assert_edited(headers: &HeaderMap) {
    assert_eq!(values(headers, "x-replaced"), ["3", "4"]);
    assert_eq!(values(headers, "strict-transport-security"), ["max-age=31536000"]);
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

/// The header fields an echoing upstream saw, by lower-cased name.
async fn echoed(site: &Site, request: Request<Body>) -> BTreeMap<String, Vec<String>> {
    fields(site.client().fetch(&site.start(), request).await.body())
}

fn fields(echo: &str) -> BTreeMap<String, Vec<String>> {
    let mut fields = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in echo.lines().filter_map(|line| line.split_once(": ")) {
        fields
            .entry(name.to_ascii_lowercase())
            .or_default()
            .push(value.to_owned());
    }
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_s_own_rules_on_headers_are_enforced() {
    let upstream = Upstream::echoing().await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let stream = site
        .client()
        .connect(proxy.https(), "a.test", &["h2"])
        .await
        .unwrap();
    let mut wire = Wire::new(stream);
    // The preface, empty settings, and a HEADERS frame with `transfer-encoding: chunked` (RFC 9113 8.2.2).
    let mut block = vec![0x82, 0x87, 0x84, 0x41, 6];
    block.extend_from_slice(b"a.test");
    block.extend_from_slice(&[0x0f, 0x2a, 7]);
    block.extend_from_slice(b"chunked");
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    request.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    request.extend_from_slice(&block);
    // Asks for an answer to this ping, and with it for everything before.
    request.extend_from_slice(b"\0\0\x08\x06\0\0\0\0\0lastping");
    wire.write(request).await;
    wire.read_until("lastping").await;
    assert_eq!(upstream.connections(), 0);
}
