use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;

use crate::body::RequestBodyError;
use crate::http1::{AnswerBody, ClientBody, Http1Connection, Http1Error, Stream};
use crate::http2::{Http2Body, Http2Error, Http2Stream};
use crate::message_length::AmbiguousLength;

/// What the other side sends behind the head of its message.
pub(crate) enum ReceivedBody {
    /// Nothing: a request without a body, or for a tunnel, which opens with the answer.
    None,
    /// An upstream's side of a tunnel, which is open.
    Tunnel(Http2Stream),
    Http2(Http2Body),
    /// Of a client, in HTTP/1.
    Client(ClientBody),
    /// Of an upstream, in HTTP/1.
    Answer(AnswerBody),
}

/// Why an exchange with the other side ends before its end.
#[derive(Debug, Error)]
pub(crate) enum PeerError {
    #[error(transparent)]
    Http1(#[from] Http1Error),
    #[error(transparent)]
    Http2(#[from] Http2Error),
    #[error(transparent)]
    Length(#[from] AmbiguousLength),
    #[error("the request cannot be written in HTTP/2")]
    Request(#[from] http::Error),
    #[error("the request's body was not sent to its end")]
    RequestBody(#[source] Box<RequestBodyError>),
}

impl PeerError {
    /// Whether the other side said what is not HTTP: it is there, and would say it again.
    pub(crate) fn is_nonsense(&self) -> bool {
        match self {
            Self::Http2(error) => error.is_violation(),
            Self::Http1(error) => error.is_nonsense(),
            Self::Length(_) => true,
            Self::Request(_) | Self::RequestBody(_) => false,
        }
    }

    /// Whether it says nothing of how the other side is: one answer has no clear end.
    pub(crate) fn is_about_one_answer(&self) -> bool {
        matches!(self, Self::Length(_) | Self::Http1(Http1Error::Length(_)))
    }

    /// Whether what broke off was the client, in the middle of its request.
    pub(crate) fn is_of_client(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_of_client(),
            Self::RequestBody(error) => matches!(**error, RequestBodyError::Client(_)),
            _ => false,
        }
    }

    /// Whether the other side has said that it did nothing of what was asked (RFC 9113 8.7).
    pub(crate) fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Http2(error) if error.is_unprocessed())
    }
}

impl ReceivedBody {
    /// Whether the sender has announced that it sends on. A stream of HTTP/2 without a length may be a
    /// conversation, in which it only speaks when it has something to say.
    pub(crate) fn is_owed(&self) -> bool {
        match self {
            Self::None | Self::Tunnel(_) | Self::Answer(_) => false,
            Self::Client(_) => true,
            Self::Http2(body) => body.has_length(),
        }
    }

    /// The connection of an upstream's answer that is over, if a further exchange may follow.
    pub(crate) fn take_connection(&mut self) -> Option<Box<Http1Connection>> {
        match self {
            Self::Answer(body) => body.take_connection(),
            _ => None,
        }
    }

    /// An upstream that has left HTTP/1.
    pub(crate) fn into_tunnel(self) -> Option<Box<dyn Stream>> {
        match self {
            Self::Answer(body) => body.into_tunnel(),
            _ => None,
        }
    }
}

impl Body for ReceivedBody {
    type Data = Bytes;
    type Error = PeerError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
        match self.get_mut() {
            Self::None | Self::Tunnel(_) => Poll::Ready(None),
            Self::Client(body) => {
                let frame = ready!(body.poll_frame(context));
                Poll::Ready(frame.map(|frame| Ok(frame?)))
            }
            Self::Http2(body) => {
                let frame = ready!(body.poll_frame(context));
                Poll::Ready(frame.map(|frame| Ok(frame?)))
            }
            Self::Answer(body) => {
                let frame = ready!(body.poll_frame(context));
                Poll::Ready(frame.map(|frame| Ok(frame?)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None | Self::Tunnel(_) => true,
            Self::Client(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Answer(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None | Self::Tunnel(_) => SizeHint::with_exact(0),
            Self::Client(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Answer(body) => body.size_hint(),
        }
    }
}
