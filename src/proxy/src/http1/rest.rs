use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::Http1Error;
use super::chunks::Chunks;

/// What is still to come of a body that is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Nothing,
    Length(u64),
    UntilClose,
    Chunks(Chunks),
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
    pub(super) const CHUNKS: Self = Self::Chunks(Chunks::BEGIN);

    /// Takes the next frame off the bytes. Those of clients and of upstreams are read equally strictly.
    pub(super) fn step(&mut self, unread: &mut BytesMut) -> Result<Step, Http1Error> {
        let (step, is_over) = match self {
            Self::Nothing => (Step::End, true),
            _ if unread.is_empty() => (Step::More, false),
            Self::UntilClose => (Step::Frame(Frame::data(unread.split().freeze())), false),
            Self::Length(left) => (Step::Frame(Frame::data(take(unread, left))), *left == 0),
            Self::Chunks(chunks) => (chunks.step(unread)?, chunks.is_over()),
        };
        if is_over {
            *self = Self::Nothing;
        }
        Ok(step)
    }

    pub(super) fn size_hint(self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }

    /// So many bytes are to be read at most, as far as that is known.
    pub(super) fn expected(self) -> usize {
        match self {
            Self::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
            _ => usize::MAX,
        }
    }
}

/// As much of a part as is there.
pub(super) fn take(unread: &mut BytesMut, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).map_or(unread.len(), |left| left.min(unread.len()));
    *left -= length as u64;
    unread.split_to(length).freeze()
}
