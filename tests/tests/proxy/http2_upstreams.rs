//! Upstreams that speak HTTP/2: what a stream of theirs has beside request and response.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use fairlead_tests::{Client, Proxy, Site, Wire, body, get, request_on, within};
use h2::ext::Protocol;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

const VERSIONS: [&str; 2] = ["http/1.1", "h2"];

type Exchange = (Request<RecvStream>, SendResponse<Bytes>);

/// An upstream whose exchanges the test answers, one after the other.
struct Scripted {
    address: SocketAddr,
    exchanges: mpsc::Receiver<Exchange>,
}

impl Scripted {
    async fn start(makes_tunnels: bool) -> Self {
        let mut builder = Builder::new();
        if makes_tunnels {
            builder.enable_connect_protocol();
        }
        Self::made_by(builder).await
    }

    async fn made_by(builder: Builder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, exchanges) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hand_over(stream, builder.clone(), accepted.clone()));
            }
        });
        Self { address, exchanges }
    }

    /// A proxy before it, for `a.test`.
    fn site(&self) -> (Site, Proxy) {
        let site = Site::new();
        site.certify(&["a.test"]);
        let route = format!(
            "[[route]]\nhosts = [\"a.test\"]\nupstreams = [\"h2c://{}\"]\n",
            self.address
        );
        site.environment.write_routes("a.toml", &route);
        let proxy = site.start();
        (site, proxy)
    }

    async fn next(&mut self) -> Exchange {
        within(self.exchanges.recv()).await.expect("there is a request")
    }

    /// Answers the next one.
    async fn answer(&mut self, response: Response<()>) -> (Request<RecvStream>, SendStream<Bytes>) {
        let (request, mut respond) = self.next().await;
        let stream = respond.send_response(response, false).unwrap();
        (request, stream)
    }
}

async fn hand_over(stream: TcpStream, builder: Builder, accepted: mpsc::Sender<Exchange>) {
    let mut connection: Connection<_, Bytes> = builder.handshake(stream).await.unwrap();
    while let Some(Ok(exchange)) = connection.accept().await {
        accepted.send(exchange).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_reach_the_client_while_it_waits() {
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    let mut client = speak_http1(&site.client(), &proxy).await;
    client.write("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let (_request, mut respond) = upstream.next().await;
    for link in ["</1.css>", "</2.css>"] {
        let hints = Response::builder()
            .status(103)
            .header("link", link)
            .body(())
            .unwrap();
        respond.send_informational(hints).unwrap();
        let head = client.read_head().await;
        assert_eq!(head, format!("HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n"));
    }
    respond.send_response(Response::new(()), true).unwrap();
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_decides_whether_an_upload_may_start() {
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    let mut client = speak_http1(&site.client(), &proxy).await;
    client
        .write("PUT / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    let (mut request, mut respond) = upstream.next().await;
    let goon = Response::builder().status(100).body(()).unwrap();
    respond.send_informational(goon).unwrap();
    assert_eq!(client.read_head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write("body").await;
    assert_eq!(read(request.body_mut()).await, "body");
    respond.send_response(Response::new(()), true).unwrap();
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 OK\r\n"));
}

/// An exchange that lasts must not let the others wait for its end (RFC 9113 5.1.2).
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_takes_no_more_exchanges_gets_another_one_beside_it() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(1);
    let mut upstream = Scripted::made_by(builder).await;
    let (site, proxy) = upstream.site();
    let mut client = site.client().h2(&proxy, "a.test").await;
    let mut under_way = Vec::new();
    for _ in 0..3 {
        let answer = client.send_request(get("https://a.test/"));
        let (answer, exchange) = tokio::join!(within(answer), upstream.answer(Response::new(())));
        under_way.push((answer.unwrap(), exchange));
    }
}

/// What nobody takes holds back the end behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_off_an_upload_they_do_not_take_is_seen_to_do_so() {
    const STUCK: Duration = Duration::from_secs(1);
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    let client = site.client();
    let connected = client.connect(proxy.https(), "a.test", &["http/1.1"]).await;
    let mut client = connected.unwrap();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\n")
        .await
        .unwrap();
    let (_request, mut respond) = upstream.next().await;
    while timeout(STUCK, client.write_all(&[0; 0x10000])).await.is_ok() {}
    client.get_ref().0.set_zero_linger().unwrap();
    drop(client);
    within(poll_fn(|context| respond.poll_reset(context)))
        .await
        .unwrap();
}

/// What it sends next could be the body, or another request.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_answered_while_it_holds_its_body_back_is_told_to_come_anew() {
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    let mut client = speak_http1(&site.client(), &proxy).await;
    let fields = "Host: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    client.write(format!("POST / HTTP/1.1\r\n{fields}")).await;
    let refusal = Response::builder().status(StatusCode::EXPECTATION_FAILED);
    let _under_way = upstream.answer(refusal.body(()).unwrap()).await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 417 "), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_framing_breaks_is_the_client_s_fault() {
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    let mut client = speak_http1(&site.client(), &proxy).await;
    client
        .write("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok")
        .await;
    let (mut request, _respond) = upstream.next().await;
    assert_eq!(next_data(request.body_mut()).await.unwrap().unwrap(), "ok");
    client.write("X\r\n0\r\n\r\n").await;
    let answer = client.read_rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    let end = next_data(request.body_mut()).await;
    assert!(matches!(end, Some(Err(_))), "it ended as if it were whole");
}

/// RFC 9113 8.7.
#[tokio::test(flavor = "multi_thread")]
async fn what_they_refuse_to_look_at_is_asked_once_more_unless_it_has_a_body() {
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    let mut client = site.client().h2(&proxy, "a.test").await;
    for (body, status) in [
        (body::full("body"), StatusCode::BAD_GATEWAY),
        (body::empty(), StatusCode::OK),
    ] {
        let request = Request::post("https://a.test/").body(body).unwrap();
        let answer = tokio::spawn(client.send_request(request));
        upstream.next().await.1.send_reset(Reason::REFUSED_STREAM);
        if status == StatusCode::OK {
            upstream.answer(Response::new(())).await;
        }
        let answer = within(answer).await.unwrap();
        assert_eq!(answer.unwrap().status(), status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_goes_to_them_by_extended_connect() {
    for version in VERSIONS {
        let mut upstream = Scripted::start(true).await;
        let (site, proxy) = upstream.site();
        let agreed = Response::builder().header("sec-websocket-protocol", "chat");
        let client = site.client();
        let (response, (mut request, mut to_client)) = tokio::join!(
            ask_for_websocket(&client, &proxy, version),
            answer_websocket(&mut upstream, version, agreed.body(()).unwrap()),
        );
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(
            request.extensions().get::<Protocol>().unwrap().as_str(),
            "websocket"
        );
        assert_eq!(request.uri(), "http://a.test/chat?room=1");
        assert_eq!(request.headers()["sec-websocket-version"], "13");
        for field in ["connection", "upgrade", "sec-websocket-key", "host"] {
            assert!(!request.headers().contains_key(field), "{version}: {field}");
        }
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        if version == "h2" {
            assert_eq!(response.status(), StatusCode::OK);
        } else {
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert_eq!(response.headers()["upgrade"], "websocket");
            // The answer to the key of RFC 6455 1.3.
            assert_eq!(
                response.headers()["sec-websocket-accept"],
                "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            );
        }
        let upgraded = within(hyper::upgrade::on(response)).await.unwrap();
        let mut client = Wire::new(TokioIo::new(upgraded));
        for _ in 0..2 {
            client.write("ping").await;
            assert_eq!(next_data(request.body_mut()).await.unwrap().unwrap(), "ping");
            to_client.send_data(Bytes::from_static(b"pong"), false).unwrap();
            client.read_until("pong").await;
        }
        to_client.send_data(Bytes::from_static(b"bye"), true).unwrap();
        assert_eq!(client.read_rest().await, "bye");
        drop(client);
        assert!(
            next_data(request.body_mut())
                .await
                .is_none_or(|data| data.is_err())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_they_refuse_is_refused_in_their_words() {
    for version in VERSIONS {
        let mut upstream = Scripted::start(true).await;
        let (site, proxy) = upstream.site();
        let refused = Response::builder().status(403).body(()).unwrap();
        let client = site.client();
        let (response, (_request, mut page)) = tokio::join!(
            ask_for_websocket(&client, &proxy, version),
            answer_websocket(&mut upstream, version, refused),
        );
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{version}");
        page.send_data(Bytes::from_static(b"members only"), true).unwrap();
        assert_eq!(body::read(response.into_body()).await.0, "members only");
    }
}

/// Else a half upload would be stored as a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_seen_to_break_off() {
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    for request in [
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\npart",
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    ] {
        let mut client = speak_http1(&site.client(), &proxy).await;
        client.write(request).await;
        let (mut request, _respond) = upstream.next().await;
        assert_eq!(next_data(request.body_mut()).await.unwrap().unwrap(), "part");
        drop(client);
        let error = next_data(request.body_mut())
            .await
            .expect("it does not end")
            .unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_a_download_up_stops_the_upstream() {
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    for version in VERSIONS {
        let stream = site
            .client()
            .connect(proxy.https(), "a.test", &[version])
            .await
            .unwrap();
        let (response, (_request, mut download)) = tokio::join!(
            request_on(stream, get("https://a.test/")),
            upstream.answer(Response::new(()))
        );
        drop(response);
        let given_up = within(poll_fn(|context| download.poll_reset(context)));
        assert_eq!(given_up.await.unwrap(), Reason::CANCEL, "{version}");
    }
}

/// RFC 9113 8.1.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_when_its_answer_is_over() {
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    let mut client = site.client().h2(&proxy, "a.test").await;
    let (mut sending, body) = body::channel();
    let request = Request::post("https://a.test/").body(body).unwrap();
    let (response, mut request) = tokio::join!(within(client.send_request(request)), async {
        let (request, mut respond) = upstream.next().await;
        respond.send_response(Response::new(()), true).unwrap();
        request
    });
    let response = response.unwrap();
    assert!(body::read(response.into_body()).await.0.is_empty());
    for part in ["one", "two"] {
        sending.send_data(Bytes::from(part)).await.unwrap();
        assert_eq!(next_data(request.body_mut()).await.unwrap().unwrap(), part);
    }
    drop(sending);
    assert!(next_data(request.body_mut()).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways_without_what_is_not_for_them() {
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    let mut client = site.client().h2(&proxy, "a.test").await;
    let (mut sending, body) = body::channel();
    let request = Request::post("https://a.test/").body(body).unwrap();
    let exchange = tokio::spawn(client.send_request(request));
    let (mut request, mut respond) = upstream.next().await;
    sending.send_data(Bytes::from("body")).await.unwrap();
    sending.send_trailers(trailers()).await.unwrap();
    assert_eq!(read(request.body_mut()).await, "body");
    let passed = within(request.body_mut().trailers()).await.unwrap().unwrap();
    assert_eq!(passed, only_sum());
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_trailers(trailers()).unwrap();
    let response = within(exchange).await.unwrap().unwrap();
    let received = within(response.into_body().collect()).await.unwrap();
    assert_eq!(received.trailers(), Some(&only_sum()));
}

/// RFC 9113 8.1.1: what is malformed goes no further.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_a_malformed_field_is_none() {
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    for version in VERSIONS {
        let connect = async || {
            site.client()
                .connect(proxy.https(), "a.test", &[version])
                .await
                .unwrap()
        };
        let padded = || Response::builder().header("x-own", " a").body(()).unwrap();
        let (response, _) = tokio::join!(
            request_on(connect().await, get("https://a.test/")),
            upstream.answer(padded())
        );
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{version}");
        let (response, ()) = tokio::join!(request_on(connect().await, get("https://a.test/")), async {
            let (_request, mut download) = upstream.answer(Response::new(())).await;
            download.send_trailers(padded().headers().clone()).unwrap();
        });
        within(response.into_body().collect()).await.unwrap_err();
    }
}

/// One connection carries the answers for all clients.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_holds_up_no_other_one() {
    const LARGE: usize = 4 << 20;
    let mut upstream = Scripted::start(false).await;
    let (site, proxy) = upstream.site();
    let mut idle = Vec::new();
    for _ in 0..8 {
        let stream = site
            .client()
            .connect(proxy.https(), "a.test", &["h2"])
            .await
            .unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let request = Request::get("https://a.test/").body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        let (_request, mut download) = upstream.answer(Response::new(())).await;
        download.send_data(Bytes::from(vec![0; LARGE]), true).unwrap();
        idle.push((within(answer).await.unwrap(), client));
    }
    let client = site.client();
    let (response, ()) = tokio::join!(client.get(&proxy, "https://a.test/"), async {
        let (_request, mut download) = upstream.answer(Response::new(())).await;
        download.send_data(Bytes::from(vec![b'x'; LARGE]), true).unwrap();
    });
    assert_eq!(response.into_body().len(), LARGE);
}

fn trailers() -> HeaderMap {
    let mut trailers = only_sum();
    trailers.insert("content-length", "5".parse().unwrap());
    trailers
}

fn only_sum() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    trailers
}

async fn speak_http1(client: &Client, proxy: &Proxy) -> Wire<TlsStream<TcpStream>> {
    let stream = client.connect(proxy.https(), "a.test", &["http/1.1"]).await;
    Wire::new(stream.unwrap())
}

async fn ask_for_websocket(client: &Client, proxy: &Proxy, version: &str) -> Response<hyper::body::Incoming> {
    let request = if version == "h2" {
        Request::connect("https://a.test/chat?room=1")
            .extension(hyper::ext::Protocol::from_static("websocket"))
    } else {
        Request::get("https://a.test/chat?room=1")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let request = request
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .body(body::empty())
        .unwrap();
    if version == "h2" {
        let mut sender = client.h2(proxy, "a.test").await;
        // The proxy's settings allow the extension; they have surely arrived with the first response.
        within(sender.send_request(get("https://a.test/"))).await.unwrap();
        return within(sender.send_request(request)).await.unwrap();
    }
    let mut sender = client.h1(proxy, "a.test").await;
    client.send(&mut sender, request).await
}

async fn answer_websocket(
    upstream: &mut Scripted,
    version: &str,
    answer: Response<()>,
) -> (Request<RecvStream>, SendStream<Bytes>) {
    if version == "h2" {
        let (_warm_up, mut respond) = upstream.next().await;
        respond.send_response(Response::new(()), true).unwrap();
    }
    upstream.answer(answer).await
}

async fn next_data(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    loop {
        match within(body.data()).await? {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                body.flow_control().release_capacity(data.len()).unwrap();
                return Some(Ok(data));
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

async fn read(body: &mut RecvStream) -> Bytes {
    let mut whole = Vec::new();
    while let Some(data) = next_data(body).await {
        whole.extend(data.unwrap());
    }
    whole.into()
}
