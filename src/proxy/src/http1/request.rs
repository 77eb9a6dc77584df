use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_write_buf;

use super::{END_OF_LINE, Http1Error};
use crate::body::RequestBody;
use crate::patience::Patience;

/// Room for the head of most requests.
const USUAL_HEAD: usize = 1024;

/// How a request's body says where it ends (RFC 9112 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// By its length; so much is still to come.
    Length(u64),
    Chunked,
}

/// A request on its way, piece by piece: the next is taken when the last one is written.
pub(super) struct Sending {
    /// Before the data: the head of the request, the size of a chunk.
    before: BytesMut,
    data: Bytes,
    /// Behind them.
    after: &'static [u8],
    framing: Framing,
    /// Nothing comes behind this piece.
    is_last: bool,
    has_waited: bool,
    is_begun: bool,
    /// So many bytes.
    written: u64,
}

impl Sending {
    pub(super) fn new(request: &Request<RequestBody>) -> Self {
        let framing = Framing::of(request.body());
        Self {
            before: head(request, framing),
            data: Bytes::new(),
            after: b"",
            framing,
            is_last: request.body().is_end_stream(),
            has_waited: false,
            is_begun: false,
            written: 0,
        }
    }

    /// Whether a byte of it may have reached the upstream, or a part of the body is not in its place any more.
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Sends on, until all has been sent or the client or the upstream have to be waited for. May be asked again
    /// at any time.
    pub(super) fn poll(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        body: &mut RequestBody,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Http1Error>> {
        loop {
            // The first piece goes with the head.
            let takes_more = !self.is_last && self.data.is_empty() && self.after.is_empty();
            let has_more = takes_more && self.poll_take(body, context)?.is_ready();
            if takes_more && !has_more && self.may_wait(body) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.has_unwritten() {
                ready!(self.poll_write(stream, context))?;
            } else if self.is_last || !has_more {
                ready!(Pin::new(&mut *stream).poll_flush(context))?;
                return if self.is_last {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
        }
    }

    /// Whether to wait one turn with the head: what came with it from the client is handed on only when it has been
    /// asked for, and then both go together.
    fn may_wait(&mut self, body: &RequestBody) -> bool {
        !self.is_begun && !body.is_held_back() && !mem::replace(&mut self.has_waited, true)
    }

    /// Sends what is left, as long as the stream takes anything of it within `stall_limit`.
    pub(super) async fn finish(
        mut self,
        mut stream: impl AsyncWrite + Unpin,
        mut body: RequestBody,
        stall_limit: Duration,
    ) -> Result<(), Http1Error> {
        let mut stall = Patience::default();
        poll_fn(|context| {
            let before = self.written;
            let sent = self.poll(&mut stream, &mut body, context);
            let waits_for_stream = sent.is_pending() && self.has_unwritten();
            if !waits_for_stream || self.written != before {
                stall.renew();
            }
            if !waits_for_stream {
                return sent;
            }
            stall
                .poll(stall_limit, context)
                .map(|()| Err(Http1Error::Stalled))
        })
        .await
    }

    fn poll_take(
        &mut self,
        body: &mut RequestBody,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Http1Error>> {
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        self.is_begun = true;
        match frame
            .transpose()
            .map_err(|error| Http1Error::Body(Box::new(error)))?
            .map(Frame::into_data)
        {
            Some(Ok(data)) => {
                self.take(data)?;
                self.is_last = self.framing == Framing::Length(0) && body.is_end_stream();
            }
            Some(Err(frame)) => self.end(frame.trailers_ref()),
            None => self.end(None),
        }
        if self.is_last && !matches!(self.framing, Framing::Chunked | Framing::Length(0)) {
            return Poll::Ready(Err(Http1Error::BodyLength));
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, data: Bytes) -> Result<(), Http1Error> {
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(Http1Error::BodyLength)?;
            }
            // It would be the last one.
            Framing::Chunked if data.is_empty() => return Ok(()),
            Framing::Chunked => {
                self.before
                    .extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                self.after = END_OF_LINE;
            }
        }
        self.data = data;
        Ok(())
    }

    /// Trailers are written where there is a place for them (RFC 9112 7.1.2).
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.is_last = true;
        if self.framing == Framing::Chunked {
            self.before.extend_from_slice(b"0\r\n");
            for (name, value) in trailers.into_iter().flatten() {
                write_field(&mut self.before, name.as_str(), value.as_bytes());
            }
            self.before.extend_from_slice(END_OF_LINE);
        }
    }

    fn has_unwritten(&self) -> bool {
        !(self.before.is_empty() && self.data.is_empty() && self.after.is_empty())
    }

    fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Http1Error>> {
        let mut piece = (&mut self.before).chain(&mut self.data).chain(&mut self.after);
        let written = ready!(poll_write_buf(Pin::new(stream), context, &mut piece));
        // Even if it failed: TLS may have sent a part.
        self.is_begun = true;
        let written = written?;
        if written == 0 {
            return Poll::Ready(Err(io::Error::from(ErrorKind::WriteZero).into()));
        }
        self.written += written as u64;
        Poll::Ready(Ok(()))
    }
}

impl Framing {
    fn of(body: &RequestBody) -> Self {
        if body.is_end_stream() {
            return Self::Length(0);
        }
        body.size_hint().exact().map_or(Self::Chunked, Self::Length)
    }
}

/// The request line and the fields, to the empty line behind them (RFC 9112 2.1). Host comes first, as
/// RFC 9110 7.2 wants it, and is what the target names if there is none.
fn head(request: &Request<RequestBody>, framing: Framing) -> BytesMut {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut head = BytesMut::with_capacity(USUAL_HEAD);
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    let named = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    write_field(&mut head, HOST.as_str(), named.or(host).unwrap_or_default());
    for (name, value) in headers {
        // How the body ends is said of the body that is sent.
        if ![HOST, TRANSFER_ENCODING, CONTENT_LENGTH].contains(name) {
            write_field(&mut head, name.as_str(), value.as_bytes());
        }
    }
    // It holds for one connection, and is to be named there (RFC 9110 10.1.4).
    if headers.contains_key(TE) {
        write_field(&mut head, CONNECTION.as_str(), TE.as_str().as_bytes());
    }
    match framing {
        Framing::Chunked => write_field(&mut head, TRANSFER_ENCODING.as_str(), b"chunked"),
        Framing::Length(length)
            if length > 0 || has_content(method) || headers.contains_key(CONTENT_LENGTH) =>
        {
            write_field(&mut head, CONTENT_LENGTH.as_str(), length.to_string().as_bytes());
        }
        Framing::Length(_) => {}
    }
    head.extend_from_slice(END_OF_LINE);
    head
}

/// Whether a request with the method says that it has no content, if it has none (RFC 9110 8.6).
fn has_content(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

fn write_field(head: &mut BytesMut, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, END_OF_LINE] {
        head.extend_from_slice(part);
    }
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
            assert_eq!(str::from_utf8(&head(&request, framing)).unwrap(), expected);
        }
    }
}
