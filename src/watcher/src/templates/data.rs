use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use fairlead_contract::{
    HeaderEdit, HostPattern, Identity, ProxyProtocol, Rejection, Route, Upstream, UpstreamUrl, escaped,
};
use serde::Serialize;

use crate::container::{Container, Labels, Reach};

/// What a template is given. Everything is sorted, and no text that others wrote has control characters.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Data {
    containers: Vec<ContainerData>,
    routes: Vec<RouteData>,
    rejections: Vec<RejectionData>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct ContainerData {
    name: String,
    id: String,
    image: String,
    /// Nothing if it can answer now.
    hindrance: Option<String>,
    labels: Labels,
    ports: BTreeSet<u16>,
    /// The address in each network, once there is one.
    networks: BTreeMap<String, Option<IpAddr>>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct RouteData {
    /// The first host and the path in letters, digits, `.`, `-` and `_`; no two routes have the same.
    id: String,
    /// The primary first.
    hosts: Vec<String>,
    /// Those of them that are one name.
    names: Vec<String>,
    /// The domains of those that are all names directly below one.
    wildcards: Vec<String>,
    /// Empty for every path, else without a slash at its end.
    path: String,
    upstreams: Vec<UpstreamData>,
    response_headers: Vec<HeaderData>,
    /// Whether everybody may have it: no password, no forward-auth, no list of addresses.
    is_open: bool,
    /// Where it redirects to, if it does.
    redirect: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct UpstreamData {
    url: String,
    /// Host and port, or the path of a socket.
    address: String,
    is_socket: bool,
    is_tls: bool,
    is_http2: bool,
    /// Whether its certificate is judged.
    is_verified: bool,
    weight: u16,
    proxy_protocol: Option<ProxyProtocol>,
    container: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct HeaderData {
    /// `add`, `replace`, `default` or `delete`.
    action: &'static str,
    name: String,
    /// Empty for `delete`.
    value: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct RejectionData {
    container: String,
    id: String,
    hosts: Vec<String>,
    reason: String,
}

impl Data {
    /// `routes` are all that hold, the operator's and the containers'.
    pub(crate) fn new<'a>(
        containers: impl IntoIterator<Item = &'a Container>,
        routes: impl IntoIterator<Item = &'a Route>,
        rejections: &[Rejection],
    ) -> Self {
        let mut containers: Vec<_> = containers.into_iter().map(ContainerData::from).collect();
        containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        let mut routes: Vec<&Route> = routes.into_iter().collect();
        routes.sort_by(|a, b| (&a.hosts, &a.path).cmp(&(&b.hosts, &b.path)));
        let mut taken = HashSet::new();
        Self {
            containers,
            routes: routes
                .into_iter()
                .map(|route| RouteData::new(route, &mut taken))
                .collect(),
            rejections: rejections.iter().map(RejectionData::from).collect(),
        }
    }
}

impl From<&Container> for ContainerData {
    fn from(container: &Container) -> Self {
        let networks = match &container.reach {
            Reach::Networks(networks) => Some(networks),
            Reach::Host | Reach::OtherContainer(_) | Reach::Nowhere => None,
        };
        let labels = container.labels.iter();
        Self {
            name: escaped(&container.name),
            id: escaped(&container.id),
            image: escaped(&container.image),
            hindrance: container.state.hindrance().map(escaped),
            labels: labels
                .map(|(label, value)| (escaped(label), escaped(value)))
                .collect(),
            ports: container.ports.clone(),
            networks: networks
                .into_iter()
                .flatten()
                .map(|(name, place)| (escaped(name), place.address))
                .collect(),
        }
    }
}

impl RouteData {
    fn new(route: &Route, taken: &mut HashSet<String>) -> Self {
        Self {
            id: identify(route, taken),
            hosts: names(&route.hosts),
            names: own_names(&route.hosts),
            wildcards: wildcards(&route.hosts),
            path: route.path.as_str().to_owned(),
            upstreams: route.upstreams.iter().map(UpstreamData::from).collect(),
            response_headers: route.response_headers.iter().map(HeaderData::from).collect(),
            is_open: route.allow.is_empty()
                && route.deny.is_empty()
                && route.basic_auth.is_empty()
                && route.forward_auth.is_none(),
            redirect: route.redirect.as_ref().map(|redirect| redirect.to.to_string()),
        }
    }
}

fn identify(route: &Route, taken: &mut HashSet<String>) -> String {
    let host = route
        .hosts
        .first()
        .map(HostPattern::to_string)
        .unwrap_or_default();
    let plain = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => character,
        _ => '_',
    };
    let mut id: String = host
        .chars()
        .chain(route.path.as_str().chars())
        .map(plain)
        .collect();
    while !taken.insert(id.clone()) {
        id.push('_');
    }
    id
}

impl From<&Upstream> for UpstreamData {
    fn from(upstream: &Upstream) -> Self {
        let protocol = upstream.url.protocol();
        let (address, is_socket) = match &upstream.url {
            UpstreamUrl::Tcp { host, port, .. } => (format!("{host}:{port}"), false),
            UpstreamUrl::Unix(path) => (path.display().to_string(), true),
        };
        Self {
            url: upstream.url.to_string(),
            address,
            is_socket,
            is_tls: protocol.is_tls(),
            is_http2: protocol.is_http2(),
            is_verified: upstream.identity != Identity::Unverified,
            weight: upstream.weight.get(),
            proxy_protocol: upstream.proxy_protocol,
            container: upstream.container.as_deref().map(escaped),
        }
    }
}

impl From<&HeaderEdit> for HeaderData {
    fn from(edit: &HeaderEdit) -> Self {
        let (action, name, value) = match edit {
            HeaderEdit::Add(name, value) => ("add", name, Some(value)),
            HeaderEdit::Replace(name, value) => ("replace", name, Some(value)),
            HeaderEdit::Default(name, value) => ("default", name, Some(value)),
            HeaderEdit::Delete(name) => ("delete", name, None),
        };
        let value = value.map(|value| String::from_utf8_lossy(value.as_bytes()));
        Self {
            action,
            name: name.to_string(),
            value: escaped(&value.unwrap_or_default()),
        }
    }
}

impl From<&Rejection> for RejectionData {
    fn from(rejection: &Rejection) -> Self {
        Self {
            container: escaped(&rejection.container),
            id: escaped(&rejection.id),
            hosts: names(&rejection.hosts),
            reason: escaped(&rejection.reason),
        }
    }
}

fn own_names(hosts: &[HostPattern]) -> Vec<String> {
    let own = hosts.iter().filter_map(|host| match host {
        HostPattern::Exact(name) => Some(name.to_string()),
        HostPattern::Wildcard(_) => None,
    });
    own.collect()
}

fn wildcards(hosts: &[HostPattern]) -> Vec<String> {
    let wildcards = hosts.iter().filter_map(|host| match host {
        HostPattern::Exact(_) => None,
        HostPattern::Wildcard(domain) => Some(domain.to_string()),
    });
    wildcards.collect()
}

fn names(hosts: &[HostPattern]) -> Vec<String> {
    hosts.iter().map(HostPattern::to_string).collect()
}
