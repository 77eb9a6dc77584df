use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

/// What a client sends behind the head of its request.
pub(crate) enum ClientBody {
    /// A tunnel's: what follows is no body.
    None,
    Http1(Incoming),
    Http2(Http2Body),
}

/// Why a client's body ends before its end.
#[derive(Debug, Error)]
pub(crate) enum ClientBodyError {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

pub(crate) struct Http2Body {
    stream: RecvStream,
    /// As the head declared it; h2 sees to it that it is true.
    left: Option<u64>,
    is_data_over: bool,
}

impl Http2Body {
    pub(crate) fn new(stream: RecvStream, length: Option<u64>) -> Self {
        Self {
            stream,
            left: length,
            is_data_over: false,
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.is_data_over {
            match ready!(self.stream.poll_data(context)) {
                Some(data) => return Poll::Ready(Some(self.take(data).map(Frame::data))),
                None => self.is_data_over = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(context));
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    /// Room for more is given when this was taken: a slow upstream slows its client down.
    fn take(&mut self, data: Result<Bytes, h2::Error>) -> Result<Bytes, h2::Error> {
        let data = data?;
        self.stream.flow_control().release_capacity(data.len())?;
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        Ok(data)
    }
}

impl ClientBody {
    /// Whether the client has announced that it sends on. A stream of HTTP/2 without a length may be a
    /// conversation, in which it only speaks when it has something to say.
    pub(crate) fn is_owed(&self) -> bool {
        match self {
            Self::None => false,
            Self::Http1(_) => true,
            Self::Http2(body) => body.left.is_some(),
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match self.get_mut() {
            Self::None => Poll::Ready(None),
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
            Self::None => true,
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(body) => body.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(body) => match body.left {
                Some(left) => SizeHint::with_exact(left),
                None if body.stream.is_end_stream() => SizeHint::with_exact(0),
                None => SizeHint::default(),
            },
        }
    }
}
