//! What the proxy and a service manager say to each other (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, id};

use fairlead_tests::{DEADLINE, Environment, Program, Proxy, Running, Sockets, activate};

/// A proxy on ports of its own, to which the shell gives this variable.
fn start_with(environment: &Environment, variable: &str) -> Running {
    let proxy = environment.command(Program::Proxy);
    let mut shell = Command::new("/bin/sh");
    for (name, value) in proxy.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.args(["-c", &format!("{variable} exec \"$0\" \"$@\"")]);
    shell.arg(proxy.get_program());
    shell.args(["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"]);
    environment.start(shell)
}

#[test]
fn an_abstract_socket_is_told_too() {
    let environment = Environment::new();
    let name = format!("fairlead-test-notify-{}", id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let running = start_with(&environment, &format!("NOTIFY_SOCKET=@{name}"));
    let mut said = [0; 512];
    let length = socket.recv(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said[..length]);
    assert!(said.contains("READY=1"), "{said}");
    assert!(!running.log().contains("cannot notify"), "{}", running.log());
}

#[test]
fn nobody_to_tell_is_no_reason_not_to_serve() {
    let environment = Environment::new();
    for (variable, is_told) in [
        ("unset NOTIFY_SOCKET;", false),
        ("NOTIFY_SOCKET=/nowhere/at/all", true),
    ] {
        let running = start_with(&environment, variable);
        running.wait_for_log("0 routes, 0 certificates");
        if is_told {
            running.wait_for_log("cannot notify systemd");
        }
        running.signal(fairlead_tests::Signal::TERM);
        let finished = running.finish();
        assert!(finished.status.success());
        assert_eq!(finished.stderr.contains("cannot notify"), is_told, "{variable}");
    }
}

#[test]
fn a_watchdog_is_fed_as_long_as_it_is_ours() {
    let environment = Environment::new();
    for (pid, is_fed) in [("$$", true), ("1", false)] {
        let variables = format!("WATCHDOG_USEC=200000 WATCHDOG_PID={pid}");
        let running = start_with(&environment, &variables);
        running.wait_for_notification("READY=1");
        if is_fed {
            running.wait_for_notification("WATCHDOG=1");
            running.wait_for_notification("WATCHDOG=1");
        } else {
            running.signal(fairlead_tests::Signal::TERM);
            assert!(running.next_notification().starts_with("STOPPING=1\n"));
        }
    }
}

/// A drain may be longer than `TimeoutStopSec=` of the unit, and longer than 32 bits have microseconds.
#[test]
fn systemd_is_asked_to_wait_longer_than_a_drain_may_take() {
    for (limit, seconds) in [("10s", 10), ("2h", 7200)] {
        let environment = Environment::new();
        environment.write_config(&format!("[proxy]\ndrain-timeout = \"{limit}\"\n"));
        let proxy = Proxy::start(&environment);
        proxy.terminate();
        let said = proxy.running().next_notification();
        let asked = said.strip_prefix("STOPPING=1\nEXTEND_TIMEOUT_USEC=").unwrap();
        let microseconds: u64 = asked.trim_end().parse().unwrap();
        assert!(microseconds > seconds * 1_000_000, "{limit}: {said}");
        assert_eq!(proxy.finish().0.status.code(), Some(0));
    }
}

/// A listener that is there before its first connection, and one that comes after, are the same to a client.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_told_once_routes_and_listeners_work() {
    let environment = Environment::new();
    environment.write_routes(
        "a.toml",
        "[[route]]\nhosts = [\"a.test\"]\nupstreams = [\"http://127.0.0.1:1\"]\n",
    );
    let sockets = Sockets::bind(&environment);
    let running = environment.start(activate(&environment, sockets.named()));
    let ready = running.next_notification();
    assert!(ready.starts_with("READY=1\n"), "{ready}");
    assert!(
        ready.contains("STATUS=1 routes, 0 certificates, loaded 2"),
        "{ready}"
    );
    drop(running);
    let proxy = Proxy::start_on(&environment, sockets);
    assert_eq!(proxy.status().loaded.routes, 1);
}
