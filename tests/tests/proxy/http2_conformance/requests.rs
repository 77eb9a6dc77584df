//! Requests and what frames them: RFC 9113 8.1, 8.3 and 8.5, RFC 8441.

use super::check;
use super::client::{Headers, data, get, headers, post};
use super::connection::Wanted::{Answer, Data, Reset};
use super::rule::{Rule, rule};
use crate::frames::PROTOCOL_ERROR;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_each_pseudo_field_once() {
    check(vec![
        malformed("8.3.1: a request has a method", get(1).without(":method")),
        malformed("8.3.1: a request has a scheme", get(1).without(":scheme")),
        malformed("8.3.1: a request has a path", get(1).without(":path")),
        malformed(
            "8.3.1: a request is not made of other fields alone",
            headers(1).field("x-a", "a").end(),
        ),
        malformed("8.3.1: a request is not made of no field", headers(1).end()),
        malformed(
            "8.3.1: a request has one method, not the same twice",
            get(1).field(":method", "GET"),
        ),
        malformed(
            "8.3.1: a request has one method, not two",
            get(1).field(":method", "POST"),
        ),
        malformed(
            "8.3.1: a request has one scheme",
            get(1).field(":scheme", "https"),
        ),
        malformed("8.3.1: a request has one path", get(1).field(":path", "/")),
        malformed(
            "8.3.1: a request has one authority",
            get(1).field(":authority", "a.test"),
        ),
        malformed(
            "8.3: a request has no pseudo-field that nobody knows",
            get(1).field(":test", "a"),
        ),
        malformed(
            "8.3: a request has no pseudo-field without a name",
            get(1).field(":", "a"),
        ),
        malformed(
            "8.3: a request has no pseudo-field of an answer",
            get(1).field(":status", "200"),
        ),
        malformed(
            "RFC 8441 4: a request other than CONNECT has no protocol",
            get(1).field(":protocol", "websocket"),
        ),
        malformed(
            "8.3: pseudo-fields come before other fields",
            headers(1)
                .field("x-a", "a")
                .field(":method", "GET")
                .field(":scheme", "https")
                .field(":path", "/")
                .field(":authority", "a.test")
                .end(),
        ),
        malformed(
            "8.3: the last pseudo-field comes before other fields",
            get(1)
                .without(":authority")
                .field("x-a", "a")
                .field(":authority", "a.test"),
        ),
        malformed(
            "8.2, 8.3: the name of a pseudo-field has no capital letter",
            get(1).without(":path").field(":Path", "/"),
        ),
        rule("8.3: pseudo-fields come in any order")
            .sends(
                headers(1)
                    .field(":authority", "a.test")
                    .field(":path", "/")
                    .field(":scheme", "https")
                    .field(":method", "GET")
                    .end(),
            )
            .answers(1, 200),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pseudo_field_has_a_value_of_its_kind() {
    let refused = |name, head: Headers| {
        rule(name)
            .sends(head)
            .either(&[Reset(1, PROTOCOL_ERROR), Answer(1, 400)])
            .unheard()
    };
    check(vec![
        malformed("8.3.1: a method is not empty", get(1).with(":method", "")),
        malformed(
            "8.3.1: a method has no space",
            get(1).with(":method", "GET /admin"),
        ),
        malformed("8.3.1: a method has no line", get(1).with(":method", "GET\r\n")),
        malformed("8.3.1: a scheme is not empty", get(1).with(":scheme", "")),
        malformed("8.3.1: a scheme has no space", get(1).with(":scheme", "https a")),
        malformed(
            "8.3.1: a scheme is nothing but a scheme",
            get(1).with(":scheme", "https://a.test/admin?"),
        ),
        malformed("8.3.1: a path is not empty", get(1).path("")),
        malformed("8.3.1: a path begins with a slash", get(1).path("admin")),
        malformed("8.3.1: a path does not begin with a query", get(1).path("?a")),
        malformed(
            "8.3.1: a path does not begin with a scheme",
            get(1).path("https://a.test/"),
        ),
        malformed("8.3.1: a path has no fragment", get(1).path("/a#b")),
        malformed("8.3.1: a query has no fragment", get(1).path("/?a#b")),
        malformed("8.3.1: a path has no space", get(1).path("/a HTTP/1.1")),
        malformed("8.3.1: a path has no line", get(1).path("/a\r\nx-a: a")),
        malformed("8.3.1: a path has no NUL", get(1).path("/a\0")),
        malformed("8.3.1: a path has no DEL", get(1).path("/a\x7f")),
        malformed("8.2.1: a path does not end with a space", get(1).path("/a ")),
        malformed("8.3.1: * is no path of GET", get(1).path("*")),
        malformed(
            "8.3.1: an authority has no user",
            get(1).with(":authority", "user@a.test"),
        ),
        malformed(
            "8.3.1: an authority has no user with a password",
            get(1).with(":authority", "user:secret@a.test"),
        ),
        malformed(
            "8.3.1: an authority has no space",
            get(1).with(":authority", "a.test b.test"),
        ),
        malformed(
            "8.3.1: an authority has no path",
            get(1).with(":authority", "a.test/admin"),
        ),
        malformed(
            "8.3.1: an authority has no line",
            get(1).with(":authority", "a.test\r\nx-a: a"),
        ),
        malformed(
            "8.2.1: an authority does not begin with a space",
            get(1).with(":authority", " a.test"),
        ),
        refused(
            "8.3.1: there is an authority or a Host",
            get(1).without(":authority"),
        ),
        refused("8.3.1: an authority is not empty", get(1).with(":authority", "")),
        refused(
            "8.3.1: a Host is not empty",
            get(1).without(":authority").field("host", ""),
        ),
        refused(
            "8.3.1: a Host does not say something else than the authority",
            get(1).field("host", "b.test"),
        ),
        refused(
            "8.3.1: a request does not have two Hosts",
            get(1)
                .without(":authority")
                .field("host", "a.test")
                .field("host", "b.test"),
        ),
        rule("8.3.1: a Host may stand for the authority")
            .sends(get(1).without(":authority").field("host", "a.test"))
            .answers(1, 200)
            .reaches("host: a.test\n"),
        rule("8.3.1: a query belongs to the path")
            .sends(get(1).path("/a?b=c&d"))
            .answers(1, 200)
            .reaches("GET /a?b=c&d\n"),
        rule("8.3.1: * is a path of OPTIONS")
            .sends(get(1).with(":method", "OPTIONS").path("*"))
            .answers(1, 200),
        rule("9.1.1: a host that the certificate does not name is to be asked for elsewhere")
            .sends(get(1).with(":authority", "b.test"))
            .answers(1, 421)
            .unheard(),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_asked_for_in_one_way() {
    let connect = || get(1).with(":method", "CONNECT");
    let websocket = || post(1).with(":method", "CONNECT").field(":protocol", "websocket");
    check(vec![
        malformed("8.5: CONNECT has no path", connect().without(":scheme")),
        malformed("8.5: CONNECT has no scheme", connect().without(":path")),
        malformed("8.5: CONNECT has neither scheme nor path", connect()),
        malformed(
            "8.5: CONNECT has an authority",
            connect()
                .without(":scheme")
                .without(":path")
                .without(":authority"),
        ),
        malformed(
            "RFC 8441 4: an extended CONNECT has a path",
            websocket().without(":path"),
        ),
        malformed(
            "RFC 8441 4: an extended CONNECT has a scheme",
            websocket().without(":scheme"),
        ),
        malformed(
            "RFC 8441 4: an extended CONNECT has a path and a scheme",
            websocket().without(":path").without(":scheme"),
        ),
        malformed(
            "RFC 8441 4: the path of an extended CONNECT is not empty",
            websocket().path(""),
        ),
        malformed(
            "RFC 8441 4: an extended CONNECT has one protocol",
            websocket().field(":protocol", "websocket"),
        ),
        malformed(
            "RFC 8441 4: a protocol is not empty",
            websocket().with(":protocol", ""),
        ),
        malformed(
            "RFC 8441 4: a protocol does not begin with a space",
            websocket().with(":protocol", " websocket"),
        ),
        malformed(
            "RFC 8441 4: a protocol has no line",
            websocket().with(":protocol", "websocket\r\nx-a: a"),
        ),
        malformed(
            "RFC 8441 4: a protocol is not two",
            websocket().with(":protocol", "websocket, chat"),
        ),
        malformed(
            "8.3: a protocol comes before other fields",
            websocket()
                .without(":protocol")
                .field("x-a", "a")
                .field(":protocol", "websocket"),
        ),
        malformed(
            "8.2.2: an extended CONNECT has no Upgrade",
            websocket().field("upgrade", "websocket"),
        ),
        malformed(
            "8.2.2: an extended CONNECT has no Connection",
            websocket().field("connection", "upgrade"),
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_the_length_it_says() {
    let long = |length: &str| post(1).field("content-length", length);
    let unlike = |name, length: &str, parts: &[&str]| {
        let (last, parts) = parts.split_last().unwrap();
        rule(name)
            .sends(long(length))
            .sends_all(parts.iter().map(|part| data(1, part)))
            .sends(data(1, last).end())
            .resets(1, PROTOCOL_ERROR)
            .unfinished()
    };
    check(vec![
        unlike("8.1.1: a body is not longer than it says", "1", &["test"]),
        unlike(
            "8.1.1: the parts of a body are not longer than it says",
            "7",
            &["test", "test"],
        ),
        unlike("8.1.1: a body is not shorter than it says", "5", &["test"]),
        unlike(
            "8.1.1: the parts of a body are not shorter than it says",
            "9",
            &["test", "test"],
        ),
        unlike("8.1.1: a body that says a length is there", "4", &[""]),
        // The upstream may have taken it for whole before the body came.
        rule("8.1.1: a body that says it is nothing is nothing")
            .sends_all([Vec::from(long("0")), data(1, "test").end().into()])
            .resets(1, PROTOCOL_ERROR),
        rule("8.1.1: padding does not fill a body up")
            .sends(long("8"))
            .sends(data(1, "test").padded(4).end())
            .resets(1, PROTOCOL_ERROR)
            .unfinished(),
        rule("8.1.1: trailers do not end a body early")
            .sends(long("5"))
            .sends(data(1, "test"))
            .sends(headers(1).field("x-a", "a").end())
            .resets(1, PROTOCOL_ERROR)
            .unfinished(),
        malformed(
            "8.1.1: a request that ends with its head has no length",
            long("4").end(),
        ),
        malformed(
            "8.1.1: a GET that ends with its head has no length",
            get(1).field("content-length", "1"),
        ),
        malformed(
            "8.1.1, RFC 9110 8.6: there are not two lengths",
            long("4").field("content-length", "5"),
        ),
        malformed("8.1.1, RFC 9110 8.6: a length is not a list of two", long("4, 5")),
        malformed("8.1.1, RFC 9110 8.6: a length is a number", long("four")),
        malformed("8.1.1, RFC 9110 8.6: a length has decimal digits", long("0x4")),
        malformed("8.1.1, RFC 9110 8.6: a length has no sign", long("+4")),
        malformed("8.1.1, RFC 9110 8.6: a length is not below 0", long("-4")),
        malformed("8.1.1, RFC 9110 8.6: a length is not empty", long("")),
        malformed(
            "8.1.1, RFC 9110 8.6: a length does not begin anew behind 2^64",
            long("18446744073709551620"),
        ),
        rule("8.1.1: a body that is as long as it says is served")
            .sends(long("8"))
            .sends_all([data(1, "test"), data(1, ""), data(1, "test"), data(1, "").end()])
            .answers(1, 200)
            .reaches("\n\ntesttest"),
        rule("8.1.1: a body that says nothing is served")
            .sends(post(1))
            .sends_all([data(1, "test"), data(1, "test").end()])
            .answers(1, 200)
            .reaches("testtest"),
        rule("8.1.1: a request that has no body may say so")
            .sends(long("0").end())
            .answers(1, 200),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_a_head_a_body_and_perhaps_trailers() {
    let trailers = || headers(1).field("x-trailer", "a");
    let behind = |name, trailers: Headers| {
        rule(name)
            .sends(post(1))
            .sends(data(1, "test"))
            .sends(trailers)
            .resets(1, PROTOCOL_ERROR)
            .unfinished()
    };
    check(vec![
        rule("8.1: a request may have trailers")
            .sends(post(1))
            .sends(data(1, "test"))
            .sends(trailers().end())
            .answers(1, 200),
        rule("8.1: a request without a body may have trailers")
            .sends(post(1))
            .sends(trailers().end())
            .answers(1, 200),
        behind("8.1: trailers are the end of a request", trailers()),
        behind("8.1: there is no second head", post(1)),
        rule("8.1: trailers are the end of a request without a body")
            .sends(post(1))
            .sends(trailers())
            .resets(1, PROTOCOL_ERROR)
            .unfinished(),
        behind(
            "8.1: trailers have no method",
            trailers().field(":method", "GET").end(),
        ),
        behind(
            "8.1: trailers have no path",
            headers(1).field(":path", "/admin").end(),
        ),
        behind(
            "8.1: trailers have no scheme",
            headers(1).field(":scheme", "https").end(),
        ),
        behind(
            "8.1: trailers have no authority",
            headers(1).field(":authority", "b.test").end(),
        ),
        behind(
            "8.1: trailers have no status",
            headers(1).field(":status", "200").end(),
        ),
        behind(
            "8.1: trailers have no protocol",
            headers(1).field(":protocol", "websocket").end(),
        ),
        behind(
            "8.1: trailers have no pseudo-field that nobody knows",
            headers(1).field(":test", "a").end(),
        ),
        rule("8.1: a body may wait until it is asked for, and need not")
            .sends(post(1).field("expect", "100-continue"))
            .sends(data(1, "test").end())
            .answers(1, 200)
            .reaches("\n\ntest"),
        rule("8.1: an answer may come before the body, of which the rest is not missed")
            .sends(post(1).path("/unread"))
            .answers(1, 200)
            .sends_all((0..10).map(|_| data(1, "x".repeat(1000)))),
        rule("8.1: HEAD is answered by a head alone")
            .sends(get(1).with(":method", "HEAD").path("/ten"))
            .answers(1, 200)
            .hears(Data(1, 0)),
        rule("8.1: answers may come in another order")
            .sends(get(1).path("/waiting"))
            .sends(get(3))
            .answers(3, 200)
            .releases()
            .answers(1, 200),
    ])
    .await;
}

fn malformed(name: &'static str, head: Headers) -> Rule {
    rule(name).sends(head).resets(1, PROTOCOL_ERROR).unheard()
}
