use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fairlead_contract::{Paths, escaped, remove_if_present};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixDatagram;
use tokio::process::{Child, ChildStdout, Command};
use tokio::select;
use tokio::time::{Instant, timeout};

use super::child;
use super::home::{Home, notify_socket};
use super::ports::Ports;
use crate::programs::{Program, with_directories};

/// How long the proxy may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long programs may take to end; the proxy finishes its exchanges meanwhile.
const END_LIMIT: Duration = Duration::from_secs(15);
/// How long a follower that ended is left alone.
const PAUSE: Duration = Duration::from_secs(5);

/// The programs that run beside this one.
///
/// They are in process groups of their own: Ctrl-C reaches this process alone, which ends them in order. If it is
/// killed, they end by themselves.
pub(super) struct Children {
    paths: Paths,
    log: File,
    log_path: PathBuf,
    proxy: Option<Child>,
    follower: Option<Follower>,
    not_before: Instant,
}

/// `fairlead-watcher --follow`, and the lines it prints.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Something happened among the children.
pub(super) enum Event {
    /// The containers may be others.
    Dirty,
    FollowerEnded(String),
}

impl Children {
    pub(super) fn new(home: &Home) -> Result<Self> {
        let log = File::create(&home.log).with_context(|| format!("cannot write {}", home.log.display()))?;
        Ok(Self {
            paths: home.paths.clone(),
            log,
            log_path: home.log.clone(),
            proxy: None,
            follower: None,
            not_before: Instant::now(),
        })
    }

    /// A command that ends with this process, whose log goes into ours, and that knows nothing of a service this process may be.
    pub(super) fn command(&self, program: Program) -> Command {
        let mut command = with_directories(child::command(&program.path()), &self.paths);
        for variable in ["JOURNAL_STREAM", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"] {
            command.env_remove(variable);
        }
        command.process_group(0).stdin(Stdio::null());
        command
    }

    /// Returns when the proxy is ready.
    pub(super) async fn start_proxy(&mut self, ports: &Ports) -> Result<()> {
        let notify = notify_socket(&self.paths);
        remove_if_present(&notify)?;
        let socket =
            UnixDatagram::bind(&notify).with_context(|| format!("cannot listen at {}", notify.display()))?;
        let mut command = self.command(Program::Proxy);
        command
            .args(["--http", &format!("127.0.0.1:{}", ports.http)])
            .args(["--https", &format!("127.0.0.1:{}", ports.https)])
            .arg("--admin")
            .arg(self.paths.admin_socket())
            .env("NOTIFY_SOCKET", &notify)
            .stdout(self.log.try_clone()?)
            .stderr(self.log.try_clone()?);
        let proxy = self.proxy.insert(start(command, Program::Proxy)?);
        let started = select! {
            started = timeout(START_LIMIT, wait_for_ready(&socket)) => started.context("it was not ready in time").and_then(|heard| Ok(heard?)),
            ended = proxy.wait() => ended.map_err(anyhow::Error::from).and_then(|status| bail!("it ended ({status})")),
        };
        started.with_context(|| format!("fairlead-proxy did not start: {}", self.last_words()))?;
        tokio::spawn(discard(socket));
        Ok(())
    }

    pub(super) fn follows(&self) -> bool {
        self.follower.is_some() || Instant::now() < self.not_before
    }

    pub(super) fn follow(&mut self, socket: &Path) -> Result<()> {
        let mut command = self.command(Program::Watcher);
        command
            .arg("--follow")
            .arg("--socket")
            .arg(socket)
            .stdout(Stdio::piped())
            .stderr(self.log.try_clone()?);
        let mut child = start(command, Program::Watcher)?;
        let stdout = child
            .stdout
            .take()
            .context("the follower has no standard output")?;
        self.follower = Some(Follower {
            child,
            lines: BufReader::new(stdout).lines(),
        });
        Ok(())
    }

    /// Waits until a child says something or ends. A proxy that ends is an error: nothing works without.
    pub(super) async fn next(&mut self) -> Result<Event> {
        let Some(proxy) = &mut self.proxy else {
            bail!("fairlead-proxy was not started");
        };
        select! {
            ended = proxy.wait() => {
                let status = ended?;
                bail!("fairlead-proxy ended ({status}): {}", self.last_words());
            }
            heard = heard(&mut self.follower) => match heard? {
                Some(_) => Ok(Event::Dirty),
                None => self.bury_follower().await,
            },
        }
    }

    /// Runs a program to its end. Returns the last line of its log if it failed.
    pub(super) async fn pass(&mut self, mut command: Command) -> Result<Option<String>> {
        let name = escaped(&command.as_std().get_program().to_string_lossy());
        let output = command
            .output()
            .await
            .with_context(|| format!("cannot run {name}"))?;
        self.log
            .write_all(&output.stderr)
            .context("cannot write the log")?;
        let last = || last_line(&String::from_utf8_lossy(&output.stderr));
        Ok((!output.status.success()).then(last))
    }

    /// Ends all children, at once if `impatience` comes first.
    pub(super) async fn end(&mut self, impatience: impl Future<Output = ()>) {
        let follower = self.follower.take().map(|follower| follower.child);
        let mut children: Vec<Child> = self.proxy.take().into_iter().chain(follower).collect();
        children.iter().for_each(terminate);
        let ended = async {
            for child in &mut children {
                // It cannot be waited for only if it has ended.
                let _ = child.wait().await;
            }
        };
        // What is left is killed when it is dropped.
        select! {
            _ = timeout(END_LIMIT, ended) => {}
            () = impatience => {}
        }
    }

    async fn bury_follower(&mut self) -> Result<Event> {
        self.not_before = Instant::now() + PAUSE;
        let how = match self.follower.take() {
            Some(mut follower) => follower.child.wait().await?.to_string(),
            None => String::new(),
        };
        Ok(Event::FollowerEnded(format!("{how}: {}", self.last_words())))
    }

    fn last_words(&self) -> String {
        match fairlead_contract::read_file(&self.log_path) {
            Ok(log) => last_line(&String::from_utf8_lossy(&log)),
            Err(error) => error.to_string(),
        }
    }
}

fn start(mut command: Command, program: Program) -> Result<Child> {
    let spawned = command.spawn();
    spawned.with_context(|| format!("cannot start {}: install it beside fairlead", program.name()))
}

/// Nothing is heard from a follower that is not there.
async fn heard(follower: &mut Option<Follower>) -> io::Result<Option<String>> {
    match follower {
        Some(follower) => follower.lines.next_line().await,
        None => std::future::pending().await,
    }
}

/// Waits for `READY=1` (sd_notify(3)).
async fn wait_for_ready(socket: &UnixDatagram) -> io::Result<()> {
    let mut buffer = [0; 8192];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if buffer[..length]
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"READY=1")
        {
            return Ok(());
        }
    }
}

/// A socket that nobody reads would block the proxy.
async fn discard(socket: UnixDatagram) {
    let mut buffer = [0; 8192];
    while socket.recv(&mut buffer).await.is_ok() {}
}

fn terminate(child: &Child) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // One that has ended already is as good.
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn last_line(log: &str) -> String {
    let line = log.lines().rev().find(|line| !line.trim().is_empty());
    escaped(line.unwrap_or("it said nothing").trim())
}
