use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairlead_contract::Status;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::machine::READERS;

/// How long the proxy may take to answer. One that systemd starts for the question is in time too.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks the proxy what it serves.
pub(crate) async fn ask_status(socket: &Path) -> Result<Status, NoStatus> {
    let answer = match timeout(LIMIT, exchange(socket)).await {
        Ok(answer) => answer.map_err(|source| NoStatus::of(socket, source))?,
        Err(_) => return Err(NoStatus::Silent(socket.to_owned())),
    };
    parse(&answer).ok_or_else(|| NoStatus::Nonsense(socket.to_owned()))
}

/// HTTP/1.0, because its answers end with the connection and are never chunked.
async fn exchange(socket: &Path) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(b"GET /status HTTP/1.0\r\nHost: admin\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<Status> {
    let text = str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut words = head.split(' ');
    (words.next()?.starts_with("HTTP/") && words.next()? == "200").then_some(())?;
    serde_json::from_str(body).ok()
}

/// The proxy did not say what it serves.
#[derive(Debug, Error)]
pub(crate) enum NoStatus {
    #[error("the proxy does not run: nobody listens at {}", .0.display())]
    NotRunning(PathBuf),
    /// It would be started by the question, and that is not ours to do.
    #[error(
        "the proxy does not run; systemd starts it at the first connection, or: systemctl start fairlead-proxy"
    )]
    Stopped,
    #[error("the proxy cannot be asked at {}: {READERS}", .0.display())]
    Forbidden(PathBuf),
    #[error("the proxy did not answer at {} within {LIMIT:?}: see journalctl -u fairlead-proxy", .0.display())]
    Silent(PathBuf),
    #[error("whoever answers at {} is not this version's proxy", .0.display())]
    Nonsense(PathBuf),
    #[error("the proxy cannot be asked at {}", socket.display())]
    Broken { socket: PathBuf, source: io::Error },
}

impl NoStatus {
    fn of(socket: &Path, source: io::Error) -> Self {
        let socket = socket.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NotRunning(socket),
            io::ErrorKind::PermissionDenied => Self::Forbidden(socket),
            _ => Self::Broken { socket, source },
        }
    }

    /// Whether it is certain that no proxy runs.
    pub(crate) fn is_certain(&self) -> bool {
        matches!(self, Self::NotRunning(_) | Self::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn ask(socket: &Path) -> Result<Status, NoStatus> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(ask_status(socket))
    }

    #[test]
    fn nobody_there_is_told_apart_from_nonsense() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        assert!(ask(&socket).unwrap_err().is_certain());
        drop(UnixListener::bind(&socket).unwrap());
        assert!(
            ask(&socket).unwrap_err().is_certain(),
            "a socket file left behind"
        );
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 500 Oh\r\n\r\n{}",
            "hello",
        ] {
            assert!(parse(answer.as_bytes()).is_none(), "{answer:?}");
        }
    }
}
