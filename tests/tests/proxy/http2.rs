//! What HTTP/2 has of its own.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use fairlead_tests::{Proxy, Site, Upstream, accept, body, get, request_on, within};
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use http::header::ETAG;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::frames::{
    self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS, frame, head, read_frame,
};

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_reach_the_client_while_it_waits() {
    let (listener, _site, proxy, mut client) = connected().await;
    let request = Request::get("https://a.test/").body(()).unwrap();
    let (mut answer, _) = client.send_request(request, true).unwrap();
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    for link in ["</1.css>", "</2.css>"] {
        upstream
            .write(format!(
                "HTTP/1.1 103 Early Hints\r\nLink: {link}\r\nConnection: x-own\r\nX-Own: a\r\n\r\n"
            ))
            .await;
        let hints = next_interim(&mut answer).await;
        assert_eq!(hints.status(), StatusCode::EARLY_HINTS);
        assert_eq!(hints.headers().len(), 1);
        assert_eq!(hints.headers()["link"], link);
    }
    upstream
        .write("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
        .await;
    assert_eq!(next_interim(&mut answer).await.status(), StatusCode::PROCESSING);
    assert_eq!(within(answer).await.unwrap().status(), StatusCode::NO_CONTENT);
    drop(proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_decides_whether_an_upload_may_start() {
    let (listener, _site, _proxy, mut client) = connected().await;
    let request = Request::put("https://a.test/").header("expect", "100-continue");
    let (mut answer, mut upload) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let mut upstream = accept(&listener).await;
    upstream.read_until("expect: 100-continue\r\n").await;
    upstream.write("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(next_interim(&mut answer).await.status(), StatusCode::CONTINUE);
    upload.send_data(Bytes::from_static(b"body"), true).unwrap();
    upstream.read_until("body").await;
    upstream.write("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within(answer).await.unwrap().status(), StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_a_malformed_field_behind_it_is_seen_to_break_off() {
    let (listener, _site, _proxy, mut client) = connected().await;
    let request = Request::post("https://a.test/").body(()).unwrap();
    let (answer, mut upload) = client.send_request(request, false).unwrap();
    upload.send_data(Bytes::from_static(b"part"), false).unwrap();
    let mut upstream = accept(&listener).await;
    upstream.read_until("part").await;
    upload
        .send_trailers(HeaderMap::from_iter([(ETAG, HeaderValue::from_static(" a"))]))
        .unwrap();
    let rest = upstream.read_rest().await;
    assert!(!rest.contains("0\r\n"), "{rest:?}");
    let refusal = within(answer).await.unwrap_err();
    assert_eq!(refusal.reason(), Some(Reason::PROTOCOL_ERROR));
}

/// It would find a question where it looks for the answer to its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_just_come_is_not_asked_whether_it_is_there() {
    let (_listener, site, proxy, _client) = connected().await;
    let mut client = frames::connect(&site, &proxy).await;
    let mut settings = 0;
    loop {
        match read_frame(&mut client).await.unwrap() {
            (SETTINGS, ..) => settings += 1,
            (PING, _, payload) => {
                assert_eq!(payload, b"question");
                return;
            }
            _ => continue,
        }
        // Its own, and that it has taken ours.
        if settings == 2 {
            client.write_all(&frame(PING, 0, 0, b"question")).await.unwrap();
        }
    }
}

/// RFC 9113 6.8: it may send its request anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_nothing_hears_why_the_connection_ends() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    site.environment
        .write_config("[proxy]\nheader-timeout = \"1s\"\n");
    let proxy = site.start();
    let mut client = frames::connect(&site, &proxy).await;
    let mut said = Vec::new();
    while let Some((kind, ..)) = read_frame(&mut client).await {
        said.push(kind);
    }
    assert!(said.contains(&GOAWAY), "{said:?}");
}

/// As a client of gRPC sends its messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_come_in_many_small_parts() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    let mut client = frames::connect(&site, &proxy).await;
    let head = frame(HEADERS, END_HEADERS, 1, &head("POST"));
    let parts = frame(DATA, 0, 1, b"part,").repeat(12_000);
    let end = frame(DATA, END_STREAM, 1, &[]);
    client.write_all(&[head, parts, end].concat()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(&b"part,".repeat(12_000)) {
        match read_frame(&mut client).await.unwrap() {
            (DATA, _, payload) => answer.extend(payload),
            (kind, ..) => assert_ne!(kind, GOAWAY),
        }
    }
}

/// Else a half upload would be stored as a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cancelled_is_seen_to_break_off() {
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
        let (listener, _site, _proxy, mut client) = connected().await;
        let request = Request::post("https://a.test/").body(()).unwrap();
        let (_answer, mut upload) = client.send_request(request, false).unwrap();
        upload.send_data(Bytes::from_static(b"part"), false).unwrap();
        let mut upstream = accept(&listener).await;
        upstream.read_until("part").await;
        upload.send_reset(reason);
        let rest = upstream.read_rest().await;
        assert!(
            !rest.contains("0\r\n"),
            "{reason:?}: the upload ended as if it were whole: {rest:?}"
        );
    }
}

/// Else a half download would be kept as a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_an_upstream_cancels_is_seen_to_break_off() {
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
        for version in ["http/1.1", "h2"] {
            let (upstream, give_up) = cancelling(reason).await;
            let site = Site::new();
            site.certify(&["a.test"]);
            let route = format!("[[route]]\nhosts = [\"a.test\"]\nupstreams = [\"h2c://{upstream}\"]\n");
            site.environment.write_routes("a.toml", &route);
            let proxy = site.start();
            let client = site.client();
            let stream = client.connect(proxy.https(), "a.test", &[version]).await.unwrap();
            let mut response = request_on(stream, get("https://a.test/")).await;
            assert_eq!(body::next_data(response.body_mut()).await.unwrap(), "part");
            give_up.notify_one();
            let rest = within(response.into_body().collect()).await;
            assert!(
                rest.is_err(),
                "{version}, {reason:?}: the response ended as if it were whole"
            );
        }
    }
}

/// An upstream that resets every response behind its first part, when it is told to.
async fn cancelling(reason: Reason) -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told = Arc::new(Notify::new());
    let telling = told.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"part"), false).unwrap();
            let told = told.clone();
            tokio::spawn(async move {
                told.notified().await;
                body.send_reset(reason);
            });
        }
    });
    (address, telling)
}

async fn connected() -> (TcpListener, Site, Proxy, SendRequest<Bytes>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    let proxy = site.start();
    let client = site.client();
    let stream = client.connect(proxy.https(), "a.test", &["h2"]).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let client = client.ready().await.unwrap();
    (listener, site, proxy, client)
}

async fn next_interim(answer: &mut ResponseFuture) -> Response<()> {
    let interim = poll_fn(|context| answer.poll_informational(context));
    within(interim).await.expect("there is one").unwrap()
}
