//! Messages that two programs could read differently do not pass as they came.

use fairlead_tests::{Proxy, Site, Upstream, Wire, accept, body, get, request_on, within};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

const VERSIONS: [&str; 2] = ["http/1.1", "h2"];

/// Such a response ought to be handled as an error (RFC 9112 6.3).
#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_ends_at_two_places_is_a_bad_gateway() {
    let (listener, site) = site().await;
    let proxy = site.start();
    for rest in [
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "Content-Length: 2, 3\r\n\r\nabc",
        "Content-Length: +2\r\n\r\nab",
        "Content-Length: 18446744073709551616\r\n\r\nab",
        "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip\r\n\r\nhello",
        "X-Folded: 1\r\n Content-Length: 2\r\n\r\nab",
    ] {
        for version in VERSIONS {
            let response = answered(&listener, &site, &proxy, version, &format!("200 OK\r\n{rest}")).await;
            assert_eq!(response.status(), 502, "{version} {rest:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_says_its_length_twice_says_it_once_to_the_client() {
    let (listener, site) = site().await;
    let proxy = site.start();
    for rest in [
        "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "Content-Length: 2, 2\r\n\r\nok",
    ] {
        for version in VERSIONS {
            let response = answered(&listener, &site, &proxy, version, &format!("200 OK\r\n{rest}")).await;
            assert_eq!(lengths(&response), ["2"], "{version} {rest:?}");
            assert_eq!(body::read(response.into_body()).await.0, "ok");
        }
    }
}

/// No Content-Length with 204 (RFC 9110 8.6).
#[tokio::test(flavor = "multi_thread")]
async fn a_length_without_content_does_not_reach_the_client() {
    let (listener, site) = site().await;
    let proxy = site.start();
    for version in VERSIONS {
        let answer = "204 No Content\r\nContent-Length: 5\r\n\r\n";
        let response = answered(&listener, &site, &proxy, version, answer).await;
        assert!(lengths(&response).is_empty(), "{version}");
        assert_eq!(body::read(response.into_body()).await.0, "", "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_that_would_change_the_message_do_not_reach_the_client() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let answer = "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
        Connection: x-hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\nX-Sum: 1\r\n\r\n";
    let response = answered(&listener, &site, &proxy, "h2", answer).await;
    let (content, trailers) = body::read(response.into_body()).await;
    let trailers = trailers.unwrap();
    assert_eq!((content.as_str(), trailers.len()), ("ok", 1), "{trailers:?}");
    assert_eq!(trailers["x-sum"], "1");
}

/// RFC 9112 2.3 and 5.1, RFC 9110 15.5.22.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_of_old_says_reaches_the_client_as_http_1_1() {
    let (listener, site) = site().await;
    let proxy = site.start();
    for (answer, expected) in [
        ("HTTP/1.0 200 OK\r\n\r\nok", "HTTP/1.1 200 OK\r\n"),
        (
            "HTTP/1.1 200 OK\r\nX-Own : a\r\nContent-Length: 0\r\n\r\n",
            "x-own: a\r\n",
        ),
        (
            "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
            "upgrade: websocket\r\nconnection: upgrade",
        ),
    ] {
        let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
        client
            .write("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
            .await;
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        upstream.write(answer).await;
        drop(upstream);
        let received = client.read_rest().await;
        assert!(received.contains(expected), "{received}");
    }
}

/// RFC 9110 10.1.4.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_trailers_is_told_of_on_the_connection_to_the_upstream() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
    client
        .write("GET / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: te\r\n\r\n")
        .await;
    let mut upstream = accept(&listener).await;
    let head = upstream.read_head().await;
    assert!(
        head.contains("\r\nte: trailers\r\n") && head.contains("\r\nconnection: te\r\n"),
        "{head}"
    );
    let chunks = "Trailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n";
    upstream.write(format!("HTTP/1.1 200 OK\r\n{chunks}")).await;
    client.read_until("\r\nx-sum: 1\r\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_framing_breaks_is_the_client_s_fault() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
    client
        .write("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok")
        .await;
    let mut upstream = accept(&listener).await;
    upstream.read_until("ok").await;
    client.write("X\r\n0\r\n\r\n").await;
    let answer = client.read_rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let rest = upstream.read_rest().await;
    assert!(!rest.contains("0\r\n"), "it ended as if it were whole: {rest:?}");
}

/// What it sends next could be the body, or another request.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_answered_while_it_holds_its_body_back_is_told_to_come_anew() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
    let fields = "Host: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    client.write(format!("POST / HTTP/1.1\r\n{fields}")).await;
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
        .await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 417 "), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
}

/// It could not understand 100 (RFC 9110 10.1.1).
#[tokio::test(flavor = "multi_thread")]
async fn what_an_http_1_0_client_expects_is_ignored() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
    let head = "POST / HTTP/1.0\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    client.write(format!("{head}body")).await;
    let mut upstream = accept(&listener).await;
    let head = upstream.read_until("body").await.to_ascii_lowercase();
    assert!(!head.contains("expect"), "{head}");
    upstream.write("HTTP/1.1 204 No Content\r\n\r\n").await;
    let answer = client.read_rest().await;
    assert!(answer.starts_with("HTTP/1.0 204 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_form_of_a_request_target_has_its_methods() {
    let upstream = Upstream::echoing().await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let ask = async |line: &str| {
        let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
        let rest = "Host: a.test\r\nConnection: close\r\n\r\n";
        client.write(format!("{line} HTTP/1.1\r\n{rest}")).await;
        client.read_rest().await
    };
    for line in ["GET *", "POST *", "GET a.test", "OPTIONS a.test:443"] {
        let answer = ask(line).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{line}: {answer}");
    }
    assert_eq!(upstream.connections(), 0);
    for (line, target) in [
        ("OPTIONS *", "*"),
        ("OPTIONS https://a.test", "*"),
        ("OPTIONS https://a.test/", "/"),
        ("OPTIONS https://a.test?q", "/?q"),
        ("GET https://a.test", "/"),
    ] {
        let answer = ask(line).await;
        let method = line.split(' ').next().unwrap();
        assert!(
            answer.contains(&format!("{method} {target} ")),
            "{line}: {answer}"
        );
    }
}

/// Among requests that come at once (RFC 9112 3.2.4, 9.3.2).
#[tokio::test(flavor = "multi_thread")]
async fn options_for_a_whole_server_are_not_mixed_up_with_others() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
    let targets = ["https://a.test", "https://a.test/", "https://a.test", "/x"];
    let request = |target: &str| format!("OPTIONS {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    client.write(targets.map(request).concat()).await;
    for expected in ["OPTIONS * ", "OPTIONS / ", "OPTIONS * ", "OPTIONS /x "] {
        client.read_head().await;
        assert!(
            client.read_until("HTTP/1.1\n").await.contains(expected),
            "{expected}"
        );
    }
    client
        .write("OPTIONS https://a.test HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n")
        .await;
    client.read_until("HTTP/1.1 400 ").await;
}

/// Its host is the one the upstream sees, whatever the field says (RFC 9112 3.2.2).
#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_counts_more_than_the_host_field() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
    client
        .write("GET https://a.test/b HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n")
        .await;
    let answer = client.read_rest().await;
    assert!(answer.contains("GET /b HTTP/1.1\n"), "{answer}");
    assert!(
        answer.contains("host: a.test\n") && !answer.contains("other.test"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_says_its_length_twice_says_it_once_to_the_upstream() {
    let (listener, site) = site().await;
    let proxy = site.start();
    let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
    client
        .write("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody")
        .await;
    let head = accept(&listener).await.read_until("body").await;
    assert_eq!(head.matches("content-length: 4\r\n").count(), 1, "{head}");
}

/// A GET may have one (RFC 9110 9.3.1), and what is not passed on is not answered either.
#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_get_reaches_the_upstream() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
    client
        .write("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
        .await;
    let answer = client.read_rest().await;
    assert!(answer.contains("\n\nbody"), "{answer}");

    let (mut sender, upload) = body::channel();
    let request = Request::get("https://a.test/").body(upload).unwrap();
    let exchange = request_on(connect(&site, &proxy, "h2").await, request);
    let (response, ()) = tokio::join!(exchange, async {
        sender.send_data("body".into()).await.unwrap();
        drop(sender);
    });
    let answer = body::read(response.into_body()).await.0;
    assert!(answer.ends_with("\n\nbody"), "{answer}");
}

/// An upstream may have said all before it has heard all.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_request_stands_behind_the_whole_body_of_the_last() {
    let (listener, site) = site().await;
    let proxy = site.start();
    // More than once: who hears of further bytes first is chance.
    for _ in 0..10 {
        let mut client = Wire::new(connect(&site, &proxy, "http/1.1").await);
        client
            .write("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\n\r\nGET ")
            .await;
        let mut first = accept(&listener).await;
        first.read_until("GET ").await;
        first
            .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1!")
            .await;
        client.read_until("1!").await;
        client
            .write("/no GET /yes HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await;
        first.read_until("/no ").await;
        let mut second = accept(&listener).await;
        let head = second.read_head().await;
        assert!(head.starts_with("GET /yes HTTP/1.1\r\n"), "{head}");
        second
            .write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n2!")
            .await;
        client.read_until("2!").await;
    }
}

async fn site() -> (TcpListener, Site) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    (listener, site)
}

async fn connect(site: &Site, proxy: &Proxy, version: &str) -> TlsStream<TcpStream> {
    let client = site.client();
    client.connect(proxy.https(), "a.test", &[version]).await.unwrap()
}

/// What becomes of an upstream's answer, which is given from its status on, and is all that it says.
async fn answered(
    listener: &TcpListener,
    site: &Site,
    proxy: &Proxy,
    version: &str,
    answer: &str,
) -> Response<Incoming> {
    let exchange = request_on(connect(site, proxy, version).await, get("https://a.test/"));
    let answering = async {
        let mut upstream = accept(listener).await;
        upstream.read_head().await;
        upstream.write(format!("HTTP/1.1 {answer}")).await;
    };
    within(async { tokio::join!(exchange, answering).0 }).await
}

fn lengths(response: &Response<Incoming>) -> Vec<&str> {
    let lengths = response.headers().get_all("content-length").iter();
    lengths.map(|length| length.to_str().unwrap()).collect()
}
