use std::env;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fairlead_tests::Docker;
use fastrand::Rng;

use crate::Machine;

/// A few containers for a few seconds; 300 for as many seconds as `FAIRLEAD_STORM` says.
fn extent() -> (usize, Duration) {
    match env::var("FAIRLEAD_STORM") {
        Ok(seconds) => (
            300,
            Duration::from_secs(seconds.parse().expect("FAIRLEAD_STORM is a number of seconds")),
        ),
        Err(_) => (8, Duration::from_secs(5)),
    }
}

#[test]
fn after_random_starts_and_stops_the_routes_are_what_runs_and_few_looks_were_taken() {
    let (count, length) = extent();
    let machine = Machine::new();
    let names: Vec<String> = (0..count).map(|number| format!("web-{number:03}")).collect();
    for name in &names {
        let label = format!("fairlead.hosts={name}.test");
        machine.docker.create(name, &["--label", &label]);
    }
    let follower = machine.follow();
    let begin = Instant::now();
    let socket = machine.docker.socket();
    let is_over = AtomicBool::new(false);
    let (changes, mut marks) = thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut marks = 0;
            while !is_over.load(Ordering::Relaxed) {
                marks = follower.wait_for_output_lines(marks + 1);
                machine.pass();
            }
            marks
        });
        let changes = rage(&socket, &names, length);
        is_over.store(true, Ordering::Relaxed);
        // Whatever came before, this is one more change, and some run in the end and some do not.
        for (name, verbs) in names
            .iter()
            .zip([&["unpause", "kill", "start"][..], &["unpause", "kill"]])
        {
            for verb in verbs {
                change(&socket, name, verb);
            }
        }
        (changes, looks.join().expect("each look succeeds"))
    });
    for name in paused(&machine.docker) {
        machine.docker.docker(&["unpause", &name]);
    }
    let wanted: Vec<String> = running(&machine.docker)
        .iter()
        .map(|name| machine.expected(&format!("{name}.test"), &[name]))
        .collect();
    machine.pass_until(&follower, &mut marks, &wanted);
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{changes} changes and {marks} marks in {seconds:.1} s; {} of {count} containers run",
        wanted.len()
    );
    assert!((1..count).contains(&wanted.len()), "{wanted:?}");
    assert!(
        (marks as f64) <= 5.0 * seconds + 4.0,
        "{marks} marks in {seconds} s"
    );
}

/// Changes containers at random, and returns how often one changed.
fn rage(socket: &Path, names: &[String], length: Duration) -> usize {
    let mut random = Rng::with_seed(1);
    let begin = Instant::now();
    let mut changes = 0;
    while begin.elapsed() < length {
        let verb = match random.u8(0..20) {
            0 => "kill",
            1..4 => "start",
            4..12 => "pause",
            _ => "unpause",
        };
        let name = random.choice(names).expect("there are containers");
        changes += usize::from(change(socket, name, verb));
    }
    changes
}

/// Whether the daemon did it: a container that is stopped cannot be paused.
fn change(socket: &Path, name: &str, verb: &str) -> bool {
    let mut stream = UnixStream::connect(socket).expect("the daemon listens");
    let head =
        format!("POST /containers/{name}/{verb} HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the daemon reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the daemon answers");
    answer
        .lines()
        .next()
        .is_some_and(|status| status.contains(" 204 "))
}

/// The names of the containers that run, in order.
fn running(docker: &Docker) -> Vec<String> {
    named(docker, "running")
}

fn paused(docker: &Docker) -> Vec<String> {
    named(docker, "paused")
}

fn named(docker: &Docker, state: &str) -> Vec<String> {
    let filter = format!("--filter=status={state}");
    let listed = docker.docker(&["ps", "--all", "--format={{.Names}}", &filter]);
    let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
    names.sort();
    names
}
