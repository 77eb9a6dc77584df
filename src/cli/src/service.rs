use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use fairlead_contract::{UnitName, escaped};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

use crate::when::moment;

/// How long systemd may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long it may take until a unit has loaded its files.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);

/// How old the watcher's last pass may be. Its timer starts one every five minutes.
const OVERDUE: SignedDuration = SignedDuration::from_mins(11);

/// Where the units of the system have their processes.
const SLICE: &str = "/sys/fs/cgroup/system.slice";

/// Whether to ask at this socket would start a proxy, which is for its clients to do.
pub(crate) async fn is_stopped(socket: &Path) -> Result<bool, SystemctlError> {
    // systemctl knows the same, and takes much longer to say it.
    if !processes(socket).is_empty() {
        return Ok(false);
    }
    let service = Service::find(socket).await?;
    Ok(service.is_some_and(|service| service.is_stopped()))
}

/// Whether a process is one of the service whose admin socket this is.
pub(crate) fn has_process(socket: &Path, pid: u32) -> bool {
    processes(socket).contains(&pid)
}

/// The processes of the service whose admin socket this is: none if it has none, or if there is no such service.
fn processes(socket: &Path) -> Vec<u32> {
    let file = unit(socket, "proxy.service").map(|unit| format!("{SLICE}/{unit}/cgroup.procs"));
    let listed = file
        .and_then(|file| fs::read_to_string(file).ok())
        .unwrap_or_default();
    listed.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The name of a unit of the installation whose admin socket this is. It is called as its runtime directory:
/// fairlead, or fairlead-NAME if there are several on a machine.
fn unit(socket: &Path, rest: &str) -> Option<String> {
    let installation = socket.parent()?.file_name()?.to_str()?;
    Some(format!("{installation}-{rest}"))
}

/// The proxy as systemd knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    unit: String,
    state: String,
}

impl Service {
    /// Finds the service whose admin socket this is. `None` where systemd does not run, or where the
    /// socket belongs to a proxy that somebody else started.
    pub(crate) async fn find(socket: &Path) -> Result<Option<Self>, SystemctlError> {
        // sd_booted(3)
        if !Path::new("/run/systemd/system").is_dir() {
            return Ok(None);
        }
        let (Some(proxy), Some(admin)) = (unit(socket, "proxy.service"), unit(socket, "admin.socket")) else {
            return Ok(None);
        };
        let arguments = ["show", "--property=ActiveState,Listen", "--", &proxy, &admin];
        let state = parse(&systemctl(&arguments, LIMIT).await?, socket);
        Ok(state.map(|state| Self { unit: proxy, state }))
    }

    fn is_stopped(&self) -> bool {
        matches!(self.state.as_str(), "inactive" | "failed")
    }

    /// Returns when the reload has ended, however it ended.
    pub(crate) async fn reload(&self) -> Result<(), SystemctlError> {
        let arguments = ["reload", "--", &self.unit];
        systemctl(&arguments, RELOAD_LIMIT).await.map(drop)
    }
}

/// The watcher's latest pass, as systemd knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct LastPass {
    pub(crate) unit: String,
    /// When it began: what happened before, it saw.
    pub(crate) at: Timestamp,
    pub(crate) failed: bool,
    /// It is on its way, and how the one before ended is forgotten.
    pub(crate) running: bool,
}

impl LastPass {
    /// Finds it for the installation whose admin socket this is. `None` where systemd does not run, or
    /// where it knows of none.
    pub(crate) async fn find(socket: &Path) -> Result<Option<Self>, SystemctlError> {
        let Some(unit) = unit(socket, "watcher.service") else {
            return Ok(None);
        };
        // sd_booted(3)
        if !Path::new("/run/systemd/system").is_dir() {
            return Ok(None);
        }
        let properties = "--property=ActiveState,ExecMainStartTimestamp";
        let shown = systemctl(&["show", "--timestamp=unix", properties, "--", &unit], LIMIT).await?;
        Ok(Self::parse(&shown, unit))
    }

    fn parse(shown: &str, unit: String) -> Option<Self> {
        let state = properties(shown, "ActiveState").next()?;
        let began = properties(shown, "ExecMainStartTimestamp").next()?;
        let seconds = began.strip_prefix('@')?.parse().ok()?;
        Some(Self {
            unit,
            at: Timestamp::from_second(seconds).ok()?,
            failed: state == "failed",
            running: !matches!(state, "failed" | "inactive"),
        })
    }

    pub(crate) fn describe(&self, now: Timestamp) -> String {
        let Self { unit, at, .. } = self;
        let began = moment(*at, now);
        match self.doubt(now) {
            Some(Doubt::Failed) => format!(
                "{unit} failed {began}; what containers ask for may be older: see journalctl -u {unit}"
            ),
            Some(Doubt::Overdue) => {
                format!("{unit} last looked {began}; what containers ask for may be newer")
            }
            None if self.running => format!("{unit} is looking since {began}"),
            None => format!("{unit} last looked {began}"),
        }
    }

    /// Why what it wrote may not be what the containers ask for now.
    pub(crate) fn doubt(&self, now: Timestamp) -> Option<Doubt> {
        let age = now.duration_since(self.at);
        match self.failed {
            true => Some(Doubt::Failed),
            false => (age > OVERDUE && !self.running).then_some(Doubt::Overdue),
        }
    }

    /// What to do about a doubt.
    pub(crate) fn next(&self, doubt: Doubt) -> String {
        let unit = &self.unit;
        match doubt {
            Doubt::Failed => {
                format!("Next: remove what journalctl -u {unit} names; its timer looks again by itself.")
            }
            Doubt::Overdue => {
                let name = unit.trim_end_matches(".service");
                format!(
                    "Next: systemctl start {name}.timer, because nobody has looked at the containers since."
                )
            }
        }
    }
}

/// Why the last pass of the watcher is no good witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    Failed,
    /// It was good, and no other followed.
    Overdue,
}

/// Tells a unit that a file it reads has changed. One that does not run reads it when it starts.
pub(crate) async fn reload_if_running(unit: &UnitName) -> Result<(), SystemctlError> {
    let arguments = ["try-reload-or-restart", unit.as_str()];
    systemctl(&arguments, RELOAD_LIMIT).await.map(drop)
}

/// The state of the service, from one block of properties for it and one for its socket.
fn parse(shown: &str, socket: &Path) -> Option<String> {
    let (service, admin) = shown.split_once("\n\n")?;
    let listens = properties(admin, "Listen").any(|listen| {
        let path = listen.strip_suffix(" (Stream)");
        path.is_some_and(|path| Path::new(path) == socket)
    });
    let state = properties(service, "ActiveState").next()?.to_owned();
    listens.then_some(state)
}

fn properties<'a>(block: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = block.lines().filter_map(|line| line.split_once('='));
    lines.filter_map(move |(name, value)| (name == key).then_some(value))
}

async fn systemctl(arguments: &[&str], limit: Duration) -> Result<String, SystemctlError> {
    let mut command = Command::new("systemctl");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let shown = || arguments.join(" ");
    let output = timeout(limit, command.output())
        .await
        .map_err(|_| SystemctlError::Silent(shown(), limit))?
        .map_err(|source| SystemctlError::Start(shown(), source))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(SystemctlError::Failed(shown(), escaped(said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[derive(Debug, Error)]
pub(crate) enum SystemctlError {
    #[error("cannot run systemctl {0}")]
    Start(String, #[source] io::Error),
    #[error("systemctl {0} did not end within {1:?}")]
    Silent(String, Duration),
    #[error("systemctl {0} failed: {1}")]
    Failed(String, String),
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str =
        "ActiveState=active\n\nActiveState=active\nListen=/run/fairlead/admin.sock (Stream)\n";

    #[test]
    fn a_service_is_known_by_its_admin_socket() {
        let find = |shown: &str, socket: &str| parse(shown, Path::new(socket));
        assert_eq!(find(SHOWN, "/run/fairlead/admin.sock").as_deref(), Some("active"));
        assert_eq!(find(SHOWN, "/tmp/dev/run/admin.sock"), None);
        let not_installed = "ActiveState=inactive\n\nActiveState=inactive\n";
        assert_eq!(find(not_installed, "/run/fairlead/admin.sock"), None);
        assert_eq!(find("", "/run/fairlead/admin.sock"), None);
    }

    #[test]
    fn the_last_pass_is_told_with_its_failure() {
        let pass = |shown: &str| LastPass::parse(shown, "fairlead-watcher.service".to_owned());
        let now = Timestamp::from_second(1000).unwrap();
        let failed = pass("ActiveState=failed\nExecMainStartTimestamp=@400\n").unwrap();
        let told = failed.describe(now);
        assert!(told.starts_with("fairlead-watcher.service failed "), "{told}");
        assert!(told.contains("10 minutes ago"), "{told}");
        let ended = pass("ActiveState=inactive\nExecMainStartTimestamp=@400\n").unwrap();
        assert!(!ended.failed && !ended.running);
        let running = pass("ActiveState=activating\nExecMainStartTimestamp=@1\n").unwrap();
        assert_eq!(running.doubt(now), None);
        assert!(running.describe(now).contains("is looking since"));
        assert_eq!(pass("ActiveState=inactive\nExecMainStartTimestamp=\n"), None);
        assert_eq!(pass(""), None);
    }

    #[test]
    fn an_installation_is_called_as_its_runtime_directory() {
        let unit = |socket: &str| unit(Path::new(socket), "proxy.service");
        assert_eq!(
            unit("/run/fairlead/admin.sock").as_deref(),
            Some("fairlead-proxy.service")
        );
        assert_eq!(
            unit("/run/fairlead-internal/admin.sock").as_deref(),
            Some("fairlead-internal-proxy.service")
        );
        assert_eq!(unit("admin.sock"), None);
    }
}
