use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairlead_contract::{Acme, Configuration, Files, Paths, read_file, remove_if_present};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::acme::AcmeError;
use crate::dns::{DnsError, Record, Zones};
use crate::secret::write_secret;
use crate::words::chain;

const HEADING: &str = "\
# Written by fairlead-certs: a record that was put into the DNS and not taken back yet.
";

/// How long it may take to take records back. Those that are left then are for the next pass.
const LIMIT: Duration = Duration::from_secs(3 * 60);

/// How long passes try to take a record back. It is worth nothing to anybody.
const LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A record that may be in the DNS, as it is kept on disk so that it does not stay there after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Presented {
    /// Of the authority that wanted to see it.
    directory: String,
    name: String,
    value: String,
    since: Timestamp,
}

impl Presented {
    /// Remembers a record that is about to be put into the DNS, until [`take_back`].
    pub(crate) fn remember(paths: &Paths, directory: &str, record: &Record) -> Result<(), AcmeError> {
        let presented = Self {
            directory: directory.to_owned(),
            name: record.name(),
            value: record.value().to_owned(),
            since: Timestamp::now(),
        };
        let text = format!("{HEADING}\n{}", toml::to_string(&presented)?);
        Ok(write_secret(&file(paths, record), &text)?)
    }

    /// Takes the record back as the settings say now. One that cannot be is kept for the next pass, but not for ever.
    async fn end(&self, paths: &Paths, authorities: &[Acme]) -> Result<(), DnsError> {
        let record = Record::parse(&self.name, &self.value)?;
        let acme = authorities.iter().find(|acme| acme.directory == self.directory);
        let settings = acme.and_then(|acme| Some((acme.dns.as_ref()?, &acme.resolvers)));
        let is_old = Timestamp::now().duration_since(self.since) > LIFETIME;
        match settings {
            Some((dns, resolvers)) if !is_old => {
                take_back(paths, &Zones::open(dns, resolvers)?, &record).await;
            }
            _ => {
                tracing::warn!(
                    "take it away by hand: the record {} stays at {}",
                    self.value,
                    self.name
                );
                forget(paths, &record);
            }
        }
        Ok(())
    }
}

/// Takes records back that were remembered.
pub(crate) async fn take_all_back(paths: &Paths, zones: &Zones<'_>, records: &[Record]) {
    let taking = async {
        for record in records {
            take_back(paths, zones, record).await;
        }
    };
    within_limit(taking).await;
}

/// Takes back what passes left in the DNS that were killed, or could not take it back. Only for a pass that runs
/// alone.
pub(crate) async fn remove_leftover_records(paths: &Paths) {
    let leftovers = find_all(paths).unwrap_or_else(|error| {
        tracing::warn!("{}: {error}", paths.records_dir().display());
        Vec::new()
    });
    if leftovers.is_empty() {
        return;
    }
    let configuration = Configuration::parse(&Files::read_without_pairs(paths));
    if configuration.config_is_faulty {
        return;
    }
    let authorities = configuration.config.authorities();
    let taking = async {
        for leftover in &leftovers {
            if let Err(error) = leftover.end(paths, &authorities).await {
                tracing::warn!("{}: {}", leftover.name, chain(&error));
            }
        }
    };
    within_limit(taking).await;
}

async fn within_limit(taking: impl Future<Output = ()>) {
    if timeout(LIMIT, taking).await.is_err() {
        tracing::warn!(
            "records stay in the DNS until the next pass: to take them back takes more than {} seconds",
            LIMIT.as_secs()
        );
    }
}

async fn take_back(paths: &Paths, zones: &Zones<'_>, record: &Record) {
    match zones.remove(record).await {
        Ok(()) => forget(paths, record),
        Err(error) => tracing::warn!(
            "a record stays in the DNS until the next pass, at {}: {}",
            record.name(),
            chain(&error)
        ),
    }
}

fn forget(paths: &Paths, record: &Record) {
    if let Err(error) = remove_if_present(&file(paths, record)) {
        tracing::warn!("{}", chain(&error));
    }
}

fn find_all(paths: &Paths) -> io::Result<Vec<Presented>> {
    let entries = match fs::read_dir(paths.records_dir()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // A crash while one is written leaves a file of another name, whose record was not put into the DNS.
        if path.extension().is_some_and(|extension| extension == "toml") {
            let read = read(&path);
            let read = read.inspect_err(|error| tracing::warn!("{}: {error}; remove it", path.display()));
            found.extend(read);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> anyhow::Result<Presented> {
    Ok(toml::from_slice(&read_file(path)?)?)
}

/// The value, of 43 characters that may stand in the name of a file, is of one challenge alone.
fn file(paths: &Paths, record: &Record) -> PathBuf {
    paths.records_dir().join(format!("{}.toml", record.value()))
}
