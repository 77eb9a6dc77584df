//! Fields: RFC 9113 8.2.

use super::check;
use super::client::{continuation, data, get, headers, post};
use super::connection::Wanted::{Answer, Break, Reset};
use super::rule::{Rule, rule};
use crate::frames::{CONTINUATION, ENHANCE_YOUR_CALM, PROTOCOL_ERROR, field, frame};

/// What no field may be, with the reason.
const MALFORMED: [(&str, &[u8], &[u8]); 31] = [
    ("8.2: a name has no capital letter", b"X-Test", b"a"),
    ("8.2: a name does not end with a capital letter", b"x-tesT", b"a"),
    ("8.2.1: a name is not empty", b"", b"a"),
    ("8.2.1: a name has no space", b"x test", b"a"),
    ("8.2.1: a name does not begin with a space", b" x-test", b"a"),
    ("8.2.1: a name does not end with a space", b"x-test ", b"a"),
    ("8.2.1: a name has no tab", b"x\ttest", b"a"),
    ("8.2.1: a name has no NUL", b"x\0test", b"a"),
    (
        "8.2.1: a name is not a field and a name",
        b"x-a: a\r\nx-test",
        b"a",
    ),
    ("8.2.1: a name does not end with a line feed", b"x-test\n", b"a"),
    ("8.2.1: a name has no DEL", b"x\x7ftest", b"a"),
    ("8.2.1: a name has nothing beyond ASCII", b"x-t\xc3\xa4st", b"a"),
    ("8.2.1: a name has no colon", b"x:test", b"a"),
    ("8.2.1: a name does not end with a colon", b"x-test:", b"a"),
    (
        "8.2.1, RFC 9110 5.6.2: a name has no quotation mark",
        b"x\"test",
        b"a",
    ),
    ("8.2.1, RFC 9110 5.6.2: a name has no bracket", b"x(test", b"a"),
    ("8.2.1, RFC 9110 5.6.2: a name has no comma", b"x,test", b"a"),
    ("8.2.1: a value has no NUL", b"x-test", b"a\0b"),
    ("8.2.1: a value has no line feed", b"x-test", b"a\nb"),
    ("8.2.1: a value has no carriage return", b"x-test", b"a\rb"),
    (
        "8.2.1: a value has no further field",
        b"x-test",
        b"a\r\nx-other: b",
    ),
    (
        "8.2.1: a value has no further request",
        b"x-test",
        b"a\r\n\r\nGET /admin HTTP/1.1\r\nhost: a.test",
    ),
    ("8.2.1: a value does not begin with a space", b"x-test", b" a"),
    ("8.2.1: a value does not end with a space", b"x-test", b"a "),
    ("8.2.1: a value does not begin with a tab", b"x-test", b"\ta"),
    ("8.2.1: a value does not end with a tab", b"x-test", b"a\t"),
    (
        "8.2.2: Connection is not for HTTP/2",
        b"connection",
        b"keep-alive",
    ),
    (
        "8.2.2: Proxy-Connection is not for HTTP/2",
        b"proxy-connection",
        b"keep-alive",
    ),
    ("8.2.2: Keep-Alive is not for HTTP/2", b"keep-alive", b"timeout=5"),
    (
        "8.2.2: Transfer-Encoding is not for HTTP/2",
        b"transfer-encoding",
        b"chunked",
    ),
    ("8.2.2: Upgrade is not for HTTP/2", b"upgrade", b"websocket"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_field_makes_a_malformed_request() {
    let head = |(name, field, value): (&'static str, &[u8], &[u8])| malformed(name, field, value);
    let others = [
        malformed("8.2.2: TE says nothing but trailers", b"te", b"gzip"),
        malformed(
            "8.2.2: TE says trailers and nothing else",
            b"te",
            b"trailers, deflate",
        ),
        malformed("8.2.1: a value is not a space", b"x-test", b" "),
        malformed("8.2.2: Connection names no field", b"connection", b"x-test"),
        malformed(
            "8.2.2: Connection is not there even if it says nothing",
            b"connection",
            b"",
        ),
    ];
    check(MALFORMED.into_iter().map(head).chain(others).collect()).await;
}

/// There it is too late for the head, but the upstream must not take what it has for a whole request.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_field_makes_malformed_trailers() {
    let behind = |(name, field, value): (&'static str, &[u8], &[u8])| {
        rule(name)
            .sends(post(1))
            .sends(data(1, "test"))
            .sends(headers(1).field(field, value).end())
            .resets(1, PROTOCOL_ERROR)
            .unfinished()
    };
    check(MALFORMED.into_iter().map(behind).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_fields_reach_the_upstream_as_they_are() {
    let served = |name, field: &str, value: &[u8], seen| {
        rule(name)
            .sends(get(1).field(field, value))
            .answers(1, 200)
            .reaches(seen)
    };
    check(vec![
        served(
            "8.2.1: a value may have spaces in it",
            "x-test",
            b"a b\tc",
            "x-test: a b\tc\n",
        ),
        served(
            "8.2.1: a value may have bytes beyond ASCII",
            "x-test",
            "\u{e4}".as_bytes(),
            "x-test: \u{e4}\n",
        ),
        served(
            "8.2.1: a value may have colons, commas and quotation marks",
            "x-test",
            b":a,\"b\"",
            "x-test: :a,\"b\"\n",
        ),
        served(
            "8.2.1: a name may have all that a token has",
            "x!#$%&'*+-.^_`|~1",
            b"a",
            "x!#$%&'*+-.^_`|~1: a\n",
        ),
        rule("8.2.2: TE may say trailers")
            .sends(get(1).field("te", "trailers"))
            .answers(1, 200),
        rule("8.2.3: crumbs of a cookie are put together again")
            .sends(
                get(1)
                    .field("cookie", "a=1")
                    .field("x-test", "b")
                    .field("cookie", "c=2"),
            )
            .answers(1, 200)
            .reaches("cookie: a=1; c=2\n"),
        rule("RFC 9110 5.3: fields of one name keep their order")
            .sends(
                get(1)
                    .field("x-test", "a")
                    .field("x-other", "b")
                    .field("x-test", "c"),
            )
            .answers(1, 200)
            .reaches("x-test: a\nx-test: c\n"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_limit_to_all_fields_together() {
    // A literal that is kept in the table, and then named again and again.
    let kept = [&b"\x40\x06x-test\x7f\xa1\x1e"[..], "x".repeat(4000).as_bytes()].concat();
    let block = (0..5).map(|number| field(format!("x-{number}"), "x".repeat(16_000)));
    check(vec![
        rule("10.5.1: a head that unpacks to more is refused, and its connection goes on")
            .sends(get(1).bytes(kept).bytes([0xbe; 20]))
            .either(&[
                Answer(1, 431),
                Reset(1, PROTOCOL_ERROR),
                Reset(1, ENHANCE_YOUR_CALM),
            ])
            .unheard(),
        rule("10.5.1: a head that has more is refused, or its connection ends")
            .sends(get(1).continued())
            .sends_all(block.map(|part| frame(CONTINUATION, 0, 1, &part)))
            .sends(continuation(1, []))
            .either(&[
                Answer(1, 431),
                Reset(1, ENHANCE_YOUR_CALM),
                Break(ENHANCE_YOUR_CALM),
            ])
            .unheard(),
    ])
    .await;
}

fn malformed(name: &'static str, field: &[u8], value: &[u8]) -> Rule {
    rule(name)
        .sends(get(1).field(field, value))
        .resets(1, PROTOCOL_ERROR)
        .unheard()
}
