//! What is spoken with upstreams, and how they are told from impostors.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use fairlead_tests::{Body, Proxy, Site, Transport, Upstream, Wire, body, get, within};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[tokio::test(flavor = "multi_thread")]
async fn each_protocol_reaches_its_upstream() {
    let site = Site::new();
    let pair = site.authority.issue(&["up.test"]);
    let socket = site.environment.root().join("app.sock");
    Upstream::echoing_at(&socket);
    let over = async |scheme: &str, transport| {
        let address = Upstream::echoing_over(transport).await.address();
        format!(
            "{{ url = \"{scheme}://{address}\"{} }}",
            if scheme.contains("2c") {
                ""
            } else {
                ", verify = false"
            }
        )
    };
    let upstreams = [
        ("unix", format!("\"unix:{}\"", socket.display()), "HTTP/1.1"),
        ("h2c", over("h2c", Transport::Http2).await, "HTTP/2.0"),
        (
            "https",
            over("https", Transport::Tls(pair.clone())).await,
            "HTTP/1.1",
        ),
        ("h2", over("h2", Transport::Http2Tls(pair)).await, "HTTP/2.0"),
    ];
    for (name, upstream, _) in &upstreams {
        serve(&site, &format!("{name}.test"), upstream);
    }
    let proxy = site.start();
    for (name, _, version) in upstreams {
        for _ in 0..2 {
            let request = Request::post(format!("https://{name}.test/x?q"))
                .body(body::full("sent"))
                .unwrap();
            let echo = site.client().fetch(&proxy, request).await.into_body();
            let target = if version == "HTTP/2.0" {
                format!("//{name}.test/x?q")
            } else {
                "/x?q".to_owned()
            };
            let (line, _) = echo.split_once('\n').unwrap();
            assert!(
                line.starts_with("POST ") && line.ends_with(&format!("{target} {version}")),
                "{name}: {echo}"
            );
            assert!(echo.ends_with("\n\nsent"), "{name}: {echo}");
            assert!(
                echo.contains(&format!("x-forwarded-host: {name}.test\n")),
                "{name}: {echo}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_s_certificate_must_be_the_expected_one() {
    let site = Site::new();
    let pair = site.authority.issue(&["up.test"]);
    let address = Upstream::echoing_over(Transport::Tls(pair)).await.address();
    let roots = site.environment.paths().config.join("roots.pem");
    fairlead_contract::write_atomically(&roots, site.authority.root().as_bytes(), 0o644).unwrap();
    let url = format!("url = \"https://localhost:{}\"", address.port());
    let ours = format!("ca-file = \"{}\"", roots.display());
    for (host, identity) in [
        ("right.test", format!("{ours}, server-name = \"up.test\"")),
        ("name.test", format!("{ours}, server-name = \"other.test\"")),
        ("host.test", ours),
        ("system.test", "server-name = \"up.test\"".to_owned()),
        ("any.test", "verify = false".to_owned()),
    ] {
        serve(&site, host, &format!("{{ {url}, {identity} }}"));
    }
    let proxy = site.start();
    for (host, expected) in [
        ("right.test", 200),
        ("name.test", 502),
        ("host.test", 502),
        ("system.test", 502),
        ("any.test", 200),
    ] {
        assert_eq!(status(&site, &proxy, host).await, expected, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_authorities_is_one_of_the_files_that_a_reload_reads() {
    let site = Site::new();
    let pair = site.authority.issue(&["up.test"]);
    let address = Upstream::echoing_over(Transport::Tls(pair)).await.address();
    let roots = site.environment.paths().config.join("roots.pem");
    let write = |text: &str| fairlead_contract::write_atomically(&roots, text.as_bytes(), 0o644).unwrap();
    write(&fairlead_tests::Authority::new().root());
    let upstream = format!(
        "{{ url = \"https://{address}\", ca-file = \"{}\", server-name = \"up.test\" }}",
        roots.display()
    );
    serve(&site, "a.test", &upstream);
    let proxy = site.start();
    assert_eq!(status(&site, &proxy, "a.test").await, 502);
    assert!(proxy.status().loaded.files.contains_key(&roots));
    write("no certificate");
    let refused = proxy.reload();
    assert!(
        refused.contains("roots.pem: it holds no certificate"),
        "{refused}"
    );
    write(&site.authority.root());
    proxy.reload();
    assert_eq!(status(&site, &proxy, "a.test").await, 200);
}

/// As gRPC ends its answers: the status is in the trailers.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_http_2_upstream_reach_an_http_2_client() {
    let upstream = Upstream::speaking(Transport::Http2, |request: Request<Incoming>| async move {
        assert_eq!(request.headers()["te"], "trailers");
        let sent = request.into_body().collect().await.unwrap().to_bytes();
        let frames = [Frame::data(sent), body::trailer("grpc-status", "0")];
        Response::new(frames_of(frames.into()))
    })
    .await;
    let site = Site::new();
    serve(&site, "a.test", &format!("\"h2c://{}\"", upstream.address()));
    let proxy = site.start();
    let mut h2 = site.client().h2(&proxy, "a.test").await;
    for _ in 0..3 {
        let request = Request::post("https://a.test/service/method")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body::full("message"))
            .unwrap();
        let response = within(h2.send_request(request)).await.unwrap();
        let (text, trailers) = body::read(response.into_body()).await;
        assert_eq!(text, "message");
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    }
    assert_eq!(upstream.connections(), 1, "one connection carries them all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_to_an_http_2_upstream_is_not_implemented() {
    let upstream = Upstream::echoing_over(Transport::Http2).await;
    let site = Site::new();
    serve(&site, "a.test", &format!("\"h2c://{}\"", upstream.address()));
    let proxy = site.start();
    let request = Request::get("https://a.test/")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(body::empty())
        .unwrap();
    assert_eq!(site.client().fetch(&proxy, request).await.status(), 501);
}

fn frames_of(frames: Vec<Frame<Bytes>>) -> Body {
    let frames = futures_util::stream::iter(frames.into_iter().map(Ok::<_, Infallible>));
    StreamBody::new(frames).map_err(|never| match never {}).boxed()
}

/// Declares a route to an upstream in the words of TOML, with its own certificate.
fn serve(site: &Site, host: &str, upstream: &str) {
    site.certify(&[host]);
    let route = format!("[[route]]\nhosts = [\"{host}\"]\nupstreams = [{upstream}]\n");
    site.environment.write_routes(&format!("{host}.toml"), &route);
}

async fn status(site: &Site, proxy: &Proxy, host: &str) -> u16 {
    let response = site.client().fetch(proxy, get(&format!("https://{host}/"))).await;
    response.status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_keeps_a_client_with_its_upstream() {
    let upstreams = [Upstream::saying("one").await, Upstream::saying("two").await];
    let site = Site::new();
    let addresses = upstreams.each_ref().map(Upstream::address);
    site.serve_with(&["a.test"], &addresses, "sticky = \"place\"\n");
    let proxy = site.start();
    let ask = async |cookie: &str| {
        let request = Request::get("https://a.test/").header("cookie", cookie);
        let request = request.body(body::empty()).unwrap();
        site.client().fetch(&proxy, request).await
    };
    let first = ask("other=1").await;
    let set = first.headers()["set-cookie"].to_str().unwrap();
    let (cookie, attributes) = set.split_once(';').unwrap();
    assert_eq!(attributes, " Path=/; HttpOnly; SameSite=Lax; Secure");
    for _ in 0..20 {
        let again = ask(&format!("other=1; {cookie}")).await;
        assert_eq!(again.body(), first.body());
        assert!(!again.headers().contains_key("set-cookie"));
    }
    let unknown = ask("place=unknown").await;
    assert!(unknown.headers().contains_key("set-cookie"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_off_is_replaced_for_what_may_be_repeated() {
    let breaking = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = breaking.local_addr().unwrap();
    let (heard, mut hearing) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let mut wire = Wire::new(breaking.accept().await.unwrap().0);
            heard.send(wire.read_head().await).unwrap();
        }
    });
    let living = Upstream::saying("alive").await;
    let site = Site::new();
    site.serve(&["b.test"], &[dead, living.address()]);
    let proxy = site.start();
    for _ in 0..20 {
        assert_eq!(site.client().get(&proxy, "https://b.test/").await.body(), "alive");
    }
    assert!(
        hearing.try_recv().is_ok(),
        "of 20 draws one went to the broken one first"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_s_own_limit_holds_for_it_alone() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let slow = Upstream::start(|_| async {
        // Longer than the other route's limit, shorter than any deadline.
        let _ = tokio::time::timeout(Duration::from_millis(600), std::future::pending::<()>()).await;
        Response::new(body::full("late"))
    })
    .await;
    let site = Site::new();
    site.serve_with(&["a.test"], &[address], "response-timeout = \"200ms\"\n");
    site.serve(&["b.test"], &[slow.address()]);
    let proxy = site.start();
    assert_eq!(status(&site, &proxy, "a.test").await, 504);
    assert_eq!(status(&site, &proxy, "b.test").await, 200);
}
