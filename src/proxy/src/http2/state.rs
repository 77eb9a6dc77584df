use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::Http2Error;
use super::frame::{
    self, ACK, DATA, END_STREAM, FrameHead, GOAWAY, MAX_PAYLOAD, PING, PREFACE, PRIORITY, PUSH_PROMISE,
    RST_STREAM, Reason, SETTINGS, Violation, WINDOW_UPDATE,
};
use super::head::{Fields, declared_length, write_fields, write_request, write_response};
use super::hpack::Encoder;
use super::output::Output;
use super::settings::{self, OwnSettings, PeerSettings};
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
/// A frame of content fills a record of TLS together with its head.
const MAX_DATA: usize = MAX_PAYLOAD - frame::HEAD;
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
    streams: HashMap<u32, Stream>,
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
    pub(super) fn new(role: Role, own: OwnSettings, connection_window: u32) -> Self {
        Self(Arc::new(Mutex::new(State::new(role, own, connection_window))))
    }

    /// Nobody panics who holds it in a way that leaves it half-changed.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(role: Role, own: OwnSettings, connection_window: u32) -> Self {
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
            streams: HashMap::new(),
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

    // The connection's side.

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

    // What comes.

    /// Any frame but those of header blocks.
    pub(super) fn receive(&mut self, head: FrameHead, payload: BytesMut) -> Result<(), Violation> {
        match head.kind {
            DATA => self.receive_data(head, payload),
            PRIORITY => self.receive_priority(head, &payload),
            RST_STREAM => self.receive_reset(head, &payload),
            SETTINGS => self.receive_settings(head, &payload),
            PUSH_PROMISE => Err(Violation::protocol("a promise that nobody asked for")),
            PING => self.receive_ping(head, &payload),
            GOAWAY => self.receive_goaway(head, &payload),
            WINDOW_UPDATE => self.receive_window_update(head, &payload),
            _ => Ok(()),
        }
    }

    fn receive_data(&mut self, head: FrameHead, mut payload: BytesMut) -> Result<(), Violation> {
        let id = head.stream;
        let length = payload.len();
        head.strip_padding(&mut payload)?;
        self.receiving
            .receive(length)
            .ok_or(Violation::flow_control("more than the connection's window"))?;
        let Some(stream) = self.streams.get_mut(&id) else {
            self.give_back(0, length);
            return self.receive_late(id);
        };
        if let Some(broken) = &stream.broken {
            let by_us = broken.by_us;
            self.give_back(0, length);
            return self.refuse_late(id, by_us);
        }
        let unused = match stream.is_wanted {
            true => length - payload.len(),
            false => length,
        };
        let is_last = head.has(END_STREAM);
        let received = if stream.is_received {
            Err(Violation::closed("content behind the end of its stream"))
        } else if stream.receiving.receive(length).is_none() {
            Err(Violation::flow_control("more than the stream's window"))
        } else {
            stream.receive(payload, is_last)
        };
        match received {
            Ok(()) => self.give_back(id, unused),
            Err(violation) => {
                self.give_back(0, length);
                self.refuse(id, violation);
            }
        }
        self.settle(id);
        Ok(())
    }

    /// Makes room again on the connection, and on the stream if one is named.
    fn give_back(&mut self, id: u32, bytes: usize) {
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

    /// A frame on a stream that is not there (RFC 9113 5.1).
    fn receive_late(&mut self, id: u32) -> Result<(), Violation> {
        if self.is_idle(id) {
            return Err(Violation::protocol("a frame on a stream that was not begun"));
        }
        match self.end_of(id) {
            Some(End::ResetByUs) => self.refuse_late(id, true),
            // Of what is forgotten, nobody knows.
            Some(End::ResetByThem) | None => self.refuse_late(id, false),
            Some(End::Regular) => Err(Violation::closed("a frame on a stream that is over")),
        }
    }

    /// Passes over what was sent before our reset was known, and answers what was sent behind their own.
    fn refuse_late(&mut self, id: u32, by_us: bool) -> Result<(), Violation> {
        if !by_us {
            frame::write_reset(self.out.tail(), id, Reason::STREAM_CLOSED);
            self.tally.given_up += 1;
        }
        Ok(())
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

    fn receive_priority(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Violation> {
        let violation = if head.stream == 0 {
            return Err(Violation::protocol("a priority of no stream"));
        } else if payload.len() != 5 {
            Violation::frame_size("a priority of another length than five")
        } else if frame::read_number(payload) == head.stream {
            Violation::protocol("a stream that depends on itself")
        } else {
            return Ok(());
        };
        if self.is_idle(head.stream) {
            return Err(violation);
        }
        self.refuse(head.stream, violation);
        Ok(())
    }

    fn receive_reset(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Violation> {
        let Ok(reason) = payload.try_into().map(u32::from_be_bytes).map(Reason) else {
            return Err(Violation::frame_size("a reset of another length than four"));
        };
        let id = head.stream;
        if self.is_idle(id) {
            return Err(Violation::protocol("a reset of a stream that was not begun"));
        }
        if let Some(stream) = self.streams.get(&id)
            && stream.broken.is_none()
        {
            self.tally.given_up += u32::from(!stream.is_sent());
            self.break_off(id, Http2Error::Reset(reason), false);
        }
        Ok(())
    }

    fn receive_settings(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Violation> {
        if head.stream != 0 {
            return Err(Violation::protocol("settings of one stream"));
        }
        if head.has(ACK) {
            return match payload {
                [] => Ok(()),
                _ => Err(Violation::frame_size(
                    "settings that are acknowledged and made at once",
                )),
            };
        }
        let before = self.peer.initial_window;
        self.peer.read(self.role.other(), payload)?;
        self.encoder.limit(self.peer.header_table_size);
        settings::acknowledge(self.out.tail());
        let change = i64::from(self.peer.initial_window) - i64::from(before);
        let ids: Vec<_> = self.streams.keys().copied().collect();
        for id in ids {
            self.widen(id, change)
                .ok_or(Violation::flow_control("a window of more than 2^31-1 bytes"))?;
        }
        self.waiting_to_open.drain(..).for_each(Waker::wake);
        Ok(())
    }

    /// `None`: the window would be too large.
    fn widen(&mut self, id: u32, by: i64) -> Option<()> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Some(());
        };
        stream.sending.change(by)?;
        stream.offer_room();
        if !stream.unsent.is_empty() {
            self.queue(id);
        }
        Some(())
    }

    fn receive_ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Violation> {
        if head.stream != 0 {
            return Err(Violation::protocol("a ping of one stream"));
        }
        let Ok(number) = payload.try_into().map(u64::from_be_bytes) else {
            return Err(Violation::frame_size("a ping of another length than eight"));
        };
        if !head.has(ACK) {
            frame::write(self.out.tail(), PING, ACK, 0, payload);
            return Ok(());
        }
        if number <= self.pings.sent {
            self.pings.answered = self.pings.answered.max(number);
            self.pings.wake();
        }
        if matches!(self.leaving, Leaving::Announced(ping) if self.pings.is_answered(ping)) {
            self.name_last();
        }
        Ok(())
    }

    fn receive_goaway(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Violation> {
        if head.stream != 0 {
            return Err(Violation::protocol("a farewell of one stream"));
        }
        let Some((last, rest)) = payload.split_first_chunk::<4>() else {
            return Err(Violation::frame_size("a farewell that is cut"));
        };
        let Some(reason) = rest.first_chunk().copied().map(u32::from_be_bytes).map(Reason) else {
            return Err(Violation::frame_size("a farewell that is cut"));
        };
        self.is_left = Some(reason);
        if self.role == Role::Client {
            let last = frame::read_number(last);
            self.break_all(&Http2Error::Unprocessed(reason), |id| id > last);
            self.waiting_to_open.drain(..).for_each(Waker::wake);
        }
        Ok(())
    }

    fn receive_window_update(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Violation> {
        if payload.len() != 4 {
            return Err(Violation::frame_size("room of another length than four"));
        }
        let id = head.stream;
        let increment = frame::read_number(payload).into();
        if id == 0 {
            return self.widen_connection(increment);
        }
        if self.is_idle(id) {
            return Err(Violation::protocol("room for a stream that was not begun"));
        }
        if increment == 0 {
            self.refuse(id, Violation::protocol("room for nothing"));
        } else if self.widen(id, increment).is_none() {
            self.refuse(id, Violation::flow_control("a window of more than 2^31-1 bytes"));
        }
        Ok(())
    }

    fn widen_connection(&mut self, increment: i64) -> Result<(), Violation> {
        if increment == 0 {
            return Err(Violation::protocol("room for nothing"));
        }
        self.sending
            .change(increment)
            .ok_or(Violation::flow_control("a window of more than 2^31-1 bytes"))?;
        self.ready.append(&mut self.blocked);
        Ok(())
    }

    /// A whole header block. What it begins, if it is a request.
    pub(super) fn receive_block(
        &mut self,
        id: u32,
        is_last: bool,
        fields: Fields,
    ) -> Result<Option<Request<()>>, Violation> {
        if !self.streams.contains_key(&id) && self.is_begun_by(id) {
            return Ok(self.begin(id, is_last, fields));
        }
        self.receive_further_block(id, is_last, fields)?;
        self.settle(id);
        Ok(None)
    }

    /// Whether a request with this number is a new one.
    fn is_begun_by(&self, id: u32) -> bool {
        self.role == Role::Server && !self.is_ours(id) && id > self.highest
    }

    /// `None` if the request is not to be answered.
    fn begin(&mut self, id: u32, is_last: bool, fields: Fields) -> Option<Request<()>> {
        if self.leaving == Leaving::Final {
            return None;
        }
        self.highest = id;
        self.tally.begun += 1;
        let most = self.own.max_streams.unwrap_or(0);
        // Of those that were given up, some are still being cleared away.
        let is_too_fast = self.streams.len() >= 2 * most as usize;
        if self.active >= most || is_too_fast {
            self.reset_unknown(id, Reason::REFUSED_STREAM);
            self.tally.given_up += u32::from(is_too_fast);
            return None;
        }
        if fields.is_too_large() {
            self.refuse_head(id, is_last);
            return None;
        }
        let mut stream = Stream::new(self.peer.initial_window, self.own.initial_window);
        match read_request(&mut stream, is_last, fields) {
            Ok(request) => {
                self.active += 1;
                self.streams.insert(id, stream);
                Some(request)
            }
            Err(violation) => {
                self.reset_unknown(id, violation.reason);
                self.tally.given_up += 1;
                None
            }
        }
    }

    fn reset_unknown(&mut self, id: u32, reason: Reason) {
        frame::write_reset(self.out.tail(), id, reason);
        self.remember(id, End::ResetByUs);
    }

    /// 431 (RFC 6585 5).
    fn refuse_head(&mut self, id: u32, is_last: bool) {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        self.write_head(id, true, |encoder, block| {
            write_response(encoder, status, &HeaderMap::new(), block);
        });
        if is_last {
            self.remember(id, End::Regular);
        } else {
            self.reset_unknown(id, Reason::NO_ERROR);
        }
    }

    /// Trailers, or what answers a request of ours.
    fn receive_further_block(&mut self, id: u32, is_last: bool, fields: Fields) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(&id) else {
            let is_ours = self.is_ours(id);
            return match self.end_of(id) {
                None if !is_ours => Err(Violation::protocol("a stream with a number that is not free")),
                _ => self.receive_late(id),
            };
        };
        if let Some(broken) = &stream.broken {
            let by_us = broken.by_us;
            return self.refuse_late(id, by_us);
        }
        let received = if stream.is_received {
            Err(Violation::closed("fields behind the end of their stream"))
        } else if fields.is_too_large() {
            Err(Violation::new(
                Reason::ENHANCE_YOUR_CALM,
                "more fields than are taken",
            ))
        } else if stream.asked.is_some() {
            receive_answer(stream, is_last, fields)
        } else if is_last {
            fields
                .into_trailers()
                .and_then(|trailers| stream.end(Some(trailers)))
        } else {
            Err(Violation::protocol("trailers that are not the end"))
        };
        if let Err(violation) = received {
            self.refuse(id, violation);
        }
        Ok(())
    }

    /// Resets a stream on which the other side did what it must not.
    fn refuse(&mut self, id: u32, violation: Violation) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        if stream.broken.is_none() {
            self.tally.given_up += 1;
            frame::write_reset(self.out.tail(), id, violation.reason);
            self.break_off(id, violation.into(), true);
        }
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
            self.waiting_to_open.drain(..).for_each(Waker::wake);
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

    // What goes.

    fn write_head(&mut self, id: u32, is_last: bool, write: impl FnOnce(&mut Encoder, &mut BytesMut)) {
        let mut block = BytesMut::with_capacity(256);
        write(&mut self.encoder, &mut block);
        frame::write_block(self.out.tail(), id, &block, is_last);
    }

    /// Lets streams have their turns until there is enough to write.
    fn fill(&mut self) {
        while self.out.remaining() < MOST_WAITING
            && let Some(id) = self.ready.pop_front()
        {
            self.send_turn(id);
        }
    }

    fn queue(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.is_queued, true)
        {
            self.ready.push_back(id);
        }
    }

    /// Resets streams that nobody looks after any more, and for which there has been no window since this was last
    /// called: they would be kept for as long as their connection.
    pub(super) fn give_up_stuck(&mut self) {
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
            Ending::Reset(reason) => {
                frame::write_reset(self.out.tail(), id, reason);
                self.break_off(id, Http2Error::Over, true);
            }
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.unsent.let_go();
            stream.offer_room();
        }
    }

    // The handles' side.

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

    /// So much has been taken off a stream, and may come again.
    pub(super) fn taken(&mut self, id: u32, bytes: usize) {
        self.give_back(id, bytes);
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

    // A client's.

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

fn read_request(stream: &mut Stream, is_last: bool, fields: Fields) -> Result<Request<()>, Violation> {
    let request = fields.into_request()?;
    let length = declared_length(request.headers())?;
    // A tunnel has no content (RFC 9110 9.3.6).
    stream.left = length.filter(|_| request.method() != Method::CONNECT);
    if is_last {
        stream.end(None)?;
    }
    Ok(request)
}

fn receive_answer(stream: &mut Stream, is_last: bool, fields: Fields) -> Result<(), Violation> {
    let response = fields.into_response()?;
    if response.status().is_informational() {
        if is_last {
            return Err(Violation::protocol("an end without an answer"));
        }
        stream.receive_head(response);
        return Ok(());
    }
    let length = declared_length(response.headers())?;
    stream.left = match (stream.asked.take(), response.status()) {
        (Some(Method::CONNECT), status) if status.is_success() => None,
        (Some(Method::HEAD), _) | (_, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => Some(0),
        _ => length,
    };
    if is_last {
        stream.end(None)?;
    }
    stream.receive_head(response);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::hpack::Field;
    use super::super::hpack::Pseudo;
    use super::*;

    const ROOM: u32 = 100_000;
    const SERVER: OwnSettings = OwnSettings {
        max_streams: Some(2),
        initial_window: ROOM,
        max_header_bytes: 1000,
    };
    const CLIENT: OwnSettings = OwnSettings {
        max_streams: None,
        ..SERVER
    };

    /// Kind, flags, stream, and length of the payload or the number in it.
    type Seen = (u8, u8, u32, u32);

    /// A connection that has said what it begins with.
    fn state(settings: OwnSettings) -> State {
        let role = match settings.max_streams {
            Some(_) => Role::Server,
            None => Role::Client,
        };
        let mut state = State::new(role, settings, ROOM);
        state.take_out(&mut Output::new(0));
        state
    }

    fn written(state: &mut State) -> Vec<Seen> {
        let (mut out, mut bytes) = (Output::new(0), BytesMut::new());
        loop {
            state.take_out(&mut out);
            if out.is_empty() {
                break;
            }
            bytes.extend_from_slice(&out.copy_to_bytes(out.remaining()));
        }
        let mut seen = Vec::new();
        while let Some(head) = FrameHead::read(&bytes) {
            bytes.advance(frame::HEAD);
            let payload = bytes.split_to(head.length);
            let number = match head.kind {
                RST_STREAM | WINDOW_UPDATE | GOAWAY => frame::read_number(&payload[payload.len() - 4..]),
                _ => head.length as u32,
            };
            seen.push((head.kind, head.flags, head.stream, number));
        }
        seen
    }

    fn receive(state: &mut State, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Violation> {
        let head = FrameHead {
            length: payload.len(),
            kind,
            flags,
            stream,
        };
        state.receive(head, payload.into())
    }

    fn fields(list: &[(Pseudo, &'static str)]) -> Fields {
        let mut fields = Fields::new(SERVER.max_header_bytes);
        for (name, value) in list {
            fields.add(Field::Pseudo(*name, Bytes::from_static(value.as_bytes())), 1);
        }
        fields
    }

    fn ask(state: &mut State, id: u32, is_last: bool) -> Result<Option<Request<()>>, Violation> {
        let request = [
            (Pseudo::Method, "POST"),
            (Pseudo::Scheme, "https"),
            (Pseudo::Authority, "a.test"),
            (Pseudo::Path, "/"),
        ];
        state.receive_block(id, is_last, fields(&request))
    }

    /// A client's first request, which has come and is being answered.
    fn asked(id: u32) -> State {
        let mut state = state(SERVER);
        ask(&mut state, id, true).unwrap().unwrap();
        state
    }

    fn give(state: &mut State, id: u32, bytes: usize) {
        state.give(id, Bytes::from(vec![0; bytes])).unwrap();
    }

    fn widen(state: &mut State, id: u32, by: u32) {
        receive(state, WINDOW_UPDATE, 0, id, &by.to_be_bytes()).unwrap();
    }

    fn is_broken(state: &mut State, id: u32) -> bool {
        state.stream(id).is_none_or(|stream| stream.broken.is_some())
    }

    #[test]
    fn a_wrong_priority_of_a_stream_that_is_over_harms_no_other() {
        let mut state = asked(1);
        state.reset(1, Reason::CANCEL);
        state.let_go(1);
        state.let_go(1);
        receive(&mut state, PRIORITY, 0, 1, &[]).unwrap();
        receive(&mut state, PRIORITY, 0, 3, &[]).unwrap_err();
    }

    #[test]
    fn streams_with_much_to_send_take_turns() {
        let mut state = asked(1);
        ask(&mut state, 3, true).unwrap().unwrap();
        give(&mut state, 1, 2 * MAX_DATA);
        give(&mut state, 3, MAX_DATA + 1);
        state.finish(3, Ending::End).unwrap();
        let turns: Vec<_> = written(&mut state)
            .iter()
            .map(|frame| (frame.1, frame.2))
            .collect();
        assert_eq!(turns, [(0, 1), (0, 3), (0, 1), (END_STREAM, 3)]);
    }

    #[test]
    fn content_waits_for_both_windows() {
        let mut state = asked(1);
        give(&mut state, 1, 70_000);
        state.finish(1, Ending::End).unwrap();
        let sent: u32 = written(&mut state).iter().map(|frame| frame.3).sum();
        assert_eq!(sent, 65_535);
        widen(&mut state, 1, 10_000);
        assert_eq!(written(&mut state), []);
        widen(&mut state, 0, 4_000);
        assert_eq!(written(&mut state), [(DATA, 0, 1, 4_000)]);
        widen(&mut state, 0, 4_000);
        assert_eq!(written(&mut state), [(DATA, END_STREAM, 1, 465)]);
    }

    #[test]
    fn a_window_that_is_made_smaller_counts_for_streams_that_are_there() {
        let mut state = asked(1);
        give(&mut state, 1, 10);
        written(&mut state);
        let window = |size: u32| [&[0, 4][..], &size.to_be_bytes()].concat();
        receive(&mut state, SETTINGS, 0, 0, &window(5)).unwrap();
        give(&mut state, 1, 3);
        assert_eq!(written(&mut state), [(SETTINGS, ACK, 0, 0)]);
        receive(&mut state, SETTINGS, 0, 0, &window(12)).unwrap();
        assert_eq!(written(&mut state), [(SETTINGS, ACK, 0, 0), (DATA, 0, 1, 2)]);
        widen(&mut state, 1, 100);
        let most = window((1 << 31) - 1);
        let violation = receive(&mut state, SETTINGS, 0, 0, &most).unwrap_err();
        assert_eq!(violation.reason, Reason::FLOW_CONTROL_ERROR);
    }

    #[test]
    fn what_breaks_off_is_reset_behind_what_can_leave_and_at_once_if_nothing_can() {
        let mut state = asked(1);
        give(&mut state, 1, 10);
        state.break_behind(1, Reason::INTERNAL_ERROR);
        let reset = (RST_STREAM, 0, 1, Reason::INTERNAL_ERROR.0);
        assert_eq!(written(&mut state), [(DATA, 0, 1, 10), reset]);

        let mut state = asked(1);
        give(&mut state, 1, 65_535);
        written(&mut state);
        give(&mut state, 1, 10);
        state.break_behind(1, Reason::INTERNAL_ERROR);
        assert_eq!(written(&mut state), [reset]);
    }

    #[test]
    fn every_byte_that_comes_makes_room_again_whether_it_is_taken_or_not() {
        type Way = fn(&mut State);
        let half = vec![0; ROOM as usize / 2];
        let ways: [(&str, Way); 4] = [
            ("taken", |state| {
                let context = &mut Context::from_waker(Waker::noop());
                assert!(state.stream(1).unwrap().poll_frame(context).is_ready());
                state.taken(1, ROOM as usize / 2);
            }),
            ("passed over before it came", |state| state.pass_over(1)),
            ("passed over", |state| state.pass_over(1)),
            ("reset before it came", |state| state.reset(1, Reason::CANCEL)),
        ];
        for (way, take) in ways {
            let mut state = state(SERVER);
            ask(&mut state, 1, false).unwrap().unwrap();
            if way.ends_with("before it came") {
                take(&mut state);
            }
            receive(&mut state, DATA, 0, 1, &half).unwrap();
            if !way.ends_with("before it came") {
                take(&mut state);
            }
            let updates = written(&mut state);
            assert!(
                updates.contains(&(WINDOW_UPDATE, 0, 0, ROOM / 2)),
                "{way}: {updates:?}"
            );
        }
    }

    #[test]
    fn more_than_a_window_is_refused() {
        let mut state = state(OwnSettings {
            initial_window: 10,
            ..SERVER
        });
        ask(&mut state, 1, false).unwrap().unwrap();
        receive(&mut state, DATA, 0, 1, &[0; 11]).unwrap();
        assert_eq!(
            written(&mut state),
            [(RST_STREAM, 0, 1, Reason::FLOW_CONTROL_ERROR.0)]
        );
        let violation = receive(&mut state, DATA, 0, 1, &[0; ROOM as usize]).unwrap_err();
        assert_eq!(violation.reason, Reason::FLOW_CONTROL_ERROR);
    }

    #[test]
    fn a_stream_that_is_over_is_passed_over_reset_or_an_error_by_how_it_ended() {
        // By us.
        let mut state = state(SERVER);
        ask(&mut state, 1, false).unwrap().unwrap();
        state.reset(1, Reason::CANCEL);
        state.let_go(1);
        state.let_go(1);
        assert!(state.stream(1).is_none());
        written(&mut state);
        receive(&mut state, DATA, 0, 1, b"late").unwrap();
        assert_eq!(
            ask(&mut state, 1, true).map(|request| request.is_some()),
            Ok(false)
        );
        assert_eq!(written(&mut state), []);
        // By the other side.
        ask(&mut state, 3, false).unwrap().unwrap();
        receive(&mut state, RST_STREAM, 0, 3, &[0; 4]).unwrap();
        receive(&mut state, DATA, 0, 3, b"late").unwrap();
        let reset = [(RST_STREAM, 0, 3, Reason::STREAM_CLOSED.0)];
        assert_eq!(written(&mut state), reset);
        state.let_go(3);
        state.let_go(3);
        receive(&mut state, DATA, 0, 3, b"late").unwrap();
        assert_eq!(written(&mut state), reset);
        // Regularly.
        ask(&mut state, 5, true).unwrap().unwrap();
        state.finish(5, Ending::End).unwrap();
        written(&mut state);
        state.let_go(5);
        state.let_go(5);
        let violation = receive(&mut state, DATA, 0, 5, b"late").unwrap_err();
        assert_eq!(violation.reason, Reason::STREAM_CLOSED);
        // Never begun.
        let violation = receive(&mut state, DATA, 0, 7, b"early").unwrap_err();
        assert_eq!(violation.reason, Reason::PROTOCOL_ERROR);
    }

    #[test]
    fn streams_count_until_both_sides_are_over() {
        let mut state = asked(1);
        ask(&mut state, 3, true).unwrap().unwrap();
        assert!(ask(&mut state, 5, true).unwrap().is_none());
        assert_eq!(
            written(&mut state),
            [(RST_STREAM, 0, 5, Reason::REFUSED_STREAM.0)]
        );
        state.finish(1, Ending::End).unwrap();
        written(&mut state);
        // Though the handles are there still.
        assert!(ask(&mut state, 7, true).unwrap().is_some());
    }

    #[test]
    fn an_answer_that_is_over_before_its_request_asks_for_no_more_of_it() {
        let mut state = state(SERVER);
        ask(&mut state, 1, false).unwrap().unwrap();
        state.finish(1, Ending::End).unwrap();
        state.let_go(1);
        state.let_go(1);
        let end = [(DATA, END_STREAM, 1, 0), (RST_STREAM, 0, 1, Reason::NO_ERROR.0)];
        assert_eq!(written(&mut state), end);
    }

    #[test]
    fn the_last_stream_is_named_when_all_has_come_that_was_sent_before_the_farewell() {
        let mut state = asked(1);
        state.leave();
        let ping = (PING, 0, 0, 8);
        assert_eq!(written(&mut state), [(GOAWAY, 0, 0, 0), ping]);
        assert!(ask(&mut state, 3, true).unwrap().is_some());
        receive(&mut state, PING, ACK, 0, &1_u64.to_be_bytes()).unwrap();
        assert_eq!(written(&mut state), [(GOAWAY, 0, 0, 0)]);
        assert!(ask(&mut state, 5, false).unwrap().is_none());
        receive(&mut state, DATA, 0, 5, b"passed over").unwrap();
        assert!(!state.is_over());
        for id in [1, 3] {
            state.finish(id, Ending::End).unwrap();
        }
        written(&mut state);
        assert!(state.is_over());
    }

    #[test]
    fn what_a_server_has_not_looked_at_may_go_to_another_one() {
        let mut state = state(CLIENT);
        state.count_opener();
        let head = Request::get("https://a.test/").body(()).unwrap();
        let first = state.open(&head, true).unwrap();
        let second = state.open(&head, true).unwrap();
        receive(&mut state, GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).unwrap();
        assert!(!is_broken(&mut state, first));
        let broken = state.stream(second).unwrap().broken.as_ref().unwrap();
        assert!(broken.error.is_unprocessed());
        assert!(matches!(state.open(&head, true), Err(Http2Error::Unprocessed(_))));
        assert!(!state.is_over());
        state
            .receive_block(first, true, fields(&[(Pseudo::Status, "200")]))
            .unwrap();
        assert!(state.is_over());
    }

    #[test]
    fn an_answer_comes_in_its_order_and_has_the_length_it_declares() {
        let mut state = state(CLIENT);
        let head = Request::get("https://a.test/").body(()).unwrap();
        for (blocks, is_answer) in [
            (&[("103", false), ("200", false)][..], true),
            (&[("103", true)], false),
            (&[("101", false)], false),
            (&[("200", false), ("200", false)], false),
            (&[("200", true)], true),
        ] {
            let id = state.open(&head, true).unwrap();
            for (status, is_last) in blocks {
                state
                    .receive_block(id, *is_last, fields(&[(Pseudo::Status, *status)]))
                    .unwrap();
            }
            assert_ne!(is_broken(&mut state, id), is_answer, "{blocks:?}");
        }
        let id = state.open(&head, true).unwrap();
        receive(&mut state, DATA, 0, id, b"before its head").unwrap();
        assert!(is_broken(&mut state, id));
    }

    #[test]
    fn a_head_that_is_too_large_is_answered_and_the_next_request_is_served() {
        let mut state = state(SERVER);
        let mut large = fields(&[]);
        large.add(Field::Malformed, 2000);
        assert!(state.receive_block(1, false, large).unwrap().is_none());
        let answer = written(&mut state);
        assert_eq!(
            (answer[0].0, answer[0].1 & END_STREAM),
            (frame::HEADERS, END_STREAM)
        );
        assert_eq!(answer[1], (RST_STREAM, 0, 1, Reason::NO_ERROR.0));
        receive(&mut state, DATA, 0, 1, b"on its way").unwrap();
        assert!(ask(&mut state, 3, true).unwrap().is_some());
    }

    #[test]
    fn a_busy_client_may_give_up_a_part_of_what_it_asks() {
        let is_too_much = |begun, given_up| Tally { begun, given_up }.is_too_much();
        assert!(!is_too_much(MOST_GIVEN_UP, MOST_GIVEN_UP));
        assert!(is_too_much(MOST_GIVEN_UP + 1, MOST_GIVEN_UP + 1));
        assert!(!is_too_much(10 * MOST_GIVEN_UP, 2 * MOST_GIVEN_UP));
        assert!(is_too_much(10 * MOST_GIVEN_UP, 6 * MOST_GIVEN_UP));
    }

    #[test]
    fn streams_that_a_client_resets_and_that_are_malformed_count_as_given_up() {
        let mut state = asked(1);
        receive(&mut state, RST_STREAM, 0, 1, &[0; 4]).unwrap();
        state.receive_block(3, true, fields(&[])).unwrap();
        ask(&mut state, 5, true).unwrap();
        receive(&mut state, WINDOW_UPDATE, 0, 5, &[0; 4]).unwrap();
        assert_eq!((state.tally.begun, state.tally.given_up), (3, 3));
    }
}
