//! Windows: RFC 9113 5.2 and 6.9.

use super::check;
use super::client::{Headers, data, get, ping, post, reset, settings, window_update};
use super::connection::INITIAL_WINDOW_SIZE;
use super::connection::Wanted::{Acknowledged, Break, Data, Pong, Reset};
use super::rule::rule;
use crate::frames::{CANCEL, FLOW_CONTROL_ERROR, PROTOCOL_ERROR};

const MOST: u32 = (1 << 31) - 1;

#[tokio::test(flavor = "multi_thread")]
async fn a_window_opens_by_something_and_not_too_far() {
    let held = |name| rule(name).sends(get(1).path("/held"));
    check(vec![
        rule("6.9: the connection's window does not open by nothing")
            .sends(window_update(0, 0))
            .breaks(PROTOCOL_ERROR),
        held("6.9: a stream's window does not open by nothing")
            .sends(window_update(1, 0))
            .resets(1, PROTOCOL_ERROR),
        rule("6.9.1: the connection's window is below 2^31")
            .sends(window_update(0, MOST))
            .breaks(FLOW_CONTROL_ERROR),
        rule("6.9.1: the connection's window stays below 2^31 when it opens twice")
            .sends_all([window_update(0, 1 << 30), window_update(0, 1 << 30)])
            .breaks(FLOW_CONTROL_ERROR),
        rule("6.9.1: the connection's window may be 2^31 - 1").sends(window_update(0, MOST - 65_535)),
        held("6.9.1: a stream's window is below 2^31")
            .sends(window_update(1, MOST))
            .resets(1, FLOW_CONTROL_ERROR),
        held("6.9.1: a stream's window stays below 2^31 when it opens twice")
            .sends_all([window_update(1, 1 << 30), window_update(1, 1 << 30)])
            .resets(1, FLOW_CONTROL_ERROR),
        held("6.9.1: a stream's window may be 2^31 - 1").sends(window_update(1, MOST - 65_535)),
        held("6.9.2: settings do not open a stream's window to 2^31")
            .sends(window_update(1, MOST - 65_535))
            .sends(settings(&[(INITIAL_WINDOW_SIZE, 65_536)]))
            .breaks(FLOW_CONTROL_ERROR),
        held("6.9.2: settings may close the window of a stream that is open as far as can be")
            .sends(window_update(1, MOST - 65_535))
            .sends(settings(&[(INITIAL_WINDOW_SIZE, 0)]))
            .hears(Acknowledged(2)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_stays_within_the_windows() {
    let settled = |size| settings(&[(INITIAL_WINDOW_SIZE, size)]);
    let asked = |name, size| {
        rule(name)
            .sends(settled(size))
            .hears(Acknowledged(2))
            .sends(get(1).path("/ten"))
    };
    check(vec![
        asked("6.9.1: a window of one takes one byte", 1)
            .hears(Data(1, 1))
            .sends(ping(b"and then"))
            .hears(Pong(*b"and then"))
            .hears(Data(1, 1))
            .sends(window_update(1, 9))
            .hears(Data(1, 10))
            .answers(1, 200),
        asked("6.9.2: settings open the window of a stream that is there", 0)
            .sends(settled(1))
            .hears(Data(1, 1))
            .sends(settled(4))
            .hears(Data(1, 4))
            .sends(settled(100))
            .answers(1, 200)
            .hears(Data(1, 10)),
        asked("6.9.2: a window may be less than nothing", 3)
            .hears(Data(1, 3))
            .sends(settled(1))
            .hears(Acknowledged(3))
            .sends(window_update(1, 2))
            .sends(ping(b"still at"))
            .hears(Pong(*b"still at"))
            .hears(Data(1, 3))
            .sends(window_update(1, 1))
            .hears(Data(1, 4))
            .sends(settled(7))
            .hears(Data(1, 10))
            .answers(1, 200),
        rule("6.5.3: the last of two values counts")
            .sends(settings(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)]))
            .hears(Acknowledged(2))
            .sends(get(1).path("/ten"))
            .hears(Data(1, 1)),
        asked(
            "6.9.1: the streams of one connection have windows of their own",
            5,
        )
        .sends(get(3).path("/ten"))
        .hears(Data(1, 5))
        .hears(Data(3, 5))
        .sends(window_update(3, 5))
        .answers(3, 200)
        .hears(Data(1, 5)),
        rule("6.9.1: an answer is held up by either window")
            .sends(get(1).path("/large"))
            .hears(Data(1, 65_535))
            .sends(window_update(0, 1 << 20))
            .sends(ping(b"still at"))
            .hears(Pong(*b"still at"))
            .hears(Data(1, 65_535))
            .sends(window_update(1, 4_465))
            .hears(Data(1, 70_000))
            .sends(get(3).path("/large"))
            .hears(Data(3, 65_535))
            .sends(window_update(1, 1 << 20))
            .sends(window_update(3, 1 << 20))
            .answers(1, 200)
            .answers(3, 200),
        asked("6.9: an answer without content needs no window", 0)
            .sends(get(3))
            .answers(3, 200),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_stays_within_its_windows() {
    check(vec![
        rule("5.2.2, 6.9.1: more than the window takes is an error")
            .sends(post(1).path("/held"))
            .sends_all((0..2048).map(|_| data(1, [b'x'; 1 << 14])))
            .either(&[Reset(1, FLOW_CONTROL_ERROR), Break(FLOW_CONTROL_ERROR)])
            .may_end(),
    ])
    .await;
}

/// Whatever became of it: else a connection goes deaf in time.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_sent_is_given_back() {
    check(vec![
        rule("6.9: credit for bodies that were taken").spends(|stream| with_body(post(stream))),
        rule("6.9: credit for a long body on one stream")
            .sends(post(1))
            .uploads(1, |stream| data(stream, PART)),
        rule("6.9.1: credit for padding")
            .sends(post(1))
            .uploads(1, |stream| data(stream, "x").padded(255)),
        rule("6.9: credit for bodies that the upstream does not read")
            .spends(|stream| with_body(post(stream).path("/unread"))),
        rule("6.9: credit for bodies that nobody reads, because we answer ourselves")
            .spends(|stream| with_body(post(stream).with(":authority", "b.test"))),
        rule("5.1, 6.9: credit for bodies whose heads were malformed")
            .spends(|stream| with_body(post(stream).field("connection", "close"))),
        rule("5.1, 6.9: credit for bodies that are longer than they say")
            .spends(|stream| with_body(post(stream).field("content-length", "1"))),
        rule("5.1, 6.9: credit for bodies that the client gives up").spends(|stream| {
            let begun = Vec::from(post(stream));
            [begun, data(stream, PART).into(), reset(stream, CANCEL)].concat()
        }),
    ])
    .await;
}

const PART: [u8; 16_000] = [b'x'; 16_000];

/// As much as a stream takes before its window has been opened.
fn with_body(head: Headers) -> Vec<u8> {
    let stream = head.stream();
    let part = || Vec::from(data(stream, PART));
    [
        head.into(),
        part(),
        part(),
        part(),
        data(stream, PART).end().into(),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_may_be_empty() {
    let in_many_streams = (1..).step_by(2).take(100).flat_map(|stream| {
        let parts = std::iter::repeat_with(move || data(stream, "").into()).take(10);
        let head: Vec<u8> = post(stream).into();
        std::iter::once(head)
            .chain(parts)
            .chain([data(stream, "").end().into()])
    });
    check(vec![
        rule("6.9: DATA without content needs no window, and costs nothing while requests go on")
            .sends_all(in_many_streams)
            .answers(199, 200),
    ])
    .await;
}
