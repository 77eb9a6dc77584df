//! HTTP/2 from both sides, and how it writes fields.

mod answer;
mod exchange;
mod hpack;
mod message;
mod script;
mod wire;

pub use answer::answer_http2;
pub use exchange::exchange_http2;
pub use hpack::hpack;
pub(crate) use script::decoded;
