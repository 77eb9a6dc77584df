use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_contract::{Challenge, Host, Paths, remove_if_present, write_atomically};
use futures_util::future::join_all;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use instant_acme::ChallengeType;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::{ClientConfig, DigitallySignedStruct, PeerIncompatible, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::parse_x509_certificate;

use crate::acme::answers::certify;
use crate::acme::error::Rejection;
use crate::acme::preflight::Obstacle;
use crate::dns::{Addresses, Lookup};
use crate::words::chain;

/// More names than these show nothing new.
const MAX_LOOKS: usize = 3;
/// How long the DNS may take to say where a name is, and each address after that.
const LIMIT: Duration = Duration::from_secs(10);
const MAX_BODY_BYTES: usize = 4096;

/// What we see ourselves of names that the authority found not to be ours, a sentence about each.
///
/// Much of it is doubtful: a router that does not lead back in looks like a server that is down, and a
/// resolver of one's own may know other addresses. So it explains a failure. What prevents an order is
/// [`find_fault`]'s alone.
pub(crate) async fn look(paths: &Paths, resolvers: &[SocketAddr], rejections: &[Rejection]) -> Vec<String> {
    let Ok(lookup) = Lookup::new(resolvers) else {
        return Vec::new();
    };
    let looks = rejections.iter().take(MAX_LOOKS);
    let looks = looks.map(|rejection| look_at(paths, &lookup, rejection));
    join_all(looks).await.into_iter().flatten().collect()
}

/// `None` if nothing can be seen from outside the DNS.
async fn look_at(paths: &Paths, lookup: &Lookup, rejection: &Rejection) -> Option<String> {
    let kind = match rejection.challenge {
        ChallengeType::Http01 => Challenge::Http01,
        ChallengeType::TlsAlpn01 => Challenge::TlsAlpn01,
        _ => return None,
    };
    let host = Host::parse(&rejection.name).ok()?;
    let addresses = match timeout(LIMIT, lookup.find_addresses(&host)).await {
        Ok(Ok(Addresses::At(addresses))) => addresses,
        Ok(Ok(Addresses::Absent)) => return Some(format!("{host} has no address in the DNS")),
        Ok(Ok(Addresses::NoSuchName)) => return Some(format!("{host} is not in the DNS")),
        Ok(Err(error)) => return Some(chain(&error)),
        Err(_) => return Some(format!("the DNS does not say in time where {host} is")),
    };
    let (port, seen) = ask_all(paths, kind, &host, &addresses).await?;
    Some(describe(&host, port, &seen))
}

/// Says what is certain to make this kind of challenge fail for a host whose addresses are all this machine's own: the
/// authority would see there what we see.
pub(crate) async fn find_fault(
    paths: &Paths,
    kind: Challenge,
    host: &Host,
    addresses: &[IpAddr],
) -> Option<Obstacle> {
    let (port, seen) = ask_all(paths, kind, host, addresses).await?;
    is_certain(&seen).then(|| Obstacle::Port {
        seen: describe(host, port, &seen),
        port,
    })
}

/// An authority may ask at any of the addresses, and at another one if it cannot connect.
fn is_certain(seen: &[(IpAddr, Result<(), Fault>)]) -> bool {
    let is_fault = |seen: &Result<(), Fault>| seen.as_ref().is_err_and(Fault::is_certain);
    !seen.is_empty() && seen.iter().all(|(_, seen)| is_fault(seen))
}

/// Asks as the authority does, at each address; `None` if this kind of challenge asks at none.
async fn ask_all(
    paths: &Paths,
    kind: Challenge,
    host: &Host,
    addresses: &[IpAddr],
) -> Option<(u16, Vec<(IpAddr, Result<(), Fault>)>)> {
    let (port, probe) = match kind {
        Challenge::Http01 => (80, Probe::of_http(paths)),
        Challenge::TlsAlpn01 => (443, Probe::of_tls_alpn(paths, host)),
        Challenge::Dns01 => return None,
    };
    let seen = match probe {
        Ok(probe) => join_all(addresses.iter().map(|ip| probe.ask(host, *ip))).await,
        Err(fault) => addresses.iter().map(|_| Err(fault.clone())).collect(),
    };
    Some((port, addresses.iter().copied().zip(seen).collect()))
}

/// Says of each address what is seen there: the authority may have asked at any.
fn describe(host: &Host, port: u16, seen: &[(IpAddr, Result<(), Fault>)]) -> String {
    let places = seen.iter().map(|(ip, seen)| match seen {
        Ok(()) => format!("{ip}, where port {port} answers as it should"),
        Err(Fault::NoWay(cause)) => format!("{ip}, to which there is no way from here ({cause})"),
        Err(fault) => format!("{ip}, where at port {port} {fault}"),
    });
    let places = places.collect::<Vec<_>>().join("; and to ");
    let rest = match seen.iter().all(|(_, seen)| seen.is_ok()) {
        true => "; what is in the way lies between there and the authority",
        false => "",
    };
    format!("{host} leads to {places}{rest}")
}

/// What is wrong with an answer.
#[derive(Clone, Debug, thiserror::Error)]
enum Fault {
    #[error("there is no way from here ({0})")]
    NoWay(String),
    #[error("nobody answers ({0})")]
    Refused(String),
    #[error("nobody answers ({0})")]
    Silent(String),
    #[error("nobody answers within {} seconds", LIMIT.as_secs())]
    Limit,
    #[error("another server answers, with {0}")]
    Status(StatusCode),
    #[error("another server answers")]
    Body,
    #[error("no handshake of TLS-ALPN-01 succeeds ({0})")]
    Handshake(String),
    #[error("nothing could be asked for ({0})")]
    Own(String),
}

impl Fault {
    /// Of a connection that did not come about. Without IPv6, as an example, it is not the other side's fault.
    fn of_connecting(error: &(dyn Error + 'static)) -> Self {
        const OURS: [ErrorKind; 2] = [ErrorKind::NetworkUnreachable, ErrorKind::AddrNotAvailable];
        let mut causes = iter::successors(Some(error), |error| (*error).source());
        let kind = causes.find_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
        match kind {
            Some(kind) if OURS.contains(&kind) => Self::NoWay(chain(error)),
            Some(ErrorKind::ConnectionRefused) => Self::Refused(chain(error)),
            _ => Self::Silent(chain(error)),
        }
    }

    /// Whether it is another server's, or nobody's, as long as nothing changes. A redirection may lead to an answer, and
    /// who does not answer now may only be slow.
    fn is_certain(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Body | Self::Handshake(_) => true,
            Self::Status(status) => !status.is_redirection(),
            Self::NoWay(_) | Self::Silent(_) | Self::Limit | Self::Own(_) => false,
        }
    }
}

/// An answer to a challenge that nobody made, which only our proxy can give; published until it is dropped.
struct Probe {
    path: PathBuf,
    expected: Expected,
}

enum Expected {
    Body(String),
    Certificate(CertificateDer<'static>),
}

impl Probe {
    fn of_http(paths: &Paths) -> Result<Self, Fault> {
        let token = random_token();
        let path = paths.challenges_dir().join(&token);
        Self::publish(path, &token, 0o644, Expected::Body(token.clone()))
    }

    fn of_tls_alpn(paths: &Paths, host: &Host) -> Result<Self, Fault> {
        let own = |error: &(dyn Error + 'static)| Fault::Own(chain(error));
        let digest: Vec<_> = iter::repeat_with(|| fastrand::u8(..)).take(32).collect();
        let pem = certify(host, &digest).map_err(|error| own(&error))?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| own(&error))?;
        let path = paths.alpn_challenge_file(host);
        Self::publish(path, &pem, 0o640, Expected::Certificate(certificate))
    }

    fn publish(path: PathBuf, text: &str, mode: u32, expected: Expected) -> Result<Self, Fault> {
        let probe = Self { path, expected };
        let written = write_atomically(&probe.path, text.as_bytes(), mode);
        written.map_err(|error| Fault::Own(chain(&error)))?;
        Ok(probe)
    }

    async fn ask(&self, host: &Host, ip: IpAddr) -> Result<(), Fault> {
        let asked = async {
            match &self.expected {
                Expected::Body(token) => ask(token, host, ip).await,
                Expected::Certificate(certificate) => shake_hands(certificate, host, ip).await,
            }
        };
        timeout(LIMIT, asked).await.unwrap_or(Err(Fault::Limit))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Err(error) = remove_if_present(&self.path) {
            tracing::warn!("{}", chain(&error));
        }
    }
}

/// Asks as the authority does for HTTP-01.
async fn ask(token: &str, host: &Host, ip: IpAddr) -> Result<(), Fault> {
    let address = SocketAddr::new(ip, 80);
    let url = format!("http://{address}/.well-known/acme-challenge/{token}");
    let own = |error: http::Error| Fault::Own(chain(&error));
    let request = Request::get(url).header(HOST, host.as_str());
    let request = request.body(Empty::<Bytes>::new()).map_err(own)?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await;
    let response = response.map_err(|error| Fault::of_connecting(&error))?;
    if response.status() != StatusCode::OK {
        return Err(Fault::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|_| Fault::Body)?.to_bytes();
    match body == token {
        true => Ok(()),
        false => Err(Fault::Body),
    }
}

/// Asks as the authority does for TLS-ALPN-01 (RFC 8737 3).
async fn shake_hands(certificate: &CertificateDer<'static>, host: &Host, ip: IpAddr) -> Result<(), Fault> {
    let name = ServerName::try_from(host.to_string()).map_err(|error| Fault::Own(chain(&error)))?;
    let stream = TcpStream::connect((ip, 443)).await;
    let stream = stream.map_err(|error| Fault::of_connecting(&error))?;
    let connector = TlsConnector::from(Arc::new(trust_nothing_but(certificate.clone())?));
    let shaken = connector.connect(name, stream).await;
    shaken.map(drop).map_err(|error| Fault::Handshake(chain(&error)))
}

fn random_token() -> String {
    iter::repeat_with(fastrand::alphanumeric).take(43).collect()
}

/// A client that believes who shows this very certificate and has its key, speaking `acme-tls/1` alone.
fn trust_nothing_but(certificate: CertificateDer<'static>) -> Result<ClientConfig, Fault> {
    let (_, parsed) = parse_x509_certificate(&certificate).map_err(|error| Fault::Own(chain(&error)))?;
    let provider = aws_lc_rs::default_provider();
    let verifier = OneCertificate {
        key: parsed.tbs_certificate.subject_pki.raw.to_vec().into(),
        algorithms: provider.signature_verification_algorithms,
        certificate,
    };
    let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct OneCertificate {
    certificate: CertificateDer<'static>,
    key: SubjectPublicKeyInfoDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for OneCertificate {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match *shown == self.certificate {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::General("another server answers".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Read as a certificate it would be refused, for the critical extension that RFC 8737 3 wants.
        verify_tls13_signature_with_raw_key(message, &self.key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_told_and_none_is_blamed_for_another_or_for_what_we_lack() {
        let host = Host::parse("a.test").unwrap();
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let refused = || Fault::of_connecting(&io::Error::from(ErrorKind::ConnectionRefused));
        let no_way = || Fault::of_connecting(&io::Error::from(ErrorKind::NetworkUnreachable));
        let fine = "where port 80 answers as it should";
        let between = "; what is in the way lies between there and the authority";
        for (at_v4, at_v6, expected) in [
            (
                Ok(()),
                Ok(()),
                format!("192.0.2.1, {fine}; and to 2001:db8::1, {fine}{between}"),
            ),
            (
                Ok(()),
                Err(Fault::Limit),
                format!(
                    "192.0.2.1, {fine}; and to 2001:db8::1, where at port 80 nobody answers within 10 seconds"
                ),
            ),
            (
                Err(refused()),
                Err(no_way()),
                "192.0.2.1, where at port 80 nobody answers (connection refused); and to 2001:db8::1, to which \
                 there is no way from here (network unreachable)"
                    .to_owned(),
            ),
        ] {
            let described = describe(&host, 80, &[(v4, at_v4), (v6, at_v6)]);
            assert_eq!(described, format!("a.test leads to {expected}"));
        }
    }

    #[test]
    fn what_is_seen_is_certain_if_no_address_may_lead_to_an_answer() {
        let of = |kind: ErrorKind| Err(Fault::of_connecting(&io::Error::from(kind)));
        let refused = || of(ErrorKind::ConnectionRefused);
        let status = |status| Err(Fault::Status(status));
        for (seen, expected) in [
            (vec![refused()], true),
            (vec![status(StatusCode::NOT_FOUND)], true),
            (vec![status(StatusCode::BAD_GATEWAY)], true),
            (vec![Err(Fault::Body)], true),
            (vec![Err(Fault::Handshake("x".to_owned()))], true),
            (vec![refused(), Err(Fault::Body)], true),
            (vec![], false),
            (vec![Ok(())], false),
            (vec![refused(), Ok(())], false),
            (vec![status(StatusCode::FOUND)], false),
            (vec![refused(), status(StatusCode::PERMANENT_REDIRECT)], false),
            (vec![refused(), Err(Fault::Limit)], false),
            (vec![of(ErrorKind::ConnectionReset)], false),
            (vec![of(ErrorKind::NetworkUnreachable)], false),
            (vec![Err(Fault::Own("x".to_owned()))], false),
        ] {
            let ip = "1.2.3.4".parse().unwrap();
            let shown = format!("{seen:?}");
            let seen: Vec<_> = seen.into_iter().map(|seen| (ip, seen)).collect();
            assert_eq!(is_certain(&seen), expected, "{shown}");
        }
    }
}
