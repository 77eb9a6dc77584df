//! From upstreams and a request to a response.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use fairlead_contract::HostPattern;
use http::{Request, Response, StatusCode};
use http_body::Body;
use thiserror::Error;
use tokio::time::timeout;

use crate::balance::Peers;
use crate::body::{ReplyBody, RequestBody};
use crate::dial::ConnectError;
use crate::interim::Hearing;
use crate::pool::{Lease, Peer};
use crate::proxy_protocol::Link;
use crate::received::{PeerError, ReceivedBody};
use crate::sender::{Http2Sender, Sender, Unanswered};
use crate::upload::{Stalled, Upload};

/// The upstream gave no answer that could be passed on.
#[derive(Debug, Error)]
pub(crate) enum ForwardError {
    #[error("no connection")]
    Connect(#[from] ConnectError),
    #[error("no answer in time")]
    Timeout,
    #[error("the client did not send on")]
    ClientStalled,
    #[error("no answer")]
    Exchange(#[from] PeerError),
    #[error("the body is larger than the route allows")]
    TooLarge,
    #[error("a tunnel was asked for, and the upstream makes none in HTTP/2")]
    NoTunnel,
    #[error("the request cannot be written for an upstream")]
    Request(#[from] http::Error),
}

impl ForwardError {
    /// 504 if time ran out (RFC 9110 15.6.5), 400, 408, 413 and 501 for what the client did, else 502.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Exchange(error) if error.is_of_client() => StatusCode::BAD_REQUEST,
            Self::Timeout | Self::Connect(ConnectError::Timeout) => StatusCode::GATEWAY_TIMEOUT,
            Self::ClientStalled => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoTunnel => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

/// No upstream gave an answer.
pub(crate) struct Failure {
    pub(crate) error: ForwardError,
    /// The request, if other upstreams may get it.
    pub(crate) again: Option<Box<Request<RequestBody>>>,
}

impl From<ForwardError> for Failure {
    fn from(error: ForwardError) -> Self {
        Self { error, again: None }
    }
}

impl From<Unanswered> for Failure {
    /// An answer that is not HTTP comes from a living connection; asking again would not help.
    fn from(Unanswered { error, again }: Unanswered) -> Self {
        Self {
            again: again.filter(|_| !error.is_nonsense()),
            error: error.into(),
        }
    }
}

impl From<Stalled> for ForwardError {
    fn from(stalled: Stalled) -> Self {
        match stalled {
            Stalled::Client => Self::ClientStalled,
            Stalled::Upstream => Self::Timeout,
        }
    }
}

/// What a request gets without going to its upstream.
pub(crate) type Settled = Box<Result<Response<ReplyBody>, ForwardError>>;

impl From<ForwardError> for Settled {
    fn from(error: ForwardError) -> Self {
        Self::new(Err(error))
    }
}

/// Who can be asked, and how long that may take.
pub(crate) struct Dispatch<'a> {
    /// For the log: the primary host of the route that asks for itself.
    pub(crate) route: Option<&'a HostPattern>,
    pub(crate) peers: &'a Peers,
    /// Whom to ask first.
    pub(crate) home: Option<&'a Arc<Peer>>,
    /// Takes what comes before the answer.
    pub(crate) hearing: Option<&'a Hearing>,
    /// Whose request it is; `None`: our own.
    pub(crate) link: Option<Link>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) stall_timeout: Duration,
}

impl Dispatch<'_> {
    /// Sends over an idle connection if there is one. The upstream may just have closed that; then the
    /// request goes over a new one, unless some of it may have been acted on (RFC 9112 9.3.1). The same
    /// holds for an upstream that broke off, if there is another one.
    pub(crate) async fn send(
        &self,
        request: Box<Request<RequestBody>>,
        mut upload: Option<&mut Upload>,
        wants_tunnel: bool,
    ) -> Result<(Response<ReceivedBody>, Lease), Failure> {
        let (request, sender, lease) = self.connect(request, true).await?;
        if let Sender::Http2(sender) = &sender
            && wants_tunnel
        {
            self.check_for_tunnels(sender).await?;
        }
        let may_repeat = lease.is_reused || !self.peers.is_alone();
        let answered = self.exchange(sender, &lease, request, upload.as_deref_mut());
        let unanswered = match answered.await? {
            Ok(response) => return Ok((response, lease)),
            Err(unanswered) => unanswered,
        };
        let may_repeat = may_repeat || unanswered.error.is_unprocessed();
        match unanswered.into() {
            Failure {
                again: Some(request), ..
            } if may_repeat => Box::pin(self.send_anew(request, upload)).await,
            failure => Err(failure),
        }
    }

    async fn check_for_tunnels(&self, sender: &Http2Sender) -> Result<(), ForwardError> {
        let makes_tunnels = timeout(self.response_timeout, sender.makes_tunnels()).await;
        let makes_tunnels = makes_tunnels.map_err(|_| ForwardError::Timeout)?;
        if makes_tunnels.map_err(PeerError::from)? {
            Ok(())
        } else {
            Err(ForwardError::NoTunnel)
        }
    }

    async fn send_anew(
        &self,
        request: Box<Request<RequestBody>>,
        upload: Option<&mut Upload>,
    ) -> Result<(Response<ReceivedBody>, Lease), Failure> {
        let (request, sender, lease) = self.connect(request, false).await?;
        let answered = self.exchange(sender, &lease, request, upload).await?;
        Ok((answered?, lease))
    }

    /// One try. A connection that was idle may break without meaning anything.
    async fn exchange(
        &self,
        sender: Sender,
        lease: &Lease,
        request: Box<Request<RequestBody>>,
        upload: Option<&mut Upload>,
    ) -> Result<Result<Response<ReceivedBody>, Unanswered>, ForwardError> {
        // With a body, who broke off may have been the client.
        let may_blame = !lease.is_reused && request.body().is_end_stream();
        let answered = {
            let answer = pin!(sender.exchange(request, self.hearing, self.stall_timeout));
            self.in_time(answer, upload).await?
        };
        match &answered {
            Ok(_) => lease.peer().health.succeeded(),
            Err(unanswered) if may_blame && !unanswered.error.is_about_one_answer() => {
                lease.peer().health.failed();
            }
            Err(_) => {}
        }
        Ok(answered)
    }

    /// The limit begins when the request has been sent whole: an upload takes the time it takes.
    async fn in_time<T>(
        &self,
        mut answer: Pin<&mut impl Future<Output = T>>,
        upload: Option<&mut Upload>,
    ) -> Result<T, ForwardError> {
        if let Some(upload) = upload {
            tokio::select! {
                biased;
                answer = &mut answer => return Ok(answer),
                over = upload.over(self.stall_timeout) => over?,
            }
        }
        let answered = timeout(self.response_timeout, answer).await;
        answered.map_err(|_| ForwardError::Timeout)
    }

    /// Tries one upstream after the other: a request that reached none of them is lost by nobody.
    async fn connect(
        &self,
        request: Box<Request<RequestBody>>,
        may_reuse: bool,
    ) -> Result<(Box<Request<RequestBody>>, Sender, Lease), Failure> {
        let limit = self.connect_timeout;
        let mut failure = ConnectError::Nobody;
        for peer in self.peers.in_order(self.home) {
            if let Some((sender, lease)) = may_reuse.then(|| peer.reuse()).flatten() {
                return Ok((request, sender, lease));
            }
            match peer.connect(limit, self.link, self.route).await {
                Ok((sender, lease)) => return Ok((request, sender, lease)),
                Err(error) => failure = error,
            }
        }
        Err(Failure {
            error: failure.into(),
            again: Some(request),
        })
    }
}
