//! HTTP/2 (RFC 9113), towards clients and upstreams alike.
//!
//! A [`connection`] reads and writes frames. What it has in common with who uses its streams is its [`state`], behind
//! a lock: streams, windows, and what is to be written. The handles of a stream, in [`handles`], change the state and
//! wake the connection.

mod body;
mod client;
mod connection;
mod frame;
mod handles;
mod head;
pub(crate) mod hpack;
mod output;
#[cfg(test)]
mod peer;
mod server;
mod settings;
mod state;
mod stream;
mod window;

use std::io;
use std::sync::Arc;

use thiserror::Error;

pub(crate) use body::{Http2Body, Http2Stream, Unsent, send_body};
pub(crate) use client::Requests;
pub(crate) use frame::Reason;
use frame::Violation;
pub(crate) use handles::{Incoming, Outgoing};
pub(crate) use head::ConnectProtocol;
pub(crate) use server::serve;

/// Why a stream, or a connection, ends before its end.
#[derive(Clone, Debug, Error)]
pub(crate) enum Http2Error {
    #[error("the other side gave it up: {0}")]
    Reset(Reason),
    #[error("the other side takes nothing more: {0}")]
    Unprocessed(Reason),
    #[error("what the other side sends is not HTTP/2: {0}")]
    Violation(#[from] Violation),
    #[error("the connection broke")]
    Io(#[source] Arc<io::Error>),
    #[error("the other side does not answer pings")]
    Silent,
    #[error("it is over")]
    Over,
}

impl Http2Error {
    pub(crate) fn is_violation(&self) -> bool {
        matches!(self, Self::Violation(_))
    }

    /// Whether the other side has said that it did nothing of what was asked (RFC 9113 8.7).
    pub(crate) fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Unprocessed(_) | Self::Reset(Reason::REFUSED_STREAM))
    }
}
