//! Clients of HTTP/2 that send what costs them little and the proxy much: each is cut off or slowed down,
//! in bounded memory, and harms nobody else.

use std::time::Duration;

use fairlead_tests::{Proxy, Site, Upstream, accept, body};
use http::Response;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, head, read_frame,
};

/// A peer that takes nothing for so long has stopped to.
const STUCK: Duration = Duration::from_secs(1);
/// How much the proxy may grow under any of them.
const ROOM: u64 = 32 << 20;

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_and_reset_without_end_cost_the_connection() {
    let flood = (0..20_000).flat_map(|number| {
        let stream = 2 * number + 1;
        let mut frames = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("GET"));
        frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        frames
    });
    Attack::begin().await.assert_cut_off(flood.collect()).await;
}

/// The same so slowly that each has reached its upstream.
#[tokio::test(flavor = "multi_thread")]
async fn exchanges_begun_and_given_up_without_end_cost_the_connection() {
    let attack = Attack::begin().await;
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    attack.site.serve(&["a.test"], &[upstream.local_addr().unwrap()]);
    attack.proxy.reload();
    let (from_proxy, mut to_proxy) = tokio::io::split(attack.connect().await);
    let mut hung_up = tokio::spawn(read_reason(from_proxy));
    for stream in (1..4000).step_by(2) {
        let head = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("GET"));
        let _ = to_proxy.write_all(&head).await;
        let mut exchange = tokio::select! {
            exchange = accept(&upstream) => exchange,
            reason = &mut hung_up => {
                assert_eq!(reason.unwrap(), Some(ENHANCE_YOUR_CALM));
                attack.assert_small();
                return;
            }
        };
        let _ = to_proxy
            .write_all(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()))
            .await;
        exchange.read_rest().await;
    }
    panic!("it goes on and on");
}

/// CVE-2024-27316.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_costs_the_connection() {
    let mut flood = frame(HEADERS, END_STREAM, 1, &head("GET"));
    let field = [&[0, 1, b'x', 0x7f, 0x81, 0x07][..], &[b'y'; 1024]].concat();
    for _ in 0..20_000 {
        flood.extend(frame(CONTINUATION, 0, 1, &field));
    }
    Attack::begin().await.assert_cut_off(flood).await;
}

/// Each field is one byte, and four kilobytes once it is unpacked.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_unpacks_to_much_reaches_no_upstream() {
    let attack = Attack::begin().await;
    let mut attacker = attack.connect().await;
    // A literal that is kept in the table, at index 62, and then named again and again.
    let mut block = head("GET");
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend([b'y'; 4000]);
    block.extend([0xbe; 12_000]);
    let head = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    attacker.write_all(&head).await.unwrap();
    while let Some((_, stream, _)) = read_frame(&mut attacker).await {
        if stream == 1 {
            break;
        }
    }
    assert_eq!(attack.upstream.connections(), 0);
    attack.assert_harmless().await;
}

/// CVE-2019-9512 and CVE-2019-9515.
#[tokio::test(flavor = "multi_thread")]
async fn questions_whose_answers_are_not_read_are_not_collected() {
    for flood in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])] {
        let attack = Attack::begin().await;
        let mut attacker = attack.connect().await;
        offer(&mut attacker, &flood.repeat(4096), 1000).await;
        attack.assert_harmless().await;
    }
}

/// CVE-2019-9518.
#[tokio::test(flavor = "multi_thread")]
async fn empty_parts_of_a_body_are_not_collected() {
    let attack = Attack::begin().await;
    let mut attacker = attack.connect().await;
    let head = frame(HEADERS, END_HEADERS, 1, &head("POST"));
    attacker.write_all(&head).await.unwrap();
    offer(&mut attacker, &frame(DATA, 0, 1, &[]).repeat(4096), 200).await;
    attack.assert_harmless().await;
}

/// Each is a byte, and would be more than that to keep one by one.
#[tokio::test(flavor = "multi_thread")]
async fn small_parts_that_the_upstream_does_not_take_are_kept_in_one_piece() {
    let attack = Attack::begin().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    attack.site.serve(&["a.test"], &[silent.local_addr().unwrap()]);
    attack.proxy.reload();
    let head = frame(HEADERS, END_HEADERS, 1, &head("POST"));
    let parts = frame(DATA, 0, 1, b"x").repeat(1_000_000);
    let mut attacker = attack.connect().await;
    // Then its window is as large as it gets.
    while read_frame(&mut attacker).await.unwrap().0 != WINDOW_UPDATE {}
    let taken = frame(SETTINGS, ACK, 0, &[]);
    let (from_proxy, mut to_proxy) = tokio::io::split(attacker);
    let answered = tokio::spawn(read_answer_to_ping(from_proxy));
    let ping = frame(PING, 0, 0, &[7; 8]);
    to_proxy
        .write_all(&[taken, head, parts, ping].concat())
        .await
        .unwrap();
    answered.await.unwrap();
    attack.assert_small();
}

/// CVE-2019-9517.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_taken_are_not_collected() {
    let attack = Attack::begin().await;
    let mut attacker = attack.connect().await;
    let no_window = [&[0, 4][..], &[0; 4]].concat();
    attacker
        .write_all(&frame(SETTINGS, 0, 0, &no_window))
        .await
        .unwrap();
    for number in 0..100 {
        let head = frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &head("GET"));
        attacker.write_all(&head).await.unwrap();
    }
    let mut answered = 0;
    while answered < 100 {
        let (kind, _, _) = read_frame(&mut attacker).await.unwrap();
        answered += usize::from(kind == HEADERS);
    }
    attack.assert_harmless().await;
}

/// An upstream may say without end what comes before its answer.
#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_that_are_not_taken_are_not_collected() {
    let over_http2 = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &head("GET")),
    ];
    for (protocol, request) in [
        ("http/1.1", b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec()),
        ("h2", over_http2.concat()),
    ] {
        let attack = Attack::begin().await;
        let talkative = TcpListener::bind("127.0.0.1:0").await.unwrap();
        attack.site.serve(&["a.test"], &[talkative.local_addr().unwrap()]);
        attack.proxy.reload();
        let client = attack.site.client();
        let connected = client.connect(attack.proxy.https(), "a.test", &[protocol]).await;
        let mut client = connected.unwrap();
        client.write_all(&request).await.unwrap();
        let mut upstream = accept(&talkative).await;
        upstream.read_head().await;
        for number in 0..64_000 {
            // HTTP/2 would make little of one that has come before.
            let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: <{number:01000}>\r\n\r\n");
            upstream.write(hint).await;
        }
        attack.assert_small();
    }
}

/// A proxy, what it took before the attack, and a site whose answers are large.
struct Attack {
    site: Site,
    upstream: Upstream,
    proxy: Proxy,
    resident_before: u64,
}

impl Attack {
    async fn begin() -> Self {
        let upstream = Upstream::start(|_| async { Response::new(body::full("x".repeat(1 << 20))) }).await;
        let site = Site::of("a.test", upstream.address());
        let proxy = site.start();
        let resident_before = proxy.resident();
        Self {
            site,
            upstream,
            proxy,
            resident_before,
        }
    }

    /// A connection of HTTP/2 before its first request.
    async fn connect(&self) -> TlsStream<TcpStream> {
        frames::connect(&self.site, &self.proxy).await
    }

    async fn assert_cut_off(&self, flood: Vec<u8>) {
        assert_hung_up_on(self.connect().await, flood).await;
        self.assert_harmless().await;
    }

    fn assert_small(&self) {
        let grown = self.proxy.resident().saturating_sub(self.resident_before);
        assert!(grown < ROOM, "grown by {grown} bytes");
    }

    async fn assert_harmless(&self) {
        self.assert_small();
        let response = self.site.client().get(&self.proxy, "https://a.test/").await;
        assert_eq!(response.status(), 200);
    }
}

/// Sends the flood and reads until the proxy hangs up, which it does with ENHANCE_YOUR_CALM.
async fn assert_hung_up_on(attacker: TlsStream<TcpStream>, flood: Vec<u8>) {
    let (from_proxy, mut to_proxy) = tokio::io::split(attacker);
    let sending = tokio::spawn(async move { to_proxy.write_all(&flood).await });
    assert_eq!(read_reason(from_proxy).await, Some(ENHANCE_YOUR_CALM));
    sending.abort();
}

/// Reads until the proxy hangs up, and returns the reason it gave.
async fn read_reason(mut from_proxy: impl AsyncRead + Unpin) -> Option<u32> {
    let mut reason = None;
    while let Some((kind, _, payload)) = read_frame(&mut from_proxy).await {
        if kind == GOAWAY {
            reason = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
    reason
}

/// Reads until what was sent before a ping has been taken.
async fn read_answer_to_ping(mut from_proxy: impl AsyncRead + Unpin) {
    while read_frame(&mut from_proxy).await.unwrap().0 != PING {}
}

/// Writes until the peer takes no more, at most so many times.
async fn offer(stream: &mut TlsStream<TcpStream>, bytes: &[u8], times: usize) {
    for _ in 0..times {
        if !matches!(timeout(STUCK, stream.write_all(bytes)).await, Ok(Ok(()))) {
            return;
        }
    }
}
