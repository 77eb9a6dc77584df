//! HTTP/2 towards clients, on h2 itself: hyper's server sends no interim responses, takes a body that was
//! broken off with CANCEL for a whole one, and keeps idle connections for ever.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::ext::Protocol;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::body::{ReplyBody, ReplyBodyError};
use crate::corked::{Corked, Outlet};
use crate::date;
use crate::headers::strip_hop_by_hop;
use crate::http2_stream::{Http2Body, Http2Stream, Unsent, has_malformed_field, send_body};
use crate::interim::Interim;
use crate::received::ReceivedBody;
use crate::server::{FAREWELL, farewell};
use crate::service::{Client, Shared};
use crate::upgrade::{Tunnel, TunnelOffer};

/// Bounds what one client can make us hold (RFC 9113 10.5).
const MAX_STREAMS: u32 = 128;
const MAX_HEADER_BYTES: u32 = 64 * 1024;
const MAX_UNSENT_BYTES: usize = 256 * 1024;
/// What a client may send before somebody has taken it: enough for a fast upload over a long way.
const WINDOW: u32 = 1 << 20;
/// What parts of bodies that nobody has taken yet may cost, each counted with 256 bytes at least: they are kept one
/// by one, and conversations have many small ones.
const UNTAKEN_BYTES: usize = 8 << 20;
/// So many exchanges a client may give up between two pings: to begin one and give it up costs it two frames, and
/// us a connection to an upstream. h2 counts only those that come in one go. More are not held against one that lets
/// as many come to their end.
const MAX_GIVEN_UP: u32 = 512;
/// How long a client is waited for that shows nothing of itself.
#[derive(Clone, Copy)]
struct Patience {
    /// Between two pings (RFC 9113 6.7).
    between_pings: Duration,
    /// For so many intervals a ping may be without an answer: before it, a slow client gets what was sent before.
    intervals: u8,
    /// How long a connection stays without a request.
    idle: Duration,
}

const PATIENCE: Patience = Patience {
    between_pings: Duration::from_secs(30),
    intervals: 2,
    idle: Duration::from_secs(180),
};

#[derive(Debug, Error)]
enum ConnectionError {
    #[error(transparent)]
    Protocol(#[from] h2::Error),
    #[error("it cannot be written to")]
    Write(#[from] io::Error),
    #[error("the client does not answer pings")]
    Silent,
}

/// Why a stream ended before its end.
#[derive(Debug, Error)]
enum StreamError {
    #[error("the client gave it up: {0}")]
    Reset(Reason),
    #[error(transparent)]
    Protocol(#[from] h2::Error),
    #[error("the answer was not sent to its end")]
    Body(#[from] Unsent<ReplyBodyError>),
}

impl StreamError {
    /// Whether it was the client who ended it.
    fn is_given_up(&self) -> bool {
        !matches!(self, Self::Body(Unsent::Body(_) | Unsent::Stalled))
    }
}

/// Answers one client's requests until it leaves or the drain begins.
pub(crate) async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, client: Client, shared: Arc<Shared>) {
    let limit = shared.snapshot().config.proxy.header_timeout.get();
    let draining = shared.draining.clone();
    let address = client.address;
    let (asked, leaving) = (CancellationToken::new(), CancellationToken::new());
    let accepting = accept_streams(stream, client, shared, &asked, &leaving, PATIENCE);
    let mut serving = pin!(accepting);
    let unwanted = async {
        tokio::select! {
            Err(_) = timeout(limit, asked.cancelled()) => {}
            () = farewell(&draining, &asked) => {}
        }
    };
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = unwanted => {
            leaving.cancel();
            // Not every client sends a preface, or answers the ping with which a connection ends.
            tokio::select! {
                ended = &mut serving => ended,
                Err(_) = timeout(FAREWELL, asked.cancelled()) => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(
            client = %address,
            error = &error as &dyn std::error::Error,
            "an HTTP/2 connection broke"
        );
    }
}

async fn accept_streams(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client: Client,
    shared: Arc<Shared>,
    asked: &CancellationToken,
    leaving: &CancellationToken,
    patience: Patience,
) -> Result<(), ConnectionError> {
    let (stream, outlet) = Corked::new(stream);
    let mut connection: Connection<_, Bytes> = builder().handshake(stream).await?;
    let client = Arc::new(client);
    let mut life = Life::new(connection.ping_pong());
    let mut turn = Turn::new(outlet);
    // Not at once: a client that has just come is there, and does not expect a question.
    let mut ticks = interval_at(Instant::now() + patience.between_pings, patience.between_pings);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leaving = pin!(leaving.cancelled().fuse());
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = poll_fn(|context| turn.poll_accept(&mut connection, context)) => accepted,
            () = &mut leaving => {
                connection.graceful_shutdown();
                continue;
            }
            _ = ticks.tick() => {
                if Arc::strong_count(&client) == 1 && life.last_request.elapsed() > patience.idle {
                    connection.graceful_shutdown();
                }
                life.ping(patience.intervals)?;
                life.forget();
                continue;
            }
        };
        let Some(accepted) = accepted else {
            return Ok(());
        };
        let (request, respond) = accepted?;
        if life.gives_up_too_much() {
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            continue;
        }
        asked.cancel();
        life.last_request = Instant::now();
        life.begun += 1;
        let given_up = life.given_up.clone();
        let serving = serve_stream(shared.clone(), client.clone(), given_up, request, respond);
        // Boxed: a task moves its future several times.
        tokio::spawn(Box::pin(serving));
    }
}

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// Lets every other task that can go on do so before the connection does: what many streams have to send by
/// then goes out in one write.
struct Turn<S> {
    has_come: bool,
    outlet: Outlet<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Turn<S> {
    fn new(outlet: Outlet<S>) -> Self {
        let has_come = false;
        Self { has_come, outlet }
    }

    fn poll_accept(
        &mut self,
        connection: &mut Connection<Corked<S>, Bytes>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Accepted, ConnectionError>>> {
        if !self.has_come {
            self.has_come = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let accepted = connection.poll_accept(context);
        self.has_come = accepted.is_ready();
        if accepted.is_pending()
            && let Poll::Ready(Err(error)) = self.outlet.poll_let_go(context)
        {
            return Poll::Ready(Some(Err(error.into())));
        }
        accepted.map_err(ConnectionError::from)
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buffer_size(MAX_UNSENT_BYTES)
        .data_frame_budget(UNTAKEN_BYTES)
        .enable_connect_protocol();
    builder
}

/// What shows whether somebody is still there, and means well.
struct Life {
    pings: Option<PingPong>,
    /// For how many intervals a ping has been under way.
    unanswered: Option<u8>,
    last_request: Instant,
    /// So many exchanges since the last ping.
    begun: u32,
    given_up: Arc<AtomicU32>,
}

impl Life {
    fn new(pings: Option<PingPong>) -> Self {
        Self {
            pings,
            unanswered: None,
            last_request: Instant::now(),
            begun: 0,
            given_up: Arc::default(),
        }
    }

    fn gives_up_too_much(&self) -> bool {
        let given_up = self.given_up.load(Ordering::Relaxed);
        given_up > MAX_GIVEN_UP && given_up > self.begun / 2
    }

    fn forget(&mut self) {
        self.begun = 0;
        self.given_up.store(0, Ordering::Relaxed);
    }

    fn ping(&mut self, patience: u8) -> Result<(), ConnectionError> {
        let Some(pings) = &mut self.pings else {
            return Ok(());
        };
        if let Some(intervals) = self.unanswered {
            match poll_fn(|context| pings.poll_pong(context)).now_or_never() {
                Some(answer) => {
                    answer?;
                }
                None if intervals + 1 == patience => return Err(ConnectionError::Silent),
                None => {
                    self.unanswered = Some(intervals + 1);
                    return Ok(());
                }
            }
        }
        pings.send_ping(Ping::opaque())?;
        self.unanswered = Some(0);
        Ok(())
    }
}

async fn serve_stream(
    shared: Arc<Shared>,
    client: Arc<Client>,
    given_up: Arc<AtomicU32>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    if let Err(error) = answer(&shared, &client, request, &mut respond).await {
        given_up.fetch_add(u32::from(error.is_given_up()), Ordering::Relaxed);
        let error = &error as &dyn std::error::Error;
        debug!(client = %client.address, error, "an HTTP/2 stream broke");
    }
}

async fn answer(
    shared: &Shared,
    client: &Client,
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), StreamError> {
    if is_malformed(&request) {
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return Ok(());
    }
    let interim = Interim::default();
    let is_head = request.method() == Method::HEAD;
    let (request, tunnel) = take(request);
    let hears = interim.sender().saying_continue();
    let answering = pin!(shared.answer(client, request, Some(hears)));
    let response = wait_for_answer(answering, &interim, respond).await?;
    let (response, body) = finish(response);
    if let (Some(tunnel), true) = (tunnel, response.status().is_success()) {
        let (offer, from_client) = tunnel;
        let to_client = respond.send_response(response, false)?;
        offer.open(Box::new(Http2Stream::new(to_client, from_client)));
        return Ok(());
    }
    // Whatever is there for it (RFC 9110 9.3.2).
    let is_over = is_head || body.is_end_stream();
    let stream = respond.send_response(response, is_over)?;
    if is_over {
        return Ok(());
    }
    let stall_limit = shared.snapshot().config.proxy.stall_timeout.get();
    Ok(send_body(stream, body, Some(stall_limit)).await?)
}

/// What h2 lets through (RFC 9113 8.1.1): no path beside no authority, a malformed field, a length that is none, lengths
/// that disagree, and a tunnel for anything but one protocol (RFC 8441 4).
fn is_malformed(request: &Request<RecvStream>) -> bool {
    (request.uri().path().is_empty() && request.method() != Method::CONNECT)
        || request.extensions().get().is_some_and(is_no_protocol)
        || has_malformed_field(request.headers())
        || has_malformed_length(request.headers())
}

fn is_no_protocol(protocol: &Protocol) -> bool {
    let is_in_name = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    protocol.as_str().is_empty() || !protocol.as_str().bytes().all(is_in_name)
}

/// h2 holds the body to the first of them, in which it takes nothing for zero.
fn has_malformed_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return false;
    };
    first.is_empty() || lengths.any(|other| other != first)
}

/// The request with what it can be answered through beside its response.
fn take(request: Request<RecvStream>) -> (Box<Request<ReceivedBody>>, Option<(TunnelOffer, RecvStream)>) {
    let (mut parts, stream) = request.into_parts();
    if parts.extensions.get::<Protocol>().is_some() {
        let (tunnel, offer) = Tunnel::offer();
        parts.extensions.insert(tunnel);
        // A tunnel has no content; an upstream would wait for it, in what the next client says (RFC 9110 9.3.6).
        parts.headers.remove(CONTENT_LENGTH);
        let request = Request::from_parts(parts, ReceivedBody::None);
        return (Box::new(request), Some((offer, stream)));
    }
    let body = ReceivedBody::Http2(Http2Body::new(stream, &parts.headers));
    (Box::new(Request::from_parts(parts, body)), None)
}

/// Sends what the upstream says before its answer. An answer nobody waits for any more is given up.
async fn wait_for_answer(
    mut answering: Pin<&mut impl Future<Output = Response<ReplyBody>>>,
    interim: &Interim,
    respond: &mut SendResponse<Bytes>,
) -> Result<Response<ReplyBody>, StreamError> {
    let mut room = MAX_UNSENT_BYTES;
    poll_fn(|context| {
        let answered = answering.as_mut().poll(context);
        while let Some(response) = interim.take(context.waker()) {
            // h2 keeps them all for a client that takes none.
            if let Some(left) = room.checked_sub(response.size()) {
                room = left;
                respond.send_informational(response.into())?;
            }
        }
        match answered {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => respond
                .poll_reset(context)
                .map(|reason| Err(StreamError::Reset(reason?))),
        }
    })
    .await
}

/// What every response has: a date (RFC 9110 6.6.1), and nothing of HTTP/1 (RFC 9113 8.2.2).
fn finish(response: Response<ReplyBody>) -> (Response<()>, ReplyBody) {
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    parts.headers.entry(DATE).or_insert_with(date::now);
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
    {
        parts
            .headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| length.into());
    }
    (Response::from_parts(parts, ()), body)
}

#[cfg(test)]
mod tests {
    use fairlead_contract::{Files, Paths};
    use jiff::Timestamp;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::listeners::Ports;
    use crate::snapshot::Snapshot;

    const SHORT: Patience = Patience {
        between_pings: Duration::from_millis(20),
        intervals: 2,
        idle: Duration::from_millis(100),
    };
    const DEADLINE: Duration = Duration::from_secs(30);

    /// How the connection ends whose other end this is.
    async fn end_of(stream: DuplexStream) -> Result<(), ConnectionError> {
        let snapshot = Snapshot::build(&Files::default(), None, Timestamp::UNIX_EPOCH).snapshot;
        let nowhere = || "/nonexistent".into();
        let paths = Paths {
            config: nowhere(),
            state: nowhere(),
            runtime: nowhere(),
        };
        let ports = Ports {
            http: None,
            https: None,
        };
        let shared = Arc::new(Shared::new(snapshot, &paths, ports));
        let address = "127.0.0.1:1".parse().unwrap();
        let client = Client::new(address, address, None);
        let (asked, leaving) = (CancellationToken::new(), CancellationToken::new());
        let serving = accept_streams(stream, client, shared, &asked, &leaving, SHORT);
        timeout(DEADLINE, serving).await.unwrap()
    }

    #[test]
    fn a_busy_client_may_give_up_a_part_of_what_it_asks() {
        let mut life = Life::new(None);
        let mut judge = |begun, given_up| {
            life.begun = begun;
            life.given_up.store(given_up, Ordering::Relaxed);
            life.gives_up_too_much()
        };
        assert!(!judge(MAX_GIVEN_UP, MAX_GIVEN_UP));
        assert!(judge(MAX_GIVEN_UP + 1, MAX_GIVEN_UP + 1));
        assert!(!judge(10 * MAX_GIVEN_UP, 2 * MAX_GIVEN_UP));
        assert!(judge(10 * MAX_GIVEN_UP, 6 * MAX_GIVEN_UP));
        life.forget();
        assert!(!life.gives_up_too_much());
    }

    #[tokio::test]
    async fn a_client_that_answers_no_ping_is_given_up() {
        let (ours, mut theirs) = duplex(1 << 16);
        theirs
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        assert!(matches!(end_of(ours).await, Err(ConnectionError::Silent)));
    }

    #[tokio::test]
    async fn a_client_that_answers_pings_and_asks_nothing_is_bid_farewell() {
        let (ours, theirs) = duplex(1 << 16);
        let client = tokio::spawn(async {
            let (_sender, connection) = h2::client::handshake(theirs).await.unwrap();
            connection.await
        });
        // The client may be gone before it has heard the last of it.
        assert!(!matches!(end_of(ours).await, Err(ConnectionError::Silent)));
        client.await.unwrap().unwrap();
    }
}
