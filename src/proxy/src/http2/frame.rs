//! Frames as they are on the wire (RFC 9113 4 and 6).

use std::fmt;

use bytes::{BufMut, BytesMut};
use thiserror::Error;

/// Of every frame's head, in bytes.
pub(super) const HEAD: usize = 9;
/// The longest payload that everybody takes (RFC 9113 4.2); we take no longer one.
pub(super) const MAX_PAYLOAD: usize = 16_384;
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const PRIORITY: u8 = 0x2;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PUSH_PROMISE: u8 = 0x5;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x9;

pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const HAS_PRIORITY: u8 = 0x20;

/// The first bit of a stream's number, and of others, is reserved.
const NUMBER: u32 = (1 << 31) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHead {
    /// `None` if not all of it is there.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = *bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & NUMBER,
        })
    }

    pub(super) fn write(self, bytes: &mut BytesMut) {
        bytes.put_uint(self.length as u64, 3);
        bytes.put_slice(&[self.kind, self.flags]);
        bytes.put_u32(self.stream);
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Takes off the payload of DATA what is not content (RFC 9113 6.1).
    pub(super) fn strip_padding(self, payload: &mut BytesMut) -> Result<(), Violation> {
        let padding = self.take_padding_length(payload)?;
        cut(payload, padding)
    }

    /// Takes off the payload of HEADERS what is no field (RFC 9113 6.2): padding, and the deprecated priority. The stream
    /// on which it depends by that.
    pub(super) fn strip_padding_and_priority(self, payload: &mut BytesMut) -> Result<Option<u32>, Violation> {
        let padding = self.take_padding_length(payload)?;
        let priority = self
            .has(HAS_PRIORITY)
            .then(|| take_front(payload, 5))
            .transpose()?;
        cut(payload, padding)?;
        Ok(priority.map(|priority| read_number(&priority)))
    }

    fn take_padding_length(self, payload: &mut BytesMut) -> Result<usize, Violation> {
        match self.has(PADDED) {
            true => Ok(take_front(payload, 1)?[0].into()),
            false => Ok(0),
        }
    }
}

fn cut(payload: &mut BytesMut, padding: usize) -> Result<(), Violation> {
    let length = payload.len().checked_sub(padding);
    payload.truncate(length.ok_or(Violation::protocol("padding as long as its frame"))?);
    Ok(())
}

fn take_front(payload: &mut BytesMut, length: usize) -> Result<BytesMut, Violation> {
    if payload.len() < length {
        return Err(Violation::frame_size(
            "a frame without room for what its flags announce",
        ));
    }
    Ok(payload.split_to(length))
}

/// The first 31 bits behind a reserved one; there have to be as many.
pub(super) fn read_number(payload: &[u8]) -> u32 {
    let bytes = payload.first_chunk().copied().unwrap_or_default();
    u32::from_be_bytes(bytes) & NUMBER
}

pub(super) fn write(bytes: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = payload.len();
    FrameHead {
        length,
        kind,
        flags,
        stream,
    }
    .write(bytes);
    bytes.put_slice(payload);
}

pub(super) fn write_reset(bytes: &mut BytesMut, stream: u32, reason: Reason) {
    write(bytes, RST_STREAM, 0, stream, &reason.0.to_be_bytes());
}

pub(super) fn write_window_update(bytes: &mut BytesMut, stream: u32, increment: u32) {
    write(bytes, WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

pub(super) fn write_goaway(bytes: &mut BytesMut, last: u32, reason: Reason) {
    let payload = (u64::from(last) << 32) | u64::from(reason.0);
    write(bytes, GOAWAY, 0, 0, &payload.to_be_bytes());
}

/// A header block, in as many frames as it takes (RFC 9113 6.10).
pub(super) fn write_block(bytes: &mut BytesMut, stream: u32, block: &[u8], is_last: bool) {
    let mut parts = block.chunks(MAX_PAYLOAD).peekable();
    let (mut kind, mut flags) = (HEADERS, if is_last { END_STREAM } else { 0 });
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            flags |= END_HEADERS;
        }
        write(bytes, kind, flags, stream, part);
        (kind, flags) = (CONTINUATION, 0);
    }
}

/// Why a stream or a connection ends (RFC 9113 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(super) u32);

impl Reason {
    pub(crate) const NO_ERROR: Self = Self(0x0);
    pub(crate) const PROTOCOL_ERROR: Self = Self(0x1);
    pub(crate) const INTERNAL_ERROR: Self = Self(0x2);
    pub(crate) const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub(crate) const STREAM_CLOSED: Self = Self(0x5);
    pub(crate) const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub(crate) const REFUSED_STREAM: Self = Self(0x7);
    pub(crate) const CANCEL: Self = Self(0x8);
    pub(crate) const COMPRESSION_ERROR: Self = Self(0x9);
    pub(crate) const ENHANCE_YOUR_CALM: Self = Self(0xb);
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// What the other side did that it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{what} ({reason})")]
pub(crate) struct Violation {
    pub(super) reason: Reason,
    what: &'static str,
}

impl Violation {
    pub(super) const fn new(reason: Reason, what: &'static str) -> Self {
        Self { reason, what }
    }

    pub(super) const fn protocol(what: &'static str) -> Self {
        Self::new(Reason::PROTOCOL_ERROR, what)
    }

    pub(super) const fn frame_size(what: &'static str) -> Self {
        Self::new(Reason::FRAME_SIZE_ERROR, what)
    }

    pub(super) const fn flow_control(what: &'static str) -> Self {
        Self::new(Reason::FLOW_CONTROL_ERROR, what)
    }

    pub(super) const fn closed(what: &'static str) -> Self {
        Self::new(Reason::STREAM_CLOSED, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written_but_for_the_reserved_bit() {
        let head = FrameHead {
            length: 0x01_02_03,
            kind: GOAWAY,
            flags: ACK,
            stream: 5,
        };
        let mut bytes = BytesMut::new();
        head.write(&mut bytes);
        assert_eq!(&bytes[..], [1, 2, 3, 7, 1, 0, 0, 0, 5]);
        bytes[5] |= 0x80;
        assert_eq!(FrameHead::read(&bytes), Some(head));
        assert_eq!(FrameHead::read(&bytes[..8]), None);
    }

    #[test]
    fn a_block_that_is_too_long_for_one_frame_goes_on_in_others() {
        let mut bytes = BytesMut::new();
        write_block(&mut bytes, 3, &[7; MAX_PAYLOAD + 1], true);
        let first = FrameHead::read(&bytes).unwrap();
        assert_eq!((first.kind, first.flags), (HEADERS, END_STREAM));
        let second = FrameHead::read(&bytes[HEAD + MAX_PAYLOAD..]).unwrap();
        assert_eq!(
            (second.kind, second.flags, second.length),
            (CONTINUATION, END_HEADERS, 1)
        );
    }

    #[test]
    fn padding_is_taken_off_and_may_not_be_longer_than_what_it_pads() {
        let head = FrameHead {
            length: 0,
            kind: DATA,
            flags: PADDED,
            stream: 1,
        };
        let strip = |payload: &[u8]| {
            let mut payload = BytesMut::from(payload);
            head.strip_padding(&mut payload).map(|()| payload.to_vec())
        };
        assert_eq!(strip(&[2, b'x', 0, 0]), Ok(vec![b'x']));
        assert_eq!(strip(&[0]), Ok(vec![]));
        assert_eq!(strip(&[2, 0]).unwrap_err().reason, Reason::PROTOCOL_ERROR);
        assert_eq!(strip(&[]).unwrap_err().reason, Reason::FRAME_SIZE_ERROR);
    }
}
