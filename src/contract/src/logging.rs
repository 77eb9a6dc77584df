use std::env;
use std::io::{IsTerminal, stderr};

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Sends the program's log to the journal when systemd connected it there, else to standard error.
///
/// In the journal a field `route` of an event, or of a span around it, is `FAIRLEAD_ROUTE`;
/// docs/operations.md says which there are. `FAIRLEAD_LOG` chooses what is said, in the syntax of
/// [`EnvFilter`]; without it, everything from `info` up. Called once, before anything is logged.
pub fn start_logging() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("FAIRLEAD_LOG")
        .from_env_lossy();
    let journal = env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let sink = match journal {
        Some(journal) => journal.with_field_prefix(Some("FAIRLEAD".to_owned())).boxed(),
        None => fmt::layer()
            .with_writer(stderr)
            .with_target(false)
            .with_ansi(stderr().is_terminal())
            .without_time()
            .boxed(),
    };
    registry().with(filter).with(sink).init();
}
