//! A body in chunks (RFC 9112 7.1).

use bytes::{Buf, BytesMut};
use http_body::Frame;
use httparse::{EMPTY_HEADER, Status};
use memchr::memchr;

use super::head::{MAX_FIELDS, end_of_section, read_fields};
use super::rest::{Step, take};
use super::{END_OF_LINE, Http1Error};

/// A chunk's size and its extensions, of which there are next to none.
const MAX_LINE: usize = 300;
/// What a chunk costs that is sensible, beside its data.
const USUAL_COST: u64 = 16;
/// So much more may they cost together: a body that is little else keeps everybody busy for nothing.
const MAX_EXCESS: u64 = 16 * 1024;
/// The largest number has twenty.
const MAX_DIGITS: usize = 20;
const MAX_TRAILERS: usize = 16 * 1024;

/// The place in such a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    place: Place,
    /// So many bytes more than usual have gone for what is not content.
    excess: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The line before a chunk.
    Size,
    /// So much of a chunk.
    Data(u64),
    EndOfData,
    Trailers,
    Over,
}

impl Chunks {
    pub(super) const BEGIN: Self = Self {
        place: Place::Size,
        excess: 0,
    };

    pub(super) fn is_over(&self) -> bool {
        self.place == Place::Over
    }

    /// Takes the next frame off the bytes.
    pub(super) fn step(&mut self, unread: &mut BytesMut) -> Result<Step, Http1Error> {
        loop {
            match &mut self.place {
                Place::Data(left) => {
                    let data = take(unread, left);
                    if *left == 0 {
                        self.place = Place::EndOfData;
                    }
                    return Ok(Step::Frame(Frame::data(data)));
                }
                Place::EndOfData if unread.len() < END_OF_LINE.len() => return Ok(Step::More),
                Place::EndOfData if unread.starts_with(END_OF_LINE) => {
                    unread.advance(END_OF_LINE.len());
                    self.place = Place::Size;
                }
                Place::EndOfData => return Err(Http1Error::Chunk),
                Place::Size => match self.take_size(unread)? {
                    None => return Ok(Step::More),
                    Some(0) => self.place = Place::Trailers,
                    Some(size) => self.place = Place::Data(size),
                },
                Place::Trailers => return self.take_trailers(unread),
                Place::Over => return Ok(Step::End),
            }
            if unread.is_empty() {
                return Ok(Step::More);
            }
        }
    }

    /// The size of the next chunk, if the line that tells it is there whole.
    fn take_size(&mut self, unread: &mut BytesMut) -> Result<Option<u64>, Http1Error> {
        let Some(end) = memchr(b'\n', unread) else {
            return if unread.len() > MAX_LINE {
                Err(Http1Error::Chunk)
            } else {
                Ok(None)
            };
        };
        let line = unread[..end].strip_suffix(b"\r").ok_or(Http1Error::Chunk)?;
        let size = size(line).ok_or(Http1Error::Chunk)?;
        let usual = size.saturating_add(USUAL_COST);
        self.excess = (self.excess + line.len() as u64).saturating_sub(usual);
        if self.excess > MAX_EXCESS {
            return Err(Http1Error::Chunk);
        }
        unread.advance(end + 1);
        Ok(Some(size))
    }

    fn take_trailers(&mut self, unread: &mut BytesMut) -> Result<Step, Http1Error> {
        let Some(length) = end_of_section(unread).map_err(|_| Http1Error::Chunk)? else {
            return if unread.len() > MAX_TRAILERS {
                Err(Http1Error::HeadTooLarge)
            } else {
                Ok(Step::More)
            };
        };
        let section = unread.split_to(length).freeze();
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let Status::Complete((_, fields)) = httparse::parse_headers(&section, &mut fields)? else {
            return Err(Http1Error::Chunk);
        };
        let trailers = read_fields(&section, fields)?;
        self.place = Place::Over;
        Ok(if trailers.is_empty() {
            Step::End
        } else {
            Step::Frame(Frame::trailers(trailers))
        })
    }
}

/// The number before the extensions. Those mean nothing to anybody here, and so may neither be long nor be none: where
/// such a line ends could be read in two ways.
fn size(line: &[u8]) -> Option<u64> {
    if line.len() >= MAX_LINE {
        return None;
    }
    let (digits, mut extensions) = split(line, u8::is_ascii_hexdigit);
    while !extensions.is_empty() {
        extensions = behind_extension(extensions)?;
    }
    number(digits, 16)
}

/// RFC 9112 7.1.1: `;`, a name, and a value if there is one, with blanks before each.
fn behind_extension(bytes: &[u8]) -> Option<&[u8]> {
    let name = behind_blanks(bytes).strip_prefix(b";")?;
    let rest = behind_token(behind_blanks(name))?;
    let Some(value) = behind_blanks(rest).strip_prefix(b"=") else {
        return Some(rest);
    };
    match behind_blanks(value) {
        [b'"', quoted @ ..] => behind_quoted(quoted),
        value => behind_token(value),
    }
}

/// RFC 9110 5.6.4: what follows the second quotation mark.
fn behind_quoted(mut bytes: &[u8]) -> Option<&[u8]> {
    let is_text = |byte: u8| byte == b'\t' || !byte.is_ascii_control();
    loop {
        bytes = match bytes {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] if is_text(*byte) => rest,
            _ => return None,
        };
    }
}

/// RFC 9110 5.6.2.
fn behind_token(bytes: &[u8]) -> Option<&[u8]> {
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let (token, rest) = split(bytes, is_of_token);
    (!token.is_empty()).then_some(rest)
}

fn behind_blanks(bytes: &[u8]) -> &[u8] {
    split(bytes, |byte| b" \t".contains(byte)).1
}

/// The bytes at the beginning that `belong`, and the others.
fn split(bytes: &[u8], belong: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !belong(byte));
    bytes.split_at(end.unwrap_or(bytes.len()))
}

/// Digits and nothing else, and not zeros without end.
pub(super) fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = str::from_utf8(digits).ok()?;
    let is_number = text.len() <= MAX_DIGITS && text.chars().all(|digit| digit.is_digit(radix));
    is_number.then(|| u64::from_str_radix(text, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::rest::Rest;

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
                    Rest::CHUNKS,
                    "5\r\nhello\r\n0\r\n\r\nmore",
                    ("hello", vec![], true),
                ),
                (
                    Rest::CHUNKS,
                    "2;a=b\r\nhe\r\n00003 ; a\t= \"\\\"; ä\";b\r\nllo\r\n0;c\r\nX: y\r\nZ: 1\r\n\r\n",
                    ("hello", vec!["x".to_owned(), "z".to_owned()], true),
                ),
                (Rest::CHUNKS, "5\r\nhello\r\n0\r\n", ("hello", vec![], false)),
                (Rest::CHUNKS, "5\r\nhello\r\n", ("hello", vec![], false)),
            ] {
                let (data, trailers, is_over) = expected;
                let got = read(rest, bytes.as_bytes(), size).unwrap();
                assert_eq!(got, (data.to_owned(), trailers, is_over), "{bytes:?} by {size}");
            }
        }
    }

    #[test]
    fn what_is_no_chunk_ends_nothing() {
        let long = format!("5;{}", "a".repeat(2 * MAX_LINE));
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
            "1 1\r\n",
            " 5\r\n",
            "\t5\r\n",
            "5 \r\n",
            "5\t\r\n",
            "5\r\r\n",
            "+5\r\n",
            "5x\r\n",
            "000000000000000000005\r\n",
            "\r\n5\r\nhello",
            ";a\r\n",
            "5;\r\n",
            "5;a \r\n",
            "5;a b\r\n",
            "5;=b\r\n",
            "5;a=\r\n",
            "5;a=b;\r\n",
            "5;a=\"b\r\n",
            "5;a=\"b\\\"\r\n",
            "5;a=\"b\"c\r\n",
            "5;a=\"\r\n\"\r\nhello",
            "5\r\nhello \r\n",
            "5;\u{1}\r\n",
            "5;a=\"\u{7f}\"\r\n",
            "5;a\nb\r\n",
            "0 \r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\n",
            &long,
        ] {
            for size in [1, 4096] {
                let got = read(Rest::CHUNKS, bytes.as_bytes(), size);
                assert!(
                    matches!(got, Err(Http1Error::Chunk)),
                    "{bytes:?} by {size}: {got:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_content_has_a_limit() {
        let small = |extension: &str| format!("1;{extension}\r\nx\r\n").repeat(5_000);
        let large = format!("400;{}\r\n{}\r\n", "a".repeat(200), "x".repeat(0x400)).repeat(100);
        for (bytes, is_read) in [
            (small("a=b"), true),
            (small(&"a".repeat(100)), false),
            (large, true),
        ] {
            let got = read(Rest::CHUNKS, format!("{bytes}0\r\n\r\n").as_bytes(), 4096);
            assert_eq!(got.is_ok(), is_read, "{:.20}", bytes);
        }
    }

    #[test]
    fn trailers_are_fields() {
        for trailers in [
            " X: y",
            "X: y\r\n z",
            "X : y",
            ": y",
            "X",
            "X: a\rb",
            "X: a\0b",
            "X y: z",
        ] {
            let bytes = format!("0\r\n{trailers}\r\n\r\n");
            for size in [1, 4096] {
                let got = read(Rest::CHUNKS, bytes.as_bytes(), size);
                assert!(matches!(got, Err(Http1Error::NotHttp1(_))), "{bytes:?}: {got:?}");
            }
        }
    }

    #[test]
    fn trailers_have_an_end() {
        let endless = format!("0\r\nX: {}", "y".repeat(2 * MAX_TRAILERS));
        let got = read(Rest::CHUNKS, endless.as_bytes(), 4096);
        assert!(matches!(got, Err(Http1Error::HeadTooLarge)), "{got:?}");
    }
}
