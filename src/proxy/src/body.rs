use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use thiserror::Error;

use crate::access_log::Accounted;
use crate::compress::Compressed;
use crate::headers::strip_trailers;
use crate::patience::Patience;
use crate::pool::Lease;
use crate::received::{PeerError, ReceivedBody};
use crate::upload::{Upload, UploadTeller};

/// What goes to the client: a page of our own, or what an upstream sends.
pub(crate) enum ReplyBody {
    Local(Full<Bytes>),
    Upstream(UpstreamBody),
    Compressed(Box<Compressed>),
    Accounted(Box<Accounted>),
}

/// Why a response ends before its end.
#[derive(Debug, Error)]
pub(crate) enum ReplyBodyError {
    #[error("the upstream broke off")]
    Upstream(#[from] PeerError),
    #[error("the upstream was silent for longer than the route allows")]
    Silent,
    #[error("the response cannot be compressed")]
    Compression(#[from] io::Error),
}

/// An upstream's body, and the connection it comes over: back to the pool at its end, closed if it
/// is dropped before.
pub(crate) struct UpstreamBody {
    incoming: ReceivedBody,
    idle_limit: Option<Duration>,
    /// While it lasts.
    silence: Patience,
    lease: Option<Lease>,
}

impl UpstreamBody {
    pub(crate) fn new(incoming: ReceivedBody, lease: Lease) -> Self {
        let mut this = Self {
            incoming,
            idle_limit: None,
            silence: Patience::default(),
            lease: Some(lease),
        };
        this.release_at_end();
        this
    }

    /// Gives up an upstream that is silent for longer than this, if there is a limit.
    pub(crate) fn silent_at_most(self, idle_limit: Option<Duration>) -> Self {
        Self { idle_limit, ..self }
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyBodyError>>> {
        let Poll::Ready(mut frame) = Pin::new(&mut self.incoming).poll_frame(context) else {
            return self.poll_silence(context).map(|error| Some(Err(error)));
        };
        self.silence.renew();
        strip_frame(&mut frame);
        match &frame {
            None => self.release(),
            Some(Ok(_)) => self.release_at_end(),
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame.map(|frame| Ok(frame?)))
    }

    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<ReplyBodyError> {
        let Some(limit) = self.idle_limit else {
            return Poll::Pending;
        };
        self.silence.poll(limit, context).map(|()| ReplyBodyError::Silent)
    }

    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.end(self.incoming.take_connection());
        }
    }
}

impl ReplyBody {
    pub(crate) fn empty() -> Self {
        Self::Local(Full::default())
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = ReplyBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyBodyError>>> {
        match self.get_mut() {
            Self::Local(page) => {
                let frame = ready!(Pin::new(page).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Self::Upstream(upstream) => upstream.poll_frame(context),
            Self::Compressed(compressed) => compressed.poll_frame(context),
            Self::Accounted(accounted) => accounted.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(page) => page.is_end_stream(),
            Self::Upstream(upstream) => upstream.incoming.is_end_stream(),
            Self::Compressed(compressed) => compressed.is_end_stream(),
            Self::Accounted(accounted) => accounted.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(page) => page.size_hint(),
            Self::Upstream(upstream) => upstream.incoming.size_hint(),
            Self::Compressed(_) => SizeHint::default(),
            Self::Accounted(accounted) => accounted.body.size_hint(),
        }
    }
}

/// What goes to an upstream: the client's body, not asked for before `gate` opens and not more than
/// `allowance` of it, and how it gets on.
pub(crate) struct RequestBody {
    incoming: Option<ReceivedBody>,
    allowance: Option<Allowance>,
    gate: Option<BoxFuture<'static, ()>>,
    teller: Option<UploadTeller>,
}

impl RequestBody {
    /// With what tells how the body gets on, if there is one.
    pub(crate) fn new(
        incoming: ReceivedBody,
        gate: Option<BoxFuture<'static, ()>>,
        allowance: Option<Allowance>,
    ) -> (Self, Option<Upload>) {
        let (upload, teller) = (!incoming.is_end_stream())
            .then(|| Upload::new(incoming.is_owed()))
            .unzip();
        let body = Self {
            incoming: Some(incoming),
            allowance,
            gate,
            teller,
        };
        (body, upload)
    }

    fn tell(&self, what: impl FnOnce(&UploadTeller)) {
        if let Some(teller) = &self.teller {
            what(teller);
        }
    }

    /// Whether it waits for the upstream to ask for it.
    pub(crate) fn is_held_back(&self) -> bool {
        self.gate.is_some()
    }

    pub(crate) fn empty() -> Self {
        Self {
            incoming: None,
            allowance: None,
            gate: None,
            teller: None,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(context));
            self.gate = None;
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let Poll::Ready(mut frame) = Pin::new(&mut *incoming).poll_frame(context) else {
            self.tell(UploadTeller::waits_for_client);
            return Poll::Pending;
        };
        strip_frame(&mut frame);
        let is_over = frame.is_none() || incoming.is_end_stream();
        self.tell(UploadTeller::moved);
        if is_over {
            self.teller = None;
        }
        if let (Some(allowance), Some(Ok(frame))) = (&mut self.allowance, &frame) {
            allowance.take(frame)?;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(RequestBodyError::Client)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

fn strip_frame<E>(frame: &mut Option<Result<Frame<Bytes>, E>>) {
    if let Some(Ok(frame)) = frame
        && let Some(trailers) = frame.trailers_mut()
    {
        strip_trailers(trailers);
    }
}

/// Why a client's body ends before its end.
#[derive(Debug, Error)]
pub(crate) enum RequestBodyError {
    #[error("the client broke off")]
    Client(#[source] PeerError),
    #[error("the body is larger than the route allows")]
    TooLarge,
}

/// How much of a body is let through.
pub(crate) struct Allowance {
    left: u64,
    exceeded: Arc<AtomicBool>,
}

impl Allowance {
    /// The flag tells when the client sent more.
    pub(crate) fn new(bytes: u64) -> (Self, Arc<AtomicBool>) {
        let exceeded = Arc::new(AtomicBool::new(false));
        let this = Self {
            left: bytes,
            exceeded: exceeded.clone(),
        };
        (this, exceeded)
    }

    fn take(&mut self, frame: &Frame<Bytes>) -> Result<(), RequestBodyError> {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        let left = self.left.checked_sub(length);
        self.left = left.ok_or_else(|| {
            self.exceeded.store(true, Ordering::Relaxed);
            RequestBodyError::TooLarge
        })?;
        Ok(())
    }
}
