use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use fairlead_contract::Host;
use futures_util::future::OptionFuture;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::http2::wait_for_room;

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// What is read at once of a tunnel.
const TUNNEL_BUFFER: usize = 16 * 1024;

/// A client that wants to leave HTTP for another protocol.
pub(crate) struct Wish {
    protocol: HeaderValue,
    client: ClientSide,
}

enum ClientSide {
    Http1(OnUpgrade),
    Http2(Http2Tunnel),
}

impl Wish {
    /// Finds the wish in a request: `Upgrade` in HTTP/1.1 (RFC 9110 7.8), extended CONNECT in HTTP/2
    /// (RFC 8441 4). Call it before hop-by-hop fields are removed.
    ///
    /// A wish for HTTP itself is none, as every server may decide: through the tunnel would come
    /// requests that nobody has looked at. HTTP/1.0 cannot wish.
    pub(crate) fn find(parts: &mut Parts) -> Option<Self> {
        let (protocol, client) = match parts.version {
            Version::HTTP_2 => {
                let protocol = HeaderValue::try_from(parts.extensions.remove::<Protocol>()?.as_str());
                (protocol.ok()?, ClientSide::Http2(parts.extensions.remove()?))
            }
            Version::HTTP_11 if names_upgrade(&parts.headers) => {
                let protocol = parts.headers.get(UPGRADE)?.clone();
                (protocol, ClientSide::Http1(parts.extensions.remove()?))
            }
            _ => return None,
        };
        (!names_http(&protocol)).then_some(Self { protocol, client })
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.client, ClientSide::Http2(_))
    }

    /// Asks the upstream, in HTTP/1.1, for what the client asked for.
    pub(crate) fn pass_on(&self, parts: &mut Parts) {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, self.protocol.clone());
        if self.is_http2() {
            parts.method = Method::GET;
            // HTTP/2 has no key; HTTP/1.1 asks for one (RFC 8441 5, RFC 6455 4.1).
            if let Ok(key) = HeaderValue::try_from(random_key()) {
                parts.headers.insert(SEC_WEBSOCKET_KEY, key);
            }
        }
    }

    /// Joins both sides once the upstream has agreed; the tunnel counts as an exchange of its own.
    /// `protocol` is the one the upstream chose.
    pub(crate) fn fulfil<B>(
        self,
        upstream: OnUpgrade,
        protocol: Option<HeaderValue>,
        response: &mut Response<B>,
        tunnels: &TaskTracker,
        host: &Host,
    ) {
        if self.is_http2() {
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        } else {
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.unwrap_or(self.protocol));
        }
        let host = host.clone();
        tunnels.spawn(async move {
            if let Err(error) = self.client.join(upstream).await {
                debug!(route = %host, error = &error as &dyn std::error::Error, "a tunnel broke");
            }
        });
    }
}

impl ClientSide {
    async fn join(self, upstream: OnUpgrade) -> Result<(), TunnelError> {
        match self {
            Self::Http1(client) => {
                let (client, upstream) = tokio::try_join!(client, upstream)?;
                copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await?;
                Ok(())
            }
            Self::Http2(client) => client.join(TokioIo::new(upstream.await?)).await,
        }
    }
}

/// Why a tunnel ended.
#[derive(Debug, Error)]
enum TunnelError {
    #[error("one side did not follow")]
    Upgrade(#[from] hyper::Error),
    #[error("the client's side broke")]
    Client(#[from] h2::Error),
    #[error("it broke")]
    Io(#[from] io::Error),
}

/// The client's side of a tunnel in an HTTP/2 stream, which begins with the response.
#[derive(Clone)]
pub(crate) struct Http2Tunnel(Arc<Mutex<Option<oneshot::Receiver<Stream>>>>);

type Stream = (SendStream<Bytes>, RecvStream);

/// Opens the tunnel once the response is sent.
pub(crate) struct TunnelOffer {
    opener: oneshot::Sender<Stream>,
    from_client: RecvStream,
}

impl TunnelOffer {
    pub(crate) fn open(self, to_client: SendStream<Bytes>) {
        // Nobody waits any more when the upstream has left meanwhile; then the stream is reset.
        let _ = self.opener.send((to_client, self.from_client));
    }
}

impl Http2Tunnel {
    pub(crate) fn offer(from_client: RecvStream) -> (Self, TunnelOffer) {
        let (opener, opened) = oneshot::channel();
        let offer = TunnelOffer { opener, from_client };
        (Self(Arc::new(Mutex::new(Some(opened)))), offer)
    }

    async fn join(self, upstream: impl AsyncRead + AsyncWrite) -> Result<(), TunnelError> {
        let opened = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Ok((to_client, from_client))) = OptionFuture::from(opened).await else {
            return Ok(());
        };
        let (from_upstream, to_upstream) = tokio::io::split(upstream);
        tokio::try_join!(
            carry_up(from_client, to_upstream),
            carry_down(from_upstream, to_client)
        )?;
        Ok(())
    }
}

async fn carry_up(mut client: RecvStream, mut upstream: impl AsyncWrite + Unpin) -> Result<(), TunnelError> {
    while let Some(data) = client.data().await {
        let data = data?;
        upstream.write_all(&data).await?;
        client.flow_control().release_capacity(data.len())?;
    }
    Ok(upstream.shutdown().await?)
}

async fn carry_down(
    mut upstream: impl AsyncRead + Unpin,
    mut client: SendStream<Bytes>,
) -> Result<(), TunnelError> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(TUNNEL_BUFFER);
        if upstream.read_buf(&mut buffer).await? == 0 {
            return Ok(client.send_data(Bytes::new(), true)?);
        }
        while !buffer.is_empty() {
            wait_for_room(&mut client, buffer.len()).await?;
            let data = buffer.split_to(client.capacity().min(buffer.len()));
            client.send_data(data.freeze(), false)?;
        }
    }
}

/// Whether the request wants a tunnel that is not made: to anywhere by plain CONNECT, or for HTTP.
/// Only the extended CONNECT of RFC 8441 is a request to a site.
pub(crate) fn is_refused_connect<B>(request: &Request<B>) -> bool {
    let is_for_a_site = || {
        let protocol = request.extensions().get::<Protocol>()?;
        let protocol = HeaderValue::try_from(protocol.as_str()).ok()?;
        Some(!names_http(&protocol))
    };
    request.method() == Method::CONNECT && is_for_a_site() != Some(true)
}

fn names_http(protocols: &HeaderValue) -> bool {
    let Ok(protocols) = protocols.to_str() else {
        return true;
    };
    protocols
        .split(',')
        .map(|protocol| protocol.trim().to_ascii_lowercase())
        .any(|protocol| protocol == "h2c" || protocol == "h2" || protocol.starts_with("http"))
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// 16 bytes, base64: unpredictable enough to tell one handshake from another, which is its use.
fn random_key() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = fastrand::u128(..);
    let mut key = String::with_capacity(24);
    for _ in 0..21 {
        key.push(char::from(ALPHABET[(bits & 63) as usize]));
        bits >>= 6;
    }
    // 128 bits are 21 digits and two bits, which stand at the top of the last digit.
    key.push(char::from(ALPHABET[((bits & 3) << 4) as usize]));
    key.push_str("==");
    key
}
