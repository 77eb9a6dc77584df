use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use fairlead_contract::{Host, HostPattern, Paths, PlainHttp, Redirect, Route, Token, read_file};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::{AccessLog, Record};
use crate::authority::{InvalidAuthority, find_host, path_and_query};
use crate::body::ReplyBody;
use crate::caller::Caller;
use crate::certificate::Certificate;
use crate::checks::Checks;
use crate::forward::Exchange;
use crate::headers::{dress, in_words};
use crate::interim::InterimSender;
use crate::listeners::Ports;
use crate::metrics::Metrics;
use crate::paths::{AmbiguousPath, rewritten};
use crate::received::ReceivedBody;
use crate::reply;
use crate::snapshot::{Site, Snapshot};
use crate::upgrade::is_refused_connect;

const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// What all connections share.
pub(crate) struct Shared {
    snapshot: ArcSwap<Snapshot>,
    checks: Checks,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access_log: AccessLog,
    pub(crate) paths: Paths,
    ports: Ports,
    /// Connections and tunnels: what a drain waits for.
    pub(crate) tasks: TaskTracker,
    pub(crate) draining: CancellationToken,
}

/// Who is at the other end of a connection.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// Where it connected to.
    pub(crate) local: SocketAddr,
    /// Of the TLS connection; none on plain HTTP.
    pub(crate) certificate: Option<Arc<Certificate>>,
    /// Its address, as upstreams read it.
    pub(crate) forwarded_for: HeaderValue,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, local: SocketAddr, certificate: Option<Arc<Certificate>>) -> Self {
        Self {
            address,
            local,
            certificate,
            forwarded_for: in_words(address.ip()),
        }
    }
}

/// What becomes of a request.
enum Decision {
    Reply(Response<ReplyBody>),
    Forward {
        site: Arc<Site>,
        host: Host,
        caller: Caller,
        request: Box<Request<ReceivedBody>>,
    },
}

impl From<Response<ReplyBody>> for Decision {
    fn from(response: Response<ReplyBody>) -> Self {
        Self::Reply(response)
    }
}

impl Shared {
    pub(crate) fn new(snapshot: Snapshot, paths: &Paths, ports: Ports) -> Self {
        let metrics = Arc::<Metrics>::default();
        let checks = Checks::default();
        checks.replace(snapshot.checks());
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            checks,
            access_log: AccessLog::new(metrics.clone()),
            metrics,
            paths: paths.clone(),
            ports,
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
        }
    }

    pub(crate) fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    pub(crate) fn swap(&self, snapshot: Snapshot) {
        self.checks.replace(snapshot.checks());
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Answers a request; counts it and, if that is wanted, keeps a record of it. `interim` takes what is to be
    /// sent before.
    pub(crate) async fn answer(
        &self,
        client: &Client,
        request: Box<Request<ReceivedBody>>,
        interim: Option<InterimSender>,
    ) -> Response<ReplyBody> {
        let record = self
            .access_log
            .begin(&self.snapshot().config.proxy, client, &request);
        let response = match self.decide(client, request, record.as_ref()) {
            Decision::Reply(response) => response,
            Decision::Forward {
                site,
                host,
                caller,
                request,
            } => {
                let exchange = Exchange {
                    shared: self,
                    site: &site,
                    host: &host,
                    client,
                    caller,
                    record: record.as_ref(),
                    interim,
                };
                exchange.run(request).await
            }
        };
        self.account(response, record)
    }

    /// The answer to a request that is not looked at any further.
    pub(crate) fn refuse(
        &self,
        client: &Client,
        request: &Request<ReceivedBody>,
        status: StatusCode,
    ) -> Response<ReplyBody> {
        let settings = &self.snapshot().config.proxy;
        let record = self.access_log.begin(settings, client, request);
        if let (Some(record), Ok(host)) = (&record, find_host(request)) {
            record.host(&host);
        }
        self.account(reply::refusal(status), record)
    }

    fn account(&self, response: Response<ReplyBody>, record: Option<Record>) -> Response<ReplyBody> {
        self.metrics.request(response.status());
        match record {
            Some(record) => record.accompany(response),
            None => response,
        }
    }

    fn decide(
        &self,
        client: &Client,
        request: Box<Request<ReceivedBody>>,
        record: Option<&Record>,
    ) -> Decision {
        let host = match find_host(&request) {
            Ok(host) => host,
            Err(InvalidAuthority::Address) => return reply::page(unknown(client)).into(),
            Err(_) => return reply::refusal(StatusCode::BAD_REQUEST).into(),
        };
        if let Some(record) = record {
            record.host(&host);
        }
        if is_refused_connect(&request) {
            return reply::page(StatusCode::NOT_IMPLEMENTED).into();
        }
        let path = request.uri().path();
        match &client.certificate {
            None if path.starts_with(CHALLENGES) => {
                return self.answer_challenge(&path[CHALLENGES.len()..]).into();
            }
            Some(certificate) if !certificate.covers(&host) => {
                return reply::page(StatusCode::MISDIRECTED_REQUEST).into();
            }
            _ => {}
        }
        let site = match self.snapshot().site(&host, path) {
            Ok(Some(site)) => site.clone(),
            Ok(None) => return reply::page(StatusCode::NOT_FOUND).into(),
            Err(AmbiguousPath) => return reply::page(StatusCode::BAD_REQUEST).into(),
        };
        if let Some(record) = record {
            record.route(&site);
        }
        let trusted = &self.snapshot().config.proxy.trusted_proxies;
        let caller = Caller::find(client, request.headers(), trusted);
        if !caller.is_secure && site.route.plain_http == PlainHttp::Redirected {
            return reply::redirect(&self.url("https", &host, &request)).into();
        }
        if !site.route.admits(caller.address) {
            let mut refusal = reply::page(StatusCode::FORBIDDEN);
            dress(refusal.headers_mut(), &site.route, caller.is_secure);
            return refusal.into();
        }
        let local = self
            .redirect(caller.scheme(), &site.route, &host, &request)
            .or_else(|| site.route.upstreams.is_empty().then(reply::waiting));
        if let Some(mut response) = local {
            dress(response.headers_mut(), &site.route, caller.is_secure);
            return response.into();
        }
        Decision::Forward {
            site,
            host,
            caller,
            request,
        }
    }

    /// The key authorization exactly as it was written (RFC 8555 8.3), as long as it is there.
    fn answer_challenge(&self, token: &str) -> Response<ReplyBody> {
        let authorization = Token::parse(token)
            .ok()
            .and_then(|token| read_file(&self.paths.challenges_dir().join(token.as_str())).ok());
        match authorization {
            Some(authorization) => reply::text(StatusCode::OK, authorization),
            None => reply::page(StatusCode::NOT_FOUND),
        }
    }

    fn redirect(
        &self,
        scheme: &str,
        route: &Route,
        host: &Host,
        request: &Request<ReceivedBody>,
    ) -> Option<Response<ReplyBody>> {
        if let Some(primary) = redirect_target(route, host) {
            return Some(reply::redirect(&self.url(scheme, primary, request)));
        }
        let Redirect { to, status } = route.redirect.as_ref()?;
        let location = to.location(resource(&rewritten(request.uri(), route)));
        Some(reply::redirect_with(status.get(), &location))
    }

    fn url(&self, scheme: &str, host: &Host, request: &Request<ReceivedBody>) -> String {
        let path = resource(path_and_query(request.uri()));
        let port = match scheme {
            "https" => self.ports.https,
            _ => self.ports.http,
        };
        match port {
            Some(port) => format!("{scheme}://{host}:{port}{path}"),
            None => format!("{scheme}://{host}{path}"),
        }
    }
}

/// What is said of an address: no certificate covers one, and no route has one.
fn unknown(client: &Client) -> StatusCode {
    match client.certificate {
        Some(_) => StatusCode::MISDIRECTED_REQUEST,
        None => StatusCode::NOT_FOUND,
    }
}

/// The form `*` of OPTIONS names no resource.
fn resource(path: &str) -> &str {
    if path.starts_with('/') { path } else { "/" }
}

/// The primary host, if requests for this one are sent there.
fn redirect_target<'a>(route: &'a Route, host: &Host) -> Option<&'a Host> {
    match route.primary()? {
        HostPattern::Exact(primary) if route.redirect_to_primary && primary != host => Some(primary),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_the_other_hosts_go_to_the_primary() {
        let mut route = Route {
            hosts: ["www.a.test", "a.test", "*.a.test"]
                .map(|host| HostPattern::parse(host).unwrap())
                .into(),
            redirect_to_primary: true,
            ..Route::default()
        };
        let target = |route: &Route, host| {
            redirect_target(route, &Host::parse(host).unwrap()).map(ToString::to_string)
        };
        assert_eq!(target(&route, "a.test").as_deref(), Some("www.a.test"));
        assert_eq!(target(&route, "b.a.test").as_deref(), Some("www.a.test"));
        assert_eq!(target(&route, "www.a.test"), None);
        route.redirect_to_primary = false;
        assert_eq!(target(&route, "a.test"), None);
    }
}
