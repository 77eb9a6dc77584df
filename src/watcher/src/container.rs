use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bollard::models::{
    ContainerSummary, ContainerSummaryStateEnum, EndpointSettings, PortSummary, PortSummaryTypeEnum,
};
use serde::Deserialize;
use serde_json::{Map, Value};

const ID_DIGITS: usize = 12;

/// What Compose says of each container it makes, and of each image it builds.
pub(crate) const PROJECT: &str = "com.docker.compose.project";
pub(crate) const SERVICE: &str = "com.docker.compose.service";

const COMPOSE: &str = "com.docker.compose.";

pub(crate) type Labels = BTreeMap<String, String>;

/// A project of Compose, and a service in it.
pub(crate) type Service<'a> = (Option<&'a str>, Option<&'a str>);

/// A running container, as far as routes depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    /// Without Docker's leading slash.
    pub(crate) name: String,
    /// The first twelve digits.
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: i64,
    /// The image as it was named.
    pub(crate) image: String,
    pub(crate) image_id: String,
    /// Those that count.
    pub(crate) labels: Labels,
    /// Those that came with the image and do not count.
    pub(crate) image_labels: Labels,
    /// Why nobody knows which of the labels those are, so that none counts.
    pub(crate) image_fault: Option<String>,
    /// The exposed TCP ports, published or not.
    pub(crate) ports: BTreeSet<u16>,
    /// Those of them that are published on this machine, each with where.
    pub(crate) published: BTreeMap<u16, SocketAddr>,
    pub(crate) reach: Reach,
    pub(crate) state: State,
}

/// Whether a container can answer now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It runs, and its health check has passed if it has one.
    Ready,
    Starting,
    Unhealthy,
    Paused,
    /// It ended, and Docker is about to start it again.
    Restarting,
    /// It was listed, and does not run.
    Ended,
    /// What was said of it, in words for people, has no meaning that is known.
    Unknown(String),
}

/// Where a container listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Networks(BTreeMap<String, Place>),
    /// On the addresses of the host itself.
    Host,
    /// On the addresses of another container, which has this id or name.
    OtherContainer(String),
    /// It has no network.
    Nowhere,
}

/// A container's place in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// `None` until it has one.
    pub(crate) address: Option<IpAddr>,
    /// The driver of a network that this machine is not part of.
    pub(crate) foreign: Option<String>,
}

/// Drivers whose networks lie beside the host or across several, and which it does not reach by itself.
const FOREIGN_DRIVERS: [&str; 3] = ["macvlan", "ipvlan", "overlay"];

impl From<ContainerSummary> for Container {
    fn from(summary: ContainerSummary) -> Self {
        let id: String = summary.id.unwrap_or_default().chars().take(ID_DIGITS).collect();
        let ports = summary.ports.unwrap_or_default();
        let networks = summary
            .network_settings
            .and_then(|settings| settings.networks)
            .unwrap_or_default();
        let mode = match summary.host_config {
            Some(config) => config.network_mode,
            // Podman's list knows no modes, and calls the network of the host one like any other.
            None => networks.keys().next().cloned(),
        };
        Self {
            name: own_name(&summary.names.unwrap_or_default()).unwrap_or_else(|| id.clone()),
            id,
            created: summary.created.unwrap_or_default(),
            image: summary.image.unwrap_or_default(),
            image_id: summary.image_id.unwrap_or_default(),
            labels: summary.labels.unwrap_or_default().into_iter().collect(),
            image_labels: Labels::new(),
            image_fault: None,
            ports: tcp(&ports).map(|port| port.private_port).collect(),
            published: published(&ports),
            reach: Reach::of(&mode.unwrap_or_default(), networks),
            state: State::of(summary.state, &summary.status.unwrap_or_default()),
        }
    }
}

/// What routes depend on in a [`ContainerSummary`].
const FIELDS: [&str; 11] = [
    "Id",
    "Names",
    "Created",
    "Image",
    "ImageID",
    "Labels",
    "Ports",
    "State",
    "Status",
    "HostConfig",
    "NetworkSettings",
];

/// Reads a list in which something is not as Docker says it, each container by itself: daemons that
/// speak as Docker does have states of their own. `None` if it is no list of containers.
pub(crate) fn read_one_by_one(list: &str) -> Option<Vec<Container>> {
    let entries: Vec<Map<String, Value>> = serde_json::from_str(list).ok()?;
    entries.into_iter().map(read).collect()
}

/// What is not understood is left out, and the container waits with the reason.
fn read(mut entry: Map<String, Value>) -> Option<Container> {
    entry.retain(|field, _| FIELDS.contains(&field.as_str()));
    let mut faults = Vec::new();
    entry.retain(|field, value| match summary([(field.clone(), value.clone())]) {
        Ok(_) => true,
        Err(error) => {
            faults.push(format!("{field}: {}", error.to_string().escape_debug()));
            false
        }
    });
    let mut container = Container::from(summary(entry).ok().filter(|summary| summary.id.is_some())?);
    if !faults.is_empty() {
        container.state = State::Unknown(format!(
            "the daemon says of it what is not understood: {}",
            faults.join("; ")
        ));
    }
    Some(container)
}

fn summary(fields: impl IntoIterator<Item = (String, Value)>) -> Result<ContainerSummary, serde_json::Error> {
    ContainerSummary::deserialize(Value::Object(fields.into_iter().collect()))
}

impl Container {
    /// Whether this is its name or its id, of which more digits may be given than are known.
    fn is_called(&self, name_or_id: &str) -> bool {
        self.name == name_or_id || (!self.id.is_empty() && name_or_id.starts_with(&self.id))
    }

    /// The service that it belongs to. What was started without Compose belongs together.
    pub(crate) fn service(&self) -> Service<'_> {
        let label = |label| self.labels.get(label).map(String::as_str);
        (label(PROJECT), label(SERVICE))
    }

    /// Tells the labels that came with the image from those said when the container was made. What was
    /// said with the same value cannot be told from it.
    ///
    /// Except of Compose: it says the project and the service of each container that it makes, so if it made
    /// this one they were said, whatever is in the image.
    pub(crate) fn set_aside(&mut self, of_image: &Labels) {
        let labels = std::mem::take(&mut self.labels);
        (self.image_labels, self.labels) = labels
            .into_iter()
            .partition(|(label, value)| of_image.get(label) == Some(value));
        if self.labels.keys().any(|label| label.starts_with(COMPOSE)) {
            let said = [PROJECT, SERVICE].map(|label| self.image_labels.remove_entry(label));
            self.labels.extend(said.into_iter().flatten());
        }
    }

    /// The same where nobody can tell what came with the image.
    pub(crate) fn set_all_aside(&mut self, fault: &str) {
        self.image_labels = std::mem::take(&mut self.labels);
        self.image_fault = Some(fault.to_owned());
    }
}

/// Puts each container that is in the network of another one where that one is.
pub(crate) fn follow_others(containers: &mut [Container]) {
    let reaches: Vec<Option<Reach>> = containers
        .iter()
        .map(|container| reach_of_other(container, containers))
        .collect();
    for (container, reach) in containers.iter_mut().zip(reaches) {
        if let Some(reach) = reach {
            container.reach = reach;
        }
    }
}

/// Where the other container is, which may be in the network of yet another one.
fn reach_of_other(container: &Container, containers: &[Container]) -> Option<Reach> {
    let mut reach = &container.reach;
    for _ in containers {
        let Reach::OtherContainer(other) = reach else {
            break;
        };
        match containers.iter().find(|candidate| candidate.is_called(other)) {
            Some(other) => reach = &other.reach,
            None => break,
        }
    }
    Some(reach.clone()).filter(|reach| *reach != container.reach)
}

impl State {
    /// In a list, Docker tells the health only at the end of the words for people, as it always did.
    fn of(state: Option<ContainerSummaryStateEnum>, status: &str) -> Self {
        match state {
            Some(ContainerSummaryStateEnum::PAUSED) => Self::Paused,
            Some(ContainerSummaryStateEnum::RESTARTING) => Self::Restarting,
            Some(
                ContainerSummaryStateEnum::CREATED
                | ContainerSummaryStateEnum::EXITED
                | ContainerSummaryStateEnum::STOPPING
                | ContainerSummaryStateEnum::REMOVING
                | ContainerSummaryStateEnum::DEAD,
            ) => Self::Ended,
            _ if status.ends_with("(health: starting)") => Self::Starting,
            _ if status.ends_with("(unhealthy)") => Self::Unhealthy,
            _ => Self::Ready,
        }
    }

    /// Why it gets no requests; nothing if it does.
    pub(crate) fn hindrance(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::Starting => Some("its health check has not passed yet"),
            Self::Unhealthy => Some("its health check fails: see docker inspect"),
            Self::Paused => Some("it is paused: docker unpause lets it go on"),
            Self::Restarting => Some("it ended and is about to be started again: see docker logs"),
            Self::Ended => Some("it does not run: docker start lets it"),
            Self::Unknown(reason) => Some(reason),
        }
    }
}

impl Reach {
    fn of(mode: &str, networks: HashMap<String, EndpointSettings>) -> Self {
        match mode {
            "host" => Self::Host,
            "none" => Self::Nowhere,
            _ => match mode.strip_prefix("container:") {
                Some(other) => Self::OtherContainer(other.to_owned()),
                None => Self::Networks(
                    networks
                        .into_iter()
                        .map(|(name, endpoint)| (name, Place::of(&endpoint)))
                        .collect(),
                ),
            },
        }
    }

    /// `drivers` has the driver of each network.
    pub(crate) fn mark_foreign(&mut self, drivers: &BTreeMap<&str, &str>) {
        let Self::Networks(networks) = self else { return };
        for (name, place) in networks {
            let driver = drivers.get(name.as_str()).copied();
            let foreign = driver.filter(|driver| FOREIGN_DRIVERS.contains(driver));
            place.foreign = foreign.map(str::to_owned);
        }
    }
}

impl Place {
    fn of(endpoint: &EndpointSettings) -> Self {
        Self {
            address: address(endpoint),
            foreign: None,
        }
    }
}

/// Docker lists `/name`, and `/other/alias` for each legacy link of another container.
fn own_name(names: &[String]) -> Option<String> {
    names
        .iter()
        .filter_map(|name| name.strip_prefix('/'))
        .find(|name| !name.contains('/'))
        .map(str::to_owned)
}

fn tcp(ports: &[PortSummary]) -> impl Iterator<Item = &PortSummary> {
    ports
        .iter()
        .filter(|port| port.typ == Some(PortSummaryTypeEnum::TCP))
}

/// Of several places for one port, an IPv4 address comes first.
fn published(ports: &[PortSummary]) -> BTreeMap<u16, SocketAddr> {
    let mut published = BTreeMap::new();
    for port in tcp(ports) {
        if let Some(address) = on_this_machine(port) {
            let least = published.entry(port.private_port).or_insert(address);
            *least = address.min(*least);
        }
    }
    published
}

/// What is published on all addresses is reached by loopback.
fn on_this_machine(port: &PortSummary) -> Option<SocketAddr> {
    let ip = match port.ip.as_deref().and_then(|ip| ip.parse().ok()) {
        Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.into(),
        Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) | None => Ipv4Addr::LOCALHOST.into(),
        Some(ip) => ip,
    };
    Some(SocketAddr::new(ip, port.public_port?))
}

/// The IPv4 address; where there is none, the IPv6 address, unless it needs a scope to be used.
fn address(endpoint: &EndpointSettings) -> Option<IpAddr> {
    let ipv4 = endpoint
        .ip_address
        .as_deref()
        .and_then(|text| text.parse::<Ipv4Addr>().ok());
    let ipv6 = endpoint
        .global_ipv6_address
        .as_deref()
        .and_then(|text| text.parse::<Ipv6Addr>().ok())
        .filter(|ip| !ip.is_unicast_link_local());
    ipv4.map(IpAddr::from)
        .or_else(|| ipv6.map(IpAddr::from))
        .filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed(json: &str) -> Container {
        serde_json::from_str::<ContainerSummary>(json).unwrap().into()
    }

    #[test]
    fn a_listed_container_keeps_what_routes_need() {
        let container = listed(
            r#"{"Id":"5c4fbcdc11b3fa78734360f08e59919d2b49fc72af4f2d487477edc701ea1843",
                "Names":["/proxy/alias","/web1"],"Image":"site:1","ImageID":"sha256:00","Created":1795399477,
                "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8088,"Type":"tcp"},
                         {"IP":"::","PrivatePort":80,"PublicPort":8088,"Type":"tcp"},
                         {"IP":"::","PrivatePort":81,"PublicPort":8089,"Type":"tcp"},
                         {"IP":"192.0.2.1","PrivatePort":82,"PublicPort":8090,"Type":"tcp"},
                         {"PrivatePort":53,"Type":"udp"},{"PrivatePort":9000,"Type":"tcp"}],
                "Labels":{"fairlead.hosts":"a.test"},"HostConfig":{"NetworkMode":"web"},
                "NetworkSettings":{"Networks":{
                    "web":{"IPAddress":"172.17.0.2","GlobalIPv6Address":"fd00::2"},
                    "six":{"IPAddress":"","GlobalIPv6Address":"fd00::3"},
                    "late":{"IPAddress":"","GlobalIPv6Address":""},
                    "link":{"IPAddress":"","GlobalIPv6Address":"fe80::1"}}}}"#,
        );
        let networks = [
            ("late", None),
            ("link", None),
            ("six", Some("fd00::3")),
            ("web", Some("172.17.0.2")),
        ];
        let expected = Container {
            name: "web1".to_owned(),
            id: "5c4fbcdc11b3".to_owned(),
            created: 1_795_399_477,
            image: "site:1".to_owned(),
            image_id: "sha256:00".to_owned(),
            labels: [("fairlead.hosts".to_owned(), "a.test".to_owned())].into(),
            image_labels: Labels::new(),
            image_fault: None,
            ports: [80, 81, 82, 9000].into(),
            published: [(80, "127.0.0.1:8088"), (81, "[::1]:8089"), (82, "192.0.2.1:8090")]
                .map(|(port, address)| (port, address.parse().unwrap()))
                .into(),
            reach: Reach::Networks(
                networks
                    .map(|(name, ip)| {
                        let place = Place {
                            address: ip.map(|ip: &str| ip.parse().unwrap()),
                            foreign: None,
                        };
                        (name.to_owned(), place)
                    })
                    .into(),
            ),
            state: State::Ready,
        };
        assert_eq!(container, expected);
    }

    #[test]
    fn without_a_mode_the_only_network_may_be_the_hosts() {
        for (networks, expected) in [
            (r#"{"host":{"IPAddress":""}}"#, Reach::Host),
            (
                r#"{"web":{"IPAddress":""}}"#,
                Reach::Networks([("web".to_owned(), Place::default())].into()),
            ),
            ("null", Reach::Networks(BTreeMap::new())),
        ] {
            let container = listed(&format!(
                r#"{{"Id":"1","NetworkSettings":{{"Networks":{networks}}}}}"#
            ));
            assert_eq!(container.reach, expected, "{networks}");
        }
    }

    #[test]
    fn what_came_with_the_image_is_set_aside_unless_it_was_said_otherwise() {
        let mut container = listed(r#"{"Id":"1","Labels":{"a":"image's","b":"said","c":"said"}}"#);
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            let pairs = pairs.iter();
            pairs
                .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
                .collect()
        };
        container.set_aside(&labels(&[("a", "image's"), ("b", "image's"), ("d", "image's")]));
        assert_eq!(container.labels, labels(&[("b", "said"), ("c", "said")]));
        assert_eq!(container.image_labels, labels(&[("a", "image's")]));
    }

    #[test]
    fn composes_project_and_service_count_where_it_made_the_container_too() {
        let of_image: Labels = [
            (PROJECT, "shop"),
            (SERVICE, "web"),
            ("com.docker.compose.version", "2"),
        ]
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .into();
        let mut container = listed(r#"{"Id":"1"}"#);
        container.labels = of_image.clone();
        container.set_aside(&of_image);
        assert_eq!(container.service(), (None, None));

        container.labels = of_image.clone();
        container
            .labels
            .insert("com.docker.compose.oneoff".to_owned(), "False".to_owned());
        container.set_aside(&of_image);
        assert_eq!(container.service(), (Some("shop"), Some("web")));
        let left: Vec<_> = container.image_labels.keys().collect();
        assert_eq!(left, ["com.docker.compose.version"]);
    }

    #[test]
    fn who_is_in_anothers_network_is_reached_as_that_one() {
        let mut containers = [
            listed(
                r#"{"Id":"0123456789abcdef","Names":["/app"],"HostConfig":{"NetworkMode":"container:fedcba98765432"}}"#,
            ),
            listed(r#"{"Id":"2","Names":["/lost"],"HostConfig":{"NetworkMode":"container:gone"}}"#),
            listed(r#"{"Id":"fedcba98765432","Names":["/vpn"],"HostConfig":{"NetworkMode":"host"}}"#),
        ];
        follow_others(&mut containers);
        assert_eq!(containers[0].reach, Reach::Host);
        assert_eq!(containers[1].reach, Reach::OtherContainer("gone".to_owned()));
    }

    #[test]
    fn a_chain_of_networks_is_followed_to_its_end_and_a_circle_ends() {
        let guest = |name: &str, other: &str| {
            let mode = json!({ "NetworkMode": format!("container:{other}") });
            let summary = json!({ "Id": name, "Names": [format!("/{name}")], "HostConfig": mode });
            listed(&summary.to_string())
        };
        let host = listed(r#"{"Id":"3","Names":["/vpn"],"HostConfig":{"NetworkMode":"host"}}"#);
        let mut containers = [
            guest("a", "b"),
            guest("b", "vpn"),
            host,
            guest("c", "d"),
            guest("d", "c"),
            guest("e", "f"),
            guest("f", "gone"),
        ];
        follow_others(&mut containers);
        let gone = Reach::OtherContainer("gone".to_owned());
        for (container, expected) in [(0, &Reach::Host), (1, &Reach::Host), (5, &gone), (6, &gone)] {
            assert_eq!(containers[container].reach, *expected);
        }
        assert!(matches!(containers[3].reach, Reach::OtherContainer(_)));
    }

    #[test]
    fn who_cannot_answer_now_is_told_from_who_can() {
        for (state, status, expected) in [
            ("running", "Up 2 hours", State::Ready),
            ("running", "Up 2 hours (healthy)", State::Ready),
            ("running", "Up 1 second (health: starting)", State::Starting),
            ("running", "Up 2 hours (unhealthy)", State::Unhealthy),
            ("paused", "Up 2 hours (Paused)", State::Paused),
            ("restarting", "Restarting (1) 2 seconds ago", State::Restarting),
            ("created", "Created", State::Ended),
            ("exited", "Exited (0) 1 second ago", State::Ended),
            ("stopping", "Up 2 hours", State::Ended),
            ("removing", "Removal In Progress", State::Ended),
            ("dead", "Dead", State::Ended),
        ] {
            let container = listed(&format!(r#"{{"Id":"1","State":"{state}","Status":"{status}"}}"#));
            assert_eq!(container.state, expected, "{state} {status}");
        }
    }

    #[test]
    fn what_is_not_understood_of_one_container_is_its_own_reason_to_wait() {
        let list = r#"[
            {"Id":"1","Names":["/odd"],"State":"initialized\n","Labels":{"a":"b"},"Created":7},
            {"Id":"2","Names":["/web"],"State":"running","Health":{"Status":"stopped"},"Mounts":[{"Type":"new"}]},
            {"Id":"3","Names":["/nets"],"State":"running","NetworkSettings":"none"}]"#;
        let [odd, web, nets] = read_one_by_one(list).unwrap().try_into().unwrap();
        let State::Unknown(reason) = odd.state else {
            panic!("{odd:?}")
        };
        assert!(
            reason.starts_with(
                "the daemon says of it what is not understood: State: unknown variant `initialized\\n`"
            ),
            "{reason}"
        );
        assert_eq!((odd.name.as_str(), odd.created), ("odd", 7));
        assert_eq!(odd.labels, [("a".to_owned(), "b".to_owned())].into());
        assert_eq!(web.state, State::Ready);
        assert!(matches!(nets.state, State::Unknown(_)), "{nets:?}");
    }

    #[test]
    fn what_is_no_list_of_containers_is_not_read_as_one() {
        for list in [
            "",
            "{}",
            "[1]",
            "[null]",
            r#"[{"State":"odd"}]"#,
            r#"[{"Id":1}]"#,
            "[{}]",
        ] {
            assert_eq!(read_one_by_one(list), None, "{list}");
        }
    }

    #[test]
    fn the_network_mode_decides_before_the_networks() {
        for (mode, reach) in [
            ("host", Reach::Host),
            ("none", Reach::Nowhere),
            ("container:5c4f", Reach::OtherContainer("5c4f".to_owned())),
            ("bridge", Reach::Networks(BTreeMap::new())),
        ] {
            let container = listed(&format!(
                r#"{{"Id":"1","Names":[],"HostConfig":{{"NetworkMode":"{mode}"}}}}"#
            ));
            assert_eq!(container.reach, reach, "{mode}");
            assert_eq!(container.name, "1");
        }
    }
}
