use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
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
            _ => shake_hands(paths, &host, *ip).await.err(),
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
    #[error("no handshake of TLS-ALPN-01 succeeds ({0})")]
    Handshake(String),
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
    let token = random_token();
    let _probe = Probe::publish(paths.challenges_dir().join(&token), &token, 0o644)?;
    let address = SocketAddr::new(ip, 80);
    let url = format!("http://{address}/.well-known/acme-challenge/{token}");
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
    match body == token {
        true => Ok(()),
        false => Err(Fault::Body),
    }
}

/// Asks for a certificate that only our proxy can show, as the authority does for TLS-ALPN-01 (RFC 8737 3).
async fn shake_hands(paths: &Paths, host: &Host, ip: IpAddr) -> Result<(), Fault> {
    let digest: Vec<_> = std::iter::repeat_with(|| fastrand::u8(..)).take(32).collect();
    let pem = certify(host, &digest).map_err(|error| Fault::Own(chain(&error)))?;
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
    let certificate = certificate.map_err(|error| Fault::Own(chain(&error)))?;
    let _probe = Probe::publish(paths.alpn_challenge_file(host), &pem, 0o640)?;
    let name = ServerName::try_from(host.to_string()).map_err(|error| Fault::Own(chain(&error)))?;
    let stream = TcpStream::connect((ip, 443)).await?;
    let connector = TlsConnector::from(Arc::new(trust_nothing_but(certificate)?));
    let shaken = connector.connect(name, stream).await;
    shaken.map(drop).map_err(|error| Fault::Handshake(chain(&error)))
}

fn random_token() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(43).collect()
}

/// An answer to a challenge that nobody made, published until it is dropped.
struct Probe(PathBuf);

impl Probe {
    fn publish(path: PathBuf, text: &str, mode: u32) -> Result<Self, Fault> {
        let probe = Self(path);
        let written = write_atomically(&probe.0, text.as_bytes(), mode);
        written.map_err(|error| Fault::Own(chain(&error)))?;
        Ok(probe)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Err(error) = remove_if_present(&self.0) {
            tracing::warn!("{}", chain(&error));
        }
    }
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
