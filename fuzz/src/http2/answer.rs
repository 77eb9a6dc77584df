use fairlead_proxy::fuzzing::{Answer, read_answers_http2};
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex, sink, split};
use tokio::runtime::Handle;
use tokio::task::yield_now;

use super::message::{self, read_answer};
use super::script::read_script;
use super::wire::{self, End, HEADERS, PREFACE};
use crate::message::{Field, Fields, values};

/// More makes no other kind of input.
const MAX: usize = 4 * 1024;
/// Larger than all that goes and comes.
const AT_ONCE: usize = 16 * MAX;
/// What a connection begins with takes no more.
const GREETING: usize = 1024;
/// After so many turns of everything for each byte, nothing more comes of itself.
const TURNS: usize = 100;
/// What is asked, over the first streams of a client.
const ASKED: [(Method, u32); 2] = [(Method::GET, 1), (Method::HEAD, 3)];

/// What an upstream says is understood in one way, however it arrives; what is understood is what it said; an answer is
/// whole if it came to its end, and as long as its head says; and when the upstream is gone, everything ends.
pub fn answer_http2(bytes: &[u8]) {
    let said = read_script(&bytes[..bytes.len().min(MAX)], &[]).concat();
    let answers = answers_to(&said, AT_ONCE);
    for size in [1, 7] {
        assert_eq!(answers_to(&said, size), answers, "by {size}");
    }
    let (said, end) = wire::read(&said);
    if end == End::Unreadable {
        return;
    }
    for ((method, stream), answer) in ASKED.into_iter().zip(answers) {
        let meant = read_answer(&said, stream, method == Method::HEAD);
        if let Some(answer) = answer {
            let meant = meant.unwrap_or_else(|| panic!("nobody gave the answer {answer:?}"));
            check(&answer, &meant);
        }
    }
}

fn check(answer: &Answer, meant: &message::Answer) {
    assert_eq!(answer.status.as_u16(), meant.status);
    let (of_lengths, fields) = sorted(&answer.headers)
        .into_iter()
        .partition::<Fields, _>(is_length);
    let (_, meant_fields) = in_order(meant.fields.iter().cloned())
        .into_iter()
        .partition::<Fields, _>(is_length);
    assert_eq!(fields, meant_fields);
    assert!(of_lengths.len() <= 1, "{of_lengths:?}");
    for (_, length) in &of_lengths {
        assert!(values(&meant.fields, "content-length").any(|other| other == length));
    }
    assert!(meant.content.starts_with(&answer.content), "{answer:?} {meant:?}");
    if answer.is_whole {
        assert!(meant.is_whole, "{answer:?} is cut: {meant:?}");
        assert_eq!(answer.content, meant.content);
        assert_eq!(sorted(&answer.trailers), in_order(meant.trailers.iter().cloned()));
    }
}

fn is_length((name, _): &Field) -> bool {
    name == b"content-length"
}

fn sorted(headers: &HeaderMap) -> Fields {
    let fields = headers.iter();
    in_order(fields.map(|(name, value)| (name.as_str().into(), value.as_bytes().into())))
}

/// A map has the fields of one name in their order, and no order of names.
fn in_order(fields: impl Iterator<Item = Field>) -> Fields {
    let mut fields: Vec<_> = fields.collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

/// What an upstream is understood to answer that says this, in pieces of at most `size`, and then hangs up.
fn answers_to(said: &[u8], size: usize) -> Vec<Option<Answer>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (proxy, upstream) = duplex(size);
        tokio::spawn(say(upstream, said.to_vec()));
        let methods = ASKED.map(|(method, _)| method);
        let reading = tokio::spawn(read_answers_http2(methods, proxy));
        let tasks = || Handle::current().metrics().num_alive_tasks();
        for _ in 0..TURNS * (said.len() + GREETING) {
            if tasks() == 0 {
                break;
            }
            yield_now().await;
        }
        assert_eq!(tasks(), 0, "the connection does not end with its upstream");
        reading.await.expect("answers").into()
    })
}

/// The proxy may hang up before all has been said. What it says is taken all the while.
async fn say(mut upstream: DuplexStream, bytes: Vec<u8>) {
    let mut preface = [0; PREFACE.len()];
    upstream.read_exact(&mut preface).await.expect("a preface");
    let mut asked = 0;
    while asked < ASKED.len() {
        let mut head = [0; 9];
        upstream.read_exact(&mut head).await.expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        upstream.read_exact(&mut payload).await.expect("its payload");
        asked += usize::from(head[3] == HEADERS);
    }
    let (mut from, mut to) = split(upstream);
    let saying = async {
        let _ = to.write_all(&bytes).await;
        let _ = to.shutdown().await;
    };
    let mut nowhere = sink();
    let _ = tokio::join!(saying, copy(&mut from, &mut nowhere));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether what is answered over each stream is whole.
    fn wholes(script: &str) -> [Option<bool>; 2] {
        answer_http2(script.as_bytes());
        let said = read_script(script.as_bytes(), &[]).concat();
        let answers = answers_to(&said, AT_ONCE);
        [0, 1].map(|place| answers[place].as_ref().map(|answer| answer.is_whole))
    }

    #[test]
    fn what_is_plain_is_understood() {
        for (script, expected) in [
            (":status 200\nx y\n>ab\n>cd\nx-end 1", [Some(true), None]),
            (
                ":status 103\n..\n--\n:status 200\n=3\n:status 200\ncontent-length 5\n=1\n!0 1 ab",
                [Some(true), Some(true)],
            ),
            ("~2 3\n*:status 204\n=3\n&62", [Some(true), Some(true)]),
            (":status 200\ncontent-length 3\n>ab", [Some(false), None]),
            (":status 200\n>ab\n..", [Some(false), None]),
            (":status 200\n>ab\n..\n!3 0 %00%00%00%00", [Some(false), None]),
            (":status 200\n>ab\n:status 200", [Some(false), None]),
            ("=3\n:status 200\n>ab", [None, Some(false)]),
            (":status 101\n..", [None, None]),
        ] {
            assert_eq!(wholes(script), expected, "{script}");
        }
    }
}
