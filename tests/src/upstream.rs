use std::convert::Infallible;
use std::fmt::Write;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::{Body, Pair, body};

/// What an upstream speaks.
#[derive(Clone)]
pub enum Transport {
    Http1,
    Http2,
    /// HTTP/1.1 with this certificate.
    Tls(Pair),
    /// HTTP/2 with this certificate.
    Http2Tls(Pair),
}

/// A service of the test's own, on a free port of the loopback. It lives as long as the test's runtime.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    /// Answers every request with what `handler` makes of it, over HTTP/1.1.
    pub async fn start<H, F>(handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::speaking(Transport::Http1, handler).await
    }

    /// The same over another transport.
    pub async fn speaking<H, F>(transport: Transport, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, transport.clone(), handler.clone()));
            }
        });
        Self { address, connections }
    }

    /// Answers every request that comes over a Unix socket with its own head.
    pub fn echoing_at(path: &Path) {
        let listener = UnixListener::bind(path).expect("the socket is not there yet");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_http1(stream, echo));
            }
        });
    }

    /// Answers every request with this text.
    pub async fn saying(text: &'static str) -> Self {
        Self::start(move |_| async move { Response::new(body::full(text)) }).await
    }

    /// Answers every request with its own head, one line per field, and then its body.
    pub async fn echoing() -> Self {
        Self::start(echo).await
    }

    /// The same over another transport.
    pub async fn echoing_over(transport: Transport) -> Self {
        Self::speaking(transport, echo).await
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve<H, F>(stream: TcpStream, transport: Transport, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    match transport {
        Transport::Http1 => serve_http1(stream, handler).await,
        Transport::Http2 => serve_http2(stream, handler).await,
        Transport::Tls(pair) => {
            if let Ok(stream) = accept_tls(&pair, "http/1.1", stream).await {
                serve_http1(stream, handler).await;
            }
        }
        Transport::Http2Tls(pair) => {
            if let Ok(stream) = accept_tls(&pair, "h2", stream).await {
                serve_http2(stream, handler).await;
            }
        }
    }
}

async fn accept_tls(pair: &Pair, alpn: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let chain = vec![pair.leaf()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("the key is PEM");
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let mut config = builder
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the pair matches");
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsAcceptor::from(Arc::new(config)).accept(stream).await
}

async fn serve_http2<H, F>(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, handler: H)
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = handler(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn serve_http1<H, F>(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, handler: H)
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = handler(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    // A connection that breaks is the business of the test that breaks it.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let content = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    text.push('\n');
    text.push_str(&String::from_utf8_lossy(&content.unwrap_or_default()));
    Response::new(body::full(text))
}
