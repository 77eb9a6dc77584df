use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use fairlead_contract::{UnitName, escaped};
use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

const PROXY: &str = "fairlead-proxy.service";
const ADMIN: &str = "fairlead-admin.socket";

/// How long systemd may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long it may take until a unit has loaded its files.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);

/// The processes of the proxy's unit. systemctl knows the same, and takes much longer to say it.
const PROCESSES: &str = "/sys/fs/cgroup/system.slice/fairlead-proxy.service/cgroup.procs";

/// Whether to ask at this socket would start a proxy, which is for its clients to do.
pub(crate) async fn is_stopped(socket: &Path) -> Result<bool, SystemctlError> {
    if fs::read_to_string(PROCESSES).is_ok_and(|processes| !processes.is_empty()) {
        return Ok(false);
    }
    let service = Service::find(socket).await?;
    Ok(service.is_some_and(|service| service.is_stopped()))
}

/// The proxy as systemd knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
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
        let arguments = ["show", "--property=ActiveState,Listen", PROXY, ADMIN];
        Ok(parse(&systemctl(&arguments, LIMIT).await?, socket))
    }

    fn is_stopped(&self) -> bool {
        matches!(self.state.as_str(), "inactive" | "failed")
    }

    /// Returns when the reload has ended, however it ended.
    pub(crate) async fn reload() -> Result<(), SystemctlError> {
        systemctl(&["reload", PROXY], RELOAD_LIMIT).await.map(drop)
    }
}

/// Tells a unit that a file it reads has changed. One that does not run reads it when it starts.
pub(crate) async fn reload_if_running(unit: &UnitName) -> Result<(), SystemctlError> {
    let arguments = ["try-reload-or-restart", unit.as_str()];
    systemctl(&arguments, RELOAD_LIMIT).await.map(drop)
}

/// Reads one block of properties for the service and one for the socket.
fn parse(shown: &str, socket: &Path) -> Option<Service> {
    let (service, admin) = shown.split_once("\n\n")?;
    let listens = properties(admin, "Listen").any(|listen| {
        let path = listen.strip_suffix(" (Stream)");
        path.is_some_and(|path| Path::new(path) == socket)
    });
    let state = properties(service, "ActiveState").next()?.to_owned();
    listens.then_some(Service { state })
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
        let find =
            |shown: &str, socket: &str| parse(shown, Path::new(socket)).map(|service| service.is_stopped());
        assert_eq!(find(SHOWN, "/run/fairlead/admin.sock"), Some(false));
        let stopped = SHOWN.replacen("active", "inactive", 1);
        assert_eq!(find(&stopped, "/run/fairlead/admin.sock"), Some(true));
        assert_eq!(find(SHOWN, "/tmp/dev/run/admin.sock"), None);
        let not_installed = "ActiveState=inactive\n\nActiveState=inactive\n";
        assert_eq!(find(not_installed, "/run/fairlead/admin.sock"), None);
        assert_eq!(find("", "/run/fairlead/admin.sock"), None);
    }
}
