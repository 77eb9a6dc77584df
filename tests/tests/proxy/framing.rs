//! Requests whose end could be read in two ways never reach an upstream that way (RFC 9112 6.3 and 11.2).

use std::fmt::Write;

use fairlead_tests::{Proxy, Site, Upstream, Wire};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_lengths_is_refused_and_the_connection_closed() {
    refuses(&[
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "Content-Length: 5, 6\r\n\r\nabcdef",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_length_and_a_coding_is_refused_and_nothing_behind_it_is_read() {
    refuses(&[
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /behind HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /behind HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ])
    .await;
}

/// The same on a connection that has carried requests with bodies before.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_behind_a_body_is_judged_like_a_first_request() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    let head = "POST /1 HTTP/1.1\r\nHost: a.test\r\n";
    let ambiguous = "POST /2 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for body in [
        "Content-Length: 3\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let answer = ask(&site, &proxy, &format!("{head}{body}{ambiguous}")).await;
        assert!(answer.contains("POST /1 "), "{answer}");
        assert!(answer.contains("HTTP/1.1 400 "), "{answer}");
        assert!(!answer.contains("POST /2 "), "{answer}");
    }
}

/// RFC 9110 6.2 and 15.6.6.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_minor_version_is_read_as_1_1_and_another_major_one_is_not_supported() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let request = |version| format!("GET / {version}\r\nHost: a.test\r\n");
    for version in ["HTTP/1.2", "HTTP/1.9"] {
        let answer = ask(
            &site,
            &proxy,
            &format!("{}Connection: close\r\n\r\n", request(version)),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{version}: {answer}");
    }
    let connections = upstream.connections();
    for version in ["HTTP/0.9", "HTTP/2.0", "HTTP/3.0"] {
        let twice = format!("{0}\r\n{0}\r\n", request(version));
        let answer = ask(&site, &proxy, &twice).await;
        assert_eq!(answer.matches("HTTP/1.1 505 ").count(), 1, "{version}: {answer}");
    }
    for version in [
        "HTTP/1.10",
        "HTTP/1",
        "HTTP/2",
        "http/1.1",
        "HTTP/11.1",
        "HTPP/2.0",
    ] {
        let answer = ask(&site, &proxy, &format!("{}\r\n", request(version))).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{version}: {answer}");
    }
    assert_eq!(upstream.connections(), connections);
}

/// What undoes chunks cannot undo gzip, and the upstream would not learn of it (RFC 9112 6.1).
#[tokio::test(flavor = "multi_thread")]
async fn a_coding_beside_chunked_is_not_implemented() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let request = "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    let answer = ask(&site, &proxy, request).await;
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
    assert_eq!(upstream.connections(), 0);
}

/// Who asks for what could mean two things may have more of it behind.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_behind_a_request_without_one_host_or_with_chunks_in_chunks() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for fields in [
        "",
        "Host: a.test\r\nHost: a.test\r\n",
        "Host: a.test\r\nTransfer-Encoding: chunked, chunked\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\n{fields}\r\n0\r\n\r\n");
        let answer = ask(&site, &proxy, &request.repeat(2)).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{fields}: {answer}");
    }
    assert_eq!(upstream.connections(), 0);
}

/// RFC 9112 3, whatever its length.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_too_long_is_told_as_that() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for length in [70_000, 1 << 20] {
        let request = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "a".repeat(length));
        let answer = ask(&site, &proxy, &request).await;
        assert!(answer.starts_with("HTTP/1.1 414 "), "{length}: {answer}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_is_no_number_is_refused() {
    refuses(&[
        "Content-Length: +5\r\n\r\nabcde",
        "Content-Length: -1\r\n\r\nabcde",
        "Content-Length: 0x5\r\n\r\nabcde",
        "Content-Length: 5 5\r\n\r\nabcde",
        "Content-Length: 99999999999999999999999\r\n\r\nabcde",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coding_that_does_not_end_with_chunked_is_refused() {
    refuses(&[
        "Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_read_differently_elsewhere_are_refused() {
    refuses(&[
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "X-Folded: 1\r\n Content-Length: 5\r\n\r\nabcde",
        "X-Null: a\0b\r\n\r\n",
        ": empty name\r\n\r\n",
        "no colon\r\n\r\n",
        "X-Return: a\rb\r\n\r\n",
        "X-Line: a\nContent-Length: 5\r\n\r\nabcde",
    ])
    .await;
}

/// Some would take it for a part of the path, and it has no place in a target (RFC 9112 3.2).
#[tokio::test(flavor = "multi_thread")]
async fn a_fragment_is_refused() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let answer = ask(&site, &proxy, "GET /a#b HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_heads_are_refused() {
    let mut many = String::new();
    for number in 0..5000 {
        write!(many, "X-{number}: 1\r\n").unwrap();
    }
    let long = format!("X-Long: {}\r\n", "a".repeat(1 << 20));
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for headers in [many, long] {
        let answer = ask(
            &site,
            &proxy,
            &format!("GET / HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n"),
        )
        .await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(upstream.connections(), 0);
}

/// A chunk that is not one ends the exchange; what was announced as a body never becomes a second request.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_chunk_does_not_turn_into_a_request() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    for chunks in [
        "5\r\nabc\r\n0\r\n\r\n",
        "zz\r\nabc\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "fffffffffffffffff\r\n",
        "5;\u{0}\r\nabcde\r\n0\r\n\r\n",
    ] {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = ask(&site, &proxy, &format!("{head}{chunks}{smuggled}")).await;
        assert!(!answer.contains("GET /smuggled"), "{chunks:?}: {answer}");
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{chunks:?}: {answer}");
    }
}

/// RFC 9112 7.1: blanks stand before an extension alone, and an extension has its form.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_almost_a_chunk_is_refused() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    for chunks in [
        "5 \r\nabcde\r\n0\r\n\r\n",
        "5\t\r\nabcde\r\n0\r\n\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "+5\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "5;\r\nabcde\r\n0\r\n\r\n",
        "5;a=\"\r\nabcde\r\n0\r\n\r\n",
        "5\nabcde\r\n0\r\n\r\n",
        "5\r\nabcde \r\n0\r\n\r\n",
        "5\r\nabcde\r\n0 \r\n\r\n",
        "5\r\nabcde\r\n0\r\nX: y\r\n z\r\n\r\n",
        "5\r\nabcde\r\n0\r\nX : y\r\n\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = ask(&site, &proxy, &format!("{head}{chunks}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{chunks:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    let first = "POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc";
    let second = "GET /2 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let answer = ask(&site, &proxy, &format!("{first}{second}")).await;
    let places = ["POST /1 ", "abc", "GET /2 "].map(|part| answer.find(part).unwrap_or(usize::MAX));
    assert!(places.is_sorted() && places[2] < usize::MAX, "{answer}");
}

/// Each of these follows a good request line and Host. None may reach the upstream.
async fn refuses(rests: &[&str]) {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for rest in rests {
        let answer = ask(
            &site,
            &proxy,
            &format!("POST / HTTP/1.1\r\nHost: a.test\r\n{rest}"),
        )
        .await;
        let refused = answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 501 ");
        assert!(refused, "{rest:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{rest:?}: {answer}");
    }
    assert_eq!(upstream.connections(), 0);
}

/// Everything that comes back until the proxy closes the connection, which it must.
async fn ask(site: &Site, proxy: &Proxy, request: &str) -> String {
    let stream = site
        .client()
        .connect(proxy.https(), "a.test", &["http/1.1"])
        .await
        .unwrap();
    let mut wire = Wire::new(stream);
    wire.offer(request).await;
    wire.read_rest().await
}
