use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;

use super::Http2Error;
use super::frame::Reason;
use super::state::{State, Streams};
use super::stream::Ending;

/// What the other side sends on a stream.
pub(crate) struct Incoming {
    streams: Streams,
    id: u32,
}

/// What is sent on a stream. Dropped before its end, it resets the stream.
pub(crate) struct Outgoing {
    streams: Streams,
    id: u32,
}

impl Incoming {
    pub(super) fn new(streams: &Streams, id: u32) -> Self {
        let streams = streams.clone();
        Self { streams, id }
    }

    /// Content, as much as has come, then the trailers. Room for more is given when it is taken: a slow receiver slows
    /// its sender down.
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http2Error>>> {
        let mut state = self.streams.lock();
        let Some(stream) = state.stream(self.id) else {
            return Poll::Ready(Some(Err(Http2Error::Over)));
        };
        let frame = ready!(stream.poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            state.give_back(self.id, data.len());
            state.notify();
        }
        Poll::Ready(frame)
    }

    /// The next response: any number of interim ones, then the answer.
    pub(crate) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<()>, Http2Error>> {
        let mut state = self.streams.lock();
        let stream = state.stream(self.id).ok_or(Http2Error::Over)?;
        stream.poll_head(context)
    }

    /// Whether nothing more comes.
    pub(crate) fn is_end_stream(&self) -> bool {
        let mut state = self.streams.lock();
        state.stream(self.id).is_none_or(|stream| stream.is_taken())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut state = self.streams.lock();
        state.pass_over(self.id);
        state.let_go(self.id);
        state.notify();
    }
}

impl Outgoing {
    pub(super) fn new(streams: &Streams, id: u32) -> Self {
        let streams = streams.clone();
        Self { streams, id }
    }

    /// Sends a head: an interim one, the answer, or one that is all of it.
    pub(crate) fn send_head(&mut self, response: &Response<()>, is_last: bool) -> Result<(), Http2Error> {
        self.change(|state, id| state.send_response(id, response, is_last))
    }

    pub(crate) fn send_data(&mut self, data: Bytes) -> Result<(), Http2Error> {
        self.change(|state, id| state.give(id, data))
    }

    pub(crate) fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), Http2Error> {
        // A block without fields would be no frame at all.
        let ending = match trailers.is_empty() {
            true => Ending::End,
            false => Ending::Trailers(trailers),
        };
        self.change(|state, id| state.finish(id, ending))
    }

    pub(crate) fn finish(&mut self) -> Result<(), Http2Error> {
        self.change(|state, id| state.finish(id, Ending::End))
    }

    /// Resets the stream at once.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.change(|state, id| state.reset(id, reason));
    }

    /// Resets the stream behind what was given to be sent, as far as the other side takes it.
    pub(crate) fn break_off(&mut self, reason: Reason) {
        self.change(|state, id| state.break_behind(id, reason));
    }

    /// Ready when more may be given to be sent.
    pub(crate) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Http2Error>> {
        let mut state = self.streams.lock();
        let stream = state.stream(self.id).ok_or(Http2Error::Over)?;
        stream.poll_room(context)
    }

    /// Ready when what is finished has been sent.
    pub(crate) fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Http2Error>> {
        let mut state = self.streams.lock();
        let window = state.sending;
        let stream = state.stream(self.id).ok_or(Http2Error::Over)?;
        stream.poll_sent(window, context)
    }

    /// Ready when nothing can be sent any more.
    pub(crate) fn poll_broken(&mut self, context: &mut Context<'_>) -> Poll<Http2Error> {
        match self.streams.lock().stream(self.id) {
            Some(stream) => stream.poll_broken(context),
            None => Poll::Ready(Http2Error::Over),
        }
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut State, u32) -> T) -> T {
        let mut state = self.streams.lock();
        let changed = change(&mut state, self.id);
        state.notify();
        changed
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.change(|state, id| {
            if state
                .stream(id)
                .is_some_and(|stream| matches!(stream.ending, Ending::Open))
            {
                state.reset(id, Reason::CANCEL);
            }
            state.let_go(id);
        });
    }
}
