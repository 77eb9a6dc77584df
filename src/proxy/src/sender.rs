use fairlead_contract::Protocol;
use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};

use crate::body::RequestBody;

/// The sending side of a connection to an upstream.
pub(crate) enum Sender {
    /// For one exchange after the other.
    Http1(http1::SendRequest<RequestBody>),
    /// For many at once.
    Http2(http2::SendRequest<RequestBody>),
}

impl Sender {
    pub(crate) async fn try_send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

/// Puts things where the protocol has them: HTTP/2 the authority in the target (RFC 9113 8.3.1), HTTP/1.1 in
/// the Host field, and with a body of unknown length its coding (RFC 9112 6.1).
pub(crate) fn adapt(request: &mut Request<RequestBody>, protocol: Protocol) -> Result<(), http::Error> {
    if protocol.is_http2() {
        return name_in_target(request, protocol);
    }
    if is_body_without_length(request) {
        // hyper would leave the body of a GET away.
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::try_from(authority.as_str())?;
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    }
    Ok(())
}

fn is_body_without_length(request: &Request<RequestBody>) -> bool {
    !request.body().is_end_stream() && request.body().size_hint().exact().is_none()
}

fn name_in_target(request: &mut Request<RequestBody>, protocol: Protocol) -> Result<(), http::Error> {
    let Some(host) = request.headers_mut().remove(HOST) else {
        return Ok(());
    };
    let mut parts = Parts::default();
    // Some servers refuse a scheme that is not the connection's.
    parts.scheme = Some(if protocol.is_tls() {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    });
    parts.authority = Some(Authority::try_from(host.as_bytes())?);
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts)?;
    Ok(())
}
