use std::collections::BTreeSet;

use fairlead_contract::{
    AuthorityName, Discovery, Docker, HeaderEdit, HostPattern, Owner, PathPrefix, Provider, Rejection, Route,
    Scope, Upstream, Waiting, Words, escaped,
};

use crate::address::{Unreachable, upstream_url};
use crate::allow;
use crate::container::{Container, Service, follow_others};
use crate::known::Known;
use crate::labels::{self, Asked, Claim, Fault, Reading};
use crate::owners::{Claimant, Owners, absent};

const MAX_REASON: usize = 500;
const OF_IMAGE: &str = "its labels came with its image, which anybody may have made: say them when the container is \
                        made, or set [docker] image-labels = true in fairlead.toml";

const NO_FALLBACK: &str = "fallback is for hosts that nobody names, and no [[docker.allow]] can let it have those: take it out \
                           of the labels, and declare it in a route of your own";
const NAME_IMAGE: &str =
    "make it anew from an image that is there, or set [docker] image-labels = true in fairlead.toml";

/// What a pass decided.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) discovery: Discovery,
    pub(crate) remarks: Vec<Remark>,
}

/// What was done otherwise than somebody might expect, in one sentence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Remark {
    pub(crate) container: String,
    pub(crate) text: String,
}

/// Derives the routes from the containers that run.
///
/// Reads no clock, socket or file, and ignores the order of `containers`: equal input gives equal
/// bytes. A container with wrong labels is rejected alone, so one typo cannot take other sites down.
///
/// Containers of one service with the same primary host and path are one route. Where they disagree, the oldest that
/// says something decides; hosts and headers add up. A host and path that several routes want belong
/// to the operator's files first, then to who has them or had them a moment ago, then to the oldest
/// container.
pub(crate) fn plan(mut containers: Vec<Container>, known: &Known) -> Plan {
    follow_others(&mut containers);
    containers.sort_by(|a, b| (a.created, &a.name, &a.id).cmp(&(b.created, &b.name, &b.id)));
    let mut plan = Plan::default();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for container in &containers {
        for member in plan.judge(container, known) {
            plan.discovery.rejections.extend(join(&mut groups, member).err());
        }
    }
    let claimants: Vec<Claimant<'_>> = groups.iter().map(Group::claimant).collect();
    let absent = absent(&claimants, &containers, &plan.discovery.rejections, known);
    let owners = Owners::decide(&claimants, &absent, known);
    let fallback = fallback(&groups, known);
    for (index, group) in groups.iter().enumerate() {
        let route = group.route(index, &owners);
        plan.discovery.routes.extend(route.map(|route| Route {
            fallback: fallback == Some(index),
            ..route
        }));
        if group.options.fallback && fallback != Some(index) {
            let owner = fallback.map(|owner| groups[owner].members[0].container.name.as_str());
            plan.discovery.rejections.push(group.loss_of_fallback(owner));
        }
        plan.discovery.rejections.extend(group.losses(index, &owners));
        plan.discovery.owners.extend(group.owner(index, &owners));
    }
    plan.discovery.owners.extend(absent);
    plan.discovery.owners.sort();
    plan.discovery
        .routes
        .sort_by(|a, b| (&a.hosts, &a.path).cmp(&(&b.hosts, &b.path)));
    plan.discovery.rejections.sort();
    plan
}

/// Whose route answers for hosts that nobody names: unless it is the operator's, who has it, else the oldest that asks.
fn fallback(groups: &[Group<'_>], known: &Known) -> Option<usize> {
    if known.operators.iter().any(|route| route.fallback) {
        return None;
    }
    let mut asking = (0..groups.len()).filter(|index| groups[*index].options.fallback);
    let present = known.present.routes.iter().find(|route| route.fallback);
    let has_it = |index: &usize| {
        present.is_some_and(|route| {
            route.primary() == Some(groups[*index].primary()) && route.path == *groups[*index].path()
        })
    };
    asking.clone().find(has_it).or_else(|| asking.next())
}

impl Plan {
    /// The container as a member of its routes; notes a rejection for each that it asked for and cannot be.
    fn judge<'a>(&mut self, container: &'a Container, known: &Known) -> Vec<Member<'a>> {
        let Some(reading) = labels::read(&container.labels, &known.docker) else {
            self.judge_image_labels(container, known);
            return Vec::new();
        };
        self.remark_on(container, &reading);
        let mut members = Vec::new();
        for Asked { name, hosts, claim } in reading.routes {
            match admit(container, claim, known) {
                Ok(member) => members.push(member),
                Err(reason) => {
                    let reason = of_route(name, reason);
                    self.discovery
                        .rejections
                        .push(rejection(container, hosts, &reason));
                }
            }
        }
        members
    }

    /// Labels that do not count are no reason to be silent.
    fn judge_image_labels(&mut self, container: &Container, known: &Known) {
        let asked = labels::read(&container.image_labels, &known.docker);
        let reason = match &container.image_fault {
            Some(fault) => {
                format!("nobody can tell which of its labels came with its image ({fault}): {NAME_IMAGE}")
            }
            None => OF_IMAGE.to_owned(),
        };
        let rejection = asked.map(|reading| rejection(container, reading.hosts(), &reason));
        self.discovery.rejections.extend(rejection);
    }

    fn remark_on(&mut self, container: &Container, reading: &Reading) {
        let mut remark = |text: String| {
            self.remarks.push(Remark {
                container: container.name.clone(),
                text,
            });
        };
        let name = container.name.escape_debug();
        if labels::are_ours(&container.image_labels) {
            remark(format!(
                "labels of container {name} were not read, because they came with its image"
            ));
        }
        for prefix in &reading.ignored {
            remark(format!(
                "the labels {prefix}* of container {name} were not read, because others come first"
            ));
        }
    }
}

fn of_route(name: Option<String>, reason: String) -> String {
    match name {
        Some(name) => format!("its route {name:?}: {reason}"),
        None => reason,
    }
}

fn admit<'a>(
    container: &'a Container,
    claim: Result<Claim, Fault>,
    known: &Known,
) -> Result<Member<'a>, String> {
    let docker = &known.docker;
    let claim = claim.map_err(|fault| fault.to_string())?;
    allow::check(container, &claim.names(), &docker.allow).map_err(|reason| reason.to_string())?;
    if claim.is_fallback() && !docker.allow.is_empty() {
        return Err(NO_FALLBACK.to_owned());
    }
    check_authority(&claim, &known.authorities)?;
    let upstream = match container.state.hindrance() {
        None => upstream(container, &claim, docker)?,
        // Addresses and ports are only there while it runs.
        Some(hindrance) => Err(shown(hindrance)),
    };
    Ok(Member {
        container,
        claim,
        upstream,
    })
}

/// Nobody could sign for a container that names an authority which is not there.
fn check_authority(claim: &Claim, authorities: &[AuthorityName]) -> Result<(), String> {
    match claim.words.read_route().map(|route| route.provider) {
        Ok(Some(Provider::Authority(name))) if !authorities.contains(&name) => Err(format!(
            "its provider {name} is neither acme, internal or off, nor an [authority.{name}] of fairlead.toml"
        )),
        _ => Ok(()),
    }
}

/// The upstream, or what it waits for; an error if there is nothing to wait for.
fn upstream(
    container: &Container,
    claim: &Claim,
    docker: &Docker,
) -> Result<Result<Upstream, String>, String> {
    let url = match upstream_url(container, claim, docker) {
        Ok(url) => url,
        Err(reason @ (Unreachable::NoAddress(_) | Unreachable::OtherContainer(_))) => {
            return Ok(Err(reason.to_string()));
        }
        Err(reason) => return Err(reason.to_string()),
    };
    Upstream::described(url, claim.upstream.clone())
        .map(Ok)
        .map_err(|reason| format!("the labels: {reason}"))
}

fn rejection(container: &Container, hosts: Vec<HostPattern>, reason: &str) -> Rejection {
    Rejection {
        container: container.name.clone(),
        id: container.id.clone(),
        hosts,
        reason: shown(reason),
    }
}

/// Labels may be long and steer a terminal; what is said about them is not and does not.
fn shown(reason: &str) -> String {
    let reason = escaped(reason);
    match reason.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason,
    }
}

/// A container whose claim can be met.
struct Member<'a> {
    container: &'a Container,
    claim: Claim,
    /// The reason if it is none for now.
    upstream: Result<Upstream, String>,
}

/// The containers of one service, primary host and path.
struct Group<'a> {
    /// The oldest first. Never empty.
    members: Vec<Member<'a>>,
    /// What they say, as far as it is heard.
    words: Words,
    /// The same as a route without hosts and upstreams.
    options: Route,
}

/// The rejection of a container that cannot be where it belongs.
fn join<'a>(groups: &mut Vec<Group<'a>>, member: Member<'a>) -> Result<(), Rejection> {
    let Claim { hosts, path, .. } = &member.claim;
    let service = member.container.service();
    match groups
        .iter_mut()
        .find(|group| group.primary() == &hosts[0] && group.path() == path && group.service() == service)
    {
        Some(group) => group.admit(member),
        None => {
            groups.push(Group::of(member));
            Ok(())
        }
    }
}

impl<'a> Group<'a> {
    fn of(member: Member<'a>) -> Self {
        let mut group = Self {
            words: Words::default(),
            options: Route::default(),
            members: vec![member],
        };
        group.hear(0);
        group
    }

    /// Takes in a container that is younger than the others.
    fn admit(&mut self, member: Member<'a>) -> Result<(), Rejection> {
        if let Some(host) = redirected_to_itself(&self.options, &member.claim.hosts) {
            let reason = format!(
                "{host} is where the route of the container {} redirects to: take the host out of the labels here, or \
                 the redirect out of there",
                self.members[0].container.name
            );
            return Err(rejection(member.container, member.claim.hosts, &reason));
        }
        self.members.push(member);
        self.hear(self.members.len() - 1);
        Ok(())
    }

    /// Adds what a member says of the route. Who contradicts an older one is not heard.
    fn hear(&mut self, member: usize) {
        let words = self.words.clone().or(&self.members[member].claim.words);
        let hosts = self.members.iter().flat_map(|member| &member.claim.hosts);
        if let Ok(options) = words.read_route()
            && redirected_to_itself(&options, hosts).is_none()
        {
            (self.words, self.options) = (words, options);
        }
    }
}

/// The first of the hosts that a route with these options would redirect to itself.
fn redirected_to_itself<'a>(
    options: &Route,
    hosts: impl IntoIterator<Item = &'a HostPattern>,
) -> Option<HostPattern> {
    options.redirect.as_ref()?;
    let route = Route {
        hosts: hosts.into_iter().cloned().collect(),
        ..options.clone()
    };
    route.redirected_to_itself().cloned()
}

impl Group<'_> {
    fn primary(&self) -> &HostPattern {
        &self.members[0].claim.hosts[0]
    }

    fn service(&self) -> Service<'_> {
        self.members[0].container.service()
    }

    fn path(&self) -> &PathPrefix {
        &self.members[0].claim.path
    }

    fn scope(&self, host: &HostPattern) -> Scope {
        Scope {
            host: host.clone(),
            path: self.path().clone(),
        }
    }

    /// The hosts of all members, each once, in the order of the oldest that names it.
    fn hosts(&self) -> Vec<&HostPattern> {
        let mut seen = BTreeSet::new();
        let hosts = self.members.iter().flat_map(|member| &member.claim.hosts);
        hosts.filter(|host| seen.insert(*host)).collect()
    }

    fn claimant(&self) -> Claimant<'_> {
        let names = self.members.iter().map(|member| member.container.name.as_str());
        Claimant {
            service: self.service(),
            hosts: self.hosts(),
            path: self.path(),
            containers: names.collect(),
        }
    }

    fn hosts_of_its_own(&self, index: usize, owners: &Owners<'_>) -> Vec<HostPattern> {
        let hosts = self.hosts().into_iter();
        hosts
            .filter(|host| owners.is(&self.scope(host), index))
            .cloned()
            .collect()
    }

    /// What the next pass knows it by, if it has any host.
    fn owner(&self, index: usize, owners: &Owners<'_>) -> Option<Owner> {
        let hosts = self.hosts_of_its_own(index, owners);
        let (project, service) = self.service();
        let names = self.members.iter().map(|member| member.container.name.clone());
        (!hosts.is_empty()).then(|| Owner {
            hosts,
            path: self.path().clone(),
            project: project.map(str::to_owned),
            service: service.map(str::to_owned),
            containers: names.collect(),
            left: None,
        })
    }

    /// The route with the hosts that are this group's, if there are any.
    fn route(&self, index: usize, owners: &Owners<'_>) -> Option<Route> {
        let hosts = self.hosts_of_its_own(index, owners);
        // With the primary lost a redirect would lead to somebody else's site.
        let has_primary = hosts.first()? == self.primary();
        let options = self.options.clone();
        Some(Route {
            hosts,
            upstreams: self.upstreams(),
            waiting: self.waiting(),
            redirect_to_primary: has_primary && options.redirect_to_primary,
            response_headers: [options.response_headers, self.response_headers()].concat(),
            ..options
        })
    }

    fn upstreams(&self) -> Vec<Upstream> {
        let upstream = |member: &Member<'_>| {
            Some(Upstream {
                container: Some(member.container.name.clone()),
                ..member.upstream.clone().ok()?
            })
        };
        let mut upstreams: Vec<Upstream> = self.members.iter().filter_map(upstream).collect();
        upstreams.sort();
        upstreams
    }

    fn waiting(&self) -> Vec<Waiting> {
        let waiting = |member: &Member<'_>| {
            Some(Waiting {
                container: member.container.name.clone(),
                reason: member.upstream.clone().err()?,
            })
        };
        let mut waiting: Vec<Waiting> = self.members.iter().filter_map(waiting).collect();
        waiting.sort();
        waiting
    }

    /// Of several edits of one header the first holds.
    fn response_headers(&self) -> Vec<HeaderEdit> {
        let mut seen = BTreeSet::new();
        let edits = self
            .members
            .iter()
            .flat_map(|member| &member.claim.response_headers);
        edits
            .filter(|edit| seen.insert(edit.name().as_str()))
            .cloned()
            .collect()
    }

    /// `owner`: the container that has it; `None`: the operator.
    fn loss_of_fallback(&self, owner: Option<&str>) -> Rejection {
        let owner = match owner {
            Some(owner) => format!("the container {owner}"),
            None => "the operator".to_owned(),
        };
        let reason = format!(
            "the fallback is the route of {owner}, and there can be only one: take fallback out of the labels here, or out \
             of there"
        );
        rejection(self.members[0].container, Vec::new(), &reason)
    }

    /// A rejection for each member that asked for hosts which are somebody else's.
    fn losses(&self, index: usize, owners: &Owners<'_>) -> Vec<Rejection> {
        let lost = |member: &Member<'_>| {
            let hosts: Vec<HostPattern> = member
                .claim
                .hosts
                .iter()
                .filter(|host| !owners.is(&self.scope(host), index))
                .cloned()
                .collect();
            let reason = owners.explain(hosts.iter().map(|host| self.scope(host)))?;
            Some(rejection(member.container, hosts, &reason))
        };
        self.members.iter().filter_map(lost).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use fairlead_contract::{Allow, Configuration, Files, UpstreamWords, is_hidden};
    use jiff::Timestamp;

    use super::*;
    use crate::changes::changes;
    use crate::container::{PROJECT, Place, Reach, SERVICE, State};

    fn container(name: &str, created: i64, labels: &[(&str, &str)]) -> Container {
        let octet = name.bytes().fold(0, u8::wrapping_add);
        let place = Place {
            address: format!("10.0.0.{octet}").parse().ok(),
            foreign: None,
        };
        Container {
            name: name.to_owned(),
            id: "0123456789ab".to_owned(),
            created,
            image: "site".to_owned(),
            image_id: "sha256:00".to_owned(),
            labels: labels
                .iter()
                .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
                .collect(),
            image_labels: BTreeMap::new(),
            image_fault: None,
            ports: [80].into(),
            published: BTreeMap::new(),
            reach: Reach::Networks([("web".to_owned(), place)].into()),
            state: State::Ready,
        }
    }

    fn serving(name: &str, created: i64, hosts: &str) -> Container {
        container(name, created, &[("fairlead.hosts", hosts)])
    }

    /// `primary others | containers` for each route.
    fn routes(discovery: &Discovery) -> Vec<String> {
        let shown = |route: &Route| {
            let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
            let upstreams = route.upstreams.iter();
            let containers: Vec<&str> = upstreams
                .filter_map(|upstream| upstream.container.as_deref())
                .collect();
            format!("{} | {}", hosts.join(" "), containers.join(" "))
        };
        discovery.routes.iter().map(shown).collect()
    }

    /// `container: reason` for each rejection.
    fn rejections(discovery: &Discovery) -> Vec<String> {
        let shown = |rejection: &Rejection| format!("{}: {}", rejection.container, rejection.reason);
        discovery.rejections.iter().map(shown).collect()
    }

    fn planned(containers: &[Container], known: &Known) -> Discovery {
        plan(containers.to_vec(), known).discovery
    }

    fn after(present: Discovery) -> Known {
        Known {
            present,
            ..Known::default()
        }
    }

    /// What every reader of the file makes of it.
    fn read_back(discovery: &Discovery) -> Configuration {
        let text = discovery.render().unwrap();
        Configuration::parse(&Files {
            discovery: Some((PathBuf::from("docker.toml"), Ok(text.into_bytes()))),
            ..Files::default()
        })
    }

    #[test]
    fn a_labelled_container_is_a_route_and_others_are_not_mentioned() {
        let containers = [
            serving("web", 1, "a.test www.a.test"),
            container("db", 2, &[("role", "db")]),
        ];
        let discovery = planned(&containers, &Known::default());
        assert_eq!(routes(&discovery), ["a.test www.a.test | web"]);
        assert_eq!(discovery.rejections, []);
    }

    #[test]
    fn one_wrong_label_rejects_one_container() {
        let wrong = container(
            "wrong",
            1,
            &[("fairlead.hosts", "b.test"), ("fairlead.port", "0")],
        );
        let containers = [serving("web", 1, "a.test"), wrong];
        let discovery = planned(&containers, &Known::default());
        assert_eq!(routes(&discovery), ["a.test | web"]);
        assert_eq!(
            rejections(&discovery),
            ["wrong: the label fairlead.port = \"0\" is not a port from 1 to 65535"]
        );
        assert_eq!(discovery.rejections[0].hosts[0].to_string(), "b.test");
    }

    #[test]
    fn a_container_that_names_no_authority_of_the_settings_is_rejected() {
        let labels = [("fairlead.hosts", "a.test"), ("fairlead.provider", "staging")];
        let containers = [container("web", 1, &labels), serving("fine", 2, "b.test")];
        let discovery = planned(&containers, &Known::default());
        assert_eq!(
            rejections(&discovery),
            [
                "web: its provider staging is neither acme, internal or off, nor an [authority.staging] of fairlead.toml"
            ]
        );
        let known = Known {
            authorities: vec![AuthorityName::parse("staging").unwrap()],
            ..Known::default()
        };
        assert_eq!(rejections(&planned(&containers, &known)), [""; 0]);
    }

    #[test]
    fn a_container_that_cannot_be_reached_is_rejected_with_its_hosts() {
        let mut web = serving("web", 1, "a.test");
        web.reach = Reach::Nowhere;
        let discovery = planned(&[web], &Known::default());
        assert_eq!(
            rejections(&discovery),
            ["web: it is in no network: connect it to one"]
        );
        assert_eq!(discovery.rejections[0].hosts[0].to_string(), "a.test");
    }

    fn of_service(project: &str, service: &str, mut container: Container) -> Container {
        let labels = [(PROJECT, project), (SERVICE, service)];
        let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned()));
        container.labels.extend(labels);
        container
    }

    #[test]
    fn only_containers_of_one_service_share_a_host() {
        let shop = |name, created| of_service("shop", "web", serving(name, created, "a.test"));
        let containers = [
            shop("shop-1", 1),
            shop("shop-2", 2),
            serving("stranger", 3, "a.test"),
            of_service("shop", "mail", serving("mail", 4, "a.test")),
            of_service("evil", "web", serving("evil", 5, "a.test b.test")),
        ];
        let first = planned(&containers, &Known::default());
        assert_eq!(routes(&first), ["a.test | shop-1 shop-2", "b.test | evil"]);
        let owner =
            "a.test belongs to the container shop-1: take the host out of the labels here, or out of there";
        assert_eq!(
            rejections(&first),
            ["evil", "mail", "stranger"].map(|name| format!("{name}: {owner}"))
        );
        assert_eq!(read_back(&first).problems, []);

        let replaced = [shop("shop-2", 9), serving("stranger", 3, "a.test")];
        assert_eq!(routes(&planned(&replaced, &after(first))), ["a.test | shop-2"]);
    }

    #[test]
    fn a_container_has_as_many_routes_as_its_labels_name() {
        let web = container(
            "web",
            1,
            &[
                ("fairlead.hosts", "a.test"),
                ("fairlead.route.admin.hosts", "admin.test"),
                ("fairlead.route.admin.port", "9000"),
                ("fairlead.route.old.hosts", "old.test"),
                ("fairlead.route.old.port", "0"),
            ],
        );
        let discovery = planned(&[web], &Known::default());
        assert_eq!(routes(&discovery), ["a.test | web", "admin.test | web"]);
        let ports: Vec<String> = discovery
            .routes
            .iter()
            .map(|route| route.upstreams[0].url.to_string())
            .collect();
        assert!(
            ports[0].ends_with(":80") && ports[1].ends_with(":9000"),
            "{ports:?}"
        );
        assert_eq!(
            rejections(&discovery),
            ["web: its route \"old\": the label fairlead.port = \"0\" is not a port from 1 to 65535"]
        );
        assert_eq!(discovery.rejections[0].hosts[0].to_string(), "old.test");
    }

    fn remarks(plan: &Plan) -> Vec<&str> {
        plan.remarks.iter().map(|remark| remark.text.as_str()).collect()
    }

    #[test]
    fn labels_that_came_with_the_image_claim_nothing() {
        let mut all = serving("all", 1, "a.test");
        all.set_aside(&all.labels.clone());
        let mut port = container(
            "port",
            1,
            &[("fairlead.hosts", "b.test"), ("fairlead.port", "81")],
        );
        port.set_aside(&[("fairlead.port".to_owned(), "81".to_owned())].into());
        let plan = plan(vec![all, port], &Known::default());
        assert_eq!(routes(&plan.discovery), ["b.test | port"]);
        assert_eq!(
            plan.discovery.routes[0].upstreams[0].url.to_string(),
            "http://10.0.0.197:80"
        );
        assert_eq!(rejections(&plan.discovery), [format!("all: {OF_IMAGE}")]);
        assert_eq!(plan.discovery.rejections[0].hosts[0].to_string(), "a.test");
        assert_eq!(
            remarks(&plan),
            ["labels of container port were not read, because they came with its image"]
        );
    }

    #[test]
    fn a_host_that_is_not_for_it_leaves_a_container_out() {
        let known = Known {
            docker: Docker {
                allow: vec![Allow {
                    hosts: vec![HostPattern::parse("a.test").unwrap()],
                    project: None,
                    image: None,
                    network: None,
                    container: Some("good".to_owned()),
                }],
                ..Docker::default()
            },
            ..Known::default()
        };
        let containers = [serving("evil", 1, "a.test"), serving("good", 2, "a.test")];
        let discovery = planned(&containers, &known);
        assert_eq!(routes(&discovery), ["a.test | good"]);
        let reason = &discovery.rejections[0].reason;
        assert!(reason.contains("[[docker.allow]]"), "{reason}");

        let labels = [("fairlead.hosts", "a.test"), ("fairlead.subject", "b.test")];
        let discovery = planned(&[container("good", 1, &labels)], &known);
        let reason = &discovery.rejections[0].reason;
        assert!(reason.contains("lets it have b.test"), "{reason}");
    }

    fn in_state(state: State, container: Container) -> Container {
        Container { state, ..container }
    }

    #[test]
    fn who_cannot_answer_yet_waits_beside_who_can() {
        let containers = [
            serving("healthy", 1, "a.test"),
            in_state(State::Starting, serving("starting", 2, "a.test")),
        ];
        let discovery = planned(&containers, &Known::default());
        assert_eq!(routes(&discovery), ["a.test | healthy"]);
        let waiting = &discovery.routes[0].waiting;
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0].container, "starting");
        assert_eq!(waiting[0].reason, "its health check has not passed yet");
    }

    #[test]
    fn alone_it_keeps_its_route_and_its_hosts() {
        let mut late = serving("web", 2, "a.test");
        late.reach = Reach::Networks([("web".to_owned(), Place::default())].into());
        let mut between_starts = in_state(State::Restarting, serving("web", 2, "a.test"));
        between_starts.ports.clear();
        for waiting in [
            in_state(State::Unhealthy, serving("web", 2, "a.test")),
            in_state(State::Paused, serving("web", 2, "a.test")),
            between_starts,
            late,
        ] {
            let first = planned(std::slice::from_ref(&waiting), &Known::default());
            assert_eq!(routes(&first), ["a.test | "]);
            assert_eq!(read_back(&first).problems, []);
            let older = in_state(State::Ready, serving("older", 1, "b.test a.test"));
            let second = planned(&[older, waiting], &after(first));
            assert_eq!(routes(&second), ["a.test | ", "b.test | older"]);
        }
    }

    #[test]
    fn containers_of_the_same_primary_host_are_one_route() {
        let containers = [
            serving("two", 1, "a.test c.test"),
            serving("one", 2, "a.test b.test"),
            serving("other", 1, "d.test"),
        ];
        let discovery = planned(&containers, &Known::default());
        assert_eq!(
            routes(&discovery),
            ["a.test c.test b.test | one two", "d.test | other"]
        );
        assert!(discovery.routes[0].upstreams.is_sorted());
    }

    #[test]
    fn where_replicas_disagree_the_oldest_that_says_something_decides() {
        let replica = |name, created, provider: &str, header: &str| {
            container(
                name,
                created,
                &[
                    ("com.chameth.vhost", "a.test"),
                    ("com.chameth.provider", provider),
                    ("com.chameth.headers", header),
                    ("com.chameth.headers.own", &format!("X-{name}: 1")),
                ],
            )
        };
        let silent = container("silent", 0, &[("com.chameth.vhost", "a.test")]);
        let containers = [
            replica("young", 2, "off", "x-version: 2"),
            replica("old", 1, "internal", "X-Version: 1"),
            silent,
        ];
        let discovery = planned(&containers, &Known::default());
        let route = &discovery.routes[0];
        assert_eq!(route.provider, Some(Provider::Internal));
        let expected = [("x-version", "1"), ("x-old", "1"), ("x-young", "1")];
        assert_eq!(
            route.response_headers,
            expected.map(|(name, value)| HeaderEdit::replace(name, value).unwrap())
        );
    }

    #[test]
    fn containers_share_a_host_with_different_paths() {
        let on = |name, created, path| {
            container(
                name,
                created,
                &[("fairlead.hosts", "a.test"), ("fairlead.path", path)],
            )
        };
        let containers = [on("site", 1, "/"), on("one", 2, "/api"), on("two", 3, "/api/")];
        let discovery = planned(&containers, &Known::default());
        assert_eq!(routes(&discovery), ["a.test | site", "a.test | one two"]);
        assert_eq!(discovery.routes[1].path.as_str(), "/api");
        assert_eq!(discovery.rejections, []);
        let scope = discovery.routes[1].scope(&discovery.routes[1].hosts[0]);
        let known = Known {
            operator: [(scope, "routes.d/a.toml:1".to_owned())].into(),
            ..Known::default()
        };
        assert_eq!(routes(&planned(&containers, &known)), ["a.test | site"]);
    }

    #[test]
    fn who_contradicts_an_older_replica_is_not_heard() {
        let replica = |name, created, words: &[(&str, &str)]| {
            let hosts = [("fairlead.hosts", "a.test"), ("fairlead.path", "/x")];
            container(name, created, &[&hosts, words].concat())
        };
        let containers = [
            replica("old", 1, &[("fairlead.strip-prefix", "true")]),
            replica(
                "young",
                2,
                &[("fairlead.replace-prefix", "/y"), ("fairlead.provider", "off")],
            ),
        ];
        let route = &planned(&containers, &Known::default()).routes[0];
        assert_eq!((route.strip_prefix, &route.replace_prefix), (true, &None));
        assert_eq!(route.provider, None);
    }

    #[test]
    fn no_route_redirects_to_itself_whoever_says_what() {
        let asking = |name, created, hosts: &str, to: &str| {
            let labels = [("fairlead.hosts", hosts), ("fairlead.redirect", to)];
            let count = if to.is_empty() { 1 } else { 2 };
            container(name, created, &labels[..count])
        };
        let circle = planned(&[asking("web", 1, "a.test", "https://a.test")], &Known::default());
        assert_eq!(
            rejections(&circle),
            ["web: the labels fairlead.*: the redirect leads from a.test back to it"]
        );

        let joined = [
            asking("old", 1, "a.test", "https://b.test"),
            asking("young", 2, "a.test b.test", ""),
        ];
        let joined = planned(&joined, &Known::default());
        assert_eq!(routes(&joined), ["a.test | old"]);
        assert_eq!(
            rejections(&joined),
            [
                "young: b.test is where the route of the container old redirects to: take the host out of the labels \
                 here, or the redirect out of there"
            ]
        );
        let unheard = [
            asking("old", 1, "a.test b.test", ""),
            asking("young", 2, "a.test", "https://b.test"),
        ];
        let unheard = planned(&unheard, &Known::default());
        assert_eq!(routes(&unheard), ["a.test b.test | young old"]);
        assert_eq!(unheard.routes[0].redirect, None);
        for discovery in [circle, joined, unheard] {
            assert_eq!(read_back(&discovery).problems, []);
        }
    }

    #[test]
    fn there_is_one_fallback_and_who_has_it_keeps_it() {
        let asking = |name, created, host| {
            container(
                name,
                created,
                &[("fairlead.hosts", host), ("fairlead.fallback", "true")],
            )
        };
        let fallbacks = |discovery: &Discovery| -> Vec<String> {
            let routes = discovery.routes.iter().filter(|route| route.fallback);
            routes.map(|route| route.hosts[0].to_string()).collect()
        };
        let first = planned(&[asking("zoe", 5, "z.test")], &Known::default());
        assert_eq!(fallbacks(&first), ["z.test"]);
        let both = [asking("zoe", 5, "z.test"), asking("adam", 1, "a.test")];
        let second = planned(&both, &after(first));
        assert_eq!(fallbacks(&second), ["z.test"]);
        assert_eq!(second.routes.len(), 2);
        assert_eq!(
            rejections(&second),
            [
                "adam: the fallback is the route of the container zoe, and there can be only one: take fallback out of \
                 the labels here, or out of there"
            ]
        );
        assert_eq!(fallbacks(&planned(&both, &Known::default())), ["a.test"]);
        assert_eq!(planned(&both, &after(second.clone())), second);

        let known = Known {
            operators: vec![Route {
                fallback: true,
                ..Route::default()
            }],
            ..Known::default()
        };
        assert_eq!(fallbacks(&planned(&both, &known)), [""; 0]);
        let known = Known {
            docker: Docker {
                allow: vec![Allow {
                    hosts: vec![HostPattern::parse("*.test").unwrap()],
                    project: None,
                    image: None,
                    network: None,
                    container: None,
                }],
                ..Docker::default()
            },
            ..Known::default()
        };
        let refused = planned(&both, &known);
        assert_eq!(refused.routes, []);
        assert_eq!(rejections(&refused)[0], format!("adam: {NO_FALLBACK}"));
    }

    #[test]
    fn the_operators_routes_keep_their_hosts() {
        let scope = Route::default().scope(&HostPattern::parse("b.test").unwrap());
        let known = Known {
            operator: [(scope, "routes.d/b.toml:3".to_owned())].into(),
            ..Known::default()
        };
        let discovery = planned(&[serving("web", 1, "a.test b.test")], &known);
        assert_eq!(routes(&discovery), ["a.test | web"]);
        assert_eq!(
            rejections(&discovery),
            [
                "web: b.test is routed by the operator at routes.d/b.toml:3: take the host out of the labels \
                 here, or out of there"
            ]
        );
    }

    #[test]
    fn of_two_newcomers_the_older_container_gets_the_host() {
        for (created, owner, loser) in [
            ((1, 2), "one", "two"),
            ((2, 1), "two", "one"),
            ((1, 1), "one", "two"),
        ] {
            let containers = [
                serving("one", created.0, "a.test shared.test"),
                serving("two", created.1, "b.test shared.test"),
            ];
            let discovery = planned(&containers, &Known::default());
            assert_eq!(discovery.routes.len(), 2);
            assert_eq!(
                rejections(&discovery),
                [format!(
                    "{loser}: shared.test belongs to the container {owner}: take the host out of the labels \
                     here, or out of there"
                )]
            );
        }
    }

    #[test]
    fn who_has_a_host_keeps_it_from_older_containers() {
        let web = serving("web", 5, "a.test");
        let before = planned(std::slice::from_ref(&web), &Known::default());
        let newcomer = serving("newcomer", 1, "b.test a.test");
        let discovery = planned(&[newcomer, web], &after(before));
        assert_eq!(routes(&discovery), ["a.test | web", "b.test | newcomer"]);
        assert_eq!(discovery.rejections[0].container, "newcomer");
    }

    #[test]
    fn a_replacement_under_another_name_inherits_the_hosts() {
        let before = planned(&[serving("blue", 1, "a.test b.test")], &Known::default());
        let containers = [
            serving("green", 9, "a.test b.test"),
            serving("older", 2, "c.test b.test"),
        ];
        let discovery = planned(&containers, &after(before));
        assert_eq!(routes(&discovery), ["a.test b.test | green", "c.test | older"]);
    }

    fn seconds_after(seconds: i64, present: Discovery) -> Known {
        Known {
            now: Timestamp::from_second(seconds).unwrap(),
            present,
            ..Known::default()
        }
    }

    #[test]
    fn who_left_has_its_hosts_kept_for_two_minutes_and_no_longer() {
        let web = of_service("shop", "web", serving("shop-web-1", 5, "a.test b.test"));
        let stranger = of_service("evil", "web", serving("evil-web-1", 1, "a.test"));
        let first = planned(
            std::slice::from_ref(&web),
            &seconds_after(0, Discovery::default()),
        );
        let left = planned(std::slice::from_ref(&stranger), &seconds_after(10, first));
        let reason = "evil-web-1: a.test is kept for the container shop-web-1, which left, until \
                      1970-01-01T00:02:10Z: wait, or take the host out of the labels here";
        assert_eq!(rejections(&left), [reason]);
        assert_eq!(read_back(&left).owners, left.owners);
        let again = planned(std::slice::from_ref(&stranger), &seconds_after(129, left.clone()));
        assert_eq!(again, left);

        for (name, service) in [("shop-web-1", "other"), ("shop-web-7", "web")] {
            let back = of_service("shop", service, serving(name, 9, "a.test b.test"));
            let both = planned(&[back, stranger.clone()], &seconds_after(129, left.clone()));
            assert_eq!(routes(&both), [format!("a.test b.test | {name}")]);
        }
        let late = planned(
            &[web, stranger.clone()],
            &seconds_after(130, {
                planned(std::slice::from_ref(&stranger), &seconds_after(130, left))
            }),
        );
        assert_eq!(routes(&late), ["a.test | evil-web-1", "b.test | shop-web-1"]);
    }

    #[test]
    fn who_runs_and_asks_no_more_has_given_its_host_up() {
        let web = |hosts| of_service("shop", "web", serving("shop-web-1", 5, hosts));
        let first = planned(&[web("a.test b.test")], &Known::default());
        let next = of_service("shop", "next", serving("shop-next-1", 6, "b.test"));
        let moved = planned(&[web("a.test"), next], &after(first));
        assert_eq!(routes(&moved), ["a.test | shop-web-1", "b.test | shop-next-1"]);
    }

    #[test]
    fn a_typo_in_other_labels_gives_no_host_away() {
        let first = planned(&[serving("web", 5, "a.test")], &Known::default());
        let typo = [("fairlead.hosts", "a.test"), ("fairlead.prot", "80")];
        let stranger = of_service("evil", "web", serving("evil-web-1", 1, "a.test"));
        let containers = [container("web", 9, &typo), stranger];
        let broken = planned(&containers, &after(first));
        assert_eq!(broken.routes, []);
        assert!(rejections(&broken)[0].starts_with("evil-web-1: a.test is kept for the container web"));
    }

    #[test]
    fn a_clock_that_was_ahead_keeps_no_host_for_long() {
        let first = planned(
            &[serving("web", 5, "a.test")],
            &seconds_after(1_000_000, Discovery::default()),
        );
        let left = planned(&[], &seconds_after(1_000_000, first));
        let stepped = planned(&[], &seconds_after(0, left));
        assert_eq!(stepped.owners[0].left, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(planned(&[], &seconds_after(120, stepped)).owners, []);
    }

    #[test]
    fn a_redirect_never_leads_to_a_host_of_somebody_else() {
        let redirecting = container(
            "web",
            2,
            &[
                ("fairlead.hosts", "a.test b.test c.test"),
                ("fairlead.redirect-to-primary", "true"),
            ],
        );
        let alone = planned(std::slice::from_ref(&redirecting), &Known::default());
        assert!(alone.routes[0].redirect_to_primary);
        let containers = [serving("first", 1, "x.test a.test"), redirecting];
        let discovery = planned(&containers, &Known::default());
        assert_eq!(
            routes(&discovery),
            ["b.test c.test | web", "x.test a.test | first"]
        );
        assert!(!discovery.routes[0].redirect_to_primary);
    }

    #[test]
    fn labels_passed_over_are_remarked_upon() {
        let both = container(
            "web",
            1,
            &[("fairlead.hosts", "a.test"), ("com.chameth.vhost", "b.test")],
        );
        assert_eq!(
            remarks(&plan(vec![both], &Known::default())),
            ["the labels com.chameth.* of container web were not read, because others come first"]
        );
    }

    #[test]
    fn a_reason_is_never_long() {
        let wrong = container("web", 1, &[("fairlead.hosts", &"ä".repeat(4000))]);
        let reason = &planned(&[wrong], &Known::default()).rejections[0].reason;
        assert_eq!(reason.chars().count(), MAX_REASON + 1);
    }

    #[test]
    fn the_order_of_the_list_changes_no_byte() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut containers = any_containers(&mut random, 60);
        let known = after(planned(&containers[..30], &Known::default()));
        let expected = planned(&containers, &known);
        assert!(expected.routes.len() > 5 && expected.rejections.len() > 5);
        assert!(expected.rejections.is_sorted());
        for _ in 0..50 {
            random.shuffle(&mut containers);
            assert_eq!(planned(&containers, &known).render(), expected.render());
        }
    }

    #[test]
    fn a_second_pass_over_its_own_result_changes_nothing() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..20 {
            let containers = any_containers(&mut random, 20);
            let first = planned(&containers, &Known::default());
            assert_eq!(planned(&containers, &after(first.clone())), first);
        }
    }

    /// Containers that compete for few hosts with each other; some have a fault.
    fn any_containers(random: &mut fastrand::Rng, count: i64) -> Vec<Container> {
        let host = |random: &mut fastrand::Rng| format!("{}.test", random.char('a'..='p'));
        let any = |index| {
            let hosts = format!("{} {}", host(random), host(random));
            let labels = [("fairlead.hosts", hosts.as_str()), ("fairlead.port", "x")];
            let count = if random.u8(0..4) == 0 { 2 } else { 1 };
            container(&format!("c{index}"), random.i64(0..5), &labels[..count])
        };
        (0..count).map(any).collect()
    }

    #[test]
    fn whatever_stands_in_a_label_the_file_reads_back_as_planned() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..2000 {
            let vhost = format!("a.test {}", any_text(&mut random));
            let header = format!("X-A: {}", any_text(&mut random));
            let provider = any_text(&mut random);
            let labels = [
                ("com.chameth.vhost", vhost.as_str()),
                ("com.chameth.headers", &header),
                ("com.chameth.provider", &provider),
            ];
            let mut hostile = container("web", 1, &labels[..random.usize(1..=3)]);
            hostile.name = any_text(&mut random);
            let discovery = planned(&[hostile, serving("good", 1, "good.test")], &Known::default());
            let configuration = read_back(&discovery);
            assert_eq!(configuration.problems, [], "{labels:?}");
            assert_eq!(configuration.rejections, discovery.rejections);
            let located = configuration.routes.into_iter();
            let routes: Vec<Route> = located.map(|located| located.route).collect();
            assert_eq!(routes, discovery.routes);
            assert!(
                routes
                    .iter()
                    .any(|route| route.hosts[0].to_string() == "good.test")
            );
        }
    }

    #[test]
    fn whatever_an_option_holds_the_file_reads_back_and_no_terminal_is_steered() {
        const OPTIONS: [&str; 12] = [
            "https://a.test",
            "https://b.test/",
            "{ to = \"https://www.a.test\", status = 301 }",
            "[{ status = \"404\", url = \"https://a!b:1/\" }]",
            "[{ \"\\u001b[31m\\n\" = 1 }]",
            "{ \"\\u202e\" = 1 }",
            "[{ replace = \"X-A\", value = \"\\t%\\u2028\" }]",
            "\u{202e}",
            "\u{2029}[\u{61c}]",
            "true",
            "/x",
            "[[[[",
        ];
        let mut random = fastrand::Rng::with_seed(4);
        let words = [Words::known::<Route>(), Words::known::<UpstreamWords>()].concat();
        for _ in 0..5000 {
            let asking = |random: &mut fastrand::Rng, name, created| {
                let mut asking = serving(name, created, "a.test www.a.test b.test");
                for _ in 0..random.usize(1..3) {
                    let option = match random.bool() {
                        true => OPTIONS[random.usize(..OPTIONS.len())].to_owned(),
                        false => any_text(random),
                    };
                    let label = format!("fairlead.{}", words[random.usize(..words.len())]);
                    asking.labels.insert(label, option);
                }
                asking
            };
            let containers = [asking(&mut random, "one", 1), asking(&mut random, "two", 2)];
            let discovery = planned(&containers, &Known::default());
            assert_eq!(read_back(&discovery).problems, [], "{containers:?}");
            for change in changes(&Discovery::default(), &discovery) {
                let line = change.to_string();
                assert!(!line.contains(is_hidden), "{line:?}");
            }
        }
    }

    /// Text made of the pieces that break things.
    fn any_text(random: &mut fastrand::Rng) -> String {
        const PIECES: [&str; 18] = [
            "\n",
            "\r\n",
            "\"",
            "\"\"\"",
            "'''",
            "'",
            "[[route]]",
            "hosts = [\"evil.test\"]",
            "\\",
            "\u{1b}[31m",
            "#",
            "\u{0}",
            "\u{85}",
            "\u{2028}",
            "b.test",
            "x",
            " ",
            "ü",
        ];
        (0..random.usize(0..6))
            .map(|_| PIECES[random.usize(..PIECES.len())])
            .collect()
    }
}
