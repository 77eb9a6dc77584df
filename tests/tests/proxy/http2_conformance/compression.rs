//! Blocks of fields: RFC 9113 4.3 and RFC 7541.

use super::check;
use super::client::{get, headers, post};
use super::rule::rule;
use crate::frames::{COMPRESSION_ERROR, PROTOCOL_ERROR, integer};

/// `x-test` and `test` in Huffman's code (RFC 7541 appendix B).
const NAME: [u8; 6] = [0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff];
const VALUE: [u8; 4] = [0x83, 0x49, 0x50, 0x9f];
/// The first entry that the connection itself has put into the table.
const NEWEST: u8 = 0xbe;

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_cannot_be_read_costs_the_connection() {
    let unread = |name, bytes: &[u8]| {
        rule(name)
            .sends(get(1).bytes(bytes))
            .breaks(COMPRESSION_ERROR)
            .unheard()
    };
    let huffman = |value: &[u8]| [&[0][..], &NAME, value].concat();
    check(vec![
        rule("4.3: a block is not cut off")
            .sends(headers(1).bytes([0x40]).end())
            .breaks(COMPRESSION_ERROR)
            .unheard(),
        unread("RFC 7541 5.2: a name is not cut off", b"\0\x05x-te"),
        unread("RFC 7541 5.2: a value is not cut off", b"\0\x01x\x05test"),
        unread(
            "RFC 7541 6.2.2: a field is not cut off before its value",
            b"\0\x01x",
        ),
        unread(
            "RFC 7541 5.1: a number is not cut off behind its first byte",
            &[0xff],
        ),
        unread(
            "RFC 7541 5.1: a number is not cut off where it goes on",
            &[0xff, 0x80],
        ),
        unread(
            "RFC 7541 5.1: a number does not have bytes that add nothing without end",
            &[&[0xff][..], &[0x80; 64], &[0]].concat(),
        ),
        unread(
            "RFC 7541 5.1: an index is not beyond all numbers",
            &[&[0xff][..], &[0xff; 9], &[0x7f]].concat(),
        ),
        unread(
            "RFC 7541 5.1: a length is not beyond all numbers",
            &[&[0, 0x7f][..], &[0xff; 9], &[0x7f], b"x"].concat(),
        ),
        unread(
            "RFC 7541 5.1: a length does not begin anew behind 2^32",
            b"\0\x7f\x82\xff\xff\xff\x0fx\0",
        ),
        unread("RFC 7541 6.1: no entry has the number 0", &[0x80]),
        unread("RFC 7541 2.3.3: there is no entry behind the last", &[NEWEST]),
        unread(
            "RFC 7541 2.3.3: there is no entry far behind the last",
            &[0xff, 0xff, 0x7f],
        ),
        unread(
            "RFC 7541 2.3.3: a field that is kept has no name from behind the last entry",
            &[0x7f, 7, 0],
        ),
        unread(
            "RFC 7541 2.3.3: a field that is not kept has no name from behind the last entry",
            &[0x0f, 0x37, 0],
        ),
        unread(
            "RFC 7541 2.3.3: a field that is never kept has no name from behind the last entry",
            &[0x1f, 0x37, 0],
        ),
        unread(
            "RFC 7541 5.2: padding in Huffman's code is shorter than a byte",
            &huffman(b"\x84\x49\x50\x9f\xff"),
        ),
        unread(
            "RFC 7541 5.2: padding in Huffman's code is not a byte alone",
            &huffman(b"\x81\xff"),
        ),
        unread(
            "RFC 7541 5.2: padding in Huffman's code is made of ones",
            &huffman(b"\x83\x49\x50\x90"),
        ),
        unread(
            "RFC 7541 5.2: padding in a name is made of ones",
            b"\0\x85\xf2\xb2\x4a\x84\x80\x01a",
        ),
        unread(
            "RFC 7541 5.2: the end of Huffman's code (EOS) is not in a text",
            &huffman(b"\x87\x49\x51\xff\xff\xff\xfa\x7f"),
        ),
        unread(
            "RFC 7541 5.2: the end of Huffman's code (EOS) is no text",
            &huffman(b"\x84\xff\xff\xff\xff"),
        ),
        unread(
            "RFC 7541 4.2: the table's size comes before the first field",
            &[0x21],
        ),
        unread(
            "RFC 7541 4.2: the table's size comes before the first field even if it stays the same",
            &[0x3f, 0xe1, 0x1f],
        ),
        rule("RFC 7541 6.3: the table is not one byte larger than the server lets it be")
            .sends(
                headers(1)
                    .bytes(integer(0x20, 5, 4097))
                    .bytes(get(1).block())
                    .end(),
            )
            .breaks(COMPRESSION_ERROR)
            .unheard(),
        rule("RFC 7541 6.3: the table is not far larger than the server lets it be")
            .sends(
                headers(1)
                    .bytes(b"\x3f\xff\xff\xff\xff\x0f")
                    .bytes(get(1).block())
                    .end(),
            )
            .breaks(COMPRESSION_ERROR)
            .unheard(),
        rule("4.3: trailers that cannot be read cost the connection")
            .sends(post(1))
            .sends(headers(1).bytes([0x80]).end())
            .breaks(COMPRESSION_ERROR)
            .unfinished(),
        rule("4.3, 5.1: trailers that cannot be read cost the connection even if their stream was reset")
            .sends(post(1).field("connection", "close"))
            .resets(1, PROTOCOL_ERROR)
            .sends(headers(1).bytes([0x80]).end())
            .breaks(COMPRESSION_ERROR)
            .unheard(),
        rule("4.3: a block that is malformed is read to its end, which may cost the connection")
            .sends(get(1).field("connection", "close").bytes([0x80]))
            .breaks(COMPRESSION_ERROR)
            .unheard(),
        rule("RFC 7541 4.3: what has left the table is gone")
            .sends(get(1).bytes(b"\x40\x06x-test\x04test"))
            .answers(1, 200)
            .sends(
                headers(3)
                    .bytes([0x20])
                    .bytes(get(3).block())
                    .bytes([NEWEST])
                    .end(),
            )
            .breaks(COMPRESSION_ERROR),
        rule("RFC 7541 4.4: what does not fit empties the table")
            .sends(get(1).bytes(b"\x40\x06x-test\x04test"))
            .answers(1, 200)
            .sends(get(3).bytes(kept("x-large", &"x".repeat(4096))).bytes([NEWEST]))
            .breaks(COMPRESSION_ERROR),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_is_the_same_however_it_is_written() {
    let plain_name = b"\x06x-test";
    let plain_value = b"\x04test";
    let read = |name, bytes: &[&[u8]]| {
        rule(name)
            .sends(get(1).bytes(bytes.concat()))
            .answers(1, 200)
            .reaches("x-test: test\n")
    };
    let named = |name, bytes: &[&[u8]]| {
        rule(name)
            .sends(get(1).bytes(bytes.concat()))
            .answers(1, 200)
            .reaches("user-agent: test\n")
    };
    check(vec![
        read(
            "RFC 7541 6.2.1: a field that is kept, with a new name",
            &[&[0x40], plain_name, plain_value],
        ),
        read(
            "RFC 7541 6.2.1: a field that is kept, in Huffman's code",
            &[&[0x40], &NAME, &VALUE],
        ),
        read(
            "RFC 7541 6.2.2: a field that is not kept, with a new name",
            &[&[0], plain_name, plain_value],
        ),
        read(
            "RFC 7541 6.2.2: a field that is not kept, in Huffman's code",
            &[&[0], &NAME, &VALUE],
        ),
        read(
            "RFC 7541 6.2.3: a field that is never kept, with a new name",
            &[&[0x10], plain_name, plain_value],
        ),
        read(
            "RFC 7541 6.2.3: a field that is never kept, in Huffman's code",
            &[&[0x10], &NAME, &VALUE],
        ),
        read(
            "RFC 7541 5.2: a field of which half is in Huffman's code",
            &[&[0], &NAME, plain_value],
        ),
        named(
            "RFC 7541 6.2.1: a field that is kept, with a name of the table",
            &[&[0x7a], plain_value],
        ),
        named(
            "RFC 7541 6.2.1: a field that is kept, with a name of the table, in Huffman's code",
            &[&[0x7a], &VALUE],
        ),
        named(
            "RFC 7541 6.2.2: a field that is not kept, with a name of the table",
            &[&[0x0f, 43], plain_value],
        ),
        named(
            "RFC 7541 6.2.2: a field that is not kept, with a name of the table, in Huffman's code",
            &[&[0x0f, 43], &VALUE],
        ),
        named(
            "RFC 7541 6.2.3: a field that is never kept, with a name of the table",
            &[&[0x1f, 43], plain_value],
        ),
        named(
            "RFC 7541 6.2.3: a field that is never kept, with a name of the table, in Huffman's code",
            &[&[0x1f, 43], &VALUE],
        ),
        read(
            "RFC 7541 6.1: a field that the table has, by its number",
            &[
                &[0x40],
                plain_name,
                b"\x05other",
                &[0x40],
                plain_name,
                plain_value,
                &[NEWEST],
            ],
        ),
        read(
            "RFC 7541 2.3.3: a field with a name that the connection has put into the table",
            &[&[0x40], plain_name, b"\x05other", &[0x7e], plain_value],
        ),
        rule("RFC 7541 5.2: an empty value")
            .sends(get(1).field("x-test", ""))
            .answers(1, 200)
            .reaches("x-test: \n"),
        rule("RFC 7541 5.2: an empty value in Huffman's code")
            .sends(get(1).bytes([&[0][..], &NAME, &[0x80]].concat()))
            .answers(1, 200)
            .reaches("x-test: \n"),
        rule("RFC 7541 5.1: a number may have bytes that add nothing")
            .sends(get(1).bytes(b"\x0f\xab\x80\x00\x04test"))
            .answers(1, 200)
            .reaches("user-agent: test\n"),
        rule("RFC 7541 2.2: the table outlives a request")
            .sends(get(1).bytes(b"\x40\x06x-test\x04test"))
            .answers(1, 200)
            .sends(get(3).path("/again").bytes([NEWEST]))
            .answers(3, 200)
            .reaches("GET /again"),
        rule("RFC 7541 2.3.2: the newest entry comes first")
            .sends(headers(1).bytes(b"\x44\x02/a\x44\x02/b"))
            .resets(1, PROTOCOL_ERROR)
            .sends(
                headers(3)
                    .bytes([0x82, 0x87, NEWEST + 1])
                    .field(":authority", "a.test")
                    .end(),
            )
            .answers(3, 200)
            .reaches("GET /a\n"),
        rule("RFC 7541 4.4: the oldest entry leaves first")
            .sends(
                get(1)
                    .bytes(kept("x-old", &"x".repeat(3000)))
                    .bytes(kept("x-new", &"x".repeat(3000))),
            )
            .answers(1, 200)
            .sends(get(3).bytes([NEWEST + 1]))
            .breaks(COMPRESSION_ERROR),
        rule("RFC 7541 6.3: the table may be smaller")
            .sends(headers(1).bytes([0x3e]).bytes(get(1).block()).end())
            .answers(1, 200),
        rule("RFC 7541 4.2: the table's size may change twice before the first field")
            .sends(
                headers(1)
                    .bytes([0x20])
                    .bytes(integer(0x20, 5, 4096))
                    .bytes(get(1).block())
                    .end(),
            )
            .answers(1, 200),
        rule("RFC 7541 4.3: a table that was emptied may be filled again")
            .sends(
                headers(1)
                    .bytes([0x20, 0x3f, 0xe1, 0x1f])
                    .bytes(b"\x44\x05/kept")
                    .end(),
            )
            .resets(1, PROTOCOL_ERROR)
            .sends(
                headers(3)
                    .bytes([0x82, 0x87, NEWEST])
                    .field(":authority", "a.test")
                    .end(),
            )
            .answers(3, 200)
            .reaches("GET /kept"),
        rule("RFC 7541 4.2: a table of nothing keeps nothing, and fields are read all the same")
            .sends(
                headers(1)
                    .bytes([0x20])
                    .bytes(get(1).block())
                    .bytes(b"\x40\x06x-test\x04test")
                    .end(),
            )
            .answers(1, 200)
            .reaches("x-test: test\n"),
    ])
    .await;
}

/// A literal that the table keeps, if it fits (RFC 7541 6.2.1).
fn kept(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [integer(0, 7, text.len()), text.as_bytes().to_vec()].concat();
    [vec![0x40], text(name), text(value)].concat()
}
