use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use fairlead_contract::{
    Config, Configuration, Destination, FileError, Files, PairCopy, Paths, Template, UnitName, chain,
    escaped, read_file, remove_if_present,
};
use nix::unistd::{Gid, Group, Uid, User};
use serde::Serialize;
use tempfile::NamedTempFile;
use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

use crate::answer::{Answer, Exit};
use crate::arguments::Format;
use crate::service::{self, SystemctlError};

/// How long a check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// Puts what the templates made, and copies of certificates, where they belong. What fails keeps its old
/// file, and the others go on. Each unit is told once, after all files are in place.
///
/// The marks go before anything is read, so that what is made meanwhile is delivered by another run.
pub(crate) async fn run(paths: &Paths, format: Format) -> anyhow::Result<Answer> {
    remove_if_present(&paths.rendered_mark())?;
    let has_renewed = paths.renewed_mark().exists();
    remove_if_present(&paths.renewed_mark())?;
    let files = Files {
        config: Files::read_without_pairs(paths).config,
        ..Files::default()
    };
    let configuration = Configuration::parse(&files);
    ensure!(
        !configuration.config_is_faulty,
        "the settings cannot be read, so nothing is delivered: fairlead check tells more"
    );
    let report = deliver_all(paths, &configuration.config, has_renewed).await;
    let exit = match report.has_failed() {
        false => Exit::Fine,
        true => Exit::Wrong,
    };
    if format.json {
        return Answer::json(&report, exit);
    }
    Ok(report.answer(exit))
}

async fn deliver_all(paths: &Paths, config: &Config, has_renewed: bool) -> Report {
    let mut units = BTreeSet::new();
    let mut report = Report::default();
    for template in &config.templates {
        let delivered = deliver(paths, template).await;
        if let Ok(Delivery::Changed) = delivered {
            units.extend(&template.reload_units);
        }
        let what = format!("template {}", template.name);
        report
            .files
            .push(Delivered::new(what, &template.destination, delivered));
    }
    for copy in &config.certificates.copies {
        let delivered = copy_pair(paths, copy);
        if let Ok(Delivery::Changed) = delivered {
            units.extend(&copy.reload_units);
        }
        let what = format!("certificate {}", copy.name);
        report.files.push(Delivered::new(what, &copy.key, delivered));
    }
    if has_renewed {
        units.extend(&config.certificates.reload_units);
    }
    for unit in units {
        report
            .units
            .push(Told::new(unit, service::reload_if_running(unit).await));
    }
    report
}

/// What became of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Changed,
    Unchanged,
}

async fn deliver(paths: &Paths, template: &Template) -> Result<Delivery, DeliverError> {
    let rendered = paths.rendered_file(&template.name);
    let bytes = read_file(&rendered).map_err(|error| match error.is_not_found() {
        true => DeliverError::NotRendered,
        false => DeliverError::Read(error),
    })?;
    let owner = Owner::find(template.owner.as_deref(), template.group.as_deref())?;
    let destination = template.destination.path();
    let mode = template.mode.bits();
    if holds(destination, &bytes, owner, mode) {
        return Ok(Delivery::Unchanged);
    }
    let write_error = |source| DeliverError::Write(destination.display().to_string(), source);
    let candidate = write_beside(destination, &bytes, owner, mode).map_err(write_error)?;
    if let Some(words) = template.check.words(candidate.path()) {
        judge(&words).await?;
    }
    put_in_place(candidate, destination).map_err(write_error)?;
    Ok(Delivery::Changed)
}

/// Copies both files of a pair, each in one step, once both are whole beside their places.
///
/// A pass may be replacing the pair at this very moment: its mark brings another delivery.
fn copy_pair(paths: &Paths, copy: &PairCopy) -> Result<Delivery, DeliverError> {
    let stored = paths.certificate(&copy.name);
    let read = |path: PathBuf| {
        read_file(&path).map_err(|error| match error.is_not_found() {
            true => DeliverError::NotStored,
            false => DeliverError::Read(error),
        })
    };
    let (chain, key) = (read(stored.chain_file())?, read(stored.key_file())?);
    let files = match copy.fullchain == copy.key {
        true => vec![(&copy.key, [chain, key].join(&b'\n'))],
        false => vec![(&copy.key, key), (&copy.fullchain, chain)],
    };
    let owner = Owner::find(copy.owner.as_deref(), copy.group.as_deref())?;
    let mode = copy.mode.bits();
    let is_there = |(place, bytes): &(&Destination, Vec<u8>)| holds(place.path(), bytes, owner, mode);
    if files.iter().all(is_there) {
        return Ok(Delivery::Unchanged);
    }
    let mut candidates = Vec::new();
    for (place, bytes) in files {
        let path = place.path();
        let write_error = |source| DeliverError::Write(path.display().to_string(), source);
        candidates.push((
            path,
            write_beside(path, &bytes, owner, mode).map_err(write_error)?,
        ));
    }
    for (path, candidate) in candidates {
        let write_error = |source| DeliverError::Write(path.display().to_string(), source);
        put_in_place(candidate, path).map_err(write_error)?;
    }
    Ok(Delivery::Changed)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    user: Uid,
    group: Gid,
}

impl Owner {
    fn find(user: Option<&str>, group: Option<&str>) -> Result<Self, DeliverError> {
        let (user, login_group) = match user {
            None => (Uid::effective(), Gid::effective()),
            Some(name) => find_user(name)?,
        };
        let group = match group {
            None => login_group,
            Some(name) => find_group(name)?,
        };
        Ok(Self { user, group })
    }
}

/// A user by name or number, and its login group.
fn find_user(name: &str) -> Result<(Uid, Gid), DeliverError> {
    let unknown = || DeliverError::Unknown("user", name.to_owned());
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let user = found.map_err(|error| DeliverError::Names(error.into()))?;
    user.map(|user| (user.uid, user.gid)).ok_or_else(unknown)
}

fn find_group(name: &str) -> Result<Gid, DeliverError> {
    let unknown = || DeliverError::Unknown("group", name.to_owned());
    let found = match name.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(name),
    };
    let group = found.map_err(|error| DeliverError::Names(error.into()))?;
    group.map(|group| group.gid).ok_or_else(unknown)
}

/// Whether the file is there as it should be. A link is not: whoever may change it could lead elsewhere.
fn holds(path: &Path, bytes: &[u8], owner: Owner, mode: u32) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else {
        return false;
    };
    found.is_file()
        && found.mode() & 0o7777 == mode
        && (found.uid(), found.gid()) == (owner.user.as_raw(), owner.group.as_raw())
        && read_file(path).is_ok_and(|present| present == bytes)
}

/// A new file in the same directory, so that it can take the other's place in one step. Nobody else can read
/// it before it has its owner and mode.
fn write_beside(destination: &Path, bytes: &[u8], owner: Owner, mode: u32) -> io::Result<NamedTempFile> {
    let mut candidate = tempfile::Builder::new()
        .prefix(".fairlead-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory(destination))?;
    candidate.write_all(bytes)?;
    let file = candidate.as_file();
    fchown(file, Some(owner.user.as_raw()), Some(owner.group.as_raw()))?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    Ok(candidate)
}

fn put_in_place(candidate: NamedTempFile, destination: &Path) -> io::Result<()> {
    candidate.persist(destination)?;
    File::open(directory(destination))?.sync_all()
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

/// Runs a check, which has to succeed.
async fn judge(words: &[OsString]) -> Result<(), DeliverError> {
    let shown = || {
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    };
    let [program, arguments @ ..] = words else {
        return Ok(());
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(CHECK_LIMIT, command.output())
        .await
        .map_err(|_| DeliverError::SlowCheck(shown()))?
        .map_err(|source| DeliverError::StartCheck(shown(), source))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = escaped(String::from_utf8_lossy(&said).trim());
    Err(DeliverError::FailedCheck(shown(), said))
}

/// Why a file is not where it belongs; the one that was there before still is.
#[derive(Debug, Error)]
enum DeliverError {
    #[error(
        "nothing was made of it yet: journalctl -u fairlead-watcher says why, or start fairlead-watcher.service"
    )]
    NotRendered,
    #[error("it is not in the store yet: fairlead certs says why")]
    NotStored,
    #[error(transparent)]
    Read(FileError),
    #[error("there is no {0} {1:?}: make it, or name another one")]
    Unknown(&'static str, String),
    #[error("users and groups cannot be looked up")]
    Names(#[source] io::Error),
    #[error("cannot write {0}")]
    Write(String, #[source] io::Error),
    #[error("cannot run its check, {0}")]
    StartCheck(String, #[source] io::Error),
    #[error("its check did not end within {CHECK_LIMIT:?}: {0}")]
    SlowCheck(String),
    #[error("its check failed, {0}: {1}")]
    FailedCheck(String, String),
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Report {
    files: Vec<Delivered>,
    units: Vec<Told>,
}

#[derive(Debug, Serialize)]
struct Delivered {
    /// The template or the certificate.
    what: String,
    destination: String,
    changed: bool,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Told {
    unit: String,
    error: Option<String>,
}

impl Delivered {
    fn new(what: String, place: &Destination, delivered: Result<Delivery, DeliverError>) -> Self {
        Self {
            what,
            destination: place.path().display().to_string(),
            changed: matches!(delivered, Ok(Delivery::Changed)),
            error: delivered.err().map(|error| chain(&error)),
        }
    }
}

impl Told {
    fn new(unit: &UnitName, told: Result<(), SystemctlError>) -> Self {
        Self {
            unit: unit.as_str().to_owned(),
            error: told.err().map(|error| chain(&error)),
        }
    }
}

impl Report {
    fn has_failed(&self) -> bool {
        self.files.iter().any(|file| file.error.is_some())
            || self.units.iter().any(|unit| unit.error.is_some())
    }

    fn answer(&self, exit: Exit) -> Answer {
        let changed = self.files.iter().filter(|file| file.changed);
        let mut text: String = changed
            .map(|file| format!("delivered {}\n", file.destination))
            .collect();
        let told = self.units.iter().filter(|unit| unit.error.is_none());
        text.extend(told.map(|unit| format!("told {}\n", unit.unit)));
        if text.is_empty() && exit == Exit::Fine {
            text = "nothing to do: every file is as it should be\n".to_owned();
        }
        let of_files = self.files.iter().filter_map(|file| {
            let error = file.error.as_ref()?;
            Some(format!("{}: {error}", file.what))
        });
        let of_units = self.units.iter().filter_map(|unit| unit.error.clone());
        Answer {
            text,
            faults: of_files.chain(of_units).collect(),
            exit,
        }
    }
}
