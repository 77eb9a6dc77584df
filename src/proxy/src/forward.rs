use std::error::Error;
use std::future::pending;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fairlead_contract::{Host, Limit};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, COOKIE, EXPECT, HOST, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;
use tracing::field::display;

use crate::access_log::Record;
use crate::body::{Allowance, ReplyBody, RequestBody, UpstreamBody};
use crate::caller::Caller;
use crate::compress::{Wanted, compress};
use crate::dispatch::{Dispatch, Failure, ForwardError, Settled};
use crate::forward_auth::Vouched;
use crate::headers::{
    add_forwarded, add_via, count_hop, dress, edit, set_forwarding, strip_claims, strip_hop_by_hop,
    tell_prefix,
};
use crate::interim::{Hearing, InterimSender};
use crate::message_length::settle_request_length;
use crate::paths::rewritten;
use crate::pool::{Lease, Peer};
use crate::proxy_protocol::Link;
use crate::received::ReceivedBody;
use crate::reply;
use crate::service::{Client, Shared};
use crate::snapshot::Site;
use crate::upgrade::{UpstreamSide, Wish};
use crate::upload::Upload;

/// How long a client that asked for it is made to wait for 100 (Continue) when the upstream is
/// silent; no upstream must send one (RFC 9110 10.1.1).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// One request on its way to an upstream.
pub(crate) struct Exchange<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) site: &'a Site,
    pub(crate) host: &'a Host,
    pub(crate) client: &'a Client,
    pub(crate) caller: Caller,
    pub(crate) record: Option<&'a Record>,
    /// Takes what the client hears before the answer, if it may hear anything.
    pub(crate) interim: Option<InterimSender>,
}

impl Exchange<'_> {
    /// Passes the request on and the answer back, or makes the page that says why not.
    pub(crate) async fn run(&self, request: Box<Request<ReceivedBody>>) -> Response<ReplyBody> {
        let compression = self.site.route.compress;
        let wanted = compression.then(|| Wanted::by(request.headers()));
        let path = self
            .site
            .error_pages
            .as_ref()
            .map(|pages| (pages, request.uri().clone()));
        let mut response = self.find_answer(request).await;
        if let Some((pages, path)) = path {
            response = Box::pin(pages.replace(response, &path)).await;
        }
        if let Some(wanted) = &wanted {
            response = compress(response, wanted);
        }
        dress(response.headers_mut(), &self.site.route, self.caller.is_secure);
        response
    }

    async fn find_answer(&self, request: Box<Request<ReceivedBody>>) -> Response<ReplyBody> {
        let admitted = match &self.site.guard {
            None => Ok(request),
            // Boxed because it is rare: without it, every exchange would take room for it.
            Some(guard) => Box::pin(guard.admit(self, request)).await,
        };
        let answered = match admitted.and_then(|request| self.prepare(request)) {
            Ok(outgoing) => self.forward(outgoing).await,
            Err(settled) => *settled,
        };
        answered.unwrap_or_else(|error| {
            let route = self.site.route.primary().map(display);
            debug!(route, host = %self.host, error = &error as &dyn Error, "no answer from an upstream");
            self.shared.metrics.failed_exchange(error.status());
            reply::page(error.status())
        })
    }

    /// The request as the upstream gets it, or what the client gets at once.
    fn prepare(&self, request: Box<Request<ReceivedBody>>) -> Result<Outgoing, Settled> {
        let (mut parts, body) = request.into_parts();
        if !count_hop(&mut parts) {
            return Err(Box::new(Ok(reply::page(last_stop(&parts.method)))));
        }
        let wish = Wish::find(&mut parts);
        let asked = self.rewrite(&mut parts)?;
        if let Some(wish) = &wish {
            wish.pass_on(&mut parts);
        }
        let (gate, opener) = hold_back(&parts).unzip();
        let (allowance, exceeded) = self.allow(&body)?.unzip();
        let (body, upload) = RequestBody::new(body, gate, allowance);
        Ok(Outgoing {
            request: Box::new(Request::from_parts(parts, body)),
            asked,
            hearing: Hearing::new(opener, self.interim.clone()),
            upload,
            wish,
            exceeded,
        })
    }

    /// How much of the body may go to the upstream, if there is a limit; what says at once that it is
    /// larger goes nowhere.
    fn allow(&self, body: &ReceivedBody) -> Result<Option<(Allowance, Arc<AtomicBool>)>, ForwardError> {
        let Some(limit) = self.site.route.max_body else {
            return Ok(None);
        };
        if body.size_hint().lower() > limit.bytes() {
            return Err(ForwardError::TooLarge);
        }
        Ok(Some(Allowance::new(limit.bytes())))
    }

    async fn forward(&self, outgoing: Outgoing) -> Result<Response<ReplyBody>, ForwardError> {
        let Outgoing {
            request,
            asked,
            hearing,
            mut upload,
            wish,
            exceeded,
        } = outgoing;
        let sticky = self.site.sticky.as_ref();
        let home = sticky.and_then(|sticky| sticky.find(request.headers()));
        let dispatch = self.dispatch(self.site, home, hearing.as_ref());
        let mut answered = dispatch.send(request, upload.as_mut(), wish.is_some()).await;
        if let Err(Failure { again, .. }) = &mut answered
            && let Some((request, site)) = again.take().zip(self.successor(&asked))
        {
            let dispatch = self.dispatch(&site, None, hearing.as_ref());
            answered = Box::pin(dispatch.send(request, upload.as_mut(), wish.is_some())).await;
        }
        let (response, lease) = answered.map_err(|Failure { error, .. }| match exceeded {
            Some(exceeded) if exceeded.load(Ordering::Relaxed) => ForwardError::TooLarge,
            _ => error,
        })?;
        if let Some(record) = self.record {
            record.upstream(lease.peer());
        }
        let peer = sticky.map(|_| lease.peer().clone());
        let mut response = self.answer(response, lease, wish);
        if let (Some(sticky), Some(peer)) = (sticky, &peer)
            && home.is_none_or(|home| !Arc::ptr_eq(home, peer))
        {
            sticky.remember(response.headers_mut(), peer, self.caller.is_secure);
        }
        Ok(response)
    }

    fn dispatch<'a>(
        &self,
        site: &'a Site,
        home: Option<&'a Arc<Peer>>,
        hearing: Option<&'a Hearing>,
    ) -> Dispatch<'a> {
        Dispatch {
            hearing,
            link: Some(Link {
                source: self.client.address,
                destination: self.client.local,
            }),
            ..site.dispatch(home)
        }
    }

    /// The route that the request would take if it came now, if that is the one it took, with further upstreams.
    fn successor(&self, asked: &Uri) -> Option<Arc<Site>> {
        let snapshot = self.shared.snapshot();
        let site = snapshot.site(self.host, asked.path()).ok().flatten();
        site.filter(|site| site.succeeds(self.site)).cloned()
    }

    /// What holds for the client's connection goes, what the upstream must know comes. Gives the target that was
    /// asked for.
    fn rewrite(&self, parts: &mut Parts) -> Result<Uri, ForwardError> {
        let host = self.client_host(parts)?;
        if parts.version == Version::HTTP_2 {
            join_cookies(&mut parts.headers)?;
        }
        if parts.version == Version::HTTP_10 {
            // Such a client cannot be waiting for 100 (Continue) (RFC 9110 10.1.1).
            parts.headers.remove(EXPECT);
        }
        strip_hop_by_hop(&mut parts.headers);
        strip_claims(&mut parts.headers, self.caller.is_trusted, &self.site.own_fields);
        add_via(parts);
        set_forwarding(parts, &self.caller, &self.client.forwarded_for, &host);
        if self.site.route.forwarded {
            add_forwarded(parts, &self.caller, self.client.address.ip(), &host);
        }
        if self.site.guard.is_some() {
            Vouched::pass_on(parts);
        }
        tell_prefix(parts, &self.site.route);
        parts.headers.insert(HOST, host);
        edit(&mut parts.headers, &self.site.route.request_headers);
        let target = rewritten(&parts.uri, &self.site.route)
            .parse()
            .map_err(http::Error::from)?;
        settle_request_length(&mut parts.headers);
        parts.version = Version::HTTP_11;
        Ok(mem::replace(&mut parts.uri, target))
    }

    /// The host and port as the client wrote them.
    pub(crate) fn client_host(&self, parts: &Parts) -> Result<HeaderValue, http::Error> {
        let written = match (parts.uri.authority(), parts.headers.get(HOST)) {
            (Some(authority), _) => HeaderValue::try_from(authority.as_str()),
            (None, Some(host)) => Ok(host.clone()),
            (None, None) => HeaderValue::try_from(self.host.as_str()),
        };
        Ok(written?)
    }

    fn answer(
        &self,
        mut response: Response<ReceivedBody>,
        lease: Lease,
        wish: Option<Wish>,
    ) -> Response<ReplyBody> {
        let idle_limit = self.site.route.idle_timeout.map(Limit::get);
        let upstream = UpstreamSide::find(&mut response);
        let protocol = response.headers().get(UPGRADE).cloned();
        strip_hop_by_hop(response.headers_mut());
        // Its own, and not that of the upstream (RFC 9112 2.3).
        *response.version_mut() = Version::HTTP_11;
        if let (StatusCode::UPGRADE_REQUIRED, Some(protocol)) = (response.status(), &protocol) {
            require_upgrade(response.headers_mut(), protocol);
        }
        match (upstream, wish) {
            (Some(upstream), Some(wish))
                if wish.is_taken_up(&upstream, protocol.as_ref(), response.headers()) =>
            {
                let mut response = response.map(|_| ReplyBody::empty());
                wish.fulfil(upstream, protocol, &mut response, &self.shared.tasks, self.host);
                response
            }
            // An upstream that switches protocols unasked, or not to what was asked, is not understood any more.
            (Some(_), _) => reply::page(StatusCode::BAD_GATEWAY),
            // To an extended CONNECT any success would mean that there is a tunnel (RFC 8441 5).
            (None, Some(wish)) if wish.is_http2() && response.status().is_success() => {
                reply::page(StatusCode::BAD_GATEWAY)
            }
            (None, _) => response
                .map(|body| ReplyBody::Upstream(UpstreamBody::new(body, lease).silent_at_most(idle_limit))),
        }
    }
}

/// The answer has to say to what (RFC 9110 15.5.22).
fn require_upgrade(headers: &mut HeaderMap, protocol: &HeaderValue) {
    headers.insert(UPGRADE, protocol.clone());
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
}

/// A request as the upstream gets it, how its body gets on, and the tunnel it asks for.
struct Outgoing {
    request: Box<Request<RequestBody>>,
    /// The target as the client wrote it.
    asked: Uri,
    hearing: Option<Hearing>,
    upload: Option<Upload>,
    wish: Option<Wish>,
    /// Tells that the client sent more than it may.
    exceeded: Option<Arc<AtomicBool>>,
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
