use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairlead_contract::{
    Paths, Problem, ReloadAnswer, WriteError, remove_if_present, want_certificates, write_atomically,
};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long a reload may take, and the start of the proxy before it.
const LIMIT: Duration = Duration::from_secs(50);
const MODE: u32 = 0o640;

/// Notes that the proxy may not have loaded what the routes file holds from now on.
pub(crate) fn mark(paths: &Paths) -> Result<(), WriteError> {
    write_atomically(&paths.unloaded_mark(), b"", MODE).map(drop)
}

/// Returns when the proxy serves what is on disk, or at once without the mark.
///
/// The mark stays until then, so that each further pass tries again. The certs program is told too,
/// because routes may want certificates.
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
        Ok(ReloadAnswer::Loaded) => {
            want_certificates(paths)?;
            Ok(remove_if_present(&mark)?)
        }
        Ok(ReloadAnswer::Refused { problems }) => Err(ReloadError::Refused(shown(&problems))),
        Err(_) => Err(ReloadError::Failed),
    }
}

async fn ask(socket: &Path) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut stream = UnixStream::connect(socket).await?;
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn shown(problems: &[Problem]) -> String {
    let problems: Vec<_> = problems.iter().map(Problem::to_string).collect();
    problems.join("\n")
}

/// The routes are written, and it is not known that the proxy serves them.
#[derive(Debug, Error)]
pub(crate) enum ReloadError {
    #[error("it cannot be seen whether the proxy has loaded the routes")]
    Mark(#[source] io::Error),
    #[error("the reload cannot be asked for at {}: is fairlead-reload.socket started?", socket.display())]
    Ask { socket: PathBuf, source: io::Error },
    #[error("the reload did not end within {LIMIT:?}: see journalctl -u fairlead-proxy")]
    Silent,
    #[error("the reload failed: see journalctl -u fairlead-proxy")]
    Failed,
    #[error("the routes are written, and the proxy serves what it had, because its reload was refused:\n{0}")]
    Refused(String),
    #[error(transparent)]
    Write(#[from] WriteError),
}
