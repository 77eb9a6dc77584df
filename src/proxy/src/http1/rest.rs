use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use httparse::{EMPTY_HEADER, Status};
use memchr::memchr;

use super::head::{MAX_FIELDS, read_fields};
use super::{END_OF_LINE, Http1Error};
use crate::framing::chunk_size;

/// A chunk's size and its extensions, of which there are next to none.
const MAX_CHUNK_LINE: usize = 1024;
const MAX_TRAILERS: usize = 16 * 1024;

/// What is still to come of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Nothing,
    Length(u64),
    UntilClose,
    /// The line before a chunk.
    ChunkSize,
    /// So much of a chunk.
    Chunk(u64),
    EndOfChunk,
    Trailers,
}

/// What the bytes give that are there.
#[derive(Debug)]
pub(super) enum Step {
    Frame(Frame<Bytes>),
    End,
    /// Nothing without more of them.
    More,
}

impl Rest {
    /// Takes the next frame off the bytes. Chunks are read as strictly as those of clients.
    pub(super) fn step(&mut self, unread: &mut BytesMut) -> Result<Step, Http1Error> {
        loop {
            match *self {
                Self::Nothing => return Ok(Step::End),
                _ if unread.is_empty() => return Ok(Step::More),
                Self::UntilClose => return Ok(Step::Frame(Frame::data(unread.split().freeze()))),
                Self::Length(left) => {
                    let (data, left) = take(unread, left);
                    *self = if left == 0 {
                        Self::Nothing
                    } else {
                        Self::Length(left)
                    };
                    return Ok(Step::Frame(Frame::data(data)));
                }
                Self::Chunk(left) => {
                    let (data, left) = take(unread, left);
                    *self = if left == 0 {
                        Self::EndOfChunk
                    } else {
                        Self::Chunk(left)
                    };
                    return Ok(Step::Frame(Frame::data(data)));
                }
                Self::EndOfChunk if unread.len() < END_OF_LINE.len() => return Ok(Step::More),
                Self::EndOfChunk if unread.starts_with(END_OF_LINE) => {
                    unread.advance(END_OF_LINE.len());
                    *self = Self::ChunkSize;
                }
                Self::EndOfChunk => return Err(Http1Error::Chunk),
                Self::ChunkSize => match take_chunk_size(unread)? {
                    None => return Ok(Step::More),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Chunk(size),
                },
                Self::Trailers => return self.take_trailers(unread),
            }
        }
    }

    fn take_trailers(&mut self, unread: &mut BytesMut) -> Result<Step, Http1Error> {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let Status::Complete((length, fields)) = httparse::parse_headers(unread, &mut fields)? else {
            return if unread.len() > MAX_TRAILERS {
                Err(Http1Error::HeadTooLarge)
            } else {
                Ok(Step::More)
            };
        };
        let trailers = read_fields(fields)?;
        unread.advance(length);
        *self = Self::Nothing;
        Ok(if trailers.is_empty() {
            Step::End
        } else {
            Step::Frame(Frame::trailers(trailers))
        })
    }

    /// So many bytes are to be read at most, as far as that is known.
    pub(super) fn expected(self) -> usize {
        match self {
            Self::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
            _ => usize::MAX,
        }
    }
}

/// As much of a part as is there, and how much of it is left.
fn take(unread: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let length = usize::try_from(left).map_or(unread.len(), |left| left.min(unread.len()));
    (unread.split_to(length).freeze(), left - length as u64)
}

/// The size of the next chunk, if the line that tells it is there whole.
fn take_chunk_size(unread: &mut BytesMut) -> Result<Option<u64>, Http1Error> {
    let Some(end) = memchr(b'\n', unread) else {
        return if unread.len() > MAX_CHUNK_LINE {
            Err(Http1Error::Chunk)
        } else {
            Ok(None)
        };
    };
    let line = unread[..end].strip_suffix(b"\r").ok_or(Http1Error::Chunk)?;
    let size = chunk_size(line).map_err(|_| Http1Error::Chunk)?;
    unread.advance(end + 1);
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an answer gives that arrives in pieces of `size`, its trailers, and whether it ended.
    fn read(mut rest: Rest, bytes: &[u8], size: usize) -> Result<(String, Vec<String>, bool), Http1Error> {
        let (mut unread, mut pieces) = (BytesMut::new(), bytes.chunks(size));
        let (mut data, mut trailers) = (Vec::new(), Vec::new());
        loop {
            match rest.step(&mut unread)? {
                Step::Frame(frame) => match frame.into_data() {
                    Ok(part) => data.extend_from_slice(&part),
                    Err(frame) => {
                        trailers.extend(frame.trailers_ref().unwrap().keys().map(ToString::to_string));
                    }
                },
                Step::End => return Ok((String::from_utf8(data).unwrap(), trailers, true)),
                Step::More => match pieces.next() {
                    Some(piece) => unread.extend_from_slice(piece),
                    None => return Ok((String::from_utf8(data).unwrap(), trailers, false)),
                },
            }
        }
    }

    #[test]
    fn a_body_ends_where_it_says_however_it_arrives() {
        for size in [1, 2, 3, 7, 4096] {
            for (rest, bytes, expected) in [
                (Rest::Nothing, "more", ("", vec![], true)),
                (Rest::Length(5), "hello and more", ("hello", vec![], true)),
                (Rest::Length(5), "hell", ("hell", vec![], false)),
                (Rest::UntilClose, "hello", ("hello", vec![], false)),
                (
                    Rest::ChunkSize,
                    "5\r\nhello\r\n0\r\n\r\nmore",
                    ("hello", vec![], true),
                ),
                (
                    Rest::ChunkSize,
                    "2;a=b\r\nhe\r\n00003 \r\nllo\r\n0\r\nX: y\r\nZ: 1\r\n\r\n",
                    ("hello", vec!["x".to_owned(), "z".to_owned()], true),
                ),
                (Rest::ChunkSize, "5\r\nhello\r\n0\r\n", ("hello", vec![], false)),
                (Rest::ChunkSize, "5\r\nhello\r\n", ("hello", vec![], false)),
            ] {
                let (data, trailers, is_over) = expected;
                let got = read(rest, bytes.as_bytes(), size).unwrap();
                assert_eq!(got, (data.to_owned(), trailers, is_over), "{bytes:?} by {size}");
            }
        }
    }

    #[test]
    fn what_is_no_chunk_ends_nothing() {
        let long = format!("5;{}", "a".repeat(2 * MAX_CHUNK_LINE));
        for bytes in [
            "\r\n",
            " \r\n",
            "5\nhello",
            "x\r\n",
            "-1\r\n",
            "0x5\r\n",
            "5\r\nhello!!",
            "5\r\nhello\n\n",
            "10000000000000000\r\n",
            &long,
        ] {
            for size in [1, 4096] {
                let got = read(Rest::ChunkSize, bytes.as_bytes(), size);
                assert!(
                    matches!(got, Err(Http1Error::Chunk)),
                    "{bytes:?} by {size}: {got:?}"
                );
            }
        }
    }

    #[test]
    fn trailers_have_an_end() {
        let endless = format!("0\r\nX: {}", "y".repeat(2 * MAX_TRAILERS));
        let got = read(Rest::ChunkSize, endless.as_bytes(), 4096);
        assert!(matches!(got, Err(Http1Error::HeadTooLarge)), "{got:?}");
    }
}
