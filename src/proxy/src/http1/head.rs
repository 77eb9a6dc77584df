//! The head of an answer, and what it says of what follows.

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use httparse::{Error, Header, ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::rest::Rest;
use crate::headers::names_option;

/// As many as hyper takes of a client.
pub(super) const MAX_FIELDS: usize = 100;

/// Takes a head off the bytes, if it is there whole (RFC 9112 4).
pub(super) fn parse(unread: &mut BytesMut) -> Result<Option<Response<()>>, Error> {
    if unread.is_empty() {
        return Ok(None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let mut parser = ParserConfig::default();
    // They go, as a proxy must see to (RFC 9112 5.1).
    parser.allow_spaces_after_header_name_in_responses(true);
    let status = parser.parse_response_with_uninit_headers(&mut parsed, unread, &mut fields)?;
    let Status::Complete(length) = status else {
        return Ok(None);
    };
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
    *head.headers_mut() = read_fields(parsed.headers)?;
    unread.advance(length);
    Ok(Some(head))
}

pub(super) fn read_fields(fields: &[Header<'_>]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Error::HeaderName)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Error::HeaderValue)?;
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
        return Rest::ChunkSize;
    }
    let length = headers.get(CONTENT_LENGTH);
    match length.and_then(|length| length.to_str().ok()?.parse().ok()) {
        Some(0) => Rest::Nothing,
        Some(length) => Rest::Length(length),
        None => Rest::UntilClose,
    }
}

/// Whether a further request may follow (RFC 9112 9.3).
pub(super) fn stays_open(head: &Response<()>) -> bool {
    match head.version() {
        _ if head.status() == StatusCode::SWITCHING_PROTOCOLS => false,
        _ if names_option(head.headers(), "close") => false,
        Version::HTTP_10 => names_option(head.headers(), "keep-alive"),
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
                Rest::ChunkSize,
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
                false,
            ),
        ] {
            let head = parsed(&format!("HTTP/{text}\r\n\r\n")).unwrap().unwrap();
            assert_eq!(
                (rest(&method, &head), stays_open(&head)),
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
