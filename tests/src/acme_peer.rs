use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use fairlead_contract::write_atomically;
use http::header::{CONTENT_TYPE, LINK, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use rcgen::{CertificateSigningRequestParams, PublicKeyData};
use serde_json::{Value, json};

use crate::{Authority, Body, Environment, Transport, Upstream, body};

/// Of each challenge.
const TOKEN: &str = "DGyRejmCefe7v4NfDGDKfA";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An ACME server of the test's own (RFC 8555), for what Debian's Pebble does not speak.
///
/// It believes every signature, and every order is ready at once unless the script says otherwise.
pub struct AcmePeer {
    upstream: Upstream,
    state: Arc<Mutex<State>>,
    settings: String,
}

/// What the server says and does.
#[derive(Clone, Debug)]
pub struct AcmeScript {
    /// Every answer, for as long as the server is down.
    pub down: Option<Answer>,
    /// The answer to questions about renewal (RFC 9773); `None`: none is offered.
    pub renewal_info: Option<Answer>,
    /// The answer to every order, instead of an order.
    pub ordering: Option<Answer>,
    /// The answer to every question about an order.
    pub looking: Option<Answer>,
    /// The same as `ordering` for those alone that say what they replace.
    pub replacing: Option<Answer>,
    /// Orders are made as if they said nothing of what they replace.
    pub overlooks_replacing: bool,
    /// The answer to every request for a certificate, instead of signing it.
    pub finalizing: Option<Answer>,
    /// How many requests for a certificate are refused because the order is not ready, though it says so.
    pub not_ready: usize,
    /// How many signed requests are refused for their nonce, and get no other one.
    pub refused_nonces: usize,
    /// Everything is below this path now, as the directory says.
    pub below: &'static str,
    /// Orders are pending, and their challenges told of and in validation (RFC 8555 7.1.6), until the answer of HTTP-01
    /// is in this directory.
    pub validating: Option<PathBuf>,
    /// Orders stay in processing for as long as this is there, which their `Retry-After` says.
    pub processing: Option<&'static str>,
    /// What CAA records call it, as its directory says.
    pub caa_identities: Vec<&'static str>,
    /// The profiles its directory names.
    pub profiles: Vec<&'static str>,
    /// What is wrong with the chains that are delivered.
    pub delivery: Delivery,
    /// What there is besides the chain to [`AcmePeer::ROOT`].
    pub alternate: Alternate,
    /// Since when, and for how much longer, certificates are valid.
    pub validity: (Duration, Duration),
}

impl Default for AcmeScript {
    /// Certificates for 90 days, and no extension is offered.
    fn default() -> Self {
        Self {
            down: None,
            renewal_info: None,
            ordering: None,
            looking: None,
            replacing: None,
            overlooks_replacing: false,
            finalizing: None,
            not_ready: 0,
            refused_nonces: 0,
            below: "",
            validating: None,
            processing: None,
            caa_identities: Vec::new(),
            profiles: Vec::new(),
            delivery: Delivery::Whole,
            alternate: Alternate::Absent,
            validity: (Duration::ZERO, 90 * DAY),
        }
    }
}

/// How a chain is delivered (RFC 8555 7.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Whole,
    /// Its end is missing.
    Cut,
    /// It is for the names that were ordered, and for a key of the server's own.
    ForAnotherKey,
    /// It is for `other.test`, whatever was ordered.
    ForAnotherName,
    /// 503 instead.
    Unavailable,
}

/// Another chain for the same certificate (RFC 8555 7.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternate {
    Absent,
    /// To [`AcmePeer::OTHER_ROOT`].
    Offered,
    /// Pointed to, and not there.
    Missing,
}

/// An answer as a test wants it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<&'static str>,
    pub body: Value,
}

impl Answer {
    /// A problem document of this type of RFC 8555 6.7.
    pub fn problem(status: u16, kind: &str) -> Self {
        Self {
            status,
            retry_after: None,
            body: json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "as the test wants it" }),
        }
    }
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct AcmeRequest {
    pub path: String,
    /// `null` unless it was signed.
    pub payload: Value,
    /// The same (RFC 8555 6.5).
    pub nonce: Value,
}

impl AcmeRequest {
    /// The public key that a certificate is asked for (RFC 8555 7.4).
    pub fn requested_key(&self) -> Vec<u8> {
        let request = decode_request(&self.payload);
        let request = CertificateSigningRequestParams::from_der(&request.into());
        let request = request.expect("a signing request is sent");
        request.public_key.subject_public_key_info()
    }
}

/// The certificate signing request in the payload, DER.
fn decode_request(payload: &Value) -> Vec<u8> {
    let request = payload["csr"].as_str().unwrap_or_default();
    let request = BASE64URL_NOPAD.decode(request.as_bytes());
    request.expect("a request is base64url")
}

struct State {
    script: AcmeScript,
    authority: Authority,
    other: Authority,
    requests: Vec<AcmeRequest>,
    /// How many nonces were given out; each is the number of its own.
    nonces: u64,
    orders: BTreeMap<String, Order>,
}

#[derive(Clone, Default)]
struct Order {
    /// As it was ordered.
    wanted: Value,
    leaf: Option<String>,
}

impl AcmePeer {
    pub const ROOT: &'static str = "the peer's root";
    pub const OTHER_ROOT: &'static str = "the peer's other root";

    pub async fn start(environment: &Environment, script: AcmeScript) -> Self {
        let authority = Authority::named(Self::ROOT);
        let pair = authority.issue(&["127.0.0.1"]);
        let root = authority.root();
        let state = Arc::new(Mutex::new(State {
            script,
            authority,
            other: Authority::named(Self::OTHER_ROOT),
            requests: Vec::new(),
            nonces: 0,
            orders: BTreeMap::new(),
        }));
        let upstream = Upstream::speaking(Transport::Tls(pair), {
            let state = state.clone();
            move |request| respond(request, state.clone())
        })
        .await;
        let file = environment.root().join(format!("{}.pem", upstream.address()));
        write_atomically(&file, root.as_bytes(), 0o644).expect("a root can be written");
        let settings = format!(
            "directory = \"https://{}/directory\"\naccept-terms = true\nca-file = {file:?}\ncheck-ports = false\n",
            upstream.address()
        );
        Self {
            upstream,
            state,
            settings,
        }
    }

    /// The text of a `fairlead.toml` that uses it; more keys of `[acme]` may follow.
    pub fn settings(&self) -> String {
        self.settings_as("acme")
    }

    /// The same for this table.
    pub fn settings_as(&self, table: &str) -> String {
        format!("[{table}]\n{}", self.settings)
    }

    /// The URL of its directory (RFC 8555 7.1.1).
    pub fn directory(&self) -> String {
        format!("https://{}/directory", self.upstream.address())
    }

    pub fn change(&self, change: impl FnOnce(&mut AcmeScript)) {
        change(&mut lock(&self.state).script);
    }

    /// The root of that name, PEM.
    pub fn root(&self, name: &str) -> String {
        let state = lock(&self.state);
        match name {
            Self::OTHER_ROOT => state.other.root(),
            _ => state.authority.root(),
        }
    }

    /// The requests up to now whose path starts like this.
    pub fn requests(&self, path: &str) -> Vec<AcmeRequest> {
        let state = lock(&self.state);
        let requests = state.requests.iter();
        requests
            .filter(|request| request.path.starts_with(path))
            .cloned()
            .collect()
    }
}

async fn respond(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let host = head.headers.get("host").and_then(|host| host.to_str().ok());
    let base = format!("https://{}", host.unwrap_or_default());
    let bytes = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let request = AcmeRequest {
        path: head.uri.path().to_owned(),
        payload: read_part(&bytes, "payload"),
        nonce: read_part(&bytes, "protected")["nonce"].clone(),
    };
    let mut state = lock(&state);
    // Questions for nonces are not counted.
    if head.method != Method::HEAD {
        state.requests.push(request.clone());
    }
    let is_signed = head.method == Method::POST;
    if is_signed && state.script.refused_nonces > 0 {
        state.script.refused_nonces -= 1;
        return answer(Some(&Answer::problem(400, "badNonce")));
    }
    let mut response = state.answer(&request, &base);
    state.nonces += 1;
    let nonce = HeaderValue::from(state.nonces);
    response
        .headers_mut()
        .insert(HeaderName::from_static("replay-nonce"), nonce);
    response
}

impl State {
    fn answer(&mut self, request: &AcmeRequest, base: &str) -> Response<Body> {
        if self.script.down.is_some() {
            return answer(self.script.down.as_ref());
        }
        let path = match request.path.as_str() {
            "/directory" => "/directory",
            // What was there before is gone.
            path => path.strip_prefix(self.script.below).unwrap_or_default(),
        };
        let base = &format!("{base}{}", self.script.below);
        let mut segments = path.trim_start_matches('/').split('/');
        let kind = segments.next().unwrap_or_default();
        match (kind, segments.next()) {
            ("directory", None) => send(200, &self.directory(base)),
            ("nonce", None) => send(200, &Value::Null),
            ("account", None) => locate(
                send(201, &json!({ "status": "valid" })),
                &format!("{base}/account/1"),
            ),
            ("account", Some(_)) => send(200, &json!({ "status": "valid" })),
            ("order", None) => self.make_order(&request.payload, base),
            ("order", Some(id)) => self.show_order(id, base),
            ("authorization", Some(id)) => self.authorization(id, base),
            ("finalize", Some(id)) => self.finalize(id, &request.payload, base),
            ("certificate", Some(id)) => self.certificate(id, base),
            ("alternate", Some(id)) => self.alternate(id),
            ("renewal-info", Some(_)) => answer(self.script.renewal_info.as_ref()),
            _ => answer(None),
        }
    }

    fn directory(&self, base: &str) -> Value {
        let mut directory = json!({
            "newNonce": format!("{base}/nonce"),
            "newAccount": format!("{base}/account"),
            "newOrder": format!("{base}/order"),
            "meta": { "caaIdentities": self.script.caa_identities },
        });
        for profile in &self.script.profiles {
            directory["meta"]["profiles"][profile] = json!("as the test wants it");
        }
        if self.script.renewal_info.is_some() {
            directory["renewalInfo"] = json!(format!("{base}/renewal-info"));
        }
        directory
    }

    fn make_order(&mut self, wanted: &Value, base: &str) -> Response<Body> {
        let replacing = self.script.replacing.as_ref();
        let replacing = replacing.filter(|_| wanted.get("replaces").is_some());
        if let Some(refusal) = self.script.ordering.as_ref().or(replacing) {
            return answer(Some(refusal));
        }
        let id = self.orders.len().to_string();
        let order = Order {
            wanted: wanted.clone(),
            leaf: None,
        };
        self.orders.insert(id.clone(), order);
        let mut response = self.describe_order(&id, base);
        *response.status_mut() = http::StatusCode::CREATED;
        locate(response, &format!("{base}/order/{id}"))
    }

    fn show_order(&self, id: &str, base: &str) -> Response<Body> {
        match &self.script.looking {
            Some(refusal) => answer(Some(refusal)),
            None => self.describe_order(id, base),
        }
    }

    fn describe_order(&self, id: &str, base: &str) -> Response<Body> {
        let Some(order) = self.orders.get(id) else {
            return answer(None);
        };
        let mut described = order.wanted.clone();
        if self.script.overlooks_replacing {
            described["replaces"] = Value::Null;
        }
        described["authorizations"] = json!([]);
        described["finalize"] = json!(format!("{base}/finalize/{id}"));
        described["status"] = json!("ready");
        if self.script.validating.is_some() {
            described["authorizations"] = json!([format!("{base}/authorization/{id}")]);
        }
        if self.is_validating() {
            described["status"] = json!("pending");
        }
        if order.leaf.is_none() {
            return send(200, &described);
        }
        if let Some(retry_after) = self.script.processing {
            described["status"] = json!("processing");
            return answer(Some(&Answer {
                status: 200,
                retry_after: Some(retry_after),
                body: described,
            }));
        }
        described["status"] = json!("valid");
        described["certificate"] = json!(format!("{base}/certificate/{id}"));
        send(200, &described)
    }

    fn is_validating(&self) -> bool {
        let answers = self.script.validating.as_ref();
        answers.is_some_and(|answers| !answers.join(TOKEN).exists())
    }

    fn authorization(&self, id: &str, base: &str) -> Response<Body> {
        let Some(order) = self.orders.get(id) else {
            return answer(None);
        };
        let challenge = json!({
            "type": "http-01", "status": "processing", "url": format!("{base}/challenge/{id}"), "token": TOKEN,
        });
        let authorization = json!({
            "status": if self.is_validating() { "pending" } else { "valid" },
            "identifier": order.wanted["identifiers"][0],
            "challenges": [challenge],
        });
        send(200, &authorization)
    }

    fn finalize(&mut self, id: &str, payload: &Value, base: &str) -> Response<Body> {
        let request = decode_request(payload);
        if let Some(refusal) = &self.script.finalizing {
            return answer(Some(refusal));
        }
        if self.script.not_ready > 0 {
            self.script.not_ready -= 1;
            return answer(Some(&Answer::problem(403, "orderNotReady")));
        }
        let (before, after) = self.script.validity;
        let name = (self.script.delivery == Delivery::ForAnotherName).then_some("other.test");
        let leaf = self.authority.sign(&request, name, before, after);
        if let Some(order) = self.orders.get_mut(id) {
            order.leaf = Some(leaf);
        }
        self.describe_order(id, base)
    }

    fn certificate(&self, id: &str, base: &str) -> Response<Body> {
        let mut response = self.send_chain(id, &self.authority.root());
        if self.script.alternate != Alternate::Absent {
            let link = format!("<{base}/alternate/{id}>;rel=\"alternate\"");
            let link = HeaderValue::from_str(&link).expect("a link can be a header");
            response.headers_mut().insert(LINK, link);
        }
        response
    }

    fn alternate(&self, id: &str) -> Response<Body> {
        match self.script.alternate {
            Alternate::Offered => self.send_chain(id, &self.other.cross_sign(&self.authority)),
            Alternate::Absent | Alternate::Missing => answer(None),
        }
    }

    fn send_chain(&self, id: &str, issuer: &str) -> Response<Body> {
        let Some(leaf) = self.orders.get(id).and_then(|order| order.leaf.as_ref()) else {
            return answer(None);
        };
        let mut chain = format!("{leaf}{issuer}");
        match self.script.delivery {
            Delivery::Whole | Delivery::ForAnotherName => {}
            Delivery::Unavailable => return send(503, &Value::Null),
            Delivery::Cut => chain.truncate(chain.len() - issuer.len() / 2),
            Delivery::ForAnotherKey => chain = self.authority.issue(&["a.test"]).chain,
        }
        let mut response = Response::new(body::full(chain));
        let kind = HeaderValue::from_static("application/pem-certificate-chain");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

/// A part of a signed request (RFC 8555 6.2).
fn read_part(bytes: &[u8], part: &str) -> Value {
    let signed: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let encoded = signed[part].as_str().unwrap_or_default();
    let decoded = BASE64URL_NOPAD.decode(encoded.as_bytes()).unwrap_or_default();
    serde_json::from_slice(&decoded).unwrap_or_default()
}

/// `None` is an address that nothing is at.
fn answer(answer: Option<&Answer>) -> Response<Body> {
    let Some(answer) = answer else {
        return send(404, &Value::Null);
    };
    let mut response = send(answer.status, &answer.body);
    if let Some(retry_after) = answer.retry_after {
        let value = HeaderValue::from_static(retry_after);
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

fn send(status: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(body::full(value.to_string()));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("the test names a status");
    response
}

fn locate(mut response: Response<Body>, url: &str) -> Response<Body> {
    let value = HeaderValue::from_str(url).expect("a URL can be a header");
    response
        .headers_mut()
        .extend(HeaderMap::from_iter([(LOCATION, value)]));
    response
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
