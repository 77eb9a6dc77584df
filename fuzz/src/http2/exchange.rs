use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use fairlead_proxy::fuzzing;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::yield_now;

use super::message::{Answer, Sent, read_answer, read_sent};
use super::script::read_script;
use super::wire::{self, End, PREFACE, Said, What};
use crate::exchange::{Received, Shared, files, lock, nowhere, until_quiet, watch};
use crate::judge::judge_beside;
use crate::message::{Request, values};

/// More makes no other kind of input.
const MAX: usize = 8 * 1024;
/// What the upstream answers, more than small windows have room for.
static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=250).cycle().take(3000).collect());
static ANSWER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (start, end) = CONTENT.split_at(1000);
    let head = b"HTTP/1.1 200 OK\r\nX-Upstream: yes\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n";
    [head, start, b"\r\n7d0\r\n", end, b"\r\n0\r\nX-End: 1\r\n\r\n"].concat()
});
const WITHOUT_CONTENT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
/// After so many turns of everything, nothing more comes of itself.
const TURNS: usize = 10_000;
/// Before the other side has said another one (RFC 9113 6.5.2).
const INITIAL_WINDOW: u64 = 65_535;

/// The upstream sees no request that the client did not send, and none that the proxy did not mean; the client gets
/// no more than it has room for, and nothing that is cut and looks whole; and when the client is gone, everything ends.
pub fn exchange_http2(bytes: &[u8]) {
    let pieces = read_script(&bytes[..bytes.len().min(MAX)], PREFACE);
    exchange(&pieces);
    exchange(&cut_otherwise(&pieces));
}

/// At once, or if it was, in two pieces: where they are cut must not matter.
fn cut_otherwise(pieces: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let [whole] = pieces else {
        return vec![pieces.concat()];
    };
    let cut = whole
        .iter()
        .fold(0, |sum: usize, byte| sum.wrapping_mul(31) + usize::from(*byte));
    let (start, end) = whole.split_at(cut % (whole.len() + 1));
    vec![start.to_vec(), end.to_vec()]
}

/// Gives how many requests came whole, and how many answers.
fn exchange(pieces: &[Vec<u8>]) -> (usize, usize) {
    let sent = pieces.concat();
    let (said, end) = match sent.strip_prefix(PREFACE) {
        Some(frames) => wire::read(frames),
        None => (Vec::new(), End::Forbidden),
    };
    let (received, told) = pass(pieces);
    if end == End::Unreadable {
        return (0, 0);
    }
    let streams = read_sent(&said);
    let meant: Vec<_> = streams.values().filter_map(Sent::to_request).collect();
    let requests = judge_beside(&meant, &sent, &received);
    (requests, judge_told(&said, &streams, &told))
}

/// What came at the upstream, and at the client.
fn pass(pieces: &[Vec<u8>]) -> (Vec<Received>, Vec<u8>) {
    let mut told = Vec::new();
    let received = watch(answer_to, async |upstream| told = send(pieces, upstream).await);
    (received, told)
}

fn answer_to(request: &Request) -> &'static [u8] {
    match &request.method[..] {
        b"HEAD" => WITHOUT_CONTENT,
        _ => &ANSWER,
    }
}

/// The client takes all that comes, until the proxy has nothing more to say.
async fn send(pieces: &[Vec<u8>], upstream: &Shared) -> Vec<u8> {
    let (client, proxy) = duplex(64 * 1024);
    let serving = tokio::spawn(serve(proxy));
    let (from, mut to) = split(client);
    let taking = tokio::spawn(take(from, upstream.clone()));
    for piece in pieces {
        // The proxy may have hung up.
        let _ = to.write_all(piece).await;
        until_quiet(upstream).await;
    }
    until_quiet(upstream).await;
    let _ = to.shutdown().await;
    until(
        || taking.is_finished(),
        "the proxy does not hear that the client has gone",
    )
    .await;
    drop(to);
    until(
        || serving.is_finished(),
        "the connection does not end with its client",
    )
    .await;
    until(
        || lock(upstream).is_at_rest(),
        "a request does not end with its client",
    )
    .await;
    taking.await.expect("what came")
}

async fn serve(stream: DuplexStream) {
    fuzzing::serve_http2(&files(), &nowhere(), stream).await;
}

async fn take(mut from: impl AsyncRead + Unpin, upstream: Shared) -> Vec<u8> {
    let mut told = Vec::new();
    while from.read_buf(&mut told).await.is_ok_and(|length| length > 0) {
        lock(&upstream).moves += 1;
    }
    told
}

async fn until(is_so: impl Fn() -> bool, fault: &str) {
    for _ in 0..TURNS {
        if is_so() {
            return;
        }
        yield_now().await;
    }
    panic!("{fault}");
}

/// Gives how many answers came whole.
fn judge_told(said: &[Said], streams: &BTreeMap<u32, Sent>, told: &[u8]) -> usize {
    let (told, end) = wire::read(told);
    assert_eq!(end, End::OfBytes, "the proxy says what must not be: {told:?}");
    check_windows(said, &told);
    let is_served = !told.iter().any(|said| matches!(said.what, What::Farewell(1..)));
    let answers = told
        .iter()
        .filter(|said| matches!(said.what, What::Fields { .. }))
        .map(|said| said.stream);
    let answers: BTreeSet<_> = answers.collect();
    let is_whole = |stream: &&u32| {
        let asked = streams.get(stream).expect("an answer that was asked for");
        let answer = read_answer(&told, **stream, asked.is_head());
        let is_reset = |said: &Said| said.stream == **stream && matches!(said.what, What::Reset);
        let is_to_end = is_served && !said.iter().chain(&told).any(is_reset);
        answer.is_some_and(|answer| check_answer(&answer, is_to_end))
    };
    answers.iter().filter(is_whole).count()
}

/// Gives whether it is whole. An end takes no room: it is there with the last of the content.
fn check_answer(answer: &Answer, is_to_end: bool) -> bool {
    let is_upstreams = values(&answer.fields, "x-upstream").next().is_some();
    let has_content = answer.content == *CONTENT;
    assert!(
        !is_upstreams || has_content || !answer.is_whole,
        "an answer that is cut looks whole"
    );
    assert!(
        !is_upstreams || !has_content || answer.is_whole || !is_to_end,
        "the end of an answer does not come"
    );
    if is_upstreams && answer.is_whole {
        assert_eq!(answer.trailers, [(b"x-end".to_vec(), b"1".to_vec())]);
    }
    answer.is_whole
}

/// RFC 9113 5.2, as if all room had been given at once.
fn check_windows(said: &[Said], told: &[Said]) {
    let mut largest = None;
    let mut room = BTreeMap::<u32, u64>::new();
    for Said { stream, what } in said {
        match what {
            What::Settings(window) => {
                let before = largest.unwrap_or(0);
                let window = match window {
                    Some(window) => u64::from(*window),
                    None => largest.unwrap_or(INITIAL_WINDOW),
                };
                largest = Some(before.max(window));
            }
            What::Room(more) => *room.entry(*stream).or_default() += u64::from(*more),
            _ => {}
        }
    }
    let mut taken = BTreeMap::<u32, u64>::new();
    for Said { stream, what } in told {
        if let What::Content { length, .. } = what {
            for stream in [0, *stream] {
                *taken.entry(stream).or_default() += *length as u64;
            }
        }
    }
    for (stream, taken) in taken {
        let window = match stream {
            0 => INITIAL_WINDOW,
            _ => largest.unwrap_or(INITIAL_WINDOW),
        };
        let room = window + room.get(&stream).copied().unwrap_or(0);
        assert!(taken <= room, "{taken} bytes where {room} have room, on {stream}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_plain_comes_through_and_is_answered() {
        const HEAD: &str = ":scheme https\n:authority a.test\n:path /\n";
        for (script, requests, answers) in [
            (format!(":method GET\n{HEAD}==\n:method HEAD\n{HEAD}"), 2, 2),
            (
                format!(":method POST\n{HEAD}>ab\n==\n:method PUT\n{HEAD}>c\nx y\n=1\n--\n>de"),
                2,
                2,
            ),
            (
                format!("~3 7\n*:method GET\n{HEAD}*x y\n==\n&63\n{HEAD}&62"),
                2,
                2,
            ),
            (
                format!("=0\n!4 0 %00%04%00%00%00%00\n=1\n:method GET\n{HEAD}"),
                1,
                0,
            ),
            (
                format!("=0\n!4 0 %00%04%00%00%00%00\n=1\n:method GET\n{HEAD}--\n!8 0 %00%00%0B%B8\n"),
                1,
                1,
            ),
            (format!(":method POST\n{HEAD}content-length 3\n>ab"), 0, 0),
            (format!(":method POST\n{HEAD}>ab\n--\n!3 0 %00%00%00%08"), 1, 1),
            (
                format!(":method POST\n{HEAD}>ab\n..\n--\n!3 0 %00%00%00%08"),
                0,
                0,
            ),
        ] {
            let pieces = read_script(script.as_bytes(), PREFACE);
            assert_eq!(exchange(&pieces), (requests, answers), "{script}");
        }
    }
}
