use std::future::poll_fn;
use std::task::{Poll, ready};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::Http2Error;
use super::connection::Connection;
use super::handles::{Incoming, Outgoing};
use super::settings::OwnSettings;
use super::state::Streams;

/// What one answer may keep unread; a slow client holds up its own answer and no other one.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// Begins exchanges on a connection to a server, which closes when there is no handle left and no exchange is
/// under way.
pub(crate) struct Requests(Streams);

impl Requests {
    /// Begins to speak.
    pub(crate) fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let settings = OwnSettings {
            max_streams: None,
            initial_window: STREAM_WINDOW,
            max_header_bytes: MAX_HEADER_BYTES,
        };
        let mut connection = Connection::new(stream, settings, CONNECTION_WINDOW);
        let requests = Self::of(connection.streams());
        tokio::spawn(async move {
            // Nobody may begin a stream towards a client.
            if let Some(Err(error)) = poll_fn(|context| connection.poll_accept(context)).await {
                let error = &error as &dyn std::error::Error;
                debug!(error, "a connection to an upstream broke");
            }
            connection.close().await;
        });
        requests
    }

    fn of(streams: &Streams) -> Self {
        streams.lock().count_opener();
        Self(streams.clone())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().closed().is_some()
    }

    /// Whether the server takes a further exchange at once (RFC 9113 5.1.2): every handle but this one is there to begin
    /// one.
    pub(crate) fn has_room(&self) -> bool {
        self.0.lock().has_room_for_all()
    }

    /// Waits until it does. Nothing has been sent if it fails.
    pub(crate) async fn ready(&self) -> Result<(), Http2Error> {
        poll_fn(|context| self.0.lock().poll_room(context)).await
    }

    /// Sends a head, all of the request or what its content follows, as soon as the server takes a further exchange.
    pub(crate) async fn send(
        self,
        head: &Request<()>,
        is_last: bool,
    ) -> Result<(Incoming, Outgoing), Http2Error> {
        let id = poll_fn(|context| {
            let mut state = self.0.lock();
            ready!(state.poll_room(context))?;
            let id = state.open(head, is_last);
            state.notify();
            Poll::Ready(id)
        })
        .await?;
        Ok((Incoming::new(&self.0, id), Outgoing::new(&self.0, id)))
    }

    /// Whether the server makes tunnels (RFC 8441 3). It says so first of all: when it has answered a ping, it has.
    pub(crate) async fn makes_tunnels(&self) -> Result<bool, Http2Error> {
        if !self.0.lock().peer().takes_connect {
            let ping = {
                let mut state = self.0.lock();
                let ping = state.ping();
                state.notify();
                ping
            };
            poll_fn(|context| self.0.lock().poll_answered(ping, context)).await?;
        }
        Ok(self.0.lock().peer().takes_connect)
    }
}

impl Clone for Requests {
    fn clone(&self) -> Self {
        Self::of(&self.0)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.0.lock().drop_opener();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::header::{HOST, UPGRADE};
    use http::uri::Scheme;
    use http::{HeaderValue, StatusCode};
    use tokio::task::JoinHandle;

    use super::super::frame::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Reason, SETTINGS};
    use super::super::peer::Peer;
    use super::*;
    use crate::body::RequestBody;
    use crate::sender::{Http2Sender, Sender};

    async fn begin(requests: &Requests, is_last: bool) -> (Incoming, Outgoing) {
        let head = Request::post("http://a.test/").body(()).unwrap();
        requests.clone().send(&head, is_last).await.unwrap()
    }

    #[tokio::test]
    async fn an_upstream_may_give_up_any_number_of_requests() {
        let (mut peer, ours) = Peer::server(&[]).await;
        let requests = Requests::new(ours);
        peer.take_preface().await;
        for _ in 0..600 {
            let (mut incoming, _outgoing) = begin(&requests, false).await;
            let (head, _) = peer.next_of(HEADERS).await;
            peer.send(RST_STREAM, 0, head.stream, &[0; 4]).await;
            let answered = poll_fn(|context| incoming.poll_head(context)).await;
            assert!(
                matches!(answered, Err(Http2Error::Reset(Reason::NO_ERROR))),
                "{answered:?}"
            );
        }
        assert!(!requests.is_closed());
    }

    /// An upstream that takes one exchange at once, with the one it has and another one that waits.
    async fn waiting() -> (
        Peer,
        u32,
        Incoming,
        JoinHandle<Result<(Incoming, Outgoing), Http2Error>>,
    ) {
        let (mut peer, ours) = Peer::server(&[0, 3, 0, 0, 0, 1]).await;
        let requests = Requests::new(ours);
        peer.take_preface().await;
        peer.frames_before_answer().await;
        let (incoming, _outgoing) = begin(&requests, true).await;
        let first = peer.next_of(HEADERS).await.0.stream;
        let next = tokio::spawn(async move {
            let head = Request::post("http://a.test/").body(()).unwrap();
            requests.send(&head, true).await
        });
        let frames = peer.frames_before_answer().await;
        assert!(frames.iter().all(|frame| frame.kind != HEADERS));
        (peer, first, incoming, next)
    }

    #[tokio::test]
    async fn a_request_waits_until_there_is_room_for_it_and_no_longer() {
        let (mut peer, first, _incoming, next) = waiting().await;
        peer.send(HEADERS, END_HEADERS | END_STREAM, first, &[0x88]).await;
        peer.next_of(HEADERS).await;
        assert!(next.await.unwrap().is_ok());

        let (mut peer, _, _incoming, next) = waiting().await;
        peer.send(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 2]).await;
        peer.next_of(HEADERS).await;
        assert!(next.await.unwrap().is_ok());

        let (mut peer, _, _incoming, next) = waiting().await;
        peer.send(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
        peer.frames_before_answer().await;
        assert!(matches!(next.await.unwrap(), Err(Http2Error::Unprocessed(_))));

        let (peer, _, _incoming, next) = waiting().await;
        drop(peer);
        assert!(matches!(next.await.unwrap(), Err(Http2Error::Io(_))));
    }

    #[tokio::test]
    async fn who_waits_for_an_upstream_that_takes_nothing_hears_of_its_end() {
        let (mut peer, ours) = Peer::server(&[0, 3, 0, 0, 0, 0]).await;
        let requests = Requests::new(ours);
        peer.take_preface().await;
        peer.frames_before_answer().await;
        let waiting = tokio::spawn(async move { requests.ready().await });
        peer.frames_before_answer().await;
        drop(peer);
        assert!(matches!(waiting.await.unwrap(), Err(Http2Error::Io(_))));
    }

    #[tokio::test]
    async fn what_comes_long_after_a_cancellation_does_no_harm() {
        let (mut peer, ours) = Peer::server(&[]).await;
        let requests = Requests::new(ours);
        peer.take_preface().await;
        drop(begin(&requests, true).await);
        let (cancelled, _) = peer.next_of(RST_STREAM).await;
        for _ in 0..300 {
            let (mut incoming, _outgoing) = begin(&requests, true).await;
            let (head, _) = peer.next_of(HEADERS).await;
            peer.send(HEADERS, END_HEADERS | END_STREAM, head.stream, &[0x88])
                .await;
            poll_fn(|context| incoming.poll_head(context)).await.unwrap();
        }
        peer.send(DATA, 0, cancelled.stream, b"late").await;
        peer.frames_before_answer().await;
        assert!(!requests.is_closed());
    }

    #[tokio::test]
    async fn a_request_that_nobody_waits_for_is_cancelled_though_its_content_cannot_leave() {
        // No window for a stream (RFC 9113 6.5.2).
        let (mut peer, ours) = Peer::server(&[0, 4, 0, 0, 0, 0]).await;
        let requests = Requests::new(ours);
        peer.take_preface().await;
        peer.frames_before_answer().await;
        let (incoming, mut outgoing) = begin(&requests, false).await;
        outgoing.send_data(Bytes::from_static(b"content")).unwrap();
        outgoing.finish().unwrap();
        drop((incoming, outgoing));
        let (_, reason) = peer.next_of(RST_STREAM).await;
        assert_eq!(reason[..], [0, 0, 0, 8]);
    }

    #[tokio::test]
    async fn an_upstream_that_refuses_a_tunnel_and_resets_the_rest_is_heard() {
        let (mut peer, ours) = Peer::server(&[]).await;
        let sender = Sender::Http2(Http2Sender::new(ours, Scheme::HTTP));
        let asking = tokio::spawn(async move {
            let mut request = Request::new(RequestBody::empty());
            let headers = request.headers_mut();
            headers.insert(HOST, HeaderValue::from_static("a.test"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            let answered = sender.exchange(Box::new(request), None, Duration::MAX).await;
            answered.map_err(|unanswered| unanswered.error)
        });
        peer.take_preface().await;
        let (head, _) = peer.next_of(HEADERS).await;
        let not_found = [0x8d];
        peer.send(HEADERS, END_HEADERS | END_STREAM, head.stream, &not_found)
            .await;
        peer.send(RST_STREAM, 0, head.stream, &[0; 4]).await;
        assert_eq!(asking.await.unwrap().unwrap().status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn an_answer_that_ends_without_the_content_it_declares_is_none() {
        let (mut peer, ours) = Peer::server(&[]).await;
        let requests = Requests::new(ours);
        peer.take_preface().await;
        let (mut incoming, _outgoing) = begin(&requests, true).await;
        let (head, _) = peer.next_of(HEADERS).await;
        let answer = b"\x88\x0f\x0d\x015";
        peer.send(HEADERS, END_HEADERS | END_STREAM, head.stream, answer)
            .await;
        let answered = poll_fn(|context| incoming.poll_head(context)).await;
        assert!(answered.is_err_and(|error| error.is_violation()));
    }
}
