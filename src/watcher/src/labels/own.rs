//! `fairlead.*`: the keys of a `[[route]]`, and where in the container it leads.

use fairlead_contract::{HostPattern, InvalidWord, Route, UpstreamWords, Words};

use super::{Claim, Dialect, Fault, Routes, WantedPort, parse_hosts, parse_port};
use crate::container::Labels;

pub(super) const DIALECT: Dialect = Dialect {
    prefix: PREFIX,
    hosts: HOSTS,
    tag: PROXYTAG,
    speaks,
    split,
    read,
};

const PREFIX: &str = "fairlead.";
const ROUTE: &str = "fairlead.route.";
const HOSTS: &str = "fairlead.hosts";
const PORT: &str = "fairlead.port";
const NETWORK: &str = "fairlead.network";
const PROXYTAG: &str = "fairlead.proxytag";
const REDIRECT_TO_PRIMARY: &str = "fairlead.redirect-to-primary";
/// How the watcher finds the upstream; no file says it.
const OWN: [&str; 3] = ["hosts", "port", "network"];
/// What no label says.
const NO_LABELS: [&str; 2] = ["upstreams", "waiting"];

fn speaks(labels: &Labels) -> bool {
    labels.keys().any(|label| label.starts_with(PREFIX))
}

/// `fairlead.route.NAME.WORD` is for the route NAME what `fairlead.WORD` is for the one without a name.
fn split(labels: &Labels) -> Routes {
    let mut routes = Routes::new();
    let of_routes = |label: &str| label.starts_with(PREFIX) && label != PROXYTAG;
    for (label, value) in labels.iter().filter(|(label, _)| of_routes(label)) {
        let named = label.strip_prefix(ROUTE).and_then(|label| label.split_once('.'));
        let (name, label) = match named {
            Some((name, word)) => (Some(name.to_owned()), format!("{PREFIX}{word}")),
            None => (None, label.clone()),
        };
        routes.entry(name).or_default().insert(label, value.clone());
    }
    routes
}

fn read(labels: &Labels) -> Result<Claim, Fault> {
    refuse_unknown(labels)?;
    let hosts = labels.get(HOSTS).ok_or(Fault::MissingHosts(HOSTS))?;
    let hosts = parse_hosts(HOSTS, hosts)?;
    let port = labels.get(PORT).map(|text| parse_port(PORT, text)).transpose()?;
    let upstream = words(labels, |word| of_upstream().contains(&word))
        .read()
        .map_err(faulty)?;
    let words = words(labels, |word| {
        !OWN.contains(&word) && !of_upstream().contains(&word)
    });
    let route = Route {
        hosts,
        ..words.read_route().map_err(faulty)?
    };
    refuse_redirect_to_wildcard(&route)?;
    refuse_redirect_to_itself(&route)?;
    Ok(Claim {
        hosts: route.hosts,
        port: port.map_or(
            WantedPort::Only {
                published_too: true,
                label: PORT,
            },
            WantedPort::Number,
        ),
        network: labels.get(NETWORK).cloned(),
        path: route.path,
        upstream,
        words,
        response_headers: Vec::new(),
    })
}

/// The words of the labels that are wanted, with their texts.
fn words(labels: &Labels, is_wanted: impl Fn(&str) -> bool) -> Words {
    let ours = labels
        .iter()
        .filter_map(|(label, text)| Some((label.strip_prefix(PREFIX)?, text.as_str())));
    ours.filter(|(word, _)| is_wanted(word)).collect()
}

fn of_upstream() -> &'static [&'static str] {
    Words::known::<UpstreamWords>()
}

fn faulty(fault: InvalidWord) -> Fault {
    match fault {
        InvalidWord::Together(fault) => Fault::Together {
            prefix: PREFIX,
            fault,
        },
        fault => Fault::Word {
            prefix: PREFIX,
            fault,
        },
    }
}

fn refuse_unknown(labels: &Labels) -> Result<(), Fault> {
    let of_route = Words::known::<Route>().iter();
    let known = of_route
        .chain(of_upstream())
        .chain(&OWN)
        .filter(|word| !NO_LABELS.contains(word));
    let is_known = |word: &str| known.clone().any(|known| *known == word);
    let ours = labels.keys().filter_map(|label| label.strip_prefix(PREFIX));
    let Some(unknown) = ours.into_iter().find(|word| !is_known(word)) else {
        return Ok(());
    };
    let likeness = |known: &str| strsim::jaro_winkler(unknown, known);
    let nearest = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Err(Fault::Unknown {
        unknown: format!("{PREFIX}{unknown}"),
        nearest: format!("{PREFIX}{}", nearest.unwrap_or(&"hosts")),
    })
}

fn refuse_redirect_to_wildcard(route: &Route) -> Result<(), Fault> {
    match &route.hosts[0] {
        primary @ HostPattern::Wildcard(_) if route.redirect_to_primary => Err(Fault::RedirectToWildcard {
            label: REDIRECT_TO_PRIMARY,
            primary: primary.clone(),
        }),
        _ => Ok(()),
    }
}

fn refuse_redirect_to_itself(route: &Route) -> Result<(), Fault> {
    match route.redirected_to_itself() {
        Some(host) => Err(Fault::Together {
            prefix: PREFIX,
            fault: format!("the redirect leads from {host} back to it"),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use fairlead_contract::{Docker, PathPrefix, Protocol};

    use super::super::read as read_all;
    use super::super::tests::{claim, fault, labels};
    use super::*;

    #[test]
    fn every_label_has_its_place_in_the_claim() {
        let expected = Claim {
            hosts: ["a.test", "www.a.test", "*.a.test"]
                .map(|host| HostPattern::parse(host).unwrap())
                .into(),
            port: WantedPort::Number(8080),
            network: Some("web".to_owned()),
            path: PathPrefix::parse("/api").unwrap(),
            upstream: UpstreamWords {
                scheme: Some(Protocol::H2c),
                weight: None,
                server_name: None,
                verify: None,
                proxy_protocol: None,
            },
            words: [
                ("path", "/api/"),
                ("provider", "internal"),
                ("redirect-to-primary", "true"),
            ]
            .into_iter()
            .collect(),
            response_headers: Vec::new(),
        };
        assert_eq!(
            claim(&[
                (HOSTS, "A.test, www.a.test *.a.test,a.test"),
                (PORT, "8080"),
                (NETWORK, "web"),
                ("fairlead.path", "/api/"),
                ("fairlead.scheme", "h2c"),
                ("fairlead.provider", "internal"),
                (REDIRECT_TO_PRIMARY, "true"),
            ]),
            Ok(expected)
        );
    }

    #[test]
    fn each_named_route_is_read_by_itself() {
        let all = labels(&[
            (HOSTS, "a.test"),
            ("fairlead.route.api.hosts", "api.test"),
            ("fairlead.route.api.port", "81"),
            ("fairlead.route.wrong.hosts", "w.test"),
            ("fairlead.route.wrong.prot", "81"),
            ("other", "x"),
        ]);
        let routes = read_all(&all, &Docker::default()).unwrap().routes;
        let names: Vec<_> = routes.iter().map(|asked| asked.name.as_deref()).collect();
        assert_eq!(names, [None, Some("api"), Some("wrong")]);
        let hosts: Vec<_> = routes.iter().map(|asked| asked.hosts[0].to_string()).collect();
        assert_eq!(hosts, ["a.test", "api.test", "w.test"]);
        assert_eq!(routes[1].claim.as_ref().unwrap().port, WantedPort::Number(81));
        assert!(!matches!(
            routes[0].claim.as_ref().unwrap().port,
            WantedPort::Number(_)
        ));
        assert!(matches!(routes[2].claim, Err(Fault::Unknown { .. })));
        for unnamed in ["fairlead.route", "fairlead.route.x"] {
            let fault = fault(&[(HOSTS, "a.test"), (unnamed, "x")]);
            assert!(fault.contains("is not a label of fairlead"), "{fault}");
        }
    }

    #[test]
    fn without_a_port_the_only_exposed_one_is_meant() {
        let only = WantedPort::Only {
            published_too: true,
            label: PORT,
        };
        assert_eq!(claim(&[(HOSTS, "a.test")]).unwrap().port, only);
    }

    #[test]
    fn faults_name_the_label_and_what_it_may_be() {
        for (label, value, expected) in [
            (
                "fairlead.host",
                "a.test",
                r#""fairlead.host" is not a label of fairlead: did you mean fairlead.hosts?"#,
            ),
            (
                "fairlead.redirect-primary",
                "true",
                r#""fairlead.redirect-primary" is not a label of fairlead: did you mean fairlead.redirect-to-primary?"#,
            ),
            (
                PORT,
                "bob",
                r#"the label fairlead.port = "bob" is not a port from 1 to 65535"#,
            ),
            (
                "fairlead.provider",
                "Acme",
                r#"the label fairlead.provider = "Acme": "Acme" is none of acme, internal and off, nor an authority's name, nor a table with fullchain and key"#,
            ),
            (
                REDIRECT_TO_PRIMARY,
                "yes",
                r#"the label fairlead.redirect-to-primary = "yes": it is neither true nor false"#,
            ),
        ] {
            assert_eq!(fault(&[(HOSTS, "a.test"), (label, value)]), expected);
        }
        for label in ["fairlead.upstreams", "fairlead.waiting"] {
            let fault = fault(&[(HOSTS, "a.test"), (label, "http://127.0.0.1:1")]);
            assert!(fault.contains("is not a label of fairlead"), "{fault}");
        }
        assert_eq!(
            fault(&[
                (HOSTS, "a.test"),
                ("fairlead.strip-prefix", "true"),
                ("fairlead.replace-prefix", "/x")
            ]),
            "the labels fairlead.*: strip-prefix and replace-prefix exclude each other: keep one"
        );
    }

    #[test]
    fn hosts_are_needed_and_each_must_be_one() {
        for (labels, expected) in [
            (
                [(PORT, "80")],
                "the label fairlead.hosts is missing: name the hosts there",
            ),
            ([(HOSTS, " , ")], "the label fairlead.hosts names no host"),
            (
                [(HOSTS, "a.test 10.0.0.1")],
                "the label fairlead.hosts: \"10.0.0.1\" is not a host name: IP addresses cannot be hosts",
            ),
        ] {
            assert_eq!(fault(&labels), expected);
        }
    }

    #[test]
    fn a_wildcard_cannot_be_redirected_to() {
        assert_eq!(
            fault(&[(HOSTS, "*.a.test a.test"), (REDIRECT_TO_PRIMARY, "true")]),
            "the label fairlead.redirect-to-primary needs an exact first host, and *.a.test is a wildcard"
        );
    }
}
