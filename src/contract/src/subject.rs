use std::collections::{BTreeMap, BTreeSet};

use crate::{Challenge, Configuration, HostPattern, KeyType, Problem, Provider, Route};

/// What one certificate is for: the hosts of all routes with the same primary, the names that routes say,
/// a wildcard that routes share, or a part of any of these that is too large for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Never empty, none twice; the first one names it.
    pub hosts: Vec<HostPattern>,
    /// As the first route that names one says; `None` leaves it to `[certificates] provider`.
    pub provider: Option<Provider>,
    /// As the first route that names one says; `None` leaves it to `[acme] challenge`.
    pub challenge: Option<Challenge>,
    /// As the first route that names one says; `None` leaves it to `[certificates] key-type`.
    pub key_type: Option<KeyType>,
}

impl Subject {
    fn include(&mut self, part: Self) {
        for host in part.hosts {
            if !self.hosts.contains(&host) {
                self.hosts.push(host);
            }
        }
        self.provider = self.provider.take().or(part.provider);
        self.challenge = self.challenge.or(part.challenge);
        self.key_type = self.key_type.or(part.key_type);
    }

    fn answers_for(&self, host: &HostPattern) -> bool {
        self.hosts.iter().any(|name| name.includes(host))
    }

    /// Certificates of at most `max` names. A host that names one of its own (it is in `named`) is left to
    /// that one, so that no two have the same name.
    fn split(mut self, max: usize, named: &BTreeSet<HostPattern>) -> Vec<Self> {
        if self.hosts.len() <= max {
            return vec![self];
        }
        let hosts = std::mem::take(&mut self.hosts).into_iter().enumerate();
        let own = hosts.filter(|(index, host)| *index == 0 || !named.contains(host));
        let own: Vec<_> = own.map(|(_, host)| host).collect();
        let part = |hosts: &[HostPattern]| Self {
            hosts: hosts.to_vec(),
            ..self.clone()
        };
        own.chunks(max).map(part).collect()
    }
}

impl Configuration {
    /// The certificates that the routes ask for, in the order of the routes.
    pub fn subjects(&self) -> Vec<Subject> {
        let whole = self.whole_subjects();
        let named = whole.iter().map(|subject| subject.hosts[0].clone()).collect();
        let split = |subject: Subject| {
            let max = self.max_names(&subject);
            subject.split(max, &named)
        };
        whole.into_iter().flat_map(split).collect()
    }

    /// Of these, which [`Self::subjects`] gave, the one whose certificate answers for a route's host.
    pub fn subject_of<'a>(
        &self,
        subjects: &'a [Subject],
        route: &Route,
        host: &HostPattern,
    ) -> Option<&'a Subject> {
        let name = self.certificate_name(route, host);
        let mut named = subjects
            .iter()
            .filter(|subject| subject.hosts.first() == name.as_ref());
        let named = named.next();
        let answering = || subjects.iter().find(|subject| subject.answers_for(host));
        named
            .filter(|subject| subject.answers_for(host))
            .or_else(answering)
            .or(named)
    }

    /// A note for each route whose names are more than its authority takes in one certificate.
    pub(crate) fn find_splits(&self) -> Vec<Problem> {
        let subjects = self.whole_subjects().into_iter();
        let too_large = subjects.filter(|subject| self.max_names(subject) < subject.hosts.len());
        too_large
            .filter_map(|subject| self.describe_split(&subject))
            .collect()
    }

    fn describe_split(&self, subject: &Subject) -> Option<Problem> {
        let name = &subject.hosts[0];
        let mut asking = self.routes.iter().filter(|located| {
            let parts = self.parts(&located.route);
            parts.iter().any(|part| part.hosts.first() == Some(name))
        });
        let located = asking.next()?;
        let message = format!(
            "the certificate named {name} would have {} names, and its authority takes {} (max-names): \
             it is split into several",
            subject.hosts.len(),
            self.max_names(subject),
        );
        Some(Problem::at(&located.file, located.position, message))
    }

    fn whole_subjects(&self) -> Vec<Subject> {
        let mut index = BTreeMap::new();
        let mut subjects = Vec::new();
        for part in self.routes.iter().flat_map(|located| self.parts(&located.route)) {
            let subject = *index.entry(part.hosts[0].clone()).or_insert(subjects.len());
            if subject == subjects.len() {
                subjects.push(Subject::default());
            }
            subjects[subject].include(part);
        }
        subjects
    }

    /// Only an ACME server has a limit.
    fn max_names(&self, subject: &Subject) -> usize {
        let provider = subject.provider.as_ref();
        let authority = self
            .config
            .authority(provider.unwrap_or(&self.config.certificates.provider));
        authority.map_or(usize::MAX, |acme| acme.max_names.get().into())
    }

    /// The name of the certificate that a route asks for to answer for one of its hosts, before it is split.
    fn certificate_name(&self, route: &Route, host: &HostPattern) -> Option<HostPattern> {
        let mut own = route
            .subject
            .iter()
            .chain(&route.hosts)
            .filter(|host| self.shared(route, host).is_none());
        self.shared(route, host).or_else(|| own.next().cloned())
    }

    /// What a route asks for: the certificates that its hosts share with others, and one for the rest.
    fn parts(&self, route: &Route) -> Vec<Subject> {
        let mut own = Subject {
            hosts: route.subject.clone(),
            provider: route.provider.clone(),
            challenge: route.challenge,
            key_type: route.key_type,
        };
        let mut parts = Vec::new();
        for host in &route.hosts {
            match self.shared(route, host) {
                Some(wildcard) => parts.push(Subject {
                    hosts: vec![wildcard],
                    ..Subject::default()
                }),
                None if own.answers_for(host) => {}
                None => own.hosts.push(host.clone()),
            }
        }
        parts.extend((!own.hosts.is_empty()).then_some(own));
        parts
    }

    /// A route that says something of its certificate gets one of its own.
    fn shared(&self, route: &Route, host: &HostPattern) -> Option<HostPattern> {
        let says_nothing = route.provider.is_none()
            && route.challenge.is_none()
            && route.key_type.is_none()
            && route.subject.is_empty();
        says_nothing
            .then(|| self.config.certificates.shared(host))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::Files;

    use super::*;

    fn parse(config: &str, routes: &str) -> Configuration {
        let source = |name: &str, text: &str| (PathBuf::from(name), Ok(text.as_bytes().to_vec()));
        Configuration::parse(&Files {
            config: Some(source("fairlead.toml", config)),
            routes: vec![source("r.toml", routes)],
            ..Files::default()
        })
    }

    fn route(hosts: &str, more: &str) -> String {
        format!("[[route]]\nhosts = [{hosts}]\nupstreams = [\"http://127.0.0.1:80\"]\n{more}\n")
    }

    fn names(configuration: &Configuration) -> Vec<Vec<String>> {
        let subjects = configuration.subjects().into_iter();
        let names = |subject: Subject| subject.hosts.iter().map(ToString::to_string).collect();
        subjects.map(names).collect()
    }

    fn name_for(configuration: &Configuration, route: usize, host: &str) -> String {
        let host = HostPattern::parse(host).unwrap();
        let subjects = configuration.subjects();
        let route = &configuration.routes[route].route;
        let subject = configuration.subject_of(&subjects, route, &host).unwrap();
        subject.hosts[0].to_string()
    }

    #[test]
    fn direct_subdomains_share_a_certificate_unless_their_route_wants_its_own() {
        let config = "[certificates]\nwildcards = [\"a.test\"]\n";
        let routes = [
            route("\"x.a.test\", \"other.test\", \"a.test\"", ""),
            route("\"y.a.test\"", ""),
            route("\"*.a.test\"", ""),
            route("\"deep.x.a.test\"", ""),
            route("\"own.a.test\"", "key-type = \"rsa2048\""),
        ];
        let configuration = parse(config, &routes.concat());
        assert_eq!(configuration.problems, []);
        let expected = [
            &["*.a.test"][..],
            &["other.test", "a.test"],
            &["deep.x.a.test"],
            &["own.a.test"],
        ];
        assert_eq!(names(&configuration), expected);
        for (route, host, expected) in [
            (0, "x.a.test", "*.a.test"),
            (0, "a.test", "other.test"),
            (1, "y.a.test", "*.a.test"),
            (4, "own.a.test", "own.a.test"),
        ] {
            assert_eq!(name_for(&configuration, route, host), expected);
        }
    }

    #[test]
    fn a_route_says_the_names_of_its_certificate_and_shares_it_with_those_that_say_the_same_first() {
        let routes = [
            route("\"x.a.test\"", "subject = [\"*.a.test\", \"a.test\"]"),
            route("\"y.a.test\", \"other.test\"", "subject = [\"*.a.test\"]"),
            route("\"a.test\"", "subject = [\"*.a.test\", \"a.test\"]"),
            route("\"z.a.test\"", ""),
        ];
        let configuration = parse("[certificates]\nwildcards = [\"other.test\"]\n", &routes.concat());
        assert_eq!(configuration.problems, []);
        let expected = [&["*.a.test", "a.test", "other.test"][..], &["z.a.test"]];
        assert_eq!(names(&configuration), expected);
        for (route, host, expected) in [
            (0, "x.a.test", "*.a.test"),
            (1, "other.test", "*.a.test"),
            (2, "a.test", "*.a.test"),
            (3, "z.a.test", "z.a.test"),
        ] {
            assert_eq!(name_for(&configuration, route, host), expected);
        }
    }

    #[test]
    fn names_that_are_too_many_for_the_authority_are_split_with_a_note_and_those_of_others_left_to_them() {
        let config = "[acme]\nmax-names = 2\n";
        let five = route("\"a.test\", \"b.test\", \"c.test\", \"d.test\", \"e.test\"", "");
        let other = route("\"c.test\"", "path = \"/c\"");
        let configuration = parse(config, &(five.clone() + &other));
        let expected = [&["a.test", "b.test"][..], &["d.test", "e.test"], &["c.test"]];
        assert_eq!(names(&configuration), expected);
        let notes: Vec<_> = configuration.notes.iter().map(ToString::to_string).collect();
        let note = "r.toml:1:1: the certificate named a.test would have 5 names, and its authority takes 2 \
                    (max-names): it is split into several";
        assert_eq!(notes, [note]);
        for (route, host, expected) in [
            (0, "b.test", "a.test"),
            (0, "c.test", "c.test"),
            (0, "e.test", "d.test"),
            (1, "c.test", "c.test"),
        ] {
            assert_eq!(name_for(&configuration, route, host), expected);
        }
        let internal = "[certificates]\nprovider = \"internal\"\n";
        for config in [internal, "[acme]\nmax-names = 5\n", ""] {
            let configuration = parse(config, &five);
            assert_eq!(names(&configuration).len(), 1, "{config}");
            assert_eq!(configuration.notes, [], "{config}");
        }
    }
}
