use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fairlead_contract::{HostPattern, UpstreamUrl};
use tokio::time::timeout;
use tracing::field::display;
use tracing::{debug, info};

use crate::dial::{ConnectError, Dial};
use crate::health::Health;
use crate::http1::Http1Connection;
use crate::proxy_protocol::Link;
use crate::sender::{Http2Sender, Sender};

/// Connections that are kept open for each upstream.
const MAX_IDLE: usize = 1024;
/// Shorter than the idle limits of common servers, so that they rarely close first.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);
/// Between two looks at those that are idle.
pub(crate) const PRUNING: Duration = Duration::from_secs(5);

/// One upstream, with its idle connections and its load. Snapshots hand it on: an upstream that
/// stays keeps its connections, and those of one that goes close with the last exchange.
pub(crate) struct Peer {
    dial: Dial,
    idle: Mutex<Vec<Idle>>,
    /// The connection over which HTTP/2 exchanges go, if it is spoken: the last one that was made. One before it
    /// that was full closes with its exchanges.
    shared: Mutex<Option<Http2Sender>>,
    load: AtomicUsize,
    is_failing: AtomicBool,
    pub(crate) health: Health,
}

struct Idle {
    connection: Box<Http1Connection>,
    since: Instant,
}

/// An exchange with an upstream, while it lasts.
pub(crate) struct Lease {
    /// Whether its connection carried an exchange before, so that the upstream may just have closed it.
    pub(crate) is_reused: bool,
    load: Load,
}

/// Counts an exchange while it lasts.
struct Load(Arc<Peer>);

impl Peer {
    pub(crate) fn new(dial: Dial) -> Self {
        Self {
            dial,
            idle: Mutex::default(),
            shared: Mutex::default(),
            load: AtomicUsize::new(0),
            is_failing: AtomicBool::new(false),
            health: Health::default(),
        }
    }

    pub(crate) fn url(&self) -> &UpstreamUrl {
        self.dial.url()
    }

    /// Exchanges under way.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// The connection that was given back last, which is the least likely to be stale; or the one for
    /// all, as long as it is open. None where a connection is for one client alone.
    pub(crate) fn reuse(self: &Arc<Self>) -> Option<(Sender, Lease)> {
        if self.dial.names_clients() {
            return None;
        }
        if self.url().protocol().is_http2() {
            let shared = lock(&self.shared);
            let sender = shared.as_ref()?;
            let may_be_used = !sender.is_closed() && sender.has_room();
            return may_be_used.then(|| (Sender::Http2(sender.clone()), self.lease(true)));
        }
        loop {
            let mut last = lock(&self.idle).pop()?;
            if last.may_be_used() {
                return Some((Sender::Http1(last.connection), self.lease(true)));
            }
        }
    }

    /// A new connection. The log names the route that needed it first.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        limit: Duration,
        link: Option<Link>,
        route: Option<&HostPattern>,
    ) -> Result<(Sender, Lease), ConnectError> {
        // Boxed because it is rare and large: without it, every exchange would take room for it.
        let opened = Box::pin(timeout(limit, self.dial.open(link))).await;
        let opened = opened.unwrap_or(Err(ConnectError::Timeout));
        self.tell(opened.as_ref().err(), route);
        if opened.is_err() {
            self.health.failed();
        }
        let sender = opened?;
        if let (Sender::Http2(sender), false) = (&sender, self.dial.names_clients()) {
            *lock(&self.shared) = Some(sender.clone());
        }
        Ok((sender, self.lease(false)))
    }

    /// Closes connections that nobody used for long, and forgets those that the upstream closed.
    pub(crate) fn prune(&self) {
        lock(&self.idle).retain_mut(Idle::may_be_used);
        lock(&self.shared).take_if(|sender| sender.is_closed());
    }

    /// Says once that the upstream is gone, and once that it is back, whatever number of requests
    /// find out.
    fn tell(&self, failure: Option<&ConnectError>, route: Option<&HostPattern>) {
        let failed_before = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        let (upstream, route) = (self.url(), route.map(display));
        match failure.map(|error| error as &dyn std::error::Error) {
            Some(error) if failed_before => {
                debug!(%upstream, route, error, "still no connection to an upstream");
            }
            Some(error) => info!(%upstream, route, error, "no connection to an upstream"),
            None if failed_before => info!(%upstream, route, "the upstream accepts connections again"),
            None => {}
        }
    }

    fn lease(self: &Arc<Self>, is_reused: bool) -> Lease {
        self.load.fetch_add(1, Ordering::Relaxed);
        Lease {
            is_reused,
            load: Load(self.clone()),
        }
    }

    fn take_back(&self, connection: Box<Http1Connection>) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE && !self.dial.names_clients() {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }
}

impl Lease {
    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.load.0
    }

    /// Ends the exchange; a connection that it leaves is there for the next one.
    pub(crate) fn end(self, connection: Option<Box<Http1Connection>>) {
        if let Some(connection) = connection {
            self.peer().take_back(connection);
        }
    }
}

impl Idle {
    fn may_be_used(&mut self) -> bool {
        self.since.elapsed() < MAX_IDLE_TIME && self.connection.is_open()
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
