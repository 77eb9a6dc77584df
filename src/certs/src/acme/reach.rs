use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use fairlead_contract::{Host, Paths, remove_if_present, write_atomically};
use futures_util::future::join_all;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use instant_acme::ChallengeType;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::acme::error::Rejection;
use crate::dns::{Addresses, Lookup};
use crate::words::chain;

/// More names than these show nothing new.
const MAX_LOOKS: usize = 3;
/// How long one name may take.
const LIMIT: Duration = Duration::from_secs(10);
const MAX_BODY_BYTES: usize = 4096;

/// What we see ourselves of names that the authority found not to be ours, a sentence about each.
///
/// All of it is doubtful: a router that does not lead back in looks like a server that is down, and a
/// resolver of one's own may know other addresses. So it explains a failure, and never prevents an order.
pub(crate) async fn look(paths: &Paths, resolvers: &[SocketAddr], rejections: &[Rejection]) -> Vec<String> {
    let Ok(lookup) = Lookup::new(resolvers) else {
        return Vec::new();
    };
    let looks = rejections.iter().take(MAX_LOOKS);
    let looks = looks.map(|rejection| timeout(LIMIT, look_at(paths, &lookup, rejection)));
    let seen = join_all(looks).await.into_iter();
    seen.filter_map(Result::ok).flatten().collect()
}

/// `None` if nothing can be seen from outside the DNS.
async fn look_at(paths: &Paths, lookup: &Lookup, rejection: &Rejection) -> Option<String> {
    let port = match rejection.challenge {
        ChallengeType::Http01 => 80,
        ChallengeType::TlsAlpn01 => 443,
        _ => return None,
    };
    let host = Host::parse(&rejection.name).ok()?;
    let addresses = match lookup.find_addresses(&host).await {
        Ok(Addresses::At(addresses)) => addresses,
        Ok(Addresses::Absent) => return Some(format!("{host} has no address in the DNS")),
        Ok(Addresses::NoSuchName) => return Some(format!("{host} is not in the DNS")),
        Err(error) => return Some(chain(&error)),
    };
    for ip in &addresses {
        let fault = match rejection.challenge {
            ChallengeType::Http01 => ask(paths, &host, *ip).await.err(),
            _ => TcpStream::connect((*ip, port)).await.err().map(Fault::from),
        };
        if let Some(fault) = fault {
            return Some(format!("{host} is at {ip}, and at its port {port} {fault}"));
        }
    }
    let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    Some(format!(
        "port {port} of {} answers for {host} as it should; what is in the way lies between there and the authority",
        shown.join(" and ")
    ))
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("nobody answers ({0})")]
    Silent(String),
    #[error("another server answers, with {0}")]
    Status(StatusCode),
    #[error("another server answers")]
    Body,
    #[error("nothing could be asked for ({0})")]
    Own(String),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Silent(error.to_string())
    }
}

/// Asks for an answer that only our proxy can give, as the authority does for HTTP-01.
async fn ask(paths: &Paths, host: &Host, ip: IpAddr) -> Result<(), Fault> {
    let probe = Probe::publish(paths)?;
    let address = SocketAddr::new(ip, 80);
    let url = format!("http://{address}/.well-known/acme-challenge/{}", probe.token);
    let own = |error: http::Error| Fault::Own(chain(&error));
    let request = Request::get(url).header(HOST, host.as_str());
    let request = request.body(Empty::<Bytes>::new()).map_err(own)?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await;
    let response = response.map_err(|error| Fault::Silent(chain(&error)))?;
    if response.status() != StatusCode::OK {
        return Err(Fault::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|_| Fault::Body)?.to_bytes();
    match body == probe.token {
        true => Ok(()),
        false => Err(Fault::Body),
    }
}

/// An answer to a challenge that nobody made, published until it is dropped.
struct Probe {
    token: String,
    path: PathBuf,
}

impl Probe {
    fn publish(paths: &Paths) -> Result<Self, Fault> {
        let token: String = std::iter::repeat_with(fastrand::alphanumeric).take(43).collect();
        let path = paths.challenges_dir().join(&token);
        let probe = Self { token, path };
        let written = write_atomically(&probe.path, probe.token.as_bytes(), 0o644);
        written.map_err(|error| Fault::Own(chain(&error)))?;
        Ok(probe)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Err(error) = remove_if_present(&self.path) {
            tracing::warn!("{}", chain(&error));
        }
    }
}
