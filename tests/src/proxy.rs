use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};
use fairlead_contract::Status;

use crate::{DEADLINE, Environment, Finished, Program, Running, Signal};

/// The named listeners a service manager would hold for the proxy, on free ports of the loopback.
///
/// They stay open while a proxy is replaced by another, as systemd keeps them.
#[derive(Debug)]
pub struct Sockets {
    http: TcpListener,
    https: TcpListener,
    admin: UnixListener,
    admin_path: PathBuf,
}

impl Sockets {
    pub fn bind(environment: &Environment) -> Self {
        let tcp = || TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        let admin_path = environment.paths().admin_socket();
        Self {
            http: tcp(),
            https: tcp(),
            admin: UnixListener::bind(&admin_path).expect("the admin socket is not there yet"),
            admin_path,
        }
    }

    pub fn http(&self) -> SocketAddr {
        self.http.local_addr().expect("a bound socket has an address")
    }

    pub fn https(&self) -> SocketAddr {
        self.https.local_addr().expect("a bound socket has an address")
    }

    /// The listeners with their names, as units name them in `FileDescriptorName=`.
    pub fn named(&self) -> Vec<(&'static str, OwnedFd)> {
        let cloned = "a descriptor can be duplicated";
        vec![
            ("http", self.http.try_clone().expect(cloned).into()),
            ("https", self.https.try_clone().expect(cloned).into()),
            ("admin", self.admin.try_clone().expect(cloned).into()),
        ]
    }
}

/// A proxy that was started as systemd starts it.
#[derive(Debug)]
pub struct Proxy {
    running: Running,
    sockets: Sockets,
}

impl Proxy {
    /// Starts a proxy with its own sockets and returns when it says that it is ready.
    pub fn start(environment: &Environment) -> Self {
        Self::start_on(environment, Sockets::bind(environment))
    }

    /// The same with sockets that are there already, such as those of a predecessor.
    pub fn start_on(environment: &Environment, sockets: Sockets) -> Self {
        let command = activate(environment, sockets.named());
        Self::start_command(environment, command, sockets)
    }

    /// The same with a command that was made from these sockets.
    pub fn start_command(environment: &Environment, command: Command, sockets: Sockets) -> Self {
        let running = environment.start(command);
        running.wait_for_notification("READY=1");
        Self { running, sockets }
    }

    /// Port 80.
    pub fn http(&self) -> SocketAddr {
        self.sockets.http()
    }

    /// Port 443.
    pub fn https(&self) -> SocketAddr {
        self.sockets.https()
    }

    /// Reloads as `systemctl reload` does: a signal, then both notifications. Returns the last one.
    pub fn reload(&self) -> String {
        self.running.signal(Signal::HUP);
        self.running.wait_for_notification("RELOADING=1");
        self.running.wait_for_notification("READY=1")
    }

    pub fn status(&self) -> Status {
        let body = self.admin("/status");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("/status is not a status: {error}\n{body}"))
    }

    pub fn metrics(&self) -> String {
        self.admin("/metrics")
    }

    /// The body of a successful answer on the admin socket.
    fn admin(&self, path: &str) -> String {
        let stream = UnixStream::connect(&self.sockets.admin_path).expect("the admin socket listens");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a timeout can be set");
        let answer = ask(stream, path, "Accept: application/openmetrics-text\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        body.to_owned()
    }

    /// What it holds in memory, in bytes.
    pub fn resident(&self) -> u64 {
        self.running.memory("VmRSS")
    }

    pub fn admin_socket(&self) -> &Path {
        &self.sockets.admin_path
    }

    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Sends SIGTERM, does not wait for anything.
    pub fn terminate(&self) {
        self.running.signal(Signal::TERM);
    }

    /// Waits for the end; the sockets stay open for a successor.
    pub fn finish(self) -> (Finished, Sockets) {
        (self.running.finish(), self.sockets)
    }
}

/// The command of a proxy that is handed these descriptors by name (sd_listen_fds(3)).
pub fn activate(environment: &Environment, named: Vec<(&str, OwnedFd)>) -> Command {
    let names: Vec<_> = named.iter().map(|(name, _)| *name).collect();
    let mut command = hand_over(environment, named.len());
    command.env("LISTEN_FDNAMES", names.join(":"));
    let mappings = (3..)
        .zip(named)
        .map(|(child_fd, (_, parent_fd))| FdMapping { parent_fd, child_fd });
    command
        .fd_mappings(mappings.collect())
        .expect("every descriptor has its own number");
    command
}

/// `LISTEN_PID` must be the proxy's own, which only exists once the child does: a shell fills it in
/// and becomes the proxy.
fn hand_over(environment: &Environment, count: usize) -> Command {
    let mut command = Command::new("/bin/sh");
    environment.equip(&mut command);
    command
        .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""])
        .arg(Program::Proxy.path())
        .env("LISTEN_FDS", count.to_string());
    command
}

/// Asks for a page with these further fields. The answer is read to the end of the connection, which the
/// request asks for.
pub fn ask(mut stream: impl Read + Write, path: &str, fields: &str) -> String {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{fields}\r\n"
    )
    .expect("a request is taken");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("there is an answer in time");
    answer
}
