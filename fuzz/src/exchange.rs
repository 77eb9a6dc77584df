//! A whole exchange: a client's bytes go into a proxy, and every byte that comes out at an upstream is looked at.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairlead_contract::{Files, Paths};
use fairlead_proxy::fuzzing;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;

use crate::judge::judge;
use crate::message::{Next, Request, read, values};

/// Of an upstream that has nothing to say.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// After so many looks at all sockets at which nothing moved, nothing will.
const LOOKS: usize = 8;
/// More makes no other kind of input.
const MAX: usize = 16 * 1024;

/// The upstream sees no request that the client did not send, and none that the proxy did not mean.
///
/// The bytes come at once, and then again in two pieces: where they are cut must not matter.
pub fn exchange(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MAX)];
    let cut = bytes
        .iter()
        .fold(0, |sum: usize, byte| sum.wrapping_mul(31) + usize::from(*byte));
    let (start, end) = bytes.split_at(cut % (bytes.len() + 1));
    for pieces in [&[bytes][..], &[start, end]] {
        judge(bytes, &pass(pieces));
    }
}

/// What came at the upstream over one connection, with the place in the order of all that came.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    /// Where a piece begins, and the how manyth of all pieces it is.
    pieces: Vec<(usize, usize)>,
    /// The proxy has hung up.
    is_over: bool,
}

impl Received {
    /// When the byte at `place` came.
    pub(crate) fn moment(&self, place: usize) -> usize {
        let piece = self.pieces.partition_point(|(start, _)| *start <= place);
        self.pieces[piece - 1].1
    }

    /// Whether the rest of a request is to come.
    fn is_under_way(&self) -> bool {
        let mut rest = &self.bytes[..];
        while let Next::Request(request, behind) = read(rest) {
            if !request.is_whole {
                return !self.is_over;
            }
            rest = behind;
        }
        false
    }
}

/// Both are open for as long as their thread lives, and nobody else's.
pub(crate) struct Sockets {
    pub(crate) proxy: std::net::TcpListener,
    pub(crate) upstream: std::net::TcpListener,
}

thread_local! {
    static SOCKETS: Rc<Sockets> = Rc::new(Sockets::open());
}

pub(crate) fn sockets() -> Rc<Sockets> {
    SOCKETS.with(Rc::clone)
}

impl Sockets {
    fn open() -> Self {
        let listen = || {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            listener
                .set_nonblocking(true)
                .expect("a socket that does not block");
            listener
        };
        Self {
            proxy: listen(),
            upstream: listen(),
        }
    }
}

/// What has come from the proxy, in all connections.
#[derive(Default)]
pub(crate) struct Upstream {
    pub(crate) connections: Vec<Received>,
    pieces: usize,
    /// How often anything happened at either end.
    pub(crate) moves: usize,
}

impl Upstream {
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.connections.iter().any(Received::is_under_way)
    }
}

pub(crate) type Shared = Arc<Mutex<Upstream>>;

pub(crate) fn lock(upstream: &Shared) -> MutexGuard<'_, Upstream> {
    upstream.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the pieces one after the other through a proxy of its own, and gives what came out of it.
fn pass(pieces: &[&[u8]]) -> Vec<Received> {
    watch(nothing, async |upstream| {
        tokio::spawn(proxy(listen(&sockets().proxy)));
        send(pieces, upstream).await;
    })
}

pub(crate) fn listen(socket: &std::net::TcpListener) -> TcpListener {
    let listener = socket.try_clone().and_then(TcpListener::from_std);
    listener.expect("a listener")
}

/// What answers a request.
pub(crate) type Answers = fn(&Request) -> &'static [u8];

/// There is nothing to say.
pub(crate) fn nothing(_: &Request) -> &'static [u8] {
    ANSWER
}

/// Gives what comes at the upstream until the client has done what it wants.
pub(crate) fn watch(answers: Answers, client: impl AsyncFnOnce(&Shared)) -> Vec<Received> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let upstream = Shared::default();
    runtime.block_on(async {
        tokio::spawn(accept(listen(&sockets().upstream), answers, upstream.clone()));
        client(&upstream).await;
    });
    drop(runtime);
    std::mem::take(&mut lock(&upstream).connections)
}

pub(crate) async fn proxy(listener: TcpListener) {
    fuzzing::serve(&files(), &nowhere(), listener).await;
}

/// What a proxy reads that has a route to the upstream.
pub(crate) fn files() -> Files {
    let upstream = sockets().upstream.local_addr().expect("its address");
    let routes = format!(
        "[[route]]\nhosts = [\"a.test\", \"*.w.test\"]\nupstreams = [\"http://{upstream}\"]\nhttps-only = false\n"
    );
    Files {
        routes: vec![("a.toml".into(), Ok(routes.into_bytes()))],
        ..Files::default()
    }
}

pub(crate) fn nowhere() -> Paths {
    let [config, state, runtime] =
        ["/config", "/state", "/runtime"].map(|path| format!("/nowhere{path}").into());
    Paths {
        config,
        state,
        runtime,
    }
}

/// The client takes what comes, ends its side when nothing happens any more, and hangs up.
async fn send(pieces: &[&[u8]], upstream: &Shared) {
    let proxy = sockets().proxy.local_addr().expect("its address");
    let stream = connect(proxy).await;
    let (from, mut to) = stream.into_split();
    let taking = tokio::spawn(take(from, upstream.clone()));
    for piece in pieces {
        // The proxy may have hung up.
        let _ = to.write_all(piece).await;
        until_quiet(upstream).await;
    }
    let _ = to.shutdown().await;
    until_quiet(upstream).await;
    taking.abort();
    drop(to);
    until_quiet(upstream).await;
}

/// Takes what comes to a client.
pub(crate) async fn take(mut from: impl AsyncRead + Unpin, upstream: Shared) {
    let mut buffer = [0; 4096];
    while from.read(&mut buffer).await.is_ok_and(|read| read > 0) {
        lock(&upstream).moves += 1;
    }
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address)
        .await
        .expect("a connection to the proxy");
    hang_up_at_once(&stream);
    stream
}

/// Thousands of closed connections that the kernel remembers would use up the ports.
pub(crate) fn hang_up_at_once(stream: &TcpStream) {
    stream.set_zero_linger().expect("a socket");
}

/// Everything runs in this thread, and sockets of this machine carry at once: what is not to be seen after some
/// looks will not come.
pub(crate) async fn until_quiet(upstream: &Shared) {
    let mut before = lock(upstream).moves;
    let mut looks = 0;
    while looks < LOOKS {
        yield_now().await;
        let now = lock(upstream).moves;
        looks = if now == before { looks + 1 } else { 0 };
        before = now;
    }
}

async fn accept(listener: TcpListener, answers: Answers, upstream: Shared) {
    while let Ok((stream, _)) = listener.accept().await {
        hang_up_at_once(&stream);
        let connection = lock(&upstream).open();
        tokio::spawn(answer(stream, answers, connection, upstream.clone()));
    }
}

/// Answers each request when it has come whole.
pub(crate) async fn answer(mut stream: TcpStream, answers: Answers, connection: usize, upstream: Shared) {
    let mut buffer = [0; 4096];
    let mut unanswered = Vec::new();
    let mut told_to_continue = false;
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        lock(&upstream).receive(connection, &buffer[..length]);
        unanswered.extend(&buffer[..length]);
        while let Next::Request(request, rest) = read(&unanswered) {
            let answer = if request.is_whole {
                answers(&request)
            } else if waits(&request) && !told_to_continue {
                CONTINUE
            } else {
                break;
            };
            told_to_continue = !request.is_whole;
            if request.is_whole {
                unanswered = rest.to_vec();
            }
            if stream.write_all(answer).await.is_err() {
                break;
            }
        }
    }
    let mut upstream = lock(&upstream);
    upstream.moves += 1;
    upstream.connections[connection].is_over = true;
}

fn waits(request: &Request) -> bool {
    values(&request.fields, "expect").any(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

impl Upstream {
    /// A connection has come: the how manyth.
    pub(crate) fn open(&mut self) -> usize {
        self.moves += 1;
        self.connections.push(Received::default());
        self.connections.len() - 1
    }

    pub(crate) fn receive(&mut self, connection: usize, bytes: &[u8]) {
        self.moves += 1;
        self.pieces += 1;
        let connection = &mut self.connections[connection];
        connection.pieces.push((connection.bytes.len(), self.pieces));
        connection.bytes.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_plain_comes_through() {
        let bytes = b"GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n\
            POST /2 HTTP/1.1\r\nHost: x.w.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
            POST /3 HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nde";
        for pieces in [&[&bytes[..]][..], &[&bytes[..60], &bytes[60..]]] {
            let received = pass(pieces);
            let requests = judge(bytes, &received);
            assert_eq!(requests, 3, "{received:?}");
        }
    }
}
