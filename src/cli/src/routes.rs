use std::path::Path;

use fairlead_contract::{
    HostPattern, Located, PathPrefix, Paths, Problem, Redirect, Rejection, Route, UpstreamUrl, Waiting,
    escaped,
};
use serde::Serialize;

use crate::answer::{Answer, Exit};
use crate::arguments::Format;
use crate::certificates::{Certificate, of_route};
use crate::machine::Machine;
use crate::table;

/// Lists what is declared, which is what the proxy serves unless `fairlead status` says otherwise.
pub(crate) async fn run(paths: Paths, format: Format) -> anyhow::Result<Answer> {
    let machine = Machine::observe(paths).await;
    let exit = exit(&machine);
    if format.json {
        return Answer::json(&Listing::of(&machine), exit);
    }
    Ok(Answer {
        text: text(&machine),
        faults: machine.faults(),
        exit,
    })
}

fn exit(machine: &Machine) -> Exit {
    if machine.unreadable().next().is_some() {
        Exit::Unknown
    } else if machine.configuration.problems.is_empty() {
        Exit::Fine
    } else {
        Exit::Wrong
    }
}

fn text(machine: &Machine) -> String {
    let configuration = &machine.configuration;
    let rows: Vec<_> = configuration
        .routes
        .iter()
        .map(|located| row(located, machine))
        .collect();
    let mut text = table::for_stdout(["HOSTS", "UPSTREAMS", "SOURCE", "CERTIFICATE"], &rows);
    if !configuration.rejections.is_empty() {
        let rows: Vec<_> = configuration.rejections.iter().map(left_out).collect();
        text.push('\n');
        text += &table::for_stdout(["LEFT OUT", "HOSTS", "REASON"], &rows);
    }
    text
}

fn row(located: &Located, machine: &Machine) -> [Vec<String>; 4] {
    let route = &located.route;
    let containers = containers(route);
    let source = match containers.is_empty() {
        true => vec![escaped(&located.place())],
        false => containers,
    };
    [
        route
            .hosts
            .iter()
            .map(|host| route.scope(host).to_string())
            .collect(),
        destinations(route),
        source,
        vec![of_route(located, machine).describe(machine.now)],
    ]
}

/// Where requests go: to upstreams, or elsewhere by a redirect. Who waits for them is listed too.
fn destinations(route: &Route) -> Vec<String> {
    match &route.redirect {
        Some(redirect) => vec![format!("redirect to {}", redirect.to)],
        None => {
            let upstreams = route.upstreams.iter().map(|upstream| upstream.url.to_string());
            let waiting = route.waiting.iter().map(|_| "waiting".to_owned());
            upstreams.chain(waiting).collect()
        }
    }
}

fn left_out(rejection: &Rejection) -> [Vec<String>; 3] {
    let container = format!("{} ({})", escaped(&rejection.container), escaped(&rejection.id));
    [
        vec![container],
        words(&rejection.hosts),
        vec![escaped(&rejection.reason)],
    ]
}

fn words(hosts: &[HostPattern]) -> Vec<String> {
    hosts.iter().map(HostPattern::to_string).collect()
}

/// The names of the containers behind a route.
pub(crate) fn containers(route: &Route) -> Vec<String> {
    route.containers().map(escaped).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Listing<'a> {
    routes: Vec<Listed<'a>>,
    left_out: &'a [Rejection],
    problems: &'a [Problem],
    notes: &'a [Problem],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Listed<'a> {
    hosts: &'a [HostPattern],
    path: &'a PathPrefix,
    redirect: Option<&'a Redirect>,
    upstreams: Vec<ListedUpstream<'a>>,
    waiting: &'a [Waiting],
    file: &'a Path,
    line: usize,
    certificate: Certificate,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ListedUpstream<'a> {
    url: &'a UpstreamUrl,
    container: Option<&'a str>,
}

impl<'a> Listing<'a> {
    fn of(machine: &'a Machine) -> Self {
        let configuration = &machine.configuration;
        let routes = configuration.routes.iter();
        Self {
            routes: routes.map(|located| Listed::of(located, machine)).collect(),
            left_out: &configuration.rejections,
            problems: &configuration.problems,
            notes: &configuration.notes,
        }
    }
}

impl<'a> Listed<'a> {
    fn of(located: &'a Located, machine: &Machine) -> Self {
        let upstreams = located.route.upstreams.iter().map(|upstream| ListedUpstream {
            url: &upstream.url,
            container: upstream.container.as_deref(),
        });
        Self {
            hosts: &located.route.hosts,
            path: &located.route.path,
            redirect: located.route.redirect.as_ref(),
            upstreams: upstreams.collect(),
            waiting: &located.route.waiting,
            file: &located.file,
            line: located.position.line,
            certificate: of_route(located, machine),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::{CONFIG, machine_with};

    #[test]
    fn a_route_shows_its_containers_or_else_its_file() {
        let declared = "[[route]]\nhosts = [\"a.test\"]\nupstreams = [\"http://127.0.0.1:1\"]\n";
        let discovered = "[[route]]\nhosts = [\"b.test\"]\n\
                          upstreams = [{ url = \"http://10.0.0.2:80\", container = \"web\\n1\" }]\n\
                          [[rejection]]\ncontainer = \"c\"\nid = \"0123\"\nreason = \"it has no port\"\n";
        let text = text(&machine_with(declared, discovered));
        let lines: Vec<_> = text.lines().map(|line| line.split("  ").map(str::trim)).collect();
        let cells: Vec<Vec<_>> = lines
            .into_iter()
            .map(|cells| cells.filter(|cell| !cell.is_empty()).collect())
            .collect();
        let waiting = "waiting for the next pass of fairlead-certs";
        assert_eq!(
            cells[1],
            ["a.test", "http://127.0.0.1:1", &format!("{CONFIG}:1"), waiting]
        );
        assert_eq!(cells[2], ["b.test", "http://10.0.0.2:80", "web\\u{a}1", waiting]);
        assert_eq!(cells[5], ["c (0123)", "it has no port"]);
    }
}
