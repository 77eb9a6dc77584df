//! One stream of HTTP/2, towards a client or an upstream alike: a body that is received, one that is sent,
//! or bytes both ways.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// How long a stream that breaks off waits for what it has sent to be written.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(20);

/// A body that the other side sends.
pub(crate) struct Http2Body {
    stream: RecvStream,
    /// As the head declared it; h2 sees to it that it is true.
    left: Option<u64>,
    is_data_over: bool,
    /// Sends what belongs to the same exchange, for as long as anybody hears of it.
    sending: Option<AbortOnDropHandle<()>>,
    _use: Option<Arc<()>>,
}

impl Http2Body {
    pub(crate) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH);
        Self {
            stream,
            left: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            is_data_over: false,
            sending: None,
            _use: None,
        }
    }

    pub(crate) fn beside(mut self, sending: Option<AbortOnDropHandle<()>>) -> Self {
        self.sending = sending;
        self
    }

    /// Holds this as long as it lasts.
    pub(crate) fn using(mut self, it: Arc<()>) -> Self {
        self._use = Some(it);
        self
    }

    pub(crate) fn has_length(&self) -> bool {
        self.left.is_some()
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.is_data_over {
            match ready!(self.stream.poll_data(context)) {
                Some(data) => return Poll::Ready(Some(self.take(data).map(Frame::data))),
                None => self.is_data_over = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(context));
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    /// Room for more is given when this was taken: a slow receiver slows its sender down.
    fn take(&mut self, data: Result<Bytes, h2::Error>) -> Result<Bytes, h2::Error> {
        let data = data?;
        self.stream.flow_control().release_capacity(data.len())?;
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        Ok(data)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
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

/// Whether there is what is malformed (RFC 9113 8.2.1) and let through by h2: a value that begins or ends with a
/// space, or a name with a quotation mark.
pub(crate) fn has_malformed_field(fields: &HeaderMap) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    fields.iter().any(|(name, value)| {
        let value = value.as_bytes();
        is_space(value.first()) || is_space(value.last()) || name.as_str().contains('"')
    })
}

/// Why a body was not sent to its end.
#[derive(Debug, Error)]
pub(crate) enum Unsent<E: Error + 'static> {
    #[error("the other side gave it up: {0}")]
    Reset(Reason),
    #[error("the other side takes nothing any more")]
    Stalled,
    #[error(transparent)]
    Protocol(#[from] h2::Error),
    #[error("it broke off")]
    Body(#[source] E),
}

/// Sends a body with its trailers. The other side may take nothing for as long as `stall_limit`, if there is
/// one. What breaks off is seen there to break off.
pub(crate) async fn send_body<B>(
    mut stream: SendStream<Bytes>,
    body: B,
    stall_limit: Option<Duration>,
) -> Result<(), Unsent<B::Error>>
where
    B: Body<Data = Bytes, Error: Error + 'static>,
{
    let mut body = pin!(body);
    let sent = send_frames(&mut stream, body.as_mut(), stall_limit).await;
    match &sent {
        Err(Unsent::Body(_)) => {
            // What came before is on its way: a reset takes back what has not been written.
            let given_up = poll_fn(|context| stream.poll_reset(context));
            let _ = timeout(LAST_WORDS, given_up).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        Err(Unsent::Stalled) => stream.send_reset(Reason::CANCEL),
        _ => {}
    }
    sent
}

async fn send_frames<B>(
    stream: &mut SendStream<Bytes>,
    mut body: Pin<&mut B>,
    stall_limit: Option<Duration>,
) -> Result<(), Unsent<B::Error>>
where
    B: Body<Data = Bytes, Error: Error + 'static>,
{
    loop {
        let room = wait_for_room(stream);
        match stall_limit {
            Some(limit) => timeout(limit, room).await.map_err(|_| Unsent::Stalled)?,
            None => room.await,
        }?;
        let Some(frame) = next_frame(stream, body.as_mut()).await? else {
            return Ok(stream.send_data(Bytes::new(), true)?);
        };
        match frame.into_data() {
            Ok(data) => {
                let is_over = body.is_end_stream();
                stream.send_data(data, is_over)?;
                if is_over {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return Ok(stream.send_trailers(trailers)?);
                }
            }
        }
    }
}

/// One byte is enough to ask for more of a body: h2 keeps what does not fit.
async fn wait_for_room(stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    stream.reserve_capacity(1);
    poll_fn(|context| poll_room(stream, context)).await
}

/// Waits until h2 takes at least one byte for the other side's windows.
fn poll_room(stream: &mut SendStream<Bytes>, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    while stream.capacity() == 0 {
        // Nothing comes any more when the stream is closed.
        ready!(stream.poll_capacity(context)).unwrap_or(Err(Reason::STREAM_CLOSED.into()))?;
    }
    Poll::Ready(Ok(()))
}

/// Looks out for a receiver that gives up while the sender is silent.
async fn next_frame<B>(
    stream: &mut SendStream<Bytes>,
    mut body: Pin<&mut B>,
) -> Result<Option<Frame<Bytes>>, Unsent<B::Error>>
where
    B: Body<Data = Bytes, Error: Error + 'static>,
{
    poll_fn(|context| match body.as_mut().poll_frame(context) {
        Poll::Ready(frame) => Poll::Ready(frame.transpose().map_err(Unsent::Body)),
        Poll::Pending => stream
            .poll_reset(context)
            .map(|reason| Err(Unsent::Reset(reason?))),
    })
    .await
}

/// A tunnel in a stream (RFC 8441 5). Dropped before both sides are over, it is reset.
pub(crate) struct Http2Stream {
    sending: SendStream<Bytes>,
    receiving: RecvStream,
    unread: Bytes,
    _use: Option<Arc<()>>,
}

impl Http2Stream {
    pub(crate) fn new(sending: SendStream<Bytes>, receiving: RecvStream) -> Self {
        Self {
            sending,
            receiving,
            unread: Bytes::new(),
            _use: None,
        }
    }

    /// Holds this as long as it lasts.
    pub(crate) fn using(mut self, it: Arc<()>) -> Self {
        self._use = Some(it);
        self
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.receiving.poll_data(context)) {
                Some(data) => self.unread = data.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = buffer.remaining().min(self.unread.len());
        buffer.put_slice(&self.unread.split_to(length));
        let released = self.receiving.flow_control().release_capacity(length);
        Poll::Ready(released.map_err(io::Error::other))
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sending.reserve_capacity(bytes.len());
        ready!(poll_room(&mut self.sending, context)).map_err(io::Error::other)?;
        let length = self.sending.capacity().min(bytes.len());
        let data = Bytes::copy_from_slice(&bytes[..length]);
        let sent = self.sending.send_data(data, false);
        Poll::Ready(sent.map(|()| length).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(
            self.sending
                .send_data(Bytes::new(), true)
                .map_err(io::Error::other),
        )
    }
}
