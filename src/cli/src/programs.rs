use std::env;
use std::path::{Path, PathBuf};

use fairlead_contract::Paths;
use tokio::process::Command;

/// The programs that come with this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Proxy,
    Watcher,
    Certs,
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Proxy => "fairlead-proxy",
            Self::Watcher => "fairlead-watcher",
            Self::Certs => "fairlead-certs",
        }
    }

    /// A command that runs it with these directories, and ends with the value that runs it.
    pub(crate) fn command(self, paths: &Paths) -> Command {
        with_directories(Command::new(self.path()), paths)
    }

    /// The program beside this one, so that versions match; else whichever is in PATH.
    pub(crate) fn path(self) -> PathBuf {
        let beside = env::current_exe()
            .ok()
            .and_then(|path| beside(&path, self.name()));
        beside.unwrap_or_else(|| PathBuf::from(self.name()))
    }
}

/// The command with these directories; it ends with the value that runs it.
pub(crate) fn with_directories(mut command: Command, paths: &Paths) -> Command {
    command
        .arg("--config-dir")
        .arg(&paths.config)
        .arg("--state-dir")
        .arg(&paths.state)
        .arg("--runtime-dir")
        .arg(&paths.runtime)
        .kill_on_drop(true);
    command
}

fn beside(path: &Path, name: &str) -> Option<PathBuf> {
    let candidate = path.parent()?.join(name);
    candidate.is_file().then_some(candidate)
}
