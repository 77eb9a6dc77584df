//! The proxy as a whole program, against real clients and upstreams.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod access_log;
mod admin;
mod bad_input;
mod bodies;
mod callers;
mod checks;
mod compression;
mod confinement;
mod connections;
mod crowdsec;
mod drain;
mod endings;
mod failures;
mod floods;
mod forwarding;
mod frames;
mod framing;
mod half_closed;
mod headers;
mod http2;
mod http2_conformance;
mod http2_upstreams;
mod interim;
mod limits;
mod manager;
mod messages;
mod metrics;
mod paths;
mod plain_http;
mod proxy_protocol;
mod redirects;
mod reload;
mod rests;
mod routing;
mod sockets;
mod stalls;
mod tls;
mod upgrades;
mod upstreams;

use std::net::SocketAddr;

use fairlead_tests::Site;
use tokio::net::{TcpListener, TcpSocket};

/// An address nobody listens at: taken from the free ones, and kept from others while the test runs.
async fn dead_end() -> SocketAddr {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("the loopback has a free port");
    let address = socket.local_addr().expect("a bound socket has an address");
    // Bound without listening: connections are refused, and nobody else gets the port.
    tokio::spawn(async move {
        let _socket = socket;
        std::future::pending::<()>().await;
    });
    address
}

/// A site that is there on plain HTTP as well, and where its upstream listens.
async fn open_site() -> (TcpListener, Site) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::new();
    site.serve_with(
        &["a.test"],
        &[listener.local_addr().unwrap()],
        "https-only = false\n",
    );
    (listener, site)
}
