use std::io::{self, ErrorKind};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_write_buf;

use super::END_OF_LINE;
use crate::patience::Deadline;

/// So little data is copied behind what goes before it: many small parts leave in one write.
const SMALL: usize = 1024;
/// So much of that waits to be written.
const MOST_GATHERED: usize = 16 * 1024;
/// Room for the head of most messages.
pub(super) const USUAL_HEAD: usize = 1024;

/// How a message that is sent says where its body ends (RFC 9112 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length; so much is still to come.
    Length(u64),
    Chunked,
    /// With the connection.
    UntilClose,
}

/// Why a message is not sent to its end.
#[derive(Debug)]
pub(super) enum Unsent<E> {
    Io(io::Error),
    /// Its body broke off.
    Body(E),
    /// Its body has another length than its head says.
    Length,
}

/// Messages on their way, piece by piece: the next is taken when the last one is written.
pub(super) struct Pieces {
    /// Before the data: the head of the message, the size of a chunk.
    before: BytesMut,
    data: Bytes,
    /// Behind them.
    after: &'static [u8],
    framing: Framing,
    /// Nothing comes behind this piece.
    is_last: bool,
    is_begun: bool,
    is_flushed: bool,
    written: u64,
}

impl Default for Pieces {
    /// Nothing to send.
    fn default() -> Self {
        Self {
            before: BytesMut::new(),
            data: Bytes::new(),
            after: b"",
            framing: Framing::Length(0),
            is_last: true,
            is_begun: false,
            is_flushed: true,
            written: 0,
        }
    }
}

impl Pieces {
    /// Where the head of the next message is written, and whatever goes out before.
    pub(super) fn head(&mut self) -> &mut BytesMut {
        &mut self.before
    }

    /// Begins a message whose head is written.
    pub(super) fn begin(&mut self, framing: Framing, has_body: bool) {
        self.framing = framing;
        self.is_last = !has_body;
    }

    /// Who has nothing to send takes no room for it.
    pub(super) fn let_go(&mut self) {
        self.before = BytesMut::new();
    }

    /// Whether a byte of it may have reached the other side, or a part of the body is not in its place any more.
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// So many bytes, of all messages.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether the other side has to take something before more can be sent.
    pub(super) fn waits_for_stream(&self) -> bool {
        self.has_unwritten() || !self.is_flushed
    }

    /// Sends on, until all has been sent or the body or the other side have to be waited for. May be asked again
    /// at any time. What was taken before the body broke off is left to be written.
    pub(super) fn poll_send<B>(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        body: &mut B,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Unsent<B::Error>>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            let has_room = self.data.is_empty() && self.after.is_empty() && self.before.len() < MOST_GATHERED;
            if has_room && !self.is_last && self.poll_take(body, context)?.is_ready() {
                continue;
            }
            if self.has_unwritten() {
                ready!(self.poll_write(stream, context)).map_err(Unsent::Io)?;
                continue;
            }
            ready!(self.poll_flush(stream, context)).map_err(Unsent::Io)?;
            return if self.is_last {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
    }

    /// Sends what has been taken and nothing more.
    pub(super) fn poll_send_taken(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.has_unwritten() {
            ready!(self.poll_write(stream, context))?;
        }
        self.poll_flush(stream, context)
    }

    fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = (&mut self.before).chain(&mut self.data).chain(&mut self.after);
        let stream = Pin::new(stream);
        let written = if piece.chunk().len() == piece.remaining() {
            // The system takes one part faster if it is not told of a list.
            let written = ready!(stream.poll_write(context, piece.chunk()));
            written.inspect(|written| piece.advance(*written))
        } else {
            ready!(poll_write_buf(stream, context, &mut piece))
        };
        // Even if it failed: TLS may have sent a part.
        self.is_begun = true;
        self.is_flushed = false;
        match written? {
            0 => Poll::Ready(Err(ErrorKind::WriteZero.into())),
            written => {
                self.written += written as u64;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_flush(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(stream).poll_flush(context))?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    /// When it fails, what was taken before is as it was.
    fn poll_take<B>(&mut self, body: &mut B, context: &mut Context<'_>) -> Poll<Result<(), Unsent<B::Error>>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let frame = ready!(Pin::new(&mut *body).poll_frame(context)).transpose();
        self.is_begun = true;
        match frame.map_err(Unsent::Body)?.map(Frame::into_data) {
            Some(Ok(data)) => {
                self.take(data).ok_or(Unsent::Length)?;
                self.is_last = self.framing == Framing::Length(0) && body.is_end_stream();
            }
            Some(Err(frame)) => self.end(frame.trailers_ref()),
            None => self.end(None),
        }
        match self.framing {
            Framing::Length(left) if self.is_last && left > 0 => Poll::Ready(Err(Unsent::Length)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// `None`: the body is longer than its head says.
    fn take(&mut self, data: Bytes) -> Option<()> {
        match &mut self.framing {
            Framing::Length(left) => *left = left.checked_sub(data.len() as u64)?,
            // It would be the last one.
            Framing::Chunked if data.is_empty() => return Some(()),
            Framing::Chunked => {
                let size = format!("{:x}\r\n", data.len());
                self.before.extend_from_slice(size.as_bytes());
                self.after = END_OF_LINE;
            }
            Framing::UntilClose => {}
        }
        if data.len() <= SMALL {
            self.before.extend_from_slice(&data);
            self.before.extend_from_slice(mem::take(&mut self.after));
        } else {
            self.data = data;
        }
        Some(())
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
}

/// Notices when the other side takes nothing.
#[derive(Default)]
pub(super) struct Stall {
    deadline: Option<Deadline>,
    /// So much had been written when the other side was last waited for.
    written: Option<u64>,
}

impl Stall {
    /// Ready when it has taken nothing for as long as `limit` of what is there for it.
    pub(super) fn poll(&mut self, sending: &Pieces, limit: Duration, context: &mut Context<'_>) -> Poll<()> {
        if !sending.waits_for_stream() {
            self.written = None;
            return Poll::Pending;
        }
        let deadline = self.deadline.get_or_insert_with(|| Deadline::new(limit));
        if self.written.replace(sending.written()) != Some(sending.written()) {
            deadline.put_off(limit);
        }
        deadline.poll(context)
    }
}

pub(super) fn write_field(head: &mut BytesMut, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, END_OF_LINE] {
        head.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::poll_fn;

    use futures_util::stream::iter;
    use http::HeaderValue;
    use http_body_util::StreamBody;

    use super::*;

    /// What is written of a body of these parts, each of so many bytes.
    async fn written(parts: &[usize], framing: Framing) -> Result<String, Unsent<Infallible>> {
        let data = |length: &usize| Frame::data(Bytes::from("x".repeat(*length)));
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("1"))]);
        let frames = parts.iter().map(data).chain([Frame::trailers(trailers)]);
        let mut body = StreamBody::new(iter(frames.map(Ok)));
        let (mut stream, mut pieces) = (Vec::new(), Pieces::default());
        pieces.head().extend_from_slice(b"head ");
        pieces.begin(framing, true);
        poll_fn(|context| pieces.poll_send(&mut stream, &mut body, context)).await?;
        Ok(String::from_utf8(stream).unwrap())
    }

    #[tokio::test]
    async fn parts_of_every_size_come_one_behind_the_other() {
        let large = MOST_GATHERED + 1;
        let parts = [1, SMALL, SMALL + 1, 0, large, 2];
        let content = |length: &usize| "x".repeat(*length);
        let chunk = |length: &usize| format!("{length:x}\r\n{}\r\n", content(length));
        let plain: String = parts.iter().map(content).collect();
        let chunks: String = parts.iter().filter(|length| **length > 0).map(chunk).collect();
        assert_eq!(
            written(&parts, Framing::Chunked).await.unwrap(),
            format!("head {chunks}0\r\netag: 1\r\n\r\n")
        );
        for framing in [Framing::Length(plain.len() as u64), Framing::UntilClose] {
            assert_eq!(written(&parts, framing).await.unwrap(), format!("head {plain}"));
        }
        for length in [plain.len() - 1, plain.len() + 1] {
            let sent = written(&parts, Framing::Length(length as u64)).await;
            assert!(matches!(sent, Err(Unsent::Length)), "{length}");
        }
    }
}
