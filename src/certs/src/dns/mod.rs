//! TXT records for DNS-01 (RFC 8555 8.4): where they belong, who puts them there, and whether they are seen.

mod acme_dns;
mod exec;
mod http;
mod lookup;
mod rfc2136;
mod service;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fairlead_contract::{Dns, DnsProvider, Host};
use fairlead_dns_services::ServiceError;
use futures_util::future::{join_all, select_all};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::pause::pause;
use crate::secret::SecretError;

pub(crate) use crate::dns::lookup::{Addresses, Lookup};

/// How often the servers of a zone are asked whether they have a record.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A TXT record that answers a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where the record lives: behind every CNAME of `_acme-challenge.HOST`.
    name: Name,
    value: String,
}

impl Record {
    pub(crate) fn parse(name: &str, value: &str) -> Result<Self, DnsError> {
        Ok(Self {
            name: Name::from_ascii(name)?,
            value: value.to_owned(),
        })
    }

    /// Absolute, with the last dot.
    pub(crate) fn name(&self) -> String {
        self.name.to_ascii()
    }

    pub(crate) fn value(&self) -> &str {
        &self.value
    }
}

/// The DNS as the operator lets us change it.
pub(crate) struct Zones<'a> {
    settings: &'a Dns,
    lookup: Lookup,
}

impl<'a> Zones<'a> {
    pub(crate) fn open(settings: &'a Dns, resolvers: &[SocketAddr]) -> Result<Self, DnsError> {
        let lookup = Lookup::new(resolvers)?;
        Ok(Self { settings, lookup })
    }

    /// Finds the place of the record for a host.
    pub(crate) async fn place(&self, host: &Host, value: String) -> Result<Record, DnsError> {
        let name = Name::from_ascii(format!("_acme-challenge.{host}."))?;
        let name = self.lookup.follow(name).await?;
        Ok(Record { name, value })
    }

    pub(crate) async fn present(&self, record: &Record) -> Result<(), DnsError> {
        match &self.settings.provider {
            DnsProvider::Rfc2136(server) => {
                let zone = self.lookup.find_zone(&record.name).await?;
                rfc2136::add(server, zone, record).await
            }
            DnsProvider::Exec(program) => exec::run(program, "present", record).await,
            DnsProvider::HttpReq(peer) => http::request(peer, "present", record).await,
            DnsProvider::AcmeDns(server) => acme_dns::update(server, record).await,
            DnsProvider::Service(account) => {
                let zone = self.lookup.find_zone(&record.name).await?;
                service::add(account, &zone, record).await
            }
        }
    }

    pub(crate) async fn remove(&self, record: &Record) -> Result<(), DnsError> {
        match &self.settings.provider {
            DnsProvider::Rfc2136(server) => {
                let zone = self.lookup.find_zone(&record.name).await?;
                rfc2136::remove(server, zone, record).await
            }
            DnsProvider::Exec(program) => exec::run(program, "cleanup", record).await,
            DnsProvider::HttpReq(peer) => http::request(peer, "cleanup", record).await,
            // It keeps the last two values and knows no removal.
            DnsProvider::AcmeDns(_) => Ok(()),
            DnsProvider::Service(account) => {
                let zone = self.lookup.find_zone(&record.name).await?;
                service::remove(account, &zone, record).await
            }
        }
    }

    /// Waits until every server of the zones has the records, or as long as configured instead.
    pub(crate) async fn wait_for(&self, records: &[Record]) -> Result<(), DnsError> {
        if let Some(delay) = self.settings.propagation_delay {
            pause(delay.get()).await;
            return Ok(());
        }
        let limit = self.settings.propagation_timeout.get();
        for record in records {
            let servers = self.find_servers(record).await?;
            let asked = servers.iter().map(|server| server.is_behind(record, limit));
            let behind = join_all(asked).await;
            let behind = servers.iter().zip(behind).filter(|(_, is_behind)| *is_behind);
            let behind: Vec<_> = behind.map(|(server, _)| server.to_string()).collect();
            if !behind.is_empty() {
                return Err(DnsError::NotSeen {
                    name: record.name.to_string(),
                    servers: behind,
                    limit,
                });
            }
        }
        Ok(())
    }

    async fn find_servers(&self, record: &Record) -> Result<Vec<Server>, DnsError> {
        let zone = self.lookup.find_zone(&record.name).await?;
        let servers = self.lookup.find_servers(&zone).await?;
        servers.into_iter().map(Server::open).collect()
    }
}

/// A server of a zone, under each of its addresses: a machine without IPv6 cannot ask it at all of them.
struct Server(Vec<(IpAddr, Lookup)>);

impl Server {
    fn open(addresses: Vec<IpAddr>) -> Result<Self, DnsError> {
        let open = |ip| Ok((ip, Lookup::at_server(SocketAddr::new(ip, 53))?));
        addresses
            .into_iter()
            .map(open)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether it still does not have the record at the limit. One that cannot be asked has not got it.
    async fn is_behind(&self, record: &Record, limit: Duration) -> bool {
        let waits = self
            .0
            .iter()
            .map(|(_, lookup)| Box::pin(wait_for_text(lookup, record)));
        timeout(limit, select_all(waits)).await.is_err()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.0.iter().map(|(ip, _)| ip.to_string()).collect();
        f.write_str(&addresses.join(" or "))
    }
}

async fn wait_for_text(lookup: &Lookup, record: &Record) {
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let has_text = lookup.has_text(&record.name, &record.value).await;
        if has_text.unwrap_or(false) {
            return;
        }
    }
}

/// Why a record is not where an authority would look for it.
#[derive(Debug, Error)]
pub(crate) enum DnsError {
    #[error("the DNS cannot be asked about {name}")]
    Lookup { name: String, source: Box<NetError> },
    #[error("the resolvers cannot be used")]
    Resolvers(#[source] Box<NetError>),
    #[error("the CNAME records of {0} lead nowhere: there are too many")]
    TooManyAliases(String),
    #[error("no zone holds {0}: no name above it has an SOA record")]
    NoZone(String),
    #[error("the zone {0} names no server with an address")]
    NoServers(String),
    #[error(
        "the record at {name} was not seen at {} within {} seconds (propagation-timeout under [acme.dns])",
        servers.join(", "),
        limit.as_secs()
    )]
    NotSeen {
        name: String,
        servers: Vec<String>,
        limit: Duration,
    },
    #[error("a DNS message cannot be made or read")]
    Message(#[source] Box<ProtoError>),
    #[error("the key under [acme.dns.rfc2136] cannot be used: {0}")]
    Key(String),
    #[error("the DNS server {server} cannot be told")]
    Unreachable { server: String, source: std::io::Error },
    #[error("the DNS server {server} did not answer within {} seconds", limit.as_secs())]
    Silent { server: String, limit: Duration },
    #[error("the DNS server {server} refused to change the zone {zone}: {code}{}", explain(*code))]
    Refused {
        server: String,
        zone: String,
        code: ResponseCode,
    },
    #[error("the program {program} failed: {cause}")]
    Program { program: String, cause: String },
    #[error("{url} cannot be called: {cause}")]
    Call { url: String, cause: String },
    #[error("the account for {0} is not among the accounts of acme-dns; delegate to one that is there")]
    NoAccount(String),
    #[error("the accounts under [acme.dns.acme-dns] cannot be understood: {0}")]
    Accounts(String),
    #[error("the DNS could not be changed")]
    Service(#[from] ServiceError),
    #[error("{service} did not change the DNS within {} seconds", limit.as_secs())]
    Slow { service: &'static str, limit: Duration },
    #[error("a secret of [acme.dns] cannot be used")]
    Secret(#[from] SecretError),
}

impl From<ProtoError> for DnsError {
    fn from(error: ProtoError) -> Self {
        Self::Message(Box::new(error))
    }
}

fn explain(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::Refused => " (does its policy let this key change TXT records there?)",
        ResponseCode::NotAuth => " (does it know the key, and is it the zone's primary server?)",
        ResponseCode::NotZone => " (is it the zone's primary server?)",
        _ => "",
    }
}
