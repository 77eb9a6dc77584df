//! The preface and the frames, kind by kind: RFC 9113 3.4, 4 and 6.

use super::check;
use super::client::{continuation, data, get, headers, ping, post, priority, reset, settings, window_update};
use super::connection::Wanted::{
    Acknowledged, Block, Break, BreakAfter, Close, No, NoPong, Pong, Reset, Setting,
};
use super::rule::rule;
use crate::frames::{
    ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR, GOAWAY, HEADERS, NO_ERROR, PADDED, PING, PREFACE, PRIORITY, PROTOCOL_ERROR,
    PUSH_PROMISE, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, WITH_PRIORITY, field, frame,
};

/// Nobody has given it a meaning.
const UNKNOWN: u8 = 0xbb;
/// The most that a frame may have before anybody said otherwise, which the proxy does not.
const LARGEST: usize = 1 << 14;
const RESERVED: u32 = 1 << 31;

#[tokio::test(flavor = "multi_thread")]
async fn the_preface_comes_first() {
    check(vec![
        rule("3.4: without the preface there is no HTTP/2")
            .without_preface()
            .sends(*b"INVALID CONNECTION PREFACE\r\n\r\n")
            .hears(Close(PROTOCOL_ERROR)),
        rule("3.4: HTTP/1.1 is no preface")
            .without_preface()
            .sends(*b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .hears(Close(PROTOCOL_ERROR))
            .unheard(),
        rule("3.4: a preface that is wrong in its last byte is none")
            .without_preface()
            .sends(*b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r ")
            .sends(settings(&[]))
            .hears(Close(PROTOCOL_ERROR)),
        rule("3.4: HEADERS do not come before SETTINGS")
            .without_preface()
            .sends(PREFACE)
            .sends(get(1))
            .hears(Close(PROTOCOL_ERROR))
            .unheard(),
        rule("3.4: PING does not come before SETTINGS")
            .without_preface()
            .sends(PREFACE)
            .sends(ping(b"too soon"))
            .hears(Close(PROTOCOL_ERROR)),
        rule("3.4: the preface may come in parts")
            .without_preface()
            .sends(&PREFACE[..9])
            .sends(&PREFACE[9..])
            .sends(settings(&[])),
        rule("3.4: a client need not wait for the server's settings")
            .sends(get(1))
            .answers(1, 200),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_is_ignored() {
    check(vec![
        rule("4.1, 5.5: a frame of an unknown kind").sends(frame(UNKNOWN, 0, 0, &[0; 8])),
        rule("4.1, 5.5: an unknown kind on a stream that is idle").sends(frame(UNKNOWN, 0xff, 7, &[0; 8])),
        rule("4.1, 5.5: an unknown kind in the middle of a body")
            .sends(post(1).field("content-length", "2"))
            .sends(data(1, "a"))
            .sends(frame(UNKNOWN, 0xff, 1, &[0; 300]))
            .sends(data(1, "b").end())
            .answers(1, 200),
        rule("4.1, 5.5: an unknown kind on a stream that is over")
            .sends(get(1))
            .answers(1, 200)
            .sends(frame(UNKNOWN, 0, 1, &[])),
        rule("4.1: an unknown flag of HEADERS")
            .sends(get(1).flags(0xd2))
            .answers(1, 200),
        rule("4.1: an unknown flag of DATA")
            .sends(post(1).field("content-length", "1"))
            .sends(frame(DATA, END_STREAM | 0xf6, 1, b"a"))
            .answers(1, 200),
        rule("4.1: an unknown flag of PRIORITY").sends(frame(PRIORITY, 0xff, 1, &[0, 0, 0, 0, 1])),
        rule("4.1: an unknown flag of RST_STREAM")
            .sends(get(1).path("/held"))
            .sends(frame(RST_STREAM, 0xff, 1, &CANCEL.to_be_bytes())),
        rule("4.1: an unknown flag of SETTINGS")
            .sends(frame(SETTINGS, 0xfe, 0, &[]))
            .hears(Acknowledged(2)),
        rule("4.1: an unknown flag of PING")
            .sends(frame(PING, 0xfe, 0, b"question"))
            .hears(Pong(*b"question")),
        rule("4.1: an unknown flag of WINDOW_UPDATE").sends(frame(WINDOW_UPDATE, 0xff, 0, &[0, 0, 0, 1])),
        rule("4.1: an unknown flag of CONTINUATION")
            .sends(get(1).continued())
            .sends(frame(CONTINUATION, 0xff, 1, &[]))
            .answers(1, 200),
        rule("4.1: the reserved bit before a stream")
            .sends(frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                RESERVED | 1,
                &get(1).block(),
            ))
            .answers(1, 200),
        rule("4.1: the reserved bit before the connection")
            .sends(frame(PING, 0, RESERVED, b"question"))
            .hears(Pong(*b"question")),
        rule("6.9: the reserved bit before an increment").sends(window_update(0, RESERVED | 1)),
        rule("6.5.2: an unknown setting")
            .sends(settings(&[(0xff, 1)]))
            .hears(Acknowledged(2)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_has_the_size_of_its_kind() {
    let large = vec![0; LARGEST + 1];
    let broken = |name, bytes| rule(name).sends(bytes).breaks(FRAME_SIZE_ERROR);
    check(vec![
        rule("4.2: DATA may be as large as any frame")
            .sends(post(1).field("content-length", "16384"))
            .sends(data(1, &large[1..]).end())
            .answers(1, 200),
        rule("4.2: HEADERS may be as large as any frame")
            .sends(get(1).field("x-large", "x".repeat(LARGEST - get(1).block().len() - 13)))
            .answers(1, 200),
        rule("4.2: DATA is not larger than any frame may be")
            .sends(post(1))
            .sends(data(1, &large).end())
            .either(&[Reset(1, FRAME_SIZE_ERROR), Break(FRAME_SIZE_ERROR)])
            .unfinished(),
        broken(
            "4.2: HEADERS are not larger than any frame may be",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &large),
        )
        .unheard(),
        rule("4.2: CONTINUATION is not larger than any frame may be")
            .sends(get(1).continued())
            .sends(continuation(1, &large))
            .breaks(FRAME_SIZE_ERROR)
            .unheard(),
        broken(
            "4.2: a frame of an unknown kind is not larger than any frame may be",
            frame(UNKNOWN, 0, 0, &large),
        ),
        broken("6.5: a setting is not cut off", frame(SETTINGS, 0, 0, &[0, 3, 0])),
        broken(
            "6.5: a second setting is not cut off",
            frame(SETTINGS, 0, 0, &[0; 9]),
        ),
        broken(
            "6.5: an acknowledgement is empty",
            frame(SETTINGS, ACK, 0, &[0, 3, 0, 0, 0, 1]),
        ),
        broken("6.7: PING is not shorter", frame(PING, 0, 0, &[0; 6])),
        broken("6.7: PING is not longer", frame(PING, 0, 0, &[0; 9])),
        broken(
            "6.7: the answer to PING is not longer",
            frame(PING, ACK, 0, &[0; 9]),
        ),
        broken("6.8: GOAWAY is not shorter", frame(GOAWAY, 0, 0, &[0; 7])),
        broken(
            "6.9: WINDOW_UPDATE is not shorter",
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]),
        ),
        broken(
            "6.9: WINDOW_UPDATE is not longer",
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0, 1]),
        ),
        rule("6.9: WINDOW_UPDATE is not shorter on a stream")
            .sends(post(1))
            .sends(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 1]))
            .breaks(FRAME_SIZE_ERROR),
        rule("6.4: RST_STREAM is not shorter")
            .sends(get(1).path("/held"))
            .sends(frame(RST_STREAM, 0, 1, &[0, 0, 0]))
            .breaks(FRAME_SIZE_ERROR),
        rule("6.4: RST_STREAM is not longer")
            .sends(get(1).path("/held"))
            .sends(frame(RST_STREAM, 0, 1, &[0, 0, 0, 0, 8]))
            .breaks(FRAME_SIZE_ERROR),
        rule("6.3: PRIORITY is not shorter, for its stream")
            .sends(post(1))
            .sends(frame(PRIORITY, 0, 1, &[0, 0, 0, 1]))
            .resets(1, FRAME_SIZE_ERROR)
            .unfinished(),
        rule("6.3: PRIORITY is not longer, for its stream")
            .sends(post(1))
            .sends(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1, 1]))
            .resets(1, FRAME_SIZE_ERROR)
            .unfinished(),
        rule("4.2, 6.1: DATA that says it is padded says how much")
            .sends(post(1))
            .sends(frame(DATA, PADDED, 1, &[]))
            .either(&[
                Break(FRAME_SIZE_ERROR),
                Break(PROTOCOL_ERROR),
                Reset(1, FRAME_SIZE_ERROR),
            ])
            .unfinished(),
        broken(
            "4.2, 6.2: HEADERS that say they are padded say how much",
            frame(HEADERS, END_HEADERS | PADDED, 1, &[]),
        ),
        broken(
            "4.2, 6.2: HEADERS that say they have a priority have it",
            frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, &[0, 0, 0, 1]),
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_is_about_a_stream_or_about_the_connection() {
    let broken = |name, bytes| rule(name).sends(bytes).breaks(PROTOCOL_ERROR);
    check(vec![
        broken("6.1: DATA is about a stream", data(0, "a").end().into()),
        broken("6.2: HEADERS are about a stream", get(0).into()).unheard(),
        broken("6.3: PRIORITY is about a stream", priority(0, 0)),
        broken("6.4: RST_STREAM is about a stream", reset(0, CANCEL)),
        broken(
            "6.5: SETTINGS are about the connection",
            frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100]),
        ),
        broken(
            "6.5: the acknowledgement of SETTINGS is about the connection",
            frame(SETTINGS, ACK, 1, &[]),
        ),
        broken("6.7: PING is about the connection", frame(PING, 0, 1, &[0; 8])),
        broken(
            "6.7: the answer to PING is about the connection",
            frame(PING, ACK, 1, &[0; 8]),
        ),
        broken(
            "6.8: GOAWAY is about the connection",
            frame(GOAWAY, 0, 1, &[0; 8]),
        ),
        broken("6.10: CONTINUATION is about a stream", continuation(0, [])),
        rule("6.10: CONTINUATION is about the stream of its HEADERS")
            .sends(get(1).continued())
            .sends(continuation(0, []))
            .breaks(PROTOCOL_ERROR)
            .unheard(),
        rule("5.4.1, 6.8: GOAWAY says which stream was the last")
            .sends(get(1))
            .answers(1, 200)
            .sends(frame(PING, 0, 3, &[0; 8]))
            .hears(BreakAfter(1, PROTOCOL_ERROR)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn padding_fits_into_its_frame() {
    check(vec![
        rule("6.1: padding is no content")
            .sends(post(1).field("content-length", "4"))
            .sends(data(1, "test").padded(255).end())
            .answers(1, 200)
            .reaches("\n\ntest"),
        rule("6.1: a frame may have no padding but its length")
            .sends(post(1).field("content-length", "4"))
            .sends(data(1, "test").padded(0).end())
            .answers(1, 200),
        rule("6.1: DATA may be nothing but padding")
            .sends(post(1).field("content-length", "0"))
            .sends(data(1, "").padded(5).end())
            .answers(1, 200),
        rule("6.1: padding is not longer than DATA")
            .sends(post(1))
            .sends(frame(DATA, END_STREAM | PADDED, 1, &[6, 1, 2, 3, 4]))
            .breaks(PROTOCOL_ERROR)
            .unfinished(),
        rule("6.1: padding is not as long as DATA")
            .sends(post(1))
            .sends(frame(DATA, END_STREAM | PADDED, 1, &[5, 1, 2, 3, 4]))
            .breaks(PROTOCOL_ERROR)
            .unfinished(),
        rule("6.2: HEADERS may be padded")
            .sends(get(1).padded(255))
            .answers(1, 200),
        rule("6.2: HEADERS may be padded and have a priority")
            .sends(get(1).padded(9).depending_on(3))
            .answers(1, 200),
        rule("6.2: padding is not longer than HEADERS")
            .sends(frame(
                HEADERS,
                END_STREAM | END_HEADERS | PADDED,
                1,
                &[4, 0x82, 0x84, 0x87],
            ))
            .breaks(PROTOCOL_ERROR)
            .unheard(),
        rule("6.2: padding is not longer than what a priority leaves of HEADERS")
            .sends(frame(
                HEADERS,
                END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY,
                1,
                &[4, 0, 0, 0, 3, 15, 0x82, 0x84, 0x87],
            ))
            .breaks(PROTOCOL_ERROR)
            .unheard(),
        rule("6.2, 8.3.1: HEADERS that are nothing but padding say nothing")
            .sends(headers(1).padded(5).end())
            .resets(1, PROTOCOL_ERROR)
            .unheard(),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_taken_or_refused() {
    let broken = |name, id, value, code| rule(name).sends(settings(&[(id, value)])).breaks(code);
    let taken = |name, id, value| {
        rule(name)
            .sends(settings(&[(id, value)]))
            .hears(Acknowledged(2))
            .sends(get(1).path("/ten"))
    };
    check(vec![
        broken("6.5.2: ENABLE_PUSH is 0 or 1", 2, 2, PROTOCOL_ERROR),
        broken(
            "6.5.2: INITIAL_WINDOW_SIZE is below 2^31",
            4,
            1 << 31,
            FLOW_CONTROL_ERROR,
        ),
        broken(
            "6.5.2: INITIAL_WINDOW_SIZE is not 2^32 - 1",
            4,
            u32::MAX,
            FLOW_CONTROL_ERROR,
        ),
        broken(
            "6.5.2: MAX_FRAME_SIZE is at least 2^14",
            5,
            (1 << 14) - 1,
            PROTOCOL_ERROR,
        ),
        broken("6.5.2: MAX_FRAME_SIZE is below 2^24", 5, 1 << 24, PROTOCOL_ERROR),
        taken(
            "6.5.2: HEADER_TABLE_SIZE may be nothing, which answers say (RFC 7541 4.2)",
            1,
            0,
        )
        .hears(Block(1, &[0x20])),
        rule("RFC 7541 4.2: if HEADER_TABLE_SIZE changes twice, answers say the least first")
            .sends(settings(&[(1, 0)]))
            .hears(Acknowledged(2))
            .sends(settings(&[(1, 4096)]))
            .hears(Acknowledged(3))
            .sends(get(1))
            .hears(Block(1, &[0x20])),
        taken("6.5.2: HEADER_TABLE_SIZE may be anything", 1, u32::MAX).answers(1, 200),
        taken("6.5.2: ENABLE_PUSH may be 1", 2, 1).answers(1, 200),
        taken("6.5.2: INITIAL_WINDOW_SIZE may be 2^31 - 1", 4, (1 << 31) - 1).answers(1, 200),
        taken("6.5.2: MAX_FRAME_SIZE may be 2^24 - 1", 5, (1 << 24) - 1).answers(1, 200),
        taken("6.5.2: MAX_CONCURRENT_STREAMS is about pushes", 3, 0).answers(1, 200),
        rule("6.5.3: each SETTINGS frame is acknowledged")
            .sends_all([settings(&[(2, 0)]), settings(&[]), settings(&[(3, 100), (2, 1)])])
            .hears(Acknowledged(4)),
        rule("6.5.3: values are taken in their order, and the last error counts")
            .sends(settings(&[(5, 1 << 20), (5, 1)]))
            .breaks(PROTOCOL_ERROR),
        rule("RFC 8441 3: extended CONNECT is announced")
            .sends(ping(b"question"))
            .hears(Pong(*b"question"))
            .hears(Setting(8, 1)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_resets_are_heard() {
    let go_away = |code: u32| frame(GOAWAY, 0, 0, &[0_u32.to_be_bytes(), code.to_be_bytes()].concat());
    check(vec![
        rule("6.7: a ping is answered with its payload")
            .sends(ping(b"01234567"))
            .hears(Pong(*b"01234567")),
        rule("6.7: an answer to PING is not answered")
            .sends(frame(PING, ACK, 0, b"answered"))
            .sends(ping(b"question"))
            .hears(Pong(*b"question"))
            .hears(NoPong(*b"answered")),
        rule("6.4: a reset ends its stream, and is not answered with another (5.4.2)")
            .sends(get(1).path("/held"))
            .sends(reset(1, CANCEL))
            .sends(get(3))
            .answers(3, 200)
            .hears(No(RST_STREAM, 1))
            .hears(No(HEADERS, 1)),
        rule("7: an unknown code of RST_STREAM is as good as any")
            .sends(post(1))
            .sends(reset(1, 0xff))
            .unfinished(),
        rule("7: an unknown code of GOAWAY is as good as any")
            .sends(post(1).path("/ten"))
            .sends(go_away(0xff))
            .sends(data(1, "a").end())
            .answers(1, 200)
            .may_end(),
        rule("6.8: what is under way when the client leaves is finished")
            .sends(get(1).path("/waiting"))
            .sends(go_away(NO_ERROR))
            .sends(ping(b"question"))
            .hears(Pong(*b"question"))
            .releases()
            .answers(1, 200)
            .may_end(),
        rule("6.8: what is under way when the client leaves in anger, and says why, is finished")
            .sends(get(1).path("/waiting"))
            .sends(frame(GOAWAY, 0xff, 0, b"\x80\0\0\0\0\0\0\x02some text"))
            .sends(ping(b"question"))
            .hears(Pong(*b"question"))
            .releases()
            .answers(1, 200)
            .may_end(),
        rule("6.6, 8.4: a client does not push")
            .sends(post(1))
            .sends(frame(
                PUSH_PROMISE,
                END_HEADERS,
                1,
                &[&[0, 0, 0, 2], &get(1).block()[..]].concat(),
            ))
            .breaks(PROTOCOL_ERROR)
            .unfinished(),
        rule("6.6, 8.4: a client does not push on a stream that is idle")
            .sends(frame(
                PUSH_PROMISE,
                END_HEADERS,
                1,
                &[&[0, 0, 0, 3], &get(1).block()[..]].concat(),
            ))
            .breaks(PROTOCOL_ERROR)
            .unheard(),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_comes_in_one_piece() {
    let interrupted = |name, by: Vec<u8>| {
        rule(name)
            .sends(get(1).continued())
            .sends(by)
            .sends(continuation(1, []))
            .breaks(PROTOCOL_ERROR)
            .unheard()
    };
    let misplaced = [Break(PROTOCOL_ERROR), Break(STREAM_CLOSED)];
    check(vec![
        interrupted("4.3: PRIORITY does not interrupt a block", priority(1, 0)),
        interrupted(
            "4.3: HEADERS of another stream do not interrupt a block",
            get(3).into(),
        ),
        interrupted(
            "4.3: HEADERS of its stream do not interrupt a block",
            get(1).into(),
        ),
        interrupted("4.3: DATA does not interrupt a block", data(1, "a").into()),
        interrupted("4.3: RST_STREAM does not interrupt a block", reset(1, CANCEL)),
        interrupted("4.3: SETTINGS do not interrupt a block", settings(&[])),
        interrupted(
            "4.3: an acknowledgement of SETTINGS does not interrupt a block",
            frame(SETTINGS, ACK, 0, &[]),
        ),
        interrupted("4.3: PING does not interrupt a block", ping(b"question")),
        interrupted(
            "4.3: WINDOW_UPDATE does not interrupt a block",
            window_update(0, 1),
        ),
        interrupted(
            "4.3: GOAWAY does not interrupt a block",
            frame(GOAWAY, 0, 0, &[0; 8]),
        ),
        interrupted(
            "4.3: PUSH_PROMISE does not interrupt a block",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
        ),
        interrupted(
            "4.3: CONTINUATION of another stream does not interrupt a block",
            continuation(3, []),
        ),
        interrupted(
            "5.5: a frame of an unknown kind does not interrupt a block",
            frame(UNKNOWN, 0, 0, &[0; 8]),
        ),
        interrupted(
            "5.5: a frame of an unknown kind on its stream does not interrupt a block",
            frame(UNKNOWN, 0, 1, &[]),
        ),
        rule("6.10: DATA does not interrupt a block behind its first CONTINUATION")
            .sends(post(1).continued())
            .sends(frame(CONTINUATION, 0, 1, &field("x-a", "a")))
            .sends(data(1, "a").end())
            .breaks(PROTOCOL_ERROR)
            .unheard(),
        rule("4.3: PING does not interrupt the block of trailers")
            .sends(post(1))
            .sends(headers(1).field("x-a", "a").end().continued())
            .sends(ping(b"question"))
            .breaks(PROTOCOL_ERROR)
            .unfinished(),
        rule("6.10: CONTINUATION follows HEADERS that are not whole")
            .sends(post(1))
            .sends(continuation(1, field("x-a", "a")))
            .breaks(PROTOCOL_ERROR)
            .unfinished(),
        rule("6.10: CONTINUATION does not follow a request that is whole")
            .sends(get(1).path("/held"))
            .sends(continuation(1, field("x-a", "a")))
            .either(&misplaced),
        rule("6.10: CONTINUATION does not follow one that ends its block")
            .sends(get(1).path("/held").continued())
            .sends(continuation(1, field("x-a", "a")))
            .sends(continuation(1, field("x-b", "b")))
            .either(&misplaced),
        rule("6.10: CONTINUATION does not follow DATA")
            .sends(post(1))
            .sends(data(1, "a"))
            .sends(continuation(1, field("x-a", "a")))
            .breaks(PROTOCOL_ERROR)
            .unfinished(),
        rule("6.10: a block may come in several frames")
            .sends(get(1).continued())
            .sends(frame(CONTINUATION, 0, 1, &field("x-a", "a")))
            .sends(continuation(1, field("x-b", "b")))
            .answers(1, 200)
            .reaches("x-b: b"),
        rule("6.10: a block may come in all frames but the first")
            .sends(headers(1).end().continued())
            .sends(continuation(1, get(1).block()))
            .answers(1, 200),
        rule("6.10: a block may come byte by byte")
            .sends(headers(1).end().continued())
            .sends_all(
                get(1)
                    .block()
                    .iter()
                    .map(|byte| frame(CONTINUATION, 0, 1, &[*byte])),
            )
            .sends(continuation(1, []))
            .answers(1, 200),
        rule("6.10: a block may come in 64 more frames")
            .sends(get(1).continued())
            .sends_all(
                (0..63)
                    .map(|number| frame(CONTINUATION, 0, 1, &field(format!("x-{number}"), "x".repeat(300)))),
            )
            .sends(continuation(1, field("x-last", "a")))
            .answers(1, 200)
            .reaches("x-last: a"),
        rule("6.10: trailers may come in several frames")
            .sends(post(1))
            .sends(headers(1).field("x-a", "a").end().continued())
            .sends(continuation(1, field("x-b", "b")))
            .answers(1, 200),
        rule("10.5: a block does not go on for ever")
            .sends(get(1).continued())
            .sends(frame(CONTINUATION, 0, 1, &field("x-large", "x".repeat(1000))).repeat(10_000))
            .breaks(ENHANCE_YOUR_CALM)
            .unheard(),
        rule("10.5: a block does not go on for ever in frames of nothing")
            .sends(get(1).continued())
            .sends(frame(CONTINUATION, 0, 1, &[]).repeat(100_000))
            .breaks(ENHANCE_YOUR_CALM)
            .unheard(),
    ])
    .await;
}
