use std::sync::Arc;
use std::time::Duration;

use fairlead_contract::{ForwardAuth as Settings, Upstream};
use http::header::{
    CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use http::request::Parts;
use http::{HeaderMap, Request};

use crate::authority::path_and_query;
use crate::body::{ReplyBody, RequestBody, UpstreamBody};
use crate::dispatch::Settled;
use crate::forward::Exchange;
use crate::headers::{set_forwarding, strip_claims, strip_hop_by_hop};
use crate::helper::Helper;
use crate::pool::Peer;

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// What says of the body, which stays here; under which conditions and which part of the page is wanted, not of what
/// the program answers; and other words for what we say ourselves.
const WITHHELD: [HeaderName; 10] = [
    CONTENT_LENGTH,
    EXPECT,
    RANGE,
    IF_RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-original-method"),
];
/// People wait for it; what it answers is small.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the program said of the user. It waits beside the request until the client's hop-by-hop fields
/// are gone: else a client could name these fields in Connection, and they would go with them.
#[derive(Clone)]
pub(crate) struct Vouched(HeaderMap);

impl Vouched {
    pub(crate) fn pass_on(parts: &mut Parts) {
        if let Some(Self(fields)) = parts.extensions.remove() {
            parts.headers.extend(fields);
        }
    }
}

/// A program that is asked about each request, in the way of Authelia, Authentik and oauth2-proxy.
pub(crate) struct ForwardAuth {
    helper: Helper,
    settings: Settings,
}

impl ForwardAuth {
    pub(crate) fn new(settings: &Settings, find: impl Fn(&Upstream) -> Option<Arc<Peer>>) -> Self {
        Self {
            helper: Helper::new(&settings.url, find),
            settings: settings.clone(),
        }
    }

    /// Lets the request through with what is known of the user, or gives the answer that it gets instead.
    pub(crate) async fn admit(&self, exchange: &Exchange<'_>, parts: &mut Parts) -> Result<(), Settled> {
        let question = self
            .question(exchange, parts)
            .map_err(|error| Err(error.into()))?;
        for name in &self.settings.copy_headers {
            parts.headers.remove(name.get());
        }
        let asked = self.helper.ask(question, &parts.uri, PATIENCE).await;
        let (mut response, lease) = asked?;
        if !response.status().is_success() {
            strip_hop_by_hop(response.headers_mut());
            let response = response.map(|body| ReplyBody::Upstream(UpstreamBody::new(body, lease)));
            return Err(Box::new(Ok(response)));
        }
        let mut vouched = HeaderMap::new();
        for name in &self.settings.copy_headers {
            for value in response.headers().get_all(name.get()) {
                vouched.append(name.get(), value.clone());
            }
        }
        parts.extensions.insert(Vouched(vouched));
        // Without a body the connection is free again.
        drop(UpstreamBody::new(response.into_body(), lease));
        Ok(())
    }

    /// The client's request without its body, as the program expects to be asked.
    fn question(&self, exchange: &Exchange<'_>, parts: &Parts) -> Result<Request<RequestBody>, http::Error> {
        let (mut question, body) = Request::new(RequestBody::empty()).into_parts();
        question.headers = parts.headers.clone();
        strip_hop_by_hop(&mut question.headers);
        for name in WITHHELD {
            question.headers.remove(name);
        }
        strip_claims(
            &mut question.headers,
            exchange.caller.is_trusted,
            &exchange.site.own_fields,
        );
        let host = exchange.client_host(parts)?;
        set_forwarding(
            &mut question,
            &exchange.caller,
            &exchange.client.forwarded_for,
            &host,
        );
        let headers = &mut question.headers;
        headers.insert(X_FORWARDED_METHOD, HeaderValue::try_from(parts.method.as_str())?);
        headers.insert(
            X_FORWARDED_URI,
            HeaderValue::try_from(path_and_query(&parts.uri))?,
        );
        Ok(Request::from_parts(question, body))
    }
}
