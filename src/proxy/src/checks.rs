//! Upstreams are asked whether they are well, where their route says so.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, StatusCode, Uri};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::body::{RequestBody, UpstreamBody};
use crate::dispatch::ForwardError;
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
            let unwell = self.ask().await.err();
            if self.peer.health.checked(unwell.is_none()) {
                continue;
            }
            let upstream = self.peer.url();
            match &unwell {
                None => info!(%upstream, "the upstream is well again"),
                Some(cause) => {
                    let error = cause as &dyn Error;
                    info!(%upstream, path = %self.path, error, "the upstream is not well");
                }
            }
        }
    }

    /// Any answer of success or of a redirect means that it is well.
    async fn ask(&self) -> Result<(), Unwell> {
        let question = Request::new(RequestBody::empty());
        let (answer, lease) = self.helper.ask(question, &self.path, self.interval).await?;
        let status = answer.status();
        // Without a body the connection is free again.
        drop(UpstreamBody::new(answer.into_body(), lease));
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        Err(Unwell::Status(status))
    }
}

/// Why an upstream gets no requests.
#[derive(Debug, Error)]
enum Unwell {
    #[error("it answers with {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Silent(#[from] ForwardError),
}
