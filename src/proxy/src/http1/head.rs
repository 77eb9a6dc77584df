//! The head of an answer, and what it says of what follows.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use httparse::{Error, Header, ParserConfig, Status};
use hyper::ext::ReasonPhrase;
use memchr::memchr_iter;

use super::rest::Rest;
use crate::headers::names_option;

/// So many fields a message may get on its way, without its table growing.
const LIKELY_MORE: usize = 8;
/// More are not read.
pub(super) const MAX_FIELDS: usize = 100;

/// Takes the head of an answer off the bytes, if it is there whole (RFC 9112 4). Empty lines before it are nothing.
pub(super) fn parse(unread: &mut BytesMut) -> Result<Option<Response<()>>, Error> {
    let empty = unread.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    unread.advance(empty);
    settle_version(unread);
    let Some(length) = length(unread)? else {
        return Ok(None);
    };
    let section = unread.split_to(length).freeze();
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    parser().parse_response_with_uninit_headers(&mut parsed, &section, &mut fields)?;
    let mut head = Response::new(());
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    *head.status_mut() = status.ok_or(Error::Status)?;
    if parsed.version == Some(0) {
        *head.version_mut() = Version::HTTP_10;
    }
    let reason = parsed
        .reason
        .filter(|reason| Some(*reason) != head.status().canonical_reason())
        .and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
    if let Some(reason) = reason {
        head.extensions_mut().insert(reason);
    }
    *head.headers_mut() = read_fields(&section, parsed.headers)?;
    Ok(Some(head))
}

/// Makes of every later minor version a 1.1, as which it is to be read (RFC 9110 6.2); httparse knows no others.
fn settle_version(unread: &mut [u8]) {
    const BEGINNING: &[u8] = b"HTTP/1.";
    if unread.starts_with(BEGINNING)
        && let Some(minor @ b'2'..=b'9') = unread.get_mut(BEGINNING.len())
    {
        *minor = b'1';
    }
}

fn parser() -> ParserConfig {
    let mut parser = ParserConfig::default();
    // They go, as a proxy must see to (RFC 9112 5.1).
    parser.allow_spaces_after_header_name_in_responses(true);
    parser
}

/// So long is the head, if it is there whole. Of an upstream lines may end in LF alone (RFC 9112 2.2).
fn length(unread: &[u8]) -> Result<Option<usize>, Error> {
    if unread.is_empty() {
        return Ok(None);
    }
    if let Ok(Some(length)) = end_of_section(unread) {
        return Ok(Some(length));
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = parser().parse_response_with_uninit_headers(&mut parsed, unread, &mut fields)?;
    Ok(match status {
        Status::Complete(length) => Some(length),
        Status::Partial => None,
    })
}

/// A line ends in LF without CR.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BareLf;

/// Where the lines to the first empty one end, if that has come.
pub(super) fn end_of_section(bytes: &[u8]) -> Result<Option<usize>, BareLf> {
    let mut start = 0;
    for at in memchr_iter(b'\n', bytes) {
        if at == start || bytes[at - 1] != b'\r' {
            return Err(BareLf);
        }
        if at == start + 1 {
            return Ok(Some(at + 1));
        }
        start = at + 1;
    }
    Ok(None)
}

/// `fields` are parts of `section`, and keep it.
pub(super) fn read_fields(section: &Bytes, fields: &[Header<'_>]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(fields.len() + LIKELY_MORE);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Error::HeaderName)?;
        let value = section.slice_ref(field.value);
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Error::HeaderValue)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Whether an answer is still to come (RFC 9110 15.2). 101 is one: what follows is no HTTP.
pub(super) fn is_interim(head: &Response<()>) -> bool {
    head.status().is_informational() && head.status() != StatusCode::SWITCHING_PROTOCOLS
}

/// Where the answer to a request ends that says so in one way only (RFC 9112 6.3).
pub(super) fn rest(method: &Method, head: &Response<()>) -> Rest {
    let headers = head.headers();
    let has_no_body = *method == Method::HEAD
        || matches!(
            head.status(),
            StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    if has_no_body {
        return Rest::Nothing;
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        return Rest::CHUNKS;
    }
    let length = headers.get(CONTENT_LENGTH);
    match length.and_then(|length| length.to_str().ok()?.parse().ok()) {
        Some(0) => Rest::Nothing,
        Some(length) => Rest::Length(length),
        None => Rest::UntilClose,
    }
}

/// Whether a further exchange may follow (RFC 9112 9.3), as far as the head of this message says.
pub(super) fn stays_open(version: Version, headers: &HeaderMap) -> bool {
    match version {
        _ if names_option(headers, "close") => false,
        Version::HTTP_10 => names_option(headers, "keep-alive"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<Response<()>>, Error> {
        parse(&mut BytesMut::from(text))
    }

    #[test]
    fn a_head_says_what_follows_and_whether_the_connection_stays() {
        for (method, text, follows, stays) in [
            (
                Method::GET,
                "1.1 200 OK\r\nContent-Length: 5",
                Rest::Length(5),
                true,
            ),
            (
                Method::GET,
                "1.1 200 OK\r\nContent-Length: 0",
                Rest::Nothing,
                true,
            ),
            (
                Method::HEAD,
                "1.1 200 OK\r\nContent-Length: 5",
                Rest::Nothing,
                true,
            ),
            (
                Method::GET,
                "1.1 304 Not Modified\r\nContent-Length: 5",
                Rest::Nothing,
                true,
            ),
            (Method::GET, "1.1 204 No Content", Rest::Nothing, true),
            (
                Method::GET,
                "1.1 200 OK\r\nTransfer-Encoding: chunked",
                Rest::CHUNKS,
                true,
            ),
            (
                Method::GET,
                "1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5",
                Rest::Length(5),
                false,
            ),
            (Method::GET, "1.1 200 OK", Rest::UntilClose, true),
            (
                Method::GET,
                "1.0 200 OK\r\nContent-Length: 5",
                Rest::Length(5),
                false,
            ),
            (
                Method::GET,
                "1.0 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 5",
                Rest::Length(5),
                false,
            ),
            (
                Method::GET,
                "1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5",
                Rest::Length(5),
                true,
            ),
            (
                Method::GET,
                "1.1 101 Switching Protocols\r\nUpgrade: x",
                Rest::Nothing,
                true,
            ),
        ] {
            let head = parsed(&format!("HTTP/{text}\r\n\r\n")).unwrap().unwrap();
            assert_eq!(
                (rest(&method, &head), stays_open(head.version(), head.headers())),
                (follows, stays),
                "{method} {text}"
            );
        }
    }

    #[test]
    fn a_head_is_taken_off_when_it_is_whole() {
        let text = "HTTP/1.1 299 Quite fine\r\nX-A : 1\r\nx-a:2\r\n\r\nbody";
        let mut unread = BytesMut::new();
        for byte in &text.as_bytes()[..text.len() - 5] {
            unread.extend_from_slice(&[*byte]);
            assert!(parse(&mut unread).unwrap().is_none());
        }
        unread.extend_from_slice(b"\nbody");
        let head = parse(&mut unread).unwrap().unwrap();
        assert_eq!((head.status().as_u16(), &unread[..]), (299, &b"body"[..]));
        assert!(head.headers().get_all("x-a").iter().eq(["1", "2"]));
        assert_eq!(
            head.extensions().get::<ReasonPhrase>().unwrap().as_bytes(),
            b"Quite fine"
        );
    }

    #[test]
    fn a_later_minor_version_is_read_as_1_1() {
        for version in ["1.2", "1.9"] {
            let head = parsed(&format!("HTTP/{version} 204 No Content\r\n\r\n"))
                .unwrap()
                .unwrap();
            assert_eq!(head.version(), Version::HTTP_11, "{version}");
        }
        assert!(parsed("HTTP/1.20 204 No Content\r\n\r\n").is_err());
    }

    #[test]
    fn empty_lines_before_a_head_are_nothing() {
        let mut unread = BytesMut::from("\r\nHTTP/1.1 100 Continue\r\n\n\r\nHTTP/1.1 204 No Content\n\n");
        let mut status = || parse(&mut unread).unwrap().map(|head| head.status().as_u16());
        assert_eq!([status(), status(), status()], [Some(100), Some(204), None]);
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let many = "X: 1\r\n".repeat(MAX_FIELDS + 1);
        for text in [
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 099 X\r\n\r\n",
            "HTTP/1.1 2000 X\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno field\r\n\r\n",
            &format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        ] {
            assert!(parsed(text).is_err(), "{text:?}");
        }
    }
}
