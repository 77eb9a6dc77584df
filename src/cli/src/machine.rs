use std::io;
use std::path::PathBuf;

use fairlead_contract::{
    Configuration, Digest, Files, Orders, Paths, Status, Subject, chain, escaped, read_file,
};
use jiff::Timestamp;

use crate::admin::{NoStatus, ask_status};
use crate::compare::Digests;
use crate::keeper::Keeper;
use crate::service::{Doubt, LastPass, is_stopped};
use crate::store::Store;

/// What to do about files that are not for everybody.
pub(crate) const READERS: &str = "run this as root, or as a member of group fairlead";

/// Everything that can be known from outside, read once.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) paths: Paths,
    pub(crate) digests: Digests,
    pub(crate) configuration: Configuration,
    /// The certificates that the routes ask for.
    pub(crate) subjects: Vec<Subject>,
    /// Whether some file is there and not for whoever asks.
    pub(crate) is_forbidden: bool,
    pub(crate) store: Store,
    /// What was ordered within a week, or why that is not known.
    pub(crate) orders: Result<Orders, String>,
    pub(crate) proxy: Result<Status, NoStatus>,
    /// The watcher's, or why it is not known.
    pub(crate) last_pass: Result<Option<LastPass>, String>,
    /// Whether something happened that the watcher is still to look at.
    pub(crate) has_news: bool,
    pub(crate) keeper: Keeper,
    pub(crate) now: Timestamp,
}

impl Machine {
    pub(crate) async fn observe(paths: Paths) -> Self {
        let files = Files::read(&paths);
        let configuration = Configuration::parse(&files);
        Self {
            digests: files.digests(),
            subjects: configuration.subjects(),
            configuration,
            is_forbidden: is_forbidden(&files),
            store: Store::read(&paths),
            orders: read_orders(&paths),
            proxy: ask(&paths).await,
            last_pass: LastPass::find(&paths.admin_socket())
                .await
                .map_err(|error| chain(&error)),
            has_news: paths.watcher_dirty_file().exists(),
            // What is next is said in its words, and a file that it damaged is no reason to say nothing.
            keeper: Keeper::of(&paths).unwrap_or(Keeper::Systemd),
            now: Timestamp::now(),
            paths,
        }
    }

    /// The files and directories that are there and could not be read.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = &PathBuf> {
        let digests = self.digests.iter();
        digests.filter_map(|(file, digest)| (*digest == Digest::Unreadable).then_some(file))
    }

    pub(crate) fn known_pass(&self) -> Option<&LastPass> {
        self.last_pass.as_ref().ok()?.as_ref()
    }

    /// The watcher's last pass, if what it wrote may not hold any more.
    pub(crate) fn doubtful_pass(&self) -> Option<(&LastPass, Doubt)> {
        let pass = self.known_pass()?;
        Some((pass, pass.doubt(self.now)?))
    }

    /// Whether the watcher is about to say something newer.
    pub(crate) fn is_being_looked_at(&self) -> bool {
        self.has_news || self.known_pass().is_some_and(|pass| pass.running)
    }

    /// What is wrong with the files, as lines, and how to read those that could not be read.
    pub(crate) fn faults(&self) -> Vec<String> {
        let problems = self.configuration.problems.iter();
        let mut faults: Vec<_> = problems.map(|problem| escaped(&problem.to_string())).collect();
        faults.extend(self.is_forbidden.then(|| READERS.to_owned()));
        faults
    }
}

/// Whether some file is there and not for whoever asks.
pub(crate) fn is_forbidden(files: &Files) -> bool {
    let sources = files.config.iter().chain(&files.routes).chain(&files.discovery);
    let contents = sources.map(|(_, content)| content);
    let pairs = files.pairs.iter().flat_map(|pair| [&pair.chain, &pair.key]);
    contents
        .chain(pairs)
        .filter_map(|content| content.as_ref().err())
        .chain(&files.unlisted)
        .any(|error| error.source.kind() == io::ErrorKind::PermissionDenied)
}

fn read_orders(paths: &Paths) -> Result<Orders, String> {
    let file = paths.orders_file();
    match read_file(&file) {
        Ok(bytes) => Orders::parse(&file, &bytes).map_err(|problem| escaped(&problem.to_string())),
        Err(error) if error.is_not_found() => Ok(Orders::default()),
        Err(error) => Err(format!("{error}: {}", error.source)),
    }
}

/// Asks without starting a proxy that does not run.
async fn ask(paths: &Paths) -> Result<Status, NoStatus> {
    let socket = paths.admin_socket();
    // Where systemd cannot be asked, the proxy still can.
    if is_stopped(&socket).await.unwrap_or(false) {
        return Err(NoStatus::Stopped);
    }
    ask_status(&socket).await
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use fairlead_contract::{HostPattern, Issued, Ledger, Provider};

    use super::*;
    use crate::compare::tests::{moment, status};

    pub(crate) const CONFIG: &str = "/etc/fairlead/fairlead.toml";
    pub(crate) const DISCOVERY: &str = "/var/lib/fairlead/routes/docker.toml";

    /// A machine with this `fairlead.toml`, at 1000 seconds, whose proxy serves what is on disk.
    pub(crate) fn machine(config: &str) -> Machine {
        machine_with(config, "")
    }

    pub(crate) fn machine_with(config: &str, discovery: &str) -> Machine {
        let source = |path: &str, text: &str| Some((PathBuf::from(path), Ok(text.as_bytes().to_vec())));
        let files = Files {
            config: source(CONFIG, config),
            discovery: source(DISCOVERY, discovery),
            ..Files::default()
        };
        let digests = files.digests();
        let configuration = Configuration::parse(&files);
        Machine {
            paths: paths(),
            proxy: Ok(status(&digests, 500)),
            digests,
            subjects: configuration.subjects(),
            configuration,
            is_forbidden: false,
            store: Store::default(),
            orders: Ok(Orders::default()),
            last_pass: Ok(None),
            has_news: false,
            keeper: Keeper::Systemd,
            now: moment(1000),
        }
    }

    /// One that began at so many seconds, and has ended.
    pub(crate) fn pass(at: i64, failed: bool) -> LastPass {
        LastPass {
            unit: "fairlead-watcher.service".to_owned(),
            at: moment(at),
            failed,
            running: false,
        }
    }

    fn paths() -> Paths {
        let path = |text: &str| Path::new(text).to_owned();
        Paths {
            config: path("/etc/fairlead"),
            state: path("/var/lib/fairlead"),
            runtime: path("/run/fairlead"),
        }
    }

    pub(crate) fn ledger(
        names: &[&str],
        issued: Option<Issued>,
        failure: Option<fairlead_contract::Failure>,
    ) -> Ledger {
        Ledger {
            names: names
                .iter()
                .map(|name| HostPattern::parse(name).unwrap())
                .collect(),
            provider: Provider::Acme,
            issued,
            failure,
            unused_since: None,
        }
    }

    pub(crate) fn issued(due: i64, not_after: i64) -> Issued {
        Issued {
            issuer: "https://ca.test/directory".to_owned(),
            at: moment(0),
            not_after: moment(not_after),
            due: moment(due),
            revoked: None,
            renewal_info: None,
        }
    }
}
