use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Challenge, CookieName, Credential, ErrorPage, ForwardAuth, HealthCheck, HostPattern, Hsts, KeyType,
    Limit, Network, PathPrefix, Position, Problem, Provider, Redirect, Scope, Size, Upstream,
};

/// Host names and the upstreams that answer for them. Means the same in every file that holds one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Route {
    /// Never empty in a [`Located`] route; the first one is the primary.
    #[serde(default)]
    pub hosts: Vec<HostPattern>,
    /// Which of the hosts' paths it answers; of several routes of a host the longest one that fits.
    #[serde(default, skip_serializing_if = "PathPrefix::is_root")]
    pub path: PathPrefix,
    /// Also answers for hosts that no route names, where a certificate covers them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fallback: bool,
    /// What becomes of requests over plain HTTP.
    #[serde(rename = "https-only", default, skip_serializing_if = "PlainHttp::is_default")]
    pub plain_http: PlainHttp,
    /// Empty in a [`Located`] route only beside `redirect` or `waiting`.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
    /// Containers that are to become upstreams. With no other, requests are answered with 503.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
    /// Take `path` away before the request goes to an upstream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip_prefix: bool,
    /// Put this in the place of `path` before the request goes to an upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_prefix: Option<PathPrefix>,
    /// Send each client to the upstream that answered it first, by a cookie of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<CookieName>,
    /// Ask the upstreams whether they are well, and pass over those that are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Instead of that of `[proxy]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Limit>,
    /// Instead of that of `[proxy]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_timeout: Option<Limit>,
    /// How long an upstream may be silent in the middle of a response; without it, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Limit>,
    /// Answer requests for the other hosts with a 308 to the primary.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redirect_to_primary: bool,
    /// Answer with a redirect instead of asking an upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// The names of the certificate, the one that names it first; hosts that none of them includes are
    /// added. Empty means the hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject: Vec<HostPattern>,
    /// Who makes the certificate; `None` leaves it to `[certificates] provider`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// How the ACME server is shown that the hosts are ours; `None` leaves it to `[acme] challenge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// The kind of the certificate's key; `None` leaves it to `[certificates] key-type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_type: Option<KeyType>,
    /// Only clients with these addresses are answered; empty means everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Network>,
    /// Clients with these addresses are not answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Network>,
    /// Whose password opens the route; empty means that none is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub basic_auth: Vec<Credential>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_auth: Option<ForwardAuth>,
    /// The largest body a request may have; `None` means that there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body: Option<Size>,
    /// Compress what clients accept compressed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
    /// Who makes the pages of errors; of several for a status the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ErrorPage>,
    /// Tell upstreams who called by `Forwarded` (RFC 7239) too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwarded: bool,
    /// Changes to the headers of requests, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<HeaderEdit>,
    /// Strict-Transport-Security on every answer over HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
    /// Changes to the headers of responses, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<HeaderEdit>,
}

impl Route {
    pub fn primary(&self) -> Option<&HostPattern> {
        self.hosts.first()
    }

    /// The names of the containers behind the route, whether they get requests or wait.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        let upstreams = self.upstreams.iter();
        let waiting = self.waiting.iter().map(|waiting| waiting.container.as_str());
        upstreams
            .filter_map(|upstream| upstream.container.as_deref())
            .chain(waiting)
    }

    /// The part of a host's paths that the route answers.
    pub fn scope(&self, host: &HostPattern) -> Scope {
        Scope {
            host: host.clone(),
            path: self.path.clone(),
        }
    }

    /// Whether clients with this address are answered.
    pub fn admits(&self, address: IpAddr) -> bool {
        let is_among = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
        (self.allow.is_empty() || is_among(&self.allow)) && !is_among(&self.deny)
    }

    /// The services that help to answer, beside the upstreams.
    pub fn helpers(&self) -> Vec<Upstream> {
        let forward_auth = self.forward_auth.iter().map(|settings| &settings.url);
        let errors = self.errors.iter().map(|page| &page.url);
        let endpoints = forward_auth.chain(errors);
        endpoints
            .map(|endpoint| endpoint.service.clone().into())
            .collect()
    }

    /// What stands in the place of `path` on the way to an upstream; `None` leaves the path alone.
    pub fn replacement(&self) -> Option<PathPrefix> {
        match &self.replace_prefix {
            None => self.strip_prefix.then(PathPrefix::default),
            replacement => replacement.clone(),
        }
    }

    /// What is wrong with the route by itself, apart from the grammar of its parts.
    fn find_fault(&self) -> Option<String> {
        if self.hosts.is_empty() {
            return Some("a route needs at least one host".to_owned());
        }
        if self.upstreams.is_empty() && self.redirect.is_none() && self.waiting.is_empty() {
            return Some(format!(
                "the route of {} needs at least one upstream, or a redirect",
                self.hosts[0]
            ));
        }
        if let Some(host) = self.redirected_to_itself() {
            return Some(format!("the redirect leads from {host} back to it"));
        }
        if self.redirect_to_primary && matches!(self.hosts[0], HostPattern::Wildcard(_)) {
            return Some(format!(
                "redirect-to-primary needs an exact first host; {} is a wildcard",
                self.hosts[0]
            ));
        }
        let twice =
            |(index, host): (usize, &HostPattern)| self.hosts[..index].contains(host).then(|| host.clone());
        let twice = self.hosts.iter().enumerate().find_map(twice);
        twice
            .map(|host| format!("{host} stands twice in the route"))
            .or_else(|| self.find_contradiction())
    }

    /// The first host whose clients `redirect` would lead in a circle.
    pub fn redirected_to_itself(&self) -> Option<&HostPattern> {
        self.hosts.iter().find(|host| self.redirects_back_to(host))
    }

    fn redirects_back_to(&self, host: &HostPattern) -> bool {
        let HostPattern::Exact(host) = host else {
            return false;
        };
        let leads_back = |redirect: &Redirect| redirect.leads_back_to(host);
        self.replacement().is_none() && self.redirect.as_ref().is_some_and(leads_back)
    }

    /// What cannot be meant together, whatever the hosts and upstreams are.
    pub(crate) fn find_contradiction(&self) -> Option<String> {
        if self.strip_prefix && self.replace_prefix.is_some() {
            return Some("strip-prefix and replace-prefix exclude each other: keep one".to_owned());
        }
        // A request has exactly one Host (RFC 9112 3.2).
        let breaks_host =
            |edit: &HeaderEdit| *edit.name() == HOST && !matches!(edit, HeaderEdit::Replace(..));
        let breaks_host = self.request_headers.iter().any(breaks_host);
        breaks_host.then(|| "request-headers can only `replace` the Host".to_owned())
    }
}

/// A container of a route that gets no requests for now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Waiting {
    /// The container's name.
    pub container: String,
    /// What it waits for, in one sentence.
    pub reason: String,
}

/// What becomes of requests over plain HTTP; in TOML whether HTTPS is the only way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum PlainHttp {
    /// They are sent to HTTPS.
    #[default]
    Redirected,
    /// They are answered as over HTTPS.
    Served,
}

impl PlainHttp {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<bool> for PlainHttp {
    fn from(https_only: bool) -> Self {
        if https_only {
            Self::Redirected
        } else {
            Self::Served
        }
    }
}

impl From<PlainHttp> for bool {
    fn from(plain_http: PlainHttp) -> Self {
        plain_http == PlainHttp::Redirected
    }
}

/// One change to a message's headers: exactly one verb, and a value for all but `delete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenEdit", into = "WrittenEdit")]
pub enum HeaderEdit {
    /// Adds a field beside those that are there.
    Add(HeaderName, HeaderValue),
    /// Removes all fields of the name and sets one.
    Replace(HeaderName, HeaderValue),
    /// Sets the field only if there is none of its name.
    Default(HeaderName, HeaderValue),
    /// Removes all fields of the name.
    Delete(HeaderName),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenEdit {
    #[serde(skip_serializing_if = "Option::is_none")]
    add: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

impl TryFrom<WrittenEdit> for HeaderEdit {
    type Error = InvalidHeader;

    fn try_from(written: WrittenEdit) -> Result<Self, InvalidHeader> {
        let WrittenEdit {
            add,
            replace,
            default,
            delete,
            value,
        } = written;
        let verb: fn(HeaderName, HeaderValue) -> Self = match (&add, &replace, &default, &delete) {
            (Some(_), None, None, None) => Self::Add,
            (None, Some(_), None, None) => Self::Replace,
            (None, None, Some(_), None) => Self::Default,
            (None, None, None, Some(name)) if value.is_none() => return Ok(Self::Delete(parse_name(name)?)),
            (None, None, None, Some(_)) => return Err(InvalidHeader::ValueOfDelete),
            _ => return Err(InvalidHeader::Verb),
        };
        let name = add.or(replace).or(default).unwrap_or_default();
        let value = value.ok_or_else(|| InvalidHeader::NoValue(name.clone()))?;
        Ok(verb(parse_name(&name)?, parse_value(&value)?))
    }
}

impl From<HeaderEdit> for WrittenEdit {
    fn from(edit: HeaderEdit) -> Self {
        let shown = |value: &HeaderValue| Some(String::from_utf8_lossy(value.as_bytes()).into_owned());
        match edit {
            HeaderEdit::Add(name, value) => Self {
                add: Some(name.to_string()),
                value: shown(&value),
                ..Self::default()
            },
            HeaderEdit::Replace(name, value) => Self {
                replace: Some(name.to_string()),
                value: shown(&value),
                ..Self::default()
            },
            HeaderEdit::Default(name, value) => Self {
                default: Some(name.to_string()),
                value: shown(&value),
                ..Self::default()
            },
            HeaderEdit::Delete(name) => Self {
                delete: Some(name.to_string()),
                ..Self::default()
            },
        }
    }
}

impl HeaderEdit {
    pub fn name(&self) -> &HeaderName {
        match self {
            Self::Add(name, _) | Self::Replace(name, _) | Self::Default(name, _) | Self::Delete(name) => name,
        }
    }

    /// `Replace` from text, as labels write it.
    pub fn replace(name: &str, value: &str) -> Result<Self, InvalidHeader> {
        Ok(Self::Replace(parse_name(name)?, parse_value(value)?))
    }
}

pub(crate) fn parse_name(text: &str) -> Result<HeaderName, InvalidHeader> {
    let name = HeaderName::try_from(text).map_err(|_| InvalidHeader::Name(text.to_owned()))?;
    match name.as_str() {
        // They frame the message on one connection (RFC 9110 7.6.1, RFC 9112 6): only the proxy knows them.
        "connection" | "content-length" | "keep-alive" | "te" | "trailer" | "transfer-encoding"
        | "upgrade" => Err(InvalidHeader::Framing(name)),
        _ => Ok(name),
    }
}

fn parse_value(text: &str) -> Result<HeaderValue, InvalidHeader> {
    HeaderValue::try_from(text).map_err(|_| InvalidHeader::Value(text.to_owned()))
}

/// A header edit that cannot be meant. Values are shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidHeader {
    #[error("a header edit has exactly one of `add`, `replace`, `default` and `delete`")]
    Verb,
    #[error("`delete` takes no value")]
    ValueOfDelete,
    #[error("the edit of {0:?} needs a value")]
    NoValue(String),
    #[error("{0:?} is not a header name")]
    Name(String),
    #[error("{0:?} is not a header value")]
    Value(String),
    #[error("{0} frames the message and is set by the proxy alone")]
    Framing(HeaderName),
}

/// A route that is right by itself, and the place it stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    pub route: Route,
    pub file: Arc<Path>,
    pub position: Position,
}

impl Located {
    pub(crate) fn new(route: Route, file: &Arc<Path>, position: Position) -> Result<Self, Problem> {
        match route.find_fault() {
            Some(fault) => Err(Problem::at(file, position, fault)),
            None => Ok(Self {
                route,
                file: file.clone(),
                position,
            }),
        }
    }

    /// `file:line`, as messages name the route.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.position.line)
    }
}
