use std::io;
use std::path::Path;
use std::time::Duration;

use fairlead_contract::{Files, Paths, Refusal, Status, WriteError, escaped, want_certificates};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::Serialize;
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::admin::{NoStatus, ask_status};
use crate::answer::{Answer, Exit};
use crate::arguments::Format;
use crate::check::count;
use crate::compare::{Difference, Digests, Standing, differences, lasting, standing};
use crate::service::{Service, SystemctlError, has_process, is_stopped};

/// The whole command ends in this time, so that no unit hangs in it.
const LIMIT: Duration = Duration::from_secs(45);
/// How long the proxy may take to load files after the signal.
const LOAD_LIMIT: Duration = Duration::from_secs(30);
/// How often the proxy is asked meanwhile whether it has.
const PAUSE: Duration = Duration::from_millis(3);
/// How often the files may change again while they are loaded.
const ATTEMPTS: usize = 5;

pub(crate) async fn run(paths: &Paths, pid: Option<u32>, format: Format) -> anyhow::Result<Answer> {
    let outcome = reload(paths, pid).await?;
    if format.json {
        return Answer::json(&outcome, outcome.exit());
    }
    Ok(outcome.answer())
}

/// Makes the proxy serve what is on disk.
///
/// Nothing happens if it does already, or if no proxy runs. The proxy is `pid`, else the service whose
/// admin socket this is, else whoever answers there. After a change to more than certificates the certs
/// program is told, because routes may want new ones.
pub(crate) async fn reload(paths: &Paths, pid: Option<u32>) -> Result<Outcome, ReloadError> {
    let outcome = timeout(LIMIT, reload_unlimited(paths, pid))
        .await
        .unwrap_or(Err(ReloadError::Late))?;
    if let Outcome::Loaded { changed, .. } = &outcome
        && changed
            .iter()
            .any(|difference| !difference.file.starts_with(paths.certificates_dir()))
    {
        want_certificates(paths)?;
    }
    Ok(outcome)
}

async fn reload_unlimited(paths: &Paths, pid: Option<u32>) -> Result<Outcome, ReloadError> {
    let socket = paths.admin_socket();
    if pid.is_none() && is_stopped(&socket).await? {
        return Ok(Outcome::NotRunning);
    }
    let first = match ask_status(&socket).await {
        Err(error) if error.is_certain() => return Ok(Outcome::NotRunning),
        status => status?,
    };
    // A refusal of files that are gone again would stand in the unit's status until something is loaded.
    let disk = read(paths);
    if standing(&first, &disk) == Standing::Live && first.standing_refusal().is_none() {
        return Ok(Outcome::NothingToDo { status: first });
    }
    let way = match pid {
        Some(pid) => Way::Signal(pid),
        None => Way::find(&socket, &first).await?,
    };
    load(paths, way, first, &disk).await
}

/// How the proxy is asked.
#[derive(Clone, Debug)]
enum Way {
    Systemctl(Service),
    /// A process that may be signalled: the service's own for root, else one that is no service.
    Signal(u32),
}

/// Files that change while they are loaded are loaded again, but not for ever: who goes on to change them asks, too. What
/// was on disk at first is live by then.
async fn load(paths: &Paths, way: Way, first: Status, disk: &Digests) -> Result<Outcome, ReloadError> {
    let mut last = first.clone();
    let mut unseen = Vec::new();
    for _ in 0..ATTEMPTS {
        last = way.reload(paths, &last).await?;
        let now = read(paths);
        unseen = match standing(&last, &now) {
            Standing::Live => return Ok(Outcome::loaded(&first, last)),
            Standing::Refused(refusal) => return Ok(Outcome::refused(refusal, &last)),
            Standing::Unseen(differences) => lasting(differences, disk, &now),
        };
    }
    // What the proxy may not read looks different from here, however often it tries.
    match last.standing_refusal() {
        Some(refusal) => Ok(Outcome::refused(refusal, &last)),
        None if unseen.is_empty() => Ok(Outcome::loaded(&first, last)),
        None => Err(ReloadError::Unseen(unseen)),
    }
}

impl Way {
    async fn find(socket: &Path, status: &Status) -> Result<Self, ReloadError> {
        // systemd sees a reload that begins with the signal as one that it was asked for, and is asked slowly.
        if has_process(socket, status.pid) && process_id(status.pid).is_some_and(may_signal) {
            return Ok(Self::Signal(status.pid));
        }
        Ok(match Service::find(socket).await? {
            Some(service) => Self::Systemctl(service),
            None => Self::Signal(status.pid),
        })
    }

    /// Returns the status after a reload that began after `before`.
    async fn reload(&self, paths: &Paths, before: &Status) -> Result<Status, ReloadError> {
        match *self {
            Self::Systemctl(ref service) => reload_service(paths, service, before).await,
            Self::Signal(number) => {
                signal(number).map_err(|source| ReloadError::Signal { number, source })?;
                wait_for_reload(paths, before).await
            }
        }
    }
}

/// Before systemd 254 the reload of the unit fails if it was refused, and the proxy tells better why.
async fn reload_service(paths: &Paths, service: &Service, before: &Status) -> Result<Status, ReloadError> {
    let asked = service.reload().await;
    let status = ask_status(&paths.admin_socket()).await?;
    match asked {
        Err(error) if !has_reloaded(before, &status) => Err(error.into()),
        _ => Ok(status),
    }
}

fn process_id(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

fn may_signal(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

fn signal(number: u32) -> io::Result<()> {
    let pid = process_id(number)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no process id"))?;
    Ok(kill_process(pid, Signal::HUP)?)
}

/// Waits until a reload has ended since `before`, or another proxy has started.
async fn wait_for_reload(paths: &Paths, before: &Status) -> Result<Status, ReloadError> {
    let socket = paths.admin_socket();
    let ended = async {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let status = ask_status(&socket).await?;
            if has_reloaded(before, &status) {
                return Ok(status);
            }
        }
    };
    timeout(LOAD_LIMIT, ended).await.unwrap_or(Err(ReloadError::Late))
}

/// Whether a reload has ended between the two, or another proxy has started.
fn has_reloaded(before: &Status, after: &Status) -> bool {
    (after.reloads, after.started) != (before.reloads, before.started)
}

fn read(paths: &Paths) -> Digests {
    Files::read(paths).digests()
}

/// How a reload ended.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    NothingToDo {
        status: Status,
    },
    NotRunning,
    Loaded {
        changed: Vec<Difference>,
        status: Status,
    },
    Refused {
        refusal: Refusal,
        status: Status,
    },
}

impl Outcome {
    fn loaded(before: &Status, status: Status) -> Self {
        Self::Loaded {
            changed: differences(&before.loaded.files, &status.loaded.files),
            status,
        }
    }

    fn refused(refusal: &Refusal, status: &Status) -> Self {
        Self::Refused {
            refusal: refusal.clone(),
            status: status.clone(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::NothingToDo { .. } | Self::NotRunning | Self::Loaded { .. } => Exit::Fine,
            Self::Refused { .. } => Exit::Wrong,
        }
    }

    fn answer(&self) -> Answer {
        let (text, faults) = match self {
            Self::NothingToDo { status } => (
                format!(
                    "nothing to do: the proxy serves what is on disk ({})\n",
                    served(status)
                ),
                Vec::new(),
            ),
            Self::NotRunning => (
                "nothing to do: the proxy does not run, and reads the files when it starts\n".to_owned(),
                Vec::new(),
            ),
            Self::Loaded { changed, status } => (loaded_text(changed, status), Vec::new()),
            Self::Refused { refusal, status } => (String::new(), refused_lines(refusal, status)),
        };
        Answer {
            text,
            faults,
            exit: self.exit(),
        }
    }
}

fn served(status: &Status) -> String {
    let loaded = &status.loaded;
    format!(
        "{}, {}",
        count(loaded.routes, "route"),
        count(loaded.certificates, "certificate")
    )
}

fn loaded_text(changed: &[Difference], status: &Status) -> String {
    let mut text = format!("loaded {}\n", served(status));
    for difference in changed {
        text += &format!("  {difference}\n");
    }
    for note in &status.loaded.notes {
        text += &format!("  note: {}\n", escaped(&note.to_string()));
    }
    text
}

fn refused_lines(refusal: &Refusal, status: &Status) -> Vec<String> {
    let problems = refusal.problems.iter();
    let mut lines: Vec<_> = problems.map(|problem| escaped(&problem.to_string())).collect();
    lines.push(format!(
        "refused: nothing was changed, the proxy serves what it had ({})",
        served(status)
    ));
    lines
}

/// What is on disk is neither live nor refused, as far as is known.
#[derive(Debug, Error)]
pub(crate) enum ReloadError {
    #[error(transparent)]
    NoStatus(#[from] NoStatus),
    #[error(transparent)]
    Systemctl(#[from] SystemctlError),
    #[error("cannot send SIGHUP to process {number}")]
    Signal { number: u32, source: io::Error },
    #[error("the reload did not end in time: see journalctl -u fairlead-proxy")]
    Late,
    #[error("the proxy reloads, and what it loads is not what is on disk: {}", shown(.0))]
    Unseen(Vec<Difference>),
    #[error("the change is live, and the certs program could not be told")]
    Mark(#[from] WriteError),
}

fn shown(differences: &[Difference]) -> String {
    let lines: Vec<_> = differences.iter().map(Difference::to_string).collect();
    lines.join("; ")
}
