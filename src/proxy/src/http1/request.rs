use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request};
use http_body::Body;

use super::END_OF_LINE;
use super::pieces::{Framing, Pieces, USUAL_HEAD, write_field};
use crate::body::RequestBody;

/// A request as an upstream gets it.
pub(super) fn pieces(request: &Request<RequestBody>) -> Pieces {
    let framing = framing(request.body());
    let mut pieces = Pieces::default();
    write_head(request, framing, pieces.head());
    pieces.begin(framing, !request.body().is_end_stream());
    pieces
}

fn framing(body: &RequestBody) -> Framing {
    if body.is_end_stream() {
        return Framing::Length(0);
    }
    body.size_hint().exact().map_or(Framing::Chunked, Framing::Length)
}

/// The request line and the fields, to the empty line behind them (RFC 9112 2.1). Host comes first, as
/// RFC 9110 7.2 wants it, and is what the target names if there is none.
fn write_head(request: &Request<RequestBody>, framing: Framing, head: &mut BytesMut) {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    head.reserve(USUAL_HEAD);
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    let named = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    write_field(head, HOST.as_str(), named.or(host).unwrap_or_default());
    for (name, value) in headers {
        // How the body ends is said of the body that is sent.
        if ![HOST, TRANSFER_ENCODING, CONTENT_LENGTH].contains(name) {
            write_field(head, name.as_str(), value.as_bytes());
        }
    }
    // It holds for one connection, and is to be named there (RFC 9110 10.1.4).
    if headers.contains_key(TE) {
        write_field(head, CONNECTION.as_str(), TE.as_str().as_bytes());
    }
    match framing {
        Framing::Chunked => write_field(head, TRANSFER_ENCODING.as_str(), b"chunked"),
        Framing::Length(length)
            if length > 0 || has_content(method) || headers.contains_key(CONTENT_LENGTH) =>
        {
            write_field(head, CONTENT_LENGTH.as_str(), length.to_string().as_bytes());
        }
        Framing::Length(_) | Framing::UntilClose => {}
    }
    head.extend_from_slice(END_OF_LINE);
}

/// Whether a request with the method says that it has no content, if it has none (RFC 9110 8.6).
fn has_content(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_says_where_the_request_goes_and_how_its_body_ends() {
        for (request, framing, expected) in [
            (
                Request::get("/a?b").header("x", "1").header("host", "a.test"),
                Framing::Length(0),
                "GET /a?b HTTP/1.1\r\nhost: a.test\r\nx: 1\r\n\r\n",
            ),
            (
                Request::get("http://b.test:1/").header("host", "a.test"),
                Framing::Length(0),
                "GET / HTTP/1.1\r\nhost: b.test:1\r\n\r\n",
            ),
            (
                Request::options("*").header("host", "a"),
                Framing::Length(0),
                "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
            ),
            (
                Request::post("/").header("host", "a"),
                Framing::Length(0),
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
            ),
            (
                Request::delete("/").header("host", "a"),
                Framing::Length(2),
                "DELETE / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n",
            ),
            (
                Request::post("/")
                    .header("host", "a")
                    .header("content-length", "2"),
                Framing::Length(2),
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n",
            ),
            (
                Request::post("/").header("host", "a").header("te", "trailers"),
                Framing::Chunked,
                "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
        ] {
            let request = request.body(RequestBody::empty()).unwrap();
            let mut head = BytesMut::new();
            write_head(&request, framing, &mut head);
            assert_eq!(str::from_utf8(&head).unwrap(), expected);
        }
    }
}
