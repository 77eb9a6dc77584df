use bytes::{BufMut, BytesMut};
use http::{HeaderName, HeaderValue};

use super::{DEFAULT_TABLE_SIZE, Pseudo, huffman, integer, table};

const INDEXED: (u8, u32) = (0x80, 7);
const WITHOUT_INDEXING: (u8, u32) = (0x00, 4);
const NEVER_INDEXED: (u8, u32) = (0x10, 4);
const TABLE_OF_NOTHING: u8 = 0x20;
const CODED: u8 = 0x80;

/// Writes the header blocks of one direction of a connection.
///
/// Gives no field an index of its own, as nobody has to (RFC 7541 2.3.2): no block depends on another one, there is
/// nothing to keep in step with the peer's table or to hold for it, and nobody can learn from the length of one
/// message what another one said (RFC 7541 7.1). The static table and the Huffman code give most of the gain.
pub(crate) struct Encoder {
    unused_table: UnusedTable,
}

/// What the peer knows of the dynamic table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UnusedTable {
    /// That it may have the usual size.
    Usual,
    /// That it may not: it waits for our consent.
    Limited,
    /// That it has no size, and therefore fits any limit.
    Empty,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self {
            unused_table: UnusedTable::Usual,
        }
    }

    /// Hears of the peer's SETTINGS_HEADER_TABLE_SIZE, between two blocks.
    ///
    /// A smaller table than before has to be agreed to in the next block, even by those who do not use it (RFC 9113
    /// 4.3.1).
    pub(crate) fn limit(&mut self, max: u32) {
        if self.unused_table == UnusedTable::Usual && (max as usize) < DEFAULT_TABLE_SIZE {
            self.unused_table = UnusedTable::Limited;
        }
    }

    /// Appends a pseudo-field.
    pub(crate) fn pseudo(&mut self, name: Pseudo, value: &[u8], block: &mut BytesMut) {
        self.begin(block);
        let index = table::static_pseudo(name);
        put_field(WITHOUT_INDEXING, index, name.as_str(), value, block);
    }

    /// Appends a field. A sensitive value is marked as such, for all who pass it on (RFC 7541 6.2.3).
    pub(crate) fn field(&mut self, name: &HeaderName, value: &HeaderValue, block: &mut BytesMut) {
        self.begin(block);
        let index = table::static_name(name);
        let literal = if value.is_sensitive() {
            NEVER_INDEXED
        } else {
            WITHOUT_INDEXING
        };
        put_field(literal, index, name.as_str(), value.as_bytes(), block);
    }

    fn begin(&mut self, block: &mut BytesMut) {
        if self.unused_table == UnusedTable::Limited {
            self.unused_table = UnusedTable::Empty;
            block.put_u8(TABLE_OF_NOTHING);
        }
    }
}

/// Appends a field whose name has the index in the static table.
fn put_field(literal: (u8, u32), index: Option<usize>, name: &str, value: &[u8], block: &mut BytesMut) {
    let whole = index.and_then(|index| table::static_field(index, value));
    if let Some(index) = whole.filter(|_| literal != NEVER_INDEXED) {
        integer::put(block, INDEXED.0, INDEXED.1, index);
        return;
    }
    integer::put(block, literal.0, literal.1, index.unwrap_or(0));
    if index.is_none() {
        put_string(name.as_bytes(), block);
    }
    put_string(value, block);
}

fn put_string(string: &[u8], block: &mut BytesMut) {
    let coded_len = huffman::coded_len(string);
    if coded_len < string.len() {
        integer::put(block, CODED, 7, coded_len);
        huffman::encode(string, coded_len, block);
    } else {
        integer::put(block, 0, 7, string.len());
        block.put_slice(string);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::{Decoder, Field};
    use super::*;

    fn write(encoder: &mut Encoder, fields: &[Field]) -> BytesMut {
        let mut block = BytesMut::new();
        for field in fields {
            match field {
                Field::Pseudo(name, value) => encoder.pseudo(*name, value, &mut block),
                Field::Regular(name, value) => encoder.field(name, value, &mut block),
                Field::Malformed => {}
            }
        }
        block
    }

    fn read(block: &[u8]) -> Vec<Field> {
        let mut fields = Vec::new();
        Decoder::new()
            .decode(block, |field, _| fields.push(field))
            .unwrap();
        fields
    }

    fn pseudo(name: Pseudo, value: &'static str) -> Field {
        Field::Pseudo(name, Bytes::from_static(value.as_bytes()))
    }

    fn regular(name: &'static str, value: &'static str) -> Field {
        Field::Regular(HeaderName::from_static(name), HeaderValue::from_static(value))
    }

    #[track_caller]
    fn check(field: Field, written: &[u8]) {
        let fields = [field];
        assert_eq!(write(&mut Encoder::new(), &fields), written);
        assert_eq!(read(written), fields);
    }

    #[test]
    fn what_the_static_table_holds_takes_a_byte() {
        check(pseudo(Pseudo::Method, "GET"), &[0x82]);
        check(pseudo(Pseudo::Method, "POST"), &[0x83]);
        check(pseudo(Pseudo::Path, "/"), &[0x84]);
        check(pseudo(Pseudo::Path, "/index.html"), &[0x85]);
        check(pseudo(Pseudo::Scheme, "http"), &[0x86]);
        check(pseudo(Pseudo::Scheme, "https"), &[0x87]);
        for (status, index) in ["200", "204", "206", "304", "400", "404", "500"]
            .into_iter()
            .zip(8..)
        {
            check(pseudo(Pseudo::Status, status), &[0x80 | index]);
        }
        check(regular("accept-encoding", "gzip, deflate"), &[0x90]);
        check(regular("www-authenticate", ""), &[0xbd]);
    }

    #[test]
    fn other_fields_are_literals_that_nobody_indexes() {
        check(pseudo(Pseudo::Status, "302"), &[0x08, 0x82, 0x64, 0x02]);
        check(pseudo(Pseudo::Authority, "a"), &[0x01, 1, b'a']);
        check(regular("age", "1"), &[0x0f, 21 - 15, 1, b'1']);
        check(regular("x", "z"), &[0x00, 1, b'x', 1, b'z']);
        check(
            regular("custom-key", ""),
            b"\x00\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x00",
        );
        check(
            pseudo(Pseudo::Protocol, "~"),
            b"\x00\x87\xb9\x5d\x87\x49\xc8\x7a\x3f\x01~",
        );
    }

    #[test]
    fn a_string_is_coded_if_that_is_shorter() {
        check(regular("age", "~~~~"), b"\x0f\x06\x04~~~~");
        check(regular("age", "0000"), &[0x0f, 6, 0x83, 0, 0, 0x0f]);
        check(regular("age", "000"), &[0x0f, 6, 0x82, 0, 1]);
    }

    #[test]
    fn a_sensitive_value_is_never_indexed_on_its_whole_way() {
        for (name, value) in [
            ("authorization", "secret"),
            ("x-token", "secret"),
            ("accept-encoding", "gzip, deflate"),
        ] {
            let mut value = HeaderValue::from_static(value);
            value.set_sensitive(true);
            let block = write(
                &mut Encoder::new(),
                &[Field::Regular(HeaderName::from_static(name), value)],
            );
            assert_eq!(block[0] & 0xf0, 0x10);
            let [Field::Regular(_, value)] = &read(&block)[..] else {
                panic!("{block:?}")
            };
            assert!(value.is_sensitive());
        }
    }

    #[test]
    fn a_smaller_table_is_agreed_to_once_at_the_beginning_of_a_block() {
        let fields = [pseudo(Pseudo::Status, "200"), regular("age", "1")];
        let mut encoder = Encoder::new();
        encoder.limit(4096);
        encoder.limit(65536);
        let usual = write(&mut encoder, &fields);
        encoder.limit(4095);
        let agreeing = write(&mut encoder, &fields);
        assert_eq!(agreeing, [&[0x20], &usual[..]].concat());
        assert_eq!(read(&agreeing), fields);
        encoder.limit(4096);
        encoder.limit(0);
        assert_eq!(write(&mut encoder, &fields), usual);
    }

    #[test]
    fn a_smaller_table_is_agreed_to_even_if_it_has_grown_again() {
        let mut encoder = Encoder::new();
        encoder.limit(0);
        encoder.limit(4096);
        assert_eq!(write(&mut encoder, &[regular("age", "1")])[0], 0x20);
    }

    fn any_name() -> impl Strategy<Value = HeaderName> {
        let of_table = prop::sample::select(vec![
            "date",
            "server",
            "set-cookie",
            "accept-encoding",
            "x-frame-options",
        ]);
        prop_oneof![of_table.prop_map(str::to_owned), "[!#$%&'*+.^_`|~0-9a-z-]{1,80}"]
            .prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap())
    }

    fn any_value() -> impl Strategy<Value = HeaderValue> {
        let usual = "([!-~]([ -~]{0,200}[!-~])?)?".prop_map(String::into_bytes);
        let byte = any::<u8>().prop_filter("no control", |byte| *byte > b' ' && *byte != 0x7f);
        prop_oneof![usual, prop::collection::vec(byte, 0..40)]
            .prop_map(|value| HeaderValue::from_bytes(&value).unwrap())
    }

    fn any_field() -> impl Strategy<Value = Field> {
        let names = [
            Pseudo::Method,
            Pseudo::Scheme,
            Pseudo::Authority,
            Pseudo::Path,
            Pseudo::Protocol,
            Pseudo::Status,
        ];
        prop_oneof![
            (
                prop::sample::select(names.to_vec()),
                prop::collection::vec(any::<u8>(), 0..300)
            )
                .prop_map(|(name, value)| Field::Pseudo(name, value.into())),
            (any_name(), any_value()).prop_map(|(name, value)| Field::Regular(name, value)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(fields in prop::collection::vec(any_field(), 0..20)) {
            prop_assert_eq!(read(&write(&mut Encoder::new(), &fields)), fields);
        }
    }
}
