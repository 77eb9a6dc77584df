use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use crate::Limit;

/// `[acme.dns]`: how TXT records get into the DNS, for DNS-01 (RFC 8555 8.4).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenDns")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFile(pub PathBuf);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenDns {
    rfc2136: Option<Rfc2136>,
    exec: Option<Exec>,
    httpreq: Option<HttpReq>,
    acme_dns: Option<AcmeDns>,
    #[serde(default = "five_minutes")]
    propagation_timeout: Limit,
    propagation_delay: Option<Limit>,
}

impl TryFrom<WrittenDns> for Dns {
    type Error = &'static str;

    fn try_from(written: WrittenDns) -> Result<Self, Self::Error> {
        let providers = [
            written.rfc2136.map(DnsProvider::Rfc2136),
            written.exec.map(DnsProvider::Exec),
            written.httpreq.map(DnsProvider::HttpReq),
            written.acme_dns.map(DnsProvider::AcmeDns),
        ];
        let mut providers = providers.into_iter().flatten();
        let (Some(provider), None) = (providers.next(), providers.next()) else {
            return Err("[acme.dns] has exactly one of `rfc2136`, `exec`, `httpreq` and `acme-dns`");
        };
        if matches!(&provider, DnsProvider::Exec(exec) if exec.command.is_empty()) {
            return Err("`command` under [acme.dns.exec] names no program");
        }
        Ok(Self {
            provider,
            propagation_timeout: written.propagation_timeout,
            propagation_delay: written.propagation_delay,
        })
    }
}

fn five_minutes() -> Limit {
    Limit::from_secs(5 * 60)
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
            assert_eq!(
                read(text).unwrap_err(),
                "[acme.dns] has exactly one of `rfc2136`, `exec`, `httpreq` and `acme-dns`"
            );
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
