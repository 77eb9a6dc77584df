use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fairlead_contract::UpstreamUrl;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::body::RequestBody;

/// Connections that are kept open for each upstream.
const MAX_IDLE: usize = 1024;
/// Shorter than the idle limits of common servers, so that they rarely close first.
pub(crate) const MAX_IDLE_TIME: Duration = Duration::from_secs(50);

/// One upstream, with its idle connections and its load. Snapshots hand it on: an upstream that
/// stays keeps its connections, and those of one that goes close with the last exchange.
pub(crate) struct Peer {
    url: UpstreamUrl,
    idle: Mutex<Vec<Idle>>,
    load: AtomicUsize,
    is_failing: AtomicBool,
}

struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection to an upstream for the length of one exchange. Dropped before the end, it closes.
pub(crate) struct Lease {
    pub(crate) sender: SendRequest<RequestBody>,
    /// Whether it carried an exchange before, so that the upstream may just have closed it.
    pub(crate) is_reused: bool,
    load_held: Load,
}

/// Counts an exchange while it lasts.
struct Load(Arc<Peer>);

/// No connection to the upstream.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("it did not accept a connection in time")]
    Timeout,
    #[error("it cannot be connected to")]
    Io(#[from] io::Error),
    #[error("it does not speak HTTP/1.1")]
    Http(#[from] hyper::Error),
}

impl Peer {
    pub(crate) fn new(url: UpstreamUrl) -> Self {
        Self {
            url,
            idle: Mutex::default(),
            load: AtomicUsize::new(0),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Exchanges under way.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// The connection that was given back last, which is the least likely to be stale.
    pub(crate) fn reuse(self: &Arc<Self>) -> Option<Lease> {
        let mut idle = lock(&self.idle);
        let last = idle.iter().rposition(|idle| idle.sender.is_ready())?;
        let Idle { sender, since } = idle.remove(last);
        drop(idle);
        (since.elapsed() < MAX_IDLE_TIME).then(|| self.lease(sender, true))
    }

    pub(crate) async fn connect(self: &Arc<Self>, limit: Duration) -> Result<Lease, ConnectError> {
        // Boxed because it is rare and large: without it, every exchange would take room for it.
        let opened = Box::pin(self.open(limit)).await;
        self.tell(opened.as_ref().err());
        Ok(self.lease(opened?, false))
    }

    /// Closes connections that nobody used for long, and forgets those that the upstream closed.
    pub(crate) fn prune(&self) {
        lock(&self.idle).retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < MAX_IDLE_TIME);
    }

    async fn open(&self, limit: Duration) -> Result<SendRequest<RequestBody>, ConnectError> {
        let open = async {
            let host = self.url.host().trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, self.url.port())).await?;
            stream.set_nodelay(true)?;
            Ok::<_, ConnectError>(http1::handshake(TokioIo::new(stream)).await?)
        };
        let (sender, connection) = timeout(limit, open).await.map_err(|_| ConnectError::Timeout)??;
        // Its failures show in the exchange it carries; between exchanges nobody is interested.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    /// Says once that the upstream is gone, and once that it is back, whatever number of requests
    /// find out.
    fn tell(&self, failure: Option<&ConnectError>) {
        let failed_before = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        let upstream = &self.url;
        match failure.map(|error| error as &dyn std::error::Error) {
            Some(error) if failed_before => debug!(%upstream, error, "still no connection to an upstream"),
            Some(error) => info!(%upstream, error, "no connection to an upstream"),
            None if failed_before => info!(%upstream, "the upstream accepts connections again"),
            None => {}
        }
    }

    fn lease(self: &Arc<Self>, sender: SendRequest<RequestBody>, is_reused: bool) -> Lease {
        self.load.fetch_add(1, Ordering::Relaxed);
        Lease {
            sender,
            is_reused,
            load_held: Load(self.clone()),
        }
    }

    fn take_back(&self, sender: SendRequest<RequestBody>) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
}

impl Lease {
    /// Ends the exchange: the next one may use the connection as soon as it is ready.
    pub(crate) fn give_back(self) {
        if !self.sender.is_closed() {
            self.load_held.0.take_back(self.sender);
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// No code can panic between lock and unlock in a way that leaves these lists half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
