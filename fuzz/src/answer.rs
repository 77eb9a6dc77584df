use fairlead_proxy::fuzzing::{Answer, read_answer};
use http::Method;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// More makes no other kind of input.
const MAX: usize = 4 * 1024;
/// Larger than all that comes.
const AT_ONCE: usize = 2 * MAX;

/// What an upstream says is understood in one way, however it arrives; a body is as long as its head says; and a
/// connection on which anything stands behind an answer carries no other one.
pub fn answer(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MAX)];
    for method in [Method::GET, Method::HEAD] {
        let answer = answer_to(&method, bytes, AT_ONCE);
        for size in [1, 7] {
            let (pieces, is_kept) = apart(answer_to(&method, bytes, size));
            let (at_once, would_be_kept) = apart(answer.clone());
            assert_eq!(pieces, at_once, "{method} by {size}");
            // What stands behind an answer may be still to come.
            assert!(is_kept || !would_be_kept, "{method} by {size}");
        }
        let Some(answer) = answer else {
            continue;
        };
        check_length(&method, &answer);
        if answer.is_kept {
            let more = answer_to(&method, &[bytes, b"H"].concat(), AT_ONCE);
            assert_eq!(apart(more), (apart(Some(answer)).0, false), "{method}");
        }
    }
}

/// An answer but for what becomes of its connection, and that.
fn apart(answer: Option<Answer>) -> (Option<Answer>, bool) {
    let is_kept = answer.as_ref().is_some_and(|answer| answer.is_kept);
    let rest = answer.map(|answer| Answer {
        is_kept: false,
        ..answer
    });
    (rest, is_kept)
}

fn check_length(method: &Method, answer: &Answer) {
    let lengths: Vec<_> = answer.headers.get_all(CONTENT_LENGTH).iter().collect();
    assert!(lengths.len() <= 1, "{lengths:?}");
    let Some(length) = lengths.first() else {
        return;
    };
    assert!(!answer.headers.contains_key(TRANSFER_ENCODING), "two ends");
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    let has_body = method != Method::HEAD && !matches!(answer.status.as_u16(), 101 | 204 | 304);
    if has_body && answer.is_whole {
        assert_eq!(Some(answer.content.len()), length);
    }
    assert!(has_body || answer.content.is_empty());
}

/// What an upstream is understood to answer that says this, in pieces of at most `size`, and then hangs up.
fn answer_to(method: &Method, bytes: &[u8], size: usize) -> Option<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (proxy, upstream) = duplex(size);
        let upstream = tokio::spawn(say(upstream, bytes.to_vec()));
        let answer = read_answer(method.clone(), proxy).await;
        upstream.abort();
        answer
    })
}

/// The proxy may hang up before all has been said.
async fn say(mut upstream: DuplexStream, bytes: Vec<u8>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(upstream.read_u8().await.expect("a request"));
    }
    let _ = upstream.write_all(&bytes).await;
}
