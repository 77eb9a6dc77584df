//! Between two exchanges an HTTP/1 connection gives its buffers back; nobody notices.

use std::time::Duration;

use fairlead_tests::{Proxy, Site, Upstream, Wire};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_rested_serves_on() {
    let (site, proxy) = start("").await;
    serve_after_rests(Wire::new(connect(&site, &proxy).await), "a").await;
    let plain = TcpStream::connect(proxy.http()).await.unwrap();
    serve_after_rests(Wire::new(plain), "308 Permanent Redirect\n").await;
}

async fn serve_after_rests(mut client: Wire<impl AsyncRead + AsyncWrite + Unpin>, body: &str) {
    rest().await;
    for _ in 0..2 {
        client.write(GET).await;
        read_answer(&mut client, body).await;
        rest().await;
    }
    // A line that old clients send behind a body (RFC 9112 2.2).
    client
        .write("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody\r\n")
        .await;
    read_answer(&mut client, body).await;
    rest().await;
    let (begin, end) = GET.split_at(9);
    client.write(begin).await;
    rest().await;
    client.write([end, GET].concat()).await;
    read_answer(&mut client, body).await;
    read_answer(&mut client, body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_rests_ends_when_the_next_request_is_overdue() {
    let (site, proxy) = start("header-timeout = \"1s\"\n").await;
    let mut client = Wire::new(connect(&site, &proxy).await);
    client.write(GET).await;
    read_answer(&mut client, "a").await;
    rest().await;
    assert_eq!(client.read_rest().await, "");
}

async fn start(proxy: &str) -> (Site, Proxy) {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    site.environment.write_config(&format!("[proxy]\n{proxy}"));
    let proxy = site.start();
    (site, proxy)
}

async fn connect(site: &Site, proxy: &Proxy) -> TlsStream<TcpStream> {
    let client = site.client();
    client
        .connect(proxy.https(), "a.test", &["http/1.1"])
        .await
        .unwrap()
}

async fn read_answer(client: &mut Wire<impl AsyncRead + AsyncWrite + Unpin>, body: &str) {
    client.read_head().await;
    assert_eq!(client.read_until(body).await, body);
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long nothing happens is the question"
)]
async fn rest() {
    tokio::time::sleep(Duration::from_millis(700)).await;
}
