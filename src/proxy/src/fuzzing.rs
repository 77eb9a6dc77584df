//! What the fuzz targets reach of the proxy, and nothing else does: what strangers send goes in, and what the
//! proxy makes of it comes out.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fairlead_contract::{Files, Network, Paths, ProxyProtocol};
use http::{HeaderMap, HeaderValue, Request};
use jiff::Timestamp;
use tokio::io::AsyncRead;
use tokio::net::TcpListener;

use crate::caller::Caller;
use crate::headers::{add_forwarded, set_forwarding, strip_claims};
use crate::listeners::Ports;
use crate::proxy_protocol::{self, Link};
use crate::server::{self, Protocol};
use crate::service::{Client, Shared};
use crate::snapshot::Snapshot;

/// Serves plain HTTP on `listener`, as the program does that has read `files`. Never ends by itself.
pub async fn serve(files: &Files, paths: &Paths, listener: TcpListener) {
    let snapshot = Snapshot::build(files, None, Timestamp::now()).snapshot;
    let ports = Ports {
        http: None,
        https: None,
    };
    let shared = Arc::new(Shared::new(snapshot, paths, ports));
    server::serve(listener, Protocol::Plain, shared).await;
}

/// Who the PROXY header that a connection begins with says the client is; `None` if it does not say.
pub async fn read_proxy_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, impl Error> {
    proxy_protocol::read_header(stream).await
}

/// What a connection to an upstream begins with that is made for a client.
pub fn proxy_header(version: ProxyProtocol, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    proxy_protocol::header(version, Some(Link { source, destination }))
}

/// Whom a request with these fields is taken to be from when `peer` sends it over plain HTTP, and the fields
/// as an upstream gets them that wants `Forwarded` too.
pub fn forward(
    peer: IpAddr,
    headers: HeaderMap,
    host: &HeaderValue,
    trusted: &[Network],
) -> (IpAddr, HeaderMap) {
    let client = Client::new((peer, 0).into(), (peer, 0).into(), None);
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.headers = headers;
    let caller = Caller::find(&client, &parts.headers, trusted);
    strip_claims(&mut parts.headers, caller.is_trusted, &[]);
    set_forwarding(&mut parts, &caller, &client.forwarded_for, host);
    add_forwarded(&mut parts, &caller, peer, host);
    (caller.address, parts.headers)
}
