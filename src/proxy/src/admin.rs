use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::net::Listener;
use tracing::debug;

use crate::metrics::Exposition;
use crate::server::AcceptFailures;
use crate::service::Shared;
use crate::supervisor::History;

/// Further ones wait, so that whoever asks too much here takes no descriptors from the sites.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may stay without a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is told to whoever may open a socket.
#[derive(Clone)]
pub(crate) struct Pages {
    shared: Arc<Shared>,
    /// What `/status` is made of, where it is told.
    history: Option<Arc<History>>,
}

impl Pages {
    /// `/status` and `/metrics`.
    pub(crate) fn all(shared: &Arc<Shared>, history: &Arc<History>) -> Self {
        Self {
            shared: shared.clone(),
            history: Some(history.clone()),
        }
    }

    /// `/metrics` alone.
    pub(crate) fn metrics(shared: &Arc<Shared>) -> Self {
        Self {
            shared: shared.clone(),
            history: None,
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            let mut response = page(StatusCode::METHOD_NOT_ALLOWED);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        match (request.uri().path(), &self.history) {
            ("/status", Some(history)) => content(
                "application/json",
                serde_json::to_string_pretty(&history.status(&self.shared)),
            ),
            ("/metrics", _) => {
                let exposition = wanted(request.headers());
                let text = self.shared.metrics.render(&self.shared.snapshot(), exposition);
                content(exposition.content_type(), text)
            }
            _ => page(StatusCode::NOT_FOUND),
        }
    }
}

/// Prometheus names every format that it understands.
fn wanted(headers: &HeaderMap) -> Exposition {
    let mut accepted = headers.get_all(ACCEPT).iter();
    let names_it = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("application/openmetrics-text"))
    };
    if accepted.any(names_it) {
        Exposition::OpenMetrics
    } else {
        Exposition::Text
    }
}

/// Answers `GET` for these pages, to as many at once as is sensible.
pub(crate) async fn serve<L>(mut listener: L, pages: Pages)
where
    L: Listener<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static>,
{
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut failures = AcceptFailures::of("admin or metrics");
    while let Ok(slot) = slots.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = pages.clone();
                tokio::spawn(async move {
                    serve_connection(stream, &pages).await;
                    drop(slot);
                });
            }
            Err(error) => failures.pause(&error).await,
        }
    }
}

async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, pages: &Pages) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = pages.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(
            error = &error as &dyn std::error::Error,
            "an admin connection broke"
        );
    }
}

fn content<E: std::error::Error>(kind: &'static str, text: Result<String, E>) -> Response<Full<Bytes>> {
    let Ok(text) = text else {
        return page(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = Response::new(Full::from(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn page(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
