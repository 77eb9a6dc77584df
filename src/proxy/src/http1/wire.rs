use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::request_head::{Head, Refusal};
use super::rest::Rest;
use super::unread::Unread;
use super::{Http1Error, Stream, Transport, request_head, tunnel};
use crate::interim::InterimSender;

/// So much of what a client sends on is read while it waits for an answer.
const MOST_AHEAD: usize = 16 * 1024;

/// A client's connection, in the hands of who serves it and of the body of the request that comes over it.
#[derive(Clone)]
pub(super) struct Wire(Arc<Mutex<Inner>>);

pub(super) struct Inner {
    pub(super) stream: Box<dyn Transport>,
    pub(super) unread: Unread,
    body: BodyState,
    /// The client has ended its side.
    is_ended: bool,
    /// Waits for the end of the body.
    waiting: Option<Waker>,
    /// Waits for more of it.
    reader: Option<Waker>,
}

/// Where the body is of the request that is being answered.
enum BodyState {
    /// All of it has come.
    Over,
    /// Somebody reads it; so many parts of it have come.
    Taken(u64),
    /// Nobody wants the rest.
    Abandoned(Rest),
    /// Where it ends cannot be told any more.
    Broken,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Transport>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            stream,
            unread: Unread::default(),
            body: BodyState::Over,
            is_ended: false,
            waiting: None,
            reader: None,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of the request whose head was taken off. When somebody wants to have it, `continuing` is told so.
    pub(super) fn body(&self, rest: Rest, continuing: Option<InterimSender>) -> Option<ClientBody> {
        if rest == Rest::Nothing {
            return None;
        }
        self.lock().body = BodyState::Taken(0);
        Some(ClientBody {
            wire: self.clone(),
            rest,
            continuing,
        })
    }

    /// What is left when nobody else has it.
    pub(super) fn into_inner(self) -> Option<Inner> {
        let inner = Arc::into_inner(self.0)?;
        Some(inner.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_shutdown(context)
    }
}

impl Inner {
    /// The head of the next request; `None` if none comes any more.
    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Head, Refusal>>> {
        loop {
            if let Some(head) = request_head::parse(&mut self.unread.bytes).transpose() {
                return Poll::Ready(Some(head));
            }
            if self.is_ended {
                return Poll::Ready(None);
            }
            let Poll::Ready(line) = self.unread.poll_line(&mut self.stream, context) else {
                // TLS may have something to say to what it has read. If that cannot be sent, nothing can be read.
                let _ = Pin::new(&mut self.stream).poll_flush(context);
                if self.is_idle() {
                    self.unread.let_go();
                }
                return Poll::Pending;
            };
            if !line.unwrap_or(false) {
                return Poll::Ready(None);
            }
        }
    }

    /// Whether nothing of a request has come.
    pub(super) fn is_idle(&self) -> bool {
        self.unread.bytes.is_empty()
    }

    /// Whether somebody reads a body that has not come to its end.
    pub(super) fn is_being_read(&self) -> bool {
        matches!(self.body, BodyState::Taken(_))
    }

    /// Whether what the client sends waits to be read: its body by somebody else, or more requests than are read ahead.
    pub(super) fn is_held_up(&self) -> bool {
        self.is_being_read() || self.has_full_buffer()
    }

    fn has_full_buffer(&self) -> bool {
        self.unread.bytes.len() >= MOST_AHEAD
    }

    /// Waits until the client ends its side, or is gone. It may send further requests before.
    pub(super) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_ended {
            if matches!(self.body, BodyState::Taken(_)) {
                self.waiting = Some(context.waker().clone());
                return Poll::Pending;
            }
            if !self.discard(context) && matches!(self.body, BodyState::Abandoned(_)) {
                return Poll::Pending;
            }
            // What is behind that is read when its turn has come.
            if self.has_full_buffer() {
                return if self.stream.is_ended() {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            let mut space = [const { MaybeUninit::uninit() }; 512];
            let mut part = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut part));
            self.is_ended = match read {
                Ok(()) => part.filled().is_empty(),
                // TLS was not ended, but the connection was.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => true,
                Err(error) => return Poll::Ready(Err(error)),
            };
            self.unread.bytes.extend_from_slice(part.filled());
        }
        Poll::Ready(Ok(()))
    }

    /// Takes off what nobody wants of a body, as far as it is there. Whether another request may follow then.
    pub(super) fn discard(&mut self, context: &mut Context<'_>) -> bool {
        let rest = match &mut self.body {
            BodyState::Abandoned(rest) => rest,
            BodyState::Over | BodyState::Taken(_) => return true,
            BodyState::Broken => return false,
        };
        while *rest != Rest::Nothing {
            match self.unread.poll_frame(&mut self.stream, rest, context) {
                Poll::Ready(Some(Err(_))) => {
                    self.body = BodyState::Broken;
                    return false;
                }
                Poll::Ready(_) => {}
                Poll::Pending => return false,
            }
        }
        self.body = BodyState::Over;
        true
    }

    /// Waits until the whole of the body has come, as long as somebody reads it. Whether another request may follow
    /// then. `moved` is told how far it has come.
    pub(super) fn poll_body_over(&mut self, moved: &mut u64, context: &mut Context<'_>) -> Poll<bool> {
        match self.body {
            BodyState::Over => Poll::Ready(true),
            BodyState::Abandoned(_) | BodyState::Broken => Poll::Ready(self.discard(context)),
            BodyState::Taken(parts) => {
                *moved = parts;
                self.waiting = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Reads and forgets what comes, to the end: of what is no request not more than `left`.
    pub(super) fn poll_drain(&mut self, left: &mut usize, context: &mut Context<'_>) -> Poll<()> {
        let is_readable = self.discard(context);
        if !is_readable && !matches!(self.body, BodyState::Broken) {
            return Poll::Pending;
        }
        let mut space = [const { MaybeUninit::uninit() }; 4096];
        while !self.is_ended && (is_readable || *left > 0) {
            let mut part = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut part));
            self.is_ended = read.is_err() || part.filled().is_empty();
            *left = left.saturating_sub(part.filled().len());
        }
        Poll::Ready(())
    }

    /// Waits no longer for who reads the body.
    pub(super) fn end_reading(&mut self) {
        if matches!(self.body, BodyState::Taken(_)) {
            self.break_body();
        }
    }

    /// Reads nothing any more as HTTP. Who still reads the body hears that it broke off.
    pub(super) fn break_body(&mut self) {
        self.body = BodyState::Broken;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// What is spoken on behind an answer that leaves HTTP.
    pub(super) fn into_tunnel(self) -> Box<dyn Stream> {
        tunnel(self.stream, &self.unread)
    }

    fn leave_body(&mut self, rest: Rest) {
        if matches!(self.body, BodyState::Taken(_)) {
            self.body = match rest {
                Rest::Nothing => BodyState::Over,
                rest => BodyState::Abandoned(rest),
            };
        }
        self.reader = None;
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

/// The body of a client's request. Until it is over, or dropped, nothing behind it is read.
pub(crate) struct ClientBody {
    wire: Wire,
    rest: Rest,
    /// To be told that the body is wanted.
    continuing: Option<InterimSender>,
}

impl ClientBody {
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        if self.rest == Rest::Nothing {
            return Poll::Ready(None);
        }
        let mut wire = self.wire.lock();
        let BodyState::Taken(parts) = wire.body else {
            return Poll::Ready(Some(Err(Http1Error::Incomplete)));
        };
        let Inner { stream, unread, .. } = &mut *wire;
        // Who has sent some of it does not wait for that (RFC 9110 10.1.1).
        if let Some(continuing) = self.continuing.take_if(|_| unread.bytes.is_empty()) {
            continuing.send(StatusCode::CONTINUE, &HeaderMap::new());
        }
        let Poll::Ready(frame) = unread.poll_frame(stream, &mut self.rest, context) else {
            wire.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        self.continuing = None;
        wire.body = match frame {
            Some(Err(_)) => BodyState::Broken,
            _ => BodyState::Taken(parts + 1),
        };
        if self.rest == Rest::Nothing {
            wire.leave_body(Rest::Nothing);
        }
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.rest == Rest::Nothing
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.rest.size_hint()
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if self.rest != Rest::Nothing {
            self.wire.lock().leave_body(self.rest);
        }
    }
}
