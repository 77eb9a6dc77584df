//! Upstreams that are away, slow or odd, and clients that leave.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use fairlead_tests::{Client, Proxy, Site, Upstream, Wire, accept, body, get, request_on, within};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_is_a_bad_gateway() {
    let site = Site::of("a.test", super::dead_end().await);
    let proxy = site.start();
    let response = site.client().get(&proxy, "https://a.test/").await;
    assert_eq!(response.status(), 502);
    assert_is_own_page(&response);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_whose_containers_are_on_their_way_is_unavailable_for_now() {
    let site = Site::new();
    let waiting =
        "waiting = [{ container = \"web\", reason = \"its health check fails\" }]\nhsts = \"max-age=9\"\n";
    site.serve_with(&["a.test"], &[], waiting);
    let proxy = site.start();
    let client = site.client();
    let response = client.get(&proxy, "https://a.test/").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "5");
    assert_eq!(response.headers()["strict-transport-security"], "max-age=9");
    assert_is_own_page(&response);

    let upstream = Upstream::saying("ready").await;
    site.serve_with(&["a.test"], &[upstream.address()], waiting);
    proxy.reload();
    assert_eq!(client.get(&proxy, "https://a.test/").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_whose_name_does_not_exist_is_a_bad_gateway() {
    let site = Site::new();
    site.certify(&["a.test"]);
    let route = "[[route]]\nhosts = [\"a.test\"]\nupstreams = [\"http://nowhere.invalid:80\"]\n";
    site.environment.write_routes("a.toml", route);
    let proxy = site.start();
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.status(), 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_speak_http_is_a_bad_gateway() {
    for nonsense in [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "",
    ] {
        let (listener, site) = site().await;
        let proxy = site.start();
        let answering = async {
            let mut upstream = accept(&listener).await;
            upstream.read_head().await;
            upstream.write(nonsense).await;
        };
        let client = site.client();
        let (response, ()) = tokio::join!(client.get(&proxy, "https://a.test/"), answering);
        assert_eq!(response.status(), 502, "{nonsense:?}");
        assert_is_own_page(&response);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_answer_times_out() {
    let (listener, site) = site().await;
    site.environment
        .write_config("[proxy]\nresponse-timeout = \"300ms\"\n");
    let proxy = site.start();
    let client = site.client();
    let listening = async {
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        upstream
    };
    let (response, mut upstream) = tokio::join!(client.get(&proxy, "https://a.test/"), listening);
    assert_eq!(response.status(), 504);
    assert_is_own_page(&response);
    assert_eq!(upstream.read_rest().await, "", "the request is given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_accept_times_out() {
    // Nobody accepts, and the queue of those who wait holds two: the third connection hangs.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let _queued = [
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    ];
    let site = Site::of("a.test", address);
    site.environment
        .write_config("[proxy]\nconnect-timeout = \"300ms\"\n");
    let proxy = site.start();
    let response = site.client().get(&proxy, "https://a.test/").await;
    assert_eq!(response.status(), 504);
    assert_is_own_page(&response);
}

/// The limit runs from the end of the request: a slow upload is not a slow upstream.
#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::disallowed_methods,
    reason = "the upload must last longer than the limit"
)]
async fn a_slow_upload_does_not_time_out() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    site.environment
        .write_config("[proxy]\nresponse-timeout = \"1s\"\n");
    let proxy = site.start();
    let client = site.client();
    let (mut sender, upload) = body::channel();
    let request = Request::post("https://a.test/").body(upload).unwrap();
    let uploading = async {
        sender.send_data("one".into()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        sender.send_data("two".into()).await.unwrap();
        drop(sender);
    };
    let (response, ()) = tokio::join!(client.fetch(&proxy, request), uploading);
    assert_eq!(response.status(), 200);
    assert!(response.body().ends_with("onetwo"), "{}", response.body());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_is_seen_to_break_off() {
    let (listener, site) = site().await;
    let proxy = site.start();
    for framing in [
        "Content-Length: 100\r\n\r\npart",
        "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    ] {
        for version in ["http/1.1", "h2"] {
            let client = site.client();
            let breaking = async {
                let mut upstream = accept(&listener).await;
                upstream.read_head().await;
                upstream.write(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
                upstream
            };
            let (mut response, upstream) = tokio::join!(send(&client, &proxy, version), breaking);
            assert_eq!(body::next_data(response.body_mut()).await.unwrap(), "part");
            drop(upstream);
            let rest = within(http_body_util::BodyExt::collect(response.into_body())).await;
            assert!(rest.is_err(), "{version} took {framing:?} for whole");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_learns_that_the_client_left_while_it_answers() {
    let (listener, site) = site().await;
    let proxy = site.start();
    for version in ["http/1.1", "h2"] {
        let client = site.client();
        let answering = async {
            let mut upstream = accept(&listener).await;
            upstream.read_head().await;
            upstream
                .write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
                .await;
            upstream
        };
        let (response, mut upstream) = tokio::join!(send(&client, &proxy, version), answering);
        drop((response, client));
        assert_eq!(upstream.read_rest().await, "", "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_learns_that_the_client_left_before_it_answers() {
    let (listener, site) = site().await;
    let proxy = site.start();
    for version in ["http/1.1", "h2"] {
        let client = site.client();
        let request = tokio::spawn({
            let stream = client.connect(proxy.https(), "a.test", &[version]).await.unwrap();
            request_on(stream, get("https://a.test/"))
        });
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        request.abort();
        assert_eq!(upstream.read_rest().await, "", "{version}");
    }
}

/// Else a half upload would be stored as a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_is_seen_to_break_off() {
    let (listener, site) = site().await;
    let proxy = site.start();
    for version in ["http/1.1", "h2"] {
        let (mut sender, upload) = body::channel();
        let stream = site
            .client()
            .connect(proxy.https(), "a.test", &[version])
            .await
            .unwrap();
        let request = Request::post("https://a.test/").body(upload).unwrap();
        let exchange = tokio::spawn(request_on(stream, request));
        sender.send_data("part".into()).await.unwrap();
        let mut upstream = accept(&listener).await;
        upstream.read_until("part").await;
        sender.abort("the disk is full".into());
        let rest = upstream.read_rest().await;
        assert!(
            !rest.contains("0\r\n"),
            "{version}: the upload ended as if it were whole: {rest:?}"
        );
        exchange.abort();
    }
}

/// An upstream may close an idle connection at the very moment a request is written to it. A GET can
/// be repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_get_on_a_connection_that_went_stale_is_repeated() {
    let upstream = Fickle::start().await;
    let site = Site::of("a.test", upstream.address);
    let proxy = site.start();
    for number in 0..20 {
        let response = site
            .client()
            .get(&proxy, &format!("https://a.test/{number}"))
            .await;
        assert_eq!(response.status(), 200);
        if upstream.heard(&format!("GET /{number} ")) == 2 {
            return;
        }
    }
    panic!("no connection was used again");
}

/// The upstream may have acted on it before it closed the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_never_sent_twice() {
    let upstream = Fickle::start().await;
    let site = Site::of("a.test", upstream.address);
    let proxy = site.start();
    for number in 0..20 {
        site.client().get(&proxy, "https://a.test/").await;
        let order = Request::post(format!("https://a.test/{number}"))
            .body(body::full("order"))
            .unwrap();
        let response = site.client().fetch(&proxy, order).await;
        assert_eq!(upstream.heard(&format!("POST /{number} ")), 1);
        if response.status() == 502 {
            return;
        }
        assert_eq!(response.status(), 200);
    }
    panic!("no connection was used again");
}

/// An upstream that answers the first request of each connection, hears the second, and hangs up.
struct Fickle {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Fickle {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let heard = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::converse(Wire::new(stream), heard.clone()));
            }
        });
        Self { address, heads }
    }

    async fn converse(mut wire: Wire<TcpStream>, heard: Arc<Mutex<Vec<String>>>) {
        for is_answered in [true, false] {
            let head = wire.read_head().await;
            if head.starts_with("POST ") {
                wire.read_until("order").await;
            }
            heard.lock().unwrap().push(head);
            if is_answered {
                wire.write(answered("ok")).await;
            }
        }
    }

    fn heard(&self, request: &str) -> usize {
        self.heads
            .lock()
            .unwrap()
            .iter()
            .filter(|head| head.starts_with(request))
            .count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_upstream_beside_a_living_one_is_not_noticed() {
    let living = Upstream::echoing().await;
    let site = Site::new();
    site.serve(&["a.test"], &[super::dead_end().await, living.address()]);
    let proxy = site.start();
    for number in 0..20 {
        let request = Request::post("https://a.test/")
            .body(body::full(format!("order {number}")))
            .unwrap();
        let response = site.client().fetch(&proxy, request).await;
        assert_eq!(response.status(), 200);
        assert!(
            response.body().ends_with(&format!("order {number}")),
            "{}",
            response.body()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_upstreams_share_the_work() {
    let upstreams = [Upstream::saying("1").await, Upstream::saying("2").await];
    let site = Site::new();
    site.serve(&["a.test"], &upstreams.each_ref().map(Upstream::address));
    let proxy = site.start();
    let client = site.client();
    let mut answers = std::collections::BTreeSet::new();
    // The chance that one of two is never chosen in 100 fair draws is below 10^-29.
    for _ in 0..100 {
        answers.insert(client.get(&proxy, "https://a.test/").await.into_body());
        if answers.len() == 2 {
            return;
        }
    }
    panic!("only {answers:?} answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_site_s_dead_upstream_leaves_the_others_unharmed() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    site.serve(&["b.test"], &[super::dead_end().await]);
    let proxy = site.start();
    assert_eq!(site.client().get(&proxy, "https://b.test/").await.status(), 502);
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_comes_back_is_used_at_once() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let site = Site::of("a.test", socket.local_addr().unwrap());
    let proxy = site.start();
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.status(), 502);
    let listener = socket.listen(8).unwrap();
    let answering = async { answer(&mut accept(&listener).await, "back").await };
    let client = site.client();
    let (response, ()) = tokio::join!(client.get(&proxy, "https://a.test/"), answering);
    assert_eq!(response.body(), "back");
}

async fn site() -> (TcpListener, Site) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    (listener, site)
}

async fn send(client: &Client, proxy: &Proxy, version: &str) -> Response<Incoming> {
    let stream = client.connect(proxy.https(), "a.test", &[version]).await.unwrap();
    request_on(stream, get("https://a.test/")).await
}

/// Reads one request without a body and answers it; the connection stays open.
async fn answer(upstream: &mut Wire<TcpStream>, text: &str) {
    upstream.read_head().await;
    upstream.write(answered(text)).await;
}

fn answered(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

/// Plain, small, and silent about what made it.
fn assert_is_own_page(response: &Response<String>) {
    let headers = response.headers();
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain"),
        "{headers:?}"
    );
    assert!(
        !response.body().is_empty() && response.body().len() < 500,
        "{}",
        response.body()
    );
    let shown = format!("{headers:?} {}", response.body()).to_lowercase();
    for secret in ["fairlead", "127.0.0.1", "hyper"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
