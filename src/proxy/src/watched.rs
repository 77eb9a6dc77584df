use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::framing::{Framing, Oddity};
use crate::half_closed::HalfClosed;
use crate::interim::Interim;
use crate::patience::Patience;

/// A client's HTTP/1 connection on which no request comes through that two programs could see end at
/// different places: one with a length and a coding, with two codings, or with lines that do not end in
/// CR LF (RFC 9112 2.2, 6.3 and 11.2). Nor one with a fragment, which some take for a part of the path
/// (RFC 9112 3.2).
///
/// hyper would read such a request in one way and hide the other. Here a byte of it is spoilt instead,
/// so that hyper refuses it with 400 and closes the connection.
///
/// Interim responses go out when hyper flushes: then it has nothing of an earlier answer left.
pub(crate) struct Watched<S> {
    stream: S,
    framing: Framing,
    progress: Arc<Progress>,
    /// Nothing was there when it was last asked.
    is_drained: bool,
    /// So many exchanges are answered, and the answers written.
    flushed: u64,
    interim: Interim,
    unwritten: BytesMut,
    limits: Limits,
    /// While a head is under way, with the number of those before it.
    head: Option<(u64, Patience)>,
    /// So many bytes have been sent.
    sent: u64,
    half_closed: Option<HalfClosed>,
    /// Since when the client takes nothing.
    stall: Patience,
}

/// How long a client may take.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// For the head of a request, from its first byte on.
    pub(crate) head: Duration,
    /// To take anything of an answer.
    pub(crate) stall: Duration,
}

/// What the answers to a client and the connection they go out on tell each other.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// So many exchanges have begun.
    begun: AtomicU64,
    /// Of so many the answer has been taken to its end.
    answered: AtomicU64,
    /// So many answers have begun.
    heads: AtomicU64,
    /// Of a request a part has come that is not the whole.
    is_in_request: AtomicBool,
    /// An answer ended before its end.
    is_broken: AtomicBool,
    has_left_http: AtomicBool,
    rests: AtomicBool,
    /// The numbers of the requests that are not what hyper takes them for, in order.
    oddities: Mutex<VecDeque<(u64, Oddity)>>,
    has_oddities: AtomicBool,
}

impl Progress {
    /// The number of the exchange that begins.
    pub(crate) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// To be asked once, and of one request after the other.
    pub(crate) fn oddity(&self, number: u64) -> Option<Oddity> {
        if !self.has_oddities.load(Ordering::Acquire) {
            return None;
        }
        let mut oddities = self.oddities.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, oddity) = oddities.pop_front_if(|(first, _)| *first == number)?;
        self.has_oddities.store(!oddities.is_empty(), Ordering::Release);
        Some(oddity)
    }

    fn tell(&self, new: impl Iterator<Item = (u64, Oddity)>) {
        let mut oddities = self.oddities.lock().unwrap_or_else(PoisonError::into_inner);
        oddities.extend(new);
        self.has_oddities.store(!oddities.is_empty(), Ordering::Release);
    }

    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// The answer to the exchange begins.
    pub(crate) fn answer(&self) {
        self.heads.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether more of a request is to come.
    pub(crate) fn is_in_request(&self) -> bool {
        self.is_in_request.load(Ordering::Acquire)
    }

    fn waits_for_answer(&self) -> bool {
        self.heads.load(Ordering::Acquire) < self.begun()
    }

    /// The connection has to end so that the client sees that something is missing.
    pub(crate) fn break_off(&self) {
        self.is_broken.store(true, Ordering::Release);
    }

    fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) {
        self.answered.fetch_add(1, Ordering::AcqRel);
    }

    /// From now on nothing is watched.
    pub(crate) fn leave_http(&self) {
        self.has_left_http.store(true, Ordering::Release);
    }

    fn has_left_http(&self) -> bool {
        self.has_left_http.load(Ordering::Acquire)
    }

    /// Whether the connection stands between two exchanges: all answers are written, and not a byte of a
    /// further request has come.
    pub(crate) fn rests(&self) -> bool {
        self.rests.load(Ordering::Acquire)
    }
}

/// What HTTP does not know of the connection it is spoken on.
pub(crate) trait Transport {
    /// Tells without a buffer that there is something to read.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Sees to it that the end of the connection does not look like an end of what was sent.
    fn break_off(&self);
}

impl Transport for TcpStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn break_off(&self) {
        if let Err(error) = self.set_zero_linger() {
            debug!(%error, "a connection cannot be reset");
        }
    }
}

impl Transport for Box<TlsStream<TcpStream>> {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_ref().0.poll_read_ready(context)
    }

    /// Without a close_notify the client knows (RFC 8446 6.1).
    fn break_off(&self) {}
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, progress: Arc<Progress>, interim: Interim, limits: Limits) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            progress,
            is_drained: false,
            flushed: 0,
            interim,
            unwritten: BytesMut::new(),
            limits,
            head: None,
            sent: 0,
            half_closed: None,
            stall: Patience::default(),
        }
    }

    fn tell_oddities(&mut self) {
        let new = self.framing.new_oddities();
        if new.len() > 0 {
            self.progress.tell(new);
        }
    }

    fn tell_rest(&self) {
        let progress = &self.progress;
        let is_between = self.framing.is_between_requests();
        let rests =
            self.is_drained && self.flushed == progress.begun() && is_between && !progress.has_left_http();
        progress.is_in_request.store(!is_between, Ordering::Release);
        progress.rests.store(rests, Ordering::Release);
    }
}

impl<S> Watched<S> {
    /// Whether the client has ended its side behind a whole request that has not been answered.
    fn is_end_of_client(&self, read: &Poll<io::Result<()>>, before: usize, buffer: &ReadBuf<'_>) -> bool {
        let is_end = match read {
            Poll::Ready(Ok(())) => buffer.filled().len() == before && buffer.remaining() > 0,
            // TLS was not ended, but the connection was.
            Poll::Ready(Err(error)) => error.kind() == io::ErrorKind::UnexpectedEof,
            Poll::Pending => false,
        };
        is_end
            && self.framing.is_between_requests()
            && self.flushed < self.framing.requests()
            && !self.progress.has_left_http()
    }

    /// Ready when a head that is under way takes too long. Most come whole and cost no timer.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.framing.is_in_head() {
            self.head = None;
            return Poll::Pending;
        }
        let (number, limit) = (self.framing.heads(), self.limits.head);
        self.head.take_if(|(head, _)| *head != number);
        let (_, patience) = self.head.get_or_insert_with(|| (number, Patience::default()));
        let late = patience.poll(limit, context);
        late.map(|()| io::ErrorKind::TimedOut.into())
    }

    /// Holds the end of a client back until all its requests are answered, or it is gone. What cannot be asked is
    /// taken for gone: who knows no interim responses, and who is in the midst of an answer that stands still.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.flushed < self.framing.requests()
            && let Some(half_closed) = &mut self.half_closed
        {
            let has_moved = ready!(half_closed.poll_look(self.sent, context));
            let is_reached = has_moved || (self.progress.waits_for_answer() && self.interim.ask());
            if !is_reached {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Transport> Watched<S> {
    /// Waits until there is something to read, an end or an error included.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.stream.poll_readable(context)).await
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// What came of a write: an error if the client has taken nothing for too long.
    fn watch_stall<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall.renew();
            return written;
        }
        let stalled = self.stall.poll(self.limits.stall, context);
        stalled.map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn count(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.sent += *bytes as u64;
        }
    }

    fn poll_write_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.unwritten.is_empty() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.unwritten))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.unwritten.advance(written);
            }
            match self.interim.take(context.waker()) {
                Some(response) => response.write_to(&mut self.unwritten),
                None => break,
            }
        }
        self.interim.written();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.half_closed.is_some() {
            return self.poll_end(context);
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.is_end_of_client(&read, before, buffer) {
            self.half_closed = Some(HalfClosed::new(self.sent));
            return self.poll_end(context);
        }
        self.is_drained = read.is_pending();
        if self.progress.has_left_http() {
            return read;
        }
        self.framing.inspect(&mut buffer.filled_mut()[before..]);
        self.tell_oddities();
        self.tell_rest();
        if self.is_drained {
            return self.poll_late(context).map(Err);
        }
        read
    }
}

impl<S: AsyncWrite + Transport + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(&written);
        self.watch_stall(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.count(&written);
        self.watch_stall(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = self.poll_write_interim(context);
        ready!(self.watch_stall(written, context))?;
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        ready!(self.watch_stall(flushed, context))?;
        if self.progress.is_broken() {
            self.stream.break_off();
        }
        self.flushed = self.progress.answered.load(Ordering::Acquire);
        self.tell_rest();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.framing.end();
        self.tell_rest();
        if self.progress.is_broken() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
