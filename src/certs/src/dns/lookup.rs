use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fairlead_contract::Host;
use futures_util::future::join_all;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::CAA;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Resolver, ResolverBuilder, TokioResolver};

use crate::dns::DnsError;

/// Longer chains of CNAME records are a mistake.
const MAX_ALIASES: usize = 10;

/// What the DNS says of where a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// At least one.
    At(Vec<IpAddr>),
    /// The name is there, but no address.
    Absent,
    NoSuchName,
}

/// Asks the DNS. Nothing is remembered: the answers are about to change.
pub(crate) struct Lookup(TokioResolver);

impl Lookup {
    /// Asks these resolvers, or the system's.
    pub(crate) fn new(resolvers: &[SocketAddr]) -> Result<Self, DnsError> {
        let builder = match resolvers {
            [] => Resolver::builder_tokio().map_err(unusable)?,
            some => configure(some),
        };
        build(builder, |_| {})
    }

    /// Asks one server for what it knows itself.
    pub(crate) fn at_server(server: SocketAddr) -> Result<Self, DnsError> {
        build(configure(&[server]), |options| {
            options.recursion_desired = false;
            options.timeout = Duration::from_secs(3);
            options.attempts = 1;
        })
    }

    /// The name behind all CNAME records, which need not exist yet.
    pub(crate) async fn follow(&self, name: Name) -> Result<Name, DnsError> {
        let mut target = name.clone();
        for _ in 0..MAX_ALIASES {
            let records = self.ask(&target, RecordType::CNAME).await?;
            let next = records.iter().find_map(|record| match &record.data {
                RData::CNAME(next) if record.name == target => Some(next.0.clone()),
                _ => None,
            });
            match next {
                Some(next) => target = next,
                None => return Ok(target),
            }
        }
        Err(DnsError::TooManyAliases(name.to_string()))
    }

    /// The zone that holds the name: the nearest name above with an SOA record (RFC 1034 4.2.1).
    pub(crate) async fn find_zone(&self, name: &Name) -> Result<Name, DnsError> {
        let mut zone = name.clone();
        while !zone.is_root() {
            let records = self.ask(&zone, RecordType::SOA).await?;
            let is_apex = |record: &Record| record.record_type() == RecordType::SOA && record.name == zone;
            if records.iter().any(is_apex) {
                return Ok(zone);
            }
            zone = zone.base_name();
        }
        Err(DnsError::NoZone(name.to_string()))
    }

    /// The servers that the zone names, each with all its addresses.
    pub(crate) async fn find_servers(&self, zone: &Name) -> Result<Vec<Vec<IpAddr>>, DnsError> {
        let mut servers = Vec::new();
        for record in self.ask(zone, RecordType::NS).await? {
            if let RData::NS(server) = record.data
                && let Addresses::At(addresses) = self.find_addresses_of(&server.0).await?
            {
                servers.push(addresses);
            }
        }
        match servers.is_empty() {
            true => Err(DnsError::NoServers(zone.to_string())),
            false => Ok(servers),
        }
    }

    /// Where the host is, whatever aliases lead there.
    pub(crate) async fn find_addresses(&self, host: &Host) -> Result<Addresses, DnsError> {
        self.find_addresses_of(&absolute(host.as_str())?).await
    }

    /// One kind of address is enough: there are servers that fail on questions about the other, or say that there is no
    /// such name (RFC 4074).
    async fn find_addresses_of(&self, name: &Name) -> Result<Addresses, DnsError> {
        let kinds = [RecordType::A, RecordType::AAAA];
        let answers = join_all(kinds.map(|kind| self.ask_for(name, kind))).await;
        let known: Vec<_> = answers.iter().flatten().flatten().flatten().collect();
        let addresses: Vec<_> = known.iter().filter_map(|record| record.data.ip_addr()).collect();
        if !addresses.is_empty() {
            return Ok(Addresses::At(addresses));
        }
        let answers: Vec<_> = answers.into_iter().collect::<Result<_, _>>()?;
        match answers.iter().any(Option::is_some) {
            true => Ok(Addresses::Absent),
            false => Ok(Addresses::NoSuchName),
        }
    }

    /// The CAA records that hold for the host, and the name that has them: the nearest at or above it
    /// that has any (RFC 8659 3). None if there are none.
    pub(crate) async fn find_caa(&self, host: &Host) -> Result<Option<(Name, Vec<CAA>)>, DnsError> {
        let mut name = absolute(host.as_str())?;
        while !name.is_root() {
            let records = self.ask(&name, RecordType::CAA).await?.into_iter();
            let records = records.filter_map(|record| match record.data {
                RData::CAA(record) => Some(record),
                _ => None,
            });
            let records: Vec<_> = records.collect();
            if !records.is_empty() {
                return Ok(Some((name, records)));
            }
            name = name.base_name();
        }
        Ok(None)
    }

    /// Whether a TXT record of the name says exactly this.
    pub(crate) async fn has_text(&self, name: &Name, text: &str) -> Result<bool, DnsError> {
        let records = self.ask(name, RecordType::TXT).await?;
        Ok(records.iter().any(|record| match &record.data {
            RData::TXT(data) => data.txt_data.concat() == text.as_bytes(),
            _ => false,
        }))
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Vec<Record>, DnsError> {
        Ok(self.ask_for(name, kind).await?.unwrap_or_default())
    }

    /// `None` if there is no such name.
    async fn ask_for(&self, name: &Name, kind: RecordType) -> Result<Option<Vec<Record>>, DnsError> {
        match self.0.lookup(name.clone(), kind).await {
            Ok(lookup) => Ok(Some(lookup.answers().to_vec())),
            Err(error) if error.is_nx_domain() => Ok(None),
            Err(error) if error.is_no_records_found() => Ok(Some(Vec::new())),
            Err(source) => Err(DnsError::Lookup {
                name: name.to_string(),
                source: Box::new(source),
            }),
        }
    }
}

fn absolute(name: &str) -> Result<Name, DnsError> {
    Ok(Name::from_ascii(format!("{name}."))?)
}

fn configure(servers: &[SocketAddr]) -> ResolverBuilder<TokioRuntimeProvider> {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    Resolver::builder_with_config(config, TokioRuntimeProvider::default())
}

fn build(
    mut builder: ResolverBuilder<TokioRuntimeProvider>,
    change: impl FnOnce(&mut ResolverOpts),
) -> Result<Lookup, DnsError> {
    let options = builder.options_mut();
    options.cache_size = 0;
    // An authority does not read it.
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_max_ttl = Some(Duration::ZERO);
    options.negative_max_ttl = Some(Duration::ZERO);
    change(options);
    builder.build().map(Lookup).map_err(unusable)
}

fn unusable(error: NetError) -> DnsError {
    DnsError::Resolvers(Box::new(error))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use hickory_resolver::proto::op::{Message, ResponseCode};
    use tokio::net::UdpSocket;

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

    /// What a server says to a question about each kind of address: a code, or the addresses it has.
    type Answers = [Result<bool, ResponseCode>; 2];

    async fn respond(socket: UdpSocket, answers: Answers) {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let query = question.queries[0].clone();
            let (answer, ip) = match query.query_type() {
                RecordType::A => (answers[0], V4),
                _ => (answers[1], V6),
            };
            let mut message = Message::response(question.metadata.id, question.metadata.op_code);
            message.metadata.response_code = answer.err().unwrap_or(ResponseCode::NoError);
            message.add_query(query.clone());
            if answer == Ok(true) {
                message.add_answer(Record::from_rdata(query.name().clone(), 60, ip.into()));
            }
            socket.send_to(&message.to_vec().unwrap(), client).await.unwrap();
        }
    }

    async fn find(answers: Answers) -> Result<Addresses, DnsError> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let lookup = Lookup::new(&[socket.local_addr().unwrap()]).unwrap();
        let server = tokio::spawn(respond(socket, answers));
        let found = lookup.find_addresses(&Host::parse("a.test").unwrap()).await;
        server.abort();
        found
    }

    #[tokio::test]
    async fn one_kind_of_address_is_enough_whatever_is_said_of_the_other() {
        const FAILURES: [ResponseCode; 3] = [
            ResponseCode::ServFail,
            ResponseCode::Refused,
            ResponseCode::NXDomain,
        ];
        for failure in FAILURES.map(Err) {
            for (answers, expected) in [
                ([Ok(true), failure], vec![V4]),
                ([failure, Ok(true)], vec![V6]),
                ([Ok(true), Ok(true)], vec![V4, V6]),
            ] {
                let found = find(answers).await.unwrap();
                assert_eq!(found, Addresses::At(expected), "{answers:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_told_from_one_that_is_not_there_and_from_no_answer() {
        let gone = Err(ResponseCode::NXDomain);
        assert_eq!(find([Ok(false), Ok(false)]).await.unwrap(), Addresses::Absent);
        assert_eq!(find([gone, gone]).await.unwrap(), Addresses::NoSuchName);
        for answers in [
            [Ok(false), Err(ResponseCode::ServFail)],
            [Err(ResponseCode::ServFail), Ok(false)],
        ] {
            let error = find(answers).await.unwrap_err().to_string();
            assert_eq!(error, "the DNS cannot be asked about a.test.");
        }
    }
}
