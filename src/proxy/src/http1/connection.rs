use std::future::poll_fn;
use std::mem;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use tokio::io::{AsyncReadExt, AsyncWrite, empty, join, sink, split};
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tokio_util::task::AbortOnDropHandle;

use super::answer::{AnswerBody, Upload};
use super::pieces::{Pieces, Stall};
use super::rest::Rest;
use super::unread::Unread;
use super::{Http1Error, MAX_HEAD, Stream, head, request, tunnel};
use crate::body::RequestBody;
use crate::interim::Hearing;
use crate::message_length::settle_length;

/// So many steps towards an answer are made in one go: a line read, an interim response heard.
const MOST_AT_ONCE: usize = 32;
/// So long an upstream that has said all may take nothing of what its client still sends: most want no more of it, and
/// the client, which waits for its next turn, is to hear that soon (RFC 9112 9.6).
const LINGERING: Duration = Duration::from_secs(5);

/// A connection to an upstream, for one exchange after the other. It closes when it is dropped.
pub(crate) struct Http1Connection {
    stream: Box<dyn Stream>,
    pub(super) unread: Unread,
}

impl Http1Connection {
    pub(crate) fn new(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            unread: Unread::default(),
        }
    }

    /// Whether the upstream has neither closed it nor spoken without having been asked.
    pub(crate) fn is_open(&mut self) -> bool {
        let mut byte = [0];
        // A task that has done much would be told that there is nothing, for the time being.
        let read = unconstrained(self.stream.read(&mut byte)).now_or_never();
        self.unread.bytes.is_empty() && read.is_none()
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
        let mut sending = request::pieces(request);
        let answered =
            poll_fn(|context| self.poll_exchange(&mut sending, request.body_mut(), hearing, context));
        match answered.await {
            Ok((head, sent)) => {
                let rest = head::rest(request.method(), &head);
                let stays_open = sent == Sent::Whole
                    && rest != Rest::UntilClose
                    && head.status() != StatusCode::SWITCHING_PROTOCOLS
                    && head::stays_open(head.version(), head.headers());
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
        sending: &mut Pieces,
        body: &mut RequestBody,
        hearing: Option<&Hearing>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(Response<()>, Sent), Http1Error>> {
        let sent = sending.poll_send(&mut self.stream, body, context);
        let sent = sent.map_err(Http1Error::from);
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
        for _ in 0..MOST_AT_ONCE {
            match head::parse(&mut self.unread.bytes)? {
                Some(interim) if head::is_interim(&interim) => {
                    if let Some(hearing) = hearing {
                        hearing.hear(interim.status(), interim.headers());
                    }
                }
                Some(mut head) => {
                    settle_length(&mut head)?;
                    return Poll::Ready(Ok(head));
                }
                None if self.unread.bytes.len() > MAX_HEAD => {
                    return Poll::Ready(Err(Http1Error::HeadTooLarge));
                }
                None => {
                    if !ready!(self.unread.poll_line(&mut self.stream, context))? {
                        return Poll::Ready(Err(self.early_end()));
                    }
                }
            }
        }
        // Who talks without end must not keep the task from all else.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn early_end(&self) -> Http1Error {
        if self.unread.bytes.is_empty() {
            Http1Error::Closed
        } else {
            Http1Error::Incomplete
        }
    }

    /// The next frame of the answer's body, of which `rest` is still to come.
    pub(super) fn poll_frame(
        &mut self,
        rest: &mut Rest,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        self.unread.poll_frame(&mut self.stream, rest, context)
    }

    /// Sends the rest of a request while the answer is received.
    fn send_beside(&mut self, sending: Pieces, body: RequestBody, stall_limit: Duration) -> Upload {
        let stream = mem::replace(&mut self.stream, Box::new(empty()));
        let (from_upstream, to_upstream) = split(stream);
        self.stream = Box::new(join(from_upstream, sink()));
        let (unanswered, answered) = oneshot::channel();
        let sending = tokio::spawn(finish(sending, to_upstream, body, stall_limit, answered));
        Upload {
            sending: AbortOnDropHandle::new(sending),
            _unanswered: unanswered,
        }
    }

    /// What is spoken on behind an answer that leaves HTTP.
    pub(super) fn into_tunnel(self) -> Box<dyn Stream> {
        tunnel(self.stream, &self.unread)
    }
}

/// Sends what is left, as long as the stream takes anything of it within `limit`, or sooner once it is `answered`.
async fn finish(
    mut sending: Pieces,
    mut stream: impl AsyncWrite + Unpin,
    mut body: RequestBody,
    mut limit: Duration,
    answered: oneshot::Receiver<()>,
) -> Result<(), Http1Error> {
    let (mut answered, mut stall) = (answered.fuse(), Stall::default());
    poll_fn(|context| {
        if answered.poll_unpin(context).is_ready() {
            (limit, stall) = (limit.min(LINGERING), Stall::default());
        }
        let sent = sending.poll_send(&mut stream, &mut body, context);
        if sent.is_ready() {
            return sent.map_err(Http1Error::from);
        }
        let stalled = stall.poll(&sending, limit, context);
        stalled.map(|()| Err(Http1Error::Stalled))
    })
    .await
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
