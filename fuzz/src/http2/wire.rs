//! A reader of HTTP/2 that takes what RFC 9113 has at its word for. It shares no code with the proxy.

use loona_hpack::Decoder;

use crate::message::Fields;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
const HAS_PRIORITY: u8 = 0x20;

/// Nobody here takes longer frames.
const MAX_PAYLOAD: usize = 16_384;
/// Of the dynamic table, as nobody here changes it.
pub(super) const TABLE: usize = 4096;
const INITIAL_WINDOW: [u8; 2] = [0, 4];

/// RFC 9113 4.1.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What the frames of one side say.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) stream: u32,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Fields {
        fields: Fields,
        is_last: bool,
    },
    /// `length` is what it takes of the windows.
    Content {
        content: Vec<u8>,
        length: usize,
        is_last: bool,
    },
    Reset,
    /// With the first window of a stream, if they say one.
    Settings(Option<u32>),
    Room(u32),
    /// With its reason.
    Farewell(u32),
}

/// Where reading came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// That of the bytes, or in the middle of a frame.
    OfBytes,
    /// Something that ends a connection.
    Forbidden,
    /// A block of fields that the other decoder does not take. Ours may.
    Unreadable,
}

/// What bytes say that begin with the settings.
pub(super) fn read(mut bytes: &[u8]) -> (Vec<Said>, End) {
    let mut reader = Reader::new();
    loop {
        let frame = match Frame::split(&mut bytes) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (reader.said, End::OfBytes),
            Err(end) => return (reader.said, end),
        };
        if let Err(end) = reader.take(&frame) {
            return (reader.said, end);
        }
    }
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    fn split(bytes: &mut &'a [u8]) -> Result<Option<Self>, End> {
        let Some(([a, b, c, kind, flags, stream @ ..], rest)) = bytes.split_first_chunk::<9>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if length > MAX_PAYLOAD {
            return Err(End::Forbidden);
        }
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            return Ok(None);
        };
        *bytes = rest;
        Ok(Some(Self {
            kind: *kind,
            flags: *flags,
            stream: without_reserved(*stream),
            payload,
        }))
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload without its padding and the priority before it.
    fn content(&self) -> Result<&'a [u8], End> {
        let mut content = self.payload;
        if self.has(PADDED) {
            let (padding, rest) = content.split_first().ok_or(End::Forbidden)?;
            let length = rest.len().checked_sub((*padding).into()).ok_or(End::Forbidden)?;
            content = &rest[..length];
        }
        if self.kind == HEADERS && self.has(HAS_PRIORITY) {
            content = content.get(5..).ok_or(End::Forbidden)?;
        }
        Ok(content)
    }

    /// RFC 9113 6: what is of a stream, and what of the connection, and of which length.
    fn is_right(&self) -> bool {
        let length = self.payload.len();
        match self.kind {
            DATA | HEADERS | PRIORITY | CONTINUATION => self.stream != 0,
            RST_STREAM => self.stream != 0 && length == 4,
            SETTINGS => self.stream == 0 && length.is_multiple_of(6) && (!self.has(ACK) || length == 0),
            PUSH_PROMISE => false,
            PING => self.stream == 0 && length == 8,
            GOAWAY => self.stream == 0 && length >= 8,
            WINDOW_UPDATE => length == 4,
            _ => true,
        }
    }
}

fn without_reserved(number: [u8; 4]) -> u32 {
    u32::from_be_bytes(number) & 0x7fff_ffff
}

struct Reader {
    decoder: Decoder<'static>,
    has_settings: bool,
    block: Option<Block>,
    said: Vec<Said>,
}

struct Block {
    stream: u32,
    is_last: bool,
    bytes: Vec<u8>,
}

impl Reader {
    fn new() -> Self {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(TABLE);
        Self {
            decoder,
            has_settings: false,
            block: None,
            said: Vec::new(),
        }
    }

    fn take(&mut self, frame: &Frame<'_>) -> Result<(), End> {
        let is_first = !std::mem::replace(&mut self.has_settings, true);
        let is_greeting = frame.kind == SETTINGS && !frame.has(ACK);
        if is_first && !is_greeting || !frame.is_right() {
            return Err(End::Forbidden);
        }
        let (kind, stream) = (frame.kind, frame.stream);
        match self.block.take() {
            Some(block) if (kind, stream) != (CONTINUATION, block.stream) => Err(End::Forbidden),
            Some(mut block) => {
                block.bytes.extend(frame.payload);
                self.go_on(block, frame.has(END_HEADERS))
            }
            None if kind == CONTINUATION => Err(End::Forbidden),
            None if kind == HEADERS => {
                let block = Block {
                    stream,
                    is_last: frame.has(END_STREAM),
                    bytes: frame.content()?.to_vec(),
                };
                self.go_on(block, frame.has(END_HEADERS))
            }
            None => {
                let what = other(frame)?;
                self.said
                    .extend(what.into_iter().map(|what| Said { stream, what }));
                Ok(())
            }
        }
    }

    fn go_on(&mut self, block: Block, is_whole: bool) -> Result<(), End> {
        if !is_whole {
            self.block = Some(block);
            return Ok(());
        }
        let fields = self.decoder.decode(&block.bytes).map_err(|_| End::Unreadable)?;
        let is_last = block.is_last;
        self.said.push(Said {
            stream: block.stream,
            what: What::Fields { fields, is_last },
        });
        Ok(())
    }
}

fn other(frame: &Frame<'_>) -> Result<Option<What>, End> {
    Ok(Some(match frame.kind {
        DATA => What::Content {
            content: frame.content()?.to_vec(),
            length: frame.payload.len(),
            is_last: frame.has(END_STREAM),
        },
        RST_STREAM => What::Reset,
        WINDOW_UPDATE => {
            let room = frame.payload.first_chunk().copied().unwrap_or_default();
            What::Room(without_reserved(room))
        }
        GOAWAY => {
            let reason = frame.payload[4..].first_chunk().copied().unwrap_or_default();
            What::Farewell(u32::from_be_bytes(reason))
        }
        SETTINGS => {
            let mut settings = frame.payload.as_chunks::<6>().0.iter().rev();
            let window = settings.find(|setting| setting.starts_with(&INITIAL_WINDOW));
            What::Settings(window.map(|[_, _, window @ ..]| u32::from_be_bytes(*window)))
        }
        _ => return Ok(None),
    }))
}
