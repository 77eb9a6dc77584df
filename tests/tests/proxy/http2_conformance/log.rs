//! What a server said.

use std::fmt;

use crate::frames::{
    ACK, DATA, END_STREAM, GOAWAY, HEADERS, NO_ERROR, RST_STREAM, Received, SETTINGS, WINDOW_UPDATE,
};

/// All that came.
#[derive(Default)]
pub(super) struct Log {
    frames: Vec<Received>,
    pub(super) is_closed: bool,
}

impl Log {
    /// Whether the server itself says only what it may: its preface first (RFC 9113 3.4), no offer of pushes (6.5.2),
    /// and no frame that is larger than any client takes (4.2).
    pub(super) fn is_well_formed(&self) -> Result<(), String> {
        let is_settings = |frame: &Received| frame.kind == SETTINGS && frame.flags & ACK == 0;
        if !self.frames.first().is_none_or(is_settings) {
            return Err("the first frame is no SETTINGS".to_owned());
        }
        if self.setting(2) == Some(1) {
            return Err("a server announced ENABLE_PUSH".to_owned());
        }
        match self.frames.iter().any(|frame| frame.payload.len() > 1 << 14) {
            true => Err("a frame is larger than 2^14".to_owned()),
            false => Ok(()),
        }
    }

    pub(super) fn add(&mut self, frame: Received) {
        self.frames.push(frame);
    }

    pub(super) fn of(&self, kind: u8, stream: u32) -> impl Iterator<Item = &Received> {
        let frames = self.frames.iter();
        frames.filter(move |frame| frame.kind == kind && frame.stream == stream)
    }

    pub(super) fn count(&self, kind: u8, flags: u8, payload: &[u8]) -> usize {
        self.of(kind, 0)
            .filter(|frame| frame.flags == flags && frame.payload == payload)
            .count()
    }

    /// Of the answer, not of what came before it.
    pub(super) fn status(&self, stream: u32) -> Option<u16> {
        self.of(HEADERS, stream)
            .filter_map(|frame| read_status(&frame.payload))
            .find(|status| *status >= 200)
    }

    pub(super) fn has_ended(&self, stream: u32) -> bool {
        let frames = self.of(HEADERS, stream).chain(self.of(DATA, stream));
        frames.into_iter().any(|frame| frame.flags & END_STREAM != 0)
    }

    pub(super) fn reset(&self, stream: u32) -> Option<u32> {
        let frame = self.of(RST_STREAM, stream).next()?;
        Some(number(&frame.payload))
    }

    pub(super) fn length(&self, stream: u32) -> usize {
        self.of(DATA, stream).map(|frame| frame.payload.len()).sum()
    }

    /// All that a window was ever opened for.
    pub(super) fn credited(&self, stream: u32, first: u32) -> u64 {
        let updates = self.of(WINDOW_UPDATE, stream);
        let credit = updates.map(|frame| u64::from(number(&frame.payload)));
        u64::from(first) + credit.sum::<u64>()
    }

    pub(super) fn setting(&self, id: u16) -> Option<u32> {
        let announced = self.of(SETTINGS, 0).find(|frame| frame.flags & ACK == 0)?;
        let mut values = announced.payload.chunks_exact(6);
        let value = values.find(|value| value[..2] == id.to_be_bytes())?;
        Some(number(&value[2..]))
    }

    /// The last stream and the code of the last GOAWAY.
    pub(super) fn go_away(&self) -> Option<(u32, u32)> {
        let frame = self.of(GOAWAY, 0).last()?;
        Some((number(&frame.payload), number(&frame.payload[4..])))
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_closed || self.go_away().is_some_and(|(_, code)| code != NO_ERROR)
    }

    /// Whether the connection has ended as it had to.
    pub(super) fn end(&self, right: impl Fn(u32, u32) -> bool) -> Option<bool> {
        match self.go_away() {
            Some((_, NO_ERROR)) | None => self.is_closed.then_some(false),
            Some((last, code)) if right(last, code) => self.is_closed.then_some(true),
            Some(_) => Some(false),
        }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KINDS: [&str; 10] = [
            "DATA",
            "HEADERS",
            "PRIORITY",
            "RST_STREAM",
            "SETTINGS",
            "PUSH_PROMISE",
            "PING",
            "GOAWAY",
            "WINDOW_UPDATE",
            "CONTINUATION",
        ];
        for frame in self.frames.iter().rev().take(12).rev() {
            let kind = KINDS.get(usize::from(frame.kind)).unwrap_or(&"?");
            let start = &frame.payload[..frame.payload.len().min(8)];
            write!(f, "{kind}({}, {:#x}, {start:x?}) ", frame.stream, frame.flags)?;
        }
        f.write_str(if self.is_closed { "end" } else { "..." })
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

/// The first field of an answer: from the static table (RFC 7541 appendix A), or its digits, plain or in Huffman's code.
fn read_status(block: &[u8]) -> Option<u16> {
    // Updates of the table's size may stand before it.
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    match &block[start..] {
        [index @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)]),
        [name, 3, a, b, c, ..] if is_status(*name) => std::str::from_utf8(&[*a, *b, *c]).ok()?.parse().ok(),
        [name, length @ 0x82..=0x83, rest @ ..] if is_status(*name) => {
            read_digits(rest.get(..usize::from(length & 0x7f))?)
        }
        _ => None,
    }
}

/// A literal whose name is `:status` (RFC 7541 6.2), kept or not.
fn is_status(name: u8) -> bool {
    matches!(name, 0x48..=0x4e | 0x08..=0x0e | 0x18..=0x1e)
}

/// RFC 7541 appendix B: 0, 1 and 2 have five bits, the others six.
fn read_digits(code: &[u8]) -> Option<u16> {
    let bits = code.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = 8 * code.len() as u32;
    let mut value = 0;
    for _ in 0..3 {
        let next = |width: u32| Some(bits >> left.checked_sub(width)? & ((1 << width) - 1));
        let (digit, width) = match next(5)? {
            digit @ 0..=2 => (digit, 5),
            _ => (next(6)?.checked_sub(0x19)? + 3, 6),
        };
        left -= width;
        value = 10 * value + digit as u16;
    }
    Some(value)
}
