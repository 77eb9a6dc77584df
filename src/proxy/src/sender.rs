use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use fairlead_contract::Protocol;
use futures_util::FutureExt;
use h2::client::ResponseFuture;
use h2::{Ping, PingPong, RecvStream};
use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri};
use hyper::body::Body;
use hyper::client::conn::http1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::body::RequestBody;
use crate::http2_stream::{Http2Body, Http2Stream, send_body};
use crate::interim::Hearing;
use crate::received::{PeerError, ReceivedBody};
use crate::upgrade::SEC_WEBSOCKET_KEY;

/// What one answer may keep unread; a slow client holds up its own answer and no other one.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const MAX_HEADER_BYTES: u32 = 64 * 1024;
const MAX_UNSENT_BYTES: usize = 256 * 1024;

/// The sending side of a connection to an upstream.
pub(crate) enum Sender {
    /// For one exchange after the other.
    Http1(http1::SendRequest<RequestBody>),
    /// For many at once.
    Http2(Http2Sender),
}

/// What there is instead of an answer.
pub(crate) struct Unanswered {
    pub(crate) error: PeerError,
    /// The request, if nothing of it has reached the upstream.
    pub(crate) request: Option<Box<Request<RequestBody>>>,
}

#[derive(Clone)]
pub(crate) struct Http2Sender {
    requests: h2::client::SendRequest<Bytes>,
    pings: Option<Arc<Mutex<PingPong>>>,
}

impl Sender {
    /// `hearing` takes what comes before the answer.
    pub(crate) async fn try_send(
        &mut self,
        mut request: Box<Request<RequestBody>>,
        hearing: Option<&Hearing>,
    ) -> Result<Response<ReceivedBody>, Unanswered> {
        match self {
            Self::Http1(sender) => {
                if let Some(hearing) = hearing.cloned() {
                    hyper::ext::on_informational(&mut request, move |response| {
                        hearing.hear(response.status(), response.headers());
                    });
                }
                let answered = sender.try_send_request(*request).await;
                answered
                    .map(|response| response.map(ReceivedBody::Http1))
                    .map_err(|mut error| Unanswered {
                        request: error.take_message().map(Box::new),
                        error: error.into_error().into(),
                    })
            }
            // Boxed: an exchange in HTTP/1 would take room for it.
            Self::Http2(sender) => Box::pin(sender.try_send(request, hearing)).await,
        }
    }
}

impl Http2Sender {
    /// Begins to speak on a connection, which closes when no sender is left and no exchange is under way.
    pub(crate) async fn handshake(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, h2::Error> {
        let (requests, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_send_buffer_size(MAX_UNSENT_BYTES)
            .handshake(stream)
            .await?;
        let pings = connection.ping_pong().map(|pings| Arc::new(Mutex::new(pings)));
        tokio::spawn(connection);
        Ok(Self { requests, pings })
    }

    pub(crate) fn is_closed(&self) -> bool {
        let mut requests = self.requests.clone();
        let ready = poll_fn(|context| requests.poll_ready(context));
        matches!(ready.now_or_never(), Some(Err(_)))
    }

    /// Whether the upstream makes tunnels (RFC 8441 3). It says so first of all: when it has answered a ping,
    /// it has.
    pub(crate) async fn makes_tunnels(&self) -> Result<bool, h2::Error> {
        if let (false, Some(pings)) = (self.requests.is_extended_connect_protocol_enabled(), &self.pings) {
            pings.lock().await.ping(Ping::opaque()).await?;
        }
        Ok(self.requests.is_extended_connect_protocol_enabled())
    }

    async fn try_send(
        &mut self,
        request: Box<Request<RequestBody>>,
        hearing: Option<&Hearing>,
    ) -> Result<Response<ReceivedBody>, Unanswered> {
        if let Err(error) = poll_fn(|context| self.requests.poll_ready(context)).await {
            return Err(Unanswered {
                error: error.into(),
                request: Some(request),
            });
        }
        self.send(*request, hearing).await.map_err(|error| Unanswered {
            error: error.into(),
            request: None,
        })
    }

    async fn send(
        &mut self,
        request: Request<RequestBody>,
        hearing: Option<&Hearing>,
    ) -> Result<Response<ReceivedBody>, h2::Error> {
        let (parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return self.open_tunnel(Request::from_parts(parts, ()), hearing).await;
        }
        let is_whole = body.is_end_stream();
        let (answer, stream) = self
            .requests
            .send_request(Request::from_parts(parts, ()), is_whole)?;
        let sending = (!is_whole).then(|| {
            AbortOnDropHandle::new(tokio::spawn(async move {
                if let Err(error) = send_body(stream, body, None).await {
                    debug!(
                        error = &error as &dyn std::error::Error,
                        "a body was not sent to its end"
                    );
                }
            }))
        });
        let (parts, stream) = hear_out(answer, hearing).await?.into_parts();
        let body = Http2Body::new(stream, &parts.headers).beside(sending);
        Ok(Response::from_parts(parts, ReceivedBody::Http2(body)))
    }

    async fn open_tunnel(
        &mut self,
        request: Request<()>,
        hearing: Option<&Hearing>,
    ) -> Result<Response<ReceivedBody>, h2::Error> {
        let (answer, mut sending) = self.requests.send_request(request, false)?;
        let (parts, stream) = hear_out(answer, hearing).await?.into_parts();
        let body = if parts.status.is_success() {
            ReceivedBody::Tunnel(Http2Stream::new(sending, stream))
        } else {
            sending.send_data(Bytes::new(), true)?;
            ReceivedBody::Http2(Http2Body::new(stream, &parts.headers))
        };
        Ok(Response::from_parts(parts, body))
    }
}

/// Waits for an answer, and tells what comes before it.
async fn hear_out(
    mut answer: ResponseFuture,
    hearing: Option<&Hearing>,
) -> Result<Response<RecvStream>, h2::Error> {
    poll_fn(|context| {
        while let Poll::Ready(Some(interim)) = answer.poll_informational(context) {
            let interim = interim?;
            if let Some(hearing) = hearing {
                hearing.hear(interim.status(), interim.headers());
            }
        }
        Pin::new(&mut answer).poll(context)
    })
    .await
}

/// Puts things where the protocol has them: HTTP/2 the authority in the target (RFC 9113 8.3.1), HTTP/1.1 in
/// the Host field, and with a body of unknown length its coding (RFC 9112 6.1).
pub(crate) fn adapt(request: &mut Request<RequestBody>, protocol: Protocol) -> Result<(), http::Error> {
    if protocol.is_http2() {
        ask_by_connect(request);
        return name_in_target(request, protocol);
    }
    if is_body_without_length(request) {
        // hyper would leave the body of a GET away.
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    if request.headers().contains_key(TE) {
        // It holds for one connection, and is to be named there (RFC 9110 10.1.4).
        let te = HeaderValue::from_static("te");
        request.headers_mut().append(CONNECTION, te);
    }
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::try_from(authority.as_str())?;
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    }
    Ok(())
}

fn is_body_without_length(request: &Request<RequestBody>) -> bool {
    !request.body().is_end_stream() && request.body().size_hint().exact().is_none()
}

/// Makes of the wish for another protocol an extended CONNECT, which has no key (RFC 8441 5).
fn ask_by_connect(request: &mut Request<RequestBody>) {
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    let Some(protocol) = headers.remove(UPGRADE) else {
        return;
    };
    headers.remove(SEC_WEBSOCKET_KEY);
    // It takes one protocol where HTTP/1.1 takes a list of them, the most wanted first (RFC 9110 7.8).
    let wanted = protocol
        .to_str()
        .ok()
        .and_then(|protocols| protocols.split(',').next());
    if let Some(protocol) = wanted {
        let protocol = h2::ext::Protocol::from(protocol.trim());
        request.extensions_mut().insert(protocol);
        *request.method_mut() = Method::CONNECT;
    }
}

fn name_in_target(request: &mut Request<RequestBody>, protocol: Protocol) -> Result<(), http::Error> {
    let Some(host) = request.headers_mut().remove(HOST) else {
        return Ok(());
    };
    let mut parts = Parts::default();
    // Some servers refuse a scheme that is not the connection's.
    parts.scheme = Some(if protocol.is_tls() {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    });
    parts.authority = Some(Authority::try_from(host.as_bytes())?);
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts)?;
    Ok(())
}
