use std::sync::Arc;

use fairlead_contract::{Host, Route, Upstream};
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};

use crate::basic::BasicAuth;
use crate::body::ReplyBody;
use crate::dispatch::Settled;
use crate::forward::Exchange;
use crate::forward_auth::ForwardAuth;
use crate::pool::Peer;
use crate::received::ReceivedBody;
use crate::reply;

/// What must be known of a user before a request goes further. Costs nothing where there is none.
pub(crate) struct Guard {
    basic: Option<BasicAuth>,
    forward: Option<ForwardAuth>,
}

impl Guard {
    /// `None` if the route asks for nothing. A program that cannot be asked lets nobody in.
    pub(crate) fn new(route: &Route, find: impl Fn(&Upstream) -> Option<Arc<Peer>>) -> Option<Self> {
        let basic = BasicAuth::new(&route.basic_auth);
        let settings = route.forward_auth.as_ref();
        let forward = settings.map(|settings| ForwardAuth::new(settings, find));
        (basic.is_some() || forward.is_some()).then_some(Self { basic, forward })
    }

    /// Gives the request back, or the answer that it gets instead.
    pub(crate) async fn admit(
        &self,
        exchange: &Exchange<'_>,
        mut request: Box<Request<ReceivedBody>>,
    ) -> Result<Box<Request<ReceivedBody>>, Settled> {
        if let Some(basic) = &self.basic {
            if !basic.admits(request.headers()).await {
                return Err(Box::new(Ok(ask_for_password(exchange.host))));
            }
            // It was for us.
            request.headers_mut().remove(AUTHORIZATION);
        }
        if let Some(forward) = &self.forward {
            let (mut parts, body) = request.into_parts();
            forward.admit(exchange, &mut parts).await?;
            request = Box::new(Request::from_parts(parts, body));
        }
        Ok(request)
    }
}

/// RFC 7617 2.
fn ask_for_password(host: &Host) -> Response<ReplyBody> {
    let mut response = reply::page(StatusCode::UNAUTHORIZED);
    if let Ok(challenge) = HeaderValue::try_from(format!("Basic realm=\"{host}\", charset=\"UTF-8\"")) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}
