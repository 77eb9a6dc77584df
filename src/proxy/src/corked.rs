use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is kept at most: a record of TLS, which is one system call.
const CAPACITY: usize = 16 * 1024;

/// A stream that keeps what is written until its [`Outlet`] lets it go, however often it is flushed: h2 flushes
/// after every DATA frame.
pub(crate) struct Corked<S>(Arc<Mutex<Cork<S>>>);

/// The other handle of a [`Corked`] stream.
pub(crate) struct Outlet<S>(Arc<Mutex<Cork<S>>>);

struct Cork<S> {
    stream: S,
    kept: BytesMut,
}

impl<S> Corked<S> {
    pub(crate) fn new(stream: S) -> (Self, Outlet<S>) {
        let kept = BytesMut::new();
        let cork = Arc::new(Mutex::new(Cork { stream, kept }));
        (Self(cork.clone()), Outlet(cork))
    }
}

/// Nobody panics who holds it.
fn lock<S>(cork: &Mutex<Cork<S>>) -> MutexGuard<'_, Cork<S>> {
    cork.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncWrite + Unpin> Outlet<S> {
    /// Ready when everything that was kept has been written.
    pub(crate) fn poll_let_go(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_let_go(context)
    }
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    fn stream(&mut self) -> Pin<&mut S> {
        Pin::new(&mut self.stream)
    }

    fn poll_let_go(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(context))?;
        self.stream().poll_flush(context)
    }

    fn poll_empty(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.kept))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.advance(written);
        }
        self.kept = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Keeps what there is room for; more than could ever be kept goes through.
    fn poll_write(&mut self, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = parts.iter().map(|part| part.len()).sum();
        if self.kept.len() + length > CAPACITY {
            ready!(self.poll_empty(context))?;
        }
        if length > CAPACITY {
            return self.stream().poll_write_vectored(context, parts);
        }
        if self.kept.is_empty() {
            self.kept.reserve(CAPACITY);
        }
        for part in parts {
            self.kept.extend_from_slice(part);
        }
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Leaves it to the outlet.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut cork = lock(&self.0);
        ready!(cork.poll_empty(context))?;
        cork.stream().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes so many bytes at once, and says what it was given in each write.
    struct Pieces {
        limit: usize,
        written: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    impl AsyncWrite for Pieces {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = &bytes[..bytes.len().min(self.limit)];
            self.written.lock().unwrap().push(taken.to_vec());
            Poll::Ready(Ok(taken.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    struct Bench {
        corked: Corked<Pieces>,
        outlet: Outlet<Pieces>,
        written: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    impl Bench {
        fn new(limit: usize) -> Self {
            let written = Arc::<Mutex<Vec<_>>>::default();
            let (corked, outlet) = Corked::new(Pieces {
                limit,
                written: written.clone(),
            });
            Self {
                corked,
                outlet,
                written,
            }
        }

        /// Writes and flushes.
        fn write(&mut self, bytes: &[u8]) {
            let context = &mut Context::from_waker(Waker::noop());
            let mut corked = Pin::new(&mut self.corked);
            let taken = corked.as_mut().poll_write(context, bytes);
            assert!(matches!(taken, Poll::Ready(Ok(length)) if length == bytes.len()));
            assert!(matches!(corked.poll_flush(context), Poll::Ready(Ok(()))));
        }

        fn let_go(&self) {
            let context = &mut Context::from_waker(Waker::noop());
            assert!(matches!(self.outlet.poll_let_go(context), Poll::Ready(Ok(()))));
        }

        fn written(&self) -> Vec<Vec<u8>> {
            std::mem::take(&mut self.written.lock().unwrap())
        }
    }

    #[test]
    fn what_was_written_bit_by_bit_leaves_in_one_piece_when_it_is_let_go() {
        let mut bench = Bench::new(usize::MAX);
        bench.write(b"one");
        bench.write(b"two");
        assert!(bench.written().is_empty());
        bench.let_go();
        assert_eq!(bench.written(), [b"onetwo"]);
        bench.let_go();
        assert!(bench.written().is_empty());
    }

    #[test]
    fn more_than_is_kept_goes_through_behind_what_was_there() {
        let mut bench = Bench::new(usize::MAX);
        bench.write(b"first");
        let large = vec![b'l'; CAPACITY + 1];
        bench.write(&large);
        assert_eq!(bench.written(), [b"first".to_vec(), large]);
        let half = vec![b'h'; CAPACITY / 2 + 1];
        bench.write(&half);
        bench.write(&half);
        bench.let_go();
        assert_eq!(bench.written(), [half.clone(), half]);
    }

    #[test]
    fn what_is_taken_in_parts_arrives_whole_and_once() {
        let mut bench = Bench::new(2);
        bench.write(b"abc");
        bench.write(b"de");
        bench.let_go();
        assert_eq!(bench.written(), [&b"ab"[..], b"cd", b"e"]);
    }

    #[test]
    fn the_end_lets_everything_go() {
        let mut bench = Bench::new(usize::MAX);
        bench.write(b"last words");
        let context = &mut Context::from_waker(Waker::noop());
        let ended = Pin::new(&mut bench.corked).poll_shutdown(context);
        assert!(matches!(ended, Poll::Ready(Ok(()))));
        assert_eq!(bench.written(), [b"last words"]);
    }
}
