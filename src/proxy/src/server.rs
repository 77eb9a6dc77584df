use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::certificate::Certificate;
use crate::handshake;
use crate::http1;
use crate::http2;
use crate::metrics::Open;
use crate::proxy_protocol::{Link, read_header};
use crate::read_ahead::ReadAhead;
use crate::service::{Client, Shared};

/// After a failed accept; the usual cause, no free descriptor, does not pass by itself.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two lines about it.
const ACCEPT_SILENCE: Duration = Duration::from_secs(10);
/// How long a drain waits for the first request of a connection that has made none.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);

/// What a listener speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Plain,
    Tls,
}

impl fmt::Display for Protocol {
    /// As the sockets are called.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "http",
            Self::Tls => "https",
        })
    }
}

/// Accepts until the drain begins. Then the listener closes here; systemd holds it open.
pub(crate) async fn serve(listener: TcpListener, protocol: Protocol, shared: Arc<Shared>) {
    let draining = shared.draining.clone();
    let mut failures = AcceptFailures::of(protocol);
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let serving = serve_connection(stream, address, protocol, shared.clone());
                    shared.tasks.spawn(serving);
                }
                Err(error) => failures.pause(&error).await,
            }
        }
    };
    draining.run_until_cancelled(accepting).await;
}

/// What to do when no connection can be accepted: wait, and say so now and then.
pub(crate) struct AcceptFailures {
    listener: String,
    told: Option<Instant>,
}

impl AcceptFailures {
    /// `listener` is its name, for the log.
    pub(crate) fn of(listener: impl fmt::Display) -> Self {
        Self {
            listener: listener.to_string(),
            told: None,
        }
    }

    pub(crate) async fn pause(&mut self, error: &io::Error) {
        // A client that left before it was accepted is no reason to wait.
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        if self.told.is_none_or(|told| told.elapsed() > ACCEPT_SILENCE) {
            self.told = Some(Instant::now());
            let error = error as &dyn std::error::Error;
            error!(
                error,
                "{}: cannot accept connections; those that wait are tried again", self.listener
            );
        }
        let _ = timeout(ACCEPT_PAUSE, pending::<()>()).await;
    }
}

async fn serve_connection(
    mut stream: TcpStream,
    address: SocketAddr,
    protocol: Protocol,
    shared: Arc<Shared>,
) {
    let _open = Open::count(&shared.metrics);
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let connected = Link {
        source: address,
        destination: local,
    };
    let Some(Link { source, destination }) = find_client(&mut stream, connected, &shared).await else {
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        debug!(client = %address, error = &error as &dyn std::error::Error, "cannot switch delays off");
    }
    // Boxed one by one: a connection that is idle takes the room of the stage it is in, not of the largest.
    match protocol {
        Protocol::Plain => {
            let client = Client::new(source, destination, None);
            Box::pin(http1::serve(Box::new(stream), client, shared)).await;
        }
        Protocol::Tls => {
            let Some((stream, certificate)) = Box::pin(secure(stream, source, &shared)).await else {
                return;
            };
            let client = Client::new(source, destination, Some(certificate));
            // By what was negotiated, not by the first bytes: a guess would wait for them for ever.
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                Box::pin(http2::serve(stream, client, shared)).await;
            } else {
                Box::pin(http1::serve(stream, client, shared)).await;
            }
        }
    }
}

/// Who is behind the connection: the peer, or whom it speaks for. `None` if it should have said so and
/// did not, or if the drain began before it had.
async fn find_client(stream: &mut TcpStream, connected: Link, shared: &Shared) -> Option<Link> {
    let peer = connected.source;
    let limit = {
        let settings = &shared.snapshot().config.proxy;
        let mut announcers = settings.proxy_protocol.iter();
        if !announcers.any(|network| network.contains(peer.ip())) {
            return Some(connected);
        }
        settings.header_timeout.get()
    };
    let unasked = CancellationToken::new();
    let announced = tokio::select! {
        announced = Box::pin(timeout(limit, read_header(stream))) => announced,
        () = farewell(&shared.draining, &unasked) => return None,
    };
    match announced {
        Ok(Ok(announced)) => Some(announced.unwrap_or(connected)),
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            info!(%peer, error, "a connection from [proxy] proxy-protocol was dropped");
            None
        }
        Err(_) => {
            info!(%peer, "a connection from [proxy] proxy-protocol was dropped: no header came in time");
            None
        }
    }
}

/// `None` if there is no TLS connection to serve, or if the drain began before there was one.
async fn secure(
    stream: TcpStream,
    address: SocketAddr,
    shared: &Shared,
) -> Option<(Box<TlsStream<ReadAhead<TcpStream>>>, Arc<Certificate>)> {
    let snapshot = shared.snapshot().clone();
    let unasked = CancellationToken::new();
    let accepted = tokio::select! {
        accepted = handshake::accept(stream, &snapshot, &shared.paths) => accepted,
        () = farewell(&shared.draining, &unasked) => return None,
    };
    shared.metrics.handshake(&accepted);
    match accepted {
        Ok(accepted) => accepted.map(|(stream, certificate)| (Box::new(stream), certificate)),
        Err(error) => {
            debug!(client = %address, error = &error as &dyn std::error::Error, "no TLS");
            None
        }
    }
}

/// Waits for the drain. Whoever has just connected may still ask once.
pub(crate) async fn farewell(draining: &CancellationToken, asked: &CancellationToken) {
    draining.cancelled().await;
    // At the limit the connection closes without having been used.
    let _ = timeout(FAREWELL, asked.cancelled()).await;
}
