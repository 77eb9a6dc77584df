//! Mixed load for a minute, or for as many seconds as `FAIRLEAD_SOAK` says: memory and descriptors stay flat, and no
//! request fails.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fairlead_tests::{Client, Proxy, Site, Upstream, Wire, body, free_address, get, request_on, route};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long the upstream that comes and goes stays.
const PRESENCE: Duration = Duration::from_millis(300);
/// What a proxy may hold more at the end than after a third of the time: what its allocator keeps.
const ROOM: u64 = 8 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn mixed_load_leaves_memory_and_descriptors_flat() {
    let seconds = std::env::var("FAIRLEAD_SOAK").map_or(60, |text| text.parse().unwrap());
    let site = Site::new();
    let steady = Upstream::start(|_| async { Response::new(body::full("x".repeat(10_000))) }).await;
    let restarting = free_address();
    site.serve(&["a.test"], &[steady.address(), restarting]);
    let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
    site.serve(&["socket.test"], &[sockets.local_addr().unwrap()]);
    let proxy = Arc::new(site.start());
    let exchanges = Arc::new(AtomicU64::new(0));
    let length = Duration::from_secs(seconds);
    let begin = Instant::now();
    let end = begin + length;

    let mut load = JoinSet::new();
    let client = || (site.client(), proxy.clone(), exchanges.clone());
    for _ in 0..4 {
        load.spawn(ask_over(client(), "http/1.1", end));
        load.spawn(ask_over(client(), "h2", end));
        load.spawn(leave_early(client(), end));
        load.spawn(converse(client(), end));
    }
    let mut upstreams = JoinSet::new();
    upstreams.spawn(restart(restarting));
    upstreams.spawn(speak_back(sockets));

    reload_until(&site, &proxy, begin + length / 3).await;
    let before = Taken::by(&proxy);
    reload_until(&site, &proxy, end).await;
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    let after = Taken::by(&proxy);
    println!(
        "{} exchanges; {before:?}, then {after:?}",
        exchanges.load(Ordering::Relaxed)
    );
    assert!(after.memory < before.memory + ROOM, "{before:?}, then {after:?}");
    assert!(
        after.descriptors <= before.descriptors,
        "{before:?}, then {after:?}"
    );
}

type Asking = (Client, Arc<Proxy>, Arc<AtomicU64>);

/// Reloads again and again, each time with other routes.
async fn reload_until(site: &Site, proxy: &Arc<Proxy>, end: Instant) {
    let other = free_address();
    while Instant::now() < end {
        for routes in [String::new(), route(&["other.test"], &[other])] {
            site.environment.write_routes("other.toml", &routes);
            let proxy = proxy.clone();
            tokio::task::spawn_blocking(move || proxy.reload()).await.unwrap();
            pause(100).await;
        }
    }
}

/// GETs and uploads over one connection, renewed now and then; all must succeed.
async fn ask_over((client, proxy, exchanges): Asking, version: &'static str, end: Instant) {
    while Instant::now() < end {
        if version == "h2" {
            let mut connection = client.h2(&proxy, "a.test").await;
            for _ in 0..200 {
                let (one, other) = (connection.clone().send_request(get("https://a.test/")), upload());
                let other = connection.send_request(other);
                let (one, other) = tokio::join!(one, other);
                assert_eq!(one.as_ref().unwrap().status(), 200);
                body::read(one.unwrap().into_body()).await;
                body::read(other.unwrap().into_body()).await;
                exchanges.fetch_add(2, Ordering::Relaxed);
            }
        } else {
            let mut connection = client.h1(&proxy, "a.test").await;
            for _ in 0..200 {
                let response = client.send(&mut connection, get("https://a.test/")).await;
                assert_eq!(response.status(), 200);
                body::read(response.into_body()).await;
                exchanges.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A body whose upstream may end in the middle: its answer is not judged.
fn upload() -> Request<fairlead_tests::Body> {
    Request::post("https://a.test/")
        .body(body::full("y".repeat(5000)))
        .unwrap()
}

/// Clients that leave before the answer, or in the middle of it.
async fn leave_early((client, proxy, exchanges): Asking, end: Instant) {
    for patience in (0..20).cycle().take_while(|_| Instant::now() < end) {
        for version in ["http/1.1", "h2"] {
            let stream = client.connect(proxy.https(), "a.test", &[version]).await.unwrap();
            let asking = request_on(stream, get("https://a.test/"));
            drop(timeout(Duration::from_millis(patience), asking).await);
            exchanges.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Websockets that say something now and then.
async fn converse((client, proxy, exchanges): Asking, end: Instant) {
    while Instant::now() < end {
        let stream = client.connect(proxy.https(), "socket.test", &["http/1.1"]).await;
        let mut socket = Wire::new(stream.unwrap());
        socket
            .write("GET / HTTP/1.1\r\nHost: socket.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        assert!(socket.read_head().await.starts_with("HTTP/1.1 101 "));
        for _ in 0..20 {
            socket.write("ping").await;
            socket.read_until("pong").await;
            pause(20).await;
        }
        exchanges.fetch_add(1, Ordering::Relaxed);
    }
}

async fn speak_back(listener: TcpListener) {
    let mut sockets = JoinSet::new();
    loop {
        let mut socket = Wire::new(listener.accept().await.unwrap().0);
        sockets.spawn(async move {
            socket.read_head().await;
            socket
                .write(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                )
                .await;
            for _ in 0..20 {
                socket.read_until("ping").await;
                socket.write("pong").await;
            }
        });
    }
}

/// An upstream that is there half of the time, and breaks its connections off when it goes.
async fn restart(address: SocketAddr) {
    loop {
        let listener = listen(address);
        let mut connections = JoinSet::new();
        let _ = timeout(PRESENCE, async {
            loop {
                connections.spawn(answer(listener.accept().await.unwrap().0));
            }
        })
        .await;
        drop((listener, connections));
        pause(300).await;
    }
}

async fn answer(mut connection: TcpStream) {
    let mut head = [0; 4096];
    // Who left early asks nothing.
    if connection.read(&mut head).await.is_ok_and(|length| length > 0) {
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nb";
        let _ = connection.write_all(answer).await;
        while connection.read(&mut head).await.is_ok_and(|length| length > 0) {}
    }
}

/// What the proxy has of the machine.
#[derive(Debug)]
struct Taken {
    memory: u64,
    descriptors: usize,
}

impl Taken {
    fn by(proxy: &Proxy) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", proxy.running().pid())).unwrap();
        Self {
            memory: proxy.resident(),
            descriptors: descriptors.count(),
        }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "load is spread over time")]
async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
