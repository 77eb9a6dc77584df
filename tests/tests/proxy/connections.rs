//! What becomes of a connection to an upstream, and what goes over it.

use fairlead_tests::{Client, Proxy, Wire, accept, body, get, request_on, within};
use h2::ext::Protocol;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue";

/// It would be taken for the answer to the next request, whosever that is (RFC 9112 11.1).
#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_says_unasked_is_nobody_s_answer() {
    let (listener, site) = super::open_site().await;
    let (proxy, client) = (site.start(), site.client());
    let unasked = ANSWER.replace("true", "evil");
    for together in [true, false] {
        let mut first = asked(
            &listener,
            &client,
            &proxy,
            &[ANSWER, if together { &unasked } else { "" }],
        )
        .await;
        if !together {
            first.write(&unasked).await;
        }
        assert_eq!(first.read_rest().await, "", "it is of no use any more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_to_close_is_not_used_again() {
    let (listener, site) = super::open_site().await;
    let (proxy, client) = (site.start(), site.client());
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ntrue",
        "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\ntrue",
    ] {
        let mut upstream = asked(&listener, &client, &proxy, &[answer]).await;
        assert_eq!(upstream.read_rest().await, "", "{answer:?}");
    }
}

/// Many servers wait for a body that is not said to be missing (RFC 9110 8.6).
#[tokio::test(flavor = "multi_thread")]
async fn a_post_over_http_2_says_that_it_has_no_body() {
    let (listener, site) = super::open_site().await;
    let (proxy, client) = (site.start(), site.client());
    let stream = client.connect(proxy.https(), "a.test", &["h2"]).await.unwrap();
    let request = Request::post("https://a.test/").body(body::empty()).unwrap();
    let exchange = tokio::spawn(request_on(stream, request));
    let mut upstream = accept(&listener).await;
    let head = upstream.read_head().await;
    assert!(head.contains("\r\ncontent-length: 0\r\n"), "{head}");
    exchange.abort();
}

/// The answer would never come to an end: the upstream waits for what the client does not send.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_behind_its_answer_ends_both() {
    let (listener, site) = super::open_site().await;
    let (proxy, client) = (site.start(), site.client());
    for version in ["http/1.1", "h2"] {
        let (mut sender, upload) = body::channel();
        let request = Request::post("https://a.test/").body(upload).unwrap();
        let stream = client.connect(proxy.https(), "a.test", &[version]).await.unwrap();
        let exchange = tokio::spawn(request_on(stream, request));
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        upstream
            .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
            .await;
        let mut answer = exchange.await.unwrap();
        assert_eq!(body::next_data(answer.body_mut()).await.unwrap(), "ok");
        sender.send_data("part".into()).await.unwrap();
        upstream.read_until("part").await;
        sender.abort("the disk is full".into());
        assert_eq!(upstream.read_rest().await, "\r\n", "{version}");
        assert!(within(answer.into_body().collect()).await.is_err(), "{version}");
    }
}

/// It would come without its body, and could empty what it was to replace (RFC 9110 9.2.2).
#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_has_been_sent_is_not_sent_again() {
    let (listener, site) = super::open_site().await;
    let (proxy, client) = (site.start(), site.client());
    for (version, length) in [("http/1.1", "5"), ("h2", "5"), ("h2", "")] {
        let mut upstream = asked(&listener, &client, &proxy, &[ANSWER]).await;
        let mut put = Request::put("https://a.test/file");
        if !length.is_empty() {
            put = put.header("content-length", length);
        }
        let (mut sender, upload) = body::channel();
        let stream = client.connect(proxy.https(), "a.test", &[version]).await.unwrap();
        let exchange = tokio::spawn(request_on(stream, put.body(upload).unwrap()));
        sender.send_data("hello".into()).await.unwrap();
        drop(sender);
        upstream.read_until("hello").await;
        drop(upstream);
        assert_eq!(exchange.await.unwrap().status(), 502, "{version} {length}");
    }
}

/// An upstream would wait for its content, and take what comes next for it (RFC 9110 9.3.6).
#[tokio::test(flavor = "multi_thread")]
async fn a_wish_for_a_tunnel_announces_no_content() {
    let (listener, site) = super::open_site().await;
    let (proxy, client) = (site.start(), site.client());
    let stream = client.connect(proxy.https(), "a.test", &["h2"]).await.unwrap();
    let (h2, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let wish = Request::connect("https://a.test/chat")
        .extension(Protocol::from_static("websocket"))
        .header("content-length", "60")
        .body(())
        .unwrap();
    let (_answer, _sending) = h2.ready().await.unwrap().send_request(wish, false).unwrap();
    let mut upstream = accept(&listener).await;
    let head = upstream.read_head().await;
    assert!(!head.contains("content-length"), "{head}");
}

/// The upstream of one GET, which has been answered so.
async fn asked(listener: &TcpListener, client: &Client, proxy: &Proxy, answer: &[&str]) -> Wire<TcpStream> {
    let stream = client
        .connect(proxy.https(), "a.test", &["http/1.1"])
        .await
        .unwrap();
    let answering = async {
        let mut upstream = accept(listener).await;
        upstream.read_head().await;
        upstream.write(answer.concat()).await;
        upstream
    };
    let (answered, upstream): (Response<Incoming>, _) =
        tokio::join!(request_on(stream, get("https://a.test/")), answering);
    assert_eq!(body::read(answered.into_body()).await.0, "true");
    upstream
}
