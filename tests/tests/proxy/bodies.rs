//! Bodies that are too large, and pages for errors that another service makes.

use fairlead_tests::{Proxy, Site, Upstream, Wire, accept, body, get, within};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_have_its_limit_and_not_a_byte_more() {
    let upstream = Upstream::echoing().await;
    let site = Site::new();
    site.serve_with(&["a.test"], &[upstream.address()], "max-body = \"10\"\n");
    let proxy = site.start();
    for (head, text, status) in [
        ("Content-Length: 10", "0123456789", "200"),
        ("Content-Length: 11", "", "413"),
        ("Content-Length: 11\r\nExpect: 100-continue", "", "413"),
        (
            "Transfer-Encoding: chunked",
            "a\r\n0123456789\r\n0\r\n\r\n",
            "200",
        ),
        (
            "Transfer-Encoding: chunked",
            "a\r\n0123456789\r\n1\r\nx\r\n",
            "413",
        ),
        ("Transfer-Encoding: chunked", "b\r\n0123456789x\r\n", "413"),
    ] {
        let answer = post(&site, &proxy, head, text).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head} {text:?}: {answer}"
        );
    }
    let mut h2 = site.client().h2(&proxy, "a.test").await;
    for (length, status) in [(10, 200), (11, 413)] {
        let request = Request::post("https://a.test/")
            .body(body::full("x".repeat(length)))
            .unwrap();
        assert_eq!(within(h2.send_request(request)).await.unwrap().status(), status);
        let (mut pieces, unsized_body) = body::channel();
        let request = Request::post("https://a.test/").body(unsized_body).unwrap();
        let exchange = h2.send_request(request);
        let upload = async {
            for _ in 0..length {
                // The proxy may have had enough.
                let _ = pieces.send_data("x".into()).await;
            }
            drop(pieces);
        };
        let (response, ()) = within(async { tokio::join!(exchange, upload) }).await;
        assert_eq!(response.unwrap().status(), status);
    }
}

/// The system would reset a connection on which something is unread, and the answer be lost on its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_on_hears_that_its_body_is_too_large() {
    let site = Site::new();
    let upstream = Upstream::echoing().await;
    site.serve_with(&["a.test"], &[upstream.address()], "max-body = \"10\"\n");
    let proxy = site.start();
    let client = site.client();
    let connected = client.connect(proxy.https(), "a.test", &["http/1.1"]).await;
    let mut client = Wire::new(connected.unwrap());
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    client.write([head, &chunk.repeat(100)].concat()).await;
    let answer = client.read_head().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

/// It could send for long what nobody wants to have.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_request_fails_while_it_sends_hears_that_nothing_more_is_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    let proxy = site.start();
    for (status, is_last) in [("403 Forbidden", true), ("200 OK", false)] {
        let client = site.client();
        let connected = client.connect(proxy.https(), "a.test", &["http/1.1"]).await;
        let mut client = Wire::new(connected.unwrap());
        client
            .write("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nbegin")
            .await;
        let mut upstream = accept(&listener).await;
        upstream.read_until("begin").await;
        upstream
            .write(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
            .await;
        let answer = client.read_head().await;
        assert_eq!(answer.contains("\r\nconnection: close\r\n"), is_last, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_too_much_does_no_harm_to_the_upstream_s_reputation() {
    let upstreams = [Upstream::echoing().await, Upstream::echoing().await];
    let site = Site::new();
    let addresses = upstreams.each_ref().map(Upstream::address);
    site.serve_with(&["a.test"], &addresses, "max-body = \"1\"\nsticky = \"place\"\n");
    let proxy = site.start();
    let first = site.client().get(&proxy, "https://a.test/").await;
    let cookie = first.headers()["set-cookie"]
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    for _ in 0..3 {
        let head = format!("Cookie: {cookie}\r\nTransfer-Encoding: chunked");
        let answer = post(&site, &proxy, &head, "2\r\nxx\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    let again = Request::get("https://a.test/")
        .header("cookie", cookie)
        .body(body::empty())
        .unwrap();
    let again = site.client().fetch(&proxy, again).await;
    assert!(
        !again.headers().contains_key("set-cookie"),
        "the upstream was thought to be failing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_service_makes_the_pages_of_errors() {
    let pages = Upstream::start(|request: Request<Incoming>| async move {
        let page = Response::builder()
            .header("content-type", "text/html")
            .header("x-of-page", "1");
        let status = if request.uri().path() == "/none" { 404 } else { 200 };
        let text = format!("{} {}", request.method(), request.uri());
        page.status(status).body(body::full(text)).unwrap()
    })
    .await;
    let upstream = Upstream::start(|request: Request<Incoming>| async move {
        let status: u16 = request.headers()["x-status"].to_str().unwrap().parse().unwrap();
        let response = Response::builder()
            .status(StatusCode::from_u16(status).unwrap())
            .header("content-type", "text/plain")
            .header("www-authenticate", "Basic");
        response.body(body::full("original")).unwrap()
    })
    .await;
    let site = Site::new();
    let pages = pages.address();
    let dead = super::dead_end().await;
    let errors = format!(
        "errors = [{{ status = \"404\", url = \"http://{pages}\" }}, {{ status = \"401\", url = \"http://{pages}/sorry?x\" }}, \
         {{ status = \"500\", url = \"http://{dead}/\" }}, {{ status = \"500-599\", url = \"http://{pages}/own\" }}]\n"
    );
    site.serve_with(&["a.test"], &[upstream.address()], &errors);
    site.serve_with(&["dead.test"], &[dead], &errors);
    let proxy = site.start();
    for (path, status, content, text) in [
        ("/x?y", 404, "text/html", "GET /x?y"),
        ("/none", 404, "text/plain", "original"),
        ("/x", 401, "text/html", "GET /sorry?x"),
        ("/x", 500, "text/plain", "original"),
        ("/x", 403, "text/plain", "original"),
        ("/x", 200, "text/plain", "original"),
    ] {
        let request = Request::post(format!("https://a.test{path}"))
            .header("x-status", status.to_string())
            .body(body::full("sent"))
            .unwrap();
        let response = site.client().fetch(&proxy, request).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], content, "{path} {status}");
        assert_eq!(response.headers()["www-authenticate"], "Basic");
        assert!(!response.headers().contains_key("x-of-page"));
        assert_eq!(response.body(), text);
    }
    let ours = site.client().fetch(&proxy, get("https://dead.test/")).await;
    assert_eq!((ours.status().as_u16(), ours.body().as_str()), (502, "GET /own"));
}

/// One POST over HTTP/1.1, byte by byte, and what comes back until the proxy closes.
async fn post(site: &Site, proxy: &Proxy, head: &str, text: &str) -> String {
    let stream = site
        .client()
        .connect(proxy.https(), "a.test", &["http/1.1"])
        .await
        .unwrap();
    let mut wire = Wire::new(stream);
    wire.write(format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{head}\r\n\r\n{text}"
    ))
    .await;
    wire.read_rest().await
}
