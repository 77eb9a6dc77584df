use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Frame, Incoming};

use crate::within;

/// The body of any message in a test.
pub type Body = BoxBody<Bytes, Box<dyn Error + Send + Sync>>;

pub fn empty() -> Body {
    Empty::new().map_err(no_error).boxed()
}

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(no_error).boxed()
}

/// A body that is sent piece by piece, when the test wants it; unsized, so chunked in HTTP/1.1.
///
/// Dropping the sender ends the body well; [`Sender::abort`] breaks it off.
pub fn channel() -> (Sender<Bytes, Box<dyn Error + Send + Sync>>, Body) {
    let (sender, body) = Channel::new(16);
    (sender, body.boxed())
}

/// The next piece of data; `None` at the end. HTTP/2 may end a body with a piece that holds nothing.
pub async fn next_data(body: &mut Incoming) -> Option<Bytes> {
    loop {
        let frame = within(body.frame()).await?.expect("the body goes on");
        let data = frame.into_data().expect("the frame holds data");
        if !data.is_empty() {
            return Some(data);
        }
    }
}

/// The whole body as text, and the trailers.
pub async fn read(body: Incoming) -> (String, Option<HeaderMap>) {
    let collected = within(body.collect()).await.expect("the body ends well");
    let trailers = collected.trailers().cloned();
    (
        String::from_utf8_lossy(&collected.to_bytes()).into_owned(),
        trailers,
    )
}

/// The response with its body read to the end as text.
pub async fn read_response(response: Response<Incoming>) -> Response<String> {
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, read(body).await.0)
}

/// A frame with one trailer field.
pub fn trailer(name: &'static str, value: &'static str) -> Frame<Bytes> {
    let field = (
        http::HeaderName::from_static(name),
        http::HeaderValue::from_static(value),
    );
    Frame::trailers(HeaderMap::from_iter([field]))
}

fn no_error(never: Infallible) -> Box<dyn Error + Send + Sync> {
    match never {}
}
