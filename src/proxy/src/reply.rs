use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::body::ReplyBody;

/// A local reply: the status in words, plain, without the name of any program.
pub(crate) fn page(status: StatusCode) -> Response<ReplyBody> {
    let reason = status.canonical_reason().unwrap_or("Error");
    text(status, format!("{} {reason}\n", status.as_u16()))
}

/// A local reply to what may mean something else to the client: nothing is read behind it.
pub(crate) fn refusal(status: StatusCode) -> Response<ReplyBody> {
    let mut response = page(status);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Local(Full::new(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// 503 for a site whose containers are on their way. Soon is soon enough: the answer costs little.
pub(crate) fn waiting() -> Response<ReplyBody> {
    let mut response = page(StatusCode::SERVICE_UNAVAILABLE);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

/// 308: the method and the body stay as they are (RFC 9110 15.4.9).
pub(crate) fn redirect(target: &str) -> Response<ReplyBody> {
    redirect_with(StatusCode::PERMANENT_REDIRECT, target)
}

pub(crate) fn redirect_with(status: StatusCode, target: &str) -> Response<ReplyBody> {
    let mut response = page(status);
    match HeaderValue::try_from(target) {
        Ok(target) => {
            response.headers_mut().insert(LOCATION, target);
            response
        }
        Err(_) => page(StatusCode::BAD_REQUEST),
    }
}
