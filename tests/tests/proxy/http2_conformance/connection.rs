//! A connection of which everything that came is kept.

use std::time::Duration;

use tokio::io::{AsyncWriteExt, ReadHalf, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::client::{Data, get, ping};
use super::log::Log;
use super::stage::Stage;
use crate::frames::{ACK, DATA, HEADERS, NO_ERROR, PING, PREFACE, SETTINGS, frame, receive};

/// How long anything that has to come may take.
const LIMIT: Duration = Duration::from_secs(10);
/// A setting (RFC 9113 6.5.2).
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
/// What it is before it was announced (RFC 9113 6.9.2), and what a connection begins with.
const FIRST_WINDOW: u32 = 65_535;
/// Above those that any rule uses.
const LAST_STREAM: u32 = 1_000_001;

/// What has to come.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// To this stream, with this status and to its end.
    Answer(u32, u16),
    /// The end of this stream with this code, before an answer that pretends that all was well.
    Reset(u32, u32),
    /// GOAWAY with this code, and then the end of the connection.
    Break(u32),
    /// The same, and the last stream that was dealt with.
    BreakAfter(u32, u32),
    /// The end of the connection; the GOAWAY with this code may be left out (RFC 9113 3.4).
    Close(u32),
    /// With this last stream and NO_ERROR; the connection stays.
    GoAway(u32),
    Pong([u8; 8]),
    /// That no such answer to a ping has come.
    NoPong([u8; 8]),
    /// So many acknowledgements of settings.
    Acknowledged(usize),
    /// A head on this stream whose block begins with these bytes.
    Block(u32, &'static [u8]),
    /// So many bytes on this stream, and no more.
    Data(u32, usize),
    /// A setting that was announced.
    Setting(u16, u32),
    /// That no such frame has come for this stream.
    No(u8, u32),
    Either(Vec<Self>),
}

impl Wanted {
    /// `None` as long as it may still come, or not.
    fn is_there(&self, log: &Log) -> Option<bool> {
        let unless_over = || log.is_over().then_some(false);
        match self {
            Self::Answer(stream, status) => match log.status(*stream) {
                Some(other) if other != *status => Some(false),
                Some(_) if log.has_ended(*stream) => Some(true),
                _ if log.reset(*stream).is_some() => Some(false),
                _ => unless_over(),
            },
            Self::Reset(stream, code) => match log.reset(*stream) {
                Some(other) => Some(other == *code),
                None if log.status(*stream).is_some_and(|status| status < 400) => Some(false),
                None => unless_over(),
            },
            Self::Break(code) => log.end(|_, given| given == *code),
            Self::BreakAfter(last, code) => log.end(|stream, given| (stream, given) == (*last, *code)),
            Self::Close(code) => match log.go_away() {
                Some((_, given)) if given != *code => Some(false),
                _ => log.is_closed.then_some(true),
            },
            Self::GoAway(last) => match log.go_away() {
                Some(given) if given == (*last, NO_ERROR) => Some(true),
                _ => unless_over(),
            },
            Self::Pong(payload) => match log.count(PING, ACK, payload) {
                0 => unless_over(),
                _ => Some(true),
            },
            Self::NoPong(payload) => Some(log.count(PING, ACK, payload) == 0),
            Self::Acknowledged(times) => match log.count(SETTINGS, ACK, &[]) >= *times {
                true => Some(true),
                false => unless_over(),
            },
            Self::Block(stream, start) => match log.of(HEADERS, *stream).next() {
                Some(head) => Some(head.payload.starts_with(start)),
                None => unless_over(),
            },
            Self::Data(stream, length) => match log.length(*stream) {
                more if more > *length => Some(false),
                enough if enough == *length => Some(true),
                _ => unless_over(),
            },
            Self::Setting(id, value) => Some(log.setting(*id) == Some(*value)),
            Self::No(kind, stream) => Some(log.of(*kind, *stream).next().is_none()),
            Self::Either(all) => {
                let answers: Vec<_> = all.iter().map(|wanted| wanted.is_there(log)).collect();
                if answers.contains(&Some(true)) {
                    return Some(true);
                }
                (!answers.contains(&None)).then_some(false)
            }
        }
    }
}

pub(super) struct Connection {
    from_proxy: ReadHalf<TlsStream<TcpStream>>,
    /// Written by a task of its own: a proxy that does not read is still heard.
    to_proxy: UnboundedSender<Vec<u8>>,
    log: Log,
}

impl Connection {
    /// Without a preface.
    pub(super) async fn bare(stage: &Stage) -> Self {
        let stream = TcpStream::connect(stage.proxy.https()).await.unwrap();
        // Many rules send twice before they hear anything.
        stream.set_nodelay(true).unwrap();
        let connected = stage.site.client().connect_on(stream, "a.test", &["h2"]).await;
        let (from_proxy, mut writer) = split(connected.unwrap());
        let (to_proxy, mut frames) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(async move {
            while let Some(frame) = frames.recv().await {
                // Why it takes no more is what it says itself.
                let _ = writer.write_all(&frame).await;
                let _ = writer.flush().await;
            }
        });
        let log = Log::default();
        Self {
            from_proxy,
            to_proxy,
            log,
        }
    }

    pub(super) async fn open(stage: &Stage) -> Self {
        let connection = Self::bare(stage).await;
        connection.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        connection
    }

    pub(super) fn send(&self, bytes: Vec<u8>) {
        let _ = self.to_proxy.send(bytes);
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn is_over(&self) -> bool {
        self.log.is_over()
    }

    pub(super) async fn wait_for(&mut self, wanted: &Wanted) -> Result<(), String> {
        let coming = async {
            loop {
                match wanted.is_there(&self.log) {
                    Some(is_there) => return is_there,
                    None => self.receive().await,
                }
            }
        };
        match timeout(LIMIT, coming).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("no {wanted:?}")),
            Err(_) => Err(format!("no {wanted:?} in time")),
        }
    }

    /// Whether it goes on with further requests.
    pub(super) async fn prove_alive(&mut self) -> Result<(), String> {
        self.send(ping(b"there? 1"));
        self.send(get(LAST_STREAM).path("/alive").into());
        self.wait_for(&Wanted::Pong(*b"there? 1")).await?;
        self.wait_for(&Wanted::Answer(LAST_STREAM, 200)).await
    }

    /// Opens stream after stream, each with what is made of its number, until twice as much has gone through the window
    /// of the connection as it was ever open for. Nothing of a stream may exceed the first window.
    pub(super) async fn spend(&mut self, frames: fn(u32) -> Vec<u8>) -> Result<(), String> {
        let mut window = Window::default();
        for stream in (1..).step_by(2) {
            if window.was_opened_again() {
                break;
            }
            let frames = frames(stream);
            let length = controlled_length(&frames);
            self.until(|log| window.admits(length, log.credited(0, FIRST_WINDOW)))
                .await?;
            self.send(frames);
            window.spent += length;
            // One after another: streams that are given up all at once are an attack (CVE-2023-44487).
            let question = u64::from(stream).to_be_bytes();
            self.send(ping(&question));
            self.wait_for(&Wanted::Pong(question)).await?;
        }
        Ok(())
    }

    /// Sends a body in frames like this one, until twice as much has gone through the windows of the connection and the
    /// stream as they were ever open for.
    pub(super) async fn upload(&mut self, stream: u32, part: fn(u32) -> Data) -> Result<(), String> {
        let mut window = Window::default();
        let frame: Vec<u8> = part(stream).into();
        let length = controlled_length(&frame);
        while !window.was_opened_again() {
            self.until(|log| {
                let first = log.setting(INITIAL_WINDOW_SIZE).unwrap_or(FIRST_WINDOW);
                let of_connection = log.credited(0, FIRST_WINDOW);
                window.admits(length, of_connection.min(log.credited(stream, first)))
            })
            .await?;
            self.send(frame.clone());
            window.spent += length;
        }
        Ok(())
    }

    async fn until(&mut self, mut is_so: impl FnMut(&Log) -> bool) -> Result<(), String> {
        while !is_so(&self.log) {
            if self.log.is_over() {
                return Err("it ended in the middle".to_owned());
            }
            let received = timeout(LIMIT, self.receive()).await;
            received.map_err(|_| "the window did not open again in time")?;
        }
        Ok(())
    }

    async fn receive(&mut self) {
        let Some(received) = receive(&mut self.from_proxy).await else {
            self.log.is_closed = true;
            return;
        };
        let answer = |payload| frame(received.kind, ACK, 0, payload);
        match (received.kind, received.flags & ACK) {
            (SETTINGS, 0) => self.send(answer(&[])),
            (PING, 0) => self.send(answer(&received.payload)),
            _ => {}
        }
        self.log.add(received);
    }
}

/// How a client keeps within a window, and sees whether it is opened again.
#[derive(Default)]
struct Window {
    spent: u64,
    widest: u64,
}

impl Window {
    fn admits(&mut self, length: u64, credited: u64) -> bool {
        let left = credited - self.spent;
        self.widest = self.widest.max(left);
        left >= length
    }

    fn was_opened_again(&self) -> bool {
        self.spent > 2 * self.widest
    }
}

/// What all these frames take of a window (RFC 9113 6.9).
fn controlled_length(mut frames: &[u8]) -> u64 {
    let mut length = 0;
    while let [a, b, c, kind, rest @ ..] = frames {
        let payload = u32::from_be_bytes([0, *a, *b, *c]);
        length += if *kind == DATA { u64::from(payload) } else { 0 };
        frames = &rest[5 + payload as usize..];
    }
    length
}
