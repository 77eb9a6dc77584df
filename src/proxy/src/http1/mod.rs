//! HTTP/1.1 (RFC 9112), with clients and with upstreams.
//!
//! Nothing here runs by itself: who waits for an answer, or for more of it, drives the connection to the upstream. An
//! exchange costs no task and no channel, and the connection comes back with the end of the answer.

mod answer;
mod chunks;
mod connection;
mod half_closed;
mod head;
mod pieces;
mod request;
mod request_head;
mod response_head;
mod rest;
mod server;
mod unread;
mod wire;

use std::io::{self, Cursor};

use bytes::Bytes;
use futures_util::FutureExt;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, join, split};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio_rustls::server::TlsStream;
use tracing::debug;

pub(crate) use self::answer::AnswerBody;
pub(crate) use self::connection::Http1Connection;
use self::pieces::Unsent;
pub(crate) use self::server::serve;
use self::unread::Unread;
pub(crate) use self::wire::ClientBody;
use crate::body::RequestBodyError;
use crate::message_length::AmbiguousLength;
use crate::read_ahead::ReadAhead;

const END_OF_LINE: &[u8] = b"\r\n";
/// The first line of a request may take so many bytes.
const MAX_LINE: usize = 64 * 1024;
/// Fields before a body, or behind it, may take so many bytes.
const MAX_HEAD: usize = 256 * 1024;

/// What HTTP is spoken on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What a client is connected by.
pub(crate) trait Transport: Stream {
    /// Sees to it that the end of the connection does not look like an end of what was sent.
    fn break_off(&self);

    /// Whether the client has broken the connection, though there may be something unread before that.
    fn is_broken(&self) -> bool;

    /// Whether the client has ended its side, though there may be something unread before that.
    fn is_ended(&self) -> bool;
}

impl Transport for TcpStream {
    fn break_off(&self) {
        if let Err(error) = self.set_zero_linger() {
            debug!(
                error = &error as &dyn std::error::Error,
                "a connection cannot be reset"
            );
        }
    }

    fn is_broken(&self) -> bool {
        !matches!(self.take_error(), Ok(None))
    }

    fn is_ended(&self) -> bool {
        let ready = unconstrained(self.ready(Interest::READABLE)).now_or_never();
        matches!(ready, Some(Ok(ready)) if ready.is_read_closed())
    }
}

impl Transport for TlsStream<ReadAhead<TcpStream>> {
    /// Without a close_notify the client knows (RFC 8446 6.1).
    fn break_off(&self) {}

    fn is_broken(&self) -> bool {
        self.get_ref().0.get_ref().is_broken()
    }

    fn is_ended(&self) -> bool {
        self.get_ref().0.get_ref().is_ended()
    }
}

/// What is spoken on behind an answer that leaves HTTP.
fn tunnel(stream: impl Stream + 'static, unread: &Unread) -> Box<dyn Stream> {
    let (reading, writing) = split(stream);
    // A copy, mostly of nothing, and not the whole buffer for as long as the tunnel lasts.
    let unread = Cursor::new(Bytes::copy_from_slice(&unread.bytes));
    Box::new(join(AsyncReadExt::chain(unread, reading), writing))
}

/// Why a message of the other side does not come, or ends before its end.
#[derive(Debug, Error)]
pub(crate) enum Http1Error {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the connection was closed before an answer came")]
    Closed,
    #[error("the connection was closed in the middle of a message")]
    Incomplete,
    #[error("that is not HTTP/1")]
    NotHttp1(#[from] httparse::Error),
    #[error("there are too many fields before or behind the body")]
    HeadTooLarge,
    #[error("the body holds a chunk that is none")]
    Chunk,
    #[error("the answer leaves HTTP before the request is sent")]
    LeftEarly,
    #[error(transparent)]
    Length(#[from] AmbiguousLength),
    #[error("the rest of the request was not taken")]
    Stalled,
    #[error("the request's body was not sent to its end")]
    Body(#[source] Box<RequestBodyError>),
    #[error("the request's body has another length than its head says")]
    BodyLength,
}

impl From<Unsent<RequestBodyError>> for Http1Error {
    fn from(unsent: Unsent<RequestBodyError>) -> Self {
        match unsent {
            Unsent::Io(error) => Self::Io(error),
            Unsent::Body(error) => Self::Body(Box::new(error)),
            Unsent::Length => Self::BodyLength,
        }
    }
}

impl Http1Error {
    /// Whether it comes from a living upstream, which would say the same again.
    pub(crate) fn is_nonsense(&self) -> bool {
        matches!(
            self,
            Self::NotHttp1(_) | Self::HeadTooLarge | Self::Chunk | Self::LeftEarly | Self::Length(_)
        )
    }

    /// Whether what broke off was the client, in the middle of its request.
    pub(crate) fn is_of_client(&self) -> bool {
        matches!(self, Self::Body(error) if matches!(**error, RequestBodyError::Client(_)))
    }
}
