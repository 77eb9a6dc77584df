use std::fmt;
use std::net::IpAddr;

use http::HeaderName;
use http::uri::PathAndQuery;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Host, InvalidUpstream, UpstreamUrl};

/// A resource of a service that helps to answer: `http://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    pub service: UpstreamUrl,
    /// `None` if the URL ends before the path.
    pub target: Option<PathAndQuery>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.as_ref().map_or("", PathAndQuery::as_str);
        write!(f, "{}{target}", self.service)
    }
}

impl TryFrom<String> for Endpoint {
    type Error = InvalidEndpoint;

    fn try_from(text: String) -> Result<Self, InvalidEndpoint> {
        let authority = text.find("://").map_or(0, |scheme| scheme + 3);
        let end = text[authority..]
            .find('/')
            .map_or(text.len(), |path| authority + path);
        let (service, target) = text.split_at(end);
        let target = Some(target).filter(|target| !target.is_empty());
        let service = UpstreamUrl::parse(service)?;
        if !can_have_certificate(&service) {
            return Err(InvalidEndpoint::Name(text));
        }
        Ok(Self {
            service,
            target: target
                .map(|target| target.parse().map_err(|_| InvalidEndpoint::Path(text.clone())))
                .transpose()?,
        })
    }
}

/// Where TLS is spoken the host has to be a name or address that a certificate could hold.
fn can_have_certificate(service: &UpstreamUrl) -> bool {
    match service {
        UpstreamUrl::Tcp { protocol, host, .. } if protocol.is_tls() => {
            Host::parse(host).is_ok() || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        }
        _ => true,
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

/// The text is not the URL of a resource. It is shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidEndpoint {
    #[error(transparent)]
    Service(#[from] InvalidUpstream),
    #[error("{0:?} does not end in a path")]
    Path(String),
    #[error("the host of {0:?} is no name that a certificate could hold")]
    Name(String),
}

/// Another program decides who may come in: asked about each request, it lets it pass with 2xx, or its
/// answer is the client's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ForwardAuth {
    pub url: Endpoint,
    /// Fields of its answer that the upstream is to see; from clients they are not taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy_headers: Vec<FieldName>,
}

/// The name of a header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldName(HeaderName);

impl FieldName {
    pub fn get(&self) -> &HeaderName {
        &self.0
    }
}

impl TryFrom<String> for FieldName {
    type Error = crate::InvalidHeader;

    fn try_from(text: String) -> Result<Self, crate::InvalidHeader> {
        crate::route::parse_name(&text).map(Self)
    }
}

impl From<FieldName> for String {
    fn from(name: FieldName) -> Self {
        name.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_service_and_a_path() {
        for (text, target) in [
            ("http://a:1/x/y?z", Some("/x/y?z")),
            ("http://a:1/", Some("/")),
            ("http://a:1", None),
            ("http://[::1]:9/x", Some("/x")),
            ("https://[::1]:9/x", Some("/x")),
            ("http://a!b:1/x", Some("/x")),
        ] {
            let endpoint = Endpoint::try_from(text.to_owned()).unwrap();
            assert_eq!(endpoint.target.as_ref().map(PathAndQuery::as_str), target);
            assert_eq!(endpoint.to_string(), text);
        }
        for text in [
            "",
            "/x",
            "a:1/x",
            "http:///x",
            "http://a:1/ x",
            "http://a:0/",
            "https://a!b:1/x",
        ] {
            assert!(
                Endpoint::try_from(text.to_owned()).is_err(),
                "{text:?} was accepted"
            );
        }
    }
}
