use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::document::{Document, Nothing, partition};
use crate::{HostPattern, Located, PathPrefix, Problem, Route, Scope};

const HEADING: &str = "\
# Written by fairlead-watcher from the containers that run. The next pass writes it anew:
# routes of your own belong into /etc/fairlead/routes.d/.
";

/// `docker.toml`: the routes the containers asked for, the containers left out, and whose the hosts are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    pub routes: Vec<Route>,
    pub rejections: Vec<Rejection>,
    pub owners: Vec<Owner>,
}

/// A container left out, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rejection {
    /// The container's name.
    pub container: String,
    /// The first twelve digits of its id.
    pub id: String,
    /// The hosts it asked for, as far as they could be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// One sentence that names the label or setting to change.
    pub reason: String,
}

/// Whose some hosts are, also for a while after it left.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Owner {
    pub hosts: Vec<HostPattern>,
    #[serde(default, skip_serializing_if = "PathPrefix::is_root")]
    pub path: PathPrefix,
    /// The project and service of Compose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Their names, the oldest first.
    pub containers: Vec<String>,
    /// Since when none of them asks for the hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Timestamp>,
}

impl Owner {
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.hosts.iter().map(|host| Scope {
            host: host.clone(),
            path: self.path.clone(),
        })
    }
}

/// What was read from a `docker.toml`; a faulty element is a problem and leaves the others.
#[derive(Debug, Default)]
pub(crate) struct ParsedDiscovery {
    pub(crate) routes: Vec<Located>,
    pub(crate) rejections: Vec<Rejection>,
    pub(crate) owners: Vec<Owner>,
    pub(crate) problems: Vec<Problem>,
}

impl ParsedDiscovery {
    pub(crate) fn parse(file: &Arc<Path>, bytes: &[u8]) -> Self {
        let mut document = match Document::parse(file, bytes) {
            Ok(document) => document,
            Err(problem) => {
                return Self {
                    problems: vec![problem],
                    ..Self::default()
                };
            }
        };
        let (routes, mut problems) = document.take_routes();
        let rejections = take_all(&mut document, "rejection", &mut problems);
        let owners = take_all(&mut document, "owner", &mut problems);
        problems.extend(document.read_rest::<Nothing>().err());
        Self {
            routes,
            rejections,
            owners,
            problems,
        }
    }
}

fn take_all<T: DeserializeOwned>(
    document: &mut Document<'_>,
    key: &str,
    problems: &mut Vec<Problem>,
) -> Vec<T> {
    let elements = document.take_all(key).into_iter();
    let (values, faults) = partition(elements.map(|(_, element)| element));
    problems.extend(faults);
    values
}

impl Discovery {
    /// The file's text: equal values give equal bytes, and it reads back as it was.
    pub fn render(&self) -> Result<String, toml::ser::Error> {
        let mut text = HEADING.to_owned();
        for route in &self.routes {
            text.push('\n');
            for container in route.containers() {
                text.push_str(&comment(container));
            }
            text.push_str(&element("route", route)?);
        }
        if !self.rejections.is_empty() {
            text.push_str("\n# Containers left out:\n");
        }
        for rejection in &self.rejections {
            text.push('\n');
            text.push_str(&element("rejection", rejection)?);
        }
        if !self.owners.is_empty() {
            text.push_str("\n# Whose the hosts are:\n");
        }
        for owner in &self.owners {
            text.push('\n');
            text.push_str(&element("owner", owner)?);
        }
        Ok(text)
    }
}

/// One `[[KEY]]` table whose values each stand on one line.
fn element(key: &str, value: &impl Serialize) -> Result<String, toml::ser::Error> {
    let mut text = format!("[[{key}]]\n");
    for (key, value) in toml::Table::try_from(value)? {
        writeln!(text, "{key} = {value}")?;
    }
    Ok(text)
}

/// A comment that stays one line whatever the container is called.
fn comment(container: &str) -> String {
    format!("# from container {}\n", container.escape_debug())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::{HeaderEdit, Upstream, UpstreamUrl, Waiting};

    fn discovery() -> Discovery {
        Discovery {
            routes: vec![Route {
                hosts: vec![
                    HostPattern::parse("app.test").unwrap(),
                    HostPattern::parse("*.app.test").unwrap(),
                ],
                upstreams: vec![Upstream {
                    container: Some("web\n[[route]]".to_owned()),
                    ..UpstreamUrl::parse("http://172.17.0.2:80").unwrap().into()
                }],
                waiting: vec![Waiting {
                    container: "next".to_owned(),
                    reason: "its health check has not passed yet".to_owned(),
                }],
                response_headers: vec![HeaderEdit::replace("x-note", "a \"quoted\" = [value]").unwrap()],
                ..Route::default()
            }],
            rejections: vec![Rejection {
                container: "other".to_owned(),
                id: "0123456789ab".to_owned(),
                hosts: Vec::new(),
                reason: "fairlead.port = \"\u{7}'''\n\" is not a port".to_owned(),
            }],
            owners: vec![Owner {
                hosts: vec![HostPattern::parse("app.test").unwrap()],
                path: PathPrefix::parse("/api").unwrap(),
                project: Some("shop\"".to_owned()),
                containers: vec!["web\n[[owner]]".to_owned()],
                left: Some(Timestamp::UNIX_EPOCH),
                ..Owner::default()
            }],
        }
    }

    #[test]
    fn what_was_rendered_reads_back_equal() {
        assert_eq!(read_back(&discovery()), discovery());
    }

    fn read_back(discovery: &Discovery) -> Discovery {
        let text = discovery.render().unwrap();
        let parsed = ParsedDiscovery::parse(&Path::new("docker.toml").into(), text.as_bytes());
        assert_eq!(parsed.problems, [], "{text}");
        Discovery {
            routes: parsed.routes.into_iter().map(|located| located.route).collect(),
            rejections: parsed.rejections,
            owners: parsed.owners,
        }
    }

    fn hosts() -> impl Strategy<Value = Vec<HostPattern>> {
        let hosts = vec(r"(\*\.)?[a-z]{1,9}\.test", 1..3);
        hosts.prop_map(|hosts| {
            hosts
                .iter()
                .map(|host| HostPattern::parse(host).unwrap())
                .collect()
        })
    }

    fn path() -> impl Strategy<Value = PathPrefix> {
        r"/([a-z]{1,5})?".prop_map(|path| PathPrefix::parse(&path).unwrap())
    }

    fn upstream() -> impl Strategy<Value = Upstream> {
        (r"(h2c|http)://10\.0\.0\.[1-9]:[1-9]{2}", any::<Option<String>>()).prop_map(|(url, container)| {
            Upstream {
                container,
                ..UpstreamUrl::parse(&url).unwrap().into()
            }
        })
    }

    fn waiting() -> impl Strategy<Value = Waiting> {
        any::<(String, String)>().prop_map(|(container, reason)| Waiting { container, reason })
    }

    fn edit() -> impl Strategy<Value = HeaderEdit> {
        r"[ -~ä]{0,20}".prop_map(|value| HeaderEdit::replace("x-note", &value).unwrap())
    }

    fn route() -> impl Strategy<Value = Route> {
        let upstreams = (vec(upstream(), 1..3), vec(waiting(), 0..2));
        (hosts(), path(), upstreams, vec(edit(), 0..3), any::<bool>()).prop_filter_map(
            "a host stands in a route once",
            |(hosts, path, (upstreams, waiting), response_headers, compress)| {
                let is_distinct = hosts.first() != hosts.get(1);
                is_distinct.then(|| Route {
                    hosts,
                    path,
                    upstreams,
                    waiting,
                    response_headers,
                    compress,
                    ..Route::default()
                })
            },
        )
    }

    fn rejection() -> impl Strategy<Value = Rejection> {
        let words = any::<(String, String, String)>();
        (words, hosts()).prop_map(|((container, id, reason), hosts)| Rejection {
            container,
            id,
            hosts,
            reason,
        })
    }

    fn owner() -> impl Strategy<Value = Owner> {
        let service = any::<(Option<String>, Option<String>)>();
        let left =
            option::of((0..4_000_000_000_i64).prop_map(|second| Timestamp::from_second(second).unwrap()));
        (hosts(), path(), service, any::<Vec<String>>(), left).prop_map(
            |(hosts, path, (project, service), containers, left)| Owner {
                hosts,
                path,
                project,
                service,
                containers,
                left,
            },
        )
    }

    proptest! {
        /// Whatever containers, projects and services are called, and whatever is said of them.
        #[test]
        fn every_discovery_reads_back_as_it_was(
            routes in vec(route(), 0..3),
            rejections in vec(rejection(), 0..3),
            owners in vec(owner(), 0..3),
        ) {
            let discovery = Discovery { routes, rejections, owners };
            prop_assert_eq!(read_back(&discovery), discovery);
        }
    }

    #[test]
    fn a_faulty_route_leaves_the_others() {
        let text = "[[route]]\nhosts = [\"a b\"]\nupstreams = []\n[[route]]\nhosts = [\"b.test\"]\nupstreams = [\"http://b:1\"]\n";
        let parsed = ParsedDiscovery::parse(&Path::new("docker.toml").into(), text.as_bytes());
        assert_eq!(parsed.routes.len(), 1);
        assert_eq!(parsed.problems.len(), 1);
        assert!(
            parsed.problems[0].to_string().starts_with("docker.toml:2:"),
            "{}",
            parsed.problems[0]
        );
    }
}
