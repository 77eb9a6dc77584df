use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fairlead_contract::{Paths, write_atomically};
use tempfile::TempDir;

use crate::{Finished, Program, Running};

/// The directories of one installation, made as `systemd/tmpfiles.d` makes them, and removed in the end.
#[derive(Debug)]
pub struct Environment {
    root: TempDir,
    paths: Paths,
}

impl Environment {
    /// Nothing configured, no routes, no certificates.
    #[expect(clippy::new_without_default, reason = "it makes directories")]
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("cannot make a directory below $TMPDIR");
        let paths = Paths {
            config: root.path().join("etc"),
            state: root.path().join("var"),
            runtime: root.path().join("run"),
        };
        let directories = [
            paths.routes_dir(),
            parent(&paths.discovery_file()),
            paths.state.join("templates"),
            paths.certificates_dir(),
            paths.account_dir(),
            paths.challenges_dir(),
            parent(&paths.watcher_dirty_file()),
            parent(&paths.certs_dirty_file()),
        ];
        for directory in directories {
            fs::create_dir_all(&directory).expect("cannot make a directory below $TMPDIR");
        }
        Self { root, paths }
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The directory that holds all others, for whatever else a test needs.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Writes `fairlead.toml`.
    pub fn write_config(&self, text: &str) {
        write(&self.paths.config_file(), text);
    }

    /// Writes `routes.d/NAME`.
    pub fn write_routes(&self, name: &str, text: &str) {
        write(&self.paths.routes_dir().join(name), text);
    }

    /// Writes `docker.toml` in the watcher's place.
    pub fn write_discovery(&self, text: &str) {
        write(&self.paths.discovery_file(), text);
    }

    /// A command of this installation: it knows its directories, and nothing from this process's own service.
    pub fn command(&self, program: Program) -> Command {
        let mut command = Command::new(program.path());
        self.equip(&mut command);
        command
    }

    /// Runs a program to its end.
    pub fn run(&self, program: Program, arguments: &[&str]) -> Finished {
        let mut command = self.command(program);
        command.args(arguments);
        self.start(command).finish()
    }

    /// Starts a program that runs until it is told to stop, or until the value is dropped.
    pub fn spawn(&self, program: Program, arguments: &[&str]) -> Running {
        let mut command = self.command(program);
        command.args(arguments);
        self.start(command)
    }

    /// Starts a command that was changed after [`Self::command`] made it.
    pub fn start(&self, command: Command) -> Running {
        Running::start(command, &self.root.path().join("notify"))
    }

    /// Says by environment variables where the directories are.
    pub fn equip(&self, command: &mut Command) {
        for variable in [
            "JOURNAL_STREAM",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "WATCHDOG_USEC",
        ] {
            command.env_remove(variable);
        }
        command
            .env("FAIRLEAD_CONFIG_DIR", &self.paths.config)
            .env("FAIRLEAD_STATE_DIR", &self.paths.state)
            .env("FAIRLEAD_RUNTIME_DIR", &self.paths.runtime)
            .env(
                "FAIRLEAD_LOG",
                "debug,hyper=info,h2=info,rustls=info,bollard=info",
            );
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().expect("every file has a directory").to_owned()
}

fn write(path: &Path, text: &str) {
    write_atomically(path, text.as_bytes(), 0o644).expect("cannot write a file of the test");
}
