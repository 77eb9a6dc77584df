//! HTTP/1.1 with a client: one request after the other, each with its answer.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, EXPECT, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Transport;
use super::half_closed::{HalfClosed, LOOK_INTERVAL};
use super::head::stays_open;
use super::pieces::{Pieces, Stall, Unsent};
use super::request_head::{Head, Refusal};
use super::response_head::Asked;
use super::rest::Rest;
use super::wire::Wire;
use crate::body::{ReplyBody, ReplyBodyError};
use crate::interim::{Interim, InterimResponse};
use crate::patience::{Deadline, Patience};
use crate::received::ReceivedBody;
use crate::reply;
use crate::server::{FAREWELL, farewell};
use crate::service::{Client, Shared};
use crate::upgrade::{Tunnel, TunnelOffer};

/// So much of what is no request is read before the connection closes.
const MOST_DRAINED: usize = 64 * 1024;

/// Why a connection ends before its time.
#[derive(Debug, Error)]
enum Broken {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the client left before it was answered")]
    Gone,
    #[error("the client takes nothing any more")]
    Stalled,
    #[error("the answer broke off")]
    Answer(#[source] ReplyBodyError),
    #[error("the answer has another length than its head says")]
    Length,
}

impl From<Unsent<ReplyBodyError>> for Broken {
    fn from(unsent: Unsent<ReplyBodyError>) -> Self {
        match unsent {
            Unsent::Io(error) => Self::Io(error),
            Unsent::Body(error) => Self::Answer(error),
            Unsent::Length => Self::Length,
        }
    }
}

/// What comes behind an answer.
enum Next {
    Request,
    End,
    /// Something that is not HTTP.
    Tunnel(TunnelOffer),
}

/// How long a client may take.
#[derive(Clone, Copy)]
struct Limits {
    /// For the head of a request, from its first byte on, and before it.
    head: Duration,
    /// To take anything of an answer, or to send anything of a body that is read behind it.
    stall: Duration,
}

/// Answers one client's requests until it leaves or the drain begins.
pub(crate) async fn serve(stream: Box<dyn Transport>, client: Client, shared: Arc<Shared>) {
    let limits = {
        let settings = &shared.snapshot().config.proxy;
        Limits {
            head: settings.header_timeout.get(),
            stall: settings.stall_timeout.get(),
        }
    };
    let mut connection = Connection::new(stream, limits);
    match connection.serve(&client, &shared).await {
        Ok(Next::Tunnel(offer)) => {
            if let Some(inner) = connection.wire.into_inner() {
                offer.open(inner.into_tunnel());
            }
        }
        Ok(_) => Box::pin(connection.close()).await,
        Err(error) => {
            let mut wire = connection.wire.lock();
            wire.stream.break_off();
            wire.break_body();
            debug!(
                client = %client.address,
                error = &error as &dyn std::error::Error,
                "an HTTP/1.1 connection broke"
            );
        }
    }
}

struct Connection {
    wire: Wire,
    sending: Pieces,
    limits: Limits,
    /// For the next head.
    deadline: Deadline,
    stall: Stall,
    half_closed: Option<HalfClosed>,
    /// Before the next look.
    pause: Patience,
}

impl Connection {
    fn new(stream: Box<dyn Transport>, limits: Limits) -> Self {
        Self {
            wire: Wire::new(stream),
            sending: Pieces::default(),
            limits,
            deadline: Deadline::new(limits.head),
            stall: Stall::default(),
            half_closed: None,
            pause: Patience::default(),
        }
    }

    /// What is left to do at the end.
    async fn serve(&mut self, client: &Client, shared: &Shared) -> Result<Next, Broken> {
        let asked = CancellationToken::new();
        let mut farewell = pin!(farewell(&shared.draining, &asked));
        while let Some(head) = self.next_head(farewell.as_mut()).await {
            asked.cancel();
            let next = match head {
                // Boxed, as all that is not idle: a connection that is would keep room for it.
                Ok(head) => Box::pin(self.answer(head, client, shared)).await?,
                Err(refusal) => Box::pin(self.refuse(refusal, client, shared)).await?,
            };
            if !matches!(next, Next::Request) {
                return Ok(next);
            }
            self.sending.let_go();
        }
        Ok(Next::End)
    }

    /// `None` if no request comes, or not in time, or none is wanted any more.
    async fn next_head(
        &mut self,
        mut farewell: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Result<Head, Refusal>> {
        let limit = self.limits.head;
        self.deadline.put_off(limit);
        let mut is_begun = false;
        poll_fn(|context| {
            let mut wire = self.wire.lock();
            if let Poll::Ready(head) = wire.poll_head(context) {
                return Poll::Ready(head);
            }
            if wire.is_idle() {
                if farewell.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
            } else if !mem::replace(&mut is_begun, true) {
                self.deadline.put_off(limit);
            }
            self.deadline.poll(context).map(|()| None)
        })
        .await
    }

    async fn refuse(&mut self, refusal: Refusal, client: &Client, shared: &Shared) -> Result<Next, Broken> {
        self.wire.lock().break_body();
        let Refusal { status, request } = refusal;
        let asked = request.as_deref().map_or(Asked::UNKNOWN, Asked::of);
        let response = match request {
            Some(request) => shared.refuse(client, &request.map(|()| ReceivedBody::None), status),
            None => reply::refusal(status),
        };
        self.send(response, asked, true).await?;
        Ok(Next::End)
    }

    async fn answer(&mut self, head: Head, client: &Client, shared: &Shared) -> Result<Next, Broken> {
        let asked = Asked::of(&head.request);
        let stays_open = stays_open(head.request.version(), head.request.headers());
        let interim = Interim::default();
        let (request, offer) = self.take(head, &interim);
        let hears = asked.hears_interim().then(|| interim.sender());
        let answering = pin!(shared.answer(client, request, hears));
        let response = self.wait_for_answer(answering, &interim, asked).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.send(response, asked, false).await?;
            return Ok(offer.map_or(Next::End, Next::Tunnel));
        }
        let closes = !stays_open
            || shared.draining.is_cancelled()
            || is_last(&response)
            || (is_failure(&response) && self.wire.lock().is_being_read())
            || asked.ends_connection(&response)
            || !self.discard().await;
        self.send(response, asked, closes).await?;
        let goes_on = !closes && self.body_over().await;
        Ok(if goes_on { Next::Request } else { Next::End })
    }

    /// The request with its body, and what opens the tunnel that it may be about.
    fn take(&self, head: Head, interim: &Interim) -> (Box<Request<ReceivedBody>>, Option<TunnelOffer>) {
        let Head { mut request, rest } = head;
        let offer = (may_leave_http(&request) && rest == Rest::Nothing).then(|| {
            let (tunnel, offer) = Tunnel::offer();
            request.extensions_mut().insert(tunnel);
            offer
        });
        let continuing = expects_continue(&request).then(|| interim.sender());
        let body = self.wire.body(rest, continuing);
        let request = request.map(|()| body.map_or(ReceivedBody::None, ReceivedBody::Client));
        (Box::new(request), offer)
    }

    /// Sends what the upstream says before its answer. An answer nobody waits for any more is given up.
    async fn wait_for_answer(
        &mut self,
        mut answering: Pin<&mut impl Future<Output = Response<ReplyBody>>>,
        interim: &Interim,
        asked: Asked,
    ) -> Result<Response<ReplyBody>, Broken> {
        poll_fn(|context| {
            let answered = answering.as_mut().poll(context);
            // One after the other, as the client takes them: an upstream could send them without end.
            loop {
                if answered.is_pending()
                    && let Poll::Ready(Err(error)) = self.poll_send_interim(context)
                {
                    return Poll::Ready(Err(error));
                }
                let may_write = answered.is_ready() || !self.sending.waits_for_stream();
                match may_write.then(|| interim.take(context.waker())).flatten() {
                    Some(response) => response.write_to(self.sending.head()),
                    None => break,
                }
            }
            if let Poll::Ready(response) = answered {
                return Poll::Ready(Ok(response));
            }
            self.poll_gone(asked.hears_interim(), context).map(Err)
        })
        .await
    }

    fn poll_send_interim(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if !self.sending.waits_for_stream() {
            return Poll::Ready(Ok(()));
        }
        let sent = self.sending.poll_send_taken(&mut self.wire, context);
        if sent.is_ready() {
            return sent.map_err(Broken::from);
        }
        self.poll_stall(context).map(Err)
    }

    /// Ready when the client takes nothing for too long.
    fn poll_stall(&mut self, context: &mut Context<'_>) -> Poll<Broken> {
        let stalled = self.stall.poll(&self.sending, self.limits.stall, context);
        stalled.map(|()| Broken::Stalled)
    }

    /// Ready when the client is gone. One that has ended its side may still read (RFC 9112 9.6): it is asked by what
    /// every client has to understand and none has to heed (RFC 9110 15.2). What cannot be asked is taken for gone:
    /// who knows no interim responses, and who is in the midst of an answer that stands still.
    fn poll_gone(&mut self, can_be_asked: bool, context: &mut Context<'_>) -> Poll<Broken> {
        // Only when that has read what it may is it known whether anything is held up.
        let ended = self.wire.lock().poll_end(context);
        if let Poll::Ready(gone) = self.poll_broken(context) {
            return Poll::Ready(gone);
        }
        if let Err(error) = ready!(ended) {
            return Poll::Ready(error.into());
        }
        // As long as it has not taken all, the system knows.
        while !self.sending.waits_for_stream() {
            let sent = self.sending.written();
            let half_closed = self.half_closed.get_or_insert_with(|| HalfClosed::new(sent));
            let has_moved = ready!(half_closed.poll_look(sent, context));
            if has_moved {
                continue;
            }
            if !can_be_asked {
                return Poll::Ready(Broken::Gone);
            }
            InterimResponse::proceed().write_to(self.sending.head());
            if let Err(error) = ready!(self.poll_send_interim(context)) {
                return Poll::Ready(error);
            }
        }
        Poll::Pending
    }

    /// Ready when the client has broken the connection while something of it waits to be read: what is read nowhere is
    /// not found out by reading.
    fn poll_broken(&mut self, context: &mut Context<'_>) -> Poll<Broken> {
        while self.wire.lock().is_held_up() {
            ready!(self.pause.poll(LOOK_INTERVAL, context));
            self.pause.renew();
            if self.wire.lock().stream.is_broken() {
                return Poll::Ready(Broken::Gone);
            }
        }
        Poll::Pending
    }

    /// Takes off what nobody wants of the body. Whether the next request would be found behind it.
    async fn discard(&self) -> bool {
        poll_fn(|context| Poll::Ready(self.wire.lock().discard(context))).await
    }

    async fn send(
        &mut self,
        response: Response<ReplyBody>,
        asked: Asked,
        closes: bool,
    ) -> Result<(), Broken> {
        asked.begin(&response, closes, &mut self.sending);
        let mut body = response.into_body();
        let sent = poll_fn(|context| {
            let sent = self.sending.poll_send(&mut self.wire, &mut body, context);
            if sent.is_ready() {
                return sent.map_err(Broken::from);
            }
            if let Poll::Ready(stalled) = self.poll_stall(context) {
                return Poll::Ready(Err(stalled));
            }
            self.poll_gone(false, context).map(Err)
        });
        let sent = sent.await;
        if matches!(sent, Err(Broken::Answer(_) | Broken::Length)) {
            // The client gets what came before.
            poll_fn(|context| self.poll_send_interim(context)).await?;
        }
        sent
    }

    /// Waits for the rest of a body that somebody still reads though the answer is over, as long as it comes. Whether a
    /// further request may follow.
    async fn body_over(&mut self) -> bool {
        let (limit, mut patience) = (self.limits.stall, Patience::default());
        let mut seen = 0;
        let over = poll_fn(|context| {
            let before = seen;
            let over = self.wire.lock().poll_body_over(&mut seen, context);
            if over.is_ready() {
                return over;
            }
            if seen != before {
                patience.renew();
            }
            patience.poll(limit, context).map(|()| false)
        });
        let is_over = over.await;
        if !is_over {
            self.wire.lock().end_reading();
        }
        is_over
    }

    /// Ends the connection. A last answer gets the time to arrive: with unread bytes the system would reset the
    /// connection, and take back what it has not delivered (RFC 9112 9.6).
    async fn close(mut self) {
        let _ = timeout(FAREWELL, self.wire.shutdown()).await;
        let has_answered = self.sending.written() > 0;
        if has_answered {
            self.body_over().await;
            let mut left = MOST_DRAINED;
            let drained = poll_fn(|context| self.wire.lock().poll_drain(&mut left, context));
            let _ = timeout(FAREWELL, drained).await;
        }
    }
}

/// Whether it asks for another protocol (RFC 9110 7.8). With a body it is not heard.
fn may_leave_http(request: &Request<()>) -> bool {
    request.version() == Version::HTTP_11 && request.headers().contains_key(UPGRADE)
}

/// Whether the client may hold the body back (RFC 9110 10.1.1).
fn expects_continue(request: &Request<()>) -> bool {
    let expectation = request.headers().get(EXPECT);
    request.version() == Version::HTTP_11
        && expectation.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether the client, which is still sending, sends what nobody wants to have: it is to hear that it may stop.
fn is_failure(response: &Response<ReplyBody>) -> bool {
    response.status().is_client_error() || response.status().is_server_error()
}

/// Whether nothing is to be read behind what is answered so.
fn is_last(response: &Response<ReplyBody>) -> bool {
    let connection = response.headers().get(CONNECTION);
    connection.is_some_and(|option| option == "close")
}
