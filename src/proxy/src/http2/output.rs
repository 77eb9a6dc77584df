use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes on their way, in parts.
pub(super) struct Output {
    /// So little data is copied behind what goes before it: a part of its own costs more.
    small: usize,
    parts: VecDeque<Bytes>,
    in_parts: usize,
    /// Behind the parts.
    tail: BytesMut,
}

impl Output {
    pub(super) fn new(small: usize) -> Self {
        Self {
            small,
            parts: VecDeque::new(),
            in_parts: 0,
            tail: BytesMut::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Where more can be written.
    pub(super) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() <= self.small {
            self.tail.extend_from_slice(&data);
            return;
        }
        if !self.tail.is_empty() {
            let before = self.tail.split().freeze();
            self.push_part(before);
        }
        self.push_part(data);
    }

    fn push_part(&mut self, part: Bytes) {
        self.in_parts += part.len();
        self.parts.push_back(part);
    }

    /// Takes off the first part of what is there, or so many bytes of it.
    pub(super) fn split(&mut self, most: usize) -> Bytes {
        let Some(first) = self.parts.front_mut() else {
            let most = most.min(self.tail.len());
            return self.tail.split_to(most).freeze();
        };
        if first.len() > most {
            self.in_parts -= most;
            return first.split_to(most);
        }
        let first = self.parts.pop_front().unwrap_or_default();
        self.in_parts -= first.len();
        first
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.small);
    }

    /// Takes no room any more, if nothing is there.
    pub(super) fn let_go(&mut self) {
        if self.is_empty() {
            self.clear();
        }
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.in_parts + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&self.tail, |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = self.parts.iter().map(|part| &part[..]);
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(parts.chain(tail)) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(first) = self.parts.front_mut() else {
                return self.tail.advance(count);
            };
            let taken = count.min(first.len());
            first.advance(taken);
            self.in_parts -= taken;
            count -= taken;
            if first.is_empty() {
                self.parts.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came() {
        const SMALL: usize = 8;
        let mut output = Output::new(SMALL);
        output.tail().extend_from_slice(b"head ");
        output.push(Bytes::from("small "));
        output.push(Bytes::from(vec![b'x'; SMALL + 1]));
        output.push(Bytes::from(" end"));
        let all = ["head small ", &"x".repeat(SMALL + 1), " end"].concat();
        assert_eq!(output.remaining(), all.len());
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(output.chunks_vectored(&mut slices), 3);
        output.advance(3);
        assert_eq!(output.split(100), "d small ");
        assert_eq!(output.split(SMALL), "x".repeat(SMALL));
        assert_eq!(output.copy_to_bytes(3), "x e");
        assert_eq!(output.split(100), "nd");
        assert!(output.is_empty());
    }
}
