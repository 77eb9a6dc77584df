use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{DnsService, Limit, ServiceAccount};

/// `[acme.dns]`: how TXT records get into the DNS, for DNS-01 (RFC 8555 8.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    pub provider: DnsProvider,
    /// How long a record may take to reach all servers of its zone.
    pub propagation_timeout: Limit,
    /// Wait this long instead of asking the servers of the zone.
    pub propagation_delay: Option<Limit>,
}

/// Who changes the DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsProvider {
    Rfc2136(Rfc2136),
    Exec(Exec),
    HttpReq(HttpReq),
    AcmeDns(AcmeDns),
    /// `[acme.dns.NAME]`: one of [`DnsService::ALL`].
    Service(ServiceAccount),
}

/// `[acme.dns.rfc2136]`: a server that takes dynamic updates (RFC 2136) signed with TSIG (RFC 8945).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rfc2136 {
    /// The primary server: `HOST` or `HOST:PORT`.
    pub server: String,
    pub key_name: String,
    #[serde(default)]
    pub key_algorithm: KeyAlgorithm,
    /// The key in base64, as `tsig-keygen` prints it.
    pub key: SecretFile,
}

/// The algorithms of RFC 8945 6 that are strong enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyAlgorithm {
    #[default]
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

/// `[acme.dns.exec]`: a program of the operator's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Exec {
    /// The program and its first arguments; `present` or `cleanup`, the record's name and its value follow.
    #[serde(deserialize_with = "read_command")]
    pub command: Vec<String>,
}

/// `[acme.dns.httpreq]`: `POST ENDPOINT/present` and `/cleanup` with `{"fqdn": …, "value": …}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpReq {
    pub endpoint: String,
    /// For basic authentication, with `password`.
    pub username: Option<String>,
    pub password: Option<SecretFile>,
}

/// `[acme.dns.acme-dns]`: a server of that name, to which `_acme-challenge` records are delegated.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AcmeDns {
    /// Its URL.
    pub server: String,
    /// What it answered to `/register`, JSON, by any key.
    pub accounts: SecretFile,
}

/// A file that holds a secret: an absolute path, or the name of a credential of `fairlead-certs.service`
/// (`LoadCredential=` in systemd.exec(5)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretFile(pub PathBuf);

const ONE_PROVIDER: &str =
    "[acme.dns] has exactly one table that says who changes the DNS, such as `rfc2136`";

impl<'de> Deserialize<'de> for Dns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WrittenDns)
    }
}

struct WrittenDns;

impl<'de> Visitor<'de> for WrittenDns {
    type Value = Dns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Dns, A::Error> {
        let mut providers = Vec::new();
        let (mut propagation_timeout, mut propagation_delay) = (Limit::from_secs(5 * 60), None);
        while let Some(key) = table.next_key()? {
            match key {
                Key::PropagationTimeout => propagation_timeout = table.next_value()?,
                Key::PropagationDelay => propagation_delay = Some(table.next_value()?),
                Key::Provider(provider) => providers.push(table.next_value_seed(provider)?),
            }
        }
        let [provider] = <[_; 1]>::try_from(providers).map_err(|_| A::Error::custom(ONE_PROVIDER))?;
        Ok(Dns {
            provider,
            propagation_timeout,
            propagation_delay,
        })
    }
}

/// What stands in `[acme.dns]`.
enum Key {
    PropagationTimeout,
    PropagationDelay,
    Provider(ProviderKey),
}

enum ProviderKey {
    Rfc2136,
    Exec,
    HttpReq,
    AcmeDns,
    Service(&'static DnsService),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const OWN: [&str; 6] = [
            "rfc2136",
            "exec",
            "httpreq",
            "acme-dns",
            "propagation-timeout",
            "propagation-delay",
        ];
        let key = String::deserialize(deserializer)?;
        Ok(match key.as_str() {
            "propagation-timeout" => Self::PropagationTimeout,
            "propagation-delay" => Self::PropagationDelay,
            "rfc2136" => Self::Provider(ProviderKey::Rfc2136),
            "exec" => Self::Provider(ProviderKey::Exec),
            "httpreq" => Self::Provider(ProviderKey::HttpReq),
            "acme-dns" => Self::Provider(ProviderKey::AcmeDns),
            name => match DnsService::find(name) {
                Some(service) => Self::Provider(ProviderKey::Service(service)),
                None => {
                    let services = DnsService::ALL.iter().map(|service| service.name);
                    return Err(unknown_field(&key, OWN.into_iter().chain(services)));
                }
            },
        })
    }
}

impl<'de> DeserializeSeed<'de> for ProviderKey {
    type Value = DnsProvider;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<DnsProvider, D::Error> {
        Ok(match self {
            Self::Rfc2136 => DnsProvider::Rfc2136(Rfc2136::deserialize(deserializer)?),
            Self::Exec => DnsProvider::Exec(Exec::deserialize(deserializer)?),
            Self::HttpReq => DnsProvider::HttpReq(HttpReq::deserialize(deserializer)?),
            Self::AcmeDns => DnsProvider::AcmeDns(AcmeDns::deserialize(deserializer)?),
            Self::Service(service) => DnsProvider::Service(service.deserialize(deserializer)?),
        })
    }
}

/// The words serde has for it.
pub(crate) fn unknown_field<E: serde::de::Error>(
    field: &str,
    known: impl Iterator<Item = &'static str>,
) -> E {
    let known: Vec<_> = known.map(|name| format!("`{name}`")).collect();
    E::custom(format!(
        "unknown field `{field}`, expected one of {}",
        known.join(", ")
    ))
}

fn read_command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let command = Vec::deserialize(deserializer)?;
    match command.is_empty() {
        true => Err(D::Error::custom(
            "`command` under [acme.dns.exec] names no program",
        )),
        false => Ok(command),
    }
}

/// Addresses with or without a port; without it is 53.
pub(crate) fn read_servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an IP address, with or without a port")]
    enum Server {
        Address(SocketAddr),
        Ip(IpAddr),
    }
    let servers = Vec::<Server>::deserialize(deserializer)?;
    let address = |server| match server {
        Server::Address(address) => address,
        Server::Ip(ip) => SocketAddr::new(ip, 53),
    };
    Ok(servers.into_iter().map(address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Acme;

    #[test]
    fn there_is_exactly_one_provider() {
        let exec = "exec.command = [\"/bin/hook\"]\n";
        let httpreq = "httpreq.endpoint = \"http://127.0.0.1:1\"\n";
        let read = |text: &str| toml::from_str::<Dns>(text).map_err(|error| error.message().to_owned());
        assert!(read(exec).is_ok() && read(httpreq).is_ok());
        for text in ["", &format!("{exec}{httpreq}")] {
            assert_eq!(read(text).unwrap_err(), ONE_PROVIDER);
        }
        let error = read("exec.command = []\n").unwrap_err();
        assert_eq!(error, "`command` under [acme.dns.exec] names no program");
    }

    #[test]
    fn resolvers_are_addresses_with_or_without_a_port() {
        let text = "resolvers = [\"192.0.2.1\", \"[2001:db8::1]:54\"]\n";
        let acme: Acme = toml::from_str(text).unwrap();
        let shown: Vec<_> = acme.resolvers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.1:53", "[2001:db8::1]:54"]);
        assert!(toml::from_str::<Acme>(&text.replace("192.0.2.1", "dns.test")).is_err());
    }
}
