//! Frames as a client writes them, right or wrong.

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, WITH_PRIORITY, field, frame,
};

/// A HEADERS frame. Without further words it has the whole block, and another frame of its stream follows.
#[derive(Clone)]
pub(super) struct Headers {
    stream: u32,
    flags: u8,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    block: Vec<u8>,
    padding: Option<u8>,
    priority: Option<[u8; 5]>,
}

/// No field yet.
pub(super) fn headers(stream: u32) -> Headers {
    Headers {
        stream,
        flags: END_HEADERS,
        fields: Vec::new(),
        block: Vec::new(),
        padding: None,
        priority: None,
    }
}

/// A request whose body follows.
pub(super) fn post(stream: u32) -> Headers {
    request(stream, "POST")
}

/// A request that is whole.
pub(super) fn get(stream: u32) -> Headers {
    request(stream, "GET").end()
}

fn request(stream: u32, method: &str) -> Headers {
    headers(stream)
        .field(":method", method)
        .field(":scheme", "https")
        .field(":path", "/")
        .field(":authority", "a.test")
}

impl Headers {
    pub(super) fn field(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.fields
            .push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub(super) fn stream(&self) -> u32 {
        self.stream
    }

    /// Another value for a field that is there.
    pub(super) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for field in &mut self.fields {
            if field.0 == name.as_bytes() {
                field.1 = value.as_ref().to_vec();
            }
        }
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|field| field.0 != name.as_bytes());
        self
    }

    pub(super) fn path(self, path: &str) -> Self {
        self.with(":path", path)
    }

    /// What follows the fields in the block, as it is.
    pub(super) fn bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.block.extend(bytes.as_ref());
        self
    }

    pub(super) fn end(mut self) -> Self {
        self.flags |= END_STREAM;
        self
    }

    /// CONTINUATION follows.
    pub(super) fn continued(mut self) -> Self {
        self.flags &= !END_HEADERS;
        self
    }

    pub(super) fn flags(mut self, flags: u8) -> Self {
        self.flags |= flags;
        self
    }

    pub(super) fn padded(mut self, length: u8) -> Self {
        self.padding = Some(length);
        self
    }

    pub(super) fn depending_on(mut self, stream: u32) -> Self {
        self.priority = Some(dependency(stream));
        self
    }

    pub(super) fn block(&self) -> Vec<u8> {
        let fields = self.fields.iter().flat_map(|(name, value)| field(name, value));
        fields.chain(self.block.iter().copied()).collect()
    }
}

impl From<Headers> for Vec<u8> {
    fn from(headers: Headers) -> Self {
        let mut flags = headers.flags;
        let mut payload = headers.block();
        if let Some(priority) = headers.priority {
            flags |= WITH_PRIORITY;
            payload.splice(..0, priority);
        }
        pad(HEADERS, flags, headers.stream, payload, headers.padding)
    }
}

/// A DATA frame. Without further words another frame of its stream follows.
pub(super) struct Data {
    stream: u32,
    flags: u8,
    content: Vec<u8>,
    padding: Option<u8>,
}

pub(super) fn data(stream: u32, content: impl AsRef<[u8]>) -> Data {
    Data {
        stream,
        flags: 0,
        content: content.as_ref().to_vec(),
        padding: None,
    }
}

impl Data {
    pub(super) fn end(mut self) -> Self {
        self.flags |= END_STREAM;
        self
    }

    pub(super) fn padded(mut self, length: u8) -> Self {
        self.padding = Some(length);
        self
    }
}

impl From<Data> for Vec<u8> {
    fn from(data: Data) -> Self {
        pad(DATA, data.flags, data.stream, data.content, data.padding)
    }
}

fn pad(kind: u8, flags: u8, stream: u32, payload: Vec<u8>, padding: Option<u8>) -> Vec<u8> {
    let Some(length) = padding else {
        return frame(kind, flags, stream, &payload);
    };
    let padded = [vec![length], payload, vec![0; length.into()]].concat();
    frame(kind, flags | PADDED, stream, &padded)
}

/// The end of a block.
pub(super) fn continuation(stream: u32, block: impl AsRef<[u8]>) -> Vec<u8> {
    frame(CONTINUATION, END_HEADERS, stream, block.as_ref())
}

pub(super) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(super) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let value = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &values.iter().flat_map(value).collect::<Vec<_>>())
}

pub(super) fn ping(payload: &[u8; 8]) -> Vec<u8> {
    frame(PING, 0, 0, payload)
}

pub(super) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(super) fn priority(stream: u32, parent: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &dependency(parent))
}

/// RFC 7540 6.3, with the weight that is the default.
fn dependency(stream: u32) -> [u8; 5] {
    let [a, b, c, d] = stream.to_be_bytes();
    [a, b, c, d, 15]
}
