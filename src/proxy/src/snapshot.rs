use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use fairlead_contract::{
    CertificateDir, Config, Configuration, Digest, Files, Host, HostPattern, Loaded, Located, Problem, Route,
    UpstreamUrl,
};
use jiff::Timestamp;

use crate::certificate::Certificate;

/// Everything requests are answered from. Immutable; a reload swaps it whole.
pub(crate) struct Snapshot {
    pub(crate) config: Config,
    routes: ByHost<Arc<Route>>,
    certificates: BTreeMap<CertificateDir, Arc<Certificate>>,
    by_name: ByHost<Arc<Certificate>>,
    pub(crate) loaded: Loaded,
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
            problems,
            mut notes,
            ..
        } = Configuration::parse(files);
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
        let mut table = ByHost::default();
        for Located { route, .. } in routes {
            let route = Arc::new(route);
            for host in &route.hosts {
                table.insert_if(host, route.clone(), |_| false);
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
                names_without_certificate: Vec::new(),
                notes,
            },
            routes: table,
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

    /// The route of a host: the one that names it exactly, else the wildcard's.
    pub(crate) fn route(&self, host: &Host) -> Option<&Arc<Route>> {
        self.routes.find(host)
    }

    /// Returns the certificate for the name the client asked for (SNI).
    ///
    /// `None` ends the handshake: nobody declared the name, or we hold no certificate for it. There is
    /// no default certificate, because it would reveal which other sites share this address.
    pub(crate) fn certificate(&self, host: &Host) -> Option<&Arc<Certificate>> {
        self.route(host)?;
        self.by_name.find(host)
    }

    pub(crate) fn upstreams(&self) -> HashSet<&UpstreamUrl> {
        let routes = self.routes.exact.values().chain(self.routes.wildcard.values());
        routes
            .flat_map(|route| &route.upstreams)
            .map(|upstream| &upstream.url)
            .collect()
    }

    fn names_without_certificate(&self) -> Vec<String> {
        let exact = self
            .routes
            .exact
            .keys()
            .filter(|host| self.by_name.find(host).is_none());
        let wildcard = self
            .routes
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

impl<T> ByHost<T> {
    fn find(&self, host: &Host) -> Option<&T> {
        let by_wildcard = || self.wildcard.get(host.parent()?);
        self.exact.get(host).or_else(by_wildcard)
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
    use super::*;

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
}
