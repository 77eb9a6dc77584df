use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairlead_contract::{Paths, Problem, Refusal, WriteError, remove_if_present, write_atomically};
use serde::Deserialize;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long a reload may take. `fairlead reload` has a shorter limit of its own, and says so.
const LIMIT: Duration = Duration::from_secs(50);
const MODE: u32 = 0o640;

/// Notes that the proxy may not have loaded what the routes file holds from now on.
pub(crate) fn mark(paths: &Paths) -> Result<(), WriteError> {
    write_atomically(&paths.unloaded_mark(), b"", MODE).map(drop)
}

/// Returns when the proxy serves what is on disk, or at once without the mark.
///
/// The mark stays until then, so that each further pass tries again. Only systemd may reload the
/// proxy and this program may not ask it, but it may open a socket where systemd waits to run `fairlead reload`.
pub(crate) async fn reload_if_marked(paths: &Paths) -> Result<(), ReloadError> {
    let mark = paths.unloaded_mark();
    if !mark.try_exists().map_err(ReloadError::Mark)? {
        return Ok(());
    }
    let socket = paths.reload_socket();
    let answer = match timeout(LIMIT, ask(&socket)).await {
        Ok(answer) => answer.map_err(|source| ReloadError::Ask { socket, source })?,
        Err(_) => return Err(ReloadError::Silent),
    };
    match serde_json::from_slice(&answer) {
        Ok(Answer::NothingToDo | Answer::NotRunning | Answer::Loaded) => Ok(remove_if_present(&mark)?),
        Ok(Answer::Refused { refusal }) => Err(ReloadError::Refused(shown(&refusal))),
        Err(_) => Err(ReloadError::Failed),
    }
}

async fn ask(socket: &Path) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut stream = UnixStream::connect(socket).await?;
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// What `fairlead reload` answers, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
enum Answer {
    NothingToDo,
    NotRunning,
    Loaded,
    Refused { refusal: Refusal },
}

fn shown(refusal: &Refusal) -> String {
    let problems: Vec<_> = refusal.problems.iter().map(Problem::to_string).collect();
    problems.join("\n")
}

/// The routes are written, and it is not known that the proxy serves them.
#[derive(Debug, Error)]
pub(crate) enum ReloadError {
    #[error("it cannot be seen whether the proxy has loaded the routes")]
    Mark(#[source] io::Error),
    #[error("the reload cannot be asked for at {}: is fairlead-reload.socket started?", socket.display())]
    Ask { socket: PathBuf, source: io::Error },
    #[error("the reload did not end within {LIMIT:?}: see journalctl -u fairlead-reload")]
    Silent,
    #[error("the reload failed: see journalctl -u fairlead-reload")]
    Failed,
    #[error("the routes are written, and the proxy serves what it had, because its reload was refused:\n{0}")]
    Refused(String),
    #[error(transparent)]
    Write(#[from] WriteError),
}
