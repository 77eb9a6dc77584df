use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use fairlead_contract::HttpReq;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use crate::dns::{DnsError, Record};
use crate::secret::read_secret_file;
use crate::words::chain;

const LIMIT: Duration = Duration::from_secs(60);

/// Asks the peer for `verb` (`present` or `cleanup`).
pub(crate) async fn request(peer: &HttpReq, verb: &str, record: &Record) -> Result<(), DnsError> {
    let mut headers = Vec::new();
    if let (Some(username), Some(password)) = (&peer.username, &peer.password) {
        let pair = format!("{username}:{}", read_secret_file(password)?);
        let encoded = BASE64.encode(pair.as_bytes());
        headers.push((AUTHORIZATION.as_str(), format!("Basic {encoded}")));
    }
    let body = serde_json::json!({ "fqdn": record.name.to_ascii(), "value": record.value });
    post(&peer.endpoint, verb, &headers, &body).await
}

/// Posts JSON to `BASE/PATH`; any success will do.
pub(crate) async fn post(
    base: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &Value,
) -> Result<(), DnsError> {
    let url = format!("{}/{path}", base.trim_end_matches('/'));
    let failed = |cause: String| DnsError::Call {
        url: url.clone(),
        cause,
    };
    let mut request = Request::post(&url).header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| failed(chain(&error)))?;
    match timeout(LIMIT, send(request)).await {
        Ok(Ok(status)) if status.is_success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("it answered {status}"))),
        Ok(Err(cause)) => Err(failed(cause)),
        Err(_) => Err(failed(format!("no answer within {} seconds", LIMIT.as_secs()))),
    }
}

async fn send(request: Request<Full<Bytes>>) -> Result<StatusCode, String> {
    let connector = HttpsConnectorBuilder::new()
        .try_with_platform_verifier()
        .map_err(|error| chain(&error))?
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let response = client.request(request).await.map_err(|error| chain(&error))?;
    Ok(response.status())
}
