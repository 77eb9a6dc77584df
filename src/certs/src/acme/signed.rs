use aws_lc_rs::hmac;
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, Method, Request, Response, StatusCode};
use instant_acme::{BodyWrapper, Error};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData, SigningKey};
use serde::Deserialize;
use serde_json::{Value, json};
use x509_parser::der_parser::der::parse_der;

use crate::acme::AcmeError;
use crate::acme::client::BoundedClient;
use crate::acme::order::persist;

const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");
const AGENT: &str = concat!("fairlead-certs/", env!("CARGO_PKG_VERSION"));

/// The resources of an authority (RFC 8555 7.1.1) for requests that the library does not make, or
/// makes without looking at the answer.
pub(crate) struct Resources {
    client: BoundedClient,
    directory: Directory,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    key_change: Option<String>,
    revoke_cert: Option<String>,
    #[serde(default)]
    meta: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    caa_identities: Vec<String>,
}

impl Resources {
    pub(crate) async fn read(directory: &str, client: BoundedClient) -> Result<Self, AcmeError> {
        let response = client
            .send(request(Method::GET, directory, BodyWrapper::default())?)
            .await?;
        Ok(Self {
            client,
            directory: serde_json::from_slice(response.body()).map_err(Error::from)?,
        })
    }

    /// Where accounts are registered (RFC 8555 7.3).
    pub(crate) fn new_account(&self) -> &str {
        &self.directory.new_account
    }

    /// Where keys are changed (RFC 8555 7.3.5).
    pub(crate) fn key_change(&self) -> Result<&str, AcmeError> {
        let url = self.directory.key_change.as_deref();
        url.ok_or_else(|| AcmeError::Protocol(Error::Unsupported("keyChange")))
    }

    /// Where certificates are revoked (RFC 8555 7.6).
    pub(crate) fn revoke_cert(&self) -> Result<&str, AcmeError> {
        let url = self.directory.revoke_cert.as_deref();
        url.ok_or_else(|| AcmeError::Protocol(Error::Unsupported("revokeCert")))
    }

    /// The names by which CAA records mean the authority (RFC 8555 7.1.1); empty if it does not say.
    pub(crate) fn caa_identities(&self) -> &[String] {
        &self.directory.meta.caa_identities
    }

    /// Sends a signed request (RFC 8555 6.2), again as long as only its nonce is refused.
    pub(crate) async fn post(&self, url: &str, by: By<'_>, payload: &Value) -> Result<Bytes, AcmeError> {
        persist(async || {
            let nonce = self.nonce().await?;
            let body = sign(by, url, Some(&nonce), payload)?;
            let body = serde_json::to_vec(&body).map_err(Error::from)?;
            let mut request = request(Method::POST, url, BodyWrapper::from(body))?;
            let kind = http::HeaderValue::from_static("application/jose+json");
            request.headers_mut().insert(CONTENT_TYPE, kind);
            read_answer(self.client.send(request).await?)
        })
        .await
    }

    async fn nonce(&self) -> Result<String, AcmeError> {
        let request = request(Method::HEAD, &self.directory.new_nonce, BodyWrapper::default())?;
        let response = self.client.send(request).await?;
        let nonce = response.headers().get(REPLAY_NONCE);
        let nonce = nonce.and_then(|nonce| nonce.to_str().ok());
        nonce
            .map(str::to_owned)
            .ok_or_else(|| AcmeError::Protocol(Error::Str("no Replay-Nonce")))
    }
}

/// Who signs, and how the authority knows the key.
#[derive(Clone, Copy)]
pub(crate) enum By<'a> {
    /// The account with this URL.
    Account(&'a str, &'a KeyPair),
    /// Whoever has the key.
    Key(&'a KeyPair),
}

/// A JSON Web Signature in flattened form (RFC 7515 7.2.2, RFC 8555 6.2).
pub(crate) fn sign(by: By<'_>, url: &str, nonce: Option<&str>, payload: &Value) -> Result<Value, AcmeError> {
    let (By::Account(_, key) | By::Key(key)) = by;
    let (algorithm, jwk) = describe(key)?;
    let mut header = json!({ "alg": algorithm, "url": url });
    match by {
        By::Account(account, _) => header["kid"] = json!(account),
        By::Key(_) => header["jwk"] = jwk,
    }
    if let Some(nonce) = nonce {
        header["nonce"] = json!(nonce);
    }
    let protected = encode(header.to_string().as_bytes());
    let payload = encode(payload.to_string().as_bytes());
    let signature = key.sign(format!("{protected}.{payload}").as_bytes())?;
    let signature = match field_bytes(key) {
        // In fixed width (RFC 7518 3.4), where X.509 has a sequence.
        Some(width) => integers(&signature)?.map(|integer| pad(&integer, width)).concat(),
        None => signature,
    };
    Ok(json!({ "protected": protected, "payload": payload, "signature": encode(&signature) }))
}

/// What binds a new account with this public key to an external one (RFC 8555 7.3.4).
pub(crate) fn sign_external(key_id: &str, secret: &[u8], url: &str, public: &Value) -> Value {
    let header = json!({ "alg": "HS256", "kid": key_id, "url": url });
    let protected = encode(header.to_string().as_bytes());
    let payload = encode(public.to_string().as_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
    json!({ "protected": protected, "payload": payload, "signature": encode(signature.as_ref()) })
}

/// The public key as a JSON Web Key (RFC 7517).
pub(crate) fn public_key(key: &KeyPair) -> Result<Value, AcmeError> {
    Ok(describe(key)?.1)
}

fn describe(key: &KeyPair) -> Result<(&'static str, Value), AcmeError> {
    let public = key.der_bytes();
    let Some(width) = field_bytes(key) else {
        let [modulus, exponent] = integers(public)?.map(|integer| encode(&integer));
        return Ok(("RS256", json!({ "kty": "RSA", "n": modulus, "e": exponent })));
    };
    let (algorithm, curve) = match width {
        32 => ("ES256", "P-256"),
        _ => ("ES384", "P-384"),
    };
    // An uncompressed point: a byte that says so, then both coordinates (SEC 1 2.3.3).
    let (x, y) = public
        .get(1..)
        .unwrap_or_default()
        .split_at_checked(width)
        .ok_or(KEY)?;
    Ok((
        algorithm,
        json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) }),
    ))
}

const KEY: rcgen::Error = rcgen::Error::CouldNotParseKeyPair;

/// How wide a coordinate of the key's curve is; `None` for RSA.
fn field_bytes(key: &KeyPair) -> Option<usize> {
    let kinds = [(&PKCS_ECDSA_P256_SHA256, 32), (&PKCS_ECDSA_P384_SHA384, 48)];
    let mut kinds = kinds.into_iter().filter(|(kind, _)| key.algorithm() == *kind);
    kinds.next().map(|(_, width)| width)
}

/// The two integers of a DER sequence, big-endian, without leading zeros.
fn integers(der: &[u8]) -> Result<[Vec<u8>; 2], AcmeError> {
    let (_, sequence) = parse_der(der).map_err(|_| KEY)?;
    let parts = sequence.as_sequence().map_err(|_| KEY)?;
    let [one, other] = parts.as_slice() else {
        return Err(KEY.into());
    };
    let read = |part: &x509_parser::der_parser::der::DerObject<'_>| {
        let bytes = part.as_slice().map_err(|_| KEY)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok::<_, AcmeError>(bytes[zeros..].to_vec())
    };
    Ok([read(one)?, read(other)?])
}

fn pad(integer: &[u8], width: usize) -> Vec<u8> {
    let zeros = width.saturating_sub(integer.len());
    [&vec![0; zeros], integer].concat()
}

fn encode(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

fn request(
    method: Method,
    url: &str,
    body: BodyWrapper<Bytes>,
) -> Result<Request<BodyWrapper<Bytes>>, AcmeError> {
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header(USER_AGENT, AGENT);
    Ok(request.body(body).map_err(Error::from)?)
}

/// A problem document comes as a response where the library is to see it (badNonce).
fn read_answer(response: Response<Bytes>) -> Result<Bytes, AcmeError> {
    if response.status() == StatusCode::BAD_REQUEST {
        let problem = serde_json::from_slice(response.body()).map_err(Error::from)?;
        return Err(AcmeError::Problem(problem));
    }
    Ok(response.into_body())
}

#[cfg(test)]
mod tests {
    use fairlead_contract::KeyType;

    use super::*;
    use crate::key::generate;

    #[test]
    fn what_a_key_of_each_kind_signs_has_the_form_of_its_algorithm() {
        for (kind, algorithm, bytes) in [
            (KeyType::P256, "ES256", 64),
            (KeyType::P384, "ES384", 96),
            (KeyType::Rsa2048, "RS256", 256),
        ] {
            let key = generate(kind).unwrap();
            // The integers of a signature are short now and then.
            for _ in 0..100 {
                let signed = sign(By::Key(&key), "https://ca.test/x", None, &json!({})).unwrap();
                let decode = |part: &str| BASE64URL_NOPAD.decode(signed[part].as_str().unwrap().as_bytes());
                let header: Value = serde_json::from_slice(&decode("protected").unwrap()).unwrap();
                assert_eq!(header["alg"], algorithm);
                assert_eq!(header["jwk"], public_key(&key).unwrap());
                assert_eq!(decode("signature").unwrap().len(), bytes);
            }
        }
    }
}
