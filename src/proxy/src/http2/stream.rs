use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Response};
use http_body::Frame;

use super::Http2Error;
use super::frame::{Reason, Violation};
use super::output::Output;
use super::window::{ReceiveWindow, SendWindow};

/// What is kept for the other side to take. It has room for so much in its window, or it is not kept.
const MOST_UNSENT: usize = 64 * 1024;
/// So small parts of it are kept in one piece.
const SMALL_UNSENT: usize = 64;
/// Interim responses that are not taken.
const MOST_HEADS: usize = 16;
/// Less is copied behind what has come before: it would keep the whole buffer it came in.
const SMALL: usize = 4 * 1024;

/// One stream, as long as anybody uses it or something of it is to be sent (RFC 9113 5.1).
pub(super) struct Stream {
    pub(super) sending: SendWindow,
    pub(super) receiving: ReceiveWindow,
    /// Handles that refer to it.
    pub(super) handles: u8,
    /// Whether it counts among those that are open, or half open, on the wire.
    pub(super) is_active: bool,
    /// Waits for its turn to send.
    pub(super) is_queued: bool,
    /// Nothing of it could be sent when that was last asked.
    pub(super) is_stuck: bool,
    /// Whether anybody takes what comes.
    pub(super) is_wanted: bool,
    pub(super) unsent: Output,
    pub(super) ending: Ending,
    /// Before its end.
    pub(super) broken: Option<Broken>,
    /// Responses, each in its turn: those before the answer, and the answer.
    heads: VecDeque<Response<()>>,
    /// How the answer is asked for that has not come.
    pub(super) asked: Option<Method>,
    unread: BytesMut,
    trailers: Option<HeaderMap>,
    /// The other side has ended its side.
    pub(super) is_received: bool,
    /// So much that was declared has not come.
    pub(super) left: Option<u64>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What comes behind what is unsent.
#[derive(Debug)]
pub(super) enum Ending {
    /// More of it.
    Open,
    End,
    Trailers(HeaderMap),
    Reset(Reason),
    /// It was sent.
    Over,
}

/// Why nothing more comes, or goes.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    pub(super) error: Http2Error,
    /// We have reset it: what the other side has sent before it knew is to be passed over (RFC 9113 5.4.2).
    pub(super) by_us: bool,
}

impl Stream {
    pub(super) fn new(send_window: u32, receive_window: u32) -> Self {
        Self {
            sending: SendWindow::new(send_window),
            receiving: ReceiveWindow::new(receive_window),
            handles: 2,
            is_active: true,
            is_queued: false,
            is_stuck: false,
            is_wanted: true,
            unsent: Output::new(SMALL_UNSENT),
            ending: Ending::Open,
            broken: None,
            heads: VecDeque::new(),
            asked: None,
            unread: BytesMut::new(),
            trailers: None,
            is_received: false,
            left: None,
            reader: None,
            writer: None,
        }
    }

    /// Whether nothing more is to be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.broken.is_some() || matches!(self.ending, Ending::Over)
    }

    /// Whether nothing more is to be sent by either side.
    pub(super) fn is_closed(&self) -> bool {
        self.broken.is_some() || (self.is_received && matches!(self.ending, Ending::Over))
    }

    pub(super) fn break_off(&mut self, broken: Broken) {
        if self.broken.is_none() {
            self.broken = Some(broken);
            self.unsent.clear();
        }
        self.wake_reader();
        self.wake_writer();
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Whether more may be given to be sent: a slow receiver slows its sender down. What comes next may be the end,
    /// which needs no window.
    fn has_room(&self) -> bool {
        self.unsent.is_empty() || self.unsent.remaining() < MOST_UNSENT.min(self.sending.available())
    }

    /// Tells who waits for room that there is some. It is not told of every byte.
    pub(super) fn offer_room(&mut self) {
        if self.unsent.remaining() <= MOST_UNSENT / 2 && self.has_room() || self.is_sent() {
            self.wake_writer();
        }
    }

    pub(super) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Http2Error>> {
        self.poll_writable(Self::has_room, context)
    }

    /// Ready when all has been sent, or will be with the windows there are: its own, and its connection's.
    pub(super) fn poll_sent(
        &mut self,
        window: SendWindow,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Http2Error>> {
        let fits = |stream: &Self| {
            let room = window.available().min(stream.sending.available());
            stream.unsent.remaining() <= room
        };
        self.poll_writable(fits, context)
    }

    /// Ready when it is broken.
    pub(super) fn poll_broken(&mut self, context: &mut Context<'_>) -> Poll<Http2Error> {
        if let Some(broken) = &self.broken {
            return Poll::Ready(broken.error.clone());
        }
        self.writer = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_writable(
        &mut self,
        is_ready: impl FnOnce(&Self) -> bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Http2Error>> {
        if self.broken.is_none() && is_ready(self) {
            return Poll::Ready(Ok(()));
        }
        self.poll_broken(context).map(Err)
    }

    /// Keeps what has come, or passes it over; an end in the wrong place is a violation.
    pub(super) fn receive(&mut self, data: BytesMut, is_last: bool) -> Result<(), Violation> {
        if self.asked.is_some() {
            return Err(Violation::protocol("content before its head"));
        }
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(data.len() as u64)
                .ok_or(Violation::protocol("more content than was declared"))?;
        }
        if is_last {
            self.end(None)?;
        }
        if self.is_wanted {
            self.keep(data);
        }
        self.wake_reader();
        Ok(())
    }

    fn keep(&mut self, data: BytesMut) {
        if self.unread.is_empty() && data.len() >= SMALL {
            self.unread = data;
        } else {
            self.unread.extend_from_slice(&data);
        }
    }

    /// Ends the other side's side.
    pub(super) fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Violation> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(Violation::protocol("less content than was declared"));
        }
        self.is_received = true;
        self.trailers = trailers.filter(|_| self.is_wanted);
        self.wake_reader();
        Ok(())
    }

    /// An interim response that nobody takes is not kept beside so many others.
    pub(super) fn receive_head(&mut self, head: Response<()>) {
        if self.heads.len() < MOST_HEADS || !head.status().is_informational() {
            self.heads.push_back(head);
        }
        self.wake_reader();
    }

    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<()>, Http2Error>> {
        if let Some(head) = self.heads.pop_front() {
            return Poll::Ready(Ok(head));
        }
        if let Some(broken) = &self.broken {
            return Poll::Ready(Err(broken.error.clone()));
        }
        self.reader = Some(context.waker().clone());
        Poll::Pending
    }

    /// What has come, all at once; then the trailers, or why it came no further.
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http2Error>>> {
        if !self.unread.is_empty() {
            let data = std::mem::take(&mut self.unread).freeze();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.is_received {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if let Some(broken) = &self.broken {
            return Poll::Ready(Some(Err(broken.error.clone())));
        }
        self.reader = Some(context.waker().clone());
        Poll::Pending
    }

    /// Whether all that was to come has been taken.
    pub(super) fn is_taken(&self) -> bool {
        self.is_received && self.unread.is_empty() && self.trailers.is_none()
    }

    /// Wants nothing more; so much had come and was not taken.
    pub(super) fn pass_over(&mut self) -> usize {
        self.is_wanted = false;
        self.trailers = None;
        self.heads.clear();
        std::mem::take(&mut self.unread).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_needs_no_window_and_more_than_an_end_waits_for_it() {
        let mut context = Context::from_waker(Waker::noop());
        let mut stream = Stream::new(0, 0);
        assert!(stream.poll_room(&mut context).is_ready());
        stream.unsent.push(Bytes::from("a"));
        assert!(stream.poll_room(&mut context).is_pending());
    }
}
