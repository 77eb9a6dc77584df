use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use fairlead_contract::ReloadAnswer;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::warn;

use crate::server::AcceptFailures;

/// How long a caller may take to read the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Those who connect to ask for a reload. Whoever may open the socket may have one, and can say nothing.
pub(crate) struct ReloadCallers {
    listeners: Vec<UnixListener>,
    failures: AcceptFailures,
}

impl ReloadCallers {
    pub(crate) fn new(listeners: Vec<std::os::unix::net::UnixListener>) -> io::Result<Self> {
        let listeners = listeners.into_iter().map(UnixListener::from_std);
        Ok(Self {
            listeners: listeners.collect::<io::Result<_>>()?,
            failures: AcceptFailures::of("reload"),
        })
    }

    /// The next one. To stop waiting loses nobody: who is not taken here waits for the next proxy.
    pub(crate) async fn next(&mut self) -> UnixStream {
        loop {
            let accepted = poll_fn(|context| {
                let mut polled = self
                    .listeners
                    .iter()
                    .map(|listener| listener.poll_accept(context));
                polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
            });
            match accepted.await {
                Ok((caller, _)) => return caller,
                Err(error) => self.failures.pause(&error).await,
            }
        }
    }
}

/// Answers a caller, as JSON up to the end of the connection.
pub(crate) async fn tell(mut caller: UnixStream, answer: ReloadAnswer) {
    let written = async { caller.write_all(&serde_json::to_vec(&answer)?).await };
    match timeout(PATIENCE, written).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(
            error = &error as &dyn Error,
            "who asked for the reload does not hear how it ended"
        ),
        Err(_) => warn!("who asked for the reload did not read how it ended"),
    }
}
