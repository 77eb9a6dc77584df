//! The Huffman code for strings (RFC 7541 5.2 and Appendix B).
//!
//! The code is canonical: codes of one length ascend with the symbols, and each length goes on where the shorter
//! one ended. So the lengths say everything.

use bytes::BytesMut;

use super::HpackError;

/// The bytes, and EOS.
const SYMBOLS: usize = 257;
const LONGEST: u32 = 30;
/// Codes up to this length, which are those of all usual characters, are looked up at once.
const LOOKUP: u32 = 10;

/// How many bits the code of each symbol has.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

static CODES: Codes = Codes::new();

struct Codes {
    /// The code of each symbol.
    by_symbol: [u32; SYMBOLS],
    /// The symbols in the order of their codes.
    in_order: [u16; SYMBOLS],
    /// For each length the first code of that length, how many there are, and where they begin in the order.
    lengths: [(u32, u32, u32); LONGEST as usize + 1],
    /// For each beginning of [`LOOKUP`] bits the symbol and the length of its code: 0 is that of a longer one.
    lookup: [(u8, u8); 1 << LOOKUP],
}

impl Codes {
    const fn new() -> Self {
        let mut codes = Self {
            by_symbol: [0; SYMBOLS],
            in_order: [0; SYMBOLS],
            lengths: [(0, 0, 0); LONGEST as usize + 1],
            lookup: [(0, 0); 1 << LOOKUP],
        };
        let (mut code, mut place) = (0, 0);
        let mut length = 1;
        while length <= LONGEST {
            codes.lengths[length as usize] = (code, 0, place);
            let mut symbol = 0;
            while symbol < SYMBOLS {
                if LENGTHS[symbol] as u32 == length {
                    codes.add(symbol, code, length);
                    code += 1;
                    place += 1;
                }
                symbol += 1;
            }
            code <<= 1;
            length += 1;
        }
        codes
    }

    const fn add(&mut self, symbol: usize, code: u32, length: u32) {
        let (_, count, place) = &mut self.lengths[length as usize];
        self.by_symbol[symbol] = code;
        self.in_order[(*place + *count) as usize] = symbol as u16;
        *count += 1;
        if length > LOOKUP {
            return;
        }
        let free = LOOKUP - length;
        let mut rest = 0;
        while rest < 1 << free {
            self.lookup[((code << free) | rest) as usize] = (symbol as u8, length as u8);
            rest += 1;
        }
    }

    /// The symbol at the front of `bits` and the length of its code.
    fn first(&self, bits: u64) -> (usize, u32) {
        match self.lookup[(bits >> (64 - LOOKUP)) as usize] {
            (_, 0) => self.first_long(bits),
            (symbol, length) => (symbol.into(), length.into()),
        }
    }

    #[cold]
    fn first_long(&self, bits: u64) -> (usize, u32) {
        for length in LOOKUP + 1..LONGEST {
            let (first, count, place) = self.lengths[length as usize];
            let nth = ((bits >> (64 - length)) as u32).wrapping_sub(first);
            if nth < count {
                return (self.in_order[(place + nth) as usize].into(), length);
            }
        }
        // The code is complete: what is no shorter one is one of the longest.
        let (first, count, place) = self.lengths[LONGEST as usize];
        let nth = ((bits >> (64 - LONGEST)) as u32 - first).min(count - 1);
        (self.in_order[(place + nth) as usize].into(), LONGEST)
    }
}

/// Decodes a whole string into `text`, in place of what was there.
pub(super) fn decode(mut coded: &[u8], text: &mut Vec<u8>) -> Result<(), HpackError> {
    text.clear();
    // No code is shorter than five bits.
    text.reserve(coded.len() * 8 / 5);
    // The bits that are next, from the top; below them are zeros.
    let (mut bits, mut held) = (0u64, 0u32);
    loop {
        refill(&mut coded, &mut bits, &mut held);
        loop {
            let (symbol, length) = CODES.first(bits);
            if length > held {
                break;
            }
            text.push(u8::try_from(symbol).map_err(|_| HpackError::EndOfString)?);
            bits <<= length;
            held -= length;
        }
        if coded.is_empty() {
            return check_padding(bits, held);
        }
    }
}

/// Adds whole bytes as long as they fit.
fn refill(coded: &mut &[u8], bits: &mut u64, held: &mut u32) {
    while *held <= 56
        && let Some(&byte) = coded.split_off_first()
    {
        *bits |= u64::from(byte) << (56 - *held);
        *held += 8;
    }
}

/// A string ends with less than a byte of what EOS begins with.
fn check_padding(bits: u64, held: u32) -> Result<(), HpackError> {
    if held < 8 && bits.leading_ones() == held {
        Ok(())
    } else {
        Err(HpackError::Padding)
    }
}

/// How many bytes the string takes when it is coded.
pub(super) fn coded_len(text: &[u8]) -> usize {
    let bits: usize = text
        .iter()
        .map(|&byte| usize::from(LENGTHS[usize::from(byte)]))
        .sum();
    bits.div_ceil(8)
}

/// Appends the coded string, whose length is `coded_len`.
pub(super) fn encode(text: &[u8], coded_len: usize, block: &mut BytesMut) {
    let start = block.len();
    block.resize(start + coded_len, 0);
    let mut coded = &mut block[start..];
    // The last bits are the ones not yet written.
    let (mut bits, mut held) = (0u64, 0u32);
    for &byte in text {
        let byte = usize::from(byte);
        let length = u32::from(LENGTHS[byte]);
        bits = bits << length | u64::from(CODES.by_symbol[byte]);
        held += length;
        if held >= 32 {
            held -= 32;
            put(&mut coded, &((bits >> held) as u32).to_be_bytes());
        }
    }
    let padded = bits << (32 - held) | u64::from(u32::MAX >> held);
    put(
        &mut coded,
        &(padded as u32).to_be_bytes()[..held.div_ceil(8) as usize],
    );
}

fn put(coded: &mut &mut [u8], bytes: &[u8]) {
    if let Some(place) = coded.split_off_mut(..bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EOS: usize = 256;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut text = b"of before".to_vec();
        decode(coded, &mut text).map(|()| text)
    }

    fn encoded(text: &[u8]) -> BytesMut {
        let mut coded = BytesMut::new();
        encode(text, coded_len(text), &mut coded);
        coded
    }

    #[test]
    fn the_code_is_complete_and_ends_with_eos() {
        let share: u64 = LENGTHS
            .iter()
            .map(|&length| 1 << (LONGEST - u32::from(length)))
            .sum();
        assert_eq!(share, 1 << LONGEST);
        assert_eq!(CODES.by_symbol[EOS], (1 << LONGEST) - 1);
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        for (symbol, code, length) in [
            (0, 0x1ff8, 13),
            (10, 0x3ffffffc, 30),
            (usize::from(b' '), 0x14, 6),
            (usize::from(b'0'), 0x0, 5),
            (usize::from(b'a'), 0x3, 5),
            (usize::from(b'Z'), 0xfd, 8),
            (usize::from(b'\\'), 0x7fff0, 19),
            (127, 0xffffffc, 28),
            (128, 0xfffe6, 20),
            (192, 0x3ffffe0, 26),
            (249, 0xffffffe, 28),
            (255, 0x3ffffee, 26),
            (EOS, 0x3fffffff, 30),
        ] {
            assert_eq!(
                (CODES.by_symbol[symbol], LENGTHS[symbol]),
                (code, length),
                "{symbol}"
            );
        }
    }

    #[test]
    fn every_byte_comes_back_alone_and_beside_all_others() {
        for byte in 0..=u8::MAX {
            assert_eq!(decoded(&encoded(&[byte])), Ok(vec![byte]));
            let text: Vec<u8> = (0..=u8::MAX).flat_map(|other| [byte, other]).collect();
            assert_eq!(decoded(&encoded(&text)), Ok(text));
        }
    }

    #[test]
    fn strings_are_coded_as_in_the_rfc() {
        for (text, coded) in [
            (
                &b"www.example.com"[..],
                &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..],
            ),
            (b"no-cache", b"\xa8\xeb\x10\x64\x9c\xbf"),
            (b"302", b"\x64\x02"),
            (b"", b""),
        ] {
            assert_eq!(encoded(text), coded);
            assert_eq!(decoded(coded), Ok(text.to_vec()));
        }
    }

    #[test]
    fn padding_is_less_than_a_byte_and_all_ones() {
        // An `o` is 00111.
        assert_eq!(decoded(&[0b0011_1111]), Ok(b"o".to_vec()));
        assert_eq!(decoded(&[0b0011_1110]), Err(HpackError::Padding));
        assert_eq!(decoded(&[0b0011_1000]), Err(HpackError::Padding));
        assert_eq!(decoded(&[0b0011_1111, 0xff]), Err(HpackError::Padding));
        assert_eq!(decoded(&[0xff]), Err(HpackError::Padding));
        assert_eq!(decoded(&[0xff, 0xff, 0xff]), Err(HpackError::Padding));
    }

    #[test]
    fn a_code_without_its_end_is_no_padding() {
        // The first byte of the two of `0x00`, and the first two of the three of `\`.
        assert_eq!(decoded(&[0xff, 0xc0]), Err(HpackError::Padding));
        assert_eq!(decoded(&[0xff, 0xfe]), Err(HpackError::Padding));
    }

    #[test]
    fn eos_is_no_character() {
        assert_eq!(decoded(&[0xff; 4]), Err(HpackError::EndOfString));
        assert_eq!(
            decoded(&[0x3f, 0xff, 0xff, 0xff, 0xff]),
            Err(HpackError::EndOfString)
        );
    }
}
