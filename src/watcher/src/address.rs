//! From a container and what it asks for to the address its requests go to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fairlead_contract::{Docker, UpstreamUrl};
use thiserror::Error;

use crate::container::{Container, Place, Reach};
use crate::labels::{Claim, WantedPort};

/// Returns where the container answers the requests of `claim`.
///
/// The network is the one the container names, else the operator's, else the only one of those that this machine is
/// part of. There is no guess between several: the wrong one might be one the proxy cannot reach. Where no address
/// can be reached, as those of a rootless daemon, the operator has the published ports used.
pub(crate) fn upstream_url(
    container: &Container,
    claim: &Claim,
    docker: &Docker,
) -> Result<UpstreamUrl, Unreachable> {
    let address = if docker.published_ports {
        published(container, claim.port)?
    } else {
        let ip = address(&container.reach, claim, docker)?;
        SocketAddr::new(ip, port(container, claim.port)?)
    };
    Ok(UpstreamUrl::from_address(address))
}

fn published(container: &Container, wanted: WantedPort) -> Result<SocketAddr, Unreachable> {
    let published = &container.published;
    match wanted {
        WantedPort::Number(port) => published
            .get(&port)
            .copied()
            .ok_or(Unreachable::NotPublished(port)),
        WantedPort::Only { .. } if published.is_empty() => Err(Unreachable::NothingPublished),
        WantedPort::Only { label, .. } => Ok(published[only_port(published.keys(), label)?]),
    }
}

fn address(reach: &Reach, claim: &Claim, docker: &Docker) -> Result<IpAddr, Unreachable> {
    match (reach, claim.port) {
        (Reach::Networks(networks), _) => address_in(networks, claim, docker),
        (Reach::Host, WantedPort::Number(_)) => Ok(Ipv4Addr::LOCALHOST.into()),
        (Reach::Host, WantedPort::Only { label, .. }) => Err(Unreachable::HostNetwork { label }),
        (Reach::OtherContainer(other), _) => Err(Unreachable::OtherContainer(other.clone())),
        (Reach::Nowhere, _) => Err(Unreachable::NoNetwork),
    }
}

fn address_in(
    networks: &BTreeMap<String, Place>,
    claim: &Claim,
    docker: &Docker,
) -> Result<IpAddr, Unreachable> {
    let name = match (&claim.network, &docker.network) {
        (Some(name), _) => joined(networks, name, "the label fairlead.network")?,
        (None, Some(name)) => joined(networks, name, "[docker] network")?,
        (None, None) => only(networks)?,
    };
    let ip = networks.get(name).and_then(|place| place.address);
    ip.ok_or_else(|| Unreachable::NoAddress(name.clone()))
}

fn joined<'a>(
    networks: &BTreeMap<String, Place>,
    name: &'a String,
    setting: &'static str,
) -> Result<&'a String, Unreachable> {
    if networks.contains_key(name) {
        return Ok(name);
    }
    Err(Unreachable::NotInNetwork {
        setting,
        name: name.clone(),
        networks: list(networks.keys()),
    })
}

fn only(networks: &BTreeMap<String, Place>) -> Result<&String, Unreachable> {
    let (foreign, own): (Vec<_>, Vec<_>) = networks.iter().partition(|(_, place)| place.foreign.is_some());
    match (own.as_slice(), foreign.as_slice()) {
        ([(name, _)], _) => Ok(name),
        ([], []) => Err(Unreachable::NoNetwork),
        ([], foreign) => Err(Unreachable::ForeignNetworks(
            foreign
                .iter()
                .map(|(name, place)| format!("{name:?} ({})", place.foreign.as_deref().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(", "),
        )),
        (own, _) => Err(Unreachable::SeveralNetworks(list(
            own.iter().map(|(name, _)| name),
        ))),
    }
}

fn port(container: &Container, wanted: WantedPort) -> Result<u16, Unreachable> {
    let (published_too, label) = match wanted {
        WantedPort::Number(port) => return Ok(port),
        WantedPort::Only { published_too, label } => (published_too, label),
    };
    let counts = |port: &&u16| published_too || !container.published.contains_key(port);
    only_port(container.ports.iter().filter(counts), label).copied()
}

fn only_port<'a>(
    ports: impl Iterator<Item = &'a u16> + Clone,
    label: &'static str,
) -> Result<&'a u16, Unreachable> {
    let mut first = ports.clone();
    match (first.next(), first.next()) {
        (Some(port), None) => Ok(port),
        (None, _) => Err(Unreachable::NoPort { label }),
        _ => Err(Unreachable::SeveralPorts {
            label,
            ports: list(ports),
        }),
    }
}

fn list<T: std::fmt::Debug>(items: impl Iterator<Item = T>) -> String {
    items
        .map(|item| format!("{item:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Why there is no address to send a container's requests to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Unreachable {
    #[error("it exposes no TCP port that could be meant: set the label {label}")]
    NoPort { label: &'static str },
    #[error("it exposes the TCP ports {ports}: choose one with the label {label}")]
    SeveralPorts { label: &'static str, ports: String },
    #[error(
        "its port {0} is not published, and [docker] published-ports is set: start it with --publish 127.0.0.1::{0}"
    )]
    NotPublished(u16),
    #[error(
        "it publishes no TCP port, and [docker] published-ports is set: start it with --publish 127.0.0.1::PORT, where \
         PORT is the one that answers"
    )]
    NothingPublished,
    #[error("it is in no network: connect it to one")]
    NoNetwork,
    #[error(
        "this machine is not part of its networks: {0}. Connect it to a bridge network; or if there is a way for the \
         machine, choose one with [docker] network in fairlead.toml, or with the label fairlead.network"
    )]
    ForeignNetworks(String),
    #[error(
        "it is in the networks {0}: choose one with [docker] network in fairlead.toml, or with the label \
         fairlead.network beside fairlead.hosts"
    )]
    SeveralNetworks(String),
    #[error(
        "{setting} is {name:?}, and the container is in {}: connect it, or name another",
        or_none(networks)
    )]
    NotInNetwork {
        setting: &'static str,
        name: String,
        networks: String,
    },
    #[error("it has no address in the network {0:?} yet; the next event there is looked at again")]
    NoAddress(String),
    #[error("it is in the network of the host, where no port is exposed: set the label {label}")]
    HostNetwork { label: &'static str },
    #[error("it uses the network of the container {0:?}, which does not run: start that one")]
    OtherContainer(String),
}

fn or_none(networks: &str) -> &str {
    if networks.is_empty() { "none" } else { networks }
}

#[cfg(test)]
mod tests {
    use fairlead_contract::{HostPattern, PathPrefix, UpstreamWords, Words};

    use super::*;
    use crate::container::State;

    const ONLY: WantedPort = WantedPort::Only {
        published_too: true,
        label: "fairlead.port",
    };
    const ONLY_UNPUBLISHED: WantedPort = WantedPort::Only {
        published_too: false,
        label: "com.chameth.proxy",
    };

    fn container(reach: Reach, ports: &[u16], published: &[u16]) -> Container {
        Container {
            name: "web".to_owned(),
            id: "0123456789ab".to_owned(),
            created: 0,
            image: "site".to_owned(),
            image_id: "sha256:00".to_owned(),
            labels: BTreeMap::new(),
            image_labels: BTreeMap::new(),
            image_fault: None,
            ports: ports.iter().copied().collect(),
            published: published
                .iter()
                .map(|port| (*port, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port + 8000)))
                .collect(),
            reach,
            state: State::Ready,
        }
    }

    fn networks(addresses: &[(&str, &str)]) -> Reach {
        let entry = |(name, ip): &(&str, &str)| {
            let place = Place {
                address: ip.parse().ok(),
                foreign: None,
            };
            ((*name).to_owned(), place)
        };
        Reach::Networks(addresses.iter().map(entry).collect())
    }

    fn claim(port: WantedPort, network: Option<&str>) -> Claim {
        Claim {
            hosts: vec![HostPattern::parse("a.test").unwrap()],
            port,
            network: network.map(str::to_owned),
            path: PathPrefix::default(),
            words: Words::default(),
            upstream: UpstreamWords::default(),
            response_headers: Vec::new(),
        }
    }

    fn docker(network: Option<&str>) -> Docker {
        Docker {
            network: network.map(str::to_owned),
            ..Docker::default()
        }
    }

    /// The URL, or the reason as people read it.
    fn found(container: &Container, claim: &Claim, docker: &Docker) -> String {
        upstream_url(container, claim, docker).map_or_else(|reason| reason.to_string(), |url| url.to_string())
    }

    #[test]
    fn the_network_is_the_labelled_one_then_the_operators_then_the_only_one() {
        let two = container(networks(&[("a", "10.0.0.1"), ("b", "10.0.1.1")]), &[80], &[]);
        let one = container(networks(&[("a", "10.0.0.1")]), &[80], &[]);
        for (container, label, operator, expected) in [
            (&one, None, None, "http://10.0.0.1:80"),
            (&two, Some("b"), Some("a"), "http://10.0.1.1:80"),
            (&two, None, Some("b"), "http://10.0.1.1:80"),
            (
                &two,
                None,
                None,
                "it is in the networks \"a\", \"b\": choose one with [docker] network in fairlead.toml, or with \
                 the label fairlead.network beside fairlead.hosts",
            ),
            (
                &two,
                Some("c"),
                Some("a"),
                "the label fairlead.network is \"c\", and the container is in \"a\", \"b\": connect it, or name \
                 another",
            ),
            (
                &one,
                None,
                Some("b"),
                "[docker] network is \"b\", and the container is in \"a\": connect it, or name another",
            ),
        ] {
            assert_eq!(found(container, &claim(ONLY, label), &docker(operator)), expected);
        }
    }

    #[test]
    fn a_network_that_the_machine_is_not_part_of_is_only_used_when_it_is_chosen() {
        let in_networks = |addresses: &[(&str, &str)]| {
            let mut reach = networks(addresses);
            reach.mark_foreign(&[("lan", "macvlan"), ("mesh", "overlay"), ("web", "bridge")].into());
            container(reach, &[80], &[])
        };
        let all = [("lan", "10.0.0.1"), ("mesh", "10.0.1.1"), ("web", "10.0.2.1")];
        let refused = "this machine is not part of its networks: \"lan\" (macvlan), \"mesh\" (overlay). Connect it to \
                       a bridge network; or if there is a way for the machine, choose one with [docker] network in \
                       fairlead.toml, or with the label fairlead.network";
        for (container, label, operator, expected) in [
            (in_networks(&all), None, None, "http://10.0.2.1:80"),
            (in_networks(&all[..2]), None, None, refused),
            (in_networks(&all), Some("lan"), None, "http://10.0.0.1:80"),
            (in_networks(&all), None, Some("mesh"), "http://10.0.1.1:80"),
        ] {
            assert_eq!(
                found(&container, &claim(ONLY, label), &docker(operator)),
                expected
            );
        }
    }

    #[test]
    fn a_container_without_an_address_is_not_guessed_at() {
        for (reach, expected) in [
            (networks(&[]), "it is in no network: connect it to one"),
            (Reach::Nowhere, "it is in no network: connect it to one"),
            (
                networks(&[("late", "")]),
                "it has no address in the network \"late\" yet; the next event there is looked at again",
            ),
            (
                Reach::OtherContainer("vpn".to_owned()),
                "it uses the network of the container \"vpn\", which does not run: start that one",
            ),
        ] {
            let container = container(reach, &[80], &[]);
            assert_eq!(found(&container, &claim(ONLY, None), &docker(None)), expected);
        }
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        let container = container(networks(&[("six", "fd00::3")]), &[80], &[]);
        assert_eq!(
            found(&container, &claim(ONLY, None), &docker(None)),
            "http://[fd00::3]:80"
        );
    }

    #[test]
    fn in_the_network_of_the_host_a_port_must_be_named() {
        let container = container(Reach::Host, &[], &[]);
        for operator in [None, Some("web")] {
            let docker = docker(operator);
            assert_eq!(
                found(&container, &claim(WantedPort::Number(8080), None), &docker),
                "http://127.0.0.1:8080"
            );
            assert_eq!(
                found(&container, &claim(ONLY, None), &docker),
                "it is in the network of the host, where no port is exposed: set the label fairlead.port"
            );
        }
    }

    #[test]
    fn the_port_is_the_named_one_or_the_only_one() {
        let in_network = |ports, published| container(networks(&[("a", "10.0.0.1")]), ports, published);
        for (container, port, expected) in [
            (in_network(&[80], &[]), ONLY, "http://10.0.0.1:80"),
            (in_network(&[80], &[80]), ONLY, "http://10.0.0.1:80"),
            (
                in_network(&[80, 81], &[]),
                WantedPort::Number(9000),
                "http://10.0.0.1:9000",
            ),
            (
                in_network(&[80, 81], &[81]),
                ONLY_UNPUBLISHED,
                "http://10.0.0.1:80",
            ),
            (
                in_network(&[], &[]),
                ONLY,
                "it exposes no TCP port that could be meant: set the label fairlead.port",
            ),
            (
                in_network(&[80], &[80]),
                ONLY_UNPUBLISHED,
                "it exposes no TCP port that could be meant: set the label com.chameth.proxy",
            ),
            (
                in_network(&[81, 80], &[]),
                ONLY,
                "it exposes the TCP ports 80, 81: choose one with the label fairlead.port",
            ),
        ] {
            assert_eq!(found(&container, &claim(port, None), &docker(None)), expected);
        }
    }
    #[test]
    fn where_published_ports_are_used_nothing_else_is() {
        let docker = Docker {
            published_ports: true,
            ..docker(Some("elsewhere"))
        };
        let in_network = |published| container(networks(&[("a", "10.0.0.1")]), &[80, 81, 82], published);
        for (container, port, expected) in [
            (in_network(&[81]), ONLY, "http://127.0.0.1:8081"),
            (in_network(&[81]), ONLY_UNPUBLISHED, "http://127.0.0.1:8081"),
            (
                in_network(&[80, 81]),
                WantedPort::Number(80),
                "http://127.0.0.1:8080",
            ),
            (
                in_network(&[80, 81]),
                ONLY,
                "it exposes the TCP ports 80, 81: choose one with the label fairlead.port",
            ),
            (
                in_network(&[81]),
                WantedPort::Number(80),
                "its port 80 is not published, and [docker] published-ports is set: start it with --publish 127.0.0.1::80",
            ),
            (
                in_network(&[]),
                ONLY,
                "it publishes no TCP port, and [docker] published-ports is set: start it with --publish 127.0.0.1::PORT, \
                 where PORT is the one that answers",
            ),
            (
                container(Reach::Host, &[], &[]),
                WantedPort::Number(80),
                "its port 80 is not published, and [docker] published-ports is set: start it with --publish 127.0.0.1::80",
            ),
        ] {
            assert_eq!(found(&container, &claim(port, None), &docker), expected);
        }
    }
}
