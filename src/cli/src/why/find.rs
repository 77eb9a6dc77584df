use fairlead_contract::{Host, HostPattern, Located, Rejection};

use crate::machine::Machine;

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A route, and the host that was meant: the one asked for, or the route's first.
    Route { located: &'a Located, host: HostPattern },
    /// A container that was left out.
    LeftOut(&'a Rejection),
    /// A certificate that no route wants.
    Certificate(HostPattern),
}

/// Finds what a person may mean by a name: a host, else a container, else a host that a container
/// asked for in vain, else a certificate. A host may have several routes by path, and a
/// container may stand behind several.
pub(super) fn find<'a>(name: &str, machine: &'a Machine) -> Vec<Found<'a>> {
    let pattern = HostPattern::parse(name).ok();
    let routes = pattern
        .as_ref()
        .map(|pattern| find_routes(pattern, machine))
        .unwrap_or_default();
    if !routes.is_empty() {
        return routes;
    }
    let containers = find_containers(name, machine);
    if !containers.is_empty() {
        return containers;
    }
    let Some(pattern) = pattern else {
        return Vec::new();
    };
    let left_out = left_out_with(&pattern, machine);
    if !left_out.is_empty() {
        return left_out.into_iter().map(Found::LeftOut).collect();
    }
    let certificates = machine.store.names().filter(|known| *known == pattern);
    certificates.map(Found::Certificate).collect()
}

/// The containers that asked for a host and were left out.
pub(super) fn left_out_with<'a>(host: &HostPattern, machine: &'a Machine) -> Vec<&'a Rejection> {
    let rejections = machine.configuration.rejections.iter();
    rejections
        .filter(|rejection| rejection.hosts.iter().any(|asked| asked.includes(host)))
        .collect()
}

/// The known host that is written most like this one.
pub(super) fn nearest(name: &str, machine: &Machine) -> Option<String> {
    let configuration = &machine.configuration;
    let routed = configuration
        .routes
        .iter()
        .flat_map(|located| &located.route.hosts);
    let asked = configuration
        .rejections
        .iter()
        .flat_map(|rejection| &rejection.hosts);
    routed
        .chain(asked)
        .filter_map(|host| {
            let host = host.to_string();
            Some((distance(name, &host)?, host))
        })
        .min()
        .map(|(_, host)| host)
}

/// How far two names are apart, if not too far for a slip. What both end with says nothing.
fn distance(name: &str, host: &str) -> Option<usize> {
    let (mut name, mut host) = (name, host);
    while let (Some((before, end)), Some((host_before, host_end))) =
        (name.rsplit_once('.'), host.rsplit_once('.'))
        && end == host_end
    {
        (name, host) = (before, host_before);
    }
    let distance = strsim::damerau_levenshtein(name, host);
    (distance <= host.len() / 3).then_some(distance)
}

/// Exact names come before wildcards, as in the proxy. Several routes may have parts of a host's paths.
fn find_routes<'a>(asked: &HostPattern, machine: &'a Machine) -> Vec<Found<'a>> {
    let routes = machine.configuration.routes.iter();
    let (exact, others): (Vec<_>, Vec<_>) = routes.partition(|located| located.route.hosts.contains(asked));
    let is_covering = |located: &&Located| located.route.hosts.iter().any(|host| host.includes(asked));
    let found = match exact.is_empty() {
        true => others.into_iter().filter(is_covering).collect(),
        false => exact,
    };
    let found = found.into_iter().map(|located| Found::Route {
        located,
        host: asked.clone(),
    });
    found.collect()
}

pub(super) fn as_host(pattern: &HostPattern) -> Option<&Host> {
    match pattern {
        HostPattern::Exact(host) => Some(host),
        HostPattern::Wildcard(_) => None,
    }
}

fn find_containers<'a>(name: &str, machine: &'a Machine) -> Vec<Found<'a>> {
    let configuration = &machine.configuration;
    let is_behind = |located: &&Located| located.route.containers().any(|container| container == name);
    let routes = configuration
        .routes
        .iter()
        .filter(is_behind)
        .map(|located| Found::Route {
            located,
            host: located.route.hosts[0].clone(),
        });
    let is_meant = |rejection: &&Rejection| rejection.container == name || is_id(name, &rejection.id);
    let left_out = configuration
        .rejections
        .iter()
        .filter(is_meant)
        .map(Found::LeftOut);
    routes.chain(left_out).collect()
}

/// Whether a person who writes `name` may mean the id, of which twelve digits are known.
fn is_id(name: &str, id: &str) -> bool {
    name.len() >= 4 && (id.starts_with(name) || (id.len() == 12 && name.starts_with(id)))
}
