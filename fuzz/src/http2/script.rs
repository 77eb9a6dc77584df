//! What one side says, as a script, so that made-up bytes get further than to the first frame that is none.
//!
//! A line is a field, `:path /x`. Other lines begin with a sign of their own:
//!
//! | Line | Meaning |
//! | --- | --- |
//! | `>text` | a part of the body; fields behind it are trailers |
//! | `==` | what follows is of the next stream |
//! | `=5` | what follows is of stream 5; of the connection, if it is 0 |
//! | `..` | the stream is left open; others end with the last that is said of them |
//! | `--` | the other side may answer what came so far |
//! | `*x y` | a field that gets an index |
//! | `&62` | the field with that index |
//! | `~3 2` | blocks of fields are cut into pieces of three bytes from here on, and padded with two |
//! | `!8 0 text` | a frame of kind 8 without flags |
//! | `<text` | bytes as they are |
//!
//! Before it goes what a connection begins with: nothing of it if the script begins with `<`, and no settings if it
//! begins with `=0`.
//! `%0A` and the like stand for a byte.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::{ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, SETTINGS, frame};

/// What is sent, in pieces: between them the other side may answer.
pub(super) fn read_script(script: &[u8], preface: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = Reader::default();
    for line in script.split(|byte| *byte == b'\n') {
        reader.take(line);
    }
    reader.end_block();
    let mut pieces = reader.written();
    let settings = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat();
    let greeting = match script {
        [b'<', ..] => Vec::new(),
        [b'=', b'0', ..] => preface.to_vec(),
        _ => [preface, &settings].concat(),
    };
    pieces[0].splice(..0, greeting);
    pieces
}

/// Some of it is written when all has been read: whether a frame is the last of its stream.
enum Step {
    Message {
        stream: u32,
        kind: u8,
        payload: Vec<u8>,
        cut: usize,
        padding: u8,
    },
    Bytes(Vec<u8>),
    Pause,
}

struct Reader {
    steps: Vec<Step>,
    stream: u32,
    highest: u32,
    /// Of the fields that were read last.
    block: Vec<u8>,
    cut: usize,
    padding: u8,
    left_open: BTreeSet<u32>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            steps: Vec::new(),
            stream: 1,
            highest: 1,
            block: Vec::new(),
            cut: usize::MAX,
            padding: 0,
            left_open: BTreeSet::new(),
        }
    }
}

impl Reader {
    fn take(&mut self, line: &[u8]) {
        match line {
            [] => {}
            [b'*', field @ ..] => self.add(0x40, field),
            [b'&', index @ ..] => {
                let index = integer(number(index), 7);
                self.block.extend([&[index[0] | 0x80], &index[1..]].concat());
            }
            [b'=' | b'>' | b'.' | b'-' | b'~' | b'!' | b'<', ..] => {
                self.end_block();
                self.take_other(line);
            }
            field => self.add(0, field),
        }
    }

    fn take_other(&mut self, line: &[u8]) {
        match line {
            b"==" => self.turn_to(self.highest.saturating_add(2)),
            b".." => drop(self.left_open.insert(self.stream)),
            b"--" => self.steps.push(Step::Pause),
            [b'=', number_of @ ..] => self.turn_to(number(number_of)),
            [b'>', text @ ..] => self.say(DATA, decoded(text)),
            [b'<', bytes @ ..] => self.steps.push(Step::Bytes(decoded(bytes))),
            [b'~', numbers @ ..] => {
                let (cut, padding) = split(numbers);
                self.cut = number(cut).max(1) as usize;
                self.padding = number(padding) as u8;
            }
            [b'!', rest @ ..] => {
                let (kind, rest) = split(rest);
                let (flags, payload) = split(rest);
                let (kind, flags) = (number(kind) as u8, number(flags) as u8);
                let frame = frame(kind, flags, self.stream, &decoded(payload));
                self.steps.push(Step::Bytes(frame));
            }
            _ => {}
        }
    }

    fn turn_to(&mut self, stream: u32) {
        self.stream = stream;
        self.highest = self.highest.max(stream);
    }

    /// HPACK's plainest way (RFC 7541 6.2): a new name, no Huffman code.
    fn add(&mut self, representation: u8, field: &[u8]) {
        let (name, value) = split(field);
        let (name, value) = (decoded(name), decoded(value));
        self.block.push(representation);
        for text in [name, value] {
            self.block.extend(integer(text.len() as u32, 7));
            self.block.extend(text);
        }
    }

    fn end_block(&mut self) {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block);
            self.say(HEADERS, block);
        }
    }

    fn say(&mut self, kind: u8, payload: Vec<u8>) {
        self.steps.push(Step::Message {
            stream: self.stream,
            kind,
            payload,
            cut: self.cut,
            padding: self.padding,
        });
    }

    fn written(self) -> Vec<Vec<u8>> {
        let mut last = BTreeMap::new();
        for (place, step) in self.steps.iter().enumerate() {
            if let Step::Message { stream, .. } = step {
                last.insert(*stream, place);
            }
        }
        last.retain(|stream, _| !self.left_open.contains(stream));
        let mut pieces = vec![Vec::new()];
        for (place, step) in self.steps.into_iter().enumerate() {
            match step {
                Step::Message {
                    stream,
                    kind,
                    payload,
                    cut,
                    padding,
                } => {
                    let end = if last.get(&stream) == Some(&place) {
                        END_STREAM
                    } else {
                        0
                    };
                    let frames = message(stream, kind, end, &payload, cut, padding);
                    pieces.last_mut().expect("a piece").extend(frames);
                }
                Step::Bytes(bytes) => pieces.last_mut().expect("a piece").extend(bytes),
                Step::Pause => pieces.push(Vec::new()),
            }
        }
        pieces
    }
}

/// DATA, or a block of fields in pieces. What is padded is the first frame.
fn message(stream: u32, kind: u8, end: u8, payload: &[u8], cut: usize, padding: u8) -> Vec<u8> {
    let cut = if kind == DATA {
        payload.len()
    } else {
        cut.min(payload.len())
    };
    let (first, mut rest) = payload.split_at(cut);
    let mut flags = end;
    let mut padded = first.to_vec();
    if padding > 0 {
        flags |= PADDED;
        padded = [&[padding], first, &vec![0; padding.into()]].concat();
    }
    if kind == HEADERS && rest.is_empty() {
        flags |= END_HEADERS;
    }
    let mut frames = frame(kind, flags, stream, &padded);
    while !rest.is_empty() {
        let (next, behind) = rest.split_at(cut.min(rest.len()));
        let flags = if behind.is_empty() { END_HEADERS } else { 0 };
        frames.extend(frame(CONTINUATION, flags, stream, next));
        rest = behind;
    }
    frames
}

/// RFC 7541 5.1, with nothing before the prefix.
fn integer(value: u32, prefix: u32) -> Vec<u8> {
    let most = (1 << prefix) - 1;
    if value < most {
        return vec![value as u8];
    }
    let mut bytes = vec![most as u8];
    let mut left = value - most;
    while left >= 128 {
        bytes.push((left % 128) as u8 | 128);
        left /= 128;
    }
    bytes.push(left as u8);
    bytes
}

fn split(text: &[u8]) -> (&[u8], &[u8]) {
    let space = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
    (&text[..space], text.get(space + 1..).unwrap_or_default())
}

/// What is no number is none.
fn number(digits: &[u8]) -> u32 {
    str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

/// `%0A` and the like stand for a byte.
pub(crate) fn decoded(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let [first, rest @ ..] = text {
        let hex = rest.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        let byte = hex.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                text = &rest[2..];
            }
            None => {
                bytes.push(*first);
                text = rest;
            }
        }
    }
    bytes
}
