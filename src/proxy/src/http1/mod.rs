//! HTTP/1.1 towards an upstream (RFC 9112).
//!
//! Nothing here runs by itself: who waits for an answer, or for more of it, drives the connection. An exchange
//! costs no task and no channel, and the connection comes back with the end of the answer.

mod answer;
mod connection;
mod head;
mod request;
mod rest;

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use self::answer::AnswerBody;
pub(crate) use self::connection::Http1Connection;
use crate::body::RequestBodyError;
use crate::message_length::AmbiguousLength;

const END_OF_LINE: &[u8] = b"\r\n";
/// Fields before a body, or behind it, may take so many bytes.
const MAX_HEAD: usize = 256 * 1024;

/// What HTTP is spoken on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why an upstream's answer does not come, or ends before its end.
#[derive(Debug, Error)]
pub(crate) enum Http1Error {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the connection was closed before an answer came")]
    Closed,
    #[error("the connection was closed in the middle of the answer")]
    Incomplete,
    #[error("the answer is not written in HTTP/1")]
    NotHttp1(#[from] httparse::Error),
    #[error("the answer has more than {MAX_HEAD} bytes of fields")]
    HeadTooLarge,
    #[error("the answer holds a chunk that is none")]
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
