//! Bodies that stand still: whoever owes the next bytes is waited for only so long, and nobody else is hurried.

use std::time::Duration;

use bytes::Bytes;
use fairlead_tests::{Proxy, Site, Wire, accept, body, request_on, within};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use crate::drain::start_download;

/// Longer than a busy machine keeps the test itself waiting, which would be given up otherwise.
const IMPATIENT: &str = "[proxy]\nstall-timeout = \"1s\"\n";
/// More than all buffers on the way hold.
const MUCH: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_send_what_it_announced_is_told_so() {
    let (listener, site, proxy) = impatient("").await;
    let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
    client
        .write("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\n\r\npart")
        .await;
    let mut upstream = accept(&listener).await;
    upstream.read_until("part").await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(upstream.read_rest().await, "");

    let mut client = speak_h2(&site, &proxy).await;
    let request = Request::post("https://a.test/").header("content-length", "8");
    let (answer, mut upload) = client.send_request(request.body(()).unwrap(), false).unwrap();
    upload.send_data(Bytes::from_static(b"part"), false).unwrap();
    assert_eq!(
        within(answer).await.unwrap().status(),
        StatusCode::REQUEST_TIMEOUT
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_over_http_2_may_be_silent() {
    let (listener, site, proxy) = impatient("").await;
    let mut client = speak_h2(&site, &proxy).await;
    let request = Request::post("https://a.test/").body(()).unwrap();
    let (answer, mut upload) = client.send_request(request, false).unwrap();
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    let answer = within(still_open(answer)).await;
    upload.send_data(Bytes::from_static(b"late"), true).unwrap();
    upstream.read_until("late").await;
    upstream.write("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within(answer).await.unwrap().status(), StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_takes_nothing_of_an_upload_times_out() {
    let (listener, site, proxy) = impatient("").await;
    let stream = connect(&site, &proxy, "h2").await;
    let upload = Request::post("https://a.test/")
        .body(body::full("x".repeat(MUCH)))
        .unwrap();
    let (response, _upstream) = tokio::join!(request_on(stream, upload), accept(&listener));
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

/// It would hold both connections for as long as the upstream pleases.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_nobody_takes_behind_its_answer_is_given_up() {
    let (listener, site, proxy) = impatient("").await;
    let (_from, mut to) = tokio::io::split(connect(&site, &proxy, "http/1.1").await);
    let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {MUCH}\r\n\r\n");
    to.write_all(head.as_bytes()).await.unwrap();
    let uploading = tokio::spawn(async move {
        let part = vec![b'x'; 1 << 20];
        while to.write_all(&part).await.is_ok() {}
    });
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    within(uploading).await.unwrap();
    drop(upstream);
}

/// What it has to say is said, so that nobody waits for as long as for one that is silent.
#[tokio::test(flavor = "multi_thread")]
async fn who_sends_what_nobody_takes_behind_its_answer_hears_that_soon() {
    let (listener, site) = crate::open_site().await;
    let proxy = site.start();
    let (mut upstream, uploading) = upload_behind_answer(&listener, &proxy).await;
    within(uploading).await.unwrap();
    assert!(upstream.read_rest().await.len() < MUCH);
}

/// Some answer at once and then read on.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "it is to take its time")]
async fn an_upload_that_goes_on_behind_its_answer_takes_the_time_it_takes() {
    let (listener, site) = crate::open_site().await;
    let proxy = site.start();
    let (upstream, uploading) = upload_behind_answer(&listener, &proxy).await;
    let mut upstream = upstream.into_inner();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut part = vec![0; 4 << 20];
        within(upstream.read_exact(&mut part)).await.unwrap();
        assert!(!uploading.is_finished());
    }
    uploading.abort();
}

/// An upstream that has answered an upload without an end, and a client that has heard it and sends on until nobody
/// takes that any more.
async fn upload_behind_answer(listener: &TcpListener, proxy: &Proxy) -> (Wire<TcpStream>, JoinHandle<()>) {
    let mut client = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
    client
        .write(format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
            u64::MAX / 2
        ))
        .await;
    let mut upstream = accept(listener).await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    client.read_until("\r\n\r\nok").await;
    let uploading = tokio::spawn(async move {
        let (mut client, part) = (client.into_inner(), vec![b'x'; 1 << 20]);
        while client.write_all(&part).await.is_ok() {}
    });
    (upstream, uploading)
}

/// The other way round: the answer is there, and the client sends nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_silent_in_a_body_behind_its_answer_is_given_up() {
    let (listener, site, proxy) = impatient("").await;
    for option in ["keep-alive", "close"] {
        let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
        client
            .write(format!(
                "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: {option}\r\nContent-Length: 9\r\n\r\nabc"
            ))
            .await;
        let mut upstream = accept(&listener).await;
        upstream.read_until("\r\n\r\nabc").await;
        upstream
            .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        client.read_until("\r\n\r\nok").await;
        assert_eq!(upstream.read_rest().await, "", "{option}");
        assert_eq!(client.read_rest().await, "", "{option}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_of_a_response_is_given_up() {
    let (listener, site, proxy) = impatient("").await;
    let mut client = connect(&site, &proxy, "http/1.1").await;
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await
        .unwrap();
    assert_given_up(&listener).await;

    let mut client = speak_h2(&site, &proxy).await;
    let request = Request::get("https://a.test/").body(()).unwrap();
    // Its window is never opened further.
    let _answer = client.send_request(request, true).unwrap();
    assert_given_up(&listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_may_be_silent_in_the_middle_of_a_response_unless_the_route_limits_it() {
    for version in ["http/1.1", "h2"] {
        let (listener, site, proxy) = impatient("").await;
        let (response, mut upstream) = start_download(&site.client(), &proxy, &listener, version).await;
        let rest = within(still_open(response.into_body().collect())).await;
        upstream.write("rest").await;
        assert_eq!(within(rest).await.unwrap().to_bytes(), "rest");

        let (listener, site, proxy) = impatient("idle-timeout = \"1s\"\n").await;
        let (response, mut upstream) = start_download(&site.client(), &proxy, &listener, version).await;
        assert!(within(response.into_body().collect()).await.is_err());
        assert_eq!(upstream.read_rest().await, "");
    }
}

/// Waits for longer than any limit here, and gives back what must not have ended.
#[expect(clippy::disallowed_methods, reason = "that nothing happens has no event")]
async fn still_open<F: Future + Unpin>(mut pending: F) -> F {
    tokio::select! {
        _ = &mut pending => panic!("it ended"),
        () = tokio::time::sleep(Duration::from_secs(2)) => pending,
    }
}

/// Answers without end, until nobody takes it any more.
async fn assert_given_up(listener: &TcpListener) {
    let mut upstream = accept(listener).await;
    upstream.read_head().await;
    upstream
        .write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            u64::MAX / 2
        ))
        .await;
    let mut upstream = upstream.into_inner();
    let part = vec![b'x'; 1 << 20];
    within(async { while upstream.write_all(&part).await.is_ok() {} }).await;
}

/// A site whose route says `more`, behind a proxy that does not wait long.
async fn impatient(more: &str) -> (TcpListener, Site, Proxy) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::new();
    site.environment.write_config(IMPATIENT);
    site.serve_with(&["a.test"], &[listener.local_addr().unwrap()], more);
    let proxy = site.start();
    (listener, site, proxy)
}

async fn connect(site: &Site, proxy: &Proxy, version: &str) -> TlsStream<TcpStream> {
    let client = site.client();
    client.connect(proxy.https(), "a.test", &[version]).await.unwrap()
}

async fn speak_h2(site: &Site, proxy: &Proxy) -> h2::client::SendRequest<Bytes> {
    let stream = connect(site, proxy, "h2").await;
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}
