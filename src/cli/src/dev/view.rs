use std::collections::BTreeMap;
use std::path::Path;

use fairlead_contract::{Configuration, HostPattern, Located, Status, escaped};
use jiff::Timestamp;

use crate::certificates::Certificate;
use crate::routes::containers;

/// What a person sees: the sites that answer, and what stands in the way of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// By host, where it comes from.
    pub(super) sites: BTreeMap<String, String>,
    pub(super) faults: Vec<String>,
}

/// The sites of a snapshot that has these routes. A name without a certificate is not answered.
pub(super) fn sites(
    configuration: &Configuration,
    status: &Status,
    hello: &Path,
) -> BTreeMap<String, String> {
    let without = &status.loaded.names_without_certificate;
    let mut sites = BTreeMap::new();
    for located in &configuration.routes {
        let hosts = located.route.hosts.iter().map(HostPattern::to_string);
        for host in hosts.filter(|host| !without.contains(host)) {
            sites.insert(host, origin(located, hello));
        }
    }
    sites
}

fn origin(located: &Located, hello: &Path) -> String {
    let containers = containers(&located.route);
    if !containers.is_empty() {
        containers.join(", ")
    } else if *located.file == *hello {
        "the built-in site".to_owned()
    } else {
        escaped(&located.place())
    }
}

pub(super) fn rejections(configuration: &Configuration) -> Vec<String> {
    let rejections = configuration.rejections.iter();
    rejections
        .map(|rejection| {
            format!(
                "container {}: {}",
                escaped(&rejection.container),
                escaped(&rejection.reason)
            )
        })
        .collect()
}

pub(super) fn refusal(status: &Status) -> Vec<String> {
    let refusal = status.standing_refusal();
    let problems = refusal.iter().flat_map(|refusal| &refusal.problems);
    let notes = status.loaded.notes.iter();
    problems
        .chain(notes)
        .map(|problem| escaped(&problem.to_string()))
        .collect()
}

pub(super) fn failing(certificate: &Certificate) -> String {
    format!(
        "certificate {}: {}",
        certificate.name,
        certificate.describe(Timestamp::now())
    )
}

/// One line for each difference, with a hint for names that DNS does not send here.
pub(super) fn changes(before: &View, after: &View, port: u16, root: &Path) -> Vec<String> {
    let gone = before
        .sites
        .keys()
        .filter(|host| !after.sites.contains_key(*host));
    let gone = gone.map(|host| format!("- https://{host}:{port}/"));
    let come = after
        .sites
        .iter()
        .filter(|(host, origin)| before.sites.get(*host) != Some(origin));
    let come =
        come.map(|(host, origin)| format!("+ https://{host}:{port}/  {origin}{}", hint(host, port, root)));
    let new = after.faults.iter().filter(|fault| !before.faults.contains(fault));
    let new = new.map(|fault| format!("! {fault}"));
    let mended = before.faults.iter().filter(|fault| !after.faults.contains(fault));
    let mended = mended.map(|fault| format!("= no longer: {fault}"));
    gone.chain(come).chain(mended).chain(new).collect()
}

fn hint(host: &str, port: u16, root: &Path) -> String {
    if is_local(host) || host.starts_with("*.") {
        return String::new();
    }
    format!(
        "  (curl --resolve {host}:{port}:127.0.0.1 --cacert {} https://{host}:{port}/)",
        root.display()
    )
}

/// Whether curl and browsers look for the host here without asking DNS (RFC 6761 6.3).
pub(super) fn is_local(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(sites: &[(&str, &str)], faults: &[&str]) -> View {
        let sites = sites
            .iter()
            .map(|(host, origin)| ((*host).to_owned(), (*origin).to_owned()));
        View {
            sites: sites.collect(),
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
        }
    }

    #[test]
    fn each_difference_is_one_line() {
        let before = view(
            &[
                ("hello.localhost", "the built-in site"),
                ("b.localhost", "web-1"),
                ("c.localhost", "x"),
            ],
            &["container y: it has no port"],
        );
        let after = view(
            &[
                ("a.test", "web-3"),
                ("b.localhost", "web-2"),
                ("c.localhost", "x"),
            ],
            &["certificate d.localhost: failing"],
        );
        let root = Path::new("/ca.pem");
        assert_eq!(
            changes(&before, &after, 8443, root),
            [
                "- https://hello.localhost:8443/",
                "+ https://a.test:8443/  web-3  \
                 (curl --resolve a.test:8443:127.0.0.1 --cacert /ca.pem https://a.test:8443/)",
                "+ https://b.localhost:8443/  web-2",
                "= no longer: container y: it has no port",
                "! certificate d.localhost: failing",
            ]
        );
        assert_eq!(changes(&after, &after, 8443, root), [""; 0]);
    }
}
