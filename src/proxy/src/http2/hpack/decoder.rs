use super::table::{Entry, Name, Table};
use super::{Field, HpackError, huffman, integer};

/// A longer string than this is not usual, and leaves no memory behind.
const USUAL_STRING: usize = 4096;

/// Reads the header blocks of one direction of a connection, in their order (RFC 7541 3).
pub(crate) struct Decoder {
    table: Table,
    /// What a Huffman-coded string says.
    text: Vec<u8>,
}

impl Decoder {
    /// For a connection whose SETTINGS_HEADER_TABLE_SIZE we leave as it is.
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(),
            text: Vec::new(),
        }
    }

    /// Decodes a whole header block. `each` gets its fields in their order, with what they count against a limit of
    /// the list: name, value and 32 bytes (RFC 9113 10.5.1).
    ///
    /// A malformed field is none of the errors, for these end the connection: what follows cannot be read any more.
    pub(crate) fn decode(
        &mut self,
        mut block: &[u8],
        mut each: impl FnMut(Field, usize),
    ) -> Result<(), HpackError> {
        let mut begun = false;
        while let Some(representation) = take_representation(&mut block)? {
            match representation {
                Representation::Indexed(index) => {
                    let entry = self.table.get(index)?;
                    each(entry.field.clone(), entry.size);
                }
                Representation::Literal { name, indexing } => {
                    let (field, size) = self.take_literal(&mut block, name, indexing)?;
                    each(field, size);
                }
                Representation::TableSize(_) if begun => return Err(HpackError::LateTableSize),
                Representation::TableSize(limit) => {
                    self.table.resize(limit)?;
                    continue;
                }
            }
            begun = true;
        }
        if self.text.capacity() > USUAL_STRING {
            self.text = Vec::new();
        }
        Ok(())
    }

    /// Takes what follows the first integer of a literal.
    fn take_literal(
        &mut self,
        block: &mut &[u8],
        name: u32,
        indexing: Indexing,
    ) -> Result<(Field, usize), HpackError> {
        let name = match name {
            0 => Name::parse(take_string(block, &mut self.text)?),
            index => self.table.get(index)?.name.clone(),
        };
        let value = take_string(block, &mut self.text)?;
        if indexing == Indexing::Incremental {
            let entry = Entry::new(name, value);
            let field = (entry.field.clone(), entry.size);
            self.table.insert(entry);
            return Ok(field);
        }
        let size = name.size_with(value);
        let mut field = name.with(value);
        if let Field::Regular(_, value) = &mut field {
            value.set_sensitive(indexing == Indexing::Never);
        }
        Ok((field, size))
    }
}

/// What a header block consists of (RFC 7541 6), as far as its first integer says it.
enum Representation {
    Indexed(u32),
    /// `name` is an index, or 0 before a name that is written out.
    Literal {
        name: u32,
        indexing: Indexing,
    },
    TableSize(u32),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Indexing {
    Incremental,
    Without,
    /// An intermediary must not index it either, so the value is marked as sensitive (RFC 7541 6.2.3).
    Never,
}

fn take_representation(block: &mut &[u8]) -> Result<Option<Representation>, HpackError> {
    let Some(&first) = block.first() else {
        return Ok(None);
    };
    let mut take = |prefix| integer::take(block, prefix);
    Ok(Some(match first {
        0x80.. => Representation::Indexed(take(7)?),
        0x40.. => Representation::Literal {
            name: take(6)?,
            indexing: Indexing::Incremental,
        },
        0x20.. => Representation::TableSize(take(5)?),
        0x10.. => Representation::Literal {
            name: take(4)?,
            indexing: Indexing::Never,
        },
        _ => Representation::Literal {
            name: take(4)?,
            indexing: Indexing::Without,
        },
    }))
}

/// Takes a string (RFC 7541 5.2). `text` holds it if it was coded.
fn take_string<'a, 'b: 'a>(block: &mut &'b [u8], text: &'a mut Vec<u8>) -> Result<&'a [u8], HpackError> {
    let coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let len = integer::take(block, 7)?;
    let string = block.split_off(..len as usize).ok_or(HpackError::Truncated)?;
    if !coded {
        return Ok(string);
    }
    huffman::decode(string, text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::super::Pseudo;
    use super::*;

    fn shown(field: &Field) -> String {
        match field {
            Field::Pseudo(name, value) => format!("{}: {}", name.as_str(), value.escape_ascii()),
            Field::Regular(name, value) => format!("{name}: {}", value.as_bytes().escape_ascii()),
            Field::Malformed => "malformed".to_owned(),
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .chars()
            .filter_map(|digit| digit.to_digit(16).map(|digit| digit as u8))
            .collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// What the blocks say one after the other on one connection.
    fn decode_all<const N: usize>(mut decoder: Decoder, blocks: [&str; N]) -> [Vec<String>; N] {
        blocks.map(|block| {
            let mut fields = Vec::new();
            decoder
                .decode(&bytes(block), |field, _| fields.push(shown(&field)))
                .unwrap();
            fields
        })
    }

    /// Whose table has the size of the examples in RFC 7541 C.5 and C.6.
    fn small() -> Decoder {
        let mut decoder = Decoder::new();
        decoder.table.resize(256).unwrap();
        decoder
    }

    fn table_of(decoder: &Decoder) -> (Vec<String>, usize) {
        let entries = (62..).map_while(|index| decoder.table.get(index).ok());
        let entries: Vec<_> = entries.map(|entry| (shown(&entry.field), entry.size)).collect();
        let size = entries.iter().map(|(_, size)| size).sum();
        (entries.into_iter().map(|(entry, _)| entry).collect(), size)
    }

    fn error(block: &[u8]) -> HpackError {
        Decoder::new().decode(block, |_, _| {}).unwrap_err()
    }

    fn fields(block: &[u8]) -> Vec<Field> {
        let mut fields = Vec::new();
        Decoder::new()
            .decode(block, |field, _| fields.push(field))
            .unwrap();
        fields
    }

    /// A literal without indexing whose name and value are written out.
    fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
        [&[0, name.len() as u8], name, &[value.len() as u8], value].concat()
    }

    // RFC 7541 C.2.
    #[test]
    fn each_representation_is_that_of_the_rfc() {
        let (mut decoder, mut said) = (Decoder::new(), Vec::new());
        for block in [
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            "040c 2f73 616d 706c 652f 7061 7468",
            "1008 7061 7373 776f 7264 0673 6563 7265 74",
            "82",
        ] {
            decoder
                .decode(&bytes(block), |field, size| said.push((shown(&field), size)))
                .unwrap();
        }
        let expected = [
            ("custom-key: custom-header", 55),
            (":path: /sample/path", 49),
            ("password: secret", 46),
            (":method: GET", 42),
        ];
        assert_eq!(said, expected.map(|(field, size)| (field.to_owned(), size)));
        assert_eq!(
            table_of(&decoder),
            (vec!["custom-key: custom-header".to_owned()], 55)
        );
    }

    // RFC 7541 C.3 and C.4.
    #[test]
    fn requests_are_read_as_in_the_rfc() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let coded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        let expected: [&[&str]; 3] = [
            &[
                ":method: GET",
                ":scheme: http",
                ":path: /",
                ":authority: www.example.com",
            ],
            &[
                ":method: GET",
                ":scheme: http",
                ":path: /",
                ":authority: www.example.com",
                "cache-control: no-cache",
            ],
            &[
                ":method: GET",
                ":scheme: https",
                ":path: /index.html",
                ":authority: www.example.com",
                "custom-key: custom-value",
            ],
        ];
        assert_eq!(decode_all(Decoder::new(), plain), expected);
        assert_eq!(decode_all(Decoder::new(), coded), expected);
    }

    // RFC 7541 C.5 and C.6.
    #[test]
    fn responses_are_read_as_in_the_rfc() {
        let plain = [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a \
             3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 \
             677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 \
             553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        ];
        let coded = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e \
             919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 \
             821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed \
             4ee5 b106 3d50 07",
        ];
        let expected: [&[&str]; 3] = [
            &[
                ":status: 302",
                "cache-control: private",
                "date: Mon, 21 Oct 2013 20:13:21 GMT",
                "location: https://www.example.com",
            ],
            &[
                ":status: 307",
                "cache-control: private",
                "date: Mon, 21 Oct 2013 20:13:21 GMT",
                "location: https://www.example.com",
            ],
            &[
                ":status: 200",
                "cache-control: private",
                "date: Mon, 21 Oct 2013 20:13:22 GMT",
                "location: https://www.example.com",
                "content-encoding: gzip",
                "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ],
        ];
        assert_eq!(decode_all(small(), plain), expected);
        assert_eq!(decode_all(small(), coded), expected);
    }

    #[test]
    fn the_table_fills_and_makes_room_as_in_the_rfc() {
        let mut decoder = small();
        let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e \
                     919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
        decoder.decode(&bytes(first), |_, _| {}).unwrap();
        let (location, date, private) = (
            "location: https://www.example.com",
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "cache-control: private",
        );
        let of = |entries: [&str; 4]| entries.map(str::to_owned).to_vec();
        assert_eq!(
            table_of(&decoder),
            (of([location, date, private, ":status: 302"]), 222)
        );
        decoder.decode(&bytes("4883 640e ffc1 c0bf"), |_, _| {}).unwrap();
        assert_eq!(
            table_of(&decoder),
            (of([":status: 307", location, date, private]), 222)
        );
    }

    #[test]
    fn names_that_are_none_spoil_their_field_alone() {
        let token = b"!#$%&'*+-.^_`|~09az";
        let name = HeaderName::from_lowercase(token).unwrap();
        assert_eq!(
            fields(&literal(token, b"v")),
            [Field::Regular(name, HeaderValue::from_static("v"))]
        );
        let good = [0x82];
        for byte in (0..=u8::MAX).filter(|byte| !token.contains(byte) && !byte.is_ascii_alphanumeric()) {
            let block = [&literal(&[b'a', byte], b"v"), &good[..]].concat();
            assert_eq!(fields(&block)[0], Field::Malformed, "{byte}");
            assert_eq!(shown(&fields(&block)[1]), ":method: GET");
        }
        for name in [
            &b""[..],
            b"Accept",
            b"aB",
            b":",
            b":method ",
            b":Path",
            b":unknown",
            b"\"",
        ] {
            assert_eq!(
                fields(&literal(name, b"v")),
                [Field::Malformed],
                "{}",
                name.escape_ascii()
            );
        }
    }

    #[test]
    fn values_that_are_none_spoil_their_field_alone() {
        for byte in 0..=u8::MAX {
            let malformed = byte == 0x7f || byte < b' ' && byte != b'\t';
            let read = fields(&literal(b"a", &[b'v', byte, b'v']));
            assert_eq!(read[0] == Field::Malformed, malformed, "{byte}");
        }
        for value in [&b" "[..], b"\t", b" v", b"v ", b"\tv", b"v\t"] {
            assert_eq!(
                fields(&literal(b"a", value)),
                [Field::Malformed],
                "{}",
                value.escape_ascii()
            );
        }
        assert_eq!(
            fields(&literal(b"a", b""))[0],
            Field::Regular(HeaderName::from_static("a"), HeaderValue::from_static(""))
        );
    }

    #[test]
    fn every_pseudo_field_is_known_and_its_value_left_alone() {
        for (text, name) in [
            (":method", Pseudo::Method),
            (":scheme", Pseudo::Scheme),
            (":authority", Pseudo::Authority),
            (":path", Pseudo::Path),
            (":protocol", Pseudo::Protocol),
            (":status", Pseudo::Status),
        ] {
            let expected = Field::Pseudo(name, Bytes::from_static(b" \n"));
            assert_eq!(fields(&literal(text.as_bytes(), b" \n")), [expected]);
        }
    }

    #[test]
    fn a_malformed_entry_can_be_referred_to_and_lends_its_name() {
        let mut block = Vec::new();
        for (name, value) in [(&b"cookie-x"[..], &b"a\0"[..]), (b"Upper", b"v")] {
            block.extend(literal(name, value));
            let start = block.len() - literal(name, value).len();
            block[start] = 0x40;
        }
        // Both as they are, then the names of both with another value.
        block.extend([0xbe, 0xbf]);
        block.extend([0x0f, 62 - 15, 1, b'v', 0x0f, 63 - 15, 1, b'v']);
        let mut read = Vec::new();
        Decoder::new()
            .decode(&block, |field, size| read.push((shown(&field), size)))
            .unwrap();
        let (cookie, upper) = ("malformed".to_owned(), "malformed".to_owned());
        let expected = [
            (cookie.clone(), 8 + 2 + 32),
            (upper.clone(), 5 + 1 + 32),
            (upper.clone(), 5 + 1 + 32),
            (cookie, 8 + 2 + 32),
            (upper, 5 + 1 + 32),
            ("cookie-x: v".to_owned(), 8 + 1 + 32),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn only_a_value_never_indexed_is_sensitive() {
        for (first, sensitive) in [(0x00, false), (0x40, false), (0x10, true)] {
            let read = fields(&[first, 1, b'a', 1, b'v']);
            let [Field::Regular(_, value)] = &read[..] else {
                panic!("{read:?}")
            };
            assert_eq!(value.is_sensitive(), sensitive);
        }
    }

    #[test]
    fn only_a_literal_with_indexing_gets_an_index() {
        for first in [0x00, 0x10] {
            assert_eq!(error(&[first, 1, b'a', 1, b'v', 0xbe]), HpackError::Index(62));
        }
        assert_eq!(fields(&[0x40, 1, b'a', 1, b'v', 0xbe]).len(), 2);
    }

    #[test]
    fn an_index_that_no_table_has_is_an_error() {
        assert_eq!(error(&[0x80]), HpackError::Index(0));
        assert_eq!(error(&[0xbe]), HpackError::Index(62));
        assert_eq!(error(&[0x7f, 0, 1, b'v']), HpackError::Index(63));
        assert_eq!(error(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x10]), HpackError::Integer);
        assert_eq!(error(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), HpackError::Integer);
    }

    #[test]
    fn every_block_that_ends_early_is_an_error() {
        let block = bytes("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
        for len in 1..block.len() {
            assert_eq!(error(&block[..len]), HpackError::Truncated, "{len}");
        }
        assert_eq!(
            error(&[0x00, 0x7f, 0xff, 0xff, 0xff, 0x7f]),
            HpackError::Truncated
        );
        assert_eq!(fields(&[]), []);
    }

    #[test]
    fn a_string_that_is_wrongly_coded_is_an_error_and_no_malformed_field() {
        assert_eq!(error(&[0x00, 0x81, 0xff, 1, b'v']), HpackError::Padding);
        assert_eq!(
            error(&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff]),
            HpackError::EndOfString
        );
    }

    #[test]
    fn the_table_changes_its_size_before_the_first_field_alone() {
        let mut decoder = Decoder::new();
        decoder.decode(&[0x40, 1, b'a', 1, b'v'], |_, _| {}).unwrap();
        decoder
            .decode(&[0x20, 0x3f, 0xe1, 0x1f, 0x82], |_, _| {})
            .unwrap();
        assert_eq!(decoder.decode(&[0xbe], |_, _| {}), Err(HpackError::Index(62)));
        assert_eq!(error(&[0x3f, 0xe2, 0x1f]), HpackError::TableSize(4097));
        assert_eq!(error(&[0x82, 0x20]), HpackError::LateTableSize);
        assert_eq!(
            error(&[0x00, 1, b'a', 1, b'v', 0x3f, 0xe1, 0x1f]),
            HpackError::LateTableSize
        );
    }

    #[test]
    fn a_long_string_leaves_no_memory_behind() {
        let mut decoder = Decoder::new();
        // 200 and 8192 times `0`.
        decoder
            .decode(&[&[0x04, 0xfd][..], &[0; 125]].concat(), |_, _| {})
            .unwrap();
        assert!((200..=USUAL_STRING).contains(&decoder.text.capacity()));
        let long = [&[0x04, 0xff, 0x81, 0x27][..], &[0; 5120]].concat();
        decoder
            .decode(&long, |_, size| assert_eq!(size, 5 + 8192 + 32))
            .unwrap();
        assert_eq!(decoder.text.capacity(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_fields_or_an_error(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5)
        ) {
            let mut decoder = Decoder::new();
            for block in blocks {
                let read = decoder.decode(&block, |_, size| assert!(size >= 32));
                prop_assert!(table_of(&decoder).1 <= 4096);
                if read.is_err() {
                    break;
                }
            }
        }
    }
}
