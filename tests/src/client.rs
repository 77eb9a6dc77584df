use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Body, Proxy, body, within};

/// Makes connections to a proxy as a careful client does: certificates are verified.
#[derive(Clone)]
pub struct Client {
    tls: ClientConfig,
}

impl Client {
    pub fn new(tls: ClientConfig) -> Self {
        Self { tls }
    }

    /// The same client with changed TLS settings.
    pub fn configured(mut self, change: impl FnOnce(&mut ClientConfig)) -> Self {
        change(&mut self.tls);
        self
    }

    /// A TLS connection that offers these protocols.
    pub async fn connect(
        &self,
        address: SocketAddr,
        sni: &str,
        alpn: &[&str],
    ) -> io::Result<TlsStream<TcpStream>> {
        self.connect_on(TcpStream::connect(address).await?, sni, alpn)
            .await
    }

    /// The handshake alone, on a connection that is there.
    pub async fn connect_on(
        &self,
        tcp: TcpStream,
        sni: &str,
        alpn: &[&str],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut tls = self.tls.clone();
        tls.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(sni.to_owned()).map_err(io::Error::other)?;
        within(TlsConnector::from(Arc::new(tls)).connect(name, tcp)).await
    }

    /// An HTTP/1.1 connection.
    pub async fn h1(&self, proxy: &Proxy, sni: &str) -> http1::SendRequest<Body> {
        let stream = self
            .connect(proxy.https(), sni, &["http/1.1"])
            .await
            .expect("the handshake succeeds");
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/1.1 starts");
        tokio::spawn(connection.with_upgrades());
        sender
    }

    /// An HTTP/2 connection, usable for extended CONNECT (RFC 8441) once the settings have arrived.
    pub async fn h2(&self, proxy: &Proxy, sni: &str) -> http2::SendRequest<Body> {
        let stream = self
            .connect(proxy.https(), sni, &["h2"])
            .await
            .expect("the handshake succeeds");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("HTTP/2 starts");
        tokio::spawn(connection);
        sender
    }

    /// One request over a new HTTP/1.1 connection for the URI's host, its response read to the end.
    pub async fn fetch(&self, proxy: &Proxy, request: Request<Body>) -> Response<String> {
        let host = request
            .uri()
            .host()
            .expect("the request names its host")
            .to_owned();
        let response = self.send(&mut self.h1(proxy, &host).await, request).await;
        body::read_response(response).await
    }

    /// Fetches `https://HOST/PATH`.
    pub async fn get(&self, proxy: &Proxy, uri: &str) -> Response<String> {
        self.fetch(proxy, get(uri)).await
    }

    /// Sends a request in origin form with its Host over HTTP/1.1.
    pub async fn send(
        &self,
        sender: &mut http1::SendRequest<Body>,
        request: Request<Body>,
    ) -> Response<Incoming> {
        within(sender.ready())
            .await
            .expect("the connection is still open");
        within(sender.send_request(origin_form(request)))
            .await
            .expect("there is a response")
    }
}

/// Sends one request over a fresh connection, in the protocol its handshake agreed on.
pub async fn request_on(stream: TlsStream<TcpStream>, request: Request<Body>) -> Response<Incoming> {
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let exchange = async {
        if is_h2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            sender.send_request(origin_form(request)).await
        }
    };
    within(exchange).await.expect("there is a response")
}

/// `GET URI` without a body.
pub fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(body::empty()).expect("the URI is valid")
}

/// What a client writes on the connection to the origin: the path alone, the authority in Host (RFC 9112 3.2.1).
pub fn origin_form(mut request: Request<Body>) -> Request<Body> {
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().to_owned());
    if let Some(host) = authority {
        let headers = request.headers_mut();
        headers
            .entry(http::header::HOST)
            .or_insert(host.parse().expect("an authority is a field value"));
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().expect("a path is a URI");
    request
}
