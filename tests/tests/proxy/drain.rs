//! The end: exchanges finish, nobody is refused, and there is a limit.

use std::time::Duration;

use fairlead_tests::{Client, Proxy, Signal, Site, Upstream, Wire, accept, body, get, request_on, within};
use http::Response;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::frames::{self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, frame, head, read_frame};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_exchange_is_finished() {
    for (version, signal) in [
        ("http/1.1", Signal::TERM),
        ("h2", Signal::TERM),
        ("h2", Signal::INT),
    ] {
        let (listener, site) = site("30s").await;
        let proxy = site.start();
        let (mut response, mut upstream) = start_download(&site.client(), &proxy, &listener, version).await;
        proxy.running().signal(signal);
        proxy.running().wait_for_notification("STOPPING=1");
        give_time_to_end().await;
        upstream.write("rest").await;
        assert_eq!(
            body::next_data(response.body_mut()).await.unwrap(),
            "rest",
            "{version}"
        );
        assert_eq!(body::next_data(response.body_mut()).await, None);
        let (finished, _) = proxy.finish();
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_the_end() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    site.environment
        .write_config("[proxy]\ndrain-timeout = \"1h\"\nheader-timeout = \"1h\"\n");
    let proxy = site.start();
    let client = site.client();
    let mut h1 = client.h1(&proxy, "a.test").await;
    client.send(&mut h1, get("https://a.test/")).await;
    let mut h2 = client.h2(&proxy, "a.test").await;
    within(h2.send_request(get("https://a.test/"))).await.unwrap();
    proxy.terminate();
    assert_eq!(proxy.finish().0.status.code(), Some(0));
}

/// Others wait behind the sockets for the successor meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_do_not_hold_up_the_end() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    site.environment
        .write_config("[proxy]\ndrain-timeout = \"1h\"\nheader-timeout = \"1h\"\n");
    let proxy = site.start();
    let connect = async |address| TcpStream::connect(address).await.unwrap();
    let _plain = connect(proxy.http()).await;
    let _before_the_handshake = connect(proxy.https()).await;
    let shake = async |alpn| {
        site.client()
            .connect(proxy.https(), "a.test", &[alpn])
            .await
            .unwrap()
    };
    let _before_the_request = shake("http/1.1").await;
    let _before_the_preface = shake("h2").await;
    proxy.terminate();
    assert_eq!(proxy.finish().0.status.code(), Some(0));
}

/// So that it asks elsewhere next time (RFC 9113 6.8).
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http2_is_told_that_the_connection_ends() {
    let (listener, site) = site("30s").await;
    let proxy = site.start();
    let (mut client, mut upstream) = ask_by_frames(&site, &proxy, &listener).await;
    proxy.terminate();
    while read_frame(&mut client).await.unwrap().0 != GOAWAY {}
    upstream
        .write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    while read_frame(&mut client).await.unwrap().0 != HEADERS {}
}

/// One that is asleep, and has asked before.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http2_that_answers_no_ping_does_not_hold_up_the_end() {
    let (listener, site) = site("1h").await;
    let proxy = site.start();
    let (mut client, mut upstream) = ask_by_frames(&site, &proxy, &listener).await;
    upstream
        .write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    while read_frame(&mut client).await.unwrap().0 != HEADERS {}
    proxy.terminate();
    assert_eq!(proxy.finish().0.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_an_exchange_too() {
    let (listener, site) = site("30s").await;
    let proxy = site.start();
    let stream = site
        .client()
        .connect(proxy.https(), "a.test", &["http/1.1"])
        .await
        .unwrap();
    let mut client = Wire::new(stream);
    client
        .write("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    client.read_head().await;
    proxy.terminate();
    proxy.running().wait_for_notification("STOPPING=1");
    give_time_to_end().await;
    client.write("ping").await;
    upstream.read_until("ping").await;
    upstream.write("pong").await;
    client.read_until("pong").await;
    drop(client);
    assert_eq!(proxy.finish().0.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_without_end_is_cut_at_the_limit() {
    let (listener, site) = site("300ms").await;
    let proxy = site.start();
    let (response, _upstream) = start_download(&site.client(), &proxy, &listener, "h2").await;
    proxy.terminate();
    assert_eq!(proxy.finish().0.status.code(), Some(0));
    let rest = within(http_body_util::BodyExt::collect(response.into_body())).await;
    assert!(rest.is_err(), "the client took half a download for a whole one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let (listener, site) = site("1h").await;
        let proxy = site.start();
        let (_response, _upstream) = start_download(&site.client(), &proxy, &listener, "http/1.1").await;
        proxy.terminate();
        proxy.running().wait_for_notification("STOPPING=1");
        proxy.running().signal(second);
        proxy.finish();
    }
}

/// To a client that has connected but not asked yet, the end of the proxy would be a refusal: it has
/// no reason to believe that it may try again. (HTTP/2 tells its clients that they may, RFC 9113 6.8.)
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_connected_may_still_ask_once() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let client = site.client();
    let early = TcpStream::connect(proxy.https()).await.unwrap();
    let shaken = client
        .connect(proxy.https(), "a.test", &["http/1.1"])
        .await
        .unwrap();
    proxy.terminate();
    proxy.running().wait_for_notification("STOPPING=1");
    let late = client.connect_on(early, "a.test", &["http/1.1"]).await.unwrap();
    for stream in [shaken, late] {
        let response = request_on(stream, get("https://a.test/")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["connection"], "close");
        assert_eq!(body::read(response.into_body()).await.0, "a");
    }
    assert_eq!(proxy.finish().0.status.code(), Some(0));
}

/// The service manager keeps the sockets: who connects between two proxies waits and is served.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_between_two_proxies() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let mut proxy = site.start();
    for _ in 0..5 {
        proxy.terminate();
        proxy.running().wait_for_notification("STOPPING=1");
        let address = proxy.https();
        let client = site.client();
        let waiting = tokio::spawn(async move { client.connect(address, "a.test", &["h2"]).await });
        let (finished, sockets) = proxy.finish();
        assert!(finished.status.success());
        proxy = Proxy::start_on(&site.environment, sockets);
        let handshake = within(waiting).await.unwrap();
        assert!(handshake.is_ok(), "{handshake:?}");
    }
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
}

/// A proxy that did not wait for its exchanges would be gone by then.
#[expect(clippy::disallowed_methods, reason = "that nothing happens has no event")]
async fn give_time_to_end() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// A client that has asked, and an upstream that has heard it.
async fn ask_by_frames(
    site: &Site,
    proxy: &Proxy,
    listener: &TcpListener,
) -> (TlsStream<TcpStream>, Wire<TcpStream>) {
    let mut client = frames::connect(site, proxy).await;
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET"));
    client.write_all(&request).await.unwrap();
    let mut upstream = accept(listener).await;
    upstream.read_head().await;
    (client, upstream)
}

async fn site(drain_timeout: &str) -> (TcpListener, Site) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    site.environment
        .write_config(&format!("[proxy]\ndrain-timeout = \"{drain_timeout}\"\n"));
    (listener, site)
}

/// A download of eight bytes, half of which have arrived.
pub(crate) async fn start_download(
    client: &Client,
    proxy: &Proxy,
    listener: &TcpListener,
    version: &str,
) -> (Response<Incoming>, Wire<TcpStream>) {
    let stream = client.connect(proxy.https(), "a.test", &[version]).await.unwrap();
    let exchange = request_on(stream, get("https://a.test/"));
    let (mut response, upstream) = tokio::join!(exchange, async {
        let mut upstream = accept(listener).await;
        upstream.read_head().await;
        upstream
            .write("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npart")
            .await;
        upstream
    });
    assert_eq!(body::next_data(response.body_mut()).await.unwrap(), "part");
    (response, upstream)
}
