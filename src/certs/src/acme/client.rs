use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use fairlead_contract::read_file;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::time::timeout;

use crate::acme::downloads::Downloads;
use crate::acme::error::{AcmeError, Refusal, RequestError};
use crate::acme::replacing::complete;

/// From the first byte we send to the last one we receive.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Far above every chain, directory or problem document.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Nobody waits for longer, whatever Retry-After says.
const LONGEST_RETRY_AFTER: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Calls an ACME server with limits in time and size, and keeps of an error response what the
/// library would drop: its status and its Retry-After.
#[derive(Clone)]
pub(crate) struct BoundedClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    downloads: Downloads,
}

impl BoundedClient {
    /// Trusts the roots in `ca_file`, or the system's.
    pub(crate) fn new(ca_file: Option<&Path>, downloads: &Downloads) -> Result<Self, AcmeError> {
        let builder = match ca_file {
            Some(path) => HttpsConnectorBuilder::new().with_tls_config(
                ClientConfig::builder()
                    .with_root_certificates(read_roots(path)?)
                    .with_no_client_auth(),
            ),
            None => HttpsConnectorBuilder::new()
                .try_with_platform_verifier()
                .map_err(AcmeError::SystemRoots)?,
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // Requests are small and each waits for the one before: without this, 40 ms for nothing.
        tcp.set_nodelay(true);
        let connector = builder
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(tcp);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            downloads: downloads.clone(),
        })
    }

    /// Returns what the library understands: successes, and problem documents with status 400.
    pub(crate) async fn send(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Bytes>, RequestError> {
        let url = request.uri().to_string();
        let (head, body) = request.into_parts();
        let Ok(sent) = body.collect().await.map(Collected::to_bytes);
        let response = self
            .client
            .request(Request::from_parts(head, Full::new(sent.clone())));
        let received = timeout(REQUEST_LIMIT, receive(response, &url)).await;
        let received = received.unwrap_or_else(|_| {
            Err(RequestError::Limit {
                url: url.clone(),
                limit: REQUEST_LIMIT,
            })
        });
        received
            .map(|response| bound_retry_after(response, Timestamp::now()))
            .and_then(|response| refuse_errors(response, &url))
            .map(|response| complete(&sent, response))
            .inspect(|response| self.downloads.keep(&url, response, Timestamp::now()))
    }
}

impl HttpClient for BoundedClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let this = self.clone();
        Box::pin(async move {
            let received = this.send(request).await;
            received
                .map(|response| BytesResponse::from(response.map(Full::new)))
                .map_err(|error| Error::Other(error.into()))
        })
    }
}

async fn receive(response: ResponseFuture, url: &str) -> Result<Response<Bytes>, RequestError> {
    let response = response.await.map_err(|source| RequestError::Unreachable {
        url: url.to_owned(),
        source,
    })?;
    let (head, body) = response.into_parts();
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
        Err(source) => Err(RequestError::BrokenOff {
            url: url.to_owned(),
            source,
        }),
    }
}

/// Lets pass what the library understands: successes, and problem documents with status 400, among
/// which is badNonce, which it handles itself.
fn refuse_errors(response: Response<Bytes>, url: &str) -> Result<Response<Bytes>, RequestError> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(response);
    }
    let problem = serde_json::from_slice::<Problem>(response.body()).ok();
    if status == StatusCode::BAD_REQUEST && problem.is_some() {
        return Ok(response);
    }
    Err(RequestError::Refused(Box::new(Refusal {
        url: url.to_owned(),
        status,
        problem,
        instance: read_instance(response.body()),
        retry_after: read_retry_after(response.headers(), Timestamp::now()),
    })))
}

/// The `instance` of a problem document (RFC 9457 3.1.5).
fn read_instance(body: &[u8]) -> Option<String> {
    let document = serde_json::from_slice::<serde_json::Value>(body).ok()?;
    document.get("instance")?.as_str().map(str::to_owned)
}

/// The library adds the seconds to its clock, which panics where no clock can go.
fn bound_retry_after(mut response: Response<Bytes>, now: Timestamp) -> Response<Bytes> {
    if let Some(date) = read_retry_after(response.headers(), now) {
        let wait = date.duration_since(now);
        let seconds = wait.clamp(SignedDuration::ZERO, LONGEST_RETRY_AFTER).as_secs();
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A number of seconds or a date (RFC 9110 10.2.3).
fn read_retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => {
            let wait = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Some(now.saturating_add(wait).unwrap_or(Timestamp::MAX))
        }
        Err(_) => rfc2822::DateTimeParser::new().parse_timestamp(text).ok(),
    }
}

fn read_roots(path: &Path) -> Result<RootCertStore, AcmeError> {
    let unusable = |cause: String| AcmeError::CaFile {
        path: path.to_owned(),
        cause,
    };
    let bytes = read_file(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(unusable("it holds no certificate".to_owned())),
        false => Ok(roots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn respond(status: u16, body: &str, retry_after: Option<&str>) -> Result<Response<Bytes>, RequestError> {
        let mut builder = Response::builder().status(status);
        if let Some(value) = retry_after {
            builder = builder.header(RETRY_AFTER, value);
        }
        let response = builder.body(Bytes::copy_from_slice(body.as_bytes())).unwrap();
        refuse_errors(response, "https://ca.test/order")
    }

    #[test]
    fn an_error_response_keeps_its_status_and_words() {
        let limited = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many\u001b[31m"}"#;
        for (status, body, expected) in [
            (
                503,
                "<html>",
                "https://ca.test/order answered 503 Service Unavailable",
            ),
            (400, "<html>", "https://ca.test/order answered 400 Bad Request"),
            (404, "", "https://ca.test/order answered 404 Not Found"),
            (
                429,
                limited,
                "the authority said: too many\\u{1b}[31m (rateLimited)",
            ),
        ] {
            assert_eq!(respond(status, body, None).unwrap_err().to_string(), expected);
        }
        assert!(respond(200, "<html>", None).is_ok());
        assert!(respond(400, r#"{"type": "urn:ietf:params:acme:error:badNonce"}"#, None).is_ok());
    }

    #[test]
    fn no_retry_after_is_longer_than_a_week() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (value, expected) in [
            ("120", "120"),
            ("18446744073709551615", "604800"),
            ("Fri, 15 Jan 2027 09:30:00 GMT", "5400"),
            ("Fri, 15 Jan 1999 09:30:00 GMT", "0"),
            ("Fri, 15 Jan 9999 09:30:00 GMT", "604800"),
            ("soon", "soon"),
        ] {
            let mut response = Response::new(Bytes::new());
            response.headers_mut().insert(RETRY_AFTER, value.parse().unwrap());
            let bounded = bound_retry_after(response, now);
            assert_eq!(bounded.headers()[RETRY_AFTER], expected);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (value, expected) in [
            ("120", Some("2027-01-15T08:02:00Z")),
            ("0", Some("2027-01-15T08:00:00Z")),
            ("Fri, 15 Jan 2027 09:30:00 GMT", Some("2027-01-15T09:30:00Z")),
            ("-5", None),
            ("soon", None),
            ("18446744073709551615", Some("9999-12-30T22:00:00.999999999Z")),
            ("99999999999999999999", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            let read = read_retry_after(&headers, now).map(|date| date.to_string());
            assert_eq!(read.as_deref(), expected, "{value}");
        }
    }
}
