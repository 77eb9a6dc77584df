use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Who asks for so much at once has much to come: rustls does in the middle of a large record.
const LARGE: usize = 8 * 1024;
/// What is read then: several records.
const AHEAD: usize = 64 * 1024;

/// A connection of which more is read at once than rustls asks for, which is never more than one record.
pub(crate) struct ReadAhead<S> {
    stream: S,
    /// Empty, and no room taken, but in the middle of what is large.
    unread: BytesMut,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(stream: S) -> Self {
        let unread = BytesMut::new();
        Self { stream, unread }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, unread } = self.get_mut();
        if unread.is_empty() {
            if buffer.remaining() < LARGE {
                return Pin::new(stream).poll_read(context, buffer);
            }
            unread.reserve(AHEAD);
            let read = poll_read_buf(Pin::new(stream), context, unread);
            if !matches!(read, Poll::Ready(Ok(1..))) {
                *unread = BytesMut::new();
            }
            ready!(read)?;
        }
        let length = unread.len().min(buffer.remaining());
        buffer.put_slice(&unread[..length]);
        unread.advance(length);
        if unread.is_empty() {
            *unread = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match parts {
            // The system takes one part faster if it is not told of a list.
            [part] => self.poll_write(context, part),
            _ => Pin::new(&mut self.stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_read_ahead_comes_in_its_order_and_then_the_end() {
        let (mut theirs, ours) = duplex(2 * AHEAD);
        let sent: Vec<u8> = (0..AHEAD + LARGE).map(|byte| (byte % 251) as u8).collect();
        theirs.write_all(&sent).await.unwrap();
        drop(theirs);
        let mut stream = ReadAhead::new(ours);
        let mut received = vec![0; LARGE];
        stream.read_exact(&mut received).await.unwrap();
        assert_eq!(stream.unread.len(), AHEAD - LARGE);
        let mut few = [0; 10];
        stream.read_exact(&mut few).await.unwrap();
        received.extend(few);
        stream.read_to_end(&mut received).await.unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn who_reads_little_or_waits_has_no_room_for_more() {
        let (mut theirs, ours) = duplex(2 * AHEAD);
        let mut stream = ReadAhead::new(ours);
        theirs.write_all(&[1; LARGE]).await.unwrap();
        stream.read_exact(&mut [0; LARGE / 2]).await.unwrap();
        assert_eq!(stream.unread.capacity(), 0);
        stream.read_exact(&mut [0; LARGE / 2]).await.unwrap();
        let mut room = [0; LARGE];
        let waits = tokio::time::timeout(std::time::Duration::ZERO, stream.read(&mut room));
        assert!(waits.await.is_err());
        assert_eq!(stream.unread.capacity(), 0);
        theirs.write_all(&[2; LARGE]).await.unwrap();
        stream.read_exact(&mut room).await.unwrap();
        assert_eq!((room, stream.unread.capacity()), ([2; LARGE], 0));
    }
}
