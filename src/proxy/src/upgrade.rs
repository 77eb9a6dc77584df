use std::sync::{Arc, Mutex, PoisonError};
use std::{io, mem};

use base64::prelude::{BASE64_STANDARD, Engine};
use fairlead_contract::Host;
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use sha1::{Digest, Sha1};
use tokio::io::copy_bidirectional;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::headers::names_option;
use crate::http1::Stream;
use crate::http2::{ConnectProtocol, Http2Stream};
use crate::received::ReceivedBody;

pub(crate) const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// A client that wants to leave HTTP for another protocol.
pub(crate) struct Wish {
    protocol: HeaderValue,
    client: Tunnel,
    is_http2: bool,
    /// What the upstream is to answer to: the client's, or ours for one of HTTP/2, which has none where HTTP/1.1 asks
    /// for one (RFC 8441 5, RFC 6455 4.1).
    key: Option<HeaderValue>,
}

impl Wish {
    /// Finds the wish in a request: `Upgrade` in HTTP/1.1 (RFC 9110 7.8), extended CONNECT in HTTP/2
    /// (RFC 8441 4). Call it before hop-by-hop fields are removed.
    ///
    /// A wish for HTTP itself is none, as every server may decide: through the tunnel would come
    /// requests that nobody has looked at. HTTP/1.0 cannot wish.
    pub(crate) fn find(parts: &mut Parts) -> Option<Self> {
        let is_http2 = parts.version == Version::HTTP_2;
        let protocol = if is_http2 {
            let ConnectProtocol(protocol) = parts.extensions.remove()?;
            protocol
        } else {
            let protocol = parts.headers.get(UPGRADE);
            protocol
                .filter(|_| names_option(&parts.headers, "upgrade"))?
                .clone()
        };
        let client = parts.extensions.remove()?;
        let key = if is_http2 {
            HeaderValue::try_from(random_key()).ok()
        } else {
            parts.headers.get(SEC_WEBSOCKET_KEY).cloned()
        };
        (!names_http(&protocol)).then_some(Self {
            protocol,
            client,
            is_http2,
            key,
        })
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// Asks the upstream, in HTTP/1.1, for what the client asked for.
    pub(crate) fn pass_on(&self, parts: &mut Parts) {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, self.protocol.clone());
        if self.is_http2() {
            parts.method = Method::GET;
            if let Some(key) = &self.key {
                parts.headers.insert(SEC_WEBSOCKET_KEY, key.clone());
            }
        }
    }

    /// Whether the upstream's answer, with these fields, takes up what it was asked, and switches to nothing else
    /// (RFC 9110 7.8). The key a client of HTTP/1.1 sees to itself; for one of HTTP/2 it was us who asked for a
    /// websocket (RFC 6455 4.1).
    pub(crate) fn is_taken_up(
        &self,
        upstream: &UpstreamSide,
        chosen: Option<&HeaderValue>,
        answer: &HeaderMap,
    ) -> bool {
        let is_wished = |protocol| tokens(&self.protocol).any(|wished| wished.eq_ignore_ascii_case(protocol));
        if !chosen.is_none_or(|chosen| tokens(chosen).all(is_wished)) {
            return false;
        }
        let is_ours = self.is_http2() && matches!(upstream, UpstreamSide::Http1(_));
        let (true, true, Some(key)) = (is_ours, self.is_for_websocket(), &self.key) else {
            return true;
        };
        let accept = answer.get(SEC_WEBSOCKET_ACCEPT);
        accept.is_some_and(|accept| accept.as_bytes() == acceptance(key).as_bytes())
    }

    fn is_for_websocket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }

    /// Joins both sides once the upstream has agreed; the tunnel counts as an exchange of its own.
    /// `protocol` is the one the upstream chose.
    pub(crate) fn fulfil<B>(
        self,
        upstream: UpstreamSide,
        protocol: Option<HeaderValue>,
        response: &mut Response<B>,
        tunnels: &TaskTracker,
        host: &Host,
    ) {
        if self.is_http2() {
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        } else {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.unwrap_or(self.protocol));
            if let (UpstreamSide::Http2(_), Some(key)) = (&upstream, &self.key)
                && let Ok(accept) = HeaderValue::try_from(acceptance(key))
            {
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            }
        }
        let host = host.clone();
        tunnels.spawn(async move {
            if let Err(error) = join(self.client, upstream).await {
                debug!(route = %host, error = &error as &dyn std::error::Error, "a tunnel broke");
            }
        });
    }
}

/// An upstream that has left HTTP for what was asked of it.
pub(crate) enum UpstreamSide {
    Http1(Box<dyn Stream>),
    Http2(Http2Stream),
}

impl UpstreamSide {
    /// Takes it out of an answer that gives it: 101 of HTTP/1.1, a success of HTTP/2.
    pub(crate) fn find(response: &mut Response<ReceivedBody>) -> Option<Self> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let body = mem::replace(response.body_mut(), ReceivedBody::None);
            return body.into_tunnel().map(Self::Http1);
        }
        match mem::replace(response.body_mut(), ReceivedBody::None) {
            ReceivedBody::Tunnel(stream) => Some(Self::Http2(stream)),
            body => {
                *response.body_mut() = body;
                None
            }
        }
    }

    fn into_stream(self) -> Box<dyn Stream> {
        match self {
            Self::Http1(stream) => stream,
            Self::Http2(stream) => Box::new(stream),
        }
    }
}

async fn join(client: Tunnel, upstream: UpstreamSide) -> io::Result<()> {
    let Some(mut client) = client.opened().await else {
        return Ok(());
    };
    let mut upstream = upstream.into_stream();
    copy_bidirectional(&mut client, &mut upstream).await.map(drop)
}

/// The client's side of a tunnel, which begins with the response.
#[derive(Clone)]
pub(crate) struct Tunnel(Arc<Mutex<Option<Opened>>>);

type Opened = oneshot::Receiver<Box<dyn Stream>>;

/// Opens the tunnel once the response is sent.
pub(crate) struct TunnelOffer(oneshot::Sender<Box<dyn Stream>>);

impl TunnelOffer {
    pub(crate) fn open(self, client: Box<dyn Stream>) {
        // Nobody waits any more when the upstream has left meanwhile; then the client's side is closed.
        let _ = self.0.send(client);
    }
}

impl Tunnel {
    pub(crate) fn offer() -> (Self, TunnelOffer) {
        let (opener, opened) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(opened)))), TunnelOffer(opener))
    }

    /// `None` if the answer could not be sent.
    async fn opened(self) -> Option<Box<dyn Stream>> {
        let opened = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        opened?.await.ok()
    }
}

/// Whether the request wants a tunnel that is not made: to anywhere by plain CONNECT, or for HTTP.
/// Only the extended CONNECT of RFC 8441 is a request to a site.
pub(crate) fn is_refused_connect<B>(request: &Request<B>) -> bool {
    let is_for_a_site = || {
        let ConnectProtocol(protocol) = request.extensions().get()?;
        Some(!names_http(protocol))
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

fn tokens(protocols: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let tokens = protocols.as_bytes().split(|byte| *byte == b',');
    tokens.map(<[u8]>::trim_ascii)
}

/// What answers a key in the name of an upstream that has none (RFC 6455 4.2.2).
fn acceptance(key: &HeaderValue) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = Sha1::new()
        .chain_update(key.as_bytes())
        .chain_update(GUID)
        .finalize();
    BASE64_STANDARD.encode(digest)
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
