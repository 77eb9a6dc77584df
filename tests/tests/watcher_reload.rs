//! A pass that brings the proxy up to date as well, by the socket where the proxy reloads for each connection.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;

use fairlead_tests::{DockerApi, Environment, Finished, Program, Proxy, Sockets, activate, listed};
use serde_json::json;

const WRONG: &str = "[[route]]\nhost = 1\n";

/// An installation whose daemon and proxy run, and a socket where the proxy reloads.
struct Machine {
    environment: Environment,
    api: DockerApi,
    proxy: Proxy,
    listener: UnixListener,
}

impl Machine {
    fn new() -> Self {
        let environment = Environment::new();
        let api = DockerApi::new(&environment);
        api.add_image("sha256:00", json!({}));
        environment.write_config(&api.settings());
        let listener = UnixListener::bind(environment.paths().reload_socket()).unwrap();
        let proxy = start_proxy(&environment, &listener, Sockets::bind(&environment));
        Self {
            environment,
            api,
            proxy,
            listener,
        }
    }

    fn run(&self, containers: &[&str]) {
        let listed = |name: &&str| listed(name, &[("fairlead.hosts", &format!("{name}.test"))]);
        self.api.set_containers(containers.iter().map(listed).collect());
    }

    fn socket(&self) -> PathBuf {
        self.environment.paths().reload_socket()
    }

    fn wants_certificates(&self) -> bool {
        let mark = self.environment.paths().certs_dirty_file();
        mark.exists() && fs::remove_file(mark).is_ok()
    }

    fn pass(&self) -> Finished {
        self.environment.run(Program::Watcher, &["--reload"])
    }

    fn routes(&self) -> usize {
        self.proxy.status().loaded.routes
    }
}

/// Starts a proxy that is handed its listeners and `reload`.
fn start_proxy(environment: &Environment, reload: &UnixListener, sockets: Sockets) -> Proxy {
    let mut named = sockets.named();
    named.push(("reload", OwnedFd::from(reload.try_clone().unwrap())));
    Proxy::start_command(environment, activate(environment, named), sockets)
}

#[track_caller]
fn assert_success(finished: &Finished) {
    assert!(finished.status.success(), "{finished:?}");
}

#[test]
fn a_pass_ends_when_its_routes_are_live_and_asks_for_nothing_if_nothing_changed() {
    let machine = Machine::new();
    for containers in [&["one"][..], &["one", "two"], &[]] {
        machine.run(containers);
        assert_success(&machine.pass());
        assert_eq!(machine.routes(), containers.len());
        assert!(machine.wants_certificates());
    }
    fs::remove_file(machine.socket()).unwrap();
    assert_success(&machine.pass());
    assert!(!machine.wants_certificates());
}

#[test]
fn the_manager_hears_of_a_reload_that_was_asked_for_at_the_socket() {
    let machine = Machine::new();
    machine.run(&["one"]);
    assert_success(&machine.pass());
    machine.proxy.running().wait_for_notification("RELOADING=1");
    let ready = machine.proxy.running().wait_for_notification("READY=1");
    assert!(ready.contains("STATUS=1 routes"), "{ready}");
}

#[test]
fn a_caller_that_goes_away_or_reads_nothing_keeps_nobody_else_from_a_reload() {
    let machine = Machine::new();
    drop(UnixStream::connect(machine.socket()).unwrap());
    let _silent = UnixStream::connect(machine.socket()).unwrap();
    machine.run(&["one"]);
    assert_success(&machine.pass());
    assert_eq!(machine.routes(), 1);
}

#[test]
fn a_reload_that_was_refused_fails_each_pass_until_it_is_not() {
    let machine = Machine::new();
    machine.environment.write_routes("wrong.toml", WRONG);
    machine.run(&["one"]);
    for _ in 0..2 {
        let finished = machine.pass();
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        for part in ["reload was refused", "wrong.toml:2:1"] {
            assert!(finished.stderr.contains(part), "{finished:?}");
        }
        assert_eq!(machine.routes(), 0);
        assert!(!machine.wants_certificates());
    }
    machine.environment.write_routes("wrong.toml", "");
    assert_success(&machine.pass());
    assert_eq!(machine.routes(), 1);
}

#[test]
fn a_reload_that_nobody_could_be_asked_for_is_asked_for_by_the_next_pass() {
    let machine = Machine::new();
    let aside = machine.environment.root().join("aside");
    fs::rename(machine.socket(), &aside).unwrap();
    machine.run(&["one"]);
    let finished = machine.pass();
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains("is fairlead-reload.socket started?"),
        "{finished:?}"
    );
    fs::rename(&aside, machine.socket()).unwrap();
    assert_success(&machine.pass());
    assert_eq!(machine.routes(), 1);
}

#[test]
fn a_reload_without_an_answer_is_a_failure() {
    let machine = Machine::new();
    fs::remove_file(machine.socket()).unwrap();
    let listener = UnixListener::bind(machine.socket()).unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    machine.run(&["one"]);
    let finished = machine.pass();
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains("the reload failed: see journalctl"),
        "{finished:?}"
    );
}

#[test]
fn who_asks_while_no_proxy_runs_is_answered_by_the_next_one() {
    let machine = Machine::new();
    machine.run(&["one"]);
    machine.proxy.terminate();
    let (_, sockets) = machine.proxy.finish();
    let environment = &machine.environment;
    thread::scope(|threads| {
        let pass = threads.spawn(|| environment.run(Program::Watcher, &["--reload"]));
        while !environment.paths().unloaded_mark().exists() && !pass.is_finished() {
            thread::yield_now();
        }
        let proxy = start_proxy(environment, &machine.listener, sockets);
        assert_success(&pass.join().unwrap());
        assert_eq!(proxy.status().loaded.routes, 1);
    });
}
