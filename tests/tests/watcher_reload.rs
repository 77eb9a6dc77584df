//! A pass that brings the proxy up to date as well, by the socket where systemd waits to run `fairlead reload`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;

use fairlead_tests::{DockerApi, Environment, Finished, Program, Proxy, listed};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;

const WRONG: &str = "[[route]]\nhost = 1\n";

/// An installation whose daemon and proxy run.
struct Machine {
    environment: Environment,
    api: DockerApi,
    proxy: Proxy,
}

impl Machine {
    fn new() -> Self {
        let environment = Environment::new();
        let api = DockerApi::new(&environment);
        api.add_image("sha256:00", json!({}));
        environment.write_config(&api.settings());
        Self {
            proxy: Proxy::start(&environment),
            environment,
            api,
        }
    }

    fn run(&self, containers: &[&str]) {
        let listed = |name: &&str| listed(name, &[("fairlead.hosts", &format!("{name}.test"))]);
        self.api.set_containers(containers.iter().map(listed).collect());
    }

    /// Starts a program for each connection, as `fairlead-reload.socket` does.
    fn answer(&self) -> PathBuf {
        let socket = self.environment.paths().reload_socket();
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut command = self.environment.command(Program::Cli);
        let input = OwnedFd::from(listener.try_clone().unwrap());
        command.args(["reload", "--answer"]).stdin(input);
        thread::spawn(move || {
            while poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).is_ok() {
                command.status().unwrap();
            }
        });
        socket
    }

    fn pass(&self) -> Finished {
        self.environment.run(Program::Watcher, &["--reload"])
    }

    fn routes(&self) -> usize {
        self.proxy.status().loaded.routes
    }
}

#[track_caller]
fn assert_success(finished: &Finished) {
    assert!(finished.status.success(), "{finished:?}");
}

#[test]
fn a_pass_ends_when_its_routes_are_live_and_asks_for_nothing_if_nothing_changed() {
    let machine = Machine::new();
    let socket = machine.answer();
    for containers in [&["one"][..], &["one", "two"], &[]] {
        machine.run(containers);
        assert_success(&machine.pass());
        assert_eq!(machine.routes(), containers.len());
    }
    fs::remove_file(socket).unwrap();
    assert_success(&machine.pass());
}

#[test]
fn a_reload_that_was_refused_fails_each_pass_until_it_is_not() {
    let machine = Machine::new();
    machine.answer();
    machine.environment.write_routes("wrong.toml", WRONG);
    machine.run(&["one"]);
    for _ in 0..2 {
        let finished = machine.pass();
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        for part in ["reload was refused", "wrong.toml:2:1"] {
            assert!(finished.stderr.contains(part), "{finished:?}");
        }
        assert_eq!(machine.routes(), 0);
    }
    machine.environment.write_routes("wrong.toml", "");
    assert_success(&machine.pass());
    assert_eq!(machine.routes(), 1);
}

#[test]
fn a_reload_that_nobody_could_be_asked_for_is_asked_for_by_the_next_pass() {
    let machine = Machine::new();
    machine.run(&["one"]);
    let finished = machine.pass();
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains("is fairlead-reload.socket started?"),
        "{finished:?}"
    );
    machine.answer();
    assert_success(&machine.pass());
    assert_eq!(machine.routes(), 1);
}

#[test]
fn a_reload_without_an_answer_is_a_failure() {
    let machine = Machine::new();
    let listener = UnixListener::bind(machine.environment.paths().reload_socket()).unwrap();
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
fn without_a_proxy_the_pass_succeeds() {
    let machine = Machine::new();
    machine.answer();
    machine.run(&["one"]);
    machine.proxy.terminate();
    let Machine {
        environment,
        api: _api,
        proxy,
    } = machine;
    proxy.finish();
    assert_success(&environment.run(Program::Watcher, &["--reload"]));
}
