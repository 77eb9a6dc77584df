use std::net::SocketAddr;

use crate::{Authority, Client, Environment, Proxy};

/// An installation with an authority that signs what it serves.
pub struct Site {
    pub environment: Environment,
    pub authority: Authority,
}

impl Site {
    /// Nothing is served yet.
    #[expect(clippy::new_without_default, reason = "it makes directories")]
    pub fn new() -> Self {
        Self {
            environment: Environment::new(),
            authority: Authority::new(),
        }
    }

    /// One route to one upstream.
    pub fn of(host: &str, upstream: SocketAddr) -> Self {
        let site = Self::new();
        site.serve(&[host], &[upstream]);
        site
    }

    /// Declares a route with its own certificate, in `routes.d/HOST.toml` of the first host.
    pub fn serve(&self, hosts: &[&str], upstreams: &[SocketAddr]) {
        self.serve_with(hosts, upstreams, "");
    }

    /// The same with more keys of the route, as lines of TOML.
    pub fn serve_with(&self, hosts: &[&str], upstreams: &[SocketAddr], more: &str) {
        self.certify(hosts);
        self.environment
            .write_routes(&format!("{}.toml", hosts[0]), &(route(hosts, upstreams) + more));
    }

    /// Stores a certificate for these names, under the first.
    pub fn certify(&self, names: &[&str]) {
        self.environment.store(names[0], &self.authority.issue(names));
    }

    pub fn start(&self) -> Proxy {
        Proxy::start(&self.environment)
    }

    pub fn client(&self) -> Client {
        self.authority.client()
    }
}

/// A `[[route]]`.
pub fn route(hosts: &[&str], upstreams: &[SocketAddr]) -> String {
    let upstreams: Vec<_> = upstreams
        .iter()
        .map(|address| format!("http://{address}"))
        .collect();
    format!("[[route]]\nhosts = {hosts:?}\nupstreams = {upstreams:?}\n")
}
