//! What is compressed on its way, how, and what is left alone.

use std::io::Read;

use bytes::Bytes;
use fairlead_tests::{Proxy, Site, Upstream, body, get, within};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::mpsc;

const ENCODINGS: [&str; 3] = ["gzip", "br", "zstd"];

#[tokio::test(flavor = "multi_thread")]
async fn text_is_compressed_as_the_client_accepts_it() {
    let text: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
    let (proxy, site) = serving(
        text.clone().into(),
        &[
            ("content-type", "text/html; charset=utf-8"),
            ("etag", "\"tag\""),
            ("vary", "cookie"),
            ("accept-ranges", "bytes"),
        ],
    )
    .await;
    for encoding in ENCODINGS {
        let response = fetch(&site, &proxy, encoding).await;
        let headers = response.headers();
        assert_eq!(headers["content-encoding"], encoding);
        assert_eq!(headers["etag"], "W/\"tag\"");
        assert!(!headers.contains_key("accept-ranges"));
        let vary: Vec<_> = headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["cookie", "accept-encoding"]);
        let compressed = within(response.into_body().collect()).await.unwrap().to_bytes();
        assert!(
            compressed.len() < text.len() / 2,
            "{} bytes of {encoding}",
            compressed.len()
        );
        assert!(decode(encoding, &compressed) == text.as_bytes(), "{encoding}");
    }
    let plain = fetch(&site, &proxy, "identity").await;
    assert!(!plain.headers().contains_key("content-encoding"));
    assert_eq!(plain.headers()["etag"], "\"tag\"");
    assert_eq!(
        plain.headers().get_all("vary").iter().count(),
        2,
        "a cache must know that it depends"
    );
    assert_eq!(plain.headers()["content-length"], text.len().to_string());
    let head = Request::head("https://a.test/").header("accept-encoding", "gzip");
    let head = site
        .client()
        .fetch(&proxy, head.body(body::empty()).unwrap())
        .await;
    assert_eq!(
        (
            head.headers()["content-encoding"].as_bytes(),
            head.body().as_str()
        ),
        (&b"gzip"[..], "")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_touched_is_not() {
    let long = "x".repeat(1000);
    let text = ("content-type", "text/plain");
    for (content, fields) in [
        (long.as_str(), vec![("content-type", "text/event-stream")]),
        (&long, vec![("content-type", "image/png")]),
        (&long, vec![]),
        (&long, vec![text, ("content-encoding", "x-own")]),
        (&long, vec![text, ("cache-control", "public, no-transform")]),
        (
            &long,
            vec![text, (":status", "206"), ("content-range", "bytes 0-999/2000")],
        ),
        (&long, vec![text, ("content-digest", "sha-256=:x:")]),
        (&long, vec![text, ("repr-digest", "sha-256=:x:")]),
        ("short", vec![text]),
    ] {
        let (proxy, site) = serving(content.to_owned().into(), &fields).await;
        let response = body::read_response(fetch(&site, &proxy, "gzip").await).await;
        assert_eq!(response.body(), content, "{fields:?}");
        assert!(!response.headers().contains_key("vary"), "{fields:?}");
    }
}

/// RFC 9111 5.2.1.6.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_ask_for_what_the_upstream_sends() {
    let long = "x".repeat(1000);
    let (proxy, site) = serving(long.clone().into(), &[("content-type", "text/plain")]).await;
    let request = Request::get("https://a.test/")
        .header("accept-encoding", "gzip")
        .header("cache-control", "no-transform");
    let response = site
        .client()
        .fetch(&proxy, request.body(body::empty()).unwrap())
        .await;
    assert_eq!(response.body(), &long);
    assert_eq!(response.headers()["vary"], "accept-encoding");
}

/// RFC 9110 15.4.5.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_described_as_when_it_was_sent() {
    let (proxy, site) = serving(Bytes::new(), &[(":status", "304"), ("etag", "\"tag\"")]).await;
    for known in ["W/\"tag\"", "\"tag\""] {
        let request = Request::get("https://a.test/")
            .header("accept-encoding", "gzip")
            .header("if-none-match", known);
        let response = site
            .client()
            .fetch(&proxy, request.body(body::empty()).unwrap())
            .await;
        assert_eq!(response.status(), 304);
        assert_eq!(response.headers()["etag"], known);
        assert_eq!(response.headers()["vary"], "accept-encoding");
    }
}

/// RFC 9110 9.3.2.
#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_the_answer_to_head_has_no_content_either() {
    let (proxy, site) = serving("x".repeat(1000).into(), &[("content-type", "text/plain")]).await;
    let mut client = site.client().h2(&proxy, "a.test").await;
    // The second is a page of our own.
    for (host, status) in [("a.test", 200), ("b.test", 421)] {
        let request = Request::head(format!("https://{host}/")).header("accept-encoding", "gzip");
        let response = within(client.send_request(request.body(body::empty()).unwrap())).await;
        let mut response = response.unwrap();
        assert_eq!(response.status(), status);
        let is_over = response.body().is_end_stream() || response.body_mut().frame().await.is_none();
        assert!(is_over, "{host}: content behind HEAD");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_compressed_that_was_not_asked_for() {
    let content = "x".repeat(1000);
    let text = content.clone();
    let upstream = Upstream::start(move |_| {
        let text = text.clone();
        async move {
            Response::builder()
                .header("content-type", "text/plain")
                .body(body::full(text))
                .unwrap()
        }
    })
    .await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let response = body::read_response(fetch(&site, &proxy, "gzip").await).await;
    assert_eq!(response.body(), &content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_does_not_wait_for_the_next() {
    let (pieces, mut upstream_side) = mpsc::unbounded_channel();
    let upstream = Upstream::start(move |_| {
        let (sender, content) = body::channel();
        pieces.send(sender).unwrap();
        async move {
            Response::builder()
                .header("content-type", "text/plain")
                .body(content)
                .unwrap()
        }
    })
    .await;
    let site = Site::new();
    site.serve_with(&["a.test"], &[upstream.address()], "compress = true\n");
    let proxy = site.start();
    for encoding in ENCODINGS {
        let mut response = fetch(&site, &proxy, encoding).await;
        let mut sender = within(upstream_side.recv()).await.unwrap();
        let mut compressed = Vec::new();
        for piece in ["one ", "two ", "three"] {
            within(sender.send_data(piece.into())).await.unwrap();
            let before = compressed.len();
            while !readable(encoding, &compressed).ends_with(piece.as_bytes()) {
                compressed.extend(body::next_data(response.body_mut()).await.unwrap());
            }
            assert!(compressed.len() > before, "{encoding} {piece}");
        }
        within(sender.send(body::trailer("x-trailer", "end")))
            .await
            .unwrap();
        drop(sender);
        while let Some(frame) = within(response.body_mut().frame()).await {
            match frame.unwrap().into_data() {
                Ok(data) => compressed.extend(data),
                Err(frame) => assert_eq!(frame.trailers_ref().unwrap()["x-trailer"], "end"),
            }
        }
        assert_eq!(decode(encoding, &compressed), b"one two three");
    }
}

/// A route with `compress` whose upstream answers with this content and these fields.
async fn serving(content: Bytes, fields: &[(&'static str, &'static str)]) -> (Proxy, Site) {
    let fields = fields.to_vec();
    let upstream = Upstream::start(move |_| {
        let mut response = Response::new(body::full(content.clone()));
        for (name, value) in &fields {
            match name.strip_prefix(':') {
                Some(_) => *response.status_mut() = value.parse().unwrap(),
                None => drop(response.headers_mut().insert(*name, value.parse().unwrap())),
            }
        }
        async move { response }
    })
    .await;
    let site = Site::new();
    site.serve_with(&["a.test"], &[upstream.address()], "compress = true\n");
    (site.start(), site)
}

async fn fetch(site: &Site, proxy: &Proxy, encoding: &str) -> Response<Incoming> {
    let mut request = get("https://a.test/");
    request
        .headers_mut()
        .insert("accept-encoding", encoding.parse().unwrap());
    let mut h1 = site.client().h1(proxy, "a.test").await;
    site.client().send(&mut h1, request).await
}

fn decode(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    decoder(encoding, bytes).read_to_end(&mut decoded).unwrap();
    decoded
}

/// What can be read of content that is not whole yet.
fn readable(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut decoder = decoder(encoding, bytes);
    let mut decoded = Vec::new();
    let mut byte = [0];
    while decoder.read(&mut byte).is_ok_and(|count| count > 0) {
        decoded.push(byte[0]);
    }
    decoded
}

fn decoder<'a>(encoding: &str, bytes: &'a [u8]) -> Box<dyn Read + 'a> {
    match encoding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        _ => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
    }
}
