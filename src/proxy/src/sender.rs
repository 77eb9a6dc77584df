use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, UPGRADE};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body::Body;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::body::{RequestBody, RequestBodyError};
use crate::http1::{Http1Connection, Stream};
use crate::http2::{
    ConnectProtocol, Http2Body, Http2Error, Http2Stream, Incoming, Requests, Unsent, send_body,
};
use crate::interim::Hearing;
use crate::message_length::settle_length;
use crate::received::{PeerError, ReceivedBody};
use crate::upgrade::SEC_WEBSOCKET_KEY;

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
    requests: Requests,
    /// Some servers refuse one that is not the connection's.
    scheme: Scheme,
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
    pub(crate) fn new(stream: impl Stream + 'static, scheme: Scheme) -> Self {
        Self {
            requests: Requests::new(stream),
            scheme,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Whether the upstream takes a further exchange at once (RFC 9113 5.1.2), where nobody but a pool has a sender without
    /// one.
    pub(crate) fn has_room(&self) -> bool {
        self.requests.has_room()
    }

    /// Whether the upstream makes tunnels (RFC 8441 3).
    pub(crate) async fn makes_tunnels(&self) -> Result<bool, Http2Error> {
        self.requests.makes_tunnels().await
    }

    async fn exchange(
        self,
        request: Box<Request<RequestBody>>,
        hearing: Option<&Hearing>,
        stall_limit: Duration,
    ) -> Result<Response<ReceivedBody>, Unanswered> {
        if let Err(error) = self.requests.ready().await {
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
        self,
        mut request: Request<RequestBody>,
        hearing: Option<&Hearing>,
        stall_limit: Duration,
    ) -> Result<Response<ReceivedBody>, PeerError> {
        ask_by_connect(&mut request);
        name_in_target(&mut request, self.scheme.clone())?;
        let (parts, body) = request.into_parts();
        let head = Request::from_parts(parts, ());
        if head.method() == Method::CONNECT {
            return self.open_tunnel(&head, hearing).await;
        }
        let is_whole = body.is_end_stream();
        let (mut incoming, outgoing) = self.requests.send(&head, is_whole).await?;
        let mut sending = (!is_whole).then(|| send_body(outgoing, body, stall_limit).boxed());
        let mut answer = hear_out(&mut incoming, hearing, &mut sending).await?;
        // What is held back was not asked for, and will not be.
        let is_held_back = hearing.is_some_and(Hearing::holds_body_back);
        let sending = sending.filter(|_| !is_held_back).map(send_beside);
        settle_length(&mut answer)?;
        let body = Http2Body::new(incoming, answer.headers()).beside(sending);
        Ok(answer.map(|()| ReceivedBody::Http2(body)))
    }

    async fn open_tunnel(
        self,
        head: &Request<()>,
        hearing: Option<&Hearing>,
    ) -> Result<Response<ReceivedBody>, PeerError> {
        let (mut incoming, mut outgoing) = self.requests.send(head, false).await?;
        let answer = hear_out(&mut incoming, hearing, &mut None).await?;
        let body = if answer.status().is_success() {
            ReceivedBody::Tunnel(Http2Stream::new(outgoing, incoming))
        } else {
            // An upstream that refuses may have reset the stream behind its answer (RFC 9113 8.1).
            let _ = outgoing.finish();
            ReceivedBody::Http2(Http2Body::new(incoming, answer.headers()))
        };
        Ok(answer.map(|()| body))
    }
}

/// The body of a request on its way.
type Sending = BoxFuture<'static, Result<(), Unsent<RequestBodyError>>>;

/// Waits for an answer while the body is sent, and tells what comes before it.
async fn hear_out(
    incoming: &mut Incoming,
    hearing: Option<&Hearing>,
    sending: &mut Option<Sending>,
) -> Result<Response<()>, PeerError> {
    poll_fn(|context| {
        send_on(sending, context)?;
        loop {
            let head = ready!(incoming.poll_head(context))?;
            if !head.status().is_informational() {
                return Poll::Ready(Ok(head));
            }
            if let Some(hearing) = hearing {
                hearing.hear(head.status(), head.headers());
            }
        }
    })
    .await
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
    if let Some(protocol) = wanted.and_then(|protocol| HeaderValue::from_str(protocol.trim()).ok()) {
        request.extensions_mut().insert(ConnectProtocol(protocol));
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
