use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::rest::Rest;
use super::{Http1Connection, Http1Error, Stream};

/// Sends what is left of a request beside its answer.
pub(super) struct Upload {
    pub(super) sending: AbortOnDropHandle<Result<(), Http1Error>>,
    /// As long as the answer is not over.
    pub(super) _unanswered: oneshot::Sender<()>,
}

/// The body of an answer, and the connection it comes over. Dropped before its end, it closes that.
pub(crate) struct AnswerBody {
    /// Until it is taken.
    connection: Option<Box<Http1Connection>>,
    rest: Rest,
    /// The connection may carry a further exchange.
    stays_open: bool,
    /// The rest of the request, for as long as anybody hears of it.
    upload: Option<Upload>,
}

impl AnswerBody {
    pub(super) fn new(
        connection: Box<Http1Connection>,
        rest: Rest,
        stays_open: bool,
        upload: Option<Upload>,
    ) -> Self {
        Self {
            connection: Some(connection),
            rest,
            stays_open,
            upload,
        }
    }

    /// The connection, once the answer is over, if a further exchange may follow.
    pub(crate) fn take_connection(&mut self) -> Option<Box<Http1Connection>> {
        if !self.stays_open || !self.is_end_stream() {
            return None;
        }
        // What was said unasked would be taken for the next answer.
        let mut connection = self
            .connection
            .take_if(|connection| connection.unread.bytes.is_empty())?;
        connection.unread.let_go();
        Some(connection)
    }

    /// What is spoken on behind an answer that leaves HTTP.
    pub(crate) fn into_tunnel(mut self) -> Option<Box<dyn Stream>> {
        self.connection.take().map(|connection| connection.into_tunnel())
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(None);
        };
        let frame = connection.poll_frame(&mut self.rest, context);
        if frame.is_ready() {
            return frame;
        }
        poll_break(&mut self.upload, context).map(|broken| Some(Err(broken)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.rest == Rest::Nothing
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.rest.size_hint()
    }
}

/// Why the rest of the request was not sent. That the upstream does not want to have it is no reason to hear nothing
/// more of it.
fn poll_break(upload: &mut Option<Upload>, context: &mut Context<'_>) -> Poll<Http1Error> {
    let Some(Upload { sending, .. }) = upload else {
        return Poll::Pending;
    };
    let ended = ready!(sending.poll_unpin(context));
    *upload = None;
    match ended {
        Ok(Err(Http1Error::Io(_) | Http1Error::Stalled)) | Ok(Ok(())) | Err(_) => Poll::Pending,
        Ok(Err(error)) => Poll::Ready(error),
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // An answer may be over before its request is, as in HTTP/2.
        if self.is_end_stream()
            && let Some(Upload { sending, .. }) = self.upload.take()
        {
            sending.detach();
        }
    }
}
