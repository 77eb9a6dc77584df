use std::net::IpAddr;

use fairlead_contract::{HeaderEdit, Route};
use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, DATE, EXPECT, EXPIRES, Entry, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LOCATION, MAX_FORWARDS,
    PRAGMA, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, RETRY_AFTER, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY, VIA, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{Method, Version};

use crate::caller::Caller;

/// What is only understood before the content: how it is framed, routed, coded, who asks, on which condition, and what
/// may be done with it (RFC 9110 6.5.1).
static NOT_IN_TRAILERS: [HeaderName; 28] = [
    AGE,
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    DATE,
    EXPECT,
    EXPIRES,
    HOST,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    LOCATION,
    MAX_FORWARDS,
    PRAGMA,
    RANGE,
    RETRY_AFTER,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    VARY,
    WWW_AUTHENTICATE,
];
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HTTP2_SETTINGS,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Fields in which a client could claim to be somebody else, beside all that begin as the last does.
const CLAIMS: [&str; 4] = ["forwarded", "x-real-ip", "true-client-ip", "x-forwarded-"];
/// Programs behind CGI would take it for the proxy that they are to use themselves (CVE-2016-5385).
const PROXY: HeaderName = HeaderName::from_static("proxy");

/// Removes what holds for one connection only: the fields of RFC 9110 7.6.1 and every field that
/// Connection names. `TE: trailers` says something of the client itself and comes back.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let is_hop_by_hop = |name: &&HeaderName| HOP_BY_HOP.contains(name);
    // Few messages have more than one of them: to look at what is there costs less than to remove what is not.
    let present: Vec<_> = headers.keys().filter(is_hop_by_hop).cloned().collect();
    if present.is_empty() {
        return;
    }
    let takes_trailers = headers.get_all(TE).iter().any(names_trailers);
    for name in named_in_connection(headers).into_iter().chain(present) {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Leaves of trailers what may stand there: nothing that comes too late behind the content, that a client could
/// claim to be somebody else in, or that holds for one connection (RFC 9110 6.5.1, RFC 9113 8.2.2).
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    strip_claims(trailers, false, &[]);
    for name in &NOT_IN_TRAILERS {
        trailers.remove(name);
    }
}

/// Whether the connection's options hold this one (RFC 9110 7.6.1).
pub(crate) fn names_option(headers: &HeaderMap, option: &str) -> bool {
    options(headers).any(|token| token.eq_ignore_ascii_case(option.as_bytes()))
}

fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(CONNECTION).iter();
    fields
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// Host belongs to the message whoever names it in Connection.
fn named_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    options(headers)
        // It goes in any case, and stands here most often.
        .filter(|token| !token.eq_ignore_ascii_case(KEEP_ALIVE.as_str().as_bytes()))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| *name != HOST)
        .collect()
}

fn names_trailers(value: &HeaderValue) -> bool {
    let codings = value.to_str().unwrap_or_default().split(',');
    codings
        .map(|coding| coding.split(';').next().unwrap_or_default().trim())
        .any(|coding| coding.eq_ignore_ascii_case("trailers"))
}

/// Counts this hop in a request that may only go so far (RFC 9110 7.6.2). `false`: it ends here.
pub(crate) fn count_hop(parts: &mut Parts) -> bool {
    if parts.method != Method::OPTIONS && parts.method != Method::TRACE {
        return true;
    }
    let hops = parts
        .headers
        .get(MAX_FORWARDS)
        .and_then(|hops| hops.to_str().ok());
    let is_number = |hops: &&str| !hops.is_empty() && hops.bytes().all(|byte| byte.is_ascii_digit());
    // More than can be counted is the most that can be.
    let hops = hops
        .filter(is_number)
        .map(|hops| hops.parse().unwrap_or(u32::MAX));
    match hops {
        Some(0) => false,
        Some(hops) => {
            parts.headers.insert(MAX_FORWARDS, HeaderValue::from(hops - 1));
            true
        }
        None => true,
    }
}

/// Names us and the protocol the request came by, as a gateway must (RFC 9110 7.6.3). Only upstreams
/// see it: towards clients a gateway may stay silent.
pub(crate) fn add_via(parts: &mut Parts) {
    let via = match parts.version {
        Version::HTTP_2 => "2 fairlead",
        Version::HTTP_10 => "1.0 fairlead",
        _ => "1.1 fairlead",
    };
    parts.headers.append(VIA, HeaderValue::from_static(via));
}

/// Removes what a client must not say: who it is, unless a trusted proxy says it, and fields in another
/// spelling of a claim or of one of `own`, which are the route's to set. Programs behind CGI cannot tell
/// `X_Forwarded_For` from `X-Forwarded-For`.
pub(crate) fn strip_claims(headers: &mut HeaderMap, is_trusted: bool, own: &[HeaderName]) {
    let is_forged = |name: &HeaderName| {
        let name = name.as_str();
        let is_respelt = || {
            let name = name.replace('_', "-");
            is_claim(&name) || own.iter().any(|own| own.as_str() == name)
        };
        (!is_trusted && is_claim(name)) || (name.contains('_') && is_respelt())
    };
    let forged: Vec<_> = headers.keys().filter(|name| is_forged(name)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    headers.remove(PROXY);
}

fn is_claim(name: &str) -> bool {
    let [whole @ .., beginning] = CLAIMS;
    whole.contains(&name) || name.starts_with(beginning)
}

/// An address as X-Forwarded-For has it.
pub(crate) fn in_words(address: IpAddr) -> HeaderValue {
    let address = address.to_canonical().to_string();
    HeaderValue::try_from(address).expect("digits, letters, dots and colons")
}

/// Tells the upstream who called, by which name and how; what a trusted proxy said of that is kept and
/// continued by `peer`, who it is itself. Of clients it must be stripped before.
pub(crate) fn set_forwarding(parts: &mut Parts, caller: &Caller, peer: &HeaderValue, host: &HeaderValue) {
    let headers = &mut parts.headers;
    let scheme = HeaderValue::from_static(caller.scheme());
    if caller.is_trusted {
        continue_chain(headers, peer);
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
        headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
        return;
    }
    headers.insert(X_FORWARDED_FOR, peer.clone());
    headers.insert(X_FORWARDED_HOST, host.clone());
    headers.insert(X_FORWARDED_PROTO, scheme);
}

/// The same in the words of RFC 7239: who was at the other end of the connection, behind what trusted proxies
/// said before.
pub(crate) fn add_forwarded(parts: &mut Parts, caller: &Caller, peer: IpAddr, host: &HeaderValue) {
    let peer = match peer.to_canonical() {
        IpAddr::V4(peer) => peer.to_string(),
        IpAddr::V6(peer) => format!("\"[{peer}]\""),
    };
    let host = host.to_str().unwrap_or_default();
    let element = format!("for={peer};host=\"{host}\";proto={}", caller.scheme());
    if let Ok(element) = HeaderValue::try_from(element) {
        parts.headers.append(FORWARDED, element);
    }
}

fn continue_chain(headers: &mut HeaderMap, peer: &HeaderValue) {
    let mut chain: Vec<&[u8]> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    chain.push(peer.as_bytes());
    if let Ok(chain) = HeaderValue::try_from(chain.join(&b", "[..])) {
        headers.insert(X_FORWARDED_FOR, chain);
    }
}

/// Tells the upstream which part of the path it does not see, so that it can write links.
pub(crate) fn tell_prefix(parts: &mut Parts, route: &Route) {
    if route.replacement().is_none() || route.path.is_root() {
        return;
    }
    if let Ok(prefix) = HeaderValue::try_from(route.path.as_str()) {
        parts.headers.insert(X_FORWARDED_PREFIX, prefix);
    }
}

/// What a route wants on every answer, also on our own pages. HSTS is for HTTPS alone (RFC 6797 7.2).
pub(crate) fn dress(headers: &mut HeaderMap, route: &Route, is_secure: bool) {
    if let Some(hsts) = route.hsts.as_ref().filter(|_| is_secure) {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts.value().clone());
    }
    edit(headers, &route.response_headers);
}

/// Makes the route's changes, in their order.
pub(crate) fn edit(headers: &mut HeaderMap, edits: &[HeaderEdit]) {
    for edit in edits {
        match edit {
            HeaderEdit::Add(name, value) => {
                headers.append(name, value.clone());
            }
            HeaderEdit::Replace(name, value) => {
                headers.insert(name, value.clone());
            }
            HeaderEdit::Default(name, value) => {
                if let Entry::Vacant(vacant) = headers.entry(name) {
                    vacant.insert(value.clone());
                }
            }
            HeaderEdit::Delete(name) => {
                headers.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            )
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn everything_that_connection_names_stays_on_its_connection() {
        let mut map = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "x-other, host"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers;q=1"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("host", "a.test"),
            ("x-kept", "3"),
        ]);
        strip_hop_by_hop(&mut map);
        assert_eq!(
            map,
            headers(&[("host", "a.test"), ("x-kept", "3"), ("te", "trailers")])
        );
    }

    #[test]
    fn trailers_say_nothing_that_comes_too_late() {
        let mut trailers = headers(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "b.test"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("authorization", "Basic Og=="),
            ("set-cookie", "a=b"),
            ("age", "1"),
            ("if-match", "*"),
            ("vary", "*"),
            ("content-type", "text/html"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-sum", "1"),
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(trailers, headers(&[("x-sum", "1")]));
    }

    #[test]
    fn a_client_cannot_claim_another_address() {
        let forged = [
            "forwarded",
            "x-forwarded-prefix",
            "x-forwarded-user",
            "x-real-ip",
            "true-client-ip",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x_forwarded_for",
            "x-real_ip",
            "remote_user",
            "proxy",
        ];
        let mut request = Request::builder();
        for name in forged {
            request = request.header(name, "forged");
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let host = HeaderValue::from_static("a.test:8443");
        let mut caller = Caller {
            address: "192.0.2.1".parse().unwrap(),
            is_secure: true,
            is_trusted: false,
        };
        let peer = in_words("::ffff:192.0.2.1".parse().unwrap());
        let own = [HeaderName::from_static("remote-user")];
        strip_claims(&mut parts.headers, false, &own);
        set_forwarding(&mut parts, &caller, &peer, &host);
        let expected = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "a.test:8443"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(parts.headers, headers(&expected));
        caller.is_trusted = true;
        strip_claims(&mut parts.headers, true, &own);
        set_forwarding(
            &mut parts,
            &caller,
            &HeaderValue::from_static("10.0.0.1"),
            &HeaderValue::from_static("inner"),
        );
        let expected = [
            ("x-forwarded-for", "192.0.2.1, 10.0.0.1"),
            ("x-forwarded-host", "a.test:8443"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(parts.headers, headers(&expected));
    }

    #[test]
    fn only_options_and_trace_count_their_hops() {
        for (method, hops, expected) in [
            ("OPTIONS", "0", None),
            ("TRACE", "0", None),
            ("OPTIONS", "7", Some("6")),
            ("TRACE", "1", Some("0")),
            ("GET", "0", Some("0")),
            ("OPTIONS", "many", Some("many")),
        ] {
            let request = Request::builder().method(method).header(MAX_FORWARDS, hops);
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            let goes_on = count_hop(&mut parts);
            assert_eq!(goes_on, expected.is_some(), "{method} {hops}");
            if let Some(expected) = expected {
                assert_eq!(parts.headers[MAX_FORWARDS], expected, "{method} {hops}");
            }
        }
    }

    #[test]
    fn the_way_a_request_took_grows_by_one() {
        let request = Request::builder()
            .version(Version::HTTP_2)
            .header(VIA, "1.1 first");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        add_via(&mut parts);
        assert_eq!(
            parts.headers,
            headers(&[("via", "1.1 first"), ("via", "2 fairlead")])
        );
    }

    #[test]
    fn edits_happen_in_their_order() {
        let name = |text: &'static str| HeaderName::from_static(text);
        let value = HeaderValue::from_static;
        let mut map = headers(&[("server", "x"), ("x-a", "1")]);
        edit(
            &mut map,
            &[
                HeaderEdit::Delete(name("server")),
                HeaderEdit::Default(name("server"), value("set")),
                HeaderEdit::Default(name("x-a"), value("not set")),
                HeaderEdit::Add(name("x-a"), value("2")),
                HeaderEdit::Replace(name("x-b"), value("3")),
            ],
        );
        assert_eq!(
            map,
            headers(&[("server", "set"), ("x-a", "1"), ("x-a", "2"), ("x-b", "3")])
        );
    }
}
