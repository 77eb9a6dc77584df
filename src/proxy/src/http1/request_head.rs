//! The head of a client's request, and what it says of what follows. What two programs could read in two ways is
//! refused, never repaired (RFC 9112 11.2).

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use httparse::Error;
use memchr::memchr;

use super::chunks::number;
use super::head::{MAX_FIELDS, end_of_section, read_fields};
use super::rest::Rest;
use super::{MAX_HEAD, MAX_LINE};
use crate::message_length::coding_refusal;

/// `Uri` takes no longer ones.
const MAX_TARGET: usize = u16::MAX as usize - 1;
/// What stands at the end of the first line.
const VERSION: &[u8; 10] = b"HTTP/1.1\r\n";
/// Where in it the digits stand.
const MAJOR: usize = 5;
const MINOR: usize = 7;

/// A request but for what follows its head.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) request: Request<()>,
    /// Of its body.
    pub(super) rest: Rest,
}

/// The answer to what is no request, or could be another one to somebody else: nothing behind it is looked at.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// If as much of it could be read.
    pub(super) request: Option<Box<Request<()>>>,
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        Self {
            status,
            request: None,
        }
    }
}

/// Takes the head of a request off the bytes, if it is there whole. What cannot be read, or not in one way only, is
/// refused.
pub(super) fn parse(unread: &mut BytesMut) -> Result<Option<Head>, Refusal> {
    skip_empty_lines(unread);
    if unread.is_empty() {
        return Ok(None);
    }
    settle_version(unread)?;
    match end_of_section(unread) {
        Ok(Some(length)) if length <= MAX_HEAD => read(&unread.split_to(length).freeze()).map(Some),
        Ok(Some(_)) => Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into()),
        Ok(None) => Ok(check_beginning(unread).map(|()| None)?),
        Err(_) => Err(StatusCode::BAD_REQUEST.into()),
    }
}

/// Those before a request are nothing (RFC 9112 2.2).
fn skip_empty_lines(unread: &mut BytesMut) {
    while unread.starts_with(b"\r\n") {
        unread.advance(2);
    }
}

/// Makes of every later minor version a 1.1, as which it is to be read (RFC 9110 6.2); httparse knows no others. Other
/// versions are not spoken here (RFC 9110 15.6.6).
fn settle_version(unread: &mut [u8]) -> Result<(), StatusCode> {
    let end = memchr(b'\n', unread).map_or(0, |end| end + 1);
    let Some(version) = unread[..end].last_chunk_mut::<10>() else {
        return Ok(());
    };
    let (major, minor) = (version[MAJOR], version[MINOR]);
    let mut usual = *version;
    (usual[MAJOR], usual[MINOR]) = (b'1', b'1');
    if usual != *VERSION || !major.is_ascii_digit() || !minor.is_ascii_digit() {
        return Ok(());
    }
    if major != b'1' {
        return Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    }
    version[MINOR] = minor.min(b'1');
    Ok(())
}

/// Refuses what cannot become a request whatever follows.
fn check_beginning(unread: &[u8]) -> Result<(), StatusCode> {
    let line = memchr(b'\n', unread);
    if line.unwrap_or(unread.len()) > MAX_LINE {
        return Err(StatusCode::URI_TOO_LONG);
    }
    if unread.len() > MAX_HEAD {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    match httparse::Request::new(&mut []).parse_with_uninit_headers(unread, &mut fields) {
        // It is judged when it is there whole.
        Err(Error::Version) if line.is_none() => Ok(()),
        Err(error) => Err(refusal(error)),
        Ok(_) => Ok(()),
    }
}

fn refusal(error: Error) -> StatusCode {
    match error {
        Error::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn read(head: &Bytes) -> Result<Head, Refusal> {
    let request = request(head)?;
    match rest(request.version(), request.headers()) {
        Ok(rest) => Ok(Head { request, rest }),
        Err(status) => Err(Refusal {
            status,
            request: Some(Box::new(request)),
        }),
    }
}

fn request(head: &Bytes) -> Result<Request<()>, StatusCode> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let parsing = parsed.parse_with_uninit_headers(head, &mut fields);
    parsing.map_err(refusal)?;
    let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
    if target.len() > MAX_TARGET {
        return Err(StatusCode::URI_TOO_LONG);
    }
    // Some take a fragment for a part of the path (RFC 9112 3.2).
    if target.contains('#') {
        return Err(StatusCode::BAD_REQUEST);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| StatusCode::BAD_REQUEST)?;
    *request.uri_mut() =
        Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).map_err(|_| StatusCode::BAD_REQUEST)?;
    if parsed.version == Some(0) {
        *request.version_mut() = Version::HTTP_10;
    }
    *request.headers_mut() = read_fields(head, parsed.headers).map_err(refusal)?;
    if is_for_server(method, target) {
        ask_for_server(&mut request);
    }
    fill_path(&mut request);
    Ok(request)
}

/// Whether it is `OPTIONS` with an absolute target that has neither path nor query.
fn is_for_server(method: &str, target: &str) -> bool {
    let rest = target.split_once("://").map(|(_, rest)| rest);
    method == "OPTIONS" && rest.is_some_and(|rest| !target.starts_with('/') && !rest.contains(['/', '?']))
}

/// Puts the target in the form `*`, which belongs to the whole server (RFC 9112 3.2.4). A request without a
/// Host, or with several, stays as it is, and is refused for that.
fn ask_for_server(request: &mut Request<()>) {
    let authority = request.uri().authority();
    let host = authority.and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
    let fields = request.headers().get_all(HOST).iter().count();
    // What is no URI of HTTP stays one, and is refused for that.
    let is_of_http = matches!(request.uri().scheme_str(), Some("http" | "https"));
    if let (Some(host), 1, true) = (host, fields, is_of_http) {
        request.headers_mut().insert(HOST, host);
        *request.uri_mut() = Uri::from_static("*");
    }
}

/// An absolute target may have a query without a path, which is then `/` (RFC 9112 3.2.1).
fn fill_path(request: &mut Request<()>) {
    let Some(target) = request.uri().path_and_query() else {
        return;
    };
    if target.as_str().starts_with('?') {
        // Written out it has the slash.
        let filled = target.to_string().parse().ok();
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = filled;
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

/// How much follows the head (RFC 9112 6.3).
fn rest(version: Version, headers: &HeaderMap) -> Result<Rest, StatusCode> {
    let length = length(headers)?;
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(length
            .filter(|length| *length > 0)
            .map_or(Rest::Nothing, Rest::Length));
    }
    // Before HTTP/1.1 there was none (RFC 9112 6.1).
    if length.is_some() || version == Version::HTTP_10 {
        return Err(StatusCode::BAD_REQUEST);
    }
    coding_refusal(headers).map_or(Ok(Rest::CHUNKS), Err)
}

/// Several that are equal are one.
fn length(headers: &HeaderMap) -> Result<Option<u64>, StatusCode> {
    let mut known = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let length = number(value.as_bytes(), 10).ok_or(StatusCode::BAD_REQUEST)?;
        if known.replace(length).is_some_and(|known| known != length) {
            return Err(StatusCode::BAD_REQUEST);
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of bytes that arrive in pieces of `size`: the first head, or why there is none.
    fn arriving(text: &str, size: usize) -> (Result<Option<Head>, StatusCode>, BytesMut) {
        let mut unread = BytesMut::new();
        for piece in text.as_bytes().chunks(size) {
            unread.extend_from_slice(piece);
            let parsed = parse(&mut unread).map_err(|refusal| refusal.status);
            if !matches!(parsed, Ok(None)) {
                return (parsed, unread);
            }
        }
        (Ok(None), unread)
    }

    /// The same however they arrive. Line ends are CR LF, and the empty line is left away.
    fn head(lines: &str) -> Result<Head, StatusCode> {
        let text = format!("{}\r\n\r\n", lines.replace('\n', "\r\n"));
        let judge = |size| arriving(&text, size).0.map(Option::unwrap);
        for size in [1, 2, 3, 7] {
            let (by_pieces, at_once) = (judge(size), judge(usize::MAX));
            assert_eq!(by_pieces.err(), at_once.err(), "{text:?} by {size}");
        }
        judge(usize::MAX)
    }

    fn refused(lines: &str) -> u16 {
        head(lines).unwrap_err().as_u16()
    }

    #[test]
    fn a_head_is_taken_off_when_it_is_whole() {
        let text = "\r\n\r\nPOST /a?b HTTP/1.1\r\nHost: a.test\r\nX-A:1\r\nx-a: 2 \r\nX-E:\r\n\r\nGET";
        for size in [1, 2, 3, 7, usize::MAX] {
            let (parsed, left) = arriving(text, size);
            let Head { request, rest } = parsed.unwrap().unwrap();
            assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/a"));
            assert_eq!((request.version(), rest), (Version::HTTP_11, Rest::Nothing));
            assert!(request.headers().get_all("x-a").iter().eq(["1", "2"]));
            assert_eq!(request.headers()["x-e"], "");
            assert!(b"GET".starts_with(&left), "{left:?}");
        }
        assert!(arriving("GET / HTTP/1.1\r\nHost: a\r\n", 1).0.unwrap().is_none());
    }

    #[test]
    fn a_body_ends_in_one_way_only() {
        for (fields, expected) in [
            ("X: y", Rest::Nothing),
            ("Content-Length: 0", Rest::Nothing),
            ("Content-Length: 5", Rest::Length(5)),
            ("Content-Length: 05\ncontent-length:5", Rest::Length(5)),
            ("Transfer-Encoding: Chunked", Rest::CHUNKS),
        ] {
            let rest = head(&format!("POST / HTTP/1.1\n{fields}")).unwrap().rest;
            assert_eq!(rest, expected, "{fields}");
        }
        for (fields, status) in [
            ("Content-Length: 1\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: chunked\nX: y\nCONTENT-LENGTH: 1", 400),
            ("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: chunked, chunked", 400),
            ("Transfer-Encoding: gzip", 400),
            ("Transfer-Encoding: chunked, gzip", 400),
            ("Transfer-Encoding: xchunked", 400),
            ("Transfer-Encoding:", 400),
            ("Transfer-Encoding: gzip, chunked", 501),
            ("Content-Length: 1\nContent-Length: 2", 400),
            ("Content-Length: 1, 1", 400),
            ("Content-Length: +1", 400),
            ("Content-Length: 0x1", 400),
            ("Content-Length:", 400),
            ("Content-Length: 18446744073709551616", 400),
            (&format!("Content-Length: {:0>200}", 1), 400),
        ] {
            assert_eq!(refused(&format!("POST / HTTP/1.1\n{fields}")), status, "{fields}");
        }
        assert_eq!(refused("POST / HTTP/1.0\nTransfer-Encoding: chunked"), 400);
    }

    #[test]
    fn what_two_programs_could_read_differently_is_no_head() {
        for line in [
            "GET /a#b HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /a b HTTP/1.1",
            "GET\t/ HTTP/1.1",
            " GET / HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/1.10",
            "GET / HTTP/1.x",
            "GET / HTTP/x.1",
            "GET / HTTP/11",
            "GET /",
            "GET / HTTP/1.1\n X: y",
            "GET / HTTP/1.1\nX : y",
            "GET / HTTP/1.1\nX: y\n z",
            "GET / HTTP/1.1\n: y",
            "GET / HTTP/1.1\nX",
            "GET / HTTP/1.1\nX: a\0b",
            "GET / HTTP/1.1\nX: a\rb",
            "\x16\x03\x01",
        ] {
            assert_eq!(refused(line), 400, "{line:?}");
        }
        for text in [
            "\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nX: y\n\r\n",
            "GET / HTTP/1.1\r\nX: y\r\n\n",
            "GET / HTTP/1.1\n\n",
        ] {
            for size in [1, 2, usize::MAX] {
                let refusal = arriving(text, size).0.unwrap_err();
                assert_eq!(refusal, StatusCode::BAD_REQUEST, "{text:?} by {size}");
            }
        }
        let elsewhere = head("M#X /a HTTP/1.1\nX: #").unwrap();
        assert_eq!(elsewhere.request.method(), "M#X");
    }

    #[test]
    fn what_is_too_large_is_refused_before_its_end_has_come() {
        let filler = "x".repeat(MAX_HEAD + 1);
        for (text, status) in [
            (format!("GET /{filler}"), StatusCode::URI_TOO_LONG),
            (
                format!("GET / HTTP/1.1\r\nX: {filler}"),
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ),
            (
                format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(MAX_FIELDS + 1)),
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ),
        ] {
            for size in [16 * 1024, usize::MAX] {
                assert_eq!(
                    arriving(&text, size).0.unwrap_err(),
                    status,
                    "{:.20} by {size}",
                    text
                );
            }
        }
        let text = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(60_000));
        let (parsed, _) = arriving(&text, 16 * 1024);
        assert_eq!(parsed.unwrap().unwrap().request.uri().path().len(), 60_001);
    }

    #[test]
    fn later_minor_versions_are_read_as_the_one_that_is_spoken_here() {
        for (version, expected) in [
            ("1.0", Version::HTTP_10),
            ("1.1", Version::HTTP_11),
            ("1.2", Version::HTTP_11),
            ("1.9", Version::HTTP_11),
        ] {
            let head = head(&format!("GET /HTTP/1.2 HTTP/{version}\nX: HTTP/1.2")).unwrap();
            assert_eq!(head.request.version(), expected, "{version}");
            assert_eq!(head.request.headers()["x"], "HTTP/1.2");
        }
        for version in ["0.9", "2.0", "3.0", "9.9"] {
            assert_eq!(refused(&format!("PRI * HTTP/{version}")), 505, "{version}");
        }
    }

    #[test]
    fn options_for_a_server_are_told_from_those_for_its_root() {
        for (line, expected) in [
            ("OPTIONS http://a.test HTTP/1.1", "*"),
            ("OPTIONS https://a.test:443 HTTP/1.1", "*"),
            ("OPTIONS * HTTP/1.1", "*"),
            ("OPTIONS http://a.test/ HTTP/1.1", "http://a.test/"),
            ("OPTIONS http://a.test?q HTTP/1.1", "http://a.test/?q"),
            ("OPTIONS ftp://a.test HTTP/1.1", "ftp://a.test/"),
            ("OPTIONS /x://a HTTP/1.1", "/x://a"),
            ("GET http://a.test HTTP/1.1", "http://a.test/"),
            ("GET http://a.test?q HTTP/1.1", "http://a.test/?q"),
        ] {
            let head = head(&format!("{line}\nHost: b.test")).unwrap();
            assert_eq!(head.request.uri(), expected, "{line}");
        }
        let head = head("OPTIONS http://a.test:81 HTTP/1.1\nHost: b.test").unwrap();
        assert_eq!(head.request.headers()["host"], "a.test:81");
    }
}
