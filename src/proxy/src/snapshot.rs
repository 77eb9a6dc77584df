use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fairlead_contract::{
    CertificateDir, Config, Configuration, CookieName, Digest, FieldName, Files, HeaderEdit, HealthCheck,
    Host, HostPattern, Identity, Loaded, Located, Problem, Proxy, ProxyProtocol, Route, Upstream,
    UpstreamUrl,
};
use http::HeaderName;
use jiff::Timestamp;

use crate::balance::Peers;
use crate::certificate::Certificate;
use crate::checks::Check;
use crate::dial::{Dial, DialError};
use crate::dispatch::Dispatch;
use crate::error_pages::ErrorPages;
use crate::guard::Guard;
use crate::helper::Helper;
use crate::paths::{AmbiguousPath, ByPath};
use crate::pool::Peer;
use crate::sticky::Sticky;

/// Everything requests are answered from. Immutable; a reload swaps it whole.
pub(crate) struct Snapshot {
    pub(crate) config: Config,
    sites: ByHost<ByPath<Arc<Site>>>,
    /// For hosts that no route names.
    fallback: Option<ByPath<Arc<Site>>>,
    /// Those whose upstreams are asked whether they are well.
    checked: Vec<Arc<Site>>,
    peers: HashMap<PeerKey, Arc<Peer>>,
    certificates: BTreeMap<CertificateDir, Arc<Certificate>>,
    by_name: ByHost<Arc<Certificate>>,
    pub(crate) loaded: Loaded,
}

/// A route and the upstreams it names, in their order.
pub(crate) struct Site {
    pub(crate) route: Route,
    pub(crate) peers: Peers,
    pub(crate) sticky: Option<Sticky>,
    pub(crate) guard: Option<Guard>,
    pub(crate) error_pages: Option<ErrorPages>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    /// Fields of requests that are the route's to set, and not its clients'.
    pub(crate) own_fields: Vec<HeaderName>,
}

impl Site {
    /// `find` knows the peer of every upstream and helper that could be set up.
    fn new(route: Route, find: impl Fn(&Upstream) -> Option<Arc<Peer>>, settings: &Proxy) -> Self {
        let upstreams = route.upstreams.iter();
        let peers =
            Peers::new(upstreams.filter_map(|upstream| Some((find(upstream)?, upstream.weight.get()))));
        let sticky = |cookie: &CookieName| Sticky::new(cookie.clone(), route.path.clone(), peers.iter());
        Self {
            sticky: route.sticky.as_ref().map(sticky),
            guard: Guard::new(&route, &find),
            error_pages: ErrorPages::new(&route.errors, &find),
            connect_timeout: route.connect_timeout.unwrap_or(settings.connect_timeout).get(),
            response_timeout: route.response_timeout.unwrap_or(settings.response_timeout).get(),
            stall_timeout: settings.stall_timeout.get(),
            own_fields: own_fields(&route),
            route,
            peers,
        }
    }

    /// Whether it is `before` after a reload that gave it further upstreams and changed nothing else: who has been
    /// admitted to that one is admitted to this one.
    pub(crate) fn succeeds(&self, before: &Self) -> bool {
        let is_new = |upstream| !before.route.upstreams.contains(upstream);
        let otherwise = Route {
            upstreams: before.route.upstreams.clone(),
            waiting: before.route.waiting.clone(),
            ..self.route.clone()
        };
        self.route.upstreams.iter().any(is_new) && otherwise == before.route
    }

    fn checks(&self) -> Vec<Check> {
        let Some(HealthCheck { path, interval }) = &self.route.health_check else {
            return Vec::new();
        };
        let host = self.route.hosts.iter().find_map(|host| match host {
            HostPattern::Exact(host) => Some(host),
            HostPattern::Wildcard(_) => None,
        });
        let check = |peer: &Arc<Peer>| {
            let helper = Helper::of(peer.clone(), host);
            Check::new(peer.clone(), helper, path.get().clone().into(), interval.get())
        };
        self.peers.iter().map(check).collect()
    }

    pub(crate) fn dispatch<'a>(&'a self, home: Option<&'a Arc<Peer>>) -> Dispatch<'a> {
        Dispatch {
            hearing: None,
            link: None,
            route: self.route.primary(),
            peers: &self.peers,
            home,
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout,
            stall_timeout: self.stall_timeout,
        }
    }
}

fn own_fields(route: &Route) -> Vec<HeaderName> {
    let vouched = route.forward_auth.iter().flat_map(|auth| &auth.copy_headers);
    let edited = route.request_headers.iter().map(HeaderEdit::name);
    vouched.map(FieldName::get).chain(edited).cloned().collect()
}

/// What makes an upstream the same one after a reload: where it is, whom we expect there, and what we say first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PeerKey {
    url: UpstreamUrl,
    identity: Identity,
    proxy_protocol: Option<ProxyProtocol>,
    /// The authorities' file.
    roots: Option<Vec<u8>>,
}

/// A snapshot made from files, and what is wrong with them.
pub(crate) struct Built {
    pub(crate) snapshot: Snapshot,
    /// With any of these, a snapshot that serves already is better than this one.
    pub(crate) problems: Vec<Problem>,
    pub(crate) files: BTreeMap<PathBuf, Digest>,
}

impl Snapshot {
    pub(crate) fn build(files: &Files, previous: Option<&Self>, now: Timestamp) -> Built {
        let Configuration {
            config,
            routes,
            mut problems,
            mut notes,
            rejections,
            ..
        } = Configuration::parse(files);
        problems.extend(
            previous
                .iter()
                .flat_map(|previous| previous.gone_directories(files)),
        );
        let certificates = load_certificates(files, previous, &mut notes);
        let mut by_name = ByHost::default();
        for certificate in certificates.values() {
            for name in &certificate.names {
                by_name.insert_if(name, certificate.clone(), |present| {
                    present.not_after < certificate.not_after
                });
            }
        }
        let count = routes.len();
        let authorities = Authorities::read(files, &mut problems);
        let peers = find_peers(&routes, &authorities, previous, &mut problems);
        let mut sites = ByHost::<ByPath<_>>::default();
        let mut fallback = None;
        let mut checked = Vec::new();
        for Located { route, .. } in routes {
            let find = |upstream: &Upstream| peers.get(&authorities.key(upstream)?).cloned();
            let site = Arc::new(Site::new(route, find, &config.proxy));
            for host in &site.route.hosts {
                sites.entry(host).insert(site.route.path.clone(), site.clone());
            }
            if site.route.health_check.is_some() {
                checked.push(site.clone());
            }
            if site.route.fallback {
                fallback = Some(ByPath::of(site.route.path.clone(), site));
            }
        }
        let digests = files.digests();
        let mut snapshot = Self {
            config,
            loaded: Loaded {
                at: now,
                files: digests.clone(),
                routes: count,
                certificates: certificates.len(),
                containers_left_out: rejections.len(),
                names_without_certificate: Vec::new(),
                notes,
            },
            sites,
            fallback,
            checked,
            peers,
            certificates,
            by_name,
        };
        snapshot.loaded.names_without_certificate = snapshot.names_without_certificate();
        Built {
            snapshot,
            problems,
            files: digests,
        }
    }

    /// The route of a request. The routes that name its host exactly decide, else the wildcard's, else
    /// the fallback; of them the one with the longest path that fits.
    pub(crate) fn site(&self, host: &Host, path: &str) -> Result<Option<&Arc<Site>>, AmbiguousPath> {
        self.sites_of(host).map_or(Ok(None), |sites| sites.find(path))
    }

    /// For an undeclared host there is the fallback, as long as a certificate covers it.
    fn sites_of(&self, host: &Host) -> Option<&ByPath<Arc<Site>>> {
        let fallback = || {
            self.fallback
                .as_ref()
                .filter(|_| self.by_name.find(host).is_some())
        };
        self.sites.find(host).or_else(fallback)
    }

    /// Returns the certificate for the name the client asked for (SNI): one for the very name, or a
    /// wildcard's, if that one has ended and the wildcard's has not.
    ///
    /// `None` ends the handshake: no route is for the name, or we hold no certificate for it. There is
    /// no default certificate, because it would reveal which other sites share this address.
    pub(crate) fn certificate(&self, host: &Host) -> Option<&Arc<Certificate>> {
        self.sites_of(host)?;
        let now = Timestamp::now();
        let holds = |certificate: &&Arc<Certificate>| now < certificate.not_after;
        let mut of_host = self.by_name.all(host);
        of_host.clone().find(holds).or_else(|| of_host.next())
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.certificates.values()
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.values()
    }

    /// The URLs of those that failed when they were last asked, in order.
    pub(crate) fn failing_upstreams(&self) -> Vec<String> {
        let failing = self.peers().filter(|peer| !peer.health.is_good());
        let mut urls: Vec<_> = failing.map(|peer| peer.url().to_string()).collect();
        urls.sort();
        urls.dedup();
        urls
    }

    /// What the upstreams of all routes are to be asked. Of one that is not asked any more, it is forgotten
    /// what it said.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let checks: Vec<_> = self.checked.iter().flat_map(|site| site.checks()).collect();
        let asked: HashSet<_> = checks.iter().map(|check| Arc::as_ptr(check.peer())).collect();
        for peer in self.peers().filter(|peer| !asked.contains(&Arc::as_ptr(peer))) {
            peer.health.forget_checks();
        }
        checks
    }

    /// Directories that this was loaded from and that are not there any more: as when something is moved or not
    /// mounted, which nobody means as the end of all its sites.
    fn gone_directories(&self, files: &Files) -> impl Iterator<Item = Problem> {
        let count = |directory: &PathBuf| {
            let loaded = self.loaded.files.keys();
            loaded.filter(|file| file.starts_with(directory)).count()
        };
        let gone = files
            .absent
            .iter()
            .map(move |directory| (directory, count(directory)));
        gone.filter(|(_, count)| *count > 0).map(|(directory, count)| {
            let message = format!(
                "the directory is gone, and {count} of its files are loaded: put it back, or make an empty one if they \
                 are to go"
            );
            Problem::new(directory, message)
        })
    }

    fn names_without_certificate(&self) -> Vec<String> {
        let exact = self
            .sites
            .exact
            .keys()
            .filter(|host| self.by_name.find(host).is_none());
        let wildcard = self
            .sites
            .wildcard
            .keys()
            .filter(|parent| !self.by_name.wildcard.contains_key(*parent));
        let mut names: Vec<String> = exact
            .map(ToString::to_string)
            .chain(wildcard.map(|parent| format!("*.{parent}")))
            .collect();
        names.sort();
        names
    }
}

/// The files of authorities that could be read.
struct Authorities<'a>(HashMap<&'a Path, &'a [u8]>);

impl<'a> Authorities<'a> {
    fn read(files: &'a Files, problems: &mut Vec<Problem>) -> Self {
        let mut read = HashMap::new();
        for (path, content) in &files.authorities {
            match content {
                Ok(content) => {
                    read.insert(path.as_path(), content.as_slice());
                }
                Err(error) => {
                    problems.push(Problem::new(path, format!("cannot be read: {}", error.reason())));
                }
            }
        }
        Self(read)
    }

    /// `None` if the file of its authorities could not be read.
    fn key(&self, upstream: &Upstream) -> Option<PeerKey> {
        let roots = match upstream.identity.roots() {
            Some(path) => Some(self.0.get(path)?.to_vec()),
            None => None,
        };
        Some(PeerKey {
            url: upstream.url.clone(),
            identity: upstream.identity.clone(),
            proxy_protocol: upstream.proxy_protocol,
            roots,
        })
    }
}

/// An upstream that was known before is the same one, with its connections.
fn find_peers(
    routes: &[Located],
    authorities: &Authorities<'_>,
    previous: Option<&Snapshot>,
    problems: &mut Vec<Problem>,
) -> HashMap<PeerKey, Arc<Peer>> {
    let mut peers = HashMap::new();
    for located in routes {
        for upstream in located.route.upstreams.iter().chain(&located.route.helpers()) {
            let Some(key) = authorities.key(upstream).filter(|key| !peers.contains_key(key)) else {
                continue;
            };
            let known = previous.and_then(|previous| previous.peers.get(&key).cloned());
            match known.map_or_else(
                || {
                    Dial::new(upstream, key.roots.as_deref())
                        .map(Peer::new)
                        .map(Arc::new)
                },
                Ok,
            ) {
                Ok(peer) => {
                    peers.insert(key, peer);
                }
                Err(error) => problems.push(undialable(located, upstream, &error)),
            }
        }
    }
    peers
}

/// The fault is in the file that the upstream names, or else in what its route says.
fn undialable(located: &Located, upstream: &Upstream, error: &DialError) -> Problem {
    match upstream.identity.roots() {
        Some(file) if matches!(error, DialError::Roots) => Problem::new(file, error.to_string()),
        _ => Problem::at(
            &located.file,
            located.position,
            format!("{}: {error}", upstream.url),
        ),
    }
}

/// A pair that cannot be used leaves the one that was held for its directory in use.
fn load_certificates(
    files: &Files,
    previous: Option<&Snapshot>,
    notes: &mut Vec<Problem>,
) -> BTreeMap<CertificateDir, Arc<Certificate>> {
    let mut certificates = BTreeMap::new();
    for pair in &files.pairs {
        let held = previous.and_then(|previous| previous.certificates.get(&pair.directory));
        let certificate = Certificate::load(pair, held).or_else(|problem| {
            notes.push(problem);
            held.cloned().ok_or(())
        });
        if let Ok(certificate) = certificate {
            certificates.insert(pair.directory.clone(), certificate);
        }
    }
    certificates
}

/// Values by host name; exact names come before wildcards.
struct ByHost<T> {
    exact: HashMap<Host, T>,
    /// By what stands behind `*.`.
    wildcard: HashMap<Box<str>, T>,
}

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        }
    }
}

impl<T: Default> ByHost<T> {
    fn entry(&mut self, pattern: &HostPattern) -> &mut T {
        match pattern {
            HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
            HostPattern::Wildcard(parent) => self.wildcard.entry(parent.as_str().into()).or_default(),
        }
    }
}

impl<T> ByHost<T> {
    fn find(&self, host: &Host) -> Option<&T> {
        self.all(host).next()
    }

    fn all(&self, host: &Host) -> impl Iterator<Item = &T> + Clone {
        let by_wildcard = host.parent().and_then(|parent| self.wildcard.get(parent));
        self.exact.get(host).into_iter().chain(by_wildcard)
    }

    /// Keeps what is there unless `replaces` says of it that the new value is better.
    fn insert_if(&mut self, pattern: &HostPattern, value: T, replaces: impl Fn(&T) -> bool) {
        let present = match pattern {
            HostPattern::Exact(host) => self.exact.get(host),
            HostPattern::Wildcard(parent) => self.wildcard.get(parent.as_str()),
        };
        if present.is_some_and(|present| !replaces(present)) {
            return;
        }
        match pattern {
            HostPattern::Exact(host) => self.exact.insert(host.clone(), value),
            HostPattern::Wildcard(parent) => self.wildcard.insert(parent.as_str().into(), value),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::*;
    use crate::certificate::tests::pair;

    fn files(routes: &[(&[&str], u16)]) -> Files {
        let route = |(hosts, port): &(&[&str], u16)| {
            format!("[[route]]\nhosts = {hosts:?}\nupstreams = [\"http://127.0.0.1:{port}\"]\n")
        };
        let text: String = routes.iter().map(route).collect();
        Files {
            routes: vec![("routes.d/a.toml".into(), Ok(text.into_bytes()))],
            ..Files::default()
        }
    }

    fn build(files: &Files, previous: Option<&Snapshot>) -> Snapshot {
        let built = Snapshot::build(files, previous, Timestamp::UNIX_EPOCH);
        assert_eq!(built.problems, []);
        built.snapshot
    }

    fn shown(snapshot: &Snapshot, host: &str) -> Option<String> {
        let certificate = snapshot.certificate(&Host::parse(host).unwrap())?;
        Some(certificate.name())
    }

    fn site(snapshot: &Snapshot, host: &str) -> Arc<Site> {
        let found = snapshot.site(&Host::parse(host).unwrap(), "/");
        found.unwrap().unwrap().clone()
    }

    #[test]
    fn an_exact_name_comes_before_a_wildcard() {
        let mut table = ByHost::default();
        for pattern in ["*.a.test", "b.a.test", "*.b.a.test"] {
            table.insert_if(&HostPattern::parse(pattern).unwrap(), pattern, |_| false);
        }
        let find = |name| table.find(&Host::parse(name).unwrap()).copied();
        assert_eq!(find("b.a.test"), Some("b.a.test"));
        assert_eq!(find("c.a.test"), Some("*.a.test"));
        assert_eq!(find("x.b.a.test"), Some("*.b.a.test"));
        assert_eq!(find("a.test"), None);
        assert_eq!(find("x.c.a.test"), None);
    }

    #[test]
    fn a_certificate_is_shown_for_declared_hosts_alone() {
        let mut files = files(&[(&["a.test", "bare.test", "*.w.test", "x.w.test"], 1)]);
        files.pairs = vec![
            pair("both", &["a.test", "undeclared.test"], 2099),
            pair("wild", &["*.w.test"], 2099),
            pair("x", &["x.w.test"], 2050),
        ];
        let snapshot = build(&files, None);
        assert_eq!(shown(&snapshot, "a.test").as_deref(), Some("both"));
        assert_eq!(shown(&snapshot, "y.w.test").as_deref(), Some("wild"));
        assert_eq!(shown(&snapshot, "x.w.test").as_deref(), Some("x"));
        for without in ["undeclared.test", "bare.test", "w.test", "x.y.w.test"] {
            assert_eq!(shown(&snapshot, without), None, "{without}");
        }
        assert_eq!(snapshot.loaded.names_without_certificate, ["bare.test"]);
    }

    #[test]
    fn one_that_has_ended_does_not_hide_the_wildcard_s() {
        let mut files = files(&[(&["x.w.test"], 1)]);
        for (exact, wildcard, expected) in [
            (2050, 2099, "exact"),
            (2020, 2099, "wildcard"),
            (2020, 2021, "exact"),
        ] {
            files.pairs = vec![
                pair("exact", &["x.w.test"], exact),
                pair("wildcard", &["*.w.test"], wildcard),
            ];
            let shown = shown(&build(&files, None), "x.w.test");
            assert_eq!(shown.as_deref(), Some(expected), "{exact} {wildcard}");
        }
    }

    #[test]
    fn of_two_certificates_the_one_that_lasts_longer_is_shown() {
        let mut files = files(&[(&["a.test"], 1)]);
        for years in [[2050, 2060, 2040], [2060, 2050, 2040], [2040, 2050, 2060]] {
            let named = years.map(|year| pair(&year.to_string(), &["a.test"], year));
            files.pairs = named.into();
            assert_eq!(shown(&build(&files, None), "a.test").as_deref(), Some("2060"));
        }
    }

    #[test]
    fn a_pair_that_went_bad_leaves_the_one_before() {
        let mut files = files(&[(&["a.test"], 1)]);
        files.pairs = vec![pair("a.test", &["a.test"], 2099)];
        let first = build(&files, None);
        files.pairs[0].key = pair("a.test", &["a.test"], 2099).key;
        let second = build(&files, Some(&first));
        let held = |snapshot: &Snapshot| snapshot.certificates().next().cloned().unwrap();
        assert!(Arc::ptr_eq(&held(&first), &held(&second)));
        assert_eq!(second.loaded.notes.len(), 1);
        assert_eq!(shown(&build(&files, None), "a.test"), None);
    }

    const PATTERNS: [&str; 6] = ["a.test", "b.a.test", "b.test", "*.a.test", "*.b.a.test", "*.test"];
    const SEGMENTS: [&str; 4] = ["a", "b", "ab", "a.b"];

    /// A route as the model knows it: whose, where, and nothing of tables.
    #[derive(Clone, Debug)]
    struct Drawn {
        hosts: Vec<&'static str>,
        path: Vec<&'static str>,
    }

    fn segments(most: usize) -> impl Strategy<Value = Vec<&'static str>> {
        vec(select(&SEGMENTS[..]), 0..=most)
    }

    fn drawn() -> impl Strategy<Value = Drawn> {
        (subsequence(PATTERNS.to_vec(), 1..=3), segments(3)).prop_map(|(hosts, path)| Drawn { hosts, path })
    }

    fn written(routes: &[Drawn], has_fallback: bool) -> Files {
        let route = |(number, Drawn { hosts, path }): (usize, &Drawn)| {
            let (path, fallback) = (path.join("/"), has_fallback && number == 0);
            format!(
                "[[route]]\nhosts = {hosts:?}\npath = \"/{path}\"\nfallback = {fallback}\n\
                 upstreams = [\"http://127.0.0.1:{}\"]\n",
                number + 1
            )
        };
        let text: String = routes.iter().enumerate().map(route).collect();
        Files {
            routes: vec![("routes.d/a.toml".into(), Ok(text.into_bytes()))],
            pairs: vec![pair("covered", &["*.covered.test"], 2099)],
            ..Files::default()
        }
    }

    fn names_wildcard_of(pattern: &str, host: &str) -> bool {
        let labels: Vec<&str> = host.split('.').collect();
        pattern.split('.').eq([&["*"], &labels[1..]].concat())
    }

    /// The number of the route that is to answer.
    fn expected(routes: &[Drawn], has_fallback: bool, host: &str, path: &[&str]) -> Option<usize> {
        let numbers = || routes.iter().enumerate();
        let of = |names: &dyn Fn(&str) -> bool| -> Vec<(usize, &Drawn)> {
            numbers()
                .filter(|(_, route)| route.hosts.iter().any(|pattern| names(pattern)))
                .collect()
        };
        let (exact, wildcard) = (
            of(&|name| name == host),
            of(&|name| names_wildcard_of(name, host)),
        );
        let candidates = if !exact.is_empty() {
            exact
        } else if !wildcard.is_empty() {
            wildcard
        } else if has_fallback && names_wildcard_of("*.covered.test", host) {
            numbers().take(1).collect()
        } else {
            Vec::new()
        };
        // Of two for the same place the first keeps it.
        let fitting = candidates
            .into_iter()
            .rev()
            .filter(|(_, route)| path.starts_with(&route.path));
        fitting
            .max_by_key(|(_, route)| route.path.len())
            .map(|(number, _)| number)
    }

    const HOSTS: [&str; 10] = [
        "a.test",
        "b.a.test",
        "c.a.test",
        "x.b.a.test",
        "b.test",
        "c.test",
        "x.covered.test",
        "covered.test",
        "x.y.covered.test",
        "b.a.other",
    ];

    proptest! {
        /// The model compares lists of labels and of segments, one route after the other.
        #[test]
        fn finding_a_route_agrees_with_a_naive_model(
            routes in vec(drawn(), 1..8),
            has_fallback: bool,
            asked in vec((select(&HOSTS[..]), segments(5), select(&["", "/"][..])), 1..20),
        ) {
            let snapshot = Snapshot::build(&written(&routes, has_fallback), None, Timestamp::UNIX_EPOCH).snapshot;
            for (host, path, end) in asked {
                let target = format!("/{}{}", path.join("/"), if path.is_empty() { "" } else { end });
                let found = snapshot.site(&Host::parse(host).unwrap(), &target).unwrap();
                let found = found.map(|site| site.route.upstreams[0].url.to_string());
                let expected = expected(&routes, has_fallback, host, &path);
                let expected = expected.map(|number| format!("http://127.0.0.1:{}", number + 1));
                prop_assert_eq!(found, expected, "{} {}", host, target);
            }
        }
    }

    #[test]
    fn an_upstream_that_stays_is_the_same_one() {
        let first = build(
            &files(&[(&["a.test"], 1), (&["b.test"], 1), (&["c.test"], 2)]),
            None,
        );
        let second = build(&files(&[(&["other.test"], 1), (&["c.test"], 3)]), Some(&first));
        let peer = |snapshot: &Snapshot, host| site(snapshot, host).peers.iter().next().unwrap().clone();
        assert!(Arc::ptr_eq(&peer(&first, "a.test"), &peer(&first, "b.test")));
        assert!(Arc::ptr_eq(&peer(&first, "a.test"), &peer(&second, "other.test")));
        assert!(!Arc::ptr_eq(&peer(&first, "c.test"), &peer(&second, "c.test")));
        assert_eq!(second.peers().count(), 2);
    }
}
