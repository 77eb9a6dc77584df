use std::path::Path;

use fairlead_contract::{
    Configuration, HostPattern, Located, Network, PlainHttp, Problem, Redirect, Rejection, Route, Scope,
    Status, Upstream, Waiting, chain, escaped,
};

use super::find::{Found, as_host, find, left_out_with, nearest};
use super::{Done, Step, Story};
use crate::certificates::{Certificate, State, of_host};
use crate::compare::{Difference, Kind, Standing, differences, standing};
use crate::machine::{Machine, READERS};
use crate::routes::containers;
use crate::when::moment;

/// The step of a story that is about upstreams.
const UPSTREAMS: &str = "upstreams";
/// The step that tells which of them fail.
const HEALTH: &str = "health";
const NEXT_FOR_WAITING: &str = "Next: do what the reason says; the watcher sees it by itself, and until then requests are answered with 503.";

/// Tells what became of a name, as a person may write it: a host, a URL, a container, a certificate.
///
/// Reads nothing but its arguments. Several stories if the host has several routes, or the
/// container stands behind several.
pub(super) fn stories(name: &str, machine: &Machine) -> Vec<Story> {
    let name = bare(name);
    let found = find(name, machine);
    if found.is_empty() {
        return vec![nothing(name, machine)];
    }
    found.iter().map(|found| story(found, machine)).collect()
}

/// The host of a URL, or the name as it is.
fn bare(name: &str) -> &str {
    let name = name.trim();
    let name = name
        .strip_prefix("https://")
        .or_else(|| name.strip_prefix("http://"))
        .unwrap_or(name);
    let name = name.trim_start_matches('/');
    let name = name.split('/').next().unwrap_or(name);
    name.split(':').next().unwrap_or(name)
}

fn story(found: &Found<'_>, machine: &Machine) -> Story {
    match found {
        Found::Route { located, host } => route(located, host, machine),
        Found::LeftOut(rejection) => left_out(rejection, machine),
        Found::Certificate(name) => leftover(name),
    }
}

fn route(located: &Located, host: &HostPattern, machine: &Machine) -> Story {
    let certificate = of_host(located, host, machine);
    let mut steps = vec![declared(located, host, machine)];
    steps.extend(other_claims(&located.route.scope(host), machine));
    if located.route.redirect.is_none() {
        steps.extend(upstreams(&located.route));
        steps.extend(failing(&located.route, machine));
    }
    let is_old = machine.doubtful_pass().is_some() || machine.is_being_looked_at();
    if is_old && *located.file == *machine.paths.discovery_file() {
        steps.extend(last_look(machine));
    }
    steps.push(loaded(located, machine));
    steps.push(certified(located, host, &certificate, machine));
    let conclusion = conclude(&steps, located, host, &certificate, machine);
    Story {
        subject: located.route.scope(host).to_string(),
        steps,
        conclusion,
    }
}

fn declared(located: &Located, host: &HostPattern, machine: &Machine) -> Step {
    let route = &located.route;
    let place = escaped(&located.place());
    let containers = containers(route);
    let mut text = match containers.is_empty() {
        true => format!("at {place}"),
        false => format!("by the labels of container {}, at {place}", containers.join(", ")),
    };
    if !route.hosts.contains(host)
        && let Some(wildcard) =
            as_host(host).and_then(|name| route.hosts.iter().find(|pattern| pattern.covers(name)))
    {
        text += &format!(", as one of {wildcard}");
    }
    if let Some(replacement) = route.replacement() {
        text += &format!("; upstreams see {replacement} in place of {}", route.path);
    }
    if route.redirect_to_primary && route.hosts[0] != *host {
        text += &format!("; redirects to {}", machine.keeper.url(&route.hosts[0]));
    } else if let Some(Redirect { to, status }) = &route.redirect {
        text += &format!("; redirects to {to} ({})", status.get().as_u16());
    }
    if route.fallback {
        text += "; also answers for hosts that no route names and a certificate covers";
    }
    if route.plain_http == PlainHttp::Served {
        text += "; also answers over plain HTTP";
    }
    for condition in conditions(route) {
        text += &format!("; {condition}");
    }
    Step::new("declared", Done::Yes, text)
}

/// What stands between a client and the site.
fn conditions(route: &Route) -> Vec<String> {
    let list = |networks: &[Network]| {
        let networks: Vec<_> = networks.iter().map(Network::to_string).collect();
        (!networks.is_empty()).then(|| networks.join(", "))
    };
    let password = (!route.basic_auth.is_empty()).then(|| "asks for a password".to_owned());
    let conditions = [
        list(&route.allow).map(|networks| format!("only for clients in {networks}")),
        list(&route.deny).map(|networks| format!("not for clients in {networks}")),
        password,
        route
            .forward_auth
            .as_ref()
            .map(|auth| format!("asks {} about each request", auth.url)),
        route.max_body.map(|size| format!("takes bodies up to {size}")),
    ];
    conditions.into_iter().flatten().collect()
}

/// What the containers ask for is as old as the last pass that succeeded.
fn last_look(machine: &Machine) -> Option<Step> {
    let mut text = machine.known_pass()?.describe(machine.now);
    if machine.has_news {
        text += "; something happened since, which it looks at next";
    }
    Some(Step::new("watcher", Done::Note, text))
}

/// Who else asked for the host and did not get it.
fn other_claims(scope: &Scope, machine: &Machine) -> Vec<Step> {
    let notes = machine.configuration.notes.iter();
    let beginning = format!("{scope} already has a route");
    let contested = notes.filter(|note| note.message.starts_with(&beginning));
    let contested = contested.map(|note| escaped(&note.to_string()));
    let left_out = left_out_with(&scope.host, machine).into_iter().map(|rejection| {
        let Rejection {
            container, reason, ..
        } = rejection;
        format!(
            "container {} was left out: {}",
            escaped(container),
            escaped(reason)
        )
    });
    contested
        .chain(left_out)
        .map(|text| Step::new("also asked", Done::Note, text))
        .collect()
}

/// Who gets the requests, and who would but for a reason: no hindrance as long as there is another.
fn upstreams(route: &Route) -> Vec<Step> {
    let shown = |upstream: &Upstream| match &upstream.container {
        Some(container) => format!("{} ({})", upstream.url, escaped(container)),
        None => upstream.url.to_string(),
    };
    let told = route.upstreams.iter().map(shown).collect::<Vec<_>>().join(", ");
    let (done, of_waiting) = match route.upstreams.is_empty() {
        true => (None, Done::No),
        false => (Some(Step::new(UPSTREAMS, Done::Yes, told)), Done::Note),
    };
    let waiting = route.waiting.iter().map(|Waiting { container, reason }| {
        let text = format!("container {} waits: {}", escaped(container), escaped(reason));
        Step::new(UPSTREAMS, of_waiting, text)
    });
    done.into_iter().chain(waiting).collect()
}

/// The upstreams that the proxy asked in vain: a hindrance if they are all that the route has.
fn failing(route: &Route, machine: &Machine) -> Option<Step> {
    let known = &machine.proxy.as_ref().ok()?.failing_upstreams;
    let urls = route.upstreams.iter().map(|upstream| upstream.url.to_string());
    let failing: Vec<_> = urls.filter(|url| known.contains(url)).collect();
    let done = match failing.len() {
        0 => return None,
        all if all == route.upstreams.len() => Done::No,
        _ => Done::Note,
    };
    let text = format!("{} did not answer when the proxy last asked", failing.join(", "));
    Some(Step::new(HEALTH, done, text))
}

/// A route is served as declared if its file is the one that the proxy loaded.
fn loaded(located: &Located, machine: &Machine) -> Step {
    let step = |done, text: String| Step::new("loaded", done, text);
    let status = match &machine.proxy {
        Ok(status) => status,
        Err(error) if error.is_certain() => return step(Done::No, chain(error)),
        Err(error) => return step(Done::Unknown, chain(error)),
    };
    let differences = differences(&status.loaded.files, &machine.digests);
    let its_own = differences
        .iter()
        .find(|difference| *difference.file == *located.file);
    match its_own {
        None => step(
            Done::Yes,
            format!("by the proxy, {}", moment(status.loaded.at, machine.now)),
        ),
        Some(difference) if !difference.is_certain() => step(Done::Unknown, difference.to_string()),
        Some(difference) => step(Done::No, not_loaded(difference, status, machine)),
    }
}

fn not_loaded(difference: &Difference, status: &Status, machine: &Machine) -> String {
    match standing(status, &machine.digests) {
        Standing::Refused(refusal) => {
            let problems: Vec<_> = refusal.problems.iter().map(Problem::to_string).collect();
            format!(
                "not as it is on disk: the reload was refused: {}",
                escaped(&problems.join("; "))
            )
        }
        Standing::Live | Standing::Unseen(_) => format!("not as it is on disk: {difference}"),
    }
}

/// The proxy knows best whether there is a certificate; the ledger knows why not.
fn certified(located: &Located, host: &HostPattern, certificate: &Certificate, machine: &Machine) -> Step {
    let served = machine
        .proxy
        .as_ref()
        .ok()
        .and_then(|status| has_certificate(status, located, host, machine));
    let said = certificate.describe(machine.now);
    let (done, text) = match (served, certificate.state) {
        (Some(true), _) => (Done::Yes, said),
        (Some(false), State::Ok | State::Due) => (
            Done::No,
            format!("{said}, but {}", not_used(certificate, machine)),
        ),
        (Some(false), State::Operators) => (
            Done::No,
            format!("{said}, and no pair in the store is for {host}"),
        ),
        (None, State::Ok | State::Due) => (Done::Yes, said),
        (None, State::Failing | State::UnderWay) if certificate.holds(machine.now) => (Done::Yes, said),
        (None, State::Operators) | (_, State::Unknown) => (Done::Unknown, said),
        (
            _,
            State::Waiting
            | State::UnderWay
            | State::Failing
            | State::Expired
            | State::Revoked
            | State::Unwanted,
        ) => {
            let refused = refused_pair(certificate, machine);
            let also = refused.map(|refused| format!("; there is a pair, but {refused}"));
            (Done::No, said + &also.unwrap_or_default())
        }
    };
    Step::new("certificate", done, text)
}

/// `None` if the route is not loaded, so that the proxy looks for no certificate.
fn has_certificate(
    status: &Status,
    located: &Located,
    host: &HostPattern,
    machine: &Machine,
) -> Option<bool> {
    let file = &*located.file;
    (status.loaded.files.get(file) == machine.digests.get(file)).then_some(())?;
    let hosts = &located.route.hosts;
    let declared = |pattern: &&HostPattern| as_host(host).is_some_and(|host| pattern.covers(host));
    let pattern = match hosts.contains(host) {
        true => host,
        false => hosts.iter().find(declared)?,
    };
    let without = &status.loaded.names_without_certificate;
    Some(!without.contains(&pattern.to_string()))
}

/// Why a certificate that is there is not shown.
fn not_used(certificate: &Certificate, machine: &Machine) -> String {
    let directory = machine.paths.certificate(&certificate.name);
    let is_inside = |file: &Path| file.starts_with(directory.path());
    if let Some(refused) = refused_pair(certificate, machine) {
        return refused;
    }
    if let Ok(status) = &machine.proxy {
        let differences = differences(&status.loaded.files, &machine.digests);
        if let Some(difference) = differences.iter().find(|difference| is_inside(&difference.file)) {
            return match difference.kind {
                Kind::New | Kind::Changed => "the proxy has not loaded it yet".to_owned(),
                _ => difference.to_string(),
            };
        }
    }
    format!("no pair for it is in {}", directory.path().display())
}

/// What the proxy says of a pair that it found and does not use.
fn refused_pair(certificate: &Certificate, machine: &Machine) -> Option<String> {
    let directory = machine.paths.certificate(&certificate.name);
    let mut notes = machine.proxy.as_ref().ok()?.loaded.notes.iter();
    let note = notes.find(|note| note.file.starts_with(directory.path()))?;
    Some(format!("the proxy cannot use it: {}", escaped(&note.to_string())))
}

fn conclude(
    steps: &[Step],
    located: &Located,
    host: &HostPattern,
    certificate: &Certificate,
    machine: &Machine,
) -> String {
    let worst = steps.iter().map(|step| step.done).max();
    let hindrance = steps.iter().find(|step| Some(step.done) == worst);
    match (worst, hindrance.map(|step| step.step)) {
        (Some(Done::No), Some(UPSTREAMS)) => NEXT_FOR_WAITING.to_owned(),
        (Some(Done::No), Some(HEALTH)) => format!(
            "Next: see {} for the reason, and whether anything listens on this port; the proxy tries again by itself.",
            machine.keeper.proxy_log(&located.route.hosts[0])
        ),
        (Some(Done::No), Some("loaded")) => next_for_loaded(machine),
        (Some(Done::No), _) => next_for_certificate(host, certificate, machine),
        (Some(Done::Unknown), _) => format!("What could not be read decides: {READERS}."),
        _ => {
            let every = match host {
                HostPattern::Exact(_) => "",
                HostPattern::Wildcard(_) => " for every NAME without a dot",
            };
            format!("{} should answer{every}.", machine.keeper.url(host))
        }
    }
}

fn next_for_loaded(machine: &Machine) -> String {
    match &machine.proxy {
        Err(_) => format!("Next: {}.", machine.keeper.start_proxy()),
        Ok(status) => match standing(status, &machine.digests) {
            Standing::Refused(_) => "Next: correct these files, then run fairlead reload; until then the proxy serves what it loaded before.".to_owned(),
            Standing::Live | Standing::Unseen(_) => "Next: run fairlead reload, which makes it live or says why not.".to_owned(),
        },
    }
}

fn next_for_certificate(host: &HostPattern, certificate: &Certificate, machine: &Machine) -> String {
    let directory = machine.paths.certificate(&certificate.name);
    let start_certs = machine.keeper.start_certs();
    match certificate.state {
        State::Operators => format!(
            "Next: put fullchain.pem and key.pem for {host} into {}, then run fairlead reload.",
            directory.path().display()
        ),
        State::Failing => match certificate
            .failure
            .as_ref()
            .filter(|failure| failure.issuer.is_some())
        {
            Some(failure) => format!(
                "Next: remove the cause; it is tried again {}, or at once after rm {} and {start_certs}.",
                moment(failure.next_try, machine.now),
                directory.ledger_file().display()
            ),
            None => {
                format!("Next: change what the message names, then {start_certs}.")
            }
        },
        State::Ok | State::Due => "Next: run fairlead reload.".to_owned(),
        State::UnderWay => "Next: ask again in a moment; most attempts end within one.".to_owned(),
        State::Waiting => {
            format!(
                "Next: ask again in a moment, for each reload begins a pass; if nothing came of it, {start_certs}."
            )
        }
        State::Expired | State::Revoked | State::Unwanted | State::Unknown => {
            format!("Next: {start_certs}, or wait until it is time for it.")
        }
    }
}

fn left_out(rejection: &Rejection, machine: &Machine) -> Story {
    let asked: Vec<_> = rejection.hosts.iter().map(ToString::to_string).collect();
    let mut steps = Vec::new();
    if !asked.is_empty() {
        steps.push(Step::new("asked for", Done::Note, asked.join(", ")));
    }
    steps.push(Step::new(
        "declared",
        Done::No,
        format!("left out: {}", escaped(&rejection.reason)),
    ));
    steps.extend(last_look(machine));
    Story {
        subject: format!(
            "container {} ({})",
            escaped(&rejection.container),
            escaped(&rejection.id)
        ),
        steps,
        conclusion: "Next: do what the reason says; the watcher sees it by itself.".to_owned(),
    }
}

fn leftover(name: &HostPattern) -> Story {
    let text =
        "no file or running container declares it; a certificate from earlier is in the store".to_owned();
    Story {
        subject: name.to_string(),
        steps: vec![Step::new("declared", Done::No, text)],
        conclusion: "Next: declare it in a route, or start its container again; the certificate is used as long as it holds.".to_owned(),
    }
}

/// Nothing known has this name. That is only certain if everything could be read.
fn nothing(name: &str, machine: &Machine) -> Story {
    let Configuration { problems, .. } = &machine.configuration;
    let done = match machine.unreadable().next() {
        Some(_) => Done::Unknown,
        None => Done::No,
    };
    let mut text = "no file or running container declares it".to_owned();
    if done == Done::Unknown {
        text += ", as far as the files could be read";
    }
    let mut steps = vec![Step::new("declared", done, text)];
    if !machine.digests.contains_key(&machine.paths.discovery_file()) {
        let file = machine.paths.discovery_file();
        let text = format!(
            "the watcher has not written {} yet: see {}",
            file.display(),
            machine.keeper.watcher_log()
        );
        steps.push(Step::new("containers", Done::Note, text));
    }
    steps.extend(last_look(machine));
    for problem in problems {
        steps.push(Step::new("fault", Done::Note, escaped(&problem.to_string())));
    }
    Story {
        subject: escaped(name),
        conclusion: next_for_nothing(name, machine),
        steps,
    }
}

fn next_for_nothing(name: &str, machine: &Machine) -> String {
    if machine.is_forbidden {
        return format!("What could not be read decides: {READERS}.");
    }
    if let Some((pass, doubt)) = machine.doubtful_pass() {
        return pass.next(doubt);
    }
    if machine.is_being_looked_at() {
        return "Next: ask again in a moment, because the watcher is about to look at the containers."
            .to_owned();
    }
    if let Some(nearest) = nearest(name, machine) {
        return format!("Did you mean {nearest}?");
    }
    if !machine.configuration.problems.is_empty() {
        return "Next: correct the faults above, it may be declared in one of these files; until then the proxy \
                serves what it loaded before."
            .to_owned();
    }
    format!(
        "Next: label its container with fairlead.hosts={}, or declare a route in {}.",
        escaped(name),
        machine.paths.routes_dir().display()
    )
}

impl Step {
    fn new(step: &'static str, done: Done, text: String) -> Self {
        Self { step, done, text }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use fairlead_contract::{Digest, Failure, Ledger, Refusal};

    use super::*;
    use crate::admin::NoStatus;
    use crate::compare::tests::moment as at;
    use crate::machine::tests::{CONFIG, DISCOVERY, issued, ledger, machine_with, pass};
    use crate::service::LastPass;
    use crate::store::Store;

    const DECLARED: &str = "[acme]\naccept-terms = true\n\
        [[route]]\nhosts = [\"own.test\", \"www.own.test\"]\nupstreams = [\"http://127.0.0.1:1\"]\nredirect-to-primary = true\n\
        [[route]]\nhosts = [\"*.wild.test\"]\nupstreams = [\"http://127.0.0.1:2\"]\nprovider = \"off\"\n";
    const DISCOVERED: &str = "[[route]]\nhosts = [\"app.test\", \"own.test\"]\n\
        upstreams = [{ url = \"http://10.0.0.2:80\", container = \"web-1\" }, { url = \"http://10.0.0.3:80\", container = \"web-2\" }]\n\
        [[rejection]]\ncontainer = \"late\"\nid = \"0123456789ab\"\nhosts = [\"app.test\", \"late.test\"]\n\
        reason = \"app.test belongs to web-1\"\n";

    fn machine() -> Machine {
        let mut machine = machine_with(DECLARED, DISCOVERED);
        assert_eq!(machine.configuration.problems, []);
        machine.store = Store::of([
            ledger(&["own.test", "www.own.test"], Some(issued(2000, 3000)), None),
            ledger(&["app.test"], Some(issued(2000, 3000)), None),
            ledger(&["old.test"], Some(issued(2000, 3000)), None),
        ]);
        machine
    }

    fn tell(name: &str, machine: &Machine) -> Story {
        let mut stories = stories(name, machine);
        assert_eq!(stories.len(), 1, "{stories:?}");
        stories.remove(0)
    }

    fn status(machine: &mut Machine) -> &mut Status {
        machine.proxy.as_mut().unwrap()
    }

    #[test]
    fn a_watcher_that_failed_is_named_where_its_word_decides() {
        let mut machine = machine();
        machine.last_pass = Ok(Some(pass(400, true)));
        let failed = "fairlead-watcher.service failed";
        for name in ["app.test", "late", "new.test"] {
            assert_step(&tell(name, &machine), "watcher", Done::Note, failed);
        }
        let next = tell("new.test", &machine).conclusion;
        assert!(next.contains("journalctl -u fairlead-watcher"), "{next}");
        let of_the_operator = tell("own.test", &machine);
        assert!(of_the_operator.steps.iter().all(|step| step.step != "watcher"));
    }

    #[test]
    fn a_watcher_that_has_not_looked_for_long_is_named_where_its_word_decides() {
        let mut machine = machine();
        machine.last_pass = Ok(Some(pass(400, false)));
        let timely = tell("app.test", &machine);
        assert!(timely.steps.iter().all(|step| step.step != "watcher"));
        machine.last_pass = Ok(Some(pass(300, false)));
        for name in ["app.test", "late", "new.test"] {
            assert_step(
                &tell(name, &machine),
                "watcher",
                Done::Note,
                "last looked 1970-01-01 00:05 UTC",
            );
        }
        let next = tell("new.test", &machine).conclusion;
        assert!(next.contains("systemctl start fairlead-watcher.timer"), "{next}");
    }

    #[test]
    fn how_old_the_word_of_the_watcher_is_stands_beside_it() {
        let mut machine = machine();
        machine.last_pass = Ok(Some(pass(995, false)));
        for name in ["late", "new.test"] {
            assert_step(
                &tell(name, &machine),
                "watcher",
                Done::Note,
                "last looked 1970-01-01 00:16 UTC, 5 s ago",
            );
        }
        assert!(!tell("new.test", &machine).conclusion.contains("in a moment"));
        machine.has_news = true;
        for name in ["app.test", "late", "new.test"] {
            assert_step(
                &tell(name, &machine),
                "watcher",
                Done::Note,
                "something happened since",
            );
        }
        let soon = "Next: ask again in a moment, because the watcher is about to look at the containers.";
        assert_eq!(tell("new.test", &machine).conclusion, soon);
        machine.has_news = false;
        machine.last_pass = Ok(Some(LastPass {
            running: true,
            ..pass(999, false)
        }));
        assert_step(
            &tell("app.test", &machine),
            "watcher",
            Done::Note,
            "is looking since",
        );
        assert_eq!(tell("new.test", &machine).conclusion, soon);
    }

    #[test]
    fn conditions_and_paths_are_told_with_the_declaration() {
        let declared = "[[route]]\nhosts = [\"a.test\"]\npath = \"/x\"\nstrip-prefix = true\nupstreams = [\"http://127.0.0.1:1\"]\n\
                        allow = [\"10.0.0.0/8\"]\nmax-body = \"1 MiB\"\nforward-auth = { url = \"http://127.0.0.1:2/auth\" }\n\
                        [[route]]\nhosts = [\"a.test\"]\nredirect = \"https://b.test\"\n";
        let contested =
            "[[route]]\nhosts = [\"a.test\"]\npath = \"/x\"\nupstreams = [\"http://127.0.0.1:3\"]\n";
        let machine = machine_with(declared, contested);
        let stories = stories("https://a.test/x", &machine);
        assert_eq!(stories.len(), 2);
        assert_eq!(stories[0].subject, "a.test/x");
        let told = "upstreams see / in place of /x; only for clients in 10.0.0.0/8; \
                    asks http://127.0.0.1:2/auth about each request; takes bodies up to 1 MiB";
        assert_step(&stories[0], "declared", Done::Yes, told);
        assert_step(
            &stories[0],
            "also asked",
            Done::Note,
            "a.test/x already has a route",
        );
        assert_step(
            &stories[1],
            "declared",
            Done::Yes,
            "redirects to https://b.test (308)",
        );
    }

    #[track_caller]
    fn assert_step(story: &Story, step: &str, done: Done, part: &str) {
        let found = story
            .steps
            .iter()
            .any(|told| told.step == step && told.done == done && told.text.contains(part));
        assert!(found, "no {step} {done:?} {part:?} in\n{}", story.text());
    }

    #[test]
    fn a_site_that_should_answer_is_told_step_by_step() {
        let story = tell("https://app.test:8443/x?y", &machine());
        assert_eq!(
            story.text(),
            format!(
                "app.test\n  \
                 ✓ declared    by the labels of container web-1, web-2, at {DISCOVERY}:1\n  \
                 · also asked  container late was left out: app.test belongs to web-1\n  \
                 ✓ upstreams   http://10.0.0.2:80 (web-1), http://10.0.0.3:80 (web-2)\n  \
                 ✓ loaded      by the proxy, 1970-01-01 00:08 UTC, 8 minutes ago\n  \
                 ✓ certificate valid until 1970-01-01 00:50 UTC, in 33 minutes\n\
                 https://app.test/ should answer.\n"
            )
        );
        assert_eq!(story.done(), Done::Yes);
    }

    #[test]
    fn a_container_that_waits_is_told_with_its_reason() {
        let waiting =
            "waiting = [{ container = \"slow\", reason = \"its health check has not passed yet\" }]\n";
        let told = |upstreams: &str, name| {
            let route = format!("[[route]]\nhosts = [\"app.test\"]\n{upstreams}{waiting}");
            let mut machine = machine_with("", &route);
            machine.store = Store::of([ledger(&["app.test"], Some(issued(2000, 3000)), None)]);
            tell(name, &machine)
        };
        for name in ["app.test", "slow"] {
            let story = told("", name);
            let reason = "container slow waits: its health check has not passed yet";
            assert_step(&story, "upstreams", Done::No, reason);
            assert_eq!(story.conclusion, NEXT_FOR_WAITING);
        }
        let upstreams = "upstreams = [{ url = \"http://10.0.0.2:80\", container = \"web\" }]\n";
        let story = told(upstreams, "app.test");
        assert_step(&story, "upstreams", Done::Note, "container slow waits");
        assert_eq!(story.done(), Done::Yes);
    }

    #[test]
    fn upstreams_that_fail_hinder_only_if_there_is_no_other() {
        let mut machine = machine();
        status(&mut machine).failing_upstreams = vec!["http://10.0.0.2:80".to_owned()];
        let story = tell("app.test", &machine);
        assert_step(&story, HEALTH, Done::Note, "http://10.0.0.2:80 did not answer");
        assert_eq!(story.done(), Done::Yes);

        let all = ["http://10.0.0.2:80", "http://10.0.0.3:80"];
        status(&mut machine).failing_upstreams = all.map(str::to_owned).to_vec();
        let story = tell("app.test", &machine);
        assert_step(&story, HEALTH, Done::No, &all.join(", "));
        assert!(
            story.conclusion.contains("FAIRLEAD_ROUTE=app.test"),
            "{}",
            story.conclusion
        );
    }

    #[test]
    fn a_container_and_its_certificate_are_names_too() {
        assert_eq!(tell("web-2", &machine()).subject, "app.test");
        assert_eq!(tell("/web-2", &machine()).subject, "app.test");
        let leftover = tell("old.test", &machine());
        assert_step(
            &leftover,
            "declared",
            Done::No,
            "a certificate from earlier is in the store",
        );
    }

    #[test]
    fn a_container_left_out_is_found_by_name_by_id_and_by_host() {
        for name in ["late", "0123", "0123456789ab", "0123456789abcdef", "late.test"] {
            let story = tell(name, &machine());
            assert_eq!(story.subject, "container late (0123456789ab)");
            assert_step(&story, "declared", Done::No, "app.test belongs to web-1");
        }
    }

    #[test]
    fn the_operator_wins_and_that_is_told() {
        let story = tell("own.test", &machine());
        assert_step(&story, "declared", Done::Yes, &format!("{CONFIG}:3"));
        assert_step(&story, "also asked", Done::Note, DISCOVERY);
        assert_eq!(story.done(), Done::Yes);
        let alias = tell("www.own.test", &machine());
        assert_step(&alias, "declared", Done::Yes, "redirects to https://own.test/");
    }

    #[test]
    fn a_wildcard_answers_for_one_label() {
        let story = tell("x.wild.test", &machine());
        assert_step(&story, "declared", Done::Yes, "as one of *.wild.test");
        assert_eq!(tell("x.y.wild.test", &machine()).done(), Done::No);
        let all = tell("*.wild.test", &machine());
        assert!(
            all.conclusion.contains("https://NAME.wild.test/"),
            "{}",
            all.conclusion
        );
    }

    #[test]
    fn an_operators_pair_that_is_missing_is_asked_for() {
        let mut machine = machine();
        status(&mut machine).loaded.names_without_certificate = vec!["*.wild.test".to_owned()];
        let story = tell("x.wild.test", &machine);
        assert_step(
            &story,
            "certificate",
            Done::No,
            "no pair in the store is for x.wild.test",
        );
        assert!(
            story.conclusion.contains("put fullchain.pem and key.pem"),
            "{}",
            story.conclusion
        );
    }

    #[test]
    fn a_name_nobody_declared_brings_the_nearest_one_or_what_to_write() {
        let story = tell("ap.test", &machine());
        assert_step(
            &story,
            "declared",
            Done::No,
            "no file or running container declares it",
        );
        assert_eq!(story.conclusion, "Did you mean app.test?");
        let declared = "[[route]]\nhosts = [\"app.localhost\"]\nupstreams = [\"http://127.0.0.1:1\"]\n";
        let machine_of_one = machine_with(declared, "");
        let near = tell("ap.localhost", &machine_of_one);
        assert_eq!(near.conclusion, "Did you mean app.localhost?");
        let other = tell("web.localhost", &machine_of_one);
        assert!(
            other.conclusion.contains("fairlead.hosts=web.localhost"),
            "{}",
            other.conclusion
        );
        let story = tell("zebra\u{1b}", &machine());
        assert!(
            story.conclusion.contains("fairlead.hosts=zebra\\u{1b}"),
            "{}",
            story.conclusion
        );
    }

    #[test]
    fn faults_in_the_files_are_shown_when_a_name_is_not_found() {
        let machine = machine_with("[[route]]\nhosts = [\"mistake.test\"]\nupstream = []\n", "");
        let story = tell("mistake.test", &machine);
        assert_step(&story, "fault", Done::Note, &format!("{CONFIG}:3:1"));
        assert!(
            story.conclusion.contains("correct the faults"),
            "{}",
            story.conclusion
        );
    }

    #[test]
    fn what_could_not_be_read_is_not_taken_for_absent() {
        let mut machine = machine();
        machine
            .digests
            .insert(PathBuf::from("/etc/fairlead/routes.d"), Digest::Unreadable);
        assert_eq!(tell("zebra.test", &machine).done(), Done::Unknown);
        machine.proxy = Err(NoStatus::Forbidden("/run/fairlead/admin.sock".into()));
        let story = tell("app.test", &machine);
        assert_step(&story, "loaded", Done::Unknown, "group fairlead");
        assert_eq!(story.done(), Done::Unknown);
    }

    #[test]
    fn a_route_that_is_not_loaded_needs_a_reload() {
        let mut machine = machine();
        let files = &mut status(&mut machine).loaded.files;
        files.insert(PathBuf::from(CONFIG), Digest::Sha256("older".to_owned()));
        let story = tell("own.test", &machine);
        assert_step(&story, "loaded", Done::No, "fairlead.toml has changed");
        assert!(
            story.conclusion.contains("fairlead reload"),
            "{}",
            story.conclusion
        );
        assert_eq!(tell("app.test", &machine).done(), Done::Yes, "its file is loaded");
    }

    #[test]
    fn a_refused_route_is_told_with_the_proxys_words() {
        let mut machine = machine();
        let refusal = Refusal {
            at: at(900),
            files: machine.digests.clone(),
            problems: vec![Problem::new(&PathBuf::from("/other.toml"), "not like this")],
        };
        let status = status(&mut machine);
        status.refusal = Some(refusal);
        status.loaded.files.remove(&PathBuf::from(DISCOVERY));
        let story = tell("app.test", &machine);
        assert_step(&story, "loaded", Done::No, "/other.toml: not like this");
        assert!(
            story.conclusion.contains("correct these files"),
            "{}",
            story.conclusion
        );
    }

    #[test]
    fn a_proxy_that_does_not_run_answers_nothing() {
        let mut machine = machine();
        machine.proxy = Err(NoStatus::Stopped);
        let story = tell("app.test", &machine);
        assert_step(&story, "loaded", Done::No, "does not run");
        assert!(
            story.conclusion.contains("systemctl start fairlead-proxy"),
            "{}",
            story.conclusion
        );
    }

    fn with_certificate(ledger: Option<Ledger>) -> Story {
        let mut machine = machine();
        machine.store = Store::of(ledger);
        status(&mut machine).loaded.names_without_certificate = vec!["app.test".to_owned()];
        tell("app.test", &machine)
    }

    #[test]
    fn a_missing_certificate_is_waited_for_or_explained() {
        let story = with_certificate(None);
        assert_step(&story, "certificate", Done::No, "waiting for the next pass");
        assert!(
            story.conclusion.contains("systemctl start fairlead-certs"),
            "{}",
            story.conclusion
        );

        let failure = Failure {
            issuer: Some("https://ca.test/directory".to_owned()),
            attempts: 1,
            since: at(900),
            last: at(900),
            error: "DNS problem: NXDOMAIN looking up A for app.test".to_owned(),
            next_try: at(1060),
            left_alone: BTreeMap::new(),
        };
        let story = with_certificate(Some(ledger(&["app.test"], None, Some(failure.clone()))));
        assert_step(&story, "certificate", Done::No, "NXDOMAIN");
        assert!(
            story.conclusion.contains("tried again") && story.conclusion.contains("in 60 s"),
            "{}",
            story.conclusion
        );

        let hindrance = Failure {
            issuer: None,
            error: "write \"accept-terms = true\"".to_owned(),
            ..failure
        };
        let story = with_certificate(Some(ledger(&["app.test"], None, Some(hindrance))));
        assert_step(&story, "certificate", Done::No, "accept-terms");
        assert!(
            story.conclusion.contains("change what the message names"),
            "{}",
            story.conclusion
        );
    }

    #[test]
    fn an_attempt_that_runs_is_waited_for_and_a_renewal_that_runs_hinders_nothing() {
        let begun = Failure {
            issuer: Some("https://ca.test/directory".to_owned()),
            attempts: 1,
            since: at(990),
            last: at(990),
            error: Failure::UNDER_WAY.to_owned(),
            next_try: at(1060),
            left_alone: BTreeMap::new(),
        };
        let story = with_certificate(Some(ledger(&["app.test"], None, Some(begun.clone()))));
        assert_step(&story, "certificate", Done::No, "an attempt began");
        assert!(story.conclusion.starts_with("Next: ask again in a moment"));
        let mut machine = machine();
        machine.store = Store::of([ledger(&["app.test"], Some(issued(900, 3000)), Some(begun))]);
        assert_eq!(tell("app.test", &machine).done(), Done::Yes);
    }

    #[test]
    fn a_failing_renewal_hinders_nothing_while_the_present_one_holds() {
        let mut machine = machine();
        let failure = Failure {
            issuer: Some("https://ca.test/directory".to_owned()),
            attempts: 3,
            since: at(900),
            last: at(900),
            error: "busy".to_owned(),
            next_try: at(1060),
            left_alone: BTreeMap::new(),
        };
        machine.store = Store::of([ledger(&["app.test"], Some(issued(900, 3000)), Some(failure))]);
        let story = tell("app.test", &machine);
        assert_step(&story, "certificate", Done::Yes, "busy");
        assert_eq!(story.done(), Done::Yes);
    }

    #[test]
    fn a_certificate_that_the_proxy_cannot_use_is_told_with_its_note() {
        let mut machine = machine();
        let chain = machine.paths.certificates_dir().join("app.test/fullchain.pem");
        let loaded = &mut status(&mut machine).loaded;
        loaded.names_without_certificate = vec!["app.test".to_owned()];
        loaded.notes = vec![Problem::new(&chain, "the key does not match")];
        let story = tell("app.test", &machine);
        assert_step(&story, "certificate", Done::No, "the key does not match");
    }

    #[test]
    fn a_new_certificate_that_is_not_loaded_yet_needs_a_reload() {
        let mut machine = machine();
        let chain = machine.paths.certificates_dir().join("app.test/fullchain.pem");
        machine.digests.insert(chain, Digest::Sha256("new".to_owned()));
        status(&mut machine).loaded.names_without_certificate = vec!["app.test".to_owned()];
        let story = tell("app.test", &machine);
        assert_step(&story, "certificate", Done::No, "the proxy has not loaded it yet");
        assert_eq!(story.conclusion, "Next: run fairlead reload.");
    }
}
