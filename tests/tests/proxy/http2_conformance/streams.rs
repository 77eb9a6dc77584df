//! Streams, their states and their numbers: RFC 9113 5.

use super::check;
use super::client::{continuation, data, get, headers, post, priority, reset, window_update};
use super::connection::Wanted::{Break, No, Reset};
use super::rule::rule;
use crate::frames::{
    CANCEL, END_HEADERS, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM, STREAM_CLOSED,
    field, frame,
};

/// How many streams the proxy lets a client have at once.
const STREAMS: u32 = 128;

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_begins_with_headers() {
    let broken = |name, bytes| rule(name).sends(bytes).breaks(PROTOCOL_ERROR).unheard();
    check(vec![
        rule("5.1 idle: DATA does not open a stream")
            .sends(data(1, "test").end())
            .either(&[Break(PROTOCOL_ERROR), Break(STREAM_CLOSED)]),
        broken("5.1 idle: RST_STREAM does not open a stream", reset(1, CANCEL)),
        broken(
            "5.1 idle: WINDOW_UPDATE does not open a stream",
            window_update(1, 100),
        ),
        broken(
            "5.1 idle: CONTINUATION does not open a stream",
            continuation(1, get(1).block()),
        ),
        broken(
            "5.1 idle: PUSH_PROMISE does not open a stream",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
        ),
        broken(
            "5.1 idle: RST_STREAM does not open a stream of the server's",
            reset(2, CANCEL),
        ),
        broken(
            "5.1 idle: WINDOW_UPDATE does not open a stream of the server's",
            window_update(2, 1),
        ),
        rule("5.1 idle: RST_STREAM does not open a stream above others")
            .sends(get(1).path("/held"))
            .sends(reset(3, CANCEL))
            .breaks(PROTOCOL_ERROR),
        rule("5.1 idle: PRIORITY may come before HEADERS")
            .sends(priority(1, 0))
            .sends(get(1))
            .answers(1, 200),
        rule("5.1 idle: PRIORITY opens nothing, so a lower stream may begin")
            .sends(priority(5, 0))
            .sends(get(1))
            .answers(1, 200)
            .sends(get(5))
            .answers(5, 200),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_follows_the_end_of_a_request() {
    let held = |name| rule(name).sends(get(1).path("/held"));
    check(vec![
        held("5.1 half-closed (remote), 6.1: DATA does not follow a request")
            .sends(data(1, "test").end())
            .resets(1, STREAM_CLOSED),
        held("5.1 half-closed (remote), 6.1: empty DATA does not follow a request")
            .sends(data(1, ""))
            .resets(1, STREAM_CLOSED),
        held("5.1 half-closed (remote): HEADERS do not follow a request")
            .sends(get(1))
            .resets(1, STREAM_CLOSED),
        held("5.1 half-closed (remote): trailers do not follow a request that has ended")
            .sends(headers(1).field("x-a", "a").end())
            .resets(1, STREAM_CLOSED),
        held("5.1 half-closed (remote): CONTINUATION does not follow a request")
            .sends(continuation(1, field("x-a", "a")))
            .either(&[Break(PROTOCOL_ERROR), Break(STREAM_CLOSED)]),
        rule("5.1 half-closed (remote): DATA does not follow the end of a body")
            .sends(post(1).path("/held"))
            .sends(data(1, "a").end())
            .sends(data(1, "b").end())
            .resets(1, STREAM_CLOSED),
        rule("5.1 half-closed (remote): DATA does not follow trailers")
            .sends(post(1).path("/held"))
            .sends(headers(1).field("x-a", "a").end())
            .sends(data(1, "b").end())
            .resets(1, STREAM_CLOSED),
        held("5.1 half-closed (remote): WINDOW_UPDATE may follow a request").sends(window_update(1, 1)),
        held("5.1 half-closed (remote): PRIORITY may follow a request").sends(priority(1, 0)),
        rule("5.1 half-closed (remote): RST_STREAM may follow a request")
            .sends(get(1).path("/held"))
            .sends(reset(1, CANCEL))
            .sends(get(3))
            .answers(3, 200)
            .hears(No(RST_STREAM, 1)),
        rule("5.1 half-closed (local): a body may go on behind its answer")
            .sends(post(1).path("/unread"))
            .answers(1, 200)
            .sends(data(1, "a"))
            .sends(data(1, "b").end()),
        rule("5.1 half-closed (local): trailers may come behind the answer")
            .sends(post(1).path("/unread"))
            .answers(1, 200)
            .sends(headers(1).field("x-a", "a").end()),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_closed_stays_closed() {
    let answered = |name| rule(name).sends(get(1)).answers(1, 200);
    let given_up = |name| rule(name).sends(post(1).path("/held")).sends(reset(1, CANCEL));
    let refused = |name| {
        rule(name)
            .sends(post(1).field("connection", "close"))
            .resets(1, PROTOCOL_ERROR)
            .unheard()
    };
    let closed = [Reset(1, STREAM_CLOSED), Break(STREAM_CLOSED)];
    let misplaced = [Break(PROTOCOL_ERROR), Break(STREAM_CLOSED)];
    check(vec![
        answered("5.1 closed by its end, 6.1: DATA is too late")
            .sends(data(1, "test").end())
            .either(&closed),
        answered("5.1 closed by its end, 5.1.1: HEADERS are too late")
            .sends(get(1))
            .either(&misplaced),
        answered("5.1 closed by its end: CONTINUATION is too late")
            .sends(continuation(1, field("x-a", "a")))
            .either(&misplaced),
        answered("5.1 closed by its end: WINDOW_UPDATE may have been on its way").sends(window_update(1, 1)),
        answered("5.1 closed by its end: RST_STREAM may have been on its way").sends(reset(1, CANCEL)),
        answered("5.1 closed by its end: PRIORITY is ignored").sends(priority(1, 0)),
        given_up("5.1 closed by the client's RST_STREAM: DATA is too late")
            .sends(data(1, "test").end())
            .either(&closed),
        given_up("5.1 closed by the client's RST_STREAM: HEADERS are too late")
            .sends(headers(1).field("x-a", "a").end())
            .either(&[
                Reset(1, STREAM_CLOSED),
                Break(STREAM_CLOSED),
                Break(PROTOCOL_ERROR),
            ]),
        given_up("5.1 closed by the client's RST_STREAM: CONTINUATION is too late")
            .sends(continuation(1, field("x-a", "a")))
            .either(&misplaced),
        given_up("5.1 closed by the client's RST_STREAM: PRIORITY is ignored").sends(priority(1, 0)),
        refused("5.1 closed by our RST_STREAM: DATA may have been on its way").sends_all([
            data(1, "a"),
            data(1, "b").padded(9),
            data(1, "c").end(),
        ]),
        refused("5.1 closed by our RST_STREAM: trailers may have been on their way")
            .sends(data(1, "a"))
            .sends(headers(1).field("x-a", "a").end()),
        refused("5.1 closed by our RST_STREAM: WINDOW_UPDATE may have been on its way")
            .sends(window_update(1, 1)),
        refused("5.1 closed by our RST_STREAM: RST_STREAM may have been on its way").sends(reset(1, CANCEL)),
        refused("5.1 closed by our RST_STREAM: PRIORITY is ignored").sends(priority(1, 0)),
        rule("5.4.2: what is wrong with one stream touches no other")
            .sends(get(1).path("/waiting"))
            .sends(get(3).field("connection", "close"))
            .resets(3, PROTOCOL_ERROR)
            .releases()
            .answers(1, 200)
            .reaches("GET /waiting"),
        rule("4.3, 5.1: trailers of a stream that we have reset still change the table")
            .sends(post(1).field("connection", "close"))
            .resets(1, PROTOCOL_ERROR)
            // A literal that the table keeps, and then names as the path.
            .sends(headers(1).bytes(b"\x44\x05/kept").end())
            .sends(
                headers(3)
                    .bytes([0x82, 0x87, 0xbe])
                    .field(":authority", "a.test")
                    .end(),
            )
            .answers(3, 200)
            .reaches("GET /kept"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_a_number_of_its_own() {
    check(vec![
        rule("5.1.1: a client's streams are odd")
            .sends(get(2))
            .breaks(PROTOCOL_ERROR)
            .unheard(),
        rule("5.1.1: a stream is above those that are open")
            .sends(get(5).path("/held"))
            .sends(get(3))
            .breaks(PROTOCOL_ERROR),
        rule("5.1.1: a stream is above those that are over")
            .sends(get(5))
            .answers(5, 200)
            .sends(get(3))
            .either(&[Break(PROTOCOL_ERROR), Break(STREAM_CLOSED)]),
        rule("5.1.1: streams that were left out are closed")
            .sends(get(5).path("/held"))
            .sends(data(3, "a"))
            .either(&[
                Reset(3, STREAM_CLOSED),
                Break(STREAM_CLOSED),
                Break(PROTOCOL_ERROR),
            ]),
        rule("5.1.1: streams may be left out")
            .sends(get(1))
            .sends(get(1001))
            .answers(1, 200)
            .answers(1001, 200),
        rule("5.1.1: a client's streams are odd beside others that are open")
            .sends(post(1).path("/held"))
            .sends(headers(2).field("x-a", "a").end())
            .breaks(PROTOCOL_ERROR),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_streams_at_once() {
    let streams = |from: u32, count| (from..).step_by(2).take(count);
    let beyond = 2 * STREAMS + 1;
    let held = || streams(1, STREAMS as usize).map(|stream| get(stream).path("/held"));
    check(vec![
        rule("5.1.2: one stream too many is refused, and one that ends makes room")
            .sends_all(held())
            .sends(get(beyond).path("/beyond"))
            .either(&[Reset(beyond, REFUSED_STREAM), Reset(beyond, PROTOCOL_ERROR)])
            .sends(reset(1, CANCEL))
            .unfinished(),
        rule("4.3, 5.1.2: a request that is refused still changes the table")
            .sends_all(held())
            .sends(get(beyond).without(":path").bytes(b"\x44\x05/kept"))
            .either(&[Reset(beyond, REFUSED_STREAM), Reset(beyond, PROTOCOL_ERROR)])
            .sends(reset(1, CANCEL))
            .sends(
                headers(beyond + 2)
                    .bytes([0x82, 0x87, 0xbe])
                    .field(":authority", "a.test")
                    .end(),
            )
            .answers(beyond + 2, 200)
            .reaches("GET /kept"),
        streams(1, 300).fold(
            rule("5.1.2: streams that are over do not count"),
            |rule, stream| rule.sends(get(stream)).answers(stream, 200),
        ),
        streams(1, 150).fold(rule("5.1.2: malformed requests do not count"), |rule, stream| {
            let head = get(stream).path("");
            rule.sends(head).resets(stream, PROTOCOL_ERROR).unheard()
        }),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn priorities_are_read_and_nothing_else() {
    let exclusive = |stream, weight| frame(PRIORITY, 0, stream, &[0x80, 0, 0, 0, weight]);
    check(vec![
        rule("5.3, RFC 7540 5.3.1: HEADERS do not depend on themselves")
            .sends(get(1).depending_on(1))
            .resets(1, PROTOCOL_ERROR)
            .unheard(),
        rule("5.3, RFC 7540 5.3.1: an open stream does not come to depend on itself")
            .sends(post(1))
            .sends(priority(1, 1))
            .resets(1, PROTOCOL_ERROR)
            .unfinished(),
        // There is no stream yet that could be reset.
        rule("5.3, RFC 7540 5.3.1: an idle stream does not depend on itself")
            .sends(priority(1, 1))
            .either(&[Reset(1, PROTOCOL_ERROR), Break(PROTOCOL_ERROR)]),
        rule("5.3: HEADERS may depend on a stream that nobody knows")
            .sends(get(1).depending_on(99))
            .answers(1, 200),
        rule("5.3: a stream may have the least weight")
            .sends(exclusive(1, 0))
            .sends(get(1))
            .answers(1, 200),
        rule("5.3: a stream may have the most weight")
            .sends(exclusive(1, 255))
            .sends(get(1))
            .answers(1, 200),
        rule("RFC 9218 7.1: PRIORITY_UPDATE may be ignored")
            .sends(frame(0x10, 0, 0, b"\0\0\0\x01u=1"))
            .sends(get(1))
            .answers(1, 200),
    ])
    .await;
}
