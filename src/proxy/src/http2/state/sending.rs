//! What goes over a connection.

use bytes::{Buf, BytesMut};

use super::super::frame::{self, DATA, END_STREAM, FrameHead, MAX_PAYLOAD, Reason};
use super::super::head::write_fields;
use super::super::hpack::Encoder;
use super::super::stream::Ending;
use super::{MOST_WAITING, State};

/// A frame of content fills a record of TLS together with its head.
pub(super) const MAX_DATA: usize = MAX_PAYLOAD - frame::HEAD;

impl State {
    pub(super) fn write_head(
        &mut self,
        id: u32,
        is_last: bool,
        write: impl FnOnce(&mut Encoder, &mut BytesMut),
    ) {
        let mut block = BytesMut::with_capacity(256);
        write(&mut self.encoder, &mut block);
        frame::write_block(self.out.tail(), id, &block, is_last);
    }

    /// Lets streams have their turns until there is enough to write.
    pub(super) fn fill(&mut self) {
        while self.out.remaining() < MOST_WAITING
            && let Some(id) = self.ready.pop_front()
        {
            self.send_turn(id);
        }
    }

    pub(super) fn queue(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.is_queued, true)
        {
            self.ready.push_back(id);
        }
    }

    /// Resets streams that nobody looks after any more, and for which there has been no window since this was last
    /// called: they would be kept for as long as their connection.
    pub(in crate::http2) fn give_up_stuck(&mut self) {
        let window = self.sending.available();
        let stuck = self.streams.iter_mut().filter_map(|(id, stream)| {
            let is_held_up = stream.handles == 0 && window.min(stream.sending.available()) == 0;
            (is_held_up && std::mem::replace(&mut stream.is_stuck, true)).then_some(*id)
        });
        let ids: Vec<_> = stuck.collect();
        for id in ids {
            self.reset(id, Reason::CANCEL);
        }
    }

    /// One frame of content, and the end when there is nothing before it.
    fn send_turn(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.is_queued = false;
        if stream.is_sent() {
            return;
        }
        let length = stream.unsent.remaining().min(MAX_DATA);
        let length = length.min(stream.sending.available());
        let allowed = length.min(self.sending.available());
        let is_stuck = allowed == 0 && !stream.unsent.is_empty();
        match (is_stuck, &stream.ending) {
            (true, Ending::Reset(_)) => stream.unsent.clear(),
            (true, _) if length > 0 => {
                stream.is_queued = true;
                self.blocked.push_back(id);
                return;
            }
            // Its window will be widened.
            (true, _) => return,
            (false, _) => {}
        }
        self.send_data(id, allowed);
        self.settle(id);
    }

    fn send_data(&mut self, id: u32, length: usize) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let is_rest = length == stream.unsent.remaining();
        let is_last = is_rest && matches!(stream.ending, Ending::End);
        if length > 0 || is_last {
            let head = FrameHead {
                length,
                kind: DATA,
                flags: if is_last { END_STREAM } else { 0 },
                stream: id,
            };
            head.write(self.out.tail());
            let mut left = length;
            while left > 0 {
                let part = stream.unsent.split(left);
                left -= part.len();
                self.out.push(part);
            }
            self.sending.take(length);
            stream.sending.take(length);
            stream.is_stuck = false;
        }
        if !is_rest {
            stream.offer_room();
            return self.queue(id);
        }
        match std::mem::replace(&mut stream.ending, Ending::Over) {
            Ending::Open => stream.ending = Ending::Open,
            Ending::End | Ending::Over => {}
            Ending::Trailers(trailers) => self.write_head(id, true, |encoder, block| {
                write_fields(encoder, &trailers, block);
            }),
            Ending::Reset(reason) => self.reset(id, reason),
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.unsent.let_go();
            stream.offer_room();
        }
    }
}
