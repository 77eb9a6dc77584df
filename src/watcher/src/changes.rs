use std::fmt;

use fairlead_contract::{Discovery, HostPattern, Rejection, Route, Waiting};

/// One difference between two passes, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    Added(&'a Route),
    Removed(&'a Route),
    /// The route as it is now.
    Altered(&'a Route),
    LeftOut(&'a Rejection),
}

/// Lists what became different, routes by their primary host and path.
pub(crate) fn changes<'a>(before: &'a Discovery, after: &'a Discovery) -> Vec<Change<'a>> {
    let gone = before.routes.iter().filter(|route| same(route, after).is_none());
    let left_out = after
        .rejections
        .iter()
        .filter(|rejection| !before.rejections.contains(rejection));
    gone.map(Change::Removed)
        .chain(after.routes.iter().filter_map(|route| match same(route, before) {
            None => Some(Change::Added(route)),
            Some(earlier) if earlier != route => Some(Change::Altered(route)),
            Some(_) => None,
        }))
        .chain(left_out.map(Change::LeftOut))
        .collect()
}

fn same<'a>(route: &Route, discovery: &'a Discovery) -> Option<&'a Route> {
    discovery
        .routes
        .iter()
        .find(|other| (other.primary(), &other.path) == (route.primary(), &route.path))
}

impl<'a> Change<'a> {
    /// The primary host of the route that it is about.
    pub(crate) fn route(&self) -> Option<&'a HostPattern> {
        match self {
            Self::Added(route) | Self::Removed(route) | Self::Altered(route) => route.primary(),
            Self::LeftOut(_) => None,
        }
    }

    /// The names of the containers that it is about: those that answer, wait or are left out.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &'a str> {
        let (route, rejection) = match *self {
            Self::Added(route) | Self::Removed(route) | Self::Altered(route) => (Some(route), None),
            Self::LeftOut(rejection) => (None, Some(rejection)),
        };
        let answering = route.into_iter().flat_map(|route| &route.upstreams);
        let waiting = route.into_iter().flat_map(|route| &route.waiting);
        answering
            .filter_map(|upstream| upstream.container.as_deref())
            .chain(waiting.map(|waiting| waiting.container.as_str()))
            .chain(rejection.map(|rejection| rejection.container.as_str()))
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(route) => write!(f, "added {}", Shown(route)),
            Self::Removed(route) => write!(f, "removed {}", Shown(route)),
            Self::Altered(route) => write!(f, "changed {}", Shown(route)),
            Self::LeftOut(rejection) => write!(
                f,
                "left out container {} ({}): {}",
                rejection.container.escape_debug(),
                rejection.id,
                rejection.reason
            ),
        }
    }
}

/// Hosts, upstreams and waiting containers of a route on one line.
struct Shown<'a>(&'a Route);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.0.hosts.iter().map(HostPattern::to_string).collect();
        write!(f, "{} →", hosts.join(" "))?;
        for upstream in &self.0.upstreams {
            write!(f, " {}", upstream.url)?;
            if let Some(container) = &upstream.container {
                write!(f, " ({})", container.escape_debug())?;
            }
        }
        for Waiting { container, reason } in &self.0.waiting {
            write!(f, " waiting for {}: {reason}", container.escape_debug())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fairlead_contract::{Upstream, UpstreamUrl};

    use super::*;

    fn route(host: &str, url: &str) -> Route {
        Route {
            hosts: vec![HostPattern::parse(host).unwrap()],
            upstreams: vec![Upstream {
                container: Some("web".to_owned()),
                ..UpstreamUrl::parse(url).unwrap().into()
            }],
            ..Route::default()
        }
    }

    #[test]
    fn who_waits_is_told_with_the_reason() {
        let mut route = route("a.test", "http://a:1");
        route.waiting = vec![Waiting {
            container: "next".to_owned(),
            reason: "its health check fails".to_owned(),
        }];
        assert_eq!(
            Change::Altered(&route).to_string(),
            "changed a.test → http://a:1 (web) waiting for next: its health check fails"
        );
    }

    fn rejection(container: &str) -> Rejection {
        Rejection {
            container: container.to_owned(),
            id: "0123456789ab".to_owned(),
            hosts: Vec::new(),
            reason: "it has no port".to_owned(),
        }
    }

    #[test]
    fn each_difference_is_one_line_and_the_rest_none() {
        let before = Discovery {
            routes: vec![
                route("a.test", "http://a:1"),
                route("b.test", "http://b:1"),
                route("c.test", "http://c:1"),
            ],
            rejections: vec![rejection("old")],
            ..Discovery::default()
        };
        let after = Discovery {
            routes: vec![
                route("a.test", "http://a:1"),
                route("b.test", "http://b:2"),
                route("d.test", "http://d:1"),
            ],
            rejections: vec![rejection("new\n"), rejection("old")],
            ..Discovery::default()
        };
        let lines: Vec<String> = changes(&before, &after).iter().map(Change::to_string).collect();
        assert_eq!(
            lines,
            [
                "removed c.test → http://c:1 (web)",
                "changed b.test → http://b:2 (web)",
                "added d.test → http://d:1 (web)",
                "left out container new\\n (0123456789ab): it has no port",
            ]
        );
        assert_eq!(changes(&after, &after), []);
    }
}
