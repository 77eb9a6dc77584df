use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fairlead_contract::{Token, write_atomically};
use tempfile::TempDir;

use crate::address::own_address;
use crate::{Authority, DEADLINE, Environment, Running};

/// How often Pebble asks for each challenge.
const VALIDATIONS: usize = 3;

/// A real Pebble, with a DNS server that gives every name the same address.
///
/// Each has an address of the loopback network for itself, so no two get in each other's way.
pub struct Pebble {
    root: TempDir,
    places: Places,
    settings: PebbleSettings,
    server: Option<Running>,
    _dns: Running,
}

/// How Pebble behaves.
#[derive(Clone, Debug)]
pub struct PebbleSettings {
    /// Where HTTP-01 is validated, whatever the name.
    pub validation: SocketAddr,
    /// On which port of the same address TLS-ALPN-01 is validated.
    pub tls_port: u16,
    /// How many of a hundred good nonces are refused (RFC 8555 6.5).
    pub refused_nonces: u8,
    /// How many of a hundred authorizations that are valid already are used again (RFC 8555 7.1.3).
    pub reused_authorizations: u8,
    /// How long certificates are valid.
    pub validity: Duration,
    /// How many seconds a validation may wait before it begins; at random.
    pub slowest_validation: u8,
    /// Names that are rejected by policy.
    pub blocked: Vec<&'static str>,
    /// Only who has this account elsewhere, by key identifier and key, gets one (RFC 8555 7.3.4).
    pub external_account: Option<(&'static str, &'static str)>,
    /// Who is asked about names instead of a server that makes them up.
    pub dns: Option<SocketAddr>,
}

impl PebbleSettings {
    /// No caprices, and certificates for 90 days.
    pub fn new(validation: SocketAddr) -> Self {
        Self {
            validation,
            tls_port: 1,
            refused_nonces: 0,
            reused_authorizations: 0,
            validity: Duration::from_secs(90 * 24 * 60 * 60),
            slowest_validation: 0,
            blocked: Vec::new(),
            external_account: None,
            dns: None,
        }
    }
}

/// Records in the DNS that Pebble looks at.
#[derive(Clone, Copy, Debug)]
pub struct Records {
    management: SocketAddr,
}

impl Records {
    pub fn set_text(&self, name: &str, value: &str) {
        self.call("set-txt", &serde_json::json!({ "host": name, "value": value }));
    }

    pub fn set_alias(&self, name: &str, target: &str) {
        self.call(
            "set-cname",
            &serde_json::json!({ "host": name, "target": target }),
        );
    }

    /// The URL that a program of the operator's would call.
    pub fn url(&self) -> String {
        format!("http://{}", self.management)
    }

    fn call(&self, what: &str, body: &serde_json::Value) {
        let status = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--data", &body.to_string()])
            .arg(format!("{}/{what}", self.url()))
            .status()
            .expect("cannot run curl: install curl");
        assert!(status.success(), "{what} {body}: {status}");
    }
}

#[derive(Clone, Copy, Debug)]
struct Places {
    directory: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
    dns_management: SocketAddr,
}

impl Pebble {
    pub fn start(settings: PebbleSettings) -> Self {
        let root = tempfile::tempdir().expect("cannot make a directory below $TMPDIR");
        let places = Places::new();
        certify(root.path(), places.directory.ip());
        let dns = start_dns(root.path(), places, settings.validation.ip());
        let mut pebble = Self {
            root,
            places,
            settings,
            server: None,
            _dns: dns,
        };
        pebble.start_again();
        pebble
    }

    /// Starts it after [`Self::stop`]. It has forgotten all accounts and orders, and has a new root.
    pub fn start_again(&mut self) {
        let configuration = self.file("pebble.json");
        write(&configuration, &self.configuration());
        let sleep = self.settings.slowest_validation;
        // A file holds what Pebble logged before it answered; a pipe might still be on its way.
        let mut command = shell(
            "PEBBLE_LOG",
            &self.log_file(),
            "exec pebble \"$@\" >>\"$PEBBLE_LOG\" 2>&1",
        );
        command
            .arg("-config")
            .arg(&configuration)
            .args(["-dnsserver", &self.dns().to_string()])
            .env("PEBBLE_VA_NOSLEEP", u8::from(sleep == 0).to_string())
            .env("PEBBLE_VA_SLEEPTIME", sleep.to_string())
            .env("PEBBLE_WFE_NONCEREJECT", self.settings.refused_nonces.to_string())
            .env(
                "PEBBLE_AUTHZREUSE",
                self.settings.reused_authorizations.to_string(),
            );
        let server = Running::start(command, &self.file("notify"));
        wait_until("Pebble to listen; is the package pebble installed?", || {
            TcpStream::connect(self.places.directory).is_ok()
                && TcpStream::connect(self.places.management).is_ok()
        });
        self.server = Some(server);
    }

    pub fn stop(&mut self) {
        self.server = None;
    }

    /// The text of a `fairlead.toml` that uses it. The system's resolver is asked about none of a test's names.
    pub fn settings(&self) -> String {
        format!(
            "[acme]\ndirectory = \"{}\"\nemail = \"ops@example.com\"\naccept-terms = true\nca-file = {:?}\n\
             check-ports = false\n",
            self.directory(),
            self.file("root.pem")
        )
    }

    /// The URL of its directory (RFC 8555 7.1.1).
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.places.directory)
    }

    /// Whom it asks about names.
    pub fn dns(&self) -> SocketAddr {
        self.settings.dns.unwrap_or(self.places.dns)
    }

    /// What the server that makes names up says besides.
    pub fn records(&self) -> Records {
        Records {
            management: self.places.dns_management,
        }
    }

    /// How many orders it made up to now.
    pub fn orders(&self) -> usize {
        self.count("Added order ")
    }

    /// How many accounts it made since it was started.
    pub fn accounts(&self) -> usize {
        self.count("accounts in memory")
    }

    /// Waits until it has answered every request and judged every challenge, also those of a client that is gone.
    pub fn wait_until_idle(&self) {
        wait_until("Pebble being done with its last client", || {
            let (begun, judged) = ("Pulled a task from the Tasks queue", "by completed challenge");
            !is_connected(self.places.directory) && self.count(begun) == self.count(judged)
        });
    }

    /// The root of the certificates it issues, PEM.
    pub fn root(&self) -> String {
        self.ask("roots/0")
    }

    /// What it says of a certificate with this serial number in hexadecimal digits: `Valid` or `Revoked`.
    pub fn status_of(&self, serial: &str) -> String {
        let answer = self.ask(&format!("cert-status-by-serial/{serial}"));
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("a status is JSON");
        answer["Status"].as_str().unwrap_or_default().to_owned()
    }

    fn ask(&self, what: &str) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--cacert"])
            .arg(self.file("root.pem"))
            .arg(format!("https://{}/{what}", self.places.management))
            .output()
            .expect("cannot run curl: install curl");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("an answer is text")
    }

    fn count(&self, part: &str) -> usize {
        let log = fs::read_to_string(self.log_file()).expect("Pebble's log can be read");
        log.lines().filter(|line| line.contains(part)).count()
    }

    fn configuration(&self) -> String {
        let places = self.places;
        let external = self.settings.external_account;
        let external_keys: BTreeMap<_, _> = external.into_iter().collect();
        serde_json::json!({ "pebble": {
            "listenAddress": places.directory,
            "managementListenAddress": places.management,
            "certificate": self.file("server.pem"),
            "privateKey": self.file("server-key.pem"),
            "httpPort": self.settings.validation.port(),
            "tlsPort": self.settings.tls_port,
            "certificateValidityPeriod": self.settings.validity.as_secs(),
            "domainBlocklist": self.settings.blocked,
            "externalAccountBindingRequired": external.is_some(),
            "externalAccountMACKeys": external_keys,
        }})
        .to_string()
    }

    fn log_file(&self) -> PathBuf {
        self.file("pebble.log")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.log_file()).unwrap_or_default();
            eprintln!("-- Pebble said:\n{log}-- end");
        }
    }
}

impl Places {
    fn new() -> Self {
        let ip = own_address();
        let bind = || TcpListener::bind((ip, 0)).expect("the loopback has a free port");
        // All are held until the last one is known, so no two are the same.
        let listeners = [bind(), bind(), bind(), bind()];
        let [directory, management, dns, dns_management] = listeners
            .each_ref()
            .map(|listener| listener.local_addr().expect("a bound socket has an address"));
        Self {
            directory,
            management,
            dns,
            dns_management,
        }
    }
}

/// Answers HTTP-01 on a port of its own with the files that the certs program writes, as the proxy does.
pub struct Answering {
    address: SocketAddr,
    gate: Arc<Gate>,
    acceptor: Option<JoinHandle<()>>,
}

/// What decides over answers, and who has asked.
struct Gate {
    challenges: PathBuf,
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    refused: Vec<String>,
    held: bool,
    asked: usize,
    answered: usize,
    ended: bool,
}

impl Answering {
    pub fn start(environment: &Environment) -> Self {
        Self::start_at(environment, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// The same at an address of the loopback.
    pub fn start_at(environment: &Environment, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("the port of the loopback is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let gate = Arc::new(Gate {
            challenges: environment.paths().challenges_dir(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let acceptor = thread::spawn({
            let gate = gate.clone();
            move || accept(&listener, &gate)
        });
        Self {
            address,
            gate,
            acceptor: Some(acceptor),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers 404 for this host from now on.
    pub fn refuse(&self, host: &str) {
        self.gate.change(|state| state.refused.push(host.to_owned()));
    }

    /// Answers for this host again.
    pub fn admit(&self, host: &str) {
        self.gate
            .change(|state| state.refused.retain(|refused| refused != host));
    }

    /// Lets requests wait for [`Self::release`].
    pub fn hold(&self) {
        self.gate.change(|state| state.held = true);
    }

    /// Lets requests go on, and waits until all that came are answered.
    pub fn release(&self) {
        self.gate.change(|state| state.held = false);
        self.gate.wait(|state| state.answered == state.asked);
    }

    /// Waits until a challenge was asked for as often as Pebble does for each.
    pub fn wait_for_requests(&self) {
        self.gate.wait(|state| state.asked >= VALIDATIONS);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.gate.change(|state| state.ended = true);
        // Wakes the acceptor; if that fails it has ended already.
        let _ = TcpStream::connect(self.address);
        self.acceptor.take().map(JoinHandle::join);
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait(&self, until: impl Fn(&GateState) -> bool) {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), DEADLINE, |state| !until(state));
        let (_state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "nothing happened in time");
    }

    /// The body for a request head, if there is one.
    fn answer(&self, head: &str) -> Option<Vec<u8>> {
        self.change(|state| state.asked += 1);
        self.wait(|state| !state.held || state.ended);
        let host = head.lines().find_map(|line| {
            line.strip_prefix("Host: ")
                .or_else(|| line.strip_prefix("host: "))
        })?;
        let host = host.split(':').next().unwrap_or(host);
        if self.lock().refused.iter().any(|refused| refused == host) {
            return None;
        }
        let path = head.split(' ').nth(1)?;
        let token = Token::parse(path.strip_prefix("/.well-known/acme-challenge/")?).ok()?;
        fs::read(self.challenges.join(token.as_str())).ok()
    }
}

fn accept(listener: &TcpListener, gate: &Arc<Gate>) {
    for stream in listener.incoming() {
        if gate.lock().ended {
            return;
        }
        let Ok(stream) = stream else {
            return;
        };
        let gate = gate.clone();
        thread::spawn(move || serve(&stream, &gate));
    }
}

/// A peer that goes away in the middle is its own affair: the authority says then what it misses.
fn serve(mut stream: &TcpStream, gate: &Gate) {
    let head: String = BufReader::new(stream)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .map(|line| line + "\n")
        .collect();
    let (status, body) = match gate.answer(&head) {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), &body].concat());
    gate.change(|state| state.answered += 1);
}

/// Pebble's own certificate, and the root that fairlead is told to trust.
fn certify(directory: &Path, address: IpAddr) {
    let authority = Authority::new();
    let pair = authority.issue(&[&address.to_string()]);
    write(&directory.join("root.pem"), &authority.root());
    write(&directory.join("server.pem"), &pair.chain);
    write(&directory.join("server-key.pem"), &pair.key);
}

fn start_dns(root: &Path, places: Places, address: IpAddr) -> Running {
    let mut command = shell(
        "DNS_LOG",
        &root.join("dns.log"),
        "exec pebble-challtestsrv \"$@\" >\"$DNS_LOG\" 2>&1",
    );
    command
        .args([
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-defaultIPv6",
            "",
        ])
        .args(["-defaultIPv4", &address.to_string()])
        .args(["-dns01", &places.dns.to_string()])
        .args(["-management", &places.dns_management.to_string()]);
    let running = Running::start(command, &root.join("notify"));
    wait_until(
        "pebble-challtestsrv to answer; is the package pebble installed?",
        || answers_dns(places.dns).unwrap_or(false),
    );
    running
}

/// Asks for the address of `test` (RFC 1035 4.1).
fn answers_dns(server: SocketAddr) -> std::io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.send(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x04test\0\0\x01\0\x01")?;
    Ok(socket.recv(&mut [0; 512])? > 12)
}

/// Whether a server of this machine has a connection at this address that it has not closed (proc_net_tcp(5)).
fn is_connected(server: SocketAddr) -> bool {
    const ESTABLISHED: &str = "01";
    const CLOSED_BY_THE_CLIENT: &str = "08";
    let IpAddr::V4(ip) = server.ip() else {
        panic!("{server} is not in the table of IPv4");
    };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), server.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel tells its connections");
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_here = words.next() == Some(&local);
        is_here && matches!(words.nth(1), Some(ESTABLISHED | CLOSED_BY_THE_CLIENT))
    })
}

fn shell(variable: &str, log: &Path, script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).env(variable, log);
    command
}

#[expect(
    clippy::disallowed_methods,
    reason = "who starts to listen gives no event to wait for"
)]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "no sign of {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn write(path: &Path, text: &str) {
    write_atomically(path, text.as_bytes(), 0o600).expect("cannot write a file of the test");
}
