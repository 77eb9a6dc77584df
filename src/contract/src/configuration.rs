use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::discovery::ParsedDiscovery;
use crate::document::{Document, Nothing};
use crate::{Config, FileError, Files, Located, Owner, Problem, Rejection, Scope};

/// All files together: settings, the routes that hold, and what is wrong.
///
/// The routes never share a scope. With `problems` empty everything that was written holds; otherwise
/// it is what can be served without the faulty parts, which is good enough to start with and not good
/// enough to replace something better.
#[derive(Debug, Default)]
pub struct Configuration {
    pub config: Config,
    /// `config` is not what the operator wrote, for a fault among the problems; it holds the defaults.
    pub config_is_faulty: bool,
    /// The operator's routes, in file order, then the discovered ones.
    pub routes: Vec<Located>,
    pub rejections: Vec<Rejection>,
    /// Whose the containers' hosts are.
    pub owners: Vec<Owner>,
    pub problems: Vec<Problem>,
    /// What was left out on purpose, such as a container's claim on a host the operator routes.
    pub notes: Vec<Problem>,
}

impl Configuration {
    /// Judges the files. Reads no clock, socket or file.
    pub fn parse(files: &Files) -> Self {
        let mut this = Self {
            problems: files.unlisted.iter().map(unreadable).collect(),
            ..Self::default()
        };
        let mut operators = Vec::new();
        match this.open(files.config.as_ref()) {
            Some((file, bytes)) => operators.extend(this.read_config(&file, bytes)),
            None => this.config_is_faulty = files.config.is_some(),
        }
        for source in &files.routes {
            if let Some((file, bytes)) = this.open(Some(source)) {
                operators.extend(this.read_routes(&file, bytes));
            }
        }
        this.claim_for_operator(operators);
        this.problems.extend(this.find_unknown_providers(0));
        let of_operator = this.routes.len();
        if let Some((file, bytes)) = this.open(files.discovery.as_ref()) {
            let discovered = ParsedDiscovery::parse(&file, bytes);
            this.problems.extend(discovered.problems);
            this.rejections = discovered.rejections;
            this.owners = discovered.owners;
            this.claim_for_containers(discovered.routes);
            this.notes.extend(this.find_unknown_providers(of_operator));
        }
        this.notes.extend(this.find_splits());
        this
    }

    fn open<'a>(
        &mut self,
        source: Option<&'a (PathBuf, Result<Vec<u8>, FileError>)>,
    ) -> Option<(Arc<Path>, &'a [u8])> {
        match source? {
            (path, Ok(bytes)) => Some((path.as_path().into(), bytes)),
            (_, Err(error)) => {
                self.problems.push(unreadable(error));
                None
            }
        }
    }

    fn read_config(&mut self, file: &Arc<Path>, bytes: &[u8]) -> Vec<Located> {
        let mut document = match Document::parse(file, bytes) {
            Ok(document) => document,
            Err(problem) => {
                self.config_is_faulty = true;
                self.problems.push(problem);
                return Vec::new();
            }
        };
        let (routes, problems) = document.take_routes();
        self.problems.extend(problems);
        let positions = document.positions();
        match document.read_rest::<Config>() {
            Ok(config) => {
                let faults = config.contradictions();
                self.config_is_faulty = !faults.is_empty();
                self.problems
                    .extend(faults.into_iter().map(|(keys, fault)| Problem {
                        position: positions.get(&keys).copied(),
                        ..Problem::new(file, fault)
                    }));
                if !self.config_is_faulty {
                    self.config = config;
                }
            }
            Err(problem) => {
                self.config_is_faulty = true;
                self.problems.push(problem);
            }
        }
        routes
    }

    /// The routes from that index on whose provider is an authority that is not there.
    fn find_unknown_providers(&self, first: usize) -> Vec<Problem> {
        if self.config_is_faulty {
            return Vec::new();
        }
        let find = |located: &Located| {
            let fault = self.config.find_unknown(located.route.provider.as_ref()?)?;
            Some(Problem::at(&located.file, located.position, fault))
        };
        self.routes[first..].iter().filter_map(find).collect()
    }

    fn read_routes(&mut self, file: &Arc<Path>, bytes: &[u8]) -> Vec<Located> {
        let mut document = match Document::parse(file, bytes) {
            Ok(document) => document,
            Err(problem) => {
                self.problems.push(problem);
                return Vec::new();
            }
        };
        let (routes, problems) = document.take_routes();
        self.problems.extend(problems);
        self.problems.extend(document.read_rest::<Nothing>().err());
        routes
    }

    /// A scope in two of the operator's routes is a problem that names both; the first keeps it.
    fn claim_for_operator(&mut self, routes: Vec<Located>) {
        let mut owners = Owners::default();
        for route in routes {
            let (route, contested) = owners.claim(route);
            self.routes.extend(route);
            self.problems.extend(contested);
        }
    }

    /// The operator's routes and earlier containers keep their hosts; the newcomer is left out of them.
    fn claim_for_containers(&mut self, routes: Vec<Located>) {
        let mut owners = Owners::of(&self.routes);
        for route in routes {
            let (route, contested) = owners.claim(route);
            self.routes.extend(route);
            self.notes.extend(contested);
        }
    }
}

/// Which route holds what only one can hold: the place the route stands at.
#[derive(Default)]
struct Owners {
    scopes: BTreeMap<Scope, String>,
    fallback: Option<String>,
}

impl Owners {
    fn of(routes: &[Located]) -> Self {
        let scopes = |located: &Located| -> Vec<_> {
            let hosts = located.route.hosts.iter();
            hosts
                .map(|host| (located.route.scope(host), located.place()))
                .collect()
        };
        let mut fallbacks = routes.iter().filter(|located| located.route.fallback);
        Self {
            scopes: routes.iter().flat_map(scopes).collect(),
            fallback: fallbacks.next().map(Located::place),
        }
    }

    /// The route with what it got, if any host, and a problem for everything it did not get.
    fn claim(&mut self, mut located: Located) -> (Option<Located>, Vec<Problem>) {
        let place = located.place();
        let mut contested = Vec::new();
        let mut hosts = std::mem::take(&mut located.route.hosts);
        hosts.retain(|host| {
            let scope = located.route.scope(host);
            if let Some(owner) = self.scopes.get(&scope) {
                let message = format!("{scope} already has a route at {owner}");
                contested.push(Problem::at(&located.file, located.position, message));
                return false;
            }
            self.scopes.insert(scope, place.clone());
            true
        });
        located.route.hosts = hosts;
        if located.route.fallback {
            let owner = self.fallback.get_or_insert_with(|| place.clone());
            if *owner != place {
                let message = format!("there already is a fallback at {owner}, and there can be only one");
                contested.push(Problem::at(&located.file, located.position, message));
                located.route.fallback = false;
            }
        }
        ((!located.route.hosts.is_empty()).then_some(located), contested)
    }
}

fn unreadable(error: &FileError) -> Problem {
    Problem::new(&error.path, format!("cannot be read: {}", error.source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, text: &str) -> (PathBuf, Result<Vec<u8>, FileError>) {
        (PathBuf::from(name), Ok(text.as_bytes().to_vec()))
    }

    fn parse(config: &str, routes: &[(&str, &str)], discovery: &str) -> Configuration {
        Configuration::parse(&Files {
            config: Some(source("fairlead.toml", config)),
            routes: routes.iter().map(|(name, text)| source(name, text)).collect(),
            discovery: Some(source("docker.toml", discovery)),
            ..Files::default()
        })
    }

    fn route(host: &str) -> String {
        format!("[[route]]\nhosts = [\"{host}\"]\nupstreams = [\"http://127.0.0.1:80\"]\n")
    }

    fn hosts(configuration: &Configuration) -> Vec<String> {
        let hosts = |located: &Located| located.route.hosts.clone();
        configuration
            .routes
            .iter()
            .flat_map(hosts)
            .map(|host| host.to_string())
            .collect()
    }

    fn shown(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let configuration = parse("", &[], "");
        assert_eq!(configuration.config, Config::default());
        assert_eq!(configuration.problems, []);
    }

    #[test]
    fn faulty_settings_are_told_apart_from_faulty_routes() {
        for (text, faulty) in [
            ("", false),
            ("[[route]]\nhosts = []\nupstreams = []\n", false),
            ("[acme]\nemial = \"a@b.test\"\n", true),
            ("[certificates]\nprovider = \"internel\"\n", true),
            ("[acme\n", true),
            ("\u{0}", true),
        ] {
            assert_eq!(parse(text, &[], "").config_is_faulty, faulty, "{text:?}");
        }
        let unreadable = || FileError {
            path: PathBuf::from("fairlead.toml"),
            source: std::io::Error::other("of a test"),
        };
        let files = Files {
            config: Some((PathBuf::from("fairlead.toml"), Err(unreadable()))),
            ..Files::default()
        };
        assert!(Configuration::parse(&files).config_is_faulty);
    }

    #[test]
    fn an_unknown_key_is_named_with_place_and_nearest_key() {
        for (text, expected) in [
            (
                "[acme]\nemial = \"a@b.test\"\n",
                "fairlead.toml:2:1: unknown field `emial`, expected one of `directory`, `email`, `accept-terms`, \
                 `challenge`, `resolvers`, `check-ports`, `dns`, `profile`, `preferred-chain`, `external-account`, \
                 `max-names`, `orders-per-week`, `fallback`, `ca-file` (did you mean `email`?)",
            ),
            (
                "[[routes]]\n",
                "fairlead.toml:1:3: unknown field `routes`, expected one of `proxy`, `docker`, `certificates`, \
                 `acme`, `authority`, `template`, `route` (did you mean `route`?)",
            ),
        ] {
            assert_eq!(shown(&parse(text, &[], "").problems), [expected]);
        }
        let problems = parse("[[route]]\nhots = [\"a.test\"]\nupstreams = []\n", &[], "").problems;
        let shown = problems[0].to_string();
        let start = "fairlead.toml:2:1: unknown field `hots`, expected one of `hosts`, `path`, ";
        assert!(shown.starts_with(start), "{shown}");
        assert!(shown.ends_with(" (did you mean `hosts`?)"), "{shown}");
    }

    #[test]
    fn what_is_of_this_machine_or_of_the_operator_holds_for_every_authority_that_does_not_say() {
        let config = "[acme]\nemail = \"a@b.test\"\ncheck-ports = false\nresolvers = [\"192.0.2.1\"]\n\
                      [authority.one]\ndirectory = \"https://one.test\"\n\
                      [authority.two]\ndirectory = \"https://two.test\"\ncheck-ports = true\n";
        let authorities = parse(config, &[], "").config.authorities();
        let said: Vec<_> = authorities
            .iter()
            .map(|acme| (acme.email.as_deref(), acme.check_ports, acme.resolvers.len()))
            .collect();
        let email = Some("a@b.test");
        assert_eq!(
            said,
            [
                (email, Some(false), 1),
                (email, Some(false), 0),
                (email, Some(true), 0)
            ]
        );
    }

    #[test]
    fn authorities_that_are_not_there_or_there_twice_are_said() {
        let named = |name: &str| route("a.test") + &format!("provider = \"{name}\"\n");
        let config = "[authority.staging]\ndirectory = \"https://ca.test\"\n";
        assert_eq!(parse(config, &[("r.toml", &named("staging"))], "").problems, []);
        let configuration = parse(
            config,
            &[("r.toml", &named("stagin"))],
            &named("x").replace("a.", "b."),
        );
        let unknown = |name: &str| {
            format!(
                "provider = \"{name}\": neither acme, internal or off, nor an [authority.{name}] of fairlead.toml"
            )
        };
        assert_eq!(
            shown(&configuration.problems),
            [format!("r.toml:1:1: {}", unknown("stagin"))]
        );
        assert_eq!(
            shown(&configuration.notes),
            [format!("docker.toml:1:1: {}", unknown("x"))]
        );

        for (text, expected) in [
            (
                "[acme]\n[authority.a]\n",
                "fairlead.toml:2:1: it has the same directory as [acme]; keep one of them",
            ),
            (
                "[acme]\nfallback = [\"a\"]\n",
                "fairlead.toml:2:12: fallback = \"a\": there is no [authority.a]",
            ),
            (
                "[certificates]\nprovider = \"a\"\n",
                "fairlead.toml:2:12: provider = \"a\": neither acme, internal or off, nor an [authority.a] of fairlead.toml",
            ),
        ] {
            assert_eq!(shown(&parse(text, &[], "").problems), [expected]);
        }
    }

    #[test]
    fn a_faulty_route_takes_down_itself_alone() {
        let text = format!(
            "{}[[route]]\nhosts = [\"127.0.0.1\"]\nupstreams = [\"http://a:1\"]\n{}",
            route("a.test"),
            route("b.test")
        );
        let configuration = parse("", &[("r.toml", &text)], "");
        assert_eq!(hosts(&configuration), ["a.test", "b.test"]);
        assert_eq!(
            shown(&configuration.problems),
            ["r.toml:5:9: \"127.0.0.1\" is not a host name: IP addresses cannot be hosts"]
        );
    }

    #[test]
    fn two_routes_of_the_operator_with_one_host_are_a_problem_that_names_both() {
        let configuration = parse(&route("a.test"), &[("r.toml", &route("A.test"))], "");
        assert_eq!(hosts(&configuration), ["a.test"]);
        assert_eq!(
            shown(&configuration.problems),
            ["r.toml:1:1: a.test already has a route at fairlead.toml:1"]
        );
    }

    #[test]
    fn routes_share_a_host_with_different_paths_and_then_one_certificate() {
        let text = |path: &str, more: &str| format!("{}path = \"{path}\"\n{more}", route("a.test"));
        let shared = [
            text("/", ""),
            text("/api", "provider = \"off\"\n"),
            text("/api/", ""),
        ]
        .concat();
        let configuration = parse(&shared, &[], &text("/api", ""));
        assert_eq!(hosts(&configuration), ["a.test", "a.test"]);
        let contested = |place| format!("{place}: a.test/api already has a route at fairlead.toml:5");
        assert_eq!(shown(&configuration.problems), [contested("fairlead.toml:10:1")]);
        assert_eq!(shown(&configuration.notes), [contested("docker.toml:1:1")]);
        let subjects = configuration.subjects();
        assert_eq!(subjects.len(), 1);
        assert_eq!(subjects[0].provider, Some(crate::Provider::Off));
    }

    #[test]
    fn there_is_one_fallback() {
        let fallback = |host| format!("{}fallback = true\n", route(host));
        let both = [fallback("a.test"), fallback("b.test")].concat();
        let configuration = parse(&both, &[], &fallback("c.test"));
        let fallbacks = configuration.routes.iter().map(|located| located.route.fallback);
        assert_eq!(fallbacks.collect::<Vec<_>>(), [true, false, false]);
        let contested = |place| {
            format!("{place}: there already is a fallback at fairlead.toml:1, and there can be only one")
        };
        assert_eq!(shown(&configuration.problems), [contested("fairlead.toml:5:1")]);
        assert_eq!(shown(&configuration.notes), [contested("docker.toml:1:1")]);
    }

    #[test]
    fn the_operator_wins_over_a_container_without_a_problem() {
        let discovered =
            "[[route]]\nhosts = [\"a.test\", \"b.test\"]\nupstreams = [\"http://172.17.0.2:80\"]\n";
        let configuration = parse(&route("a.test"), &[], discovered);
        assert_eq!(hosts(&configuration), ["a.test", "b.test"]);
        assert_eq!(configuration.problems, []);
        assert_eq!(
            shown(&configuration.notes),
            ["docker.toml:1:1: a.test already has a route at fairlead.toml:1"]
        );
    }

    #[test]
    fn a_syntax_error_keeps_the_other_files() {
        let configuration = parse(&route("a.test"), &[("bad.toml", "[[route]\n")], &route("c.test"));
        assert_eq!(hosts(&configuration), ["a.test", "c.test"]);
        let problems = shown(&configuration.problems);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("bad.toml:1:"), "{problems:?}");
    }

    #[test]
    fn routes_without_hosts_or_upstreams_and_doubled_hosts_are_faults() {
        for (text, expected) in [
            (
                "[[route]]\nhosts = []\nupstreams = [\"http://a:1\"]",
                "a route needs at least one host",
            ),
            (
                "[[route]]\nhosts = [\"a.test\"]\nupstreams = []",
                "the route of a.test needs at least one upstream, or a redirect",
            ),
            (
                "[[route]]\nhosts = [\"b.test\", \"a.test\"]\nredirect = \"https://A.test\"",
                "the redirect leads from a.test back to it",
            ),
            (
                "[[route]]\nhosts = [\"a.test\", \"A.TEST\"]\nupstreams = [\"http://a:1\"]",
                "a.test stands twice in the route",
            ),
            (
                "[[route]]\nhosts = [\"*.a.test\"]\nupstreams = [\"http://a:1\"]\nredirect-to-primary = true",
                "redirect-to-primary needs an exact first host; *.a.test is a wildcard",
            ),
            (
                "[[route]]\nhosts = [\"a.test\"]\nupstreams = [\"http://a:1\"]\nrequest-headers = [{ delete = \"Host\" }]",
                "request-headers can only `replace` the Host",
            ),
            (
                "[[route]]\nhosts = [\"a.test\"]\nupstreams = [\"http://a:1\"]\nstrip-prefix = true\nreplace-prefix = \"/\"",
                "strip-prefix and replace-prefix exclude each other: keep one",
            ),
        ] {
            let configuration = parse(text, &[], "");
            assert_eq!(
                shown(&configuration.problems),
                [format!("fairlead.toml:1:1: {expected}")]
            );
            assert!(configuration.routes.is_empty());
        }
    }

    #[test]
    fn an_upstream_s_fault_is_told_with_its_place() {
        for (upstream, expected) in [
            (
                "\"ftp://a\"",
                "3:14: \"ftp://a\" is not an upstream: it must start with http://, https://, h2c://, h2:// or unix:/",
            ),
            (
                "{ url = \"http://a:0\" }",
                "3:22: \"http://a:0\" is not an upstream: port 0 cannot be connected to",
            ),
            (
                "{ uri = \"http://a\" }",
                "3:16: unknown field `uri`, expected one of `url`, `weight`, `ca-file`, `server-name`, \
                 `verify`, `proxy-protocol`, `container` (did you mean `url`?)",
            ),
            (
                "5",
                "3:14: invalid type: integer `5`, expected a URL such as \"http://127.0.0.1:8080\", or a table with `url`",
            ),
        ] {
            let text = format!("[[route]]\nhosts = [\"a.test\"]\nupstreams = [{upstream}]\n");
            let shown = shown(&parse(&text, &[], "").problems);
            assert_eq!(shown, [format!("fairlead.toml:{expected}")]);
        }
    }

    #[test]
    fn header_edits_are_checked_where_they_stand() {
        let with = |edit: &str| format!("{}response-headers = [{edit}]\n", route("a.test"));
        for edit in [
            "{ replace = \"X-A\", value = \"1\" }",
            "{ delete = \"Server\" }",
            "{ add = \"Link\", value = \"<a>\" }",
        ] {
            assert_eq!(parse(&with(edit), &[], "").problems, [], "{edit}");
        }
        for edit in [
            "{}",
            "{ value = \"1\" }",
            "{ replace = \"X-A\" }",
            "{ delete = \"X-A\", value = \"1\" }",
            "{ add = \"X-A\", delete = \"X-B\" }",
            "{ replace = \"X A\", value = \"1\" }",
            "{ replace = \"X-A\", value = \"1\\r\\nX-B: 2\" }",
            "{ replace = \"Transfer-Encoding\", value = \"chunked\" }",
        ] {
            assert_eq!(parse(&with(edit), &[], "").problems.len(), 1, "{edit}");
        }
    }

    #[test]
    fn what_is_not_utf_8_is_refused_with_its_line() {
        let configuration = Configuration::parse(&Files {
            config: Some((PathBuf::from("fairlead.toml"), Ok(b"# fine\n# \xff\n".to_vec()))),
            ..Files::default()
        });
        assert_eq!(
            shown(&configuration.problems),
            ["fairlead.toml:2:3: the file is not UTF-8 here"]
        );
    }

    #[test]
    fn byte_order_marks_and_windows_line_ends_are_accepted() {
        let text = format!("\u{feff}{}", route("a.test").replace('\n', "\r\n"));
        assert_eq!(hosts(&parse(&text, &[], "")), ["a.test"]);
    }
}
