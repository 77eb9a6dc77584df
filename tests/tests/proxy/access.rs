//! Who may come in: by address, by password, by the word of another program.

use fairlead_tests::{Proxy, Site, Transport, Upstream, body, get, within};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

/// Of the password `open sesame`.
const BCRYPT: &str = "ann:$2b$04$X5LGU9quztj5nSK9QO90LOOJnCqGPwuZPLnf7MmVFvjQMe1t5IJKu";
const ARGON2: &str =
    "bob:$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$qOeDkc0QMHiUu6N+tlcskqjgE1DGFvsKpDFla7aoXGA";

#[tokio::test(flavor = "multi_thread")]
async fn addresses_decide_before_anything_else() {
    let upstream = Upstream::saying("a").await;
    let site = Site::new();
    for (host, keys) in [
        ("allowed.test", "allow = [\"127.0.0.1\", \"fd00::/8\"]\n"),
        (
            "other.test",
            "allow = [\"10.0.0.0/8\"]\nresponse-headers = [{ add = \"X-A\", value = \"1\" }]\n",
        ),
        ("denied.test", "deny = [\"127.0.0.0/8\"]\n"),
        ("both.test", "allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.1\"]\n"),
    ] {
        site.serve_with(&[host], &[upstream.address()], keys);
    }
    let proxy = site.start();
    for (host, status) in [
        ("allowed.test", 200),
        ("other.test", 403),
        ("denied.test", 403),
        ("both.test", 403),
    ] {
        let response = site.client().get(&proxy, &format!("https://{host}/")).await;
        assert_eq!(response.status(), status, "{host}");
        assert_eq!(response.headers().contains_key("x-a"), host == "other.test");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_behind_a_trusted_proxy_is_judged_by_its_own_address() {
    let site = Site::new();
    let upstream = Upstream::saying("a").await;
    site.serve_with(&["a.test"], &[upstream.address()], "allow = [\"192.0.2.0/24\"]\n");
    site.environment
        .write_config("[proxy]\ntrusted-proxies = [\"127.0.0.1\"]\n");
    let proxy = site.start();
    for (forwarded, status) in [
        ("192.0.2.7", 200),
        ("198.51.100.1", 403),
        ("192.0.2.7, 198.51.100.1", 403),
    ] {
        let response = ask(&site, &proxy, &[("x-forwarded-for", forwarded)]).await;
        assert_eq!(response.status(), status, "{forwarded}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_opens_and_is_not_passed_on() {
    let site = Site::new();
    let upstream = Upstream::echoing().await;
    let keys = format!("basic-auth = [\"{BCRYPT}\", \"{ARGON2}\"]\nhsts = \"max-age=60\"\n");
    site.serve_with(&["a.test"], &[upstream.address()], &keys);
    let proxy = site.start();
    // ann and bob, both with "open sesame".
    for right in ["Basic YW5uOm9wZW4gc2VzYW1l", "basic Ym9iOm9wZW4gc2VzYW1l"] {
        for _ in 0..2 {
            let response = ask(&site, &proxy, &[("authorization", right)]).await;
            assert_eq!(response.status(), 200, "{right}");
            assert!(!response.body().contains("authorization"), "{}", response.body());
        }
    }
    // Nothing, ann with "wrong", nobody with "open sesame", a token.
    for wrong in [
        &[][..],
        &[("authorization", "Basic YW5uOndyb25n")],
        &[("authorization", "Basic bm9ib2R5Om9wZW4gc2VzYW1l")],
        &[("authorization", "Bearer YW5uOm9wZW4gc2VzYW1l")],
    ] {
        let connections = upstream.connections();
        let response = ask(&site, &proxy, wrong).await;
        assert_eq!(response.status(), 401, "{wrong:?}");
        assert_eq!(
            response.headers()["www-authenticate"],
            "Basic realm=\"a.test\", charset=\"UTF-8\""
        );
        assert!(response.headers().contains_key("strict-transport-security"));
        assert_eq!(upstream.connections(), connections);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_decides_and_names_the_user() {
    let authority = Upstream::speaking(Transport::Http1, authorize).await;
    let site = Site::new();
    let upstream = Upstream::echoing().await;
    let keys = format!(
        "forward-auth = {{ url = \"http://{}/verify?x\", copy-headers = [\"Remote-User\", \"Remote-Groups\"] }}\n",
        authority.address()
    );
    site.serve_with(&["a.test"], &[upstream.address()], &keys);
    let proxy = site.start();
    let mut h2 = site.client().h2(&proxy, "a.test").await;
    for _ in 0..2 {
        let request = Request::post("https://a.test/x?y=1")
            .header("cookie", "session=ann")
            .header("remote-user", "forged")
            // The program says nothing of groups.
            .header("remote-groups", "forged")
            .body(body::full("sent"))
            .unwrap();
        let response = within(h2.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        let echo = body::read(response.into_body()).await.0;
        assert!(echo.starts_with("POST /x?y=1 "), "{echo}");
        assert!(
            echo.contains("remote-user: ann\n") && !echo.contains("forged"),
            "{echo}"
        );
        assert!(echo.ends_with("\n\nsent"), "{echo}");
    }
    let again = [
        ("cookie", "session=ann"),
        ("if-none-match", "\"seen\""),
        ("range", "bytes=0-1"),
    ];
    let echo = ask(&site, &proxy, &again).await;
    assert_eq!(echo.status(), 200);
    let passed_on = ["if-none-match: \"seen\"\n", "range: bytes=0-1\n"];
    assert!(
        passed_on.iter().all(|field| echo.body().contains(field)),
        "{}",
        echo.body()
    );
    let hiding = [
        ("cookie", "session=ann"),
        ("connection", "remote-user"),
        ("remote-user", "forged"),
    ];
    let echo = ask(&site, &proxy, &hiding).await.into_body();
    assert!(
        echo.contains("remote-user: ann\n") && !echo.contains("forged"),
        "{echo}"
    );
    let stranger = ask(&site, &proxy, &[("remote-user", "forged")]).await;
    assert_eq!(stranger.status(), 302);
    assert_eq!(
        stranger.headers()["location"],
        "https://login.test/?rd=https://a.test/"
    );
    assert_eq!(stranger.body(), "log in first");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_asked_lets_nobody_in() {
    let site = Site::new();
    let upstream = Upstream::saying("a").await;
    let keys = format!(
        "forward-auth = {{ url = \"http://{}/\" }}\n",
        super::dead_end().await
    );
    site.serve_with(&["a.test"], &[upstream.address()], &keys);
    let proxy = site.start();
    assert_eq!(ask(&site, &proxy, &[]).await.status(), 502);
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    assert_eq!(ask(&site, &proxy, &upgrade).await.status(), 502);
    assert_eq!(upstream.connections(), 0);
}

/// Lets those pass who bring a session, and sends the others to log in.
async fn authorize(request: Request<Incoming>) -> Response<fairlead_tests::Body> {
    let field = |name: &str| {
        let value = request.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    assert_eq!(
        (request.method().as_str(), request.uri().to_string().as_str()),
        ("GET", "/verify?x")
    );
    assert_eq!(field("x-forwarded-for"), "127.0.0.1");
    // As a server does that knows its page of the user.
    if !(field("if-none-match") + &field("range")).is_empty() {
        return Response::builder().status(304).body(body::empty()).unwrap();
    }
    if field("cookie") == "session=ann" {
        let asked = format!("{} {}", field("x-forwarded-method"), field("x-forwarded-uri"));
        assert!(["POST /x?y=1", "GET /"].contains(&asked.as_str()), "{asked}");
        let response = Response::builder().header("remote-user", "ann");
        return response.body(body::empty()).unwrap();
    }
    let page = format!(
        "{}://{}{}",
        field("x-forwarded-proto"),
        field("x-forwarded-host"),
        field("x-forwarded-uri")
    );
    Response::builder()
        .status(StatusCode::FOUND)
        .header("location", format!("https://login.test/?rd={page}"))
        .body(body::full("log in first"))
        .unwrap()
}

async fn ask(site: &Site, proxy: &Proxy, fields: &[(&str, &str)]) -> Response<String> {
    let mut request = get("https://a.test/");
    for (name, value) in fields {
        let name = http::HeaderName::try_from(*name).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    site.client().fetch(proxy, request).await
}
