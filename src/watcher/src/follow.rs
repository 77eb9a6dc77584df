use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write, stdout};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use fairlead_contract::{Paths, chain, notify_manager};
use sd_notify::NotifyState;
use thiserror::Error;
use tokio::select;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::daemon::{Daemon, DaemonError};
use crate::events::{Event, EventsError};
use crate::known::{Unknown, read_settings, with_socket};
use crate::pace::Pace;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Makes the mark whenever the containers may have changed, and prints `dirty` for each mark.
///
/// Goes on through every failure of Docker's; returns only if nobody reads what it prints any more.
pub(crate) async fn follow(paths: &Paths, socket: Option<&Path>) -> Result<Infallible> {
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let lost = match follow_once(paths, socket).await {
            Err(Lost::Reader(error)) => return Err(error).context("nobody reads the marks any more"),
            Err(lost) => anyhow::Error::from(lost),
            Ok(never) => match never {},
        };
        if started.elapsed() > LONGEST_DELAY {
            failures = 0;
        }
        let delay = delay(failures, fastrand::f64());
        failures += 1;
        let cause = chain(&*lost);
        warn!("{cause}; trying again in {delay:.1?}");
        tell_systemd(&format!("not following: {cause}"));
        sleep_until(Instant::now() + delay).await;
    }
}

/// Follows one stream of events to its end.
///
/// Everything before the first mark is seen by the pass it causes. Everything after `since` comes as
/// an event, even what happens before Docker has the subscription: it keeps the latest events and
/// sends them first.
async fn follow_once(paths: &Paths, socket: Option<&Path>) -> Result<Infallible, Lost> {
    let settings = with_socket(read_settings(paths)?, socket);
    let daemon = Daemon::connect(&settings)?;
    let since = SystemTime::now();
    let mut events = daemon.events(since).await?;
    let mut pace = Pace::default();
    pace.event(Event::Other, Instant::now());
    info!("following the events of {}", settings.socket.display());
    tell_systemd(&format!("following the events of {}", settings.socket.display()));
    loop {
        let due = pace.due();
        select! {
            event = events.next() => {
                let event = event.ok_or(Lost::Ended)??;
                pace.event(event, Instant::now());
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                mark(&paths.watcher_dirty_file())?;
                pace.marked(Instant::now());
            }
        }
    }
}

/// Makes the mark that a pass is needed, and says so.
fn mark(path: &Path) -> Result<(), Lost> {
    File::create(path).map_err(|source| Lost::Mark(path.display().to_string(), source))?;
    let mut stdout = stdout().lock();
    writeln!(stdout, "dirty")
        .and_then(|()| stdout.flush())
        .map_err(Lost::Reader)
}

/// Up to twice as long after each failure, at random, so that many hosts do not return at once.
/// `random` is in `0.0..1.0`.
fn delay(failures: u32, random: f64) -> Duration {
    let longest = FIRST_DELAY
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(LONGEST_DELAY);
    longest.mul_f64(0.5 + random / 2.0)
}

/// The unit counts as started even when Docker is not there: waiting for it is this program's work.
fn tell_systemd(status: &str) {
    let status = status.escape_debug().to_string();
    if let Err(error) = notify_manager(&[NotifyState::Ready, NotifyState::Status(&status)]) {
        warn!("systemd cannot be told the status: {error}");
    }
}

/// Why a stream of events is followed no longer.
#[derive(Debug, Error)]
enum Lost {
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Settings(#[from] Unknown),
    #[error("Docker broke off the stream of events")]
    BrokenOff(#[from] EventsError),
    #[error("Docker ended the stream of events, as when it stops")]
    Ended,
    #[error("cannot make the mark {0}")]
    Mark(String, #[source] io::Error),
    #[error("cannot print that a mark was made")]
    Reader(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_are_never_less_than_half_of_it() {
        for (failures, longest) in [(0, 100), (1, 200), (4, 1600), (9, 30_000), (1000, 30_000)] {
            let longest = Duration::from_millis(longest);
            assert_eq!(delay(failures, 0.0), longest / 2);
            assert!(delay(failures, 0.999) <= longest);
        }
    }
}
