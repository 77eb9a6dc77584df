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
        let mut command = Command::new(find(self.name()));
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
}

/// The program beside this one, so that versions match; else whichever is in PATH.
fn find(name: &str) -> PathBuf {
    let beside = env::current_exe().ok().and_then(|path| beside(&path, name));
    beside.unwrap_or_else(|| PathBuf::from(name))
}

fn beside(path: &Path, name: &str) -> Option<PathBuf> {
    let candidate = path.parent()?.join(name);
    candidate.is_file().then_some(candidate)
}
