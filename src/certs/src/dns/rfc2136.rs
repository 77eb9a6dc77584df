use std::io;
use std::net::IpAddr;
use std::time::Duration;

use data_encoding::BASE64;
use fairlead_contract::{KeyAlgorithm, Rfc2136};
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::{Message, ResponseCode, update_message};
use hickory_resolver::proto::rr::rdata::TXT;
use hickory_resolver::proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_resolver::proto::rr::{self, Name, RData, RecordSet, TSigner};
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::dns::{DnsError, Record};
use crate::secret::read_secret_file;

/// For one exchange with the server.
const LIMIT: Duration = Duration::from_secs(20);
/// By how much the clocks of client and server may differ (RFC 8945 10).
const FUDGE: u16 = 300;
/// Nobody needs the record for long.
const TTL: u32 = 60;

/// Adds the record beside others of its name (RFC 2136 2.5.1).
pub(crate) async fn add(server: &Rfc2136, zone: Name, record: &Record) -> Result<(), DnsError> {
    let message = update_message::append(as_set(record), zone.clone(), false, false);
    update(server, zone, message).await
}

/// Removes this record and leaves others of its name (RFC 2136 2.5.4).
pub(crate) async fn remove(server: &Rfc2136, zone: Name, record: &Record) -> Result<(), DnsError> {
    let message = update_message::delete_by_rdata(as_set(record), zone.clone(), false);
    update(server, zone, message).await
}

fn as_set(record: &Record) -> RecordSet {
    let text = RData::TXT(TXT::new(vec![record.value.clone()]));
    rr::Record::from_rdata(record.name.clone(), TTL, text).into()
}

async fn update(server: &Rfc2136, zone: Name, mut message: Message) -> Result<(), DnsError> {
    let signer = read_signer(server)?;
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
    let verifier = message.finalize(&signer, now)?;
    let answer = match timeout(LIMIT, exchange(&server.server, &message.to_vec()?)).await {
        Ok(answer) => answer.map_err(|source| DnsError::Unreachable {
            server: server.server.clone(),
            source,
        })?,
        Err(_) => {
            return Err(DnsError::Silent {
                server: server.server.clone(),
                limit: LIMIT,
            });
        }
    };
    // A server that does not know the key cannot sign: its refusal is told, whoever it is from.
    let code = Message::from_vec(&answer)
        .map_err(ProtoError::from)?
        .metadata
        .response_code;
    if code != ResponseCode::NoError {
        return Err(DnsError::Refused {
            server: server.server.clone(),
            zone: zone.to_string(),
            code,
        });
    }
    if let Some(mut verifier) = verifier {
        verifier.verify(&answer)?;
    }
    Ok(())
}

/// One message and its answer over TCP (RFC 1035 4.2.2).
async fn exchange(server: &str, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(with_port(server)).await?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), message].concat())
        .await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Port 53 unless another is named.
fn with_port(server: &str) -> String {
    match server.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:53"),
        Err(_) if server.contains(':') => server.to_owned(),
        _ => format!("{server}:53"),
    }
}

fn read_signer(server: &Rfc2136) -> Result<TSigner, DnsError> {
    let text = read_secret_file(&server.key)?;
    let unusable = |cause: &dyn std::fmt::Display| DnsError::Key(cause.to_string());
    let key = BASE64
        .decode(text.as_bytes())
        .map_err(|_| unusable(&"it is not base64"))?;
    let name = Name::from_ascii(&server.key_name).map_err(|error| unusable(&error))?;
    let algorithm = match server.key_algorithm {
        KeyAlgorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
        KeyAlgorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
        KeyAlgorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
    };
    TSigner::new(key, algorithm, name, FUDGE).map_err(|error| unusable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_port_is_asked_at_53() {
        for (server, expected) in [
            ("ns.test", "ns.test:53"),
            ("ns.test:5353", "ns.test:5353"),
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:54", "192.0.2.1:54"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]:54", "[2001:db8::1]:54"),
        ] {
            assert_eq!(with_port(server), expected);
        }
    }
}
