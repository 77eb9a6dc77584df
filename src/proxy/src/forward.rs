use std::error::Error;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fairlead_contract::Host;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Fuse, FusedFuture};
use http::header::{COOKIE, EXPECT, HOST, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::client::conn::TrySendError;
use thiserror::Error as ThisError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::debug;

use crate::body::{ReplyBody, RequestBody, UpstreamBody};
use crate::caller::Caller;
use crate::dial::ConnectError;
use crate::headers::{add_via, count_hop, dress, edit, set_forwarding, strip_hop_by_hop, tell_prefix};
use crate::paths::rewritten;
use crate::pool::{Lease, Peer};
use crate::reply;
use crate::sender::adapt;
use crate::service::{Client, Shared};
use crate::snapshot::Site;
use crate::upgrade::Wish;

/// How long a client that asked for it is made to wait for 100 (Continue) when the upstream is
/// silent; no upstream must send one (RFC 9110 10.1.1).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// The upstream gave no answer that could be passed on.
#[derive(Debug, ThisError)]
pub(crate) enum ForwardError {
    #[error("no connection")]
    Connect(#[from] ConnectError),
    #[error("no answer in time")]
    Timeout,
    #[error("no answer")]
    Exchange(#[from] hyper::Error),
    #[error("a tunnel was asked for, and the upstream speaks HTTP/2")]
    NoTunnel,
    #[error("the request cannot be written for an upstream")]
    Request(#[from] http::Error),
}

impl ForwardError {
    /// 504 if time ran out (RFC 9110 15.6.5), 501 for what we cannot do, else 502.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Timeout | Self::Connect(ConnectError::Timeout) => StatusCode::GATEWAY_TIMEOUT,
            Self::NoTunnel => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

/// One request on its way to an upstream.
pub(crate) struct Exchange<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) site: &'a Site,
    pub(crate) host: &'a Host,
    pub(crate) client: &'a Client,
    pub(crate) caller: Caller,
}

impl Exchange<'_> {
    /// Passes the request on and the answer back, or makes the page that says why not.
    pub(crate) async fn run(&self, request: Request<Incoming>) -> Response<ReplyBody> {
        let answered = match self.prepare(request) {
            Ok(Preparation::Outgoing(outgoing)) => self.forward(outgoing).await,
            Ok(Preparation::Stopped(reply)) => Ok(reply),
            Err(error) => Err(error),
        };
        let mut response = answered.unwrap_or_else(|error| {
            debug!(route = %self.host, error = &error as &dyn Error, "no answer from an upstream");
            self.shared.metrics.failed_exchange(error.status());
            reply::page(error.status())
        });
        dress(response.headers_mut(), &self.site.route, self.caller.is_secure);
        response
    }

    fn prepare(&self, request: Request<Incoming>) -> Result<Preparation, ForwardError> {
        let (mut parts, body) = request.into_parts();
        if !count_hop(&mut parts) {
            return Ok(Preparation::Stopped(reply::page(last_stop(&parts.method))));
        }
        let wish = Wish::find(&mut parts);
        self.rewrite(&mut parts)?;
        if let Some(wish) = &wish {
            wish.pass_on(&mut parts);
        }
        let (gate, opener) = hold_back(&parts).unzip();
        let (body, sent) = RequestBody::new(body, gate);
        let mut request = Request::from_parts(parts, body);
        if let Some(opener) = opener {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    // Full means it is open already.
                    let _ = opener.try_send(());
                }
            });
        }
        let sent = sent.fuse();
        Ok(Preparation::Outgoing(Outgoing { request, sent, wish }))
    }

    async fn forward(&self, outgoing: Outgoing) -> Result<Response<ReplyBody>, ForwardError> {
        let Outgoing {
            request,
            mut sent,
            wish,
        } = outgoing;
        let sticky = self.site.sticky.as_ref();
        let home = sticky.and_then(|sticky| sticky.find(request.headers()));
        let (response, lease) = self.send(request, &mut sent, wish.as_ref(), home).await?;
        let peer = sticky.map(|_| lease.peer().clone());
        let mut response = self.answer(response, lease, wish);
        if let (Some(sticky), Some(peer)) = (sticky, &peer)
            && home.is_none_or(|home| !Arc::ptr_eq(home, peer))
        {
            sticky.remember(response.headers_mut(), peer, self.caller.is_secure);
        }
        Ok(response)
    }

    /// What holds for the client's connection goes, what the upstream must know comes.
    fn rewrite(&self, parts: &mut Parts) -> Result<(), ForwardError> {
        let host = match (parts.uri.authority(), parts.headers.get(HOST)) {
            (Some(authority), _) => HeaderValue::try_from(authority.as_str()).map_err(http::Error::from)?,
            (None, Some(host)) => host.clone(),
            (None, None) => HeaderValue::try_from(self.host.as_str()).map_err(http::Error::from)?,
        };
        if parts.version == Version::HTTP_2 {
            join_cookies(&mut parts.headers)?;
        }
        strip_hop_by_hop(&mut parts.headers);
        add_via(parts);
        set_forwarding(parts, &self.caller, self.client.address.ip(), &host);
        tell_prefix(parts, &self.site.route);
        parts.headers.insert(HOST, host);
        edit(&mut parts.headers, &self.site.route.request_headers);
        parts.uri = rewritten(&parts.uri, &self.site.route)
            .parse::<Uri>()
            .map_err(http::Error::from)?;
        parts.version = Version::HTTP_11;
        Ok(())
    }

    /// Sends over an idle connection if there is one. The upstream may just have closed that; then the
    /// request goes over a new one, unless some of it may have been acted on (RFC 9112 9.3.1). The same
    /// holds for an upstream that broke off, if there is another one.
    async fn send(
        &self,
        request: Request<RequestBody>,
        sent: &mut Fuse<oneshot::Receiver<()>>,
        wish: Option<&Wish>,
        home: Option<&Arc<Peer>>,
    ) -> Result<(Response<Incoming>, Lease), ForwardError> {
        let mut lease = self.connect(true, home).await?;
        if wish.is_some() && lease.protocol().is_http2() {
            return Err(ForwardError::NoTunnel);
        }
        let may_repeat = lease.is_reused || !self.site.peers.is_alone();
        let copy = may_repeat.then(|| copy_if_repeatable(&request)).flatten();
        let mut error = match self.exchange(&mut lease, request, sent).await? {
            Ok(response) => return Ok((response, lease)),
            Err(error) => error,
        };
        // An answer that is not HTTP comes from a living connection; asking again would not help.
        let again = if may_repeat && !error.error().is_parse() {
            error.take_message().or(copy)
        } else {
            None
        };
        match again {
            Some(request) => Box::pin(self.send_anew(request, sent, home)).await,
            None => Err(error.into_error().into()),
        }
    }

    async fn send_anew(
        &self,
        request: Request<RequestBody>,
        sent: &mut Fuse<oneshot::Receiver<()>>,
        home: Option<&Arc<Peer>>,
    ) -> Result<(Response<Incoming>, Lease), ForwardError> {
        let mut lease = self.connect(false, home).await?;
        match self.exchange(&mut lease, request, sent).await? {
            Ok(response) => Ok((response, lease)),
            Err(error) => Err(error.into_error().into()),
        }
    }

    /// One try. A connection that was idle may break without meaning anything.
    async fn exchange(
        &self,
        lease: &mut Lease,
        mut request: Request<RequestBody>,
        sent: &mut Fuse<oneshot::Receiver<()>>,
    ) -> Result<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>, ForwardError> {
        adapt(&mut request, lease.protocol())?;
        let limit = self.site.response_timeout;
        let answered = in_time(lease.sender.try_send(request), sent, limit).await?;
        match &answered {
            Ok(_) => lease.peer().health.succeeded(),
            Err(_) if lease.is_reused => {}
            Err(_) => lease.peer().health.failed(),
        }
        Ok(answered)
    }

    /// Tries one upstream after the other: a request that reached none of them is lost by nobody.
    async fn connect(&self, may_reuse: bool, home: Option<&Arc<Peer>>) -> Result<Lease, ConnectError> {
        let limit = self.site.connect_timeout;
        let mut failure = ConnectError::Nobody;
        for peer in self.site.peers.in_order(home) {
            if let Some(lease) = may_reuse.then(|| peer.reuse()).flatten() {
                return Ok(lease);
            }
            match peer.connect(limit).await {
                Ok(lease) => return Ok(lease),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn answer(
        &self,
        mut response: Response<Incoming>,
        lease: Lease,
        wish: Option<Wish>,
    ) -> Response<ReplyBody> {
        let is_switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upstream = is_switching.then(|| hyper::upgrade::on(&mut response));
        let protocol = response.headers().get(UPGRADE).cloned();
        strip_hop_by_hop(response.headers_mut());
        match (upstream, wish) {
            (Some(upstream), Some(wish)) => {
                let mut response = response.map(|_| ReplyBody::empty());
                wish.fulfil(upstream, protocol, &mut response, &self.shared.tasks, self.host);
                response
            }
            // An upstream that switches protocols unasked is not understood any more.
            (Some(_), None) => reply::page(StatusCode::BAD_GATEWAY),
            // To an extended CONNECT any success would mean that there is a tunnel (RFC 8441 5).
            (None, Some(wish)) if wish.is_http2() && response.status().is_success() => {
                reply::page(StatusCode::BAD_GATEWAY)
            }
            (None, _) => response.map(|body| ReplyBody::Upstream(UpstreamBody::new(body, lease))),
        }
    }
}

/// What a request became before it went anywhere.
enum Preparation {
    Outgoing(Outgoing),
    Stopped(Response<ReplyBody>),
}

/// A request as the upstream gets it, the word when all of it has gone, and the tunnel it asks for.
struct Outgoing {
    request: Request<RequestBody>,
    sent: Fuse<oneshot::Receiver<()>>,
    wish: Option<Wish>,
}

/// What we are asked ourselves when a request may go no further (RFC 9110 7.6.2): we have no options,
/// and reflect nothing, because it could hold what the client's scripts must not see.
fn last_stop(method: &Method) -> StatusCode {
    if *method == Method::OPTIONS {
        StatusCode::OK
    } else {
        StatusCode::NOT_IMPLEMENTED
    }
}

/// HTTP/2 may split the field to compress it better; nobody else may (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), http::Error> {
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1 {
        let joined = HeaderValue::try_from(crumbs.join(&b"; "[..]))?;
        headers.insert(COOKIE, joined);
    }
    Ok(())
}

/// Takes the expectation as a reason to hold the body back until the upstream wants it: what answers
/// 100 (Continue) is the upstream, not we. Gives the gate and what opens it.
fn hold_back(parts: &Parts) -> Option<(BoxFuture<'static, ()>, mpsc::Sender<()>)> {
    let expects = parts
        .headers
        .get(EXPECT)?
        .as_bytes()
        .eq_ignore_ascii_case(b"100-continue");
    expects.then(|| {
        let (opener, mut opened) = mpsc::channel(1);
        let asked = async move {
            // Without a word there is nothing to open for: the answer came, or it never will.
            if opened.recv().await.is_none() {
                pending::<()>().await;
            }
        };
        // Both ends of the wait mean the same: send the body.
        let gate = timeout(CONTINUE_PATIENCE, asked).map(|_| ());
        (gate.boxed(), opener)
    })
}

/// The limit begins when the request has been sent whole: an upload takes the time it takes.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    sent: &mut Fuse<oneshot::Receiver<()>>,
    limit: Duration,
) -> Result<T, ForwardError> {
    let mut answer = pin!(answer);
    if !sent.is_terminated() {
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            _ = sent => {}
        }
    }
    timeout(limit, answer).await.map_err(|_| ForwardError::Timeout)
}

/// A second copy of a request that has no body and changes nothing (RFC 9110 9.2.2).
fn copy_if_repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
