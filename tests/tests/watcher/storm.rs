use std::env;
use std::time::{Duration, Instant};

use fairlead_tests::Docker;

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
    let mut random = fastrand::Rng::with_seed(1);
    let mut marks = 0;
    let begin = Instant::now();
    while begin.elapsed() < length {
        let verb = if random.bool() { "start" } else { "kill" };
        let some = random.choose_multiple(running(&machine.docker, verb == "kill"), 5);
        if !some.is_empty() {
            let some = some.iter().map(String::as_str);
            machine
                .docker
                .docker(&[verb].into_iter().chain(some).collect::<Vec<_>>());
        }
        let made = follower.wait_for_output_lines(marks);
        if made > marks {
            marks = made;
            machine.pass();
        }
    }
    let wanted: Vec<String> = running(&machine.docker, true)
        .iter()
        .map(|name| machine.expected(&format!("{name}.test"), &[name]))
        .collect();
    machine.pass_until(&follower, &mut marks, &wanted);
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{marks} marks in {seconds:.1} s; {} of {count} containers run",
        wanted.len()
    );
    assert!(
        (marks as f64) <= 5.0 * seconds + 4.0,
        "{marks} marks in {seconds} s"
    );
}

/// The names of the containers that run, or do not, in order.
fn running(docker: &Docker, wanted: bool) -> Vec<String> {
    let mut arguments = vec!["ps", "--all", "--format={{.Names}}"];
    let states: &[&str] = if wanted {
        &["running"]
    } else {
        &["created", "exited"]
    };
    let filters: Vec<String> = states
        .iter()
        .map(|state| format!("--filter=status={state}"))
        .collect();
    arguments.extend(filters.iter().map(String::as_str));
    let mut names: Vec<String> = docker.docker(&arguments).lines().map(str::to_owned).collect();
    names.sort();
    names
}
