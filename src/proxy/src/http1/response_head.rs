//! The head of an answer as a client gets it.

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use super::END_OF_LINE;
use super::pieces::{Framing, Pieces, USUAL_HEAD, write_field};
use crate::body::ReplyBody;
use crate::date;

/// What of a request says how its answer is written.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    version: Version,
    is_head: bool,
}

impl Asked {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self {
            version: request.version(),
            is_head: request.method() == Method::HEAD,
        }
    }

    /// By who has said nothing that could be read.
    pub(super) const UNKNOWN: Self = Self {
        version: Version::HTTP_11,
        is_head: false,
    };

    /// Whether it may hear anything before the answer. HTTP/1.0 knows none of that (RFC 9110 15.2).
    pub(super) fn hears_interim(self) -> bool {
        self.version == Version::HTTP_11
    }

    /// How the answer's body ends; `None`: it has none, whatever its head says (RFC 9112 6.3).
    fn framing(self, response: &Response<ReplyBody>) -> Option<Framing> {
        let has_none = self.is_head
            || response.status().is_informational()
            || matches!(
                response.status(),
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        if has_none {
            return None;
        }
        Some(match response.body().size_hint().exact() {
            Some(length) => Framing::Length(length),
            None if self.version == Version::HTTP_11 => Framing::Chunked,
            None => Framing::UntilClose,
        })
    }

    /// Whether the answer has no other end than that of the connection.
    pub(super) fn ends_connection(self, response: &Response<ReplyBody>) -> bool {
        self.framing(response) == Some(Framing::UntilClose)
    }

    /// Begins the answer with its head. `closes`: it is the last one on its connection.
    pub(super) fn begin(self, response: &Response<ReplyBody>, closes: bool, sending: &mut Pieces) {
        let framing = self.framing(response);
        let head = sending.head();
        head.reserve(USUAL_HEAD);
        self.write_status(response, head);
        for (name, value) in response.headers() {
            let is_ours = [CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)
                || (*name == CONNECTION && value == "close");
            if !is_ours {
                write_field(head, name.as_str(), value.as_bytes());
            }
        }
        if closes {
            write_field(head, CONNECTION.as_str(), b"close");
        } else if self.version == Version::HTTP_10 {
            write_field(head, CONNECTION.as_str(), b"keep-alive");
        }
        write_length(response, framing, head);
        if !response.headers().contains_key(DATE) {
            write_field(head, DATE.as_str(), date::now().as_bytes());
        }
        head.extend_from_slice(END_OF_LINE);
        let has_body = framing.is_some() && !response.body().is_end_stream();
        sending.begin(framing.unwrap_or(Framing::Length(0)), has_body);
    }

    /// The version is that of the request: hardly anybody of HTTP/1.0 understands another.
    fn write_status(self, response: &Response<ReplyBody>, head: &mut BytesMut) {
        let status = response.status();
        let version: &[u8] = match self.version {
            Version::HTTP_10 => b"HTTP/1.0 ",
            _ => b"HTTP/1.1 ",
        };
        let reason = match response.extensions().get::<ReasonPhrase>() {
            Some(reason) => reason.as_bytes(),
            None => status.canonical_reason().unwrap_or_default().as_bytes(),
        };
        for part in [version, status.as_str().as_bytes(), b" ", reason, END_OF_LINE] {
            head.extend_from_slice(part);
        }
    }
}

/// What has no body may say how long it would be (RFC 9110 8.6).
fn write_length(response: &Response<ReplyBody>, framing: Option<Framing>, head: &mut BytesMut) {
    let would_have = || {
        let may_say = !response.status().is_informational() && response.status() != StatusCode::NO_CONTENT;
        let said = response.headers().get(CONTENT_LENGTH).cloned();
        let known = || response.body().size_hint().exact().filter(|length| *length > 0);
        may_say
            .then(|| said.or_else(|| known().map(Into::into)))
            .flatten()
    };
    match framing {
        Some(Framing::Chunked) => write_field(head, TRANSFER_ENCODING.as_str(), b"chunked"),
        Some(Framing::Length(length)) => {
            write_field(head, CONTENT_LENGTH.as_str(), length.to_string().as_bytes());
        }
        Some(Framing::UntilClose) => {}
        None => {
            if let Some(length) = would_have() {
                write_field(head, CONTENT_LENGTH.as_str(), length.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::reply;

    /// All that goes out of a page with the status, without its date.
    async fn sent(method: Method, version: Version, status: u16, closes: bool) -> String {
        let mut request = Request::new(());
        (*request.method_mut(), *request.version_mut()) = (method, version);
        let mut response = reply::text(StatusCode::from_u16(status).unwrap(), "page");
        response.headers_mut().clear();
        response.headers_mut().insert(DATE, "now".parse().unwrap());
        let (mut sending, mut stream) = (Pieces::default(), Vec::new());
        Asked::of(&request).begin(&response, closes, &mut sending);
        let body = response.body_mut();
        poll_fn(|context| sending.poll_send(&mut stream, body, context))
            .await
            .unwrap();
        String::from_utf8(stream).unwrap().replace("date: now\r\n", "")
    }

    #[tokio::test]
    async fn an_answer_ends_where_its_head_says() {
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        for (method, version, status, closes, expected) in [
            (
                Method::GET,
                new,
                200,
                false,
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npage",
            ),
            (
                Method::GET,
                new,
                299,
                true,
                "HTTP/1.1 299 \r\nconnection: close\r\ncontent-length: 4\r\n\r\npage",
            ),
            (
                Method::GET,
                old,
                200,
                false,
                "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 4\r\n\r\npage",
            ),
            (
                Method::HEAD,
                new,
                200,
                false,
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n",
            ),
            (Method::GET, new, 204, false, "HTTP/1.1 204 No Content\r\n\r\n"),
            (
                Method::GET,
                new,
                101,
                false,
                "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            ),
        ] {
            let case = format!("{method} {version:?} {status}");
            assert_eq!(sent(method, version, status, closes).await, expected, "{case}");
        }
    }
}
