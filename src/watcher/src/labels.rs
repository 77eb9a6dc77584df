mod chameth;
mod own;

use std::collections::{BTreeMap, BTreeSet};

use fairlead_contract::{
    Docker, HeaderEdit, HostPattern, InvalidHeader, InvalidHost, InvalidWord, PathPrefix, Provider,
    UpstreamWords, Words,
};
use thiserror::Error;

use crate::container::{Labels, PROJECT, SERVICE};

const MAX_BYTES: usize = 16 * 1024;
const MAX_ROUTES: usize = 100;
/// How long the names of Compose's may be: they stand beside each host in the file.
const MAX_SERVICE: usize = 255;

/// All dialects, in the order in which they are tried.
const DIALECTS: [Dialect; 2] = [own::DIALECT, chameth::DIALECT];

/// One way to say in labels what a container serves.
struct Dialect {
    /// What its labels start with.
    prefix: &'static str,
    /// The label that names the hosts.
    hosts: &'static str,
    /// The label that names the instance, for all routes of the container.
    tag: &'static str,
    speaks: fn(&Labels) -> bool,
    /// The labels of each route, by its name if it has one.
    split: fn(&Labels) -> Routes,
    read: fn(&Labels) -> Result<Claim, Fault>,
}

type Routes = BTreeMap<Option<String>, Labels>;

/// What a container asks for with one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Not empty and none twice; the first one is the primary.
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) port: WantedPort,
    pub(crate) network: Option<String>,
    /// Which of the hosts' paths are meant.
    pub(crate) path: PathPrefix,
    pub(crate) upstream: UpstreamWords,
    /// What else it says of its route, right by itself.
    pub(crate) words: Words,
    pub(crate) response_headers: Vec<HeaderEdit>,
}

impl Claim {
    /// The hosts, and what else its certificate is to be for.
    pub(crate) fn names(&self) -> Vec<HostPattern> {
        let subject = self.words.read_route().map(|route| route.subject);
        [self.hosts.clone(), subject.unwrap_or_default()].concat()
    }

    /// Whether it asks for hosts that nobody names.
    pub(crate) fn is_fallback(&self) -> bool {
        self.words.read_route().is_ok_and(|route| route.fallback)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WantedPort {
    Number(u16),
    /// The only TCP port that is exposed; `label` would name another one.
    Only {
        published_too: bool,
        label: &'static str,
    },
}

/// What was found in a container's labels.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Never empty.
    pub(crate) routes: Vec<Asked>,
    /// What the labels that were passed over start with.
    pub(crate) ignored: Vec<&'static str>,
}

/// One route that a container asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// What the labels call it, where there are several.
    pub(crate) name: Option<String>,
    /// The hosts as far as they could be read, also of a claim with a fault.
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) claim: Result<Claim, Fault>,
}

impl Reading {
    /// The hosts of all routes, as far as they could be read.
    pub(crate) fn hosts(self) -> Vec<HostPattern> {
        distinct(self.routes.into_iter().flat_map(|asked| asked.hosts))
    }
}

/// Whether the labels are in any dialect.
pub(crate) fn are_ours(labels: &Labels) -> bool {
    DIALECTS.iter().any(|dialect| (dialect.speaks)(labels))
}

/// Reads the labels in the first dialect they speak; `None` if they speak none.
///
/// The others are never merged with it, not even if it is faulty: a container is exposed as its
/// owner asked or not at all.
pub(crate) fn read(labels: &Labels, docker: &Docker) -> Option<Reading> {
    let mut spoken = DIALECTS.iter().filter(|dialect| (dialect.speaks)(labels));
    let dialect = spoken.next()?;
    let (routes, checked) = match split(dialect, labels) {
        Ok(routes) => {
            let checked = check_characters(labels, dialect.prefix)
                .and_then(|()| check_service(labels))
                .and_then(|()| refuse_other_instances(labels, dialect.tag, docker));
            (routes, checked)
        }
        Err(fault) => ([(None, Labels::new())].into(), Err(fault)),
    };
    let asked = |(name, labels): (Option<String>, Labels)| Asked {
        name,
        hosts: readable_hosts(&labels, dialect.hosts),
        claim: checked.clone().and_then(|()| (dialect.read)(&labels)),
    };
    Some(Reading {
        routes: routes.into_iter().map(asked).collect(),
        ignored: spoken.map(|dialect| dialect.prefix).collect(),
    })
}

/// Labels are of reasonable length and number: anything else is a mistake or an attack, and nothing is kept of it.
fn split(dialect: &Dialect, labels: &Labels) -> Result<Routes, Fault> {
    let ours = labels
        .iter()
        .filter(|(label, _)| label.starts_with(dialect.prefix));
    if ours
        .map(|(label, value)| label.len() + value.len())
        .sum::<usize>()
        > MAX_BYTES
    {
        return Err(Fault::TooLong(dialect.prefix));
    }
    let routes = (dialect.split)(labels);
    match routes.len() {
        0..=MAX_ROUTES => Ok(routes),
        _ => Err(Fault::TooMany(dialect.prefix)),
    }
}

/// Labels are lines.
fn check_characters(labels: &Labels, prefix: &str) -> Result<(), Fault> {
    let mut ours = labels.iter().filter(|(label, _)| label.starts_with(prefix));
    let unclean = |text: &str| text.chars().any(char::is_control);
    match ours.find(|(label, value)| unclean(label) || unclean(value)) {
        Some((label, value)) => Err(Fault::ControlCharacter(label.clone(), value.clone())),
        None => Ok(()),
    }
}

fn check_service(labels: &Labels) -> Result<(), Fault> {
    let is_long = |label: &&str| labels.get(*label).is_some_and(|name| name.len() > MAX_SERVICE);
    match [PROJECT, SERVICE].into_iter().find(is_long) {
        Some(label) => Err(Fault::LongService(label)),
        None => Ok(()),
    }
}

fn refuse_other_instances(labels: &Labels, label: &'static str, docker: &Docker) -> Result<(), Fault> {
    let found = labels.get(label).map(String::as_str).unwrap_or_default();
    let wanted = docker.proxytag.as_deref().unwrap_or_default();
    if found == wanted {
        return Ok(());
    }
    Err(Fault::OtherInstance {
        label,
        found: found.to_owned(),
        wanted: wanted.to_owned(),
    })
}

fn readable_hosts(labels: &Labels, label: &str) -> Vec<HostPattern> {
    let text = labels.get(label).map(String::as_str).unwrap_or_default();
    distinct(names(text).filter_map(|name| HostPattern::parse(name).ok()))
}

fn parse_hosts(label: &'static str, text: &str) -> Result<Vec<HostPattern>, Fault> {
    let hosts: Vec<_> = names(text)
        .map(HostPattern::parse)
        .collect::<Result<_, _>>()
        .map_err(|source| Fault::Host(label, source))?;
    if hosts.is_empty() {
        return Err(Fault::NoHost(label));
    }
    Ok(distinct(hosts.into_iter()))
}

fn distinct(hosts: impl Iterator<Item = HostPattern>) -> Vec<HostPattern> {
    let mut seen = BTreeSet::new();
    hosts.filter(|host| seen.insert(host.clone())).collect()
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ']).filter(|name| !name.is_empty())
}

fn parse_port(label: &'static str, text: &str) -> Result<u16, Fault> {
    // A sign would pass the standard library's parser.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(Fault::Port(label, text.to_owned())),
    }
}

fn parse_provider(label: &'static str, text: &str) -> Result<Provider, Fault> {
    text.parse().map_err(|_| Fault::Provider(label, text.to_owned()))
}

/// Why a container's labels do not say what to do. Foreign words are shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Fault {
    #[error("the label {0:?} = {1:?} holds a line break or another control character: take it out")]
    ControlCharacter(String, String),
    #[error("the labels {0}* hold more than 16 KiB together: shorten them")]
    TooLong(&'static str),
    #[error("the labels {0}* ask for more than 100 routes: share them out among containers")]
    TooMany(&'static str),
    #[error("the label {0} holds more than 255 bytes: shorten it")]
    LongService(&'static str),
    #[error("{unknown:?} is not a label of fairlead: did you mean {nearest}?")]
    Unknown { unknown: String, nearest: String },
    #[error("the label {0} is missing: name the hosts there")]
    MissingHosts(&'static str),
    #[error("the label {0} names no host")]
    NoHost(&'static str),
    #[error("the label {0}: {1}")]
    Host(&'static str, InvalidHost),
    #[error("the label {0} = {1:?} is not a port from 1 to 65535")]
    Port(&'static str, String),
    #[error("the label {0} = {1:?} is none of acme, internal and off, nor an authority's name")]
    Provider(&'static str, String),
    #[error("the label {prefix}{fault}")]
    Word {
        prefix: &'static str,
        fault: InvalidWord,
    },
    #[error("the labels {prefix}*: {fault}")]
    Together { prefix: &'static str, fault: String },
    #[error("the label {label} needs an exact first host, and {primary} is a wildcard")]
    RedirectToWildcard {
        label: &'static str,
        primary: HostPattern,
    },
    #[error("the label {0:?} = {1:?} is not of the form `Name: value`")]
    HeaderForm(String, String),
    #[error("the label {0:?}: {1}")]
    Header(String, InvalidHeader),
    #[error("the labels {0} and {1} exclude each other: keep one")]
    Exclusive(&'static str, &'static str),
    #[error(
        "the label {0:?} = {1:?} is not the place of an error page: write com.chameth.errors.404 = HOST:PORT/PATH"
    )]
    ErrorPage(String, String),
    #[error("the label {label} is {found:?} and [docker] proxytag is {wanted:?}: it is for another instance")]
    OtherInstance {
        label: &'static str,
        found: String,
        wanted: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `LABEL=value` pairs as a container's labels.
    pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect()
    }

    pub(super) fn claim(pairs: &[(&str, &str)]) -> Result<Claim, Fault> {
        read(&labels(pairs), &Docker::default())
            .expect("the labels are in a dialect")
            .routes
            .remove(0)
            .claim
    }

    /// The fault as people read it.
    pub(super) fn fault(pairs: &[(&str, &str)]) -> String {
        claim(pairs).unwrap_err().to_string()
    }

    #[test]
    fn labels_of_others_are_not_ours() {
        for label in [
            "",
            "fairlead",
            "fairleads.hosts",
            "traefik.enable",
            "com.chameth.proxy",
        ] {
            assert_eq!(
                read(&labels(&[(label, "x")]), &Docker::default()),
                None,
                "{label}"
            );
        }
    }

    #[test]
    fn own_labels_come_first_and_are_not_merged() {
        let both = labels(&[
            ("fairlead.hosts", "own.test"),
            ("com.chameth.vhost", "other.test"),
            ("com.chameth.proxy", "81"),
        ]);
        let reading = read(&both, &Docker::default()).unwrap();
        let claim = reading.routes[0].claim.clone().unwrap();
        assert_eq!(claim.hosts, [HostPattern::parse("own.test").unwrap()]);
        assert!(!matches!(claim.port, WantedPort::Number(_)));
        assert_eq!(reading.ignored, ["com.chameth."]);
    }

    #[test]
    fn a_fault_in_own_labels_does_not_fall_back_to_others() {
        let both = labels(&[
            ("fairlead.hsots", "own.test"),
            ("com.chameth.vhost", "other.test"),
        ]);
        let reading = read(&both, &Docker::default()).unwrap();
        assert!(reading.routes[0].claim.is_err());
        assert_eq!(reading.hosts(), []);
    }

    #[test]
    fn control_characters_are_refused_and_shown_escaped() {
        for value in [
            "a.test\nb.test",
            "a.test\r",
            "a\u{1b}[31m.test",
            "a.test\u{85}",
            "a.test\u{0}",
        ] {
            let fault = fault(&[("fairlead.hosts", value)]);
            assert!(fault.contains("control character"), "{fault:?}");
            assert!(!fault.contains(char::is_control), "{fault:?}");
        }
        let fault = fault(&[("fairlead.hosts", "a.test"), ("fairlead.\u{7}", "")]);
        assert!(fault.contains(r#""fairlead.\u{7}""#), "{fault}");
    }

    #[test]
    fn hosts_of_a_faulty_claim_are_kept_as_far_as_they_can_be_read() {
        let faulty = labels(&[
            ("fairlead.hosts", "a.test, b c.test/x a.test"),
            ("fairlead.port", "0"),
        ]);
        let reading = read(&faulty, &Docker::default()).unwrap();
        assert!(reading.routes[0].claim.is_err());
        let hosts: Vec<String> = reading.hosts().iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["a.test", "b"]);
    }

    #[test]
    fn a_container_is_for_the_instance_that_has_its_tag() {
        let tagged = |tag: &str| Docker {
            proxytag: Some(tag.to_owned()),
            ..Docker::default()
        };
        for (hosts, tag) in [
            ("fairlead.hosts", "fairlead.proxytag"),
            ("fairlead.route.api.hosts", "fairlead.proxytag"),
            ("com.chameth.vhost", "com.chameth.proxytag"),
        ] {
            let mine = labels(&[(hosts, "a"), (tag, "mine")]);
            let bare = labels(&[(hosts, "a")]);
            let claims = |labels, docker: &Docker| read(labels, docker).unwrap().routes;
            assert_eq!(claims(&mine, &tagged("mine")).len(), 1, "{hosts}");
            assert!(claims(&mine, &tagged("mine"))[0].claim.is_ok(), "{hosts}");
            assert!(claims(&bare, &Docker::default())[0].claim.is_ok(), "{hosts}");
            for (labels, docker) in [
                (&mine, tagged("other")),
                (&mine, Docker::default()),
                (&bare, tagged("mine")),
            ] {
                let fault = claims(labels, &docker).remove(0).claim.unwrap_err();
                assert!(matches!(fault, Fault::OtherInstance { .. }), "{fault}");
            }
        }
    }

    #[test]
    fn labels_of_absurd_length_are_refused() {
        let long = "a.test ".repeat(3000);
        assert_eq!(
            fault(&[("fairlead.hosts", &long)]),
            "the labels fairlead.* hold more than 16 KiB together: shorten them"
        );
        let numbers: Vec<String> = (0..101).map(|number| format!("a{number}")).collect();
        let split = [
            ("com.chameth.vhost", &*numbers.join(",")),
            ("com.chameth.splithosts", "1"),
        ];
        assert_eq!(
            fault(&split),
            "the labels com.chameth.* ask for more than 100 routes: share them out among containers"
        );
        for faulty in [labels(&[("fairlead.hosts", &long)]), labels(&split)] {
            let reading = read(&faulty, &Docker::default()).unwrap();
            assert_eq!(reading.hosts(), [], "what is too much is not kept");
        }
        let long = "p".repeat(256);
        assert_eq!(
            fault(&[("fairlead.hosts", "a.test"), (PROJECT, &long)]),
            "the label com.docker.compose.project holds more than 255 bytes: shorten it"
        );
        assert!(claim(&[("fairlead.hosts", "a.test"), (SERVICE, &long[1..])]).is_ok());
    }
}
