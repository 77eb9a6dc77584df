use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tracing::debug;

use crate::server::AcceptFailures;
use crate::service::Shared;
use crate::supervisor::History;

/// Answers `GET /status` and `GET /metrics` to whoever may open the socket.
pub(crate) async fn serve(listener: UnixListener, shared: Arc<Shared>, history: Arc<History>) {
    let mut failures = AcceptFailures::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_connection(stream, shared.clone(), history.clone()));
            }
            Err(error) => failures.pause(&error).await,
        }
    }
}

async fn serve_connection(stream: UnixStream, shared: Arc<Shared>, history: Arc<History>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&request, &shared, &history);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(
            error = &error as &dyn std::error::Error,
            "an admin connection broke"
        );
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared, history: &History) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match request.uri().path() {
        "/status" => content(
            "application/json",
            serde_json::to_string_pretty(&history.status(shared)),
        ),
        "/metrics" => content(
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            shared.metrics.render(&shared.snapshot()),
        ),
        _ => page(StatusCode::NOT_FOUND),
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
