//! Integers behind a prefix (RFC 7541 5.1).

use bytes::{BufMut, BytesMut};

use super::HpackError;

/// So many bytes may follow the prefix: nothing in a header block is larger, and zeros could go on for ever.
const MAX_CONTINUATION: u32 = 5;

/// Takes an integer with a prefix of `prefix` bits off the block. The bits before it are the caller's.
pub(super) fn take(block: &mut &[u8], prefix: u32) -> Result<u32, HpackError> {
    let (&first, mut rest) = block.split_first().ok_or(HpackError::Truncated)?;
    let most = (1 << prefix) - 1;
    let mut value = u64::from(first) & most;
    if value == most {
        value += take_continuation(&mut rest)?;
    }
    *block = rest;
    u32::try_from(value).map_err(|_| HpackError::Integer)
}

fn take_continuation(block: &mut &[u8]) -> Result<u64, HpackError> {
    let mut value = 0;
    for place in 0..MAX_CONTINUATION {
        let byte = block.split_off_first().ok_or(HpackError::Truncated)?;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(HpackError::Integer)
}

/// Writes an integer with a prefix of `prefix` bits; the bits before it are those of `pattern`.
pub(super) fn put(block: &mut BytesMut, pattern: u8, prefix: u32, value: usize) {
    let most = (1 << prefix) - 1;
    if value < most {
        block.put_u8(pattern | value as u8);
        return;
    }
    block.put_u8(pattern | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        block.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: u32, prefix: u32, bytes: &[u8]) {
        let mut written = BytesMut::new();
        put(&mut written, 0, prefix, value as usize);
        assert_eq!(written, bytes);
        let mut rest = bytes;
        assert_eq!(take(&mut rest, prefix), Ok(value));
        assert!(rest.is_empty());
    }

    #[test]
    fn integers_are_those_of_the_rfc() {
        check(10, 5, &[10]);
        check(1337, 5, &[31, 154, 10]);
        check(42, 8, &[42]);
        check(30, 5, &[30]);
        check(31, 5, &[31, 0]);
        check(u32::MAX, 5, &[31, 0xe0, 0xff, 0xff, 0xff, 0x0f]);
    }

    #[test]
    fn zeros_may_follow_but_not_for_ever() {
        assert_eq!(take(&mut &[31, 0x80, 0x80, 0x80, 0x80, 0][..], 5), Ok(31));
        assert_eq!(
            take(&mut &[31, 0x80, 0x80, 0x80, 0x80, 0x80, 0][..], 5),
            Err(HpackError::Integer)
        );
    }

    #[test]
    fn an_integer_beyond_32_bits_or_without_an_end_is_an_error() {
        assert_eq!(
            take(&mut &[31, 0xe1, 0xff, 0xff, 0xff, 0x0f][..], 5),
            Err(HpackError::Integer)
        );
        assert_eq!(
            take(&mut &[31, 0xff, 0xff, 0xff, 0xff, 0x7f][..], 5),
            Err(HpackError::Integer)
        );
        assert_eq!(take(&mut &[][..], 5), Err(HpackError::Truncated));
        assert_eq!(take(&mut &[31][..], 5), Err(HpackError::Truncated));
        assert_eq!(take(&mut &[31, 0x80][..], 5), Err(HpackError::Truncated));
    }
}
