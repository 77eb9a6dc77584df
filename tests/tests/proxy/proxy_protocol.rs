//! Upstreams that are told by the PROXY protocol whom a connection is made for.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use fairlead_contract::write_atomically;
use fairlead_tests::{Environment, Proxy, Running, Site, Wire, accept, body, get, request_on, within};
use h2::server::Connection;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_learns_the_client_s_address_from_either_version() {
    let site = Site::new();
    site.certify(&["a.test"]);
    let socket = site.environment.root().join("haproxy.sock");
    let _haproxy = haproxy(&site.environment, &socket);
    let upstream = format!("unix:{}", socket.display());
    serve(&site, &upstream, "v1");
    let proxy = site.start();
    for version in ["v1", "v2"] {
        serve(&site, &upstream, version);
        proxy.reload();
        let stream = site
            .client()
            .connect(proxy.https(), "a.test", &["h2"])
            .await
            .unwrap();
        let address = stream.get_ref().0.local_addr().unwrap();
        let response = request_on(stream, get("https://a.test/")).await;
        let seen = body::read(response.into_body()).await.0;
        assert_eq!(seen, format!("{address} to {}", proxy.https()), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_names_a_client_carries_nobody_else_s_requests() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::new();
    site.certify(&["a.test"]);
    serve(&site, &format!("http://{}", upstream.local_addr().unwrap()), "v1");
    let proxy = site.start();
    let mut clients = [connect(&site, &proxy).await, connect(&site, &proxy).await]
        .map(|(stream, introduction)| (Wire::new(stream), introduction));
    for _ in 0..2 {
        for (client, introduction) in &mut clients {
            client.write("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            let mut connection = accept(&upstream).await;
            let head = connection.read_head().await;
            connection
                .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            client.read_until("ok").await;
            let expected = format!("{introduction}GET / HTTP/1.1\r\n");
            assert!(head.starts_with(&expected), "{head}");
            // It is not kept for others.
            assert_eq!(connection.read_rest().await, "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_connection_that_names_a_client_carries_nobody_else_s_requests() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::new();
    site.certify(&["a.test"]);
    serve(&site, &format!("h2c://{}", upstream.local_addr().unwrap()), "v1");
    let proxy = site.start();
    for _ in 0..2 {
        let (stream, introduction) = connect(&site, &proxy).await;
        let asked = tokio::spawn(request_on(stream, get("https://a.test/")));
        let mut connection = accept(&upstream).await.into_inner();
        let mut heard = vec![0; introduction.len()];
        within(connection.read_exact(&mut heard)).await.unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), introduction);
        let mut connection: Connection<_, Bytes> = h2::server::handshake(connection).await.unwrap();
        let (_, mut respond) = within(connection.accept()).await.unwrap().unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        let served = tokio::spawn(async move { connection.accept().await.is_none() });
        assert_eq!(within(asked).await.unwrap().status(), 200);
        assert!(within(served).await.unwrap(), "it is kept for others");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_names_nobody() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::new();
    site.certify(&["a.test"]);
    let route = format!(
        "[[route]]\nhosts = [\"a.test\"]\nhealth-check = \"/healthz\"\n\
         upstreams = [{{ url = \"http://{}\", proxy-protocol = \"v1\" }}]\n",
        upstream.local_addr().unwrap()
    );
    site.environment.write_routes("a.toml", &route);
    let _proxy = site.start();
    let head = accept(&upstream).await.read_head().await;
    assert!(
        head.starts_with("PROXY UNKNOWN\r\nGET /healthz HTTP/1.1\r\n"),
        "{head}"
    );
}

/// One before us may know better where a client connected to.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_load_balancer_says_of_a_connection_is_passed_on() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::new();
    site.certify(&["a.test"]);
    site.environment
        .write_config("[proxy]\nproxy-protocol = [\"127.0.0.1\"]\n");
    serve(&site, &format!("http://{}", upstream.local_addr().unwrap()), "v1");
    let proxy = site.start();
    let introduction = "PROXY TCP4 192.0.2.7 192.0.2.8 1111 443\r\n";
    let mut tcp = TcpStream::connect(proxy.https()).await.unwrap();
    tcp.write_all(introduction.as_bytes()).await.unwrap();
    let tls = site.client().connect_on(tcp, "a.test", &["http/1.1"]).await;
    let mut client = Wire::new(tls.unwrap());
    client.write("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let head = accept(&upstream).await.read_head().await;
    assert!(head.starts_with(introduction), "{head}");
}

/// A route for `a.test` whose connections begin in this version.
fn serve(site: &Site, upstream: &str, version: &str) {
    let route = format!(
        "[[route]]\nhosts = [\"a.test\"]\nupstreams = [{{ url = \"{upstream}\", proxy-protocol = \"{version}\" }}]\n"
    );
    site.environment.write_routes("a.toml", &route);
}

/// A client of HTTP/1.1, and how an upstream is to hear of it in version 1.
async fn connect(site: &Site, proxy: &Proxy) -> (TlsStream<TcpStream>, String) {
    let client = site.client();
    let stream = client
        .connect(proxy.https(), "a.test", &["http/1.1"])
        .await
        .unwrap();
    let [from, to] = [stream.get_ref().0.local_addr().unwrap(), proxy.https()];
    let introduction = format!(
        "PROXY TCP4 {} {} {} {}\r\n",
        from.ip(),
        to.ip(),
        from.port(),
        to.port()
    );
    (stream, introduction)
}

/// Answers from a socket, to whoever is introduced, who that is.
fn haproxy(environment: &Environment, socket: &Path) -> Running {
    let configuration = environment.root().join("haproxy.cfg");
    let text = format!(
        "defaults\n mode http\n timeout connect 10s\n timeout client 10s\n timeout server 10s\n\
         frontend all\n bind unix@{} accept-proxy\n http-request return status 200 \
         content-type text/plain lf-string \"%[src]:%[src_port] to %[dst]:%[dst_port]\"\n",
        socket.display()
    );
    write_atomically(&configuration, text.as_bytes(), 0o644).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-Ws").arg("-f").arg(configuration);
    let running = environment.start(command);
    running.wait_for_notification("READY=1");
    running
}
