use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::Request;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::Http2Error;
use super::frame::{
    CONTINUATION, END_HEADERS, END_STREAM, FrameHead, HEAD, HEADERS, MAX_PAYLOAD, PREFACE, Reason, SETTINGS,
    Violation,
};
use super::handles::{Incoming, Outgoing};
use super::head::Fields;
use super::hpack::Decoder;
use super::output::Output;
use super::settings::OwnSettings;
use super::state::{Role, SMALL_WRITE, State, Streams};

/// How much is read at once: a record of TLS.
const READ: usize = 16 * 1024;
/// A header block comes in no more frames, so that one that never ends is noticed.
const MAX_BLOCK_FRAMES: usize = 128;

/// How long the other side may take to hear the last of it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A request that has come, and what it is answered by.
pub(crate) type Received = (Request<Incoming>, Outgoing);

/// One connection: reads and writes frames, as long as it is polled.
pub(crate) struct Connection<S> {
    stream: S,
    streams: Streams,
    max_header_bytes: u32,
    decoder: Decoder,
    unread: BytesMut,
    writing: Output,
    /// What the other side has to begin with has not come.
    awaits_preface: bool,
    awaits_settings: bool,
    block: Option<Block>,
}

/// A header block on its way.
struct Block {
    stream: u32,
    is_last: bool,
    fragments: BytesMut,
    frames: usize,
    depends_on_itself: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S, role: Role, settings: OwnSettings, window: u32) -> Self {
        Self {
            stream,
            streams: Streams::new(role, settings, window),
            max_header_bytes: settings.max_header_bytes,
            decoder: Decoder::new(),
            unread: BytesMut::new(),
            writing: Output::new(SMALL_WRITE),
            awaits_preface: role == Role::Server,
            awaits_settings: true,
            block: None,
        }
    }

    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.streams.lock()
    }

    /// The next request; `None` when the connection is over, which is still to be closed.
    pub(crate) fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Received, Http2Error>>> {
        self.lock().register(context.waker());
        loop {
            let received = self.poll_read(context);
            let Err(error) = received else {
                if let Ok(Some(received)) = received {
                    return Poll::Ready(Some(Ok(received)));
                }
                match self.poll_write(context) {
                    Poll::Ready(Err(error)) => return self.fail(error.into()),
                    Poll::Ready(Ok(())) if self.lock().is_over() => {
                        self.lock().fail(&Http2Error::Over);
                        return Poll::Ready(None);
                    }
                    // What could not be read before has its turn now.
                    Poll::Ready(Ok(())) if self.has_frame() => continue,
                    _ => return Poll::Pending,
                }
            };
            return self.fail(error);
        }
    }

    fn fail<T>(&mut self, error: Http2Error) -> Poll<Option<Result<T, Http2Error>>> {
        self.lock().fail(&error);
        Poll::Ready(Some(Err(error)))
    }

    /// Sends what is left to be sent, and takes what comes, until the other side has closed as well or has had the time
    /// to: with unread bytes the system would take back what it has not delivered.
    pub(crate) async fn close(mut self) {
        let _ = timeout(LAST_WORDS, self.send_and_drain()).await;
    }

    async fn send_and_drain(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_write(context)).await?;
        self.stream.shutdown().await?;
        let mut space = [0; 4096];
        while self.stream.read(&mut space).await? > 0 {}
        Ok(())
    }

    /// Takes frames until one brings a request, or no more are there, or their answers have to be written first.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Result<Option<Received>, Http2Error> {
        loop {
            while self.lock().takes_more()
                && let Some((head, payload)) = self.next_frame()?
            {
                if let Some(received) = self.receive(head, payload)? {
                    return Ok(Some(received));
                }
            }
            if !self.lock().takes_more() {
                return Ok(None);
            }
            self.unread.reserve(READ);
            match poll_read_buf(Pin::new(&mut self.stream), context, &mut self.unread) {
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Poll::Ready(read) => read.map(drop)?,
                Poll::Pending => {
                    if self.unread.is_empty() {
                        self.unread = BytesMut::new();
                    }
                    return Ok(None);
                }
            }
        }
    }

    fn has_frame(&self) -> bool {
        FrameHead::read(&self.unread).is_some_and(|head| self.unread.len() >= HEAD + head.length)
    }

    /// `None` if not all of it is there.
    fn next_frame(&mut self) -> Result<Option<(FrameHead, BytesMut)>, Violation> {
        if self.awaits_preface {
            let length = self.unread.len().min(PREFACE.len());
            if self.unread[..length] != PREFACE[..length] {
                return Err(Violation::protocol("no preface"));
            }
            if length < PREFACE.len() {
                return Ok(None);
            }
            self.unread.advance(length);
            self.awaits_preface = false;
        }
        let Some(head) = FrameHead::read(&self.unread) else {
            return Ok(None);
        };
        if head.length > MAX_PAYLOAD {
            return Err(Violation::frame_size("a frame longer than is taken"));
        }
        if self.unread.len() < HEAD + head.length {
            return Ok(None);
        }
        self.unread.advance(HEAD);
        Ok(Some((head, self.unread.split_to(head.length))))
    }

    fn receive(&mut self, head: FrameHead, payload: BytesMut) -> Result<Option<Received>, Violation> {
        if std::mem::replace(&mut self.awaits_settings, false) && (head.kind, head.flags & 1) != (SETTINGS, 0)
        {
            return Err(Violation::protocol("something else before the settings"));
        }
        let block = match (self.block.take(), head.kind) {
            (None, HEADERS) => begin_block(head, payload)?,
            (Some(block), CONTINUATION) if block.stream == head.stream => {
                continue_block(block, &payload, self.max_header_bytes)?
            }
            (Some(_), _) => return Err(Violation::protocol("something else in a header block")),
            (None, CONTINUATION) => return Err(Violation::protocol("the rest of no header block")),
            (None, _) => {
                let mut state = self.lock();
                state.receive(head, payload)?;
                return check(&state).map(|()| None);
            }
        };
        if !head.has(END_HEADERS) {
            self.block = Some(block);
            return Ok(None);
        }
        self.receive_block(&block)
    }

    fn receive_block(&mut self, block: &Block) -> Result<Option<Received>, Violation> {
        let mut fields = Fields::new(self.max_header_bytes);
        if block.depends_on_itself {
            fields.refuse("a stream that depends on itself");
        }
        let decoded = self
            .decoder
            .decode(&block.fragments, |field, size| fields.add(field, size));
        if decoded.is_err() {
            return Err(Violation::new(
                Reason::COMPRESSION_ERROR,
                "fields that cannot be unpacked",
            ));
        }
        let mut state = self.lock();
        let request = state.receive_block(block.stream, block.is_last, fields)?;
        check(&state)?;
        drop(state);
        Ok(request.map(|request| {
            let incoming = Incoming::new(&self.streams, block.stream);
            let outgoing = Outgoing::new(&self.streams, block.stream);
            (request.map(|()| incoming), outgoing)
        }))
    }

    /// Ready when all that there is has been written.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.writing.is_empty() {
                self.writing.let_go();
                self.streams.lock().take_out(&mut self.writing);
                if self.writing.is_empty() {
                    return Pin::new(&mut self.stream).poll_flush(context);
                }
            }
            let stream = Pin::new(&mut self.stream);
            let written = if self.writing.chunk().len() == self.writing.remaining() {
                // The system takes one part faster if it is not told of a list.
                let written = ready!(stream.poll_write(context, self.writing.chunk()))?;
                self.writing.advance(written);
                written
            } else {
                ready!(poll_write_buf(stream, context, &mut self.writing))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
    }
}

fn check(state: &State) -> Result<(), Violation> {
    match state.tally.is_too_much() {
        true => Err(Violation::new(
            Reason::ENHANCE_YOUR_CALM,
            "exchanges begun to be given up",
        )),
        false => Ok(()),
    }
}

fn begin_block(head: FrameHead, mut payload: BytesMut) -> Result<Block, Violation> {
    if head.stream == 0 {
        return Err(Violation::protocol("fields of no stream"));
    }
    head.strip_padding(&mut payload)?;
    let dependency = head.strip_priority(&mut payload)?;
    Ok(Block {
        stream: head.stream,
        is_last: head.has(END_STREAM),
        fragments: payload,
        frames: 1,
        depends_on_itself: dependency == Some(head.stream),
    })
}

fn continue_block(mut block: Block, payload: &[u8], max_header_bytes: u32) -> Result<Block, Violation> {
    block.frames += 1;
    block.fragments.extend_from_slice(payload);
    // Packed they are rarely larger than unpacked.
    if block.frames > MAX_BLOCK_FRAMES || block.fragments.len() > 2 * max_header_bytes as usize {
        return Err(Violation::new(
            Reason::ENHANCE_YOUR_CALM,
            "a header block that does not end",
        ));
    }
    Ok(block)
}

impl From<io::Error> for Http2Error {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
