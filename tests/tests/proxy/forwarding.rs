//! Bodies, trailers and interim responses pass as they come; nothing waits for the whole.

use std::time::Duration;

use bytes::Bytes;
use fairlead_tests::{Body, Client, Proxy, Site, Upstream, Wire, accept, body, get, within};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::Sender;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Pieces = Sender<Bytes, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_response_arrives_while_the_upstream_still_makes_it() {
    let (upstream, mut pieces) = upstream_sending_pieces("text/event-stream").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for version in VERSIONS {
        let mut response = send(&site.client(), &proxy, version, get("https://a.test/")).await;
        let mut sender = within(pieces.recv()).await.unwrap();
        for piece in ["data: 1\n\n", "data: 2\n\n"] {
            within(sender.send_data(piece.into())).await.unwrap();
            assert_eq!(body::next_data(response.body_mut()).await.unwrap(), piece);
        }
        drop(sender);
        assert_eq!(body::next_data(response.body_mut()).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_of_a_response_arrives_before_its_body() {
    let (upstream, mut pieces) = upstream_sending_pieces("text/plain").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for version in VERSIONS {
        let response = send(&site.client(), &proxy, version, get("https://a.test/")).await;
        assert_eq!(response.headers()["content-type"], "text/plain");
        drop(within(pieces.recv()).await.unwrap());
        assert_eq!(body::read(response.into_body()).await.0, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_reaches_the_upstream_while_it_is_still_sent() {
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let upstream = Upstream::start(move |mut request: Request<Incoming>| {
        let heard = heard.clone();
        async move {
            while let Some(piece) = body::next_data(request.body_mut()).await {
                heard.send(piece).unwrap();
            }
            Response::new(body::full("received"))
        }
    })
    .await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for version in VERSIONS {
        let (mut sender, upload) = body::channel();
        let client = site.client();
        let exchange = send(&client, &proxy, version, post(upload));
        let upload = async {
            for piece in ["one", "two", "three"] {
                sender.send_data(piece.into()).await.unwrap();
                assert_eq!(within(hearing.recv()).await.unwrap(), piece);
            }
            drop(sender);
        };
        let (response, ()) = tokio::join!(exchange, upload);
        assert_eq!(body::read(response.into_body()).await.0, "received");
    }
}

/// Both directions at once: the answer to the first piece arrives before the second is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_may_overtake_its_request() {
    let upstream = Upstream::start(|request: Request<Incoming>| async {
        Response::new(request.into_body().map_err(Into::into).boxed())
    })
    .await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for version in VERSIONS {
        let (mut sender, upload) = body::channel();
        let mut response = send(&site.client(), &proxy, version, post(upload)).await;
        for piece in ["one", "two"] {
            sender.send_data(piece.into()).await.unwrap();
            assert_eq!(body::next_data(response.body_mut()).await.unwrap(), piece);
        }
        drop(sender);
        assert_eq!(body::next_data(response.body_mut()).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_unchanged_in_both_directions() {
    let upstream = Upstream::start(|request: Request<Incoming>| async {
        Response::new(request.into_body().map_err(Into::into).boxed())
    })
    .await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let sent: Bytes = (0..3_000_001_u32).map(|number| (number % 251) as u8).collect();
    for version in VERSIONS {
        let response = send(&site.client(), &proxy, version, post(body::full(sent.clone()))).await;
        let received = within(response.into_body().collect()).await.unwrap().to_bytes();
        assert!(
            received == sent,
            "{} bytes came back over {version:?}",
            received.len()
        );
    }
}

/// A client that does not read must not fill the proxy's memory.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_read_no_faster_than_its_client_reads() {
    let (upstream, mut pieces) = upstream_sending_pieces("application/octet-stream").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let response = send(&site.client(), &proxy, Version::H2, get("https://a.test/")).await;
    let mut sender = within(pieces.recv()).await.unwrap();
    let piece = Bytes::from(vec![0; 1 << 20]);
    let mut sent = 0;
    // An hour of patience would not change it: only a reading client makes room.
    while let Ok(done) = tokio::time::timeout(Duration::from_secs(1), sender.send_data(piece.clone())).await {
        done.unwrap();
        sent += piece.len();
        assert!(sent < 256 << 20, "nothing holds the upstream back");
    }
    drop(response);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_a_response_reach_the_client() {
    let (upstream, mut pieces) = upstream_sending_pieces("text/plain").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for version in VERSIONS {
        let mut request = get("https://a.test/");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let response = send(&site.client(), &proxy, version, request).await;
        let mut sender = within(pieces.recv()).await.unwrap();
        sender.send_data("content".into()).await.unwrap();
        sender.send(body::trailer("x-checksum", "abc")).await.unwrap();
        drop(sender);
        let (content, trailers) = body::read(response.into_body()).await;
        assert_eq!(content, "content");
        assert_eq!(trailers.unwrap()["x-checksum"], "abc", "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_a_request_reach_the_upstream() {
    let upstream = Upstream::start(|request: Request<Incoming>| async {
        let (content, trailers) = body::read(request.into_body()).await;
        Response::new(body::full(format!(
            "{content} {:?}",
            trailers.and_then(|mut all| all.remove("x-checksum"))
        )))
    })
    .await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for version in VERSIONS {
        let (mut sender, upload) = body::channel();
        let mut request = post(upload);
        request
            .headers_mut()
            .insert("trailer", "x-checksum".parse().unwrap());
        let client = site.client();
        let exchange = send(&client, &proxy, version, request);
        let upload = async {
            sender.send_data("content".into()).await.unwrap();
            sender.send(body::trailer("x-checksum", "abc")).await.unwrap();
            drop(sender);
        };
        let (response, ()) = tokio::join!(exchange, upload);
        assert_eq!(
            body::read(response.into_body()).await.0,
            "content Some(\"abc\")",
            "{version:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_brings_the_length_and_no_body() {
    let upstream = Upstream::start(|request: Request<Incoming>| async move {
        assert_eq!(request.method(), "HEAD");
        Response::builder()
            .header("content-length", "1234")
            .body(body::empty())
            .unwrap()
    })
    .await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for version in VERSIONS {
        let request = Request::head("https://a.test/").body(body::empty()).unwrap();
        let response = send(&site.client(), &proxy, version, request).await;
        assert_eq!(response.headers()["content-length"], "1234");
        assert_eq!(body::read(response.into_body()).await.0, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_without_a_body_stay_without() {
    let upstream = Upstream::start(|request: Request<Incoming>| async move {
        let status: StatusCode = request.uri().path()[1..].parse().unwrap();
        Response::builder()
            .status(status)
            .header("etag", "\"1\"")
            .body(body::empty())
            .unwrap()
    })
    .await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for version in VERSIONS {
        for status in ["204", "304"] {
            let response = send(
                &site.client(),
                &proxy,
                version,
                get(&format!("https://a.test/{status}")),
            )
            .await;
            assert_eq!(response.status().as_str(), status);
            assert_eq!(response.headers()["etag"], "\"1\"");
            assert_eq!(body::read(response.into_body()).await.0, "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_nobody_knows_are_forwarded() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    for method in ["PROPFIND", "DELETE", "PATCH", "OPTIONS", "X-ODD"] {
        let request = Request::builder()
            .method(method)
            .uri("https://a.test/")
            .body(body::empty())
            .unwrap();
        let response = site.client().fetch(&proxy, request).await;
        assert!(
            response.body().starts_with(&format!("{method} / ")),
            "{}",
            response.body()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_decides_whether_an_upload_may_start() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    let proxy = site.start();
    let stream = site
        .client()
        .connect(proxy.https(), "a.test", &["http/1.1"])
        .await
        .unwrap();
    let mut client = Wire::new(stream);
    client
        .write("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let mut upstream = accept(&listener).await;
    let head = upstream.read_head().await.to_ascii_lowercase();
    assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
    upstream.write("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 100 "));
    client.write("body").await;
    upstream.read_until("body").await;
    upstream
        .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_the_upstream_refuses_is_never_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    let proxy = site.start();
    let stream = site
        .client()
        .connect(proxy.https(), "a.test", &["http/1.1"])
        .await
        .unwrap();
    let mut client = Wire::new(stream);
    client
        .write("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_upstream_are_used_again() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for _ in 0..10 {
        for version in VERSIONS {
            let response = send(&site.client(), &proxy, version, get("https://a.test/")).await;
            assert_eq!(body::read(response.into_body()).await.0, "a");
        }
    }
    // Not one: a client may be faster with its next request than the proxy with putting the last one's
    // connection back.
    assert!(
        upstream.connections() <= 5,
        "{} connections for 20 requests",
        upstream.connections()
    );
}

/// HTTP/1.0 knows no chunks: the body ends with the connection (RFC 9112 6.3).
#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_gets_a_body_it_understands() {
    let (upstream, mut pieces) = upstream_sending_pieces("text/plain").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let mut wire = Wire::new(site.client().connect(proxy.https(), "a.test", &[]).await.unwrap());
    wire.write("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    let mut sender = within(pieces.recv()).await.unwrap();
    sender.send_data("content".into()).await.unwrap();
    drop(sender);
    let answer = wire.read_rest().await;
    assert!(answer.ends_with("\r\n\r\ncontent"), "{answer}");
}

/// An upstream of HTTP/1.0 ends its body by closing.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_with_the_connection_is_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    let proxy = site.start();
    for version in VERSIONS {
        let client = site.client();
        let exchange = send(&client, &proxy, version, get("https://a.test/"));
        let answering = async {
            let mut wire = accept(&listener).await;
            wire.read_head().await;
            wire.write("HTTP/1.0 200 OK\r\n\r\ncontent").await;
        };
        let (response, ()) = tokio::join!(exchange, answering);
        assert_eq!(body::read(response.into_body()).await.0, "content", "{version:?}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Version {
    H1,
    H2,
}

const VERSIONS: [Version; 2] = [Version::H1, Version::H2];

async fn send(
    client: &Client,
    proxy: &Proxy,
    version: Version,
    request: Request<Body>,
) -> Response<Incoming> {
    match version {
        Version::H1 => client.send(&mut client.h1(proxy, "a.test").await, request).await,
        Version::H2 => {
            let mut sender = client.h2(proxy, "a.test").await;
            within(sender.send_request(request))
                .await
                .expect("there is a response")
        }
    }
}

fn post(body: Body) -> Request<Body> {
    Request::post("https://a.test/").body(body).unwrap()
}

/// An upstream that answers each request with a body which the test sends piece by piece.
async fn upstream_sending_pieces(content_type: &'static str) -> (Upstream, mpsc::UnboundedReceiver<Pieces>) {
    let (senders, receiver) = mpsc::unbounded_channel();
    let upstream = Upstream::start(move |_| {
        let senders = senders.clone();
        async move {
            let (sender, body) = body::channel();
            senders.send(sender).expect("the test goes on");
            let response = Response::builder()
                .header("content-type", content_type)
                .header("trailer", "x-checksum");
            response.body(body).unwrap()
        }
    })
    .await;
    (upstream, receiver)
}
