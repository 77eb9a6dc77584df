use std::net::{Ipv4Addr, Ipv6Addr};

use fairlead_contract::Host;
use http::header::HOST;
use http::{Method, Request, Uri, Version};
use thiserror::Error;

/// Why a request's host cannot be known; answered with 400 (RFC 9112 3.2) unless it is an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum InvalidAuthority {
    #[error("the Host is an address, which no route has")]
    Address,
    #[error("the request has no Host")]
    Missing,
    #[error("the request has more than one Host")]
    Doubled,
    #[error("the Host is not a host name with an optional port")]
    Malformed,
    #[error("the request target and the Host disagree")]
    Disagreeing,
    #[error("the request target has a form that the method does not have")]
    Form,
    #[error("the request target is of another scheme than http and https")]
    Scheme,
    #[error("the request target holds what only stands escaped in a URI")]
    Unescaped,
}

/// The host a request is for: the request target's authority if it has one, else the Host field.
///
/// Two readers must never see two hosts: several Host fields are refused. A field that disagrees with the
/// target is refused in HTTP/2 (RFC 9113 8.3.1); in HTTP/1 the target counts (RFC 9112 3.2.2), and goes to the
/// upstream in the field's place.
pub(crate) fn find_host<B>(request: &Request<B>) -> Result<Host, InvalidAuthority> {
    if !has_form_of_method(request) {
        return Err(InvalidAuthority::Form);
    }
    if !matches!(request.uri().scheme_str(), None | Some("http" | "https")) {
        return Err(InvalidAuthority::Scheme);
    }
    // Two programs could take it for other characters (RFC 3986 2).
    if !path_and_query(request.uri()).is_ascii() {
        return Err(InvalidAuthority::Unescaped);
    }
    let mut fields = request.headers().get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(InvalidAuthority::Doubled);
    }
    let field = field
        .map(|value| parse(value.to_str().map_err(|_| InvalidAuthority::Malformed)?))
        .transpose()?;
    let target = request
        .uri()
        .authority()
        .map(|authority| parse(authority.as_str()))
        .transpose()?;
    match (target, field) {
        (Some(target), Some(field)) if target != field && request.version() == Version::HTTP_2 => {
            Err(InvalidAuthority::Disagreeing)
        }
        // HTTP/1.1 asks for the field even beside an absolute target (RFC 9112 3.2).
        (Some(_), None) if request.version() == Version::HTTP_11 => Err(InvalidAuthority::Missing),
        (Some((host, _)), _) | (None, Some((host, _))) => host.ok_or(InvalidAuthority::Address),
        (None, None) => Err(InvalidAuthority::Missing),
    }
}

/// An authority alone is for CONNECT, `*` for OPTIONS (RFC 9112 3.2.3 and 3.2.4). A query never stands alone
/// (RFC 9113 8.3.1).
fn has_form_of_method<B>(request: &Request<B>) -> bool {
    if path_and_query(request.uri()).starts_with('?') {
        return false;
    }
    let is_authority_alone = request.uri().authority().is_some() && request.uri().scheme().is_none();
    match *request.method() {
        Method::CONNECT => true,
        Method::OPTIONS => !is_authority_alone,
        _ => !is_authority_alone && request.uri().path() != "*",
    }
}

/// `host[:port]`, nothing else: user information would be shown to upstreams as part of the host. No host: it is an
/// address.
fn parse(text: &str) -> Result<(Option<Host>, Option<u16>), InvalidAuthority> {
    let (name, port) = match text.rsplit_once(':') {
        // An empty port means the default one (RFC 3986 3.2.3).
        Some((name, "")) => (name, None),
        Some(_) if text.ends_with(']') => (text, None),
        Some((name, port)) => (name, Some(parse_port(port)?)),
        None => (text, None),
    };
    if is_address(name) {
        return Ok((None, port));
    }
    let host = Host::parse(name).map_err(|_| InvalidAuthority::Malformed)?;
    Ok((Some(host), port))
}

/// RFC 3986 3.2.2.
fn is_address(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().is_ok(),
        None => name.as_bytes().first().is_some_and(u8::is_ascii_digit) && name.parse::<Ipv4Addr>().is_ok(),
    }
}

fn parse_port(text: &str) -> Result<u16, InvalidAuthority> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = is_number.then(|| text.parse().ok()).flatten();
    port.ok_or(InvalidAuthority::Malformed)
}

/// The path and query, as they go to an upstream or into a redirect.
pub(crate) fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn host_of(uri: &str, version: Version, fields: &[&str]) -> Result<String, InvalidAuthority> {
        host_for(Method::GET, uri, version, fields)
    }

    fn host_for(
        method: Method,
        uri: &str,
        version: Version,
        fields: &[&str],
    ) -> Result<String, InvalidAuthority> {
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for field in fields {
            request = request.header(HOST, *field);
        }
        find_host(&request.body(()).unwrap()).map(|host| host.to_string())
    }

    #[test]
    fn the_host_field_names_the_host_in_any_case_and_with_a_port() {
        for field in ["app.test", "APP.test", "app.test.", "app.test:8443", "app.test:"] {
            assert_eq!(
                host_of("/", Version::HTTP_11, &[field]),
                Ok("app.test".to_owned())
            );
        }
    }

    #[test]
    fn what_two_programs_could_read_differently_is_refused() {
        use InvalidAuthority::*;
        for (uri, fields, refusal) in [
            ("/", &[][..], Missing),
            ("ftp://a.test/", &["a.test"], Scheme),
            ("/ä", &["a.test"], Unescaped),
            ("/?ä", &["a.test"], Unescaped),
            ("/", &["a.test", "a.test"], Doubled),
            ("/", &["a.test, b.test"], Malformed),
            ("/", &[""], Malformed),
            ("/", &["user@a.test"], Malformed),
            ("/", &["a.test:99999"], Malformed),
            ("/", &["a.test:+80"], Malformed),
            ("/", &["a.test:80:80"], Malformed),
            ("/", &[":80"], Malformed),
            ("/", &["127.0.0.1"], Address),
            ("/", &["127.0.0.1:80"], Address),
            ("/", &["[::1]"], Address),
            ("/", &["[::1]:80"], Address),
            ("http://[::1]/", &["a.test"], Address),
            ("/", &["::1"], Malformed),
            ("/", &["[::1"], Malformed),
            ("/", &["[::1]x"], Malformed),
            ("/", &["[::1%eth0]"], Malformed),
            ("/", &["127.0.0.1.1"], Malformed),
            ("http://a.test/", &["b.test", "b.test"], Doubled),
            ("http://a.test/", &["b test"], Malformed),
            ("http://a.test/", &[], Missing),
        ] {
            assert_eq!(
                host_of(uri, Version::HTTP_11, fields),
                Err(refusal),
                "{uri} {fields:?}"
            );
        }
    }

    #[test]
    fn an_absolute_target_of_http_1_counts_more_than_the_host_field() {
        for field in ["b.test", "127.0.0.1"] {
            let host = host_of("http://a.test/", Version::HTTP_11, &[field]);
            assert_eq!(host, Ok("a.test".to_owned()));
        }
    }

    #[test]
    fn http_1_0_has_no_host_field() {
        let host = host_of("http://a.test/", Version::HTTP_10, &[]);
        assert_eq!(host, Ok("a.test".to_owned()));
        assert_eq!(
            host_of("/", Version::HTTP_10, &[]),
            Err(InvalidAuthority::Missing)
        );
    }

    #[test]
    fn each_form_of_a_target_has_its_methods() {
        for (method, uri, is_valid) in [
            (Method::OPTIONS, "*", true),
            (Method::GET, "*", false),
            (Method::CONNECT, "a.test:443", true),
            (Method::GET, "a.test:443", false),
            (Method::OPTIONS, "a.test:443", false),
        ] {
            let host = host_for(method.clone(), uri, Version::HTTP_11, &["a.test:443"]);
            let expected = is_valid
                .then(|| "a.test".to_owned())
                .ok_or(InvalidAuthority::Form);
            assert_eq!(host, expected, "{method} {uri}");
        }
    }

    #[test]
    fn http_2_names_the_host_in_its_authority() {
        let named = |fields| host_of("https://a.test/", Version::HTTP_2, fields);
        assert_eq!(named(&[]), Ok("a.test".to_owned()));
        assert_eq!(named(&["a.test"]), Ok("a.test".to_owned()));
        assert_eq!(named(&["b.test"]), Err(InvalidAuthority::Disagreeing));
    }
}
