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
    pub(super) fn new(stream: S, settings: OwnSettings, window: u32) -> Self {
        Self {
            stream,
            streams: Streams::new(settings, window),
            max_header_bytes: settings.max_header_bytes,
            decoder: Decoder::new(),
            unread: BytesMut::new(),
            writing: Output::new(SMALL_WRITE),
            awaits_preface: settings.role() == Role::Server,
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
            let read = self.poll_read(context);
            if let Poll::Ready(Ok(Some(received))) = read {
                return Poll::Ready(Some(Ok(received)));
            }
            if let Poll::Ready(Err(error)) = read {
                return self.fail(error);
            }
            match self.poll_write(context) {
                Poll::Ready(Err(error)) => return self.fail(error.into()),
                Poll::Ready(Ok(())) if self.lock().is_over() => {
                    self.lock().fail(&Http2Error::Over);
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(())) if read.is_ready() => {}
                _ => return Poll::Pending,
            }
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

    /// Takes frames until one brings a request. `None` if no more are taken before their answers are written.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Received>, Http2Error>> {
        loop {
            while self.lock().takes_more()
                && let Some((head, payload)) = self.next_frame()?
            {
                if let Some(received) = self.receive(head, payload)? {
                    return Poll::Ready(Ok(Some(received)));
                }
            }
            if !self.lock().takes_more() {
                return Poll::Ready(Ok(None));
            }
            self.unread.reserve(READ);
            match poll_read_buf(Pin::new(&mut self.stream), context, &mut self.unread) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                }
                Poll::Ready(read) => read.map(drop)?,
                Poll::Pending => {
                    if self.unread.is_empty() {
                        self.unread = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
        }
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
    match state.is_abused() {
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
    let dependency = head.strip_padding_and_priority(&mut payload)?;
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::{Buf, Bytes};
    use http::Response;
    use tokio::io::ReadBuf;

    use super::super::frame;
    use super::super::hpack::{Encoder, Pseudo};
    use super::*;

    const SETTINGS_OF_SERVER: OwnSettings = OwnSettings {
        max_streams: Some(128),
        initial_window: 1 << 20,
        max_header_bytes: 1000,
    };

    /// What a client sends, as far as it is there, and each write of the answer.
    #[derive(Default)]
    struct Wire {
        sent: BytesMut,
        is_ended: bool,
        writes: Vec<usize>,
    }

    impl AsyncRead for Wire {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.sent.is_empty() && !self.is_ended {
                return Poll::Pending;
            }
            let length = self.sent.len().min(buffer.remaining());
            buffer.put_slice(&self.sent.split_to(length));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Wire {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn connection() -> Connection<Wire> {
        let mut wire = Wire::default();
        wire.sent.extend_from_slice(PREFACE);
        frame::write(&mut wire.sent, SETTINGS, 0, 0, &[]);
        Connection::new(wire, SETTINGS_OF_SERVER, 1 << 20)
    }

    fn head() -> BytesMut {
        let mut block = BytesMut::new();
        for (name, value) in [
            (Pseudo::Method, "GET"),
            (Pseudo::Scheme, "https"),
            (Pseudo::Path, "/"),
            (Pseudo::Authority, "a.test"),
        ] {
            Encoder::new().pseudo(name, value.as_bytes(), &mut block);
        }
        block
    }

    /// All that has come, and how the connection ended if it did.
    fn accepted(connection: &mut Connection<Wire>) -> (Vec<Received>, Option<Http2Error>) {
        let context = &mut Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        loop {
            match connection.poll_accept(context) {
                Poll::Ready(Some(Ok(received))) => all.push(received),
                Poll::Ready(Some(Err(error))) => return (all, Some(error)),
                Poll::Ready(None) | Poll::Pending => return (all, None),
            }
        }
    }

    #[test]
    fn answers_that_are_there_together_leave_in_one_write() {
        let mut connection = connection();
        for id in (1..16).step_by(2) {
            frame::write_block(&mut connection.stream.sent, id, &head(), true);
        }
        let (mut all, _) = accepted(&mut connection);
        assert_eq!(all.len(), 8);
        connection.stream.writes.clear();
        for (_, outgoing) in &mut all {
            outgoing.send_head(&Response::new(()), false).unwrap();
            outgoing.send_data(Bytes::from(vec![0; SMALL_WRITE])).unwrap();
            outgoing.finish().unwrap();
        }
        accepted(&mut connection);
        let writes = &connection.stream.writes;
        assert!(
            matches!(writes[..], [length] if length > 8 * SMALL_WRITE),
            "{writes:?}"
        );
    }

    #[test]
    fn nothing_more_is_read_from_who_does_not_take_the_answers() {
        let mut connection = connection();
        let ping = [0; 8];
        for _ in 0..20_000 {
            frame::write(&mut connection.stream.sent, frame::PING, 0, 0, &ping);
        }
        let context = &mut Context::from_waker(Waker::noop());
        // As if nothing could be written.
        assert!(matches!(connection.poll_read(context), Poll::Ready(Ok(None))));
        let left = connection.stream.sent.remaining() + connection.unread.remaining();
        assert!(left > 200_000, "{left}");
        accepted(&mut connection);
        assert_eq!(
            connection.stream.sent.remaining() + connection.unread.remaining(),
            0
        );
        assert!(connection.stream.writes.iter().sum::<usize>() > 20_000 * 17);
    }

    #[test]
    fn who_waits_has_no_buffers() {
        let mut connection = connection();
        accepted(&mut connection);
        assert_eq!(connection.unread.capacity(), 0);
        let mut empty = Output::new(0);
        connection.lock().take_out(&mut empty);
        assert!(empty.is_empty());
        assert_eq!(connection.writing.tail().capacity() + empty.tail().capacity(), 0);
    }

    #[test]
    fn an_end_in_the_middle_of_all_is_seen_by_who_uses_a_stream() {
        let mut connection = connection();
        frame::write_block(&mut connection.stream.sent, 1, &head(), false);
        connection.stream.is_ended = true;
        let (mut all, error) = accepted(&mut connection);
        assert!(matches!(error, Some(Http2Error::Io(_))));
        let (request, outgoing) = &mut all[0];
        let context = &mut Context::from_waker(Waker::noop());
        let frame = request.body_mut().poll_frame(context);
        assert!(matches!(frame, Poll::Ready(Some(Err(Http2Error::Io(_))))));
        assert!(outgoing.poll_broken(context).is_ready());
    }

    #[test]
    fn what_is_no_header_block_is_the_end() {
        let begin = |flags: u8| {
            let mut bytes = BytesMut::new();
            frame::write(&mut bytes, HEADERS, flags, 1, &head());
            bytes
        };
        let further = |kind: u8, stream: u32| {
            let mut bytes = begin(0);
            frame::write(&mut bytes, kind, END_HEADERS, stream, &[]);
            bytes
        };
        let mut long = begin(0);
        for _ in 0..MAX_BLOCK_FRAMES {
            frame::write(&mut long, CONTINUATION, 0, 1, &[]);
        }
        let mut packed = BytesMut::new();
        frame::write(&mut packed, HEADERS, END_HEADERS, 1, &[0x80]);
        let mut alone = BytesMut::new();
        frame::write(&mut alone, CONTINUATION, END_HEADERS, 1, &[]);
        for (bytes, reason) in [
            (further(CONTINUATION, 3), Reason::PROTOCOL_ERROR),
            (further(frame::PING, 0), Reason::PROTOCOL_ERROR),
            (alone, Reason::PROTOCOL_ERROR),
            (long, Reason::ENHANCE_YOUR_CALM),
            (packed, Reason::COMPRESSION_ERROR),
        ] {
            let mut connection = connection();
            connection.stream.sent.unsplit(bytes);
            let (_, error) = accepted(&mut connection);
            assert!(
                matches!(&error, Some(Http2Error::Violation(violation)) if violation.reason == reason),
                "{error:?}"
            );
        }
        let mut connection = connection();
        connection.stream.sent.unsplit(further(CONTINUATION, 1));
        assert_eq!(accepted(&mut connection).0.len(), 1);
    }
}
