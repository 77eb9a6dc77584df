//! From an upstream's URL to a connection on which HTTP is spoken.

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fairlead_contract::{Identity, Protocol, ProxyProtocol, Upstream, UpstreamUrl};
use http::uri::Scheme;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::http1::{Http1Connection, Stream};
use crate::proxy_protocol::{Link, header};
use crate::sender::{Http2Sender, Sender};

/// After so long a silence the upstream's machine is asked whether it is there. Not by pings of HTTP/2: servers
/// of gRPC take offence at those.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// The authorities of this machine, read when the first upstream needs them.
static SYSTEM_ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
});

/// How to reach one upstream.
pub(crate) struct Dial {
    url: UpstreamUrl,
    proxy_protocol: Option<ProxyProtocol>,
    tls: Option<Tls>,
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// Why an upstream's TLS cannot be set up.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("it holds no certificate of an authority in PEM form")]
    Roots,
    #[error("the upstream's host is no name that a certificate could hold")]
    Name(#[from] rustls_pki_types::InvalidDnsNameError),
}

/// No connection to the upstream.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("the route has no upstream that could be used")]
    Nobody,
    #[error("it did not accept a connection in time")]
    Timeout,
    #[error("it cannot be connected to")]
    Io(#[from] io::Error),
    #[error("it does not speak HTTP/2")]
    NotHttp2,
}

impl Dial {
    /// `roots` is the content of the file that the upstream's identity names.
    pub(crate) fn new(upstream: &Upstream, roots: Option<&[u8]>) -> Result<Self, DialError> {
        let tls = match &upstream.url {
            UpstreamUrl::Tcp { protocol, host, .. } if protocol.is_tls() => {
                Some(Tls::new(*protocol, host, &upstream.identity, roots)?)
            }
            _ => None,
        };
        Ok(Self {
            url: upstream.url.clone(),
            proxy_protocol: upstream.proxy_protocol,
            tls,
        })
    }

    pub(crate) fn url(&self) -> &UpstreamUrl {
        &self.url
    }

    /// Whether each of its connections begins with the word on one client.
    pub(crate) fn names_clients(&self) -> bool {
        self.proxy_protocol.is_some()
    }

    /// `link` is for whom; `None`: for ourselves.
    pub(crate) async fn open(&self, link: Option<Link>) -> Result<Sender, ConnectError> {
        let protocol = self.url.protocol();
        match &self.url {
            UpstreamUrl::Unix(path) => {
                let mut stream = UnixStream::connect(path).await?;
                self.introduce(&mut stream, link).await?;
                Ok(speak(protocol, stream))
            }
            UpstreamUrl::Tcp { host, port, .. } => {
                let mut stream = TcpStream::connect((bare(host), *port)).await?;
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
                self.introduce(&mut stream, link).await?;
                match &self.tls {
                    None => Ok(speak(protocol, stream)),
                    Some(tls) => Ok(speak(protocol, tls.connect(protocol, stream).await?)),
                }
            }
        }
    }

    async fn introduce(&self, stream: &mut (impl AsyncWrite + Unpin), link: Option<Link>) -> io::Result<()> {
        match self.proxy_protocol {
            Some(version) => stream.write_all(&header(version, link)).await,
            None => Ok(()),
        }
    }
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn speak(protocol: Protocol, stream: impl Stream + 'static) -> Sender {
    if protocol.is_http2() {
        let scheme = if protocol.is_tls() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        return Sender::Http2(Http2Sender::new(stream, scheme));
    }
    Sender::Http1(Box::new(Http1Connection::new(stream)))
}

impl Tls {
    fn new(
        protocol: Protocol,
        host: &str,
        identity: &Identity,
        roots: Option<&[u8]>,
    ) -> Result<Self, DialError> {
        let name = match identity {
            Identity::Verified { name: Some(name), .. } => name.as_str(),
            _ => bare(host),
        };
        let builder = ClientConfig::builder();
        let mut config = match (identity, roots) {
            (Identity::Unverified, _) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody::new())),
            (Identity::Verified { .. }, Some(pem)) => builder.with_root_certificates(read_roots(pem)?),
            (Identity::Verified { .. }, None) => builder.with_root_certificates(SYSTEM_ROOTS.clone()),
        }
        .with_no_client_auth();
        let alpn: &[u8] = if protocol.is_http2() { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from(name.to_owned())?,
        })
    }

    async fn connect(
        &self,
        protocol: Protocol,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if protocol.is_http2() && !is_http2 {
            return Err(ConnectError::NotHttp2);
        }
        Ok(stream)
    }
}

fn read_roots(pem: &[u8]) -> Result<RootCertStore, DialError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| DialError::Roots)?;
        roots.add(certificate).map_err(|_| DialError::Roots)?;
    }
    if roots.is_empty() {
        return Err(DialError::Roots);
    }
    Ok(roots)
}

/// Takes anybody's certificate, as the operator asked for, as long as its key signed the handshake.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl Anybody {
    fn new() -> Self {
        Self(aws_lc_rs::default_provider().signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
