//! Websockets and other upgrades: a tunnel once the upstream agrees.

use base64::prelude::{BASE64_STANDARD, Engine};
use fairlead_tests::{Client, Proxy, Site, Upstream, Wire, accept, body, get, within};
use http::{Request, StatusCode};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::net::{TcpListener, TcpStream};

const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_over_http_1_speaks_both_ways() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let (mut client, mut upstream, head) = open_over_h1(&site, &proxy, &listener).await;
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{head}");
    let lower = head.to_ascii_lowercase();
    for field in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
    ] {
        assert!(
            lower.contains(&format!("\r\n{field}\r\n")),
            "{field} is not in {head}"
        );
    }
    assert!(head.contains("dGhlIHNhbXBsZSBub25jZQ=="), "{head}");
    converse(&mut client, &mut upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_over_http_2_speaks_both_ways() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let (mut client, mut upstream, head) = open_over_h2(&site.client(), &proxy, &listener).await;
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{head}");
    let lower = head.to_ascii_lowercase();
    for field in [
        "connection: upgrade",
        "upgrade: websocket",
        "host: a.test",
        "sec-websocket-version: 13",
    ] {
        assert!(
            lower.contains(&format!("\r\n{field}\r\n")),
            "{field} is not in {head}"
        );
    }
    let key = lower
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-key: "))
        .unwrap_or_default();
    assert_eq!(
        key.len(),
        24,
        "HTTP/1.1 demands a key of 16 bytes in base64 (RFC 6455 4.1): {head}"
    );
    converse(&mut client, &mut upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_says_right_behind_its_head_is_not_lost() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let client = site.client();
    let exchange = upgrade_over_h1(&client, &proxy);
    let answering = async {
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        upstream.write(format!("{}early", switching(ACCEPT))).await;
        upstream
    };
    let (mut client, _upstream) = tokio::join!(exchange, answering);
    client.read_until("early").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_one_side_reaches_the_other() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let (client, mut upstream, _) = open_over_h1(&site, &proxy, &listener).await;
    drop(client);
    assert_eq!(upstream.read_rest().await, "");
    let (mut client, upstream, _) = open_over_h1(&site, &proxy, &listener).await;
    drop(upstream);
    assert_eq!(client.read_rest().await, "");
    let (client, mut upstream, _) = open_over_h2(&site.client(), &proxy, &listener).await;
    drop(client);
    assert_eq!(upstream.read_rest().await, "");
}

/// It was us who asked for it in HTTP/1.1, and who has to fail then (RFC 6455 4.1).
#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_a_switch_that_does_not_answer_the_key_is_a_bad_gateway() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let mut sender = warmed_up(&site.client(), &proxy, &listener).await;
    let (response, ()) = tokio::join!(within(sender.send_request(extended_connect())), async {
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        upstream.write(switching(ACCEPT)).await;
    });
    assert_eq!(response.unwrap().status(), StatusCode::BAD_GATEWAY);
}

/// In HTTP/2 the reset could overtake what was said before.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_words_of_an_upstream_that_breaks_off_reach_the_client() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let (mut client, mut upstream, _) = open_over_h2(&site.client(), &proxy, &listener).await;
    upstream.write("last words").await;
    upstream.into_inner().set_zero_linger().unwrap();
    client.read_until("last words").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_may_refuse_to_upgrade() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let client = site.client();
    let refuse = async || {
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        upstream
            .write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            .await;
    };
    let mut h1 = client.h1(&proxy, "a.test").await;
    let (response, ()) = tokio::join!(client.send(&mut h1, websocket()), refuse());
    assert_eq!(response.status(), 403);
    assert_eq!(body::read(response.into_body()).await.0, "no");
    let mut h2 = client.h2(&proxy, "a.test").await;
    let (response, ()) = tokio::join!(h2.send_request(extended_connect()), refuse());
    let response = response.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(body::read(response.into_body()).await.0, "no");
}

/// An upstream that switches without having been asked speaks another protocol than the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_nobody_asked_for_is_a_bad_gateway() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let client = site.client();
    let answering = async {
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        upstream.write(switching(ACCEPT)).await;
    };
    let (response, ()) = tokio::join!(client.get(&proxy, "https://a.test/"), answering);
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
}

/// RFC 9110 7.8: a server switches to one of those that it was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_to_another_protocol_than_was_asked_for_is_a_bad_gateway() {
    let (listener, site) = site().await;
    let (proxy, client) = (site.start(), site.client());
    for (wished, chosen, status) in [
        ("one", "two", 502),
        ("one", "one, two", 502),
        ("one, Two", "two", 101),
        ("one, two", "one,two", 101),
    ] {
        let connected = client.connect(proxy.https(), "a.test", &["http/1.1"]).await;
        let mut client = Wire::new(connected.unwrap());
        client
            .write(format!(
                "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: {wished}\r\n\r\n"
            ))
            .await;
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        upstream
            .write(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {chosen}\r\n\r\n"
            ))
            .await;
        let answer = client.read_head().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{wished}: {answer}"
        );
    }
}

/// What is left of the request would be taken for the first words of the tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_in_the_middle_of_a_request_is_a_bad_gateway() {
    let (listener, site) = site().await;
    let (proxy, client) = (site.start(), site.client());
    let stream = client
        .connect(proxy.https(), "a.test", &["http/1.1"])
        .await
        .unwrap();
    let mut wire = Wire::new(stream);
    wire.write(
        "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 9\r\n\r\npart",
    )
    .await;
    let mut upstream = accept(&listener).await;
    upstream.read_until("part").await;
    upstream.write(switching(ACCEPT)).await;
    let answer = wire.read_head().await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

/// The body would turn into the first words of the tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_has_a_body_is_not_heard() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let client = site.client();
    let connected = client.connect(proxy.https(), "a.test", &["http/1.1"]).await;
    let mut client = Wire::new(connected.unwrap());
    client
        .write("POST / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    let mut upstream = accept(&listener).await;
    let head = upstream.read_until("\r\n\r\nabc").await.to_lowercase();
    assert!(!head.contains("upgrade"), "{head}");
    upstream.write("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 204 "));
}

/// To an extended CONNECT any success would mean that the tunnel is there (RFC 8441 5).
#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_a_success_without_a_switch_is_a_bad_gateway() {
    let site = Site::of("a.test", Upstream::saying("a page").await.address());
    let proxy = site.start();
    let mut h2 = site.client().h2(&proxy, "a.test").await;
    let allowed = h2.send_request(get("https://a.test/")).await.unwrap();
    assert_eq!(allowed.status(), 200);
    let response = within(h2.send_request(extended_connect())).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
}

/// Through a tunnel of HTTP would come requests that nobody has looked at.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_tunnel_for_http() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    let client = site.client();
    for protocol in ["h2c", "websocket, H2C", "HTTP/2.0"] {
        let request = Request::get("https://a.test/")
            .header("connection", "Upgrade, HTTP2-Settings")
            .header("upgrade", protocol)
            .header("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA")
            .body(body::empty());
        let mut h1 = client.h1(&proxy, "a.test").await;
        let response = client.send(&mut h1, request.unwrap()).await;
        assert_eq!(response.status(), 200);
        let seen = body::read(response.into_body()).await.0.to_ascii_lowercase();
        assert!(
            !seen.contains("upgrade") && !seen.contains("http2-settings"),
            "{seen}"
        );
    }
    let mut h2 = client.h2(&proxy, "a.test").await;
    let allowed = h2.send_request(get("https://a.test/")).await.unwrap();
    assert_eq!(allowed.status(), 200);
    let mut request = extended_connect();
    request.extensions_mut().insert(Protocol::from_static("h2c"));
    let response = within(h2.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
}

async fn site() -> (TcpListener, Site) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    (listener, site)
}

type Tunnel = Wire<TokioIo<Upgraded>>;

async fn open_over_h1(
    site: &Site,
    proxy: &Proxy,
    listener: &TcpListener,
) -> (Tunnel, Wire<TcpStream>, String) {
    let client = site.client();
    let (tunnel, (upstream, head)) = tokio::join!(upgrade_over_h1(&client, proxy), switch(listener));
    (tunnel, upstream, head)
}

async fn upgrade_over_h1(client: &Client, proxy: &Proxy) -> Tunnel {
    let mut sender = client.h1(proxy, "a.test").await;
    let response = client.send(&mut sender, websocket()).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-accept"], ACCEPT);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    let upgraded = within(hyper::upgrade::on(response))
        .await
        .expect("the connection is handed over");
    Wire::new(TokioIo::new(upgraded))
}

async fn warmed_up(
    client: &Client,
    proxy: &Proxy,
    listener: &TcpListener,
) -> SendRequest<fairlead_tests::Body> {
    let mut sender = client.h2(proxy, "a.test").await;
    // The server's settings allow the extension; they have surely arrived with the first response.
    let (warm_up, ()) = tokio::join!(sender.send_request(get("https://a.test/")), async {
        let mut upstream = accept(listener).await;
        upstream.read_head().await;
        upstream
            .write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
    });
    assert_eq!(warm_up.unwrap().status(), 200);
    sender
}

async fn open_over_h2(
    client: &Client,
    proxy: &Proxy,
    listener: &TcpListener,
) -> (Tunnel, Wire<TcpStream>, String) {
    let mut sender = warmed_up(client, proxy, listener).await;
    let (response, (upstream, head)) =
        tokio::join!(within(sender.send_request(extended_connect())), switch(listener));
    let response = response.expect("there is a response");
    assert_eq!(response.status(), StatusCode::OK, "RFC 8441 5.1");
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    assert!(
        !response.headers().contains_key("sec-websocket-accept"),
        "{:?}",
        response.headers()
    );
    let upgraded = within(hyper::upgrade::on(response))
        .await
        .expect("the stream is handed over");
    (Wire::new(TokioIo::new(upgraded)), upstream, head)
}

fn switching(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

/// What answers the key in the head of a request (RFC 6455 4.2.2).
fn acceptance(head: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let (_, key) = key.expect("HTTP/1.1 demands a key (RFC 6455 4.1)");
    BASE64_STANDARD.encode(Sha1::digest(format!("{key}{GUID}")))
}

async fn switch(listener: &TcpListener) -> (Wire<TcpStream>, String) {
    let mut upstream = accept(listener).await;
    let head = upstream.read_head().await;
    upstream.write(switching(&acceptance(&head))).await;
    (upstream, head)
}

async fn converse(client: &mut Tunnel, upstream: &mut Wire<TcpStream>) {
    for _ in 0..2 {
        client.write("ping").await;
        upstream.read_until("ping").await;
        upstream.write("pong").await;
        client.read_until("pong").await;
    }
}

fn websocket() -> Request<fairlead_tests::Body> {
    Request::get("https://a.test/chat?room=1")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(body::empty())
        .unwrap()
}

fn extended_connect() -> Request<fairlead_tests::Body> {
    Request::connect("https://a.test/chat?room=1")
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .body(body::empty())
        .unwrap()
}
