//! One stream of HTTP/2, towards a client or an upstream alike: a body that is received, one that is sent,
//! or bytes both ways.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{Http2Error, Incoming, Outgoing, Reason};

/// A body that the other side sends.
pub(crate) struct Http2Body {
    incoming: Incoming,
    /// As the head declared it, which is seen to be true.
    left: Option<u64>,
    /// Sends what belongs to the same exchange, for as long as anybody hears of it.
    sending: Option<AbortOnDropHandle<()>>,
}

impl Http2Body {
    pub(crate) fn new(incoming: Incoming, headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH);
        Self {
            incoming,
            left: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            sending: None,
        }
    }

    pub(crate) fn beside(mut self, sending: Option<AbortOnDropHandle<()>>) -> Self {
        self.sending = sending;
        self
    }

    pub(crate) fn has_length(&self) -> bool {
        self.left.is_some()
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http2Error>>> {
        let frame = ready!(self.incoming.poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            let taken = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.left = self.left.map(|left| left.saturating_sub(taken));
        }
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        // What answers HEAD declares a length and has none.
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        // An answer may be over before its request is (RFC 9113 8.1).
        if self.is_end_stream()
            && let Some(sending) = self.sending.take()
        {
            sending.detach();
        }
    }
}

/// Why a body was not sent to its end.
#[derive(Debug, Error)]
pub(crate) enum Unsent<E: Error + 'static> {
    #[error(transparent)]
    Stream(#[from] Http2Error),
    #[error("the other side takes nothing any more")]
    Stalled,
    #[error("it broke off")]
    Body(#[source] E),
}

/// Sends a body with its trailers. The other side may take nothing for as long as `stall_limit`. What breaks off is
/// seen there to break off.
pub(crate) async fn send_body<B>(
    mut outgoing: Outgoing,
    body: B,
    stall_limit: Duration,
) -> Result<(), Unsent<B::Error>>
where
    B: Body<Data = Bytes, Error: Error + 'static>,
{
    let mut body = pin!(body);
    let sent = send_frames(&mut outgoing, body.as_mut(), stall_limit).await;
    match &sent {
        Err(Unsent::Body(_)) => outgoing.break_off(Reason::INTERNAL_ERROR),
        Err(Unsent::Stalled) => outgoing.reset(Reason::CANCEL),
        _ => {}
    }
    sent
}

async fn send_frames<B>(
    outgoing: &mut Outgoing,
    mut body: Pin<&mut B>,
    stall_limit: Duration,
) -> Result<(), Unsent<B::Error>>
where
    B: Body<Data = Bytes, Error: Error + 'static>,
{
    loop {
        let room = poll_fn(|context| outgoing.poll_room(context));
        timeout(stall_limit, room).await.map_err(|_| Unsent::Stalled)??;
        match next_frame(outgoing, body.as_mut()).await?.map(Frame::into_data) {
            Some(Ok(data)) => {
                outgoing.send_data(data)?;
                if !body.is_end_stream() {
                    continue;
                }
                outgoing.finish()?;
            }
            Some(Err(frame)) => match frame.into_trailers() {
                Ok(trailers) => outgoing.send_trailers(trailers)?,
                Err(_) => continue,
            },
            None => outgoing.finish()?,
        }
        let sent = poll_fn(|context| outgoing.poll_sent(context));
        return timeout(stall_limit, sent)
            .await
            .map_err(|_| Unsent::Stalled)?
            .map_err(Unsent::from);
    }
}

/// Looks out for a receiver that gives up while the sender is silent.
async fn next_frame<B>(
    outgoing: &mut Outgoing,
    mut body: Pin<&mut B>,
) -> Result<Option<Frame<Bytes>>, Unsent<B::Error>>
where
    B: Body<Data = Bytes, Error: Error + 'static>,
{
    poll_fn(|context| match body.as_mut().poll_frame(context) {
        Poll::Ready(frame) => Poll::Ready(frame.transpose().map_err(Unsent::Body)),
        Poll::Pending => outgoing.poll_broken(context).map(|error| Err(error.into())),
    })
    .await
}

/// A tunnel in a stream (RFC 8441 5). Dropped before both sides are over, it is reset.
pub(crate) struct Http2Stream {
    outgoing: Outgoing,
    incoming: Incoming,
    unread: Bytes,
    is_finished: bool,
}

impl Http2Stream {
    pub(crate) fn new(outgoing: Outgoing, incoming: Incoming) -> Self {
        Self {
            outgoing,
            incoming,
            unread: Bytes::new(),
            is_finished: false,
        }
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            let frame = ready!(self.incoming.poll_frame(context)).transpose();
            match frame.map_err(io::Error::other)?.map(Frame::into_data) {
                Some(data) => self.unread = data.unwrap_or_default(),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = buffer.remaining().min(self.unread.len());
        buffer.put_slice(&self.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.outgoing.poll_room(context)).map_err(io::Error::other)?;
        let sent = self.outgoing.send_data(Bytes::copy_from_slice(bytes));
        Poll::Ready(sent.map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_finished = true;
        Poll::Ready(self.outgoing.finish().map_err(io::Error::other))
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        if !(self.is_finished && self.incoming.is_end_stream()) {
            self.outgoing.break_off(Reason::CANCEL);
        }
    }
}
