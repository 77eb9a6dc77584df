//! Listeners: inherited by name, or made from flags.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use command_fds::{CommandFdExt, FdMapping};
use fairlead_tests::{
    Environment, Program, Proxy, Running, Site, Sockets, Upstream, Wire, activate, ask, get, request_on,
};
use tokio::net::TcpStream;

/// As open(2) has it, on every architecture of ours.
const O_CLOEXEC: u32 = 0o2_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn names_decide_and_not_their_order() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let sockets = Sockets::bind(&site.environment);
    let mut named = sockets.named();
    named.reverse();
    let command = activate(&site.environment, named);
    let proxy = Proxy::start_command(&site.environment, command, sockets);
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
    let mut wire = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
    wire.write("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(wire.read_head().await.starts_with("HTTP/1.1 308 "));
    proxy.status();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_listeners_of_one_name_are_all_served() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let sockets = Sockets::bind(&site.environment);
    let second = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = second.local_addr().unwrap();
    let mut named = sockets.named();
    named.push(("https", second.into()));
    let command = activate(&site.environment, named);
    let proxy = Proxy::start_command(&site.environment, command, sockets);
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
    site.client().connect(address, "a.test", &[]).await.unwrap();
}

#[test]
fn a_missing_listener_is_named() {
    for missing in ["http", "https"] {
        let environment = Environment::new();
        let sockets = Sockets::bind(&environment);
        let mut named = sockets.named();
        named.retain(|(name, _)| *name != missing);
        let finished = environment.start(activate(&environment, named)).finish();
        assert!(!finished.status.success());
        let mut words = finished.stderr.split(|letter: char| !letter.is_alphanumeric());
        assert!(
            words.any(|word| word == missing),
            "{missing}: {}",
            finished.stderr
        );
    }
}

#[test]
fn a_socket_that_is_no_listener_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let wrong: [OwnedFd; 4] = [
        UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        listener.accept().unwrap().0.into(),
        UnixDatagram::unbound().unwrap().into(),
        File::open("/dev/null").unwrap().into(),
    ];
    for wrong in wrong {
        let environment = Environment::new();
        let sockets = Sockets::bind(&environment);
        let mut named = sockets.named();
        named.retain(|(name, _)| *name != "https");
        named.push(("https", wrong));
        let finished = environment.start(activate(&environment, named)).finish();
        assert!(!finished.status.success());
        assert!(
            finished
                .stderr
                .contains("the socket named \"https\" cannot be used"),
            "{}",
            finished.stderr
        );
    }
    drop(connected);
}

/// Whatever a program is started from the proxy: it has nothing to do with these.
#[test]
fn no_listener_is_left_to_children() {
    let site = Site::new();
    let proxy = site.start();
    for descriptor in 3..6 {
        let info = format!("/proc/{}/fdinfo/{descriptor}", proxy.running().pid());
        let info = std::fs::read_to_string(info).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        assert_ne!(flags & O_CLOEXEC, 0, "{descriptor}: {info}");
    }
}

/// Most likely a misspelt name; the other listeners are worth more than a refusal to start.
#[test]
fn a_listener_of_an_unknown_name_is_a_warning() {
    let environment = Environment::new();
    let sockets = Sockets::bind(&environment);
    let mut named = sockets.named();
    named.push(("htps", TcpListener::bind("127.0.0.1:0").unwrap().into()));
    let running = environment.start(activate(&environment, named));
    running.wait_for_notification("READY=1");
    running.wait_for_log("\"htps\"");
}

/// The variables are inherited by a service's children too; they are meant for one process.
#[test]
fn sockets_of_another_process_are_left_alone() {
    let environment = Environment::new();
    let mut command = environment.command(Program::Proxy);
    command
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", "http:https");
    let finished = environment.start(command).finish();
    assert!(!finished.status.success());
    assert!(
        finished.stderr.contains("--https"),
        "it says what to do instead: {}",
        finished.stderr
    );
    let strangers = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = environment.command(Program::Proxy);
    command
        .args(["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"])
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "http");
    let mapping = FdMapping {
        parent_fd: strangers.into(),
        child_fd: 3,
    };
    command.fd_mappings(vec![mapping]).unwrap();
    let running = environment.start(command);
    running.wait_for_notification("READY=1");
    let descriptor = std::fs::read_link(format!("/proc/{}/fd/3", running.pid())).unwrap();
    assert!(
        descriptor.to_string_lossy().starts_with("socket:"),
        "{descriptor:?}"
    );
}

/// Without a service manager the ports are no usual ones, and a redirect must name them.
#[tokio::test(flavor = "multi_thread")]
async fn flags_name_the_listeners_and_redirects_their_port() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let admin = site.environment.root().join("admin.sock");
    // What a predecessor that was killed leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&admin).unwrap());
    let arguments = [
        "--http",
        "127.0.0.1:0",
        "--https",
        "127.0.0.1:0",
        "--admin",
        admin.to_str().unwrap(),
        "--metrics",
        "127.0.0.1:0",
    ];
    let running = site.environment.spawn(Program::Proxy, &arguments);
    running.wait_for_notification("READY=1");
    tokio::net::UnixStream::connect(&admin).await.unwrap();
    let mode = std::fs::metadata(&admin).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "as the unit of the socket has it");
    let (http, https) = (listening(&running, "http"), listening(&running, "https"));
    let metrics = std::net::TcpStream::connect(listening(&running, "Prometheus")).unwrap();
    assert!(ask(metrics, "/metrics", "").contains("fairlead_routes 1\n"));
    let mut wire = Wire::new(TcpStream::connect(http).await.unwrap());
    wire.write("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let head = wire.read_head().await;
    assert!(
        head.contains(&format!("https://a.test:{}/x\r\n", https.port())),
        "{head}"
    );
    let stream = site.client().connect(https, "a.test", &["h2"]).await.unwrap();
    assert_eq!(request_on(stream, get("https://a.test/")).await.status(), 200);
}

fn listening(running: &Running, protocol: &str) -> SocketAddr {
    let line = running.wait_for_log(&format!("listening for {protocol} at "));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn an_address_in_use_is_named() {
    let environment = Environment::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let finished = environment.run(Program::Proxy, &["--http", "127.0.0.1:0", "--https", &address]);
    assert!(!finished.status.success());
    assert!(finished.stderr.contains(&address), "{}", finished.stderr);
}
