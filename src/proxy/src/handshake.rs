use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fairlead_contract::{Host, Paths, chain, read_file};
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::warn;

use crate::certificate::{ACME_TLS, Certificate, configure_validation};
use crate::read_ahead::ReadAhead;
use crate::snapshot::Snapshot;

/// Fatal alerts (RFC 6066 3, RFC 8446 6).
const UNRECOGNIZED_NAME: u8 = 112;
const PROTOCOL_VERSION: u8 = 70;
const TLS_1_2: [u8; 2] = [3, 3];
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 64 * 1024;

/// Why there is no TLS connection.
#[derive(Debug, Error)]
pub(crate) enum HandshakeError {
    #[error("the client asked for {0:?}, which is not served here")]
    UnknownName(String),
    #[error("the client asked for no name")]
    NoName,
    #[error("the client speaks nothing newer than TLS 1.1")]
    Outdated,
    #[error("the handshake took too long")]
    Timeout,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes a TLS connection with the certificate of the name the client asks for. One deadline holds
/// for both halves of the handshake.
///
/// `None` if it was an authority that validated TLS-ALPN-01: there is nothing more to say to it.
pub(crate) async fn accept(
    stream: TcpStream,
    snapshot: &Snapshot,
    paths: &Paths,
) -> Result<Option<(TlsStream<ReadAhead<TcpStream>>, Arc<Certificate>)>, HandshakeError> {
    let deadline = Instant::now() + snapshot.config.proxy.header_timeout.get();
    let outdated = timeout_at(deadline, outdated_version(&stream));
    if let Some(version) = outdated.await.map_err(|_| HandshakeError::Timeout)?? {
        refuse(stream, version, PROTOCOL_VERSION).await;
        return Err(HandshakeError::Outdated);
    }
    let start = timeout_at(
        deadline,
        LazyConfigAcceptor::new(Acceptor::default(), ReadAhead::new(stream)),
    )
    .await
    .map_err(|_| HandshakeError::Timeout)??;
    let name = start.client_hello().server_name().map(ToOwned::to_owned);
    let host = name.as_deref().and_then(|name| Host::parse(name).ok());
    let identity = host.and_then(|host| match validates(&start.client_hello()) {
        true => validation_config(&paths.alpn_challenge_file(&host)).map(Identity::Validation),
        false => snapshot.certificate(&host).cloned().map(Identity::Site),
    });
    let Some(identity) = identity else {
        refuse(start.io, TLS_1_2, UNRECOGNIZED_NAME).await;
        return Err(name.map_or(HandshakeError::NoName, HandshakeError::UnknownName));
    };
    let config = identity.config(&start.client_hello());
    let mut stream = timeout_at(deadline, start.into_stream(config))
        .await
        .map_err(|_| HandshakeError::Timeout)??;
    match identity {
        Identity::Site(certificate) => Ok(Some((stream, certificate))),
        Identity::Validation(_) => {
            timeout_at(deadline, stream.shutdown())
                .await
                .map_err(|_| HandshakeError::Timeout)??;
            Ok(None)
        }
    }
}

/// What a client is shown.
enum Identity {
    Site(Arc<Certificate>),
    /// The answer to TLS-ALPN-01.
    Validation(Arc<ServerConfig>),
}

impl Identity {
    fn config(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        match self {
            Self::Site(certificate) => certificate.config(hello).clone(),
            Self::Validation(config) => config.clone(),
        }
    }
}

/// Whether an authority validates TLS-ALPN-01: it speaks that protocol and no other (RFC 8737 3).
fn validates(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|protocols| protocols.eq([ACME_TLS]))
}

/// `None` if no challenge is open for the name.
fn validation_config(file: &Path) -> Option<Arc<ServerConfig>> {
    let pem = match read_file(file) {
        Err(error) if error.is_not_found() => return None,
        read => read.map_err(|error| chain(&error)),
    };
    pem.and_then(|pem| configure_validation(&pem).map_err(|error| chain(&error)))
        .inspect_err(|cause| warn!(file = %file.display(), "a challenge is not answered: {cause}"))
        .ok()
        .map(Arc::new)
}

/// The version of a client that knows no later one than TLS 1.1. rustls would look for what such a client does not
/// send first, and say handshake_failure.
async fn outdated_version(stream: &TcpStream) -> io::Result<Option<[u8; 2]>> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let mut start = [0; 11];
    let length = stream.peek(&mut start).await?;
    Ok(match start {
        [HANDSHAKE, _, _, _, _, CLIENT_HELLO, _, _, _, major, minor] if length == start.len() => {
            Some([major, minor]).filter(|version| *version < TLS_1_2)
        }
        _ => None,
    })
}

/// rustls would say access_denied (49) to an unknown name, so the alert is ours.
async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, [major, minor]: [u8; 2], alert: u8) {
    let farewell = async {
        stream.write_all(&[21, major, minor, 0, 2, 2, alert]).await?;
        stream.shutdown().await?;
        // Bytes left unread would turn the close into a reset that overtakes the alert.
        let mut rest = stream.take(MAX_LINGER_BYTES as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // The client may be gone already, which is as good.
    let _ = timeout(LINGER, farewell).await;
}
