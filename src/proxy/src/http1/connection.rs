use std::future::poll_fn;
use std::io::{self, Cursor};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use memchr::memchr;
use tokio::io::{AsyncReadExt, empty, join, sink, split};
use tokio::task::unconstrained;
use tokio_util::io::poll_read_buf;
use tokio_util::task::AbortOnDropHandle;

use super::answer::{AnswerBody, Upload};
use super::request::Sending;
use super::rest::Rest;
use super::{Http1Error, MAX_HEAD, Stream, head};
use crate::body::RequestBody;
use crate::interim::Hearing;
use crate::message_length::settle_length;

/// How much is read at once: enough for most answers, and more as long as an upstream fills it.
const LEAST_READ: usize = 8 * 1024;
const MOST_READ: usize = 128 * 1024;

/// A connection to an upstream, for one exchange after the other. It closes when it is dropped.
pub(crate) struct Http1Connection {
    stream: Box<dyn Stream>,
    /// What came and was not looked at.
    pub(super) unread: BytesMut,
    read_size: usize,
}

impl Http1Connection {
    pub(crate) fn new(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            unread: BytesMut::new(),
            read_size: LEAST_READ,
        }
    }

    /// Whether the upstream has neither closed it nor spoken without having been asked.
    pub(crate) fn is_open(&mut self) -> bool {
        let mut byte = [0];
        // A task that has done much would be told that there is nothing, for the time being.
        let read = unconstrained(self.stream.read(&mut byte)).now_or_never();
        self.unread.is_empty() && read.is_none()
    }

    /// Sends a request and waits for the answer; `hearing` takes what comes before it. The answer may come before
    /// the whole request has been sent; the rest of that then goes beside the answer's body, unless the upstream takes
    /// nothing of it for as long as `stall_limit`.
    ///
    /// When that fails, `false` says that the request is as it was and nothing of it has reached the upstream.
    pub(crate) async fn exchange(
        mut self: Box<Self>,
        request: &mut Request<RequestBody>,
        hearing: Option<&Hearing>,
        stall_limit: Duration,
    ) -> Result<Response<AnswerBody>, (Http1Error, bool)> {
        let mut sending = Sending::new(request);
        let answered =
            poll_fn(|context| self.poll_exchange(&mut sending, request.body_mut(), hearing, context));
        match answered.await {
            Ok((head, sent)) => {
                let rest = head::rest(request.method(), &head);
                let stays_open = sent == Sent::Whole && rest != Rest::UntilClose && head::stays_open(&head);
                let body = mem::replace(request.body_mut(), RequestBody::empty());
                // What is held back was not asked for, and will not be.
                let upload = (sent == Sent::Partly && !body.is_held_back())
                    .then(|| self.send_beside(sending, body, stall_limit));
                Ok(head.map(|()| AnswerBody::new(self, rest, stays_open, upload)))
            }
            Err(error) => Err((error, sending.is_begun())),
        }
    }

    fn poll_exchange(
        &mut self,
        sending: &mut Sending,
        body: &mut RequestBody,
        hearing: Option<&Hearing>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(Response<()>, Sent), Http1Error>> {
        let sent = sending.poll(&mut self.stream, body, context);
        let head = self.poll_head(hearing, context);
        match (head, sent) {
            (Poll::Ready(Ok(head)), Poll::Ready(Ok(()))) => Poll::Ready(Ok((head, Sent::Whole))),
            (Poll::Ready(Ok(head)), _) if head.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Poll::Ready(Err(Http1Error::LeftEarly))
            }
            (Poll::Ready(Ok(head)), Poll::Pending) => Poll::Ready(Ok((head, Sent::Partly))),
            // An upstream may refuse a request and close without hearing it out.
            (Poll::Ready(Ok(head)), Poll::Ready(Err(Http1Error::Io(_)))) => {
                Poll::Ready(Ok((head, Sent::Broken)))
            }
            (Poll::Pending, Poll::Ready(Err(Http1Error::Io(_)))) => Poll::Pending,
            (_, Poll::Ready(Err(error))) | (Poll::Ready(Err(error)), _) => Poll::Ready(Err(error)),
            (Poll::Pending, _) => Poll::Pending,
        }
    }

    fn poll_head(
        &mut self,
        hearing: Option<&Hearing>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, Http1Error>> {
        loop {
            match head::parse(&mut self.unread)? {
                Some(interim) if head::is_interim(&interim) => {
                    if let Some(hearing) = hearing {
                        hearing.hear(interim.status(), interim.headers());
                    }
                }
                Some(mut head) => {
                    settle_length(&mut head)?;
                    return Poll::Ready(Ok(head));
                }
                None if self.unread.len() > MAX_HEAD => return Poll::Ready(Err(Http1Error::HeadTooLarge)),
                None => {
                    ready!(self.poll_line(context))?;
                }
            }
        }
    }

    /// Reads until a further line is whole. Empty ones before the head are nothing.
    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        loop {
            let before = self.unread.len();
            if ready!(self.poll_read(usize::MAX, context))? == 0 {
                return Poll::Ready(Err(self.early_end()));
            }
            let has_line = memchr(b'\n', &self.unread[before..]).is_some();
            let is_empty = |byte: &&u8| b"\r\n".contains(byte);
            let empty = self.unread.iter().take_while(is_empty).count();
            self.unread.advance(empty);
            if has_line || self.unread.len() > MAX_HEAD {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn early_end(&self) -> Http1Error {
        if self.unread.is_empty() {
            Http1Error::Closed
        } else {
            Http1Error::Incomplete
        }
    }

    /// Reads; 0 is the end. There is not much more room than is `expected`.
    pub(super) fn poll_read(
        &mut self,
        expected: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let unread = &mut self.unread;
        if unread.capacity() - unread.len() < LEAST_READ.min(expected) {
            unread.reserve(self.read_size.min(expected));
        }
        let room = unread.capacity() - unread.len();
        let read = ready!(poll_read_buf(Pin::new(&mut self.stream), context, unread))?;
        if read == room {
            self.read_size = (2 * self.read_size).min(MOST_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// A connection that waits for its next exchange takes no room for it.
    pub(super) fn let_buffer_go(&mut self) {
        self.unread = BytesMut::new();
        self.read_size = LEAST_READ;
    }

    /// Sends the rest of a request while the answer is received.
    fn send_beside(&mut self, sending: Sending, body: RequestBody, stall_limit: Duration) -> Upload {
        let stream = mem::replace(&mut self.stream, Box::new(empty()));
        let (from_upstream, to_upstream) = split(stream);
        self.stream = Box::new(join(from_upstream, sink()));
        AbortOnDropHandle::new(tokio::spawn(sending.finish(to_upstream, body, stall_limit)))
    }

    /// What is spoken on behind an answer that leaves HTTP.
    pub(super) fn into_tunnel(self) -> Box<dyn Stream> {
        let (from_upstream, to_upstream) = split(self.stream);
        // A copy, mostly of nothing, and not the whole buffer for as long as the tunnel lasts.
        let unread = Cursor::new(Bytes::copy_from_slice(&self.unread));
        Box::new(join(AsyncReadExt::chain(unread, from_upstream), to_upstream))
    }
}

/// How much of a request has gone when its answer comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    Partly,
    Broken,
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::task::coop::{has_budget_remaining, poll_proceed};

    use super::*;

    #[tokio::test]
    async fn who_has_done_much_still_sees_that_an_upstream_spoke_unasked() {
        let (stream, mut upstream) = duplex(64);
        let mut connection = Http1Connection::new(stream);
        assert!(connection.is_open());
        upstream.write_all(b"HTTP/1.1 200 OK").await.unwrap();
        poll_fn(|context| {
            while let Poll::Ready(progress) = poll_proceed(context) {
                progress.made_progress();
            }
            assert!(!has_budget_remaining());
            assert!(!connection.is_open());
            Poll::Ready(())
        })
        .await;
    }
}
