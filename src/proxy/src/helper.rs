use std::iter::once;
use std::sync::Arc;
use std::time::Duration;

use fairlead_contract::{Endpoint, Host, Upstream};
use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};

use crate::balance::Peers;
use crate::body::RequestBody;
use crate::dispatch::{Dispatch, ForwardError};
use crate::pool::{Lease, Peer};
use crate::received::ReceivedBody;

/// For a service that has no name.
const NOBODY: HeaderValue = HeaderValue::from_static("localhost");

/// A service that helps to answer.
pub(crate) struct Helper {
    peers: Peers,
    host: HeaderValue,
    target: Option<PathAndQuery>,
}

impl Helper {
    /// `find` knows the peers that could be set up; without one, every request fails.
    pub(crate) fn new(endpoint: &Endpoint, find: impl Fn(&Upstream) -> Option<Arc<Peer>>) -> Self {
        let Endpoint { service, target } = endpoint;
        let peer = find(&service.clone().into());
        let host = service
            .authority()
            .and_then(|authority| HeaderValue::try_from(authority).ok());
        Self {
            peers: Peers::new(peer.into_iter().map(|peer| (peer, 1))),
            host: host.unwrap_or(NOBODY),
            target: target.clone(),
        }
    }

    /// An upstream that is asked in the name of one of its sites.
    pub(crate) fn of(peer: Arc<Peer>, host: Option<&Host>) -> Self {
        let host = host.and_then(|host| HeaderValue::try_from(host.as_str()).ok());
        Self {
            peers: Peers::new(once((peer, 1))),
            host: host.unwrap_or(NOBODY),
            target: None,
        }
    }

    /// Asks for the resource, or for `path` where the endpoint names none. Each step may take `patience`.
    pub(crate) async fn ask(
        &self,
        mut request: Request<RequestBody>,
        path: &Uri,
        patience: Duration,
    ) -> Result<(Response<ReceivedBody>, Lease), ForwardError> {
        *request.uri_mut() = self.target(path).cloned().map_or_else(Uri::default, Uri::from);
        request.headers_mut().insert(HOST, self.host.clone());
        let dispatch = Dispatch {
            route: None,
            peers: &self.peers,
            home: None,
            hearing: None,
            link: None,
            connect_timeout: patience,
            response_timeout: patience,
            stall_timeout: patience,
        };
        let answered = dispatch.send(Box::new(request), None, false).await;
        answered.map_err(|failure| failure.error)
    }

    /// For the log: what is asked for in place of `path`.
    pub(crate) fn resource(&self, path: &Uri) -> String {
        let host = self.host.to_str().unwrap_or_default();
        format!("{host}{}", self.target(path).map_or("", PathAndQuery::as_str))
    }

    fn target<'a>(&'a self, path: &'a Uri) -> Option<&'a PathAndQuery> {
        self.target.as_ref().or_else(|| path.path_and_query())
    }
}
