//! The other side of a connection, frame by frame, for what no library would send.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::frame::{self, ACK, FrameHead, HEAD, PING, PREFACE, SETTINGS};

const DEADLINE: Duration = Duration::from_secs(10);
const ROOM: usize = 1 << 20;

pub(super) struct Peer {
    stream: DuplexStream,
    unread: BytesMut,
}

impl Peer {
    /// With our side of the connection.
    pub(super) fn new() -> (Self, DuplexStream) {
        let (stream, ours) = duplex(ROOM);
        let unread = BytesMut::new();
        (Self { stream, unread }, ours)
    }

    /// One that has begun as a client does, with these settings.
    pub(super) async fn client(settings: &[u8]) -> (Self, DuplexStream) {
        let (mut peer, ours) = Self::new();
        peer.stream.write_all(PREFACE).await.unwrap();
        peer.send(SETTINGS, 0, 0, settings).await;
        (peer, ours)
    }

    /// One that begins as a server does, with these settings.
    pub(super) async fn server(settings: &[u8]) -> (Self, DuplexStream) {
        let (mut peer, ours) = Self::new();
        peer.send(SETTINGS, 0, 0, settings).await;
        (peer, ours)
    }

    pub(super) async fn take_preface(&mut self) {
        while self.unread.len() < PREFACE.len() {
            self.read().await;
        }
        self.unread.advance(PREFACE.len());
    }

    pub(super) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = BytesMut::new();
        frame::write(&mut bytes, kind, flags, stream, payload);
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub(super) async fn next(&mut self) -> (FrameHead, BytesMut) {
        loop {
            if let Some(head) = FrameHead::read(&self.unread)
                && self.unread.len() >= HEAD + head.length
            {
                self.unread.advance(HEAD);
                return (head, self.unread.split_to(head.length));
            }
            self.read().await;
        }
    }

    /// The next frame of this kind; those before it are passed over.
    pub(super) async fn next_of(&mut self, kind: u8) -> (FrameHead, BytesMut) {
        loop {
            let next = self.next().await;
            if next.0.kind == kind {
                return next;
            }
        }
    }

    /// The frames that come before a ping is answered.
    pub(super) async fn frames_before_answer(&mut self) -> Vec<FrameHead> {
        self.send(PING, 0, 0, b"question").await;
        let mut frames = Vec::new();
        loop {
            let (head, payload) = self.next().await;
            if (head.kind, head.flags) == (PING, ACK) && payload[..] == b"question"[..] {
                return frames;
            }
            frames.push(head);
        }
    }

    async fn read(&mut self) {
        let read = self.stream.read_buf(&mut self.unread);
        let read = timeout(DEADLINE, read).await.expect("nothing comes").unwrap();
        assert!(read > 0, "the connection is closed");
    }
}

mod tests {
    use std::future::poll_fn;

    use http::{HeaderMap, Response};
    use tokio::sync::mpsc;

    use super::super::connection::{Connection, Received};
    use super::super::frame::{
        DATA, END_HEADERS, END_STREAM, HEADERS, MAX_PAYLOAD, RST_STREAM, WINDOW_UPDATE,
    };
    use super::super::settings::OwnSettings;
    use super::super::state::Streams;
    use super::*;

    const WINDOW: u32 = 1 << 17;

    /// `POST https:/` with these fields (RFC 7541 6.1 and appendix A).
    fn post(fields: &[u8]) -> Vec<u8> {
        [&[0x83, 0x87, 0x84][..], fields].concat()
    }

    /// What a client asks on this connection, which goes on beside.
    fn serve(stream: DuplexStream) -> (mpsc::UnboundedReceiver<Received>, Streams) {
        let settings = OwnSettings {
            max_streams: Some(8),
            initial_window: WINDOW,
            max_header_bytes: 1024,
        };
        let mut connection = Connection::new(stream, settings, WINDOW);
        let streams = connection.streams().clone();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(received)) = poll_fn(|context| connection.poll_accept(context)).await {
                let _ = sender.send(received);
            }
            connection.close().await;
        });
        (receiver, streams)
    }

    #[tokio::test]
    async fn a_connection_reads_on_after_it_had_too_much_to_write() {
        const PING_LENGTH: usize = HEAD + 8;
        // Somewhere here, the last one is the one whose answer is too much.
        let fitting = 64 * 1024 / PING_LENGTH;
        for count in fitting - 8..fitting + 2 {
            let (mut peer, ours) = Peer::client(&[]).await;
            for _ in 0..count {
                peer.send(PING, 0, 0, b"one more").await;
            }
            let _serving = serve(ours);
            for _ in 0..count {
                peer.next_of(PING).await;
            }
            peer.frames_before_answer().await;
        }
    }

    #[tokio::test]
    async fn trailers_without_a_field_are_an_end() {
        let (mut peer, ours) = Peer::client(&[]).await;
        let (mut requests, _streams) = serve(ours);
        peer.send(HEADERS, END_HEADERS | END_STREAM, 1, &post(&[])).await;
        let (_request, mut outgoing) = requests.recv().await.unwrap();
        outgoing.send_head(&Response::new(()), false).unwrap();
        outgoing.send_trailers(HeaderMap::new()).unwrap();
        let (head, _) = peer.next_of(DATA).await;
        assert!(head.has(END_STREAM));
    }

    #[tokio::test]
    async fn what_comes_with_a_wrong_end_makes_room_once() {
        let (mut peer, ours) = Peer::client(&[]).await;
        let (mut requests, _streams) = serve(ours);
        let declared = post(b"\x0f\x0d\x0599999");
        peer.frames_before_answer().await;
        // Less than half of the window, if it is counted once.
        for stream in [1, 3, 5] {
            peer.send(HEADERS, END_HEADERS, stream, &declared).await;
            peer.send(DATA, END_STREAM, stream, &[0; MAX_PAYLOAD]).await;
            let (mut request, _outgoing) = requests.recv().await.unwrap();
            let incoming = request.body_mut();
            while let Some(Ok(_)) = poll_fn(|context| incoming.poll_frame(context)).await {}
        }
        let frames = peer.frames_before_answer().await;
        assert!(frames.iter().all(|head| head.kind != WINDOW_UPDATE), "{frames:?}");
    }

    #[tokio::test]
    async fn an_answer_that_is_given_whole_and_not_taken_is_given_up() {
        // The largest window for a stream; that of the connection is the usual one.
        let (mut peer, ours) = Peer::client(&[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
        let (mut requests, streams) = serve(ours);
        for stream in [1, 3] {
            peer.send(HEADERS, END_HEADERS | END_STREAM, stream, &post(&[]))
                .await;
            let (_request, mut outgoing) = requests.recv().await.unwrap();
            outgoing.send_head(&Response::new(()), false).unwrap();
            outgoing.send_data(vec![0; 60_000].into()).unwrap();
            outgoing.finish().unwrap();
        }
        let mut content = 0;
        while content < 65_535 {
            content += peer.next_of(DATA).await.0.length;
        }
        let mut resets = Vec::new();
        for _ in 0..2 {
            streams.lock().give_up_stuck();
            let frames = peer.frames_before_answer().await;
            resets.push(frames.iter().filter(|head| head.kind == RST_STREAM).count());
        }
        assert_eq!(resets, [0, 1]);
    }
}
