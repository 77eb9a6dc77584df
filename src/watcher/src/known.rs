use std::collections::BTreeMap;
use std::path::Path;

use fairlead_contract::{
    AuthorityName, Configuration, Discovery, Docker, FileError, Files, Paths, Problem, Route, Scope, Template,
};
use jiff::{Timestamp, Unit};
use thiserror::Error;
use tracing::warn;

/// What the files say before a pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// When it was read, in whole seconds.
    pub(crate) now: Timestamp,
    pub(crate) docker: Docker,
    pub(crate) templates: Vec<Template>,
    /// The ACME servers that a container may name.
    pub(crate) authorities: Vec<AuthorityName>,
    /// The operator's routes, in file order.
    pub(crate) operators: Vec<Route>,
    /// What the operator routes, each with the place where that stands.
    pub(crate) operator: BTreeMap<Scope, String>,
    /// What the last pass wrote.
    pub(crate) present: Discovery,
}

impl Known {
    /// Reads the files. Faulty routes of the operator's are only warned of: the proxy refuses them, and
    /// once they are mended the containers are up to date already.
    pub(crate) fn read(paths: &Paths) -> Result<Self, Unknown> {
        let mut files = Files::read_without_pairs(paths);
        let discovery = paths.discovery_file();
        if let Some((_, Err(error))) = files.discovery.take_if(|(_, content)| content.is_err()) {
            return Err(Unknown::Discovery(error));
        }
        let configuration = Configuration::parse(&files);
        refuse_faulty_settings(&configuration)?;
        for problem in &configuration.problems {
            warn!(file = %problem.file.display(), "{problem}");
        }
        let now = Timestamp::now().round(Unit::Second).unwrap_or_default();
        Ok(Self::of(configuration, &discovery, now))
    }

    fn of(configuration: Configuration, discovery: &Path, now: Timestamp) -> Self {
        let (ours, operators): (Vec<_>, Vec<_>) = configuration
            .routes
            .into_iter()
            .partition(|located| *located.file == *discovery);
        let scopes = operators.iter().flat_map(|located| {
            let hosts = located.route.hosts.iter();
            hosts.map(|host| (located.route.scope(host), located.place()))
        });
        Self {
            now,
            docker: configuration.config.docker,
            templates: configuration.config.templates,
            authorities: configuration.config.authority.into_keys().collect(),
            operator: scopes.collect(),
            operators: operators.into_iter().map(|located| located.route).collect(),
            present: Discovery {
                routes: ours.into_iter().map(|located| located.route).collect(),
                rejections: configuration.rejections,
                owners: configuration.owners,
            },
        }
    }
}

/// Reads `[docker]` alone.
pub(crate) fn read_settings(paths: &Paths) -> Result<Docker, Unknown> {
    let files = Files {
        config: Files::read_without_pairs(paths).config,
        ..Files::default()
    };
    let configuration = Configuration::parse(&files);
    refuse_faulty_settings(&configuration)?;
    Ok(configuration.config.docker)
}

/// The settings with the socket that the command line names, if it names one.
pub(crate) fn with_socket(settings: Docker, socket: Option<&Path>) -> Docker {
    match socket {
        Some(socket) => Docker {
            socket: socket.to_owned(),
            ..settings
        },
        None => settings,
    }
}

/// A pass cannot tell what to do. Not the same as files that say nothing.
#[derive(Debug, Error)]
pub(crate) enum Unknown {
    /// Without the settings even the socket is unknown.
    #[error("the settings have faults, so the containers were not looked at:\n{0}")]
    Settings(String),
    /// It says which container holds which host.
    #[error("the routes of the last pass are needed to keep hosts with their containers")]
    Discovery(#[source] FileError),
}

fn refuse_faulty_settings(configuration: &Configuration) -> Result<(), Unknown> {
    if !configuration.config_is_faulty {
        return Ok(());
    }
    let lines: Vec<String> = configuration.problems.iter().map(Problem::to_string).collect();
    Err(Unknown::Settings(lines.join("\n")))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "nobody else reads these files")]
mod tests {
    use std::fs;

    use fairlead_contract::{HostPattern, Route};
    use tempfile::TempDir;

    use super::*;

    const ROUTE: &str = "[[route]]\nhosts = [\"HOST\"]\nupstreams = [\"http://127.0.0.1:80\"]\n";

    struct Machine {
        root: TempDir,
        paths: Paths,
    }

    impl Machine {
        fn with(files: &[(&str, &str)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            let path = |name| root.path().join(name);
            let paths = Paths {
                config: path("etc"),
                state: path("var"),
                runtime: path("run"),
            };
            for directory in ["etc/routes.d", "var/routes"] {
                fs::create_dir_all(path(directory)).unwrap();
            }
            for (name, text) in files {
                fs::write(path(name), text).unwrap();
            }
            Self { root, paths }
        }

        fn read(&self) -> Result<Known, Unknown> {
            Known::read(&self.paths)
        }
    }

    #[test]
    fn the_operators_hosts_and_the_present_routes_are_told_apart() {
        let machine = Machine::with(&[
            ("etc/fairlead.toml", "[docker]\nnetwork = \"web\"\n"),
            ("etc/routes.d/a.toml", &ROUTE.replace("HOST", "a.test")),
            ("var/routes/docker.toml", &ROUTE.replace("HOST", "b.test")),
        ]);
        let known = machine.read().unwrap();
        let place = format!("{}:1", machine.root.path().join("etc/routes.d/a.toml").display());
        assert_eq!(
            known.operator,
            [(
                Route::default().scope(&HostPattern::parse("a.test").unwrap()),
                place
            )]
            .into()
        );
        assert_eq!(known.present.routes.len(), 1);
        assert_eq!(known.present.routes[0].hosts[0].to_string(), "b.test");
        assert_eq!(known.docker.network.as_deref(), Some("web"));
    }

    #[test]
    fn faulty_settings_stop_a_pass_and_name_the_place() {
        let machine = Machine::with(&[("etc/fairlead.toml", "[docker]\nsokcet = \"/x\"\n")]);
        let error = machine.read().unwrap_err().to_string();
        assert!(
            error.contains("fairlead.toml:2:1: unknown field `sokcet`"),
            "{error}"
        );
    }

    #[test]
    fn a_faulty_route_of_the_operators_does_not_stop_a_pass() {
        let machine = Machine::with(&[
            ("etc/routes.d/a.toml", &ROUTE.replace("HOST", "a.test")),
            ("etc/routes.d/b.toml", "[[route]\n"),
            ("etc/fairlead.toml", "[[route]]\nhosts = []\nupstreams = []\n"),
        ]);
        assert_eq!(machine.read().unwrap().operator.len(), 1);
    }

    #[test]
    fn a_damaged_routes_file_is_written_anew() {
        let machine = Machine::with(&[("var/routes/docker.toml", "[[route]\n")]);
        assert_eq!(machine.read().unwrap().present, Discovery::default());
    }

    #[test]
    fn an_unreadable_routes_file_is_not_an_empty_one() {
        let machine = Machine::with(&[]);
        fs::create_dir(machine.paths.discovery_file()).unwrap();
        assert!(matches!(machine.read(), Err(Unknown::Discovery(_))));
    }
}
