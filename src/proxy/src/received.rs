use std::error::Error;
use std::iter::successors;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

use crate::body::RequestBodyError;
use crate::http2_stream::{Http2Body, Http2Stream};

/// What the other side sends behind the head of its message.
pub(crate) enum ReceivedBody {
    /// A client's side of a tunnel, which opens with the answer.
    None,
    /// An upstream's side of a tunnel, which is open.
    Tunnel(Http2Stream),
    Http1(Incoming),
    Http2(Http2Body),
}

/// Why an exchange with the other side ends before its end.
#[derive(Debug, Error)]
pub(crate) enum PeerError {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl PeerError {
    /// Whether the other side said what is not HTTP: it is there, and would say it again.
    pub(crate) fn is_nonsense(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_parse(),
            Self::Http2(error) => error.is_library(),
        }
    }

    /// Whether what broke off was the client, in the middle of its request.
    pub(crate) fn is_of_client(&self) -> bool {
        let causes = successors(Some(self as &(dyn Error + 'static)), |error| (*error).source());
        let mut causes = causes.filter_map(|cause| cause.downcast_ref());
        causes.any(|cause| matches!(cause, RequestBodyError::Client(_)))
    }
}

impl ReceivedBody {
    /// Whether the sender has announced that it sends on. A stream of HTTP/2 without a length may be a
    /// conversation, in which it only speaks when it has something to say.
    pub(crate) fn is_owed(&self) -> bool {
        match self {
            Self::None | Self::Tunnel(_) => false,
            Self::Http1(_) => true,
            Self::Http2(body) => body.has_length(),
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
            Self::Http1(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(context));
                Poll::Ready(frame.map(|frame| Ok(frame?)))
            }
            Self::Http2(body) => {
                let frame = ready!(body.poll_frame(context));
                Poll::Ready(frame.map(|frame| Ok(frame?)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None | Self::Tunnel(_) => true,
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None | Self::Tunnel(_) => SizeHint::with_exact(0),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
