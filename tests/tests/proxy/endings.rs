//! Answers whose end nothing tells but the end of the connection, and answers that break off.

use fairlead_tests::{Proxy, Site, Wire, accept, body, get, request_on, within};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// What has no other end than that of the connection says so (RFC 9112 9.3), also to who would keep it.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_unknown_length_keeps_no_connection_of_http_1_0() {
    let (listener, site) = super::open_site().await;
    let proxy = site.start();
    let mut wire = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
    wire.write("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n")
        .await;
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        .await;
    let answer = wire.read_rest().await;
    assert!(!answer.to_lowercase().contains("keep-alive"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}

/// The end of the connection is all that such a client has to tell a whole answer by.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_length_that_breaks_off_does_not_end_like_a_whole_one() {
    let (listener, site) = super::open_site().await;
    let proxy = site.start();
    let client = site.client();
    let over_tls = client.connect(proxy.https(), "a.test", &["http/1.1"]).await;
    breaks_off_visibly(over_tls.unwrap(), &listener).await;
    breaks_off_visibly(TcpStream::connect(proxy.http()).await.unwrap(), &listener).await;
}

async fn breaks_off_visibly<S: AsyncRead + AsyncWrite + Unpin>(stream: S, listener: &TcpListener) {
    let mut wire = Wire::new(stream);
    wire.write("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    let mut upstream = accept(listener).await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        .await;
    wire.read_until("\r\n\r\nok").await;
    drop(upstream);
    let end = within(wire.into_inner().read_to_end(&mut Vec::new())).await;
    assert!(end.is_err(), "{} looks whole", std::any::type_name::<S>());
}

/// With something unread the system would reset the connection, and take back what it has not delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_answer_arrives_whole_though_more_was_asked_behind() {
    const LENGTH: usize = 3 << 20;
    let (listener, site) = super::open_site().await;
    let proxy = site.start();
    for _ in 0..5 {
        let mut client = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
        let more = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".repeat(5_000);
        client
            .write(format!(
                "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n{more}"
            ))
            .await;
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        let answering = async {
            let body = "x".repeat(LENGTH);
            upstream
                .write(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{body}"
                ))
                .await;
        };
        let reading = async {
            client.read_head().await;
            client.read_rest().await.len()
        };
        let ((), length) = tokio::join!(answering, reading);
        assert_eq!(length, LENGTH);
    }
}

/// A client is told what was said before its upstream broke off.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_at_its_first_chunk_has_its_head() {
    let (listener, site) = super::open_site().await;
    let proxy = site.start();
    over_http2(&site, &proxy, &listener).await;
    let mut wire = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
    wire.write("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        .await;
    let answer = wire.read_rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\n") && !answer.contains("\r\n0\r\n"),
        "{answer}"
    );
}

async fn over_http2(site: &Site, proxy: &Proxy, listener: &TcpListener) {
    let client = site.client();
    let stream = client.connect(proxy.https(), "a.test", &["h2"]).await.unwrap();
    let answering = async {
        let mut upstream = accept(listener).await;
        upstream.read_head().await;
        upstream
            .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n")
            .await;
    };
    let (mut answer, ()) = tokio::join!(request_on(stream, get("https://a.test/")), answering);
    assert_eq!(body::next_data(answer.body_mut()).await.unwrap(), "ok");
    assert!(within(answer.into_body().collect()).await.is_err());
}
