use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::dns::read_servers;
use crate::document::ignore;
use crate::{
    AuthorityName, Challenge, Dns, Host, HostPattern, KeyType, Limit, Network, PairCopy, Provider,
    SecretFile, Template, UnitName,
};

/// The operator's settings: everything in `fairlead.toml` but the routes. Every key has a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[expect(
    clippy::manual_non_exhaustive,
    reason = "the private field lists `route` among the known keys"
)]
pub struct Config {
    pub proxy: Proxy,
    pub docker: Docker,
    pub certificates: Certificates,
    /// Needed as soon as a route's certificate comes from ACME.
    pub acme: Option<Acme>,
    /// Further ACME servers, for routes that name one as their provider.
    pub authority: BTreeMap<AuthorityName, Acme>,
    /// Files for other programs.
    #[serde(rename = "template")]
    pub templates: Vec<Template>,
    #[serde(rename = "route", deserialize_with = "ignore")]
    _route: (),
}

impl Config {
    /// The ACME server that `provider` names, if it names one that is there.
    ///
    /// What one of several does not say of the operator, this machine and the DNS, `[acme]` says for it.
    pub fn authority(&self, provider: &Provider) -> Option<Acme> {
        let name = match provider {
            Provider::Acme => return self.acme.clone(),
            Provider::Authority(name) => name,
            Provider::Internal | Provider::Files(_) | Provider::Off => return None,
        };
        let named = self.authority.get(name)?.clone();
        let Some(acme) = self.acme.clone() else {
            return Some(named);
        };
        Some(Acme {
            email: named.email.or(acme.email),
            challenge: named.challenge.or(acme.challenge),
            check_ports: named.check_ports.or(acme.check_ports),
            dns: named.dns.or(acme.dns),
            ..named
        })
    }

    /// Every ACME server that routes can name.
    pub fn authorities(&self) -> Vec<Acme> {
        let named = self.authority.keys().cloned().map(Provider::Authority);
        let providers = iter::once(Provider::Acme).chain(named);
        providers
            .filter_map(|provider| self.authority(&provider))
            .collect()
    }

    /// What is wrong between the tables: the keys that lead to it, and the fault.
    pub(crate) fn contradictions(&self) -> Vec<(Vec<String>, String)> {
        let acme = self.acme.iter().map(|acme| (vec!["acme".to_owned()], acme));
        let named = self.authority.iter();
        let named = named.map(|(name, acme)| (vec!["authority".to_owned(), name.to_string()], acme));
        let mut owners = BTreeMap::new();
        let mut faults = Vec::new();
        for (table, acme) in acme.chain(named) {
            if let Some(owner) = owners.insert(&acme.directory, table.join(".")) {
                let fault = format!("it has the same directory as [{owner}]; keep one of them");
                faults.push((table.clone(), fault));
            }
            let unknown = acme
                .fallback
                .iter()
                .filter(|name| !self.authority.contains_key(name));
            faults.extend(unknown.map(|name| {
                let fault = format!("fallback = \"{name}\": there is no [authority.{name}]");
                ([table.clone(), vec!["fallback".to_owned()]].concat(), fault)
            }));
        }
        if let Some(fault) = self.find_unknown(&self.certificates.provider) {
            faults.push((vec!["certificates".to_owned(), "provider".to_owned()], fault));
        }
        faults.extend(self.contradictions_of_templates());
        faults
    }

    fn contradictions_of_templates(&self) -> Vec<(Vec<String>, String)> {
        let mut names = BTreeSet::new();
        let mut destinations = BTreeSet::new();
        let mut faults = Vec::new();
        for template in &self.templates {
            if !names.insert(&template.name) {
                faults.push(format!("two [[template]] are called {}", template.name));
            }
            let path = template.destination.path().display();
            if !destinations.insert(&template.destination) {
                faults.push(format!("two [[template]] have the destination {path}"));
            }
            let copies = &self.certificates.copies;
            let mut copied = copies.iter().flat_map(|copy| [&copy.fullchain, &copy.key]);
            if copied.any(|copied| *copied == template.destination) {
                faults.push(format!("a [[certificates.copy]] has the destination {path}, too"));
            }
        }
        let place = || vec!["template".to_owned()];
        faults.into_iter().map(|fault| (place(), fault)).collect()
    }

    /// Says so if a provider is an authority that is not there.
    pub(crate) fn find_unknown(&self, provider: &Provider) -> Option<String> {
        match provider {
            Provider::Authority(name) if !self.authority.contains_key(name) => Some(format!(
                "provider = \"{name}\": neither acme, internal or off, nor an [authority.{name}] of fairlead.toml"
            )),
            _ => None,
        }
    }
}

/// `[proxy]`: limits that hold for every route.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Proxy {
    /// How long a client may take for the TLS handshake, or for the head of a request.
    pub header_timeout: Limit,
    /// How long an upstream may take to accept a connection.
    pub connect_timeout: Limit,
    /// How long an upstream may take from the end of the request to the head of its response.
    pub response_timeout: Limit,
    /// How long a body may stand still because a client does not send what it announced, or does not
    /// take what is there for it.
    pub stall_timeout: Limit,
    /// Proxies before this one, whose X-Forwarded-* fields are believed and passed on.
    pub trusted_proxies: Vec<Network>,
    /// Load balancers whose connections begin with a header of the PROXY protocol, and never without.
    pub proxy_protocol: Vec<Network>,
    /// How long exchanges may go on after the proxy was told to stop.
    pub drain_timeout: Limit,
    /// What is written of each exchange.
    pub access_log: AccessLog,
    /// Absolute paths that the proxy may read besides its own directories and the system's, from its next
    /// start on: what links in the store lead to, and files that upstreams name.
    #[serde(deserialize_with = "read_absolute")]
    pub readable: Vec<PathBuf>,
}

fn read_absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(deserializer)?;
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => Err(D::Error::custom(format!("{path:?} is no absolute path"))),
        None => Ok(paths),
    }
}

/// `[proxy] access-log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessLog {
    #[default]
    Off,
    /// A JSON object.
    Json,
    /// The combined log format of Apache and nginx.
    Combined,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            header_timeout: Limit::from_secs(10),
            connect_timeout: Limit::from_secs(5),
            response_timeout: Limit::from_secs(300),
            stall_timeout: Limit::from_secs(60),
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            drain_timeout: Limit::from_secs(10),
            access_log: AccessLog::Off,
            readable: Vec::new(),
        }
    }
}

/// `[docker]`: where the watcher looks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Docker {
    pub socket: PathBuf,
    /// The network whose addresses are used when a container names none.
    pub network: Option<String>,
    /// Reach containers by the ports that they publish on this machine, instead of at addresses of their own.
    pub published_ports: bool,
    /// Read the labels only of containers whose `fairlead.proxytag` or `com.chameth.proxytag` is this;
    /// when unset, of those without a tag.
    pub proxytag: Option<String>,
    /// Read labels that came with an image too, not only those said when the container was made.
    pub image_labels: bool,
    /// Who may have which hosts; with none, any container any host.
    pub allow: Vec<Allow>,
}

/// `[[docker.allow]]`: hosts for the containers that are all that is named.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Allow {
    /// A wildcard stands for itself and for the names it covers.
    pub hosts: Vec<HostPattern>,
    /// The project of Compose.
    pub project: Option<String>,
    /// The image as it was named; without a tag or digest, any of them.
    pub image: Option<String>,
    /// A network the container is in.
    pub network: Option<String>,
    /// The container's name.
    pub container: Option<String>,
}

impl Allow {
    pub fn covers(&self, host: &HostPattern) -> bool {
        self.hosts.iter().any(|allowed| allowed.includes(host))
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/docker.sock"),
            network: None,
            published_ports: false,
            proxytag: None,
            image_labels: false,
            allow: Vec::new(),
        }
    }
}

/// `[certificates]`: what holds for every certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Certificates {
    /// Who makes the certificates of routes that do not say.
    pub provider: Provider,
    /// The kind of their keys.
    pub key_type: KeyType,
    /// Domains whose direct subdomains share one certificate, unless a route wants its own.
    pub wildcards: Vec<Host>,
    /// Pairs for other programs.
    #[serde(rename = "copy")]
    pub copies: Vec<PairCopy>,
    /// Units that read the store: each is reloaded, or restarted if it cannot be, if it runs, after any
    /// certificate has changed.
    pub reload_units: Vec<UnitName>,
}

impl Certificates {
    /// The name of the certificate that the host shares with others, if it does.
    pub(crate) fn shared(&self, host: &HostPattern) -> Option<HostPattern> {
        let mut wildcards = self.wildcards.iter().cloned().map(HostPattern::Wildcard);
        wildcards.find(|wildcard| wildcard.includes(host))
    }
}

/// `[acme]` or `[authority.NAME]`: a certificate authority and the account there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Acme {
    /// The URL of the server's directory (RFC 8555 7.1.1).
    #[serde(default = "lets_encrypt")]
    pub directory: String,
    /// Where the authority may write to the operator.
    pub email: Option<String>,
    /// The operator has read the authority's terms of service and agrees to them.
    #[serde(default)]
    pub accept_terms: bool,
    /// How names are shown to be ours where the route does not say; `None` leaves it to what the
    /// authority offers.
    pub challenge: Option<Challenge>,
    /// Who is asked about names because they see them as the authority does; the system's resolvers, which
    /// may not, if empty.
    #[serde(default, deserialize_with = "read_servers")]
    pub resolvers: Vec<SocketAddr>,
    /// Whether our own ports are looked at before an order, where the authority would see the same; they are unless this
    /// says no.
    pub check_ports: Option<bool>,
    /// How TXT records get into the DNS. DNS-01, and with it wildcards, needs it.
    pub dns: Option<Dns>,
    /// Which of the kinds of certificate the authority offers; `None` leaves it to the authority.
    pub profile: Option<String>,
    /// The common name of the root that the chain is to lead to, if the authority offers several.
    pub preferred_chain: Option<String>,
    pub external_account: Option<ExternalAccount>,
    /// How many names it takes in one certificate.
    #[serde(default = "hundred")]
    pub max_names: NonZeroU16,
    /// How many orders may be made within seven days.
    #[serde(default = "thousand")]
    pub orders_per_week: NonZeroU32,
    /// Who is asked instead as long as this server is down, in this order.
    #[serde(default)]
    pub fallback: Vec<AuthorityName>,
    /// Roots to trust when calling the directory, instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// `external-account` under `[acme]`: an account the operator has at the authority already, which the
/// new one is bound to (RFC 8555 7.3.4).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExternalAccount {
    /// As the authority named it.
    pub key_id: String,
    /// In base64url.
    pub key: SecretFile,
}

/// As many as Let's Encrypt takes, unless the profile says less.
fn hundred() -> NonZeroU16 {
    const HUNDRED: NonZeroU16 = NonZeroU16::new(100).unwrap();
    HUNDRED
}

/// Far more than a machine's own certificates need, and few enough to notice what goes wrong.
fn thousand() -> NonZeroU32 {
    const THOUSAND: NonZeroU32 = NonZeroU32::new(1000).unwrap();
    THOUSAND
}

fn lets_encrypt() -> String {
    "https://acme-v02.api.letsencrypt.org/directory".to_owned()
}
