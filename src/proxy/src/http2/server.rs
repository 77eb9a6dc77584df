//! HTTP/2 towards clients.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, DATE};
use http::{Method, Request, Response};
use http_body::Body;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::connection::{Connection, Received};
use super::settings::OwnSettings;
use super::{ConnectProtocol, Http2Body, Http2Error, Http2Stream, Incoming, Outgoing, Unsent, send_body};
use crate::body::{ReplyBody, ReplyBodyError};
use crate::date;
use crate::headers::strip_hop_by_hop;
use crate::interim::Interim;
use crate::received::ReceivedBody;
use crate::server::{FAREWELL, farewell};
use crate::service::{Client, Shared};
use crate::upgrade::{Tunnel, TunnelOffer};

/// Bounds what one client can make us hold (RFC 9113 10.5).
const MAX_STREAMS: u32 = 128;
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// Of interim responses to one request.
const MAX_INTERIM_BYTES: usize = 256 * 1024;
/// What a client may send before somebody has taken it: enough for a fast upload over a long way.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same of all its streams: one that is not taken does not hold the others up.
const CONNECTION_WINDOW: u32 = 2 * STREAM_WINDOW;

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

/// Why a stream ended before its end.
#[derive(Debug, Error)]
enum StreamError {
    #[error(transparent)]
    Stream(#[from] Http2Error),
    #[error("the answer was not sent to its end")]
    Body(#[from] Unsent<ReplyBodyError>),
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
) -> Result<(), Http2Error> {
    let settings = OwnSettings {
        max_streams: Some(MAX_STREAMS),
        initial_window: STREAM_WINDOW,
        max_header_bytes: MAX_HEADER_BYTES,
    };
    let mut connection = Connection::new(stream, settings, CONNECTION_WINDOW);
    let ended = accept_from(&mut connection, client, shared, asked, leaving, patience).await;
    connection.close().await;
    ended
}

async fn accept_from<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    client: Client,
    shared: Arc<Shared>,
    asked: &CancellationToken,
    leaving: &CancellationToken,
    patience: Patience,
) -> Result<(), Http2Error> {
    let client = Arc::new(client);
    let mut life = Life::new();
    let mut turn = Turn::default();
    // Not at once: a client that has just come is there, and does not expect a question.
    let mut ticks = interval_at(Instant::now() + patience.between_pings, patience.between_pings);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_call = pin!(last_call(leaving).fuse());
    let mut leaving = pin!(leaving.cancelled().fuse());
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = poll_fn(|context| turn.poll_accept(connection, context)) => accepted,
            () = &mut leaving => {
                connection.lock().leave();
                continue;
            }
            () = &mut last_call => {
                connection.lock().name_last();
                continue;
            }
            _ = ticks.tick() => {
                if Arc::strong_count(&client) == 1 && life.last_request.elapsed() > patience.idle {
                    connection.lock().leave();
                }
                life.ping(connection, patience.intervals)?;
                continue;
            }
        };
        let Some(accepted) = accepted else {
            return Ok(());
        };
        let (request, outgoing) = accepted?;
        asked.cancel();
        life.last_request = Instant::now();
        let serving = serve_stream(shared.clone(), client.clone(), request, outgoing);
        // Boxed: a task moves its future several times.
        tokio::spawn(Box::pin(serving));
    }
}

/// Waits until a client that is left has had the time to say that it knows. One that is asleep would hold up the drain.
async fn last_call(leaving: &CancellationToken) {
    leaving.cancelled().await;
    let _ = timeout(FAREWELL, pending::<()>()).await;
}

/// Lets every other task that can go on do so before the connection does: what many streams have to send by
/// then goes out in one write.
#[derive(Default)]
struct Turn {
    has_come: bool,
}

impl Turn {
    fn poll_accept<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        connection: &mut Connection<S>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Received, Http2Error>>> {
        if !self.has_come {
            self.has_come = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let accepted = connection.poll_accept(context);
        self.has_come = accepted.is_ready();
        accepted
    }
}

/// What shows whether somebody is still there.
struct Life {
    /// A ping, and for how many intervals it has been under way.
    ping: Option<(u64, u8)>,
    last_request: Instant,
}

impl Life {
    fn new() -> Self {
        Self {
            ping: None,
            last_request: Instant::now(),
        }
    }

    fn ping<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        connection: &Connection<S>,
        patience: u8,
    ) -> Result<(), Http2Error> {
        let mut state = connection.lock();
        state.tally.forget();
        state.give_up_stuck();
        self.ping = match self.ping {
            Some((ping, intervals)) if !state.pings.is_answered(ping) => {
                if intervals + 1 == patience {
                    state.fail(&Http2Error::Silent);
                    return Err(Http2Error::Silent);
                }
                Some((ping, intervals + 1))
            }
            _ => Some((state.ping(), 0)),
        };
        Ok(())
    }
}

async fn serve_stream(
    shared: Arc<Shared>,
    client: Arc<Client>,
    request: Request<Incoming>,
    outgoing: Outgoing,
) {
    if let Err(error) = answer(&shared, &client, request, outgoing).await {
        let error = &error as &dyn std::error::Error;
        debug!(client = %client.address, error, "an HTTP/2 stream broke");
    }
}

async fn answer(
    shared: &Shared,
    client: &Client,
    request: Request<Incoming>,
    mut outgoing: Outgoing,
) -> Result<(), StreamError> {
    let interim = Interim::default();
    let is_head = request.method() == Method::HEAD;
    let (request, tunnel) = take(request);
    let hears = interim.sender().saying_continue();
    let answering = pin!(shared.answer(client, request, Some(hears)));
    let response = wait_for_answer(answering, &interim, &mut outgoing).await?;
    let (response, body) = finish(response);
    if let (Some(tunnel), true) = (tunnel, response.status().is_success()) {
        let (offer, from_client) = tunnel;
        outgoing.send_head(&response, false)?;
        offer.open(Box::new(Http2Stream::new(outgoing, from_client)));
        return Ok(());
    }
    // Whatever is there for it (RFC 9110 9.3.2).
    let is_over = is_head || body.is_end_stream();
    outgoing.send_head(&response, is_over)?;
    if is_over {
        return Ok(());
    }
    let stall_limit = shared.snapshot().config.proxy.stall_timeout.get();
    Ok(send_body(outgoing, body, stall_limit).await?)
}

/// The request with what it can be answered through beside its response.
fn take(request: Request<Incoming>) -> (Box<Request<ReceivedBody>>, Option<(TunnelOffer, Incoming)>) {
    let (mut parts, incoming) = request.into_parts();
    if parts.extensions.get::<ConnectProtocol>().is_some() {
        let (tunnel, offer) = Tunnel::offer();
        parts.extensions.insert(tunnel);
        // A tunnel has no content; an upstream would wait for it, in what the next client says (RFC 9110 9.3.6).
        parts.headers.remove(CONTENT_LENGTH);
        let request = Request::from_parts(parts, ReceivedBody::None);
        return (Box::new(request), Some((offer, incoming)));
    }
    let body = match incoming.is_end_stream() {
        true => ReceivedBody::None,
        false => ReceivedBody::Http2(Http2Body::new(incoming, &parts.headers)),
    };
    (Box::new(Request::from_parts(parts, body)), None)
}

/// Sends what the upstream says before its answer. An answer nobody waits for any more is given up.
async fn wait_for_answer(
    mut answering: Pin<&mut impl Future<Output = Response<ReplyBody>>>,
    interim: &Interim,
    outgoing: &mut Outgoing,
) -> Result<Response<ReplyBody>, Http2Error> {
    let mut room = MAX_INTERIM_BYTES;
    poll_fn(|context| {
        let answered = answering.as_mut().poll(context);
        while let Some(response) = interim.take(context.waker()) {
            // They are kept for a client that takes none.
            if let Some(left) = room.checked_sub(response.size()) {
                room = left;
                outgoing.send_head(&response.into(), false)?;
            }
        }
        match answered {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => outgoing.poll_broken(context).map(Err),
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
    use tokio::task::yield_now;

    use super::super::Requests;
    use super::super::frame::{END_HEADERS, END_STREAM, HEADERS};
    use super::super::peer::Peer;
    use super::*;
    use crate::listeners::Ports;
    use crate::snapshot::Snapshot;

    const SHORT: Patience = Patience {
        between_pings: Duration::from_millis(20),
        intervals: 2,
        idle: Duration::from_millis(100),
    };
    const DEADLINE: Duration = Duration::from_secs(30);

    fn shared() -> Arc<Shared> {
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
        Arc::new(Shared::new(snapshot, &paths, ports))
    }

    /// How the connection ends whose other end this is.
    async fn end_of(stream: DuplexStream, shared: Arc<Shared>) -> Result<(), Http2Error> {
        let address = "127.0.0.1:1".parse().unwrap();
        let client = Client::new(address, address, None);
        let (asked, leaving) = (CancellationToken::new(), CancellationToken::new());
        let serving = accept_streams(stream, client, shared, &asked, &leaving, SHORT);
        timeout(DEADLINE, serving).await.unwrap()
    }

    #[tokio::test]
    async fn a_client_that_answers_no_ping_is_given_up() {
        let (ours, mut theirs) = duplex(1 << 16);
        theirs
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        assert!(matches!(end_of(ours, shared()).await, Err(Http2Error::Silent)));
    }

    #[tokio::test]
    async fn a_client_that_answers_pings_and_asks_nothing_is_bid_farewell() {
        let (ours, theirs) = duplex(1 << 16);
        let requests = Requests::new(theirs);
        // The client may be gone before it has heard the last of it.
        assert!(!matches!(end_of(ours, shared()).await, Err(Http2Error::Silent)));
        assert!(requests.is_closed());
    }

    #[tokio::test]
    async fn who_answers_a_client_that_is_given_up_hears_of_it() {
        // No window for a stream, so that the answer waits.
        let (mut peer, ours) = Peer::client(&[0, 4, 0, 0, 0, 0]).await;
        let get = b"\x82\x87\x84\x01\x06a.test";
        peer.send(HEADERS, END_HEADERS | END_STREAM, 1, get).await;
        let shared = shared();
        assert!(matches!(
            end_of(ours, shared.clone()).await,
            Err(Http2Error::Silent)
        ));
        let is_alone = async {
            while Arc::strong_count(&shared) > 1 {
                yield_now().await;
            }
        };
        timeout(DEADLINE, is_alone).await.expect("the answer still waits");
    }
}
