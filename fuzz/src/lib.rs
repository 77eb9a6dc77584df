//! Promises that hold whatever strangers send.
//!
//! Each function is one fuzz target: it takes bytes, and panics if they break a promise. What is right is said a
//! second time, by code that shares nothing with ours and is written to be read and not to be fast. Nothing
//! here needs cargo-fuzz: `fuzz/run` looks for new bytes with it, and the tests go through those in `corpus/`.

mod answer;
mod exchange;
mod files;
mod forwarding;
mod http2;
mod judge;
mod labels;
mod message;
mod names;
mod proxy_header;
mod tunnel;

pub use answer::answer;
pub use exchange::exchange;
pub use files::configuration;
pub use forwarding::forwarding;
pub use http2::{answer_http2, exchange_http2, hpack};
pub use labels::labels;
pub use names::{host, token};
pub use proxy_header::proxy_header;
pub use tunnel::tunnel;
