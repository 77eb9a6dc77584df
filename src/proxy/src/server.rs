use std::convert::Infallible;
use std::future::{Pending, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{CONNECTION, EXPECT, HOST, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, UpgradeableConnection};
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Timeout, timeout, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::body::{ReplyBody, ReplyBodyError};
use crate::certificate::Certificate;
use crate::framing::Oddity;
use crate::handshake;
use crate::http2;
use crate::interim::Interim;
use crate::metrics::Open;
use crate::proxy_protocol::read_header;
use crate::received::ReceivedBody;
use crate::reply;
use crate::service::{Client, Shared};
use crate::watched::{Limits, Progress, Transport, Watched};

/// After a failed accept; the usual cause, no free descriptor, does not pass by itself.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two lines about it.
const ACCEPT_SILENCE: Duration = Duration::from_secs(10);
/// How long a drain waits for the first request of a connection that has made none.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);
/// How long an HTTP/1 connection keeps its buffers for a next request, at least; at most twice as long.
const BEFORE_REST: Duration = Duration::from_millis(250);

/// What a listener speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Plain,
    Tls,
}

/// Accepts until the drain begins. Then the listener closes here; systemd holds it open.
pub(crate) async fn serve(listener: TcpListener, protocol: Protocol, shared: Arc<Shared>) {
    let draining = shared.draining.clone();
    let mut failures = AcceptFailures::default();
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let serving = serve_connection(stream, address, protocol, shared.clone());
                    shared.tasks.spawn(serving);
                }
                Err(error) => failures.pause(&error).await,
            }
        }
    };
    draining.run_until_cancelled(accepting).await;
}

/// What to do when no connection can be accepted: wait, and say so now and then.
#[derive(Default)]
pub(crate) struct AcceptFailures {
    told: Option<Instant>,
}

impl AcceptFailures {
    pub(crate) async fn pause(&mut self, error: &io::Error) {
        // A client that left before it was accepted is no reason to wait.
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        if self.told.is_none_or(|told| told.elapsed() > ACCEPT_SILENCE) {
            self.told = Some(Instant::now());
            let error = error as &dyn std::error::Error;
            error!(
                error,
                "cannot accept connections; those that wait are tried again"
            );
        }
        let _ = timeout(ACCEPT_PAUSE, pending::<()>()).await;
    }
}

async fn serve_connection(
    mut stream: TcpStream,
    address: SocketAddr,
    protocol: Protocol,
    shared: Arc<Shared>,
) {
    let _open = Open::count(&shared.metrics);
    let Some(address) = find_client(&mut stream, address, &shared).await else {
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot switch delays off");
    }
    let Ok(local) = stream.local_addr() else {
        return;
    };
    // Boxed one by one: a connection that is idle takes the room of the stage it is in, not of the largest.
    match protocol {
        Protocol::Plain => {
            let client = Client::new(address, local, None);
            Box::pin(serve_http1(stream, client, shared)).await;
        }
        Protocol::Tls => {
            let Some((stream, certificate)) = Box::pin(secure(stream, address, &shared)).await else {
                return;
            };
            let client = Client::new(address, local, Some(certificate));
            // By what was negotiated, not by the first bytes: a guess would wait for them for ever.
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                Box::pin(http2::serve(stream, client, shared)).await;
            } else {
                Box::pin(serve_http1(stream, client, shared)).await;
            }
        }
    }
}

/// Who is behind the connection: the peer, or whom it speaks for. `None` if it should have said so and
/// did not, or if the drain began before it had.
async fn find_client(stream: &mut TcpStream, peer: SocketAddr, shared: &Shared) -> Option<SocketAddr> {
    let limit = {
        let settings = &shared.snapshot().config.proxy;
        let mut announcers = settings.proxy_protocol.iter();
        if !announcers.any(|network| network.contains(peer.ip())) {
            return Some(peer);
        }
        settings.header_timeout.get()
    };
    let unasked = CancellationToken::new();
    let announced = tokio::select! {
        announced = Box::pin(timeout(limit, read_header(stream))) => announced,
        () = farewell(&shared.draining, &unasked) => return None,
    };
    match announced {
        Ok(Ok(client)) => Some(client.unwrap_or(peer)),
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            info!(%peer, error, "a connection from [proxy] proxy-protocol was dropped");
            None
        }
        Err(_) => None,
    }
}

/// `None` if there is no TLS connection to serve, or if the drain began before there was one.
async fn secure(
    stream: TcpStream,
    address: SocketAddr,
    shared: &Shared,
) -> Option<(Box<TlsStream<TcpStream>>, Arc<Certificate>)> {
    let snapshot = shared.snapshot().clone();
    let unasked = CancellationToken::new();
    let accepted = tokio::select! {
        accepted = handshake::accept(stream, &snapshot, &shared.paths) => accepted,
        () = farewell(&shared.draining, &unasked) => return None,
    };
    shared.metrics.handshake(&accepted);
    match accepted {
        Ok(accepted) => accepted.map(|(stream, certificate)| (Box::new(stream), certificate)),
        Err(error) => {
            debug!(client = %address, error = &error as &dyn std::error::Error, "no TLS");
            None
        }
    }
}

/// What the answers tell of the connection they go out on.
#[derive(Clone, Default)]
struct Course {
    /// The first request has come.
    asked: CancellationToken,
    progress: Arc<Progress>,
    /// Written to it beside the answers.
    interim: Interim,
}

/// Answers one client's requests.
fn serve_client(
    client: Client,
    shared: Arc<Shared>,
) -> (
    impl Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible, Future: Send + Unpin>,
    Course,
) {
    let course = Course::default();
    let client = Arc::new((client, course.clone()));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (shared, client) = (shared.clone(), client.clone());
        // Boxed: hyper would keep room for it in every connection, and move it on with every stream.
        Box::pin(async move {
            let (client, course) = &*client;
            course.asked.cancel();
            let number = course.progress.begin();
            let oddity = course.progress.oddity(number);
            if oddity == Some(Oddity::ForServer) {
                ask_for_server(&mut request);
            }
            fill_path(&mut request);
            let version = request.version();
            let may_keep_body = request.headers().contains_key(EXPECT);
            // HTTP/1.0 knows none of them (RFC 9110 15.2).
            let hears_interim = version == Version::HTTP_11;
            let interim = hears_interim.then(|| course.interim.next_exchange());
            let mut response = if oddity == Some(Oddity::ForeignVersion) {
                reply::refusal(StatusCode::HTTP_VERSION_NOT_SUPPORTED)
            } else {
                let request = request.map(ReceivedBody::Http1);
                shared.answer(client, Box::new(request), interim).await
            };
            course.interim.all_written().await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                course.progress.leave_http();
            } else if shared.draining.is_cancelled()
                || is_last(version, &response)
                // What comes next may be the body or, since there is an answer, another request.
                || (may_keep_body && course.progress.is_in_request())
            {
                end_with(&mut response, version);
            }
            course.progress.answer();
            Ok(response.map(|body| Answer {
                body,
                breach: None,
                progress: course.progress.clone(),
            }))
        })
    });
    (service, course)
}

/// Puts the target in the form `*`, which belongs to the whole server (RFC 9112 3.2.4). A request without a
/// Host, or with several, stays as it is, and is refused for that.
fn ask_for_server(request: &mut Request<Incoming>) {
    let authority = request.uri().authority();
    let host = authority.and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
    let fields = request.headers().get_all(HOST).iter().count();
    // What is no URI of HTTP stays one, and is refused for that.
    let is_of_http = matches!(request.uri().scheme_str(), Some("http" | "https"));
    if let (Some(host), 1, true) = (host, fields, is_of_http) {
        request.headers_mut().insert(HOST, host);
        *request.uri_mut() = Uri::from_static("*");
    }
}

/// An absolute target may have a query without a path, which is then `/` (RFC 9112 3.2.1).
fn fill_path(request: &mut Request<Incoming>) {
    let Some(target) = request.uri().path_and_query() else {
        return;
    };
    if target.as_str().starts_with('?') {
        // Written out it has the slash.
        let filled = target.to_string().parse().ok();
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = filled;
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

/// Whether nothing is read behind what is answered so. Before HTTP/1.1 a body of unknown length has no other end
/// than the connection (RFC 9112 6.3).
fn is_last(version: Version, response: &Response<ReplyBody>) -> bool {
    let is_endless = || response.body().size_hint().exact().is_none();
    response
        .headers()
        .get(CONNECTION)
        .is_some_and(|option| option == "close")
        || (version == Version::HTTP_10 && is_endless())
}

/// Lets the connection end with an answer.
fn end_with(response: &mut Response<ReplyBody>, version: Version) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    if version == Version::HTTP_10 {
        // To an answer of a later version hyper would add that the connection is kept.
        *response.version_mut() = version;
    }
}

/// The body of an answer; hyper drops it when it has taken the last of it.
struct Answer {
    body: ReplyBody,
    /// Why it ends before its end, when what came before is on its way.
    breach: Option<ReplyBodyError>,
    progress: Arc<Progress>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.progress.end();
    }
}

impl Body for Answer {
    type Data = <ReplyBody as Body>::Data;
    type Error = <ReplyBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(breach) = self.breach.take() {
            return Poll::Ready(Some(Err(breach)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Err(breach)) = frame {
            // hyper drops what it has not flushed, and flushes when there is nothing to take.
            self.breach = Some(breach);
            self.progress.break_off();
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn serve_http1(
    stream: impl AsyncRead + AsyncWrite + Transport + Unpin + Send + 'static,
    client: Client,
    shared: Arc<Shared>,
) {
    let limits = {
        let settings = &shared.snapshot().config.proxy;
        Limits {
            head: settings.header_timeout.get(),
            stall: settings.stall_timeout.get(),
        }
    };
    let draining = shared.draining.clone();
    let (mut service, course) = serve_client(client, shared);
    let progress = course.progress;
    let mut stream = Watched::new(stream, progress.clone(), course.interim, limits);
    let builder = http1::Builder::new();
    let mut farewell = pin!(farewell(&draining, &course.asked));
    let mut begun = progress.begun();
    let mut deadline = Instant::now() + limits.head;
    loop {
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let serving = serve_until_rest(connection.with_upgrades(), &progress, farewell.as_mut());
        let Some(rested) = serving.await else {
            return;
        };
        (stream, service) = rested;
        // What is no exchange, such as empty records of TLS, prolongs nothing.
        if begun != progress.begun() {
            begun = progress.begun();
            deadline = Instant::now() + limits.head;
        }
        let is_wanted = tokio::select! {
            readable = timeout_at(deadline, stream.readable()) => readable.is_ok(),
            () = farewell.as_mut() => false,
        };
        if !is_wanted {
            let _ = timeout(FAREWELL, stream.shutdown()).await;
            return;
        }
    }
}

/// Serves until the connection ends, or has rested for a moment: then hyper, which has buffers for an
/// exchange but no use for them between two, gives it back. Most connections rest for most of their time.
async fn serve_until_rest<I, S>(
    mut connection: UpgradeableConnection<TokioIo<Watched<I>>, S>,
    progress: &Progress,
    farewell: Pin<&mut impl Future<Output = ()>>,
) -> Option<(Watched<I>, S)>
where
    I: AsyncRead + AsyncWrite + Transport + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible, Future: Unpin> + Unpin,
{
    let mut pause = Pause::default();
    let until_rest = poll_fn(|context| match connection.poll_unpin(context) {
        Poll::Pending => pause.poll(progress, context).map(|()| None),
        ended => ended.map(Some),
    });
    let ended = tokio::select! {
        ended = until_rest => ended,
        () = farewell => {
            Pin::new(&mut connection).graceful_shutdown();
            Some((&mut connection).await)
        }
    };
    let Some(ended) = ended else {
        return take_back(connection);
    };
    if let Err(error) = ended {
        debug!(
            error = &error as &dyn std::error::Error,
            "an HTTP/1.1 connection broke"
        );
    }
    None
}

/// Notices that a connection has rested for `BEFORE_REST`. Its timer runs only if there was a rest, and is
/// not set anew with every exchange.
#[derive(Default)]
struct Pause {
    timer: Option<Pin<Box<Timeout<Pending<()>>>>>,
    /// As many exchanges had begun when the timer was set.
    begun: u64,
}

impl Pause {
    fn poll(&mut self, progress: &Progress, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(timer) = &mut self.timer {
                let _elapsed = ready!(timer.as_mut().poll(context));
                self.timer = None;
                if progress.rests() && progress.begun() == self.begun {
                    return Poll::Ready(());
                }
            }
            if !progress.rests() {
                return Poll::Pending;
            }
            self.begun = progress.begun();
            self.timer = Some(Box::pin(timeout(BEFORE_REST, pending())));
        }
    }
}

fn take_back<I, S>(connection: UpgradeableConnection<TokioIo<Watched<I>>, S>) -> Option<(Watched<I>, S)>
where
    I: AsyncRead + AsyncWrite + Transport + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible>,
{
    let parts = connection.into_parts()?;
    // Nothing but empty lines, which are ignored before a request (RFC 9112 2.2), can have been read; the
    // rest of a request would be taken for a request.
    let is_clean = parts.read_buf.iter().all(|byte| b"\r\n".contains(byte));
    is_clean.then(|| (parts.io.into_inner(), parts.service))
}

/// Waits for the drain. Whoever has just connected may still ask once: hyper would hang up on them.
pub(crate) async fn farewell(draining: &CancellationToken, asked: &CancellationToken) {
    draining.cancelled().await;
    // At the limit the connection closes without having been used.
    let _ = timeout(FAREWELL, asked.cancelled()).await;
}
