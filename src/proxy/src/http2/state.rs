mod receiving;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use rustc_hash::FxHashMap;

use super::Http2Error;
use super::frame::{self, PING, PREFACE, Reason};
use super::head::{write_request, write_response};
use super::hpack::Encoder;
use super::output::Output;
use super::settings::{OwnSettings, PeerSettings};
use super::stream::{Broken, Ending, Stream};
use super::window::{ReceiveWindow, SendWindow};

/// What waits to be written at most: then nothing more is read, and no stream has its turn.
const MOST_WAITING: usize = 64 * 1024;
/// So little is copied into one piece with what is written before it.
pub(super) const SMALL_WRITE: usize = 1024;
/// How many streams that are over are remembered, for what is under way on them.
const MOST_REMEMBERED: usize = 256;
/// The highest number of a stream.
const LAST_STREAM: u32 = (1 << 31) - 1;
/// So many exchanges a client may give up between two pings: to begin one and give it up costs it two frames, and
/// us a connection to an upstream. More are not held against one that lets as many come to their end.
const MOST_GIVEN_UP: u32 = 512;

/// Who began the connection, or did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

impl Role {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What a connection is used with at the same time: its streams, and what is to be sent.
#[derive(Clone)]
pub(super) struct Streams(Arc<Mutex<State>>);

pub(super) struct State {
    role: Role,
    own: OwnSettings,
    peer: PeerSettings,
    /// Few at once: nobody gains anything by the choice of their numbers.
    streams: FxHashMap<u32, Stream>,
    /// Those that count for how many there may be.
    active: u32,
    /// The last ones that are over, and how each ended.
    over: VecDeque<(u32, End)>,
    /// Of those that the other side began.
    highest: u32,
    /// The next to begin ourselves.
    next: u32,
    pub(super) sending: SendWindow,
    receiving: ReceiveWindow,
    /// Streams that have something to send, in their turn.
    ready: VecDeque<u32>,
    /// Streams for which the connection's window is too small.
    blocked: VecDeque<u32>,
    out: Output,
    encoder: Encoder,
    pub(super) pings: Pings,
    pub(super) tally: Tally,
    leaving: Leaving,
    /// The other side begins nothing more, or takes nothing more that we begin.
    is_left: Option<Reason>,
    failed: Option<Http2Error>,
    driver: Option<Waker>,
    /// Handles that may begin streams.
    openers: u32,
    waiting_to_open: Vec<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Both sides have come to their end.
    Regular,
    ResetByThem,
    ResetByUs,
}

/// How far we are in saying that no more streams are taken (RFC 9113 6.8).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// It was said. When this ping is answered, everything has come that was sent before it was heard.
    Announced(u64),
    /// The last stream was named.
    Final,
}

/// Questions whether the other side is there.
#[derive(Default)]
pub(super) struct Pings {
    sent: u64,
    answered: u64,
    waiting: Vec<Waker>,
}

impl Pings {
    pub(super) fn is_answered(&self, ping: u64) -> bool {
        self.answered >= ping
    }

    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

/// How many streams the other side has begun, and given up, since they were last counted anew.
#[derive(Default)]
pub(super) struct Tally {
    begun: u32,
    given_up: u32,
}

impl Tally {
    fn is_too_much(&self) -> bool {
        self.given_up > MOST_GIVEN_UP && self.given_up > self.begun / 2
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Streams {
    pub(super) fn new(own: OwnSettings, connection_window: u32) -> Self {
        Self(Arc::new(Mutex::new(State::new(own, connection_window))))
    }

    /// Nobody panics who holds it in a way that leaves it half-changed.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(own: OwnSettings, connection_window: u32) -> Self {
        let role = own.role();
        let peer = PeerSettings::default();
        let mut out = Output::new(SMALL_WRITE);
        if role == Role::Client {
            out.tail().extend_from_slice(PREFACE);
        }
        own.write(out.tail());
        frame::write_window_update(out.tail(), 0, connection_window - peer.initial_window);
        Self {
            role,
            own,
            peer,
            streams: FxHashMap::default(),
            active: 0,
            over: VecDeque::new(),
            highest: 0,
            next: 1,
            sending: SendWindow::new(peer.initial_window),
            receiving: ReceiveWindow::new(connection_window),
            ready: VecDeque::new(),
            blocked: VecDeque::new(),
            out,
            encoder: Encoder::new(),
            pings: Pings::default(),
            tally: Tally::default(),
            leaving: Leaving::No,
            is_left: None,
            failed: None,
            driver: None,
            openers: 0,
            waiting_to_open: Vec::new(),
        }
    }

    pub(super) fn register(&mut self, driver: &Waker) {
        match &mut self.driver {
            Some(known) => known.clone_from(driver),
            none => *none = Some(driver.clone()),
        }
    }

    /// Tells the driver what it does not know, if there is anything to write. To be called behind whatever does not come
    /// from it.
    pub(super) fn notify(&mut self) {
        if !self.out.is_empty() || !self.ready.is_empty() {
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Whether more may be read, though it may have to be answered.
    pub(super) fn takes_more(&self) -> bool {
        self.out.remaining() < MOST_WAITING
    }

    /// Takes what is to be written next in exchange for an empty buffer.
    pub(super) fn take_out(&mut self, empty: &mut Output) {
        self.fill();
        std::mem::swap(&mut self.out, empty);
    }

    /// Whether the connection has served its purpose: nothing is under way, and nothing more is to come.
    pub(super) fn is_over(&self) -> bool {
        let is_left = self.leaving == Leaving::Final || self.is_left.is_some();
        let is_useless = self.role == Role::Client && self.openers == 0;
        self.active == 0 && (is_left || is_useless)
    }

    /// Ends everything. The other side hears of it, if it is still there to hear.
    pub(super) fn fail(&mut self, error: &Http2Error) {
        self.failed = Some(error.clone());
        let reason = match error {
            Http2Error::Violation(violation) => violation.reason,
            _ => Reason::NO_ERROR,
        };
        frame::write_goaway(self.out.tail(), self.highest, reason);
        self.break_all(error, |_| true);
        self.pings.wake();
        self.wake_openers();
    }

    fn wake_openers(&mut self) {
        self.waiting_to_open.drain(..).for_each(Waker::wake);
    }

    fn break_all(&mut self, error: &Http2Error, which: impl Fn(u32) -> bool) {
        let ids: Vec<_> = self.streams.keys().copied().filter(|id| which(*id)).collect();
        for id in ids {
            self.break_off(id, error.clone(), false);
        }
    }

    /// Begins to leave: says so, and waits until that has been heard.
    pub(super) fn leave(&mut self) {
        if self.leaving == Leaving::No {
            frame::write_goaway(self.out.tail(), LAST_STREAM, Reason::NO_ERROR);
            self.leaving = Leaving::Announced(self.ping());
        }
    }

    /// Names the last stream, whether or not the other side has answered that it knows of our leaving.
    pub(super) fn name_last(&mut self) {
        if matches!(self.leaving, Leaving::Announced(_)) {
            frame::write_goaway(self.out.tail(), self.highest, Reason::NO_ERROR);
            self.leaving = Leaving::Final;
        }
    }

    pub(super) fn ping(&mut self) -> u64 {
        self.pings.sent += 1;
        let payload = self.pings.sent.to_be_bytes();
        frame::write(self.out.tail(), PING, 0, 0, &payload);
        self.pings.sent
    }

    /// Makes room again, for as much as was taken or passed over: on the connection, and on the stream if one is named.
    pub(super) fn give_back(&mut self, id: u32, bytes: usize) {
        if bytes == 0 {
            return;
        }
        if let Some(increment) = self.receiving.give_back(bytes) {
            frame::write_window_update(self.out.tail(), 0, increment);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.is_received
            && stream.broken.is_none()
            && let Some(increment) = stream.receiving.give_back(bytes)
        {
            frame::write_window_update(self.out.tail(), id, increment);
        }
    }

    /// Whether a client begins exchanges in order to give them up. An upstream can give up only what we have begun.
    pub(super) fn is_abused(&self) -> bool {
        self.role == Role::Server && self.tally.is_too_much()
    }

    fn is_idle(&self, id: u32) -> bool {
        match self.is_ours(id) {
            _ if id == 0 => true,
            true => id >= self.next,
            false => id > self.highest && self.leaving != Leaving::Final,
        }
    }

    /// Clients begin those with odd numbers (RFC 9113 5.1.1).
    fn is_ours(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.role == Role::Client)
    }

    fn end_of(&self, id: u32) -> Option<End> {
        if !self.is_ours(id) && id > self.highest {
            // Behind the last that was taken.
            return Some(End::ResetByUs);
        }
        let mut over = self.over.iter().rev();
        over.find(|(other, _)| *other == id).map(|(_, end)| *end)
    }

    fn remember(&mut self, id: u32, end: End) {
        if self.over.len() == MOST_REMEMBERED {
            self.over.pop_front();
        }
        self.over.push_back((id, end));
    }

    fn break_off(&mut self, id: u32, error: Http2Error, by_us: bool) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.break_off(Broken { error, by_us });
        }
        self.settle(id);
    }

    /// Counts a stream no longer that is closed, and forgets it when nobody uses it.
    fn settle(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        // What answers a request that nobody waits for is not wanted, even if the request is not sent yet.
        let is_whole = matches!(stream.ending, Ending::End | Ending::Trailers(_));
        let is_moot = self.role == Role::Client && is_whole && !stream.is_received;
        let is_left = stream.handles == 0 && (stream.is_sent() || is_moot);
        if is_left && !stream.is_closed() {
            // The rest is not wanted (RFC 9113 8.1).
            let reason = match self.role {
                Role::Server => Reason::NO_ERROR,
                Role::Client => Reason::CANCEL,
            };
            frame::write_reset(self.out.tail(), id, reason);
            stream.break_off(Broken {
                error: Http2Error::Over,
                by_us: true,
            });
        }
        if stream.is_closed() && std::mem::replace(&mut stream.is_active, false) {
            self.active -= 1;
            self.wake_openers();
        }
        if is_left && let Some(stream) = self.streams.remove(&id) {
            let end = match stream.broken {
                None => End::Regular,
                Some(Broken { by_us: true, .. }) => End::ResetByUs,
                Some(_) => End::ResetByThem,
            };
            self.remember(id, end);
        }
    }

    pub(super) fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    fn usable(&mut self, id: u32) -> Result<&mut Stream, Http2Error> {
        let stream = self.streams.get_mut(&id).ok_or(Http2Error::Over)?;
        match &stream.broken {
            Some(broken) => Err(broken.error.clone()),
            None => Ok(stream),
        }
    }

    pub(super) fn send_response(
        &mut self,
        id: u32,
        response: &Response<()>,
        is_last: bool,
    ) -> Result<(), Http2Error> {
        self.usable(id)?;
        self.write_head(id, is_last, |encoder, block| {
            write_response(encoder, response.status(), response.headers(), block);
        });
        if is_last {
            self.usable(id)?.ending = Ending::Over;
            self.settle(id);
        }
        Ok(())
    }

    pub(super) fn give(&mut self, id: u32, data: Bytes) -> Result<(), Http2Error> {
        self.usable(id)?.unsent.push(data);
        self.queue(id);
        Ok(())
    }

    pub(super) fn finish(&mut self, id: u32, ending: Ending) -> Result<(), Http2Error> {
        self.usable(id)?.ending = ending;
        self.queue(id);
        Ok(())
    }

    /// At once; what was not sent is not sent any more.
    pub(super) fn reset(&mut self, id: u32, reason: Reason) {
        if self.usable(id).is_ok() {
            frame::write_reset(self.out.tail(), id, reason);
            self.break_off(id, Http2Error::Over, true);
        }
    }

    /// Behind what is unsent, if that can leave; at once otherwise.
    pub(super) fn break_behind(&mut self, id: u32, reason: Reason) {
        let window = self.sending.available();
        let Ok(stream) = self.usable(id) else {
            return;
        };
        if stream.unsent.is_empty() || window.min(stream.sending.available()) > 0 {
            stream.ending = Ending::Reset(reason);
            self.queue(id);
        } else {
            self.reset(id, reason);
        }
    }

    pub(super) fn pass_over(&mut self, id: u32) {
        let unread = self.stream(id).map_or(0, Stream::pass_over);
        self.give_back(id, unread);
    }

    pub(super) fn let_go(&mut self, id: u32) {
        if let Some(stream) = self.stream(id) {
            stream.handles -= 1;
        }
        self.settle(id);
    }

    /// Ready when the ping is answered.
    pub(super) fn poll_answered(
        &mut self,
        ping: u64,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Http2Error>> {
        if self.pings.is_answered(ping) {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(error.clone()));
        }
        self.pings.waiting.push(context.waker().clone());
        Poll::Pending
    }

    pub(super) fn peer(&self) -> &PeerSettings {
        &self.peer
    }

    pub(super) fn count_opener(&mut self) {
        self.openers += 1;
    }

    pub(super) fn drop_opener(&mut self) {
        self.openers -= 1;
        self.wake();
    }

    /// Why no stream can be begun any more.
    pub(super) fn closed(&self) -> Option<Http2Error> {
        let left = self.is_left.map(Http2Error::Unprocessed);
        let used_up = (self.next > LAST_STREAM).then_some(Http2Error::Over);
        self.failed.clone().or(left).or(used_up)
    }

    /// Whether a further stream could be begun when all handles but one have begun theirs.
    pub(super) fn has_room_for_all(&self) -> bool {
        self.active + self.openers <= self.peer.max_streams
    }

    pub(super) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Http2Error>> {
        if let Some(error) = self.closed() {
            return Poll::Ready(Err(error));
        }
        if self.active < self.peer.max_streams {
            return Poll::Ready(Ok(()));
        }
        self.waiting_to_open.push(context.waker().clone());
        Poll::Pending
    }

    /// Sends a request's head, and has its stream.
    pub(super) fn open(&mut self, head: &Request<()>, is_last: bool) -> Result<u32, Http2Error> {
        if let Some(error) = self.closed() {
            return Err(error);
        }
        let id = self.next;
        self.next += 2;
        let mut stream = Stream::new(self.peer.initial_window, self.own.initial_window);
        stream.asked = Some(head.method().clone());
        if is_last {
            stream.ending = Ending::Over;
        }
        self.active += 1;
        self.streams.insert(id, stream);
        self.write_head(id, is_last, |encoder, block| write_request(encoder, head, block));
        Ok(id)
    }
}
