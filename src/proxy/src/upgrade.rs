use fairlead_contract::Host;
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;
use tracing::debug;

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// A client that wants to leave HTTP for another protocol.
pub(crate) struct Wish {
    protocol: HeaderValue,
    client: OnUpgrade,
    is_http2: bool,
}

impl Wish {
    /// Finds the wish in a request: `Upgrade` in HTTP/1.1 (RFC 9110 7.8), extended CONNECT in HTTP/2
    /// (RFC 8441 4). Call it before hop-by-hop fields are removed.
    ///
    /// A wish for HTTP itself is none, as every server may decide: through the tunnel would come
    /// requests that nobody has looked at. HTTP/1.0 cannot wish.
    pub(crate) fn find(parts: &mut Parts) -> Option<Self> {
        let is_http2 = parts.version == Version::HTTP_2;
        let protocol = match parts.version {
            Version::HTTP_2 => HeaderValue::try_from(parts.extensions.get::<Protocol>()?.as_str()).ok()?,
            Version::HTTP_11 if names_upgrade(&parts.headers) => parts.headers.get(UPGRADE)?.clone(),
            _ => return None,
        };
        if names_http(&protocol) {
            return None;
        }
        let client = parts.extensions.remove::<OnUpgrade>()?;
        Some(Self {
            protocol,
            client,
            is_http2,
        })
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// Asks the upstream, in HTTP/1.1, for what the client asked for.
    pub(crate) fn pass_on(&self, parts: &mut Parts) {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, self.protocol.clone());
        if self.is_http2 {
            parts.method = Method::GET;
            parts.extensions.remove::<Protocol>();
            // HTTP/2 has no key; HTTP/1.1 asks for one (RFC 8441 5, RFC 6455 4.1).
            if let Ok(key) = HeaderValue::try_from(random_key()) {
                parts.headers.insert(SEC_WEBSOCKET_KEY, key);
            }
        }
    }

    /// Joins both sides once the upstream has agreed; the tunnel counts as an exchange of its own.
    /// `protocol` is the one the upstream chose.
    pub(crate) fn fulfil<B>(
        self,
        upstream: OnUpgrade,
        protocol: Option<HeaderValue>,
        response: &mut Response<B>,
        tunnels: &TaskTracker,
        host: &Host,
    ) {
        if self.is_http2 {
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        } else {
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.unwrap_or(self.protocol));
        }
        let host = host.clone();
        tunnels.spawn(async move {
            if let Err(error) = join(self.client, upstream).await {
                debug!(route = %host, error = &*error, "a tunnel broke");
            }
        });
    }
}

async fn join(
    client: OnUpgrade,
    upstream: OnUpgrade,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (client, upstream) = tokio::try_join!(client, upstream)?;
    tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await?;
    Ok(())
}

/// Whether the request wants a tunnel that is not made: to anywhere by plain CONNECT, or for HTTP.
/// Only the extended CONNECT of RFC 8441 is a request to a site.
pub(crate) fn is_refused_connect<B>(request: &Request<B>) -> bool {
    let is_for_a_site = || {
        let protocol = request.extensions().get::<Protocol>()?;
        let protocol = HeaderValue::try_from(protocol.as_str()).ok()?;
        Some(!names_http(&protocol))
    };
    request.method() == Method::CONNECT && is_for_a_site() != Some(true)
}

fn names_http(protocols: &HeaderValue) -> bool {
    let Ok(protocols) = protocols.to_str() else {
        return true;
    };
    protocols
        .split(',')
        .map(|protocol| protocol.trim().to_ascii_lowercase())
        .any(|protocol| protocol == "h2c" || protocol == "h2" || protocol.starts_with("http"))
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// 16 bytes, base64: unpredictable enough to tell one handshake from another, which is its use.
fn random_key() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = fastrand::u128(..);
    let mut key = String::with_capacity(24);
    for _ in 0..21 {
        key.push(char::from(ALPHABET[(bits & 63) as usize]));
        bits >>= 6;
    }
    // 128 bits are 21 digits and two bits, which stand at the top of the last digit.
    key.push(char::from(ALPHABET[((bits & 3) << 4) as usize]));
    key.push_str("==");
    key
}
