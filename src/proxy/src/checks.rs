//! Upstreams are asked whether they are well, where their route says so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Uri};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use crate::body::{RequestBody, UpstreamBody};
use crate::helper::Helper;
use crate::pool::Peer;

/// What one upstream is asked, for as long as its route says so.
pub(crate) struct Check {
    peer: Arc<Peer>,
    helper: Helper,
    path: Uri,
    interval: Duration,
}

/// The checks of the present snapshot.
#[derive(Default)]
pub(crate) struct Checks(Mutex<JoinSet<()>>);

impl Checks {
    /// Begins these and ends those before.
    pub(crate) fn replace(&self, checks: Vec<Check>) {
        let mut running = JoinSet::new();
        for check in checks {
            running.spawn(check.run());
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

impl Check {
    pub(crate) fn new(peer: Arc<Peer>, helper: Helper, path: Uri, interval: Duration) -> Self {
        Self {
            peer,
            helper,
            path,
            interval,
        }
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    async fn run(self) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let is_well = self.is_well().await;
            if self.peer.health.checked(is_well) {
                continue;
            }
            let upstream = self.peer.url();
            if is_well {
                info!(%upstream, "the upstream is well again");
            } else {
                info!(%upstream, path = %self.path, "the upstream says that it is not well, or nothing");
            }
        }
    }

    /// Any answer of success or of a redirect means that it is.
    async fn is_well(&self) -> bool {
        let question = Request::new(RequestBody::empty());
        match self.helper.ask(question, &self.path, self.interval).await {
            Ok((answer, lease)) => {
                let status = answer.status();
                // Without a body the connection is free again.
                drop(UpstreamBody::new(answer.into_body(), lease));
                status.is_success() || status.is_redirection()
            }
            Err(error) => {
                debug!(upstream = %self.peer.url(), error = &error as &dyn std::error::Error, "no answer to a check");
                false
            }
        }
    }
}
