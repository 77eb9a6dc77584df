//! Clients that end their side of a connection before they are answered (RFC 9112 9.6).

use std::time::Duration;

use fairlead_tests::{Wire, accept, within};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_more_still_gets_its_answer() {
    let (listener, site) = super::open_site().await;
    let proxy = site.start();
    let client = site.client();
    let over_tls = client.connect(proxy.https(), "a.test", &["http/1.1"]).await;
    gets_its_answer(over_tls.unwrap(), &listener).await;
    gets_its_answer(TcpStream::connect(proxy.http()).await.unwrap(), &listener).await;
}

async fn gets_its_answer(stream: impl AsyncRead + AsyncWrite + Unpin, listener: &TcpListener) {
    let mut client = end_after(REQUEST, stream).await;
    let mut upstream = accept(listener).await;
    upstream.read_head().await;
    // It is asked whether it is there before it gets what it waits for.
    assert_eq!(client.read_head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    upstream.write(ANSWER).await;
    let answers = client.read_rest().await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 1, "{answers}");
    assert!(answers.ends_with("\r\n\r\nok"), "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_requests_before_the_end_are_answered() {
    for count in [2, MANY] {
        let (listener, site) = super::open_site().await;
        let proxy = site.start();
        let stream = TcpStream::connect(proxy.http()).await.unwrap();
        let mut client = end_after(&REQUEST.repeat(count), stream).await;
        let mut upstream = accept(&listener).await;
        for _ in 0..count {
            upstream.read_head().await;
            upstream.write(ANSWER).await;
        }
        let answers = client.read_rest().await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), count, "{answers}");
    }
}

/// More than is read ahead.
const MANY: usize = 600;

/// A client that says this and nothing more.
async fn end_after<S: AsyncRead + AsyncWrite + Unpin>(words: &str, stream: S) -> Wire<S> {
    let mut client = Wire::new(stream);
    client.write(words).await;
    let mut stream = client.into_inner();
    within(stream.shutdown()).await.unwrap();
    Wire::new(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_costs_the_upstream_nothing_more() {
    let (listener, site) = super::open_site().await;
    let proxy = site.start();
    for version in ["1.1", "1.0"] {
        let mut client = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
        client.write(REQUEST.replace("1.1", version)).await;
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        drop(client);
        assert_eq!(upstream.read_rest().await, "", "HTTP/{version}");
    }
}

/// Its end stands behind what is not read as long as it waits.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_asked_for_much_more_and_is_gone_costs_the_upstream_nothing_more() {
    let (listener, site) = super::open_site().await;
    let proxy = site.start();
    for breaks in [false, true] {
        let stream = TcpStream::connect(proxy.http()).await.unwrap();
        if breaks {
            stream.set_zero_linger().unwrap();
        }
        let mut client = Wire::new(stream);
        client.write(REQUEST.repeat(MANY)).await;
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        drop(client);
        assert_eq!(upstream.read_rest().await, "", "{breaks}");
    }
}

/// In the midst of an answer nobody can be asked.
#[tokio::test(flavor = "multi_thread")]
async fn who_ends_its_side_of_an_answer_that_stands_still_is_taken_for_gone() {
    let (listener, site) = super::open_site().await;
    let proxy = site.start();
    let stream = TcpStream::connect(proxy.http()).await.unwrap();
    let mut client = end_after(REQUEST, stream).await;
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12345")
        .await;
    client.read_until("12345").await;
    assert_eq!(upstream.read_rest().await, "");
}

/// It took nothing for a while, but there was something for it to take.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_gets_the_whole_answer() {
    let (listener, site) = super::open_site().await;
    let proxy = site.start();
    let stream = TcpStream::connect(proxy.http()).await.unwrap();
    let mut client = end_after(REQUEST, stream).await;
    let answering = tokio::spawn(async move {
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        let (length, body) = (LONG, "x".repeat(LONG));
        upstream
            .offer(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
    });
    client.read_until("\r\n\r\nxxx").await;
    pause().await;
    assert_eq!(client.read_rest().await.len(), LONG - 3);
    within(answering).await.unwrap();
}

/// More than systems keep of what is not read.
const LONG: usize = 16 << 20;

#[expect(
    clippy::disallowed_methods,
    reason = "how long nothing happens is the question"
)]
async fn pause() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Nobody reads the body any more that the client would send.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_its_body_is_not_wanted_costs_the_upstream_nothing_more() {
    let (listener, site) = super::open_site().await;
    let proxy = site.start();
    let mut client = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
    client
        .write("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12345")
        .await;
    client.read_until("12345").await;
    drop(client);
    assert_eq!(upstream.read_rest().await, "");
}
