//! Starts the programs and their neighbours for tests.
//!
//! Everything waits for events with a deadline and ends what it started. Waiting for a program blocks
//! the calling thread, so an asynchronous test that shares its runtime with an upstream is
//! `#[tokio::test(flavor = "multi_thread")]`.

mod acme_peer;
mod address;
pub mod body;
mod certificates;
mod client;
mod docker;
mod docker_api;
mod environment;
mod installation;
mod internet;
mod named;
mod pebble;
mod peer;
mod programs;
mod proxy;
mod site;
mod store;
mod upstream;
mod wire;

pub use acme_peer::{AcmePeer, AcmeRequest, AcmeScript, Alternate, Answer, Delivery};
pub use address::free_address;
pub use body::Body;
pub use certificates::{Authority, Pair};
pub use client::{Client, get, origin_form, request_on};
pub use docker::Docker;
pub use docker_api::{DockerApi, listed};
pub use environment::Environment;
pub use installation::{Installation, Made};
pub use internet::Internet;
pub use named::{Loopback, Named};
pub use pebble::{Answering, Pebble, PebbleSettings, Records, wait_until};
pub use peer::{Peer, PeerAnswer, PeerRequest};
pub use programs::{DEADLINE, Finished, Program, Running, Signal};
pub use proxy::{Proxy, Sockets, activate, ask};
pub use site::{Site, route};
pub use upstream::{Transport, Upstream};
pub use wire::{Wire, accept, within};
