use std::sync::Arc;
use std::time::Duration;

use fairlead_contract::{Endpoint, ForwardAuth as Settings};
use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::authority::path_and_query;
use crate::balance::Peers;
use crate::body::{ReplyBody, RequestBody, UpstreamBody};
use crate::dispatch::{Dispatch, ForwardError};
use crate::forward::Exchange;
use crate::headers::{set_forwarding, strip_hop_by_hop};
use crate::pool::Peer;

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// What says of the body, which stays here, and other words for what we say ourselves.
const WITHHELD: [HeaderName; 4] = [
    CONTENT_LENGTH,
    EXPECT,
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-original-method"),
];
/// People wait for it; what it answers is small.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that is asked about each request, in the way of Authelia, Authentik and oauth2-proxy.
pub(crate) struct ForwardAuth {
    peers: Peers,
    host: HeaderValue,
    target: Uri,
    settings: Settings,
}

impl ForwardAuth {
    /// Without a peer nobody can be asked, and every request fails.
    pub(crate) fn new(settings: &Settings, peer: Option<Arc<Peer>>) -> Self {
        let Endpoint { service, target } = &settings.url;
        let host = service
            .authority()
            .and_then(|authority| HeaderValue::try_from(authority).ok());
        let target = target.clone();
        Self {
            peers: Peers::new(peer.into_iter().map(|peer| (peer, 1))),
            host: host.unwrap_or_else(|| HeaderValue::from_static("localhost")),
            target: target.unwrap_or_else(|| PathAndQuery::from_static("/")).into(),
            settings: settings.clone(),
        }
    }

    /// Lets the request through with what is known of the user, or gives the answer that it gets instead.
    pub(crate) async fn admit(
        &self,
        exchange: &Exchange<'_>,
        parts: &mut Parts,
    ) -> Result<(), Result<Response<ReplyBody>, ForwardError>> {
        let question = self
            .question(exchange, parts)
            .map_err(|error| Err(error.into()))?;
        for name in &self.settings.copy_headers {
            parts.headers.remove(name.get());
        }
        let dispatch = Dispatch {
            peers: &self.peers,
            home: None,
            connect_timeout: exchange.site.connect_timeout,
            response_timeout: PATIENCE,
        };
        let (_, sent) = oneshot::channel();
        let (mut response, lease) = dispatch
            .send(question, &mut sent.fuse(), false)
            .await
            .map_err(Err)?;
        if !response.status().is_success() {
            strip_hop_by_hop(response.headers_mut());
            let response = response.map(|body: Incoming| ReplyBody::Upstream(UpstreamBody::new(body, lease)));
            return Err(Ok(response));
        }
        for name in &self.settings.copy_headers {
            for value in response.headers().get_all(name.get()) {
                parts.headers.append(name.get(), value.clone());
            }
        }
        Ok(())
    }

    /// The client's request without its body, as the program expects to be asked.
    fn question(&self, exchange: &Exchange<'_>, parts: &Parts) -> Result<Request<RequestBody>, http::Error> {
        let (mut question, body) = Request::new(RequestBody::empty()).into_parts();
        question.method = Method::GET;
        question.version = Version::HTTP_11;
        question.uri = self.target.clone();
        question.headers = parts.headers.clone();
        strip_hop_by_hop(&mut question.headers);
        for name in WITHHELD {
            question.headers.remove(name);
        }
        let host = exchange.client_host(parts)?;
        set_forwarding(
            &mut question,
            &exchange.caller,
            exchange.client.address.ip(),
            &host,
        );
        let headers = &mut question.headers;
        headers.insert(X_FORWARDED_METHOD, HeaderValue::try_from(parts.method.as_str())?);
        headers.insert(
            X_FORWARDED_URI,
            HeaderValue::try_from(path_and_query(&parts.uri))?,
        );
        headers.insert(HOST, self.host.clone());
        Ok(Request::from_parts(question, body))
    }
}
