use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use fairlead_contract::escaped;
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::spawn;

/// The events after which the running containers or their addresses may be others. What happens
/// inside a container (health checks run commands there every few seconds) is not among them.
/// Podman says `died`, and filters by its own word.
const FILTERS: &str = r#"{"type":["container","network"],"event":["start","die","died","pause","unpause","rename","connect","disconnect","health_status"]}"#;
/// How much of the stream is held at once.
const BUFFER: usize = 64 * 1024;
/// How much of a refusal is read.
const REFUSAL: usize = 4096;

/// Docker's events. That something came is reason enough to look at all containers, and only how soon
/// depends on what: so an event may be of any size and shape.
pub(crate) struct Events(Incoming);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A container joined or left a network, which it does with every start and end, too.
    Network,
    /// Something else, or what is not understood.
    Other,
}

impl Events {
    /// Asks for what happens at `since` or later.
    pub(crate) async fn subscribe(socket: &Path, since: SystemTime) -> Result<Self, EventsError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(EventsError::Unreachable)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await?;
        // It ends with the body.
        spawn(connection);
        let request = Request::get(target(since))
            .header(HOST, "docker")
            .body(Empty::<Bytes>::new())
            .map_err(EventsError::Request)?;
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::OK => Ok(Self(response.into_body())),
            status => Err(EventsError::Refused(status, read_refusal(response).await)),
        }
    }

    /// Waits until something happened; `None` at the end of the stream.
    ///
    /// What is dropped while it waits has taken nothing out of the stream.
    pub(crate) async fn next(&mut self) -> Option<Result<Event, EventsError>> {
        let frame = self.0.frame().await?;
        Some(match frame {
            Ok(frame) => Ok(frame.data_ref().map_or(Event::Other, |data| kind(data))),
            Err(error) => Err(EventsError::Stream(error)),
        })
    }
}

/// Docker sends each event as a line of its own. Of what comes in pieces, none is the whole line.
fn kind(data: &[u8]) -> Event {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Line {
        r#type: String,
    }
    match serde_json::from_slice(data) {
        Ok(Line { r#type }) if r#type == "network" => Event::Network,
        _ => Event::Other,
    }
}

/// No version of the API is named: each daemon answers in its own newest one.
fn target(since: SystemTime) -> String {
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!(
        "/events?since={}.{:09}&filters={}",
        since.as_secs(),
        since.subsec_nanos(),
        utf8_percent_encode(FILTERS, NON_ALPHANUMERIC)
    )
}

async fn read_refusal(response: Response<Incoming>) -> String {
    let body = Limited::new(response.into_body(), REFUSAL).collect().await;
    let bytes = body.map(Collected::to_bytes).unwrap_or_default();
    escaped(String::from_utf8_lossy(&bytes).trim())
}

/// Why there is no stream of events, or no more of it.
#[derive(Debug, Error)]
pub(crate) enum EventsError {
    #[error("cannot connect")]
    Unreachable(#[source] io::Error),
    #[error("the request cannot be written")]
    Request(#[source] hyper::http::Error),
    #[error("it answered {0}: {1}")]
    Refused(StatusCode, String),
    #[error(transparent)]
    Stream(#[from] hyper::Error),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_target_names_the_instant_and_the_events() {
        let target = target(UNIX_EPOCH + Duration::new(7, 50));
        assert!(
            target.starts_with("/events?since=7.000000050&filters=%7B%22type%22%3A%5B%22container%22"),
            "{target}"
        );
        assert!(serde_json::from_str::<serde_json::Value>(FILTERS).is_ok());
    }
    #[test]
    fn only_a_whole_line_about_a_network_is_an_event_of_a_network() {
        let of = |kind: &str| {
            format!(r#"{{"Type":"{kind}","Action":"x","Actor":{{"Attributes":{{"Type":"network"}}}}}}"#)
        };
        assert_eq!(kind(format!("{}\n", of("network")).as_bytes()), Event::Network);
        for other in [
            of("container"),
            of("network") + "\n" + &of("container"),
            of("network")[..20].to_owned(),
            String::new(),
        ] {
            assert_eq!(kind(other.as_bytes()), Event::Other, "{other}");
        }
    }
}
