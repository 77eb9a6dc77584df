//! Starts the programs and their neighbours for tests.
//!
//! Everything waits for events with a deadline and ends what it started. Waiting blocks the calling
//! thread, so an asynchronous test that shares its runtime with an upstream is
//! `#[tokio::test(flavor = "multi_thread")]`.

mod environment;
mod programs;
mod proxy;

pub use environment::Environment;
pub use programs::{DEADLINE, Finished, Program, Running, Signal};
pub use proxy::{Proxy, Sockets, activate};
