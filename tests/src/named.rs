use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::Running;
use crate::address::own_address;
use crate::pebble::write;

/// The key that may change zones, as `tsig-keygen` prints it.
const KEY: &str = "xzqKUkxPFvHVKUl9R5iwnQCDsfZ2dvMWEvIRZ2mMQzE=";

/// A real BIND at port 53 of an address of its own.
pub struct Named {
    address: Loopback,
    _root: TempDir,
    _server: Running,
}

/// An address that the loopback has for as long as this value lives.
pub struct Loopback(IpAddr);

impl Loopback {
    /// One of 127.0.0.0/8. BIND listens on no other.
    fn new() -> Self {
        Self::with(own_address())
    }

    /// One that looks as if it were reached from everywhere. Nothing that is sent to it leaves this machine.
    pub fn public() -> Self {
        let IpAddr::V4(own) = own_address() else {
            unreachable!("it is of 127.0.0.0/8");
        };
        let [_, rest @ ..] = own.octets();
        Self::with(Ipv4Addr::from_octets([1, rest[0], rest[1], rest[2]]).into())
    }

    pub fn ip(&self) -> IpAddr {
        self.0
    }

    fn with(ip: IpAddr) -> Self {
        let address = Self(ip);
        assert!(
            address.change("add"),
            "cannot give the loopback an address: is this root?"
        );
        address
    }

    fn change(&self, verb: &str) -> bool {
        let arguments = ["address", verb, &format!("{}/32", self.0), "dev", "lo"];
        let status = Command::new("ip").args(arguments).status();
        status.expect("cannot run ip: install iproute2").success()
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.change("delete");
    }
}

impl Named {
    /// Serves these zones, each with lines of its own; those in `open` take updates with [`Self::key`].
    pub fn start(zones: &[(&str, &str)], open: &[&str]) -> Self {
        let root = tempfile::tempdir().expect("cannot make a directory below $TMPDIR");
        let address = Loopback::new();
        let ip = address.0;
        let mut configuration = format!(
            "options {{ directory {:?}; listen-on port 53 {{ {ip}; }}; listen-on-v6 {{ none; }}; allow-recursion {{ any; }}; \
             dnssec-validation no; notify no; pid-file none; session-keyfile none; }};\n\
             controls {{ }};\nkey \"fairlead\" {{ algorithm hmac-sha256; secret \"{KEY}\"; }};\n",
            root.path()
        );
        // It follows aliases from zone to zone as a resolver would; with a root of its own it asks nobody else.
        for (zone, lines) in zones.iter().chain(&[(".", "")]) {
            let policy = if open.contains(zone) {
                "key fairlead;"
            } else {
                "none;"
            };
            let file = root.path().join(format!("zone-{zone}"));
            configuration += &format!(
                "zone \"{zone}\" {{ type primary; file {file:?}; allow-update {{ {policy} }}; }};\n"
            );
            write(
                &file,
                &format!("$TTL 1\n@ SOA ns root 1 60 60 60 1\n@ NS ns\nns A {ip}\n{lines}\n"),
            );
        }
        let file = root.path().join("named.conf");
        write(&file, &configuration);
        let mut command = Command::new("named");
        command.args(["-g", "-c"]).arg(&file);
        let server = Running::start(command, &root.path().join("notify"));
        // It listens before it knows its zones, and answers SERVFAIL meanwhile.
        server.wait_for_log("all zones loaded");
        Self {
            address,
            _root: root,
            _server: server,
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address.0, 53)
    }

    /// Has the name these TXT records and no other, as a service does that keeps the zone here.
    pub fn set_texts(&self, name: &str, texts: &[&str]) {
        let additions = texts
            .iter()
            .map(|text| format!("update add {name} 1 TXT {text}\n"));
        let commands = format!(
            "server {}\nkey hmac-sha256:fairlead {KEY}\nupdate delete {name} TXT\n{}send\n",
            self.address.0,
            additions.collect::<String>()
        );
        let mut nsupdate = Command::new("nsupdate")
            .stdin(Stdio::piped())
            .spawn()
            .expect("cannot run nsupdate: install bind9-dnsutils");
        let mut input = nsupdate.stdin.take().expect("it has an input");
        input.write_all(commands.as_bytes()).expect("it reads its input");
        drop(input);
        assert!(nsupdate.wait().expect("it ends").success(), "{commands}");
    }

    /// All TXT records of a name, as dig prints them.
    pub fn texts(&self, name: &str) -> String {
        let output = Command::new("dig")
            .arg(format!("@{}", self.address.0))
            .args(["+short", name, "TXT"])
            .output()
            .expect("cannot run dig: install bind9-dnsutils");
        String::from_utf8(output.stdout).expect("dig prints text")
    }

    /// The secret of the key `fairlead`, base64.
    pub fn key() -> &'static str {
        KEY
    }
}
