//! What comes over a connection.

use bytes::BytesMut;
use http::{HeaderMap, Method, Request, StatusCode};

use super::super::Http2Error;
use super::super::frame::{
    self, ACK, DATA, END_STREAM, FrameHead, GOAWAY, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, Reason,
    SETTINGS, Violation, WINDOW_UPDATE,
};
use super::super::head::{Fields, declared_length, write_response};
use super::super::settings;
use super::super::stream::Stream;
use super::{End, Leaving, Role, State};

impl State {
    /// Any frame but those of header blocks.
    pub(in crate::http2) fn receive(&mut self, head: FrameHead, payload: BytesMut) -> Result<(), Violation> {
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
        self.wake_openers();
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
            self.wake_openers();
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
    pub(in crate::http2) fn receive_block(
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
