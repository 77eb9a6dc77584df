use std::path::PathBuf;

use fairlead_contract::{Configuration, Digest, Files, Paths, Status, escaped};
use jiff::Timestamp;

use crate::admin::{NoStatus, ask_status};
use crate::compare::Digests;
use crate::service::Service;
use crate::store::Store;

/// Everything that can be known from outside, read once.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) paths: Paths,
    pub(crate) digests: Digests,
    pub(crate) configuration: Configuration,
    pub(crate) store: Store,
    pub(crate) proxy: Result<Status, NoStatus>,
    pub(crate) now: Timestamp,
}

impl Machine {
    pub(crate) async fn observe(paths: Paths) -> Self {
        let files = Files::read(&paths);
        Self {
            digests: files.digests(),
            configuration: Configuration::parse(&files),
            store: Store::read(&paths),
            proxy: ask(&paths).await,
            now: Timestamp::now(),
            paths,
        }
    }

    /// The files and directories that are there and could not be read.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = &PathBuf> {
        let digests = self.digests.iter();
        digests.filter_map(|(file, digest)| (*digest == Digest::Unreadable).then_some(file))
    }

    /// What is wrong with the files, as lines.
    pub(crate) fn faults(&self) -> Vec<String> {
        let problems = self.configuration.problems.iter();
        let problems = problems.map(|problem| escaped(&problem.to_string()));
        problems.chain(self.store.fault.as_deref().map(escaped)).collect()
    }
}

/// Asks without starting a proxy that does not run.
async fn ask(paths: &Paths) -> Result<Status, NoStatus> {
    let socket = paths.admin_socket();
    // Where systemd cannot be asked, the proxy still can.
    if let Ok(Some(service)) = Service::find(&socket).await
        && service.is_stopped()
    {
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
        Machine {
            paths: paths(),
            proxy: Ok(status(&digests, 500)),
            digests,
            configuration: Configuration::parse(&files),
            store: Store::default(),
            now: moment(1000),
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
        }
    }

    pub(crate) fn issued(due: i64, not_after: i64) -> Issued {
        Issued {
            issuer: "https://ca.test/directory".to_owned(),
            at: moment(0),
            not_after: moment(not_after),
            due: moment(due),
        }
    }
}
