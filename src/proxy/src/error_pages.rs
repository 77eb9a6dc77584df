use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use fairlead_contract::{ErrorPage, Statuses, Upstream};
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED,
};
use http::{Request, Response, Uri};
use tracing::debug;

use crate::body::{ReplyBody, RequestBody, UpstreamBody};
use crate::helper::Helper;
use crate::pool::Peer;

/// A client waits for its answer already.
const PATIENCE: Duration = Duration::from_secs(5);
/// What describes the page, and so belongs to it (RFC 9110 8).
const OF_CONTENT: [HeaderName; 9] = [
    ACCEPT_RANGES,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LENGTH,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    CONTENT_TYPE,
    ETAG,
    LAST_MODIFIED,
];

/// Who makes the pages of errors; of several for a status the first.
pub(crate) struct ErrorPages(Vec<(Statuses, Helper)>);

impl ErrorPages {
    /// `None` if every error keeps its page.
    pub(crate) fn new(pages: &[ErrorPage], find: impl Fn(&Upstream) -> Option<Arc<Peer>>) -> Option<Self> {
        let pages = pages
            .iter()
            .map(|page| (page.status, Helper::new(&page.url, &find)));
        let pages: Vec<_> = pages.collect();
        (!pages.is_empty()).then_some(Self(pages))
    }

    /// Puts the page that was made for the status into the response, which keeps its status and what its
    /// fields say of anything but the page. Without a page it stays as it is.
    pub(crate) async fn replace(&self, response: Response<ReplyBody>, path: &Uri) -> Response<ReplyBody> {
        let status = response.status().as_u16();
        let Some((_, helper)) = self.0.iter().find(|(statuses, _)| statuses.contains(status)) else {
            return response;
        };
        match helper
            .ask(Request::new(RequestBody::empty()), path, PATIENCE)
            .await
        {
            Ok((page, lease)) if page.status().is_success() => {
                let (mut parts, _) = response.into_parts();
                let (page, body) = page.into_parts();
                for name in OF_CONTENT {
                    parts.headers.remove(&name);
                    if let Some(value) = page.headers.get(&name) {
                        parts.headers.insert(name, value.clone());
                    }
                }
                Response::from_parts(parts, ReplyBody::Upstream(UpstreamBody::new(body, lease)))
            }
            Ok((page, _)) => {
                debug!(page = %helper.resource(path), "no page for an error: its server answers with {}", page.status());
                response
            }
            Err(error) => {
                debug!(page = %helper.resource(path), error = &error as &dyn Error, "no page for an error");
                response
            }
        }
    }
}
