use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use h2::client::ResponseFuture;
use h2::{Ping, PingPong, RecvStream};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, UPGRADE};
use http::uri::{Authority, Parts, Scheme};
use http::{Method, Request, Response, Uri};
use http_body::Body;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::body::{RequestBody, RequestBodyError};
use crate::http1::{Http1Connection, Stream};
use crate::http2_stream::{Http2Body, Http2Stream, Unsent, send_body};
use crate::interim::Hearing;
use crate::message_length::settle_length;
use crate::received::{PeerError, ReceivedBody, check_fields};
use crate::upgrade::SEC_WEBSOCKET_KEY;

/// What one answer may keep unread; a slow client holds up its own answer and no other one.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const MAX_HEADER_BYTES: u32 = 64 * 1024;
const MAX_UNSENT_BYTES: usize = 256 * 1024;

/// The sending side of a connection to an upstream.
pub(crate) enum Sender {
    /// For this exchange alone; the answer gives it back.
    Http1(Box<Http1Connection>),
    /// For many at once.
    Http2(Http2Sender),
}

/// What there is instead of an answer.
pub(crate) struct Unanswered {
    pub(crate) error: PeerError,
    /// The request, if it may be sent again: nothing of it has been acted on, or it is safe to repeat.
    pub(crate) again: Option<Box<Request<RequestBody>>>,
}

#[derive(Clone)]
pub(crate) struct Http2Sender {
    requests: h2::client::SendRequest<Bytes>,
    /// Some servers refuse one that is not the connection's.
    scheme: Scheme,
    pings: Option<Arc<Mutex<PingPong>>>,
    /// Held by each sender, and by each exchange that goes on behind it.
    uses: Arc<()>,
}

impl Sender {
    /// `hearing` takes what comes before the answer. What of the request goes beside the answer may stand still for
    /// `stall_limit` because of the upstream.
    pub(crate) async fn exchange(
        self,
        mut request: Box<Request<RequestBody>>,
        hearing: Option<&Hearing>,
        stall_limit: Duration,
    ) -> Result<Response<ReceivedBody>, Unanswered> {
        match self {
            Self::Http1(connection) => {
                // Behind it a body that was sent looks like none.
                let is_repeatable = is_repeatable(&request);
                let answered = connection.exchange(&mut request, hearing, stall_limit).await;
                answered
                    .map(|response| response.map(ReceivedBody::Answer))
                    .map_err(|(error, was_begun)| Unanswered {
                        error: error.into(),
                        again: (!was_begun || is_repeatable).then_some(request),
                    })
            }
            // Boxed: an exchange in HTTP/1 would take room for it.
            Self::Http2(sender) => Box::pin(sender.exchange(request, hearing, stall_limit)).await,
        }
    }
}

/// Whether a request has no body and changes nothing (RFC 9110 9.2.2).
fn is_repeatable(request: &Request<RequestBody>) -> bool {
    request.method().is_idempotent() && request.body().is_end_stream()
}

impl Http2Sender {
    /// Begins to speak on a connection, which closes when no sender is left and no exchange is under way.
    pub(crate) async fn handshake(stream: impl Stream + 'static, scheme: Scheme) -> Result<Self, h2::Error> {
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
        Ok(Self {
            requests,
            scheme,
            pings,
            uses: Arc::default(),
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        let mut requests = self.requests.clone();
        let ready = poll_fn(|context| requests.poll_ready(context));
        matches!(ready.now_or_never(), Some(Err(_)))
    }

    /// Whether the upstream takes a further exchange at once, where nobody but a pool has a sender without one. h2 would
    /// let it wait until another one is over (RFC 9113 5.1.2).
    pub(crate) fn has_room(&self) -> bool {
        let under_way = Arc::strong_count(&self.uses) - 1;
        under_way < self.requests.current_max_send_streams()
    }

    /// Whether the upstream makes tunnels (RFC 8441 3). It says so first of all: when it has answered a ping,
    /// it has.
    pub(crate) async fn makes_tunnels(&self) -> Result<bool, h2::Error> {
        if let (false, Some(pings)) = (self.requests.is_extended_connect_protocol_enabled(), &self.pings) {
            pings.lock().await.ping(Ping::opaque()).await?;
        }
        Ok(self.requests.is_extended_connect_protocol_enabled())
    }

    async fn exchange(
        mut self,
        request: Box<Request<RequestBody>>,
        hearing: Option<&Hearing>,
        stall_limit: Duration,
    ) -> Result<Response<ReceivedBody>, Unanswered> {
        if let Err(error) = poll_fn(|context| self.requests.poll_ready(context)).await {
            return Err(Unanswered {
                error: error.into(),
                again: Some(request),
            });
        }
        let is_repeatable = is_repeatable(&request);
        let copy = request.body().is_end_stream().then(|| copy(&request));
        let answered = self.send(*request, hearing, stall_limit).await;
        answered.map_err(|error| Unanswered {
            again: copy.filter(|_| is_repeatable || error.is_unprocessed()),
            error,
        })
    }

    async fn send(
        &mut self,
        mut request: Request<RequestBody>,
        hearing: Option<&Hearing>,
        stall_limit: Duration,
    ) -> Result<Response<ReceivedBody>, PeerError> {
        ask_by_connect(&mut request);
        name_in_target(&mut request, self.scheme.clone())?;
        let (parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return self.open_tunnel(Request::from_parts(parts, ()), hearing).await;
        }
        let is_whole = body.is_end_stream();
        let (answer, stream) = self
            .requests
            .send_request(Request::from_parts(parts, ()), is_whole)?;
        let mut sending = (!is_whole).then(|| send_body(stream, body, Some(stall_limit)).boxed());
        let mut answer = hear_out(answer, hearing, &mut sending).await?;
        // What is held back was not asked for, and will not be.
        let is_held_back = hearing.is_some_and(Hearing::holds_body_back);
        let sending = sending.filter(|_| !is_held_back).map(send_beside);
        settle_length(&mut answer)?;
        let (parts, stream) = answer.into_parts();
        let body = Http2Body::new(stream, &parts.headers)
            .beside(sending)
            .using(self.uses.clone());
        Ok(Response::from_parts(parts, ReceivedBody::Http2(body)))
    }

    async fn open_tunnel(
        &mut self,
        request: Request<()>,
        hearing: Option<&Hearing>,
    ) -> Result<Response<ReceivedBody>, PeerError> {
        let (answer, mut sending) = self.requests.send_request(request, false)?;
        let (parts, stream) = hear_out(answer, hearing, &mut None).await?.into_parts();
        let body = if parts.status.is_success() {
            ReceivedBody::Tunnel(Http2Stream::new(sending, stream).using(self.uses.clone()))
        } else {
            sending.send_data(Bytes::new(), true)?;
            ReceivedBody::Http2(Http2Body::new(stream, &parts.headers))
        };
        Ok(Response::from_parts(parts, body))
    }
}

/// The body of a request on its way.
type Sending = BoxFuture<'static, Result<(), Unsent<RequestBodyError>>>;

/// Waits for an answer while the body is sent, and tells what comes before it.
async fn hear_out(
    mut answer: ResponseFuture,
    hearing: Option<&Hearing>,
    sending: &mut Option<Sending>,
) -> Result<Response<RecvStream>, PeerError> {
    let answer = poll_fn(|context| {
        send_on(sending, context)?;
        while let Poll::Ready(Some(interim)) = answer.poll_informational(context) {
            let interim = interim?;
            check_fields(interim.headers())?;
            if let Some(hearing) = hearing {
                hearing.hear(interim.status(), interim.headers());
            }
        }
        Pin::new(&mut answer).poll(context).map_err(PeerError::from)
    });
    let answer = answer.await?;
    check_fields(answer.headers())?;
    Ok(answer)
}

/// Fails if the body broke off. An upstream that does not want to have it may still answer.
fn send_on(sending: &mut Option<Sending>, context: &mut Context<'_>) -> Result<(), PeerError> {
    let Some(Poll::Ready(sent)) = sending.as_mut().map(|sending| sending.poll_unpin(context)) else {
        return Ok(());
    };
    *sending = None;
    match sent {
        Err(Unsent::Body(error)) => Err(PeerError::RequestBody(Box::new(error))),
        sent => {
            tell(sent);
            Ok(())
        }
    }
}

/// Sends the rest of a body while the answer is received.
fn send_beside(sending: Sending) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(sending.map(tell)))
}

fn tell(sent: Result<(), Unsent<RequestBodyError>>) {
    if let Err(error) = sent {
        debug!(
            error = &error as &dyn std::error::Error,
            "a body was not sent to its end"
        );
    }
}

/// A request without a body once more.
fn copy(request: &Request<RequestBody>) -> Box<Request<RequestBody>> {
    let mut copy = Box::new(Request::new(RequestBody::empty()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// Makes of the wish for another protocol an extended CONNECT, which has no key (RFC 8441 5).
fn ask_by_connect(request: &mut Request<RequestBody>) {
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    let Some(protocol) = headers.remove(UPGRADE) else {
        return;
    };
    headers.remove(SEC_WEBSOCKET_KEY);
    // A tunnel has no content (RFC 9110 9.3.6).
    headers.remove(CONTENT_LENGTH);
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

/// Puts the authority in the target (RFC 9113 8.3.1).
fn name_in_target(request: &mut Request<RequestBody>, scheme: Scheme) -> Result<(), http::Error> {
    let Some(host) = request.headers_mut().remove(HOST) else {
        return Ok(());
    };
    let mut parts = Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(Authority::try_from(host.as_bytes())?);
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts)?;
    Ok(())
}
