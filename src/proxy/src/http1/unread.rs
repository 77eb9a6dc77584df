use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use memchr::memchr;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::rest::{Rest, Step};
use super::{Http1Error, MAX_HEAD, MAX_LINE};

/// How much is read at once: enough for most messages, and more as long as the other side fills it.
const LEAST_READ: usize = 8 * 1024;
const MOST_READ: usize = 128 * 1024;

/// What came over a connection and was not looked at.
pub(super) struct Unread {
    pub(super) bytes: BytesMut,
    read_size: usize,
}

impl Default for Unread {
    fn default() -> Self {
        Self {
            bytes: BytesMut::new(),
            read_size: LEAST_READ,
        }
    }
}

impl Unread {
    /// Reads; 0 is the end. There is not much more room than is `expected`.
    pub(super) fn poll_read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        expected: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let bytes = &mut self.bytes;
        if bytes.capacity() - bytes.len() < LEAST_READ.min(expected) {
            bytes.reserve(self.read_size.min(expected));
        }
        let room = bytes.capacity() - bytes.len();
        let read = ready!(poll_read_buf(Pin::new(stream), context, bytes))?;
        if read == room {
            self.read_size = (2 * self.read_size).min(MOST_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads until a line has come to its end, or the first part of one, or more than may be. `false` is the end
    /// of all.
    pub(super) fn poll_line(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        loop {
            let before = self.bytes.len();
            if ready!(self.poll_read(stream, usize::MAX, context))? == 0 {
                return Poll::Ready(Ok(false));
            }
            let has_line = memchr(b'\n', &self.bytes[before..]).is_some();
            let exceeds = |limit| before <= limit && self.bytes.len() > limit;
            if before == 0 || has_line || exceeds(MAX_LINE) || exceeds(MAX_HEAD) {
                return Poll::Ready(Ok(true));
            }
        }
    }

    /// The next frame of a body, of which `rest` is still to come.
    pub(super) fn poll_frame(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        rest: &mut Rest,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        loop {
            match rest.step(&mut self.bytes)? {
                Step::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Step::End => return Poll::Ready(None),
                Step::More => {}
            }
            if ready!(self.poll_read(stream, rest.expected(), context))? == 0 {
                if *rest != Rest::UntilClose {
                    return Poll::Ready(Some(Err(Http1Error::Incomplete)));
                }
                *rest = Rest::Nothing;
            }
        }
    }

    /// A connection that waits for its next exchange takes no room for it.
    pub(super) fn let_go(&mut self) {
        *self = Self::default();
    }
}
