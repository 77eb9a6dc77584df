//! Figures of a full store, printed and not asserted.
//!
//! `TMPDIR=/dev/shm FAIRLEAD_CERTIFICATES=10000 cargo test --release -p fairlead-tests --test certs_figures -- --nocapture`

use std::env;
use std::process::Command;
use std::time::Instant;

use fairlead_tests::{Environment, Program, Proxy, route};

/// Runs what follows and prints how many KiB of memory it had at most.
const PEAK: &str = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); \
                    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";

/// A pass, and its greatest memory in KiB.
fn measured_pass(environment: &Environment) -> u64 {
    let mut command = Command::new("python3");
    command.args(["-c", PEAK]).arg(Program::Certs.path());
    environment.equip(&mut command);
    command.env("FAIRLEAD_LOG", "warn");
    let finished = environment.start(command).finish();
    assert!(finished.status.success(), "{}", finished.stderr);
    finished.stdout.trim().parse().expect("python3 prints a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_over_a_full_store_changes_nothing() {
    let number = env::var("FAIRLEAD_CERTIFICATES").map_or(200, |text| text.parse().expect("it is a number"));
    let environment = Environment::new();
    environment.write_config("[certificates]\nprovider = \"internal\"\n");
    let nobody = ([127, 0, 0, 1], 9).into();
    let routes = (0..number).map(|number| route(&[&format!("n{number}.test")], &[nobody]));
    environment.write_routes("all.toml", &routes.collect::<String>());
    let (first, last) = ("n0.test".to_owned(), format!("n{}.test", number - 1));
    let began = Instant::now();
    measured_pass(&environment);
    println!(
        "{number} certificates from the own authority: {:?}",
        began.elapsed()
    );
    let before = [&first, &last].map(|name| environment.pair(name));

    let peak = measured_pass(&environment);
    let mut command = environment.command(Program::Certs);
    command.env("FAIRLEAD_LOG", "warn");
    let began = Instant::now();
    let finished = environment.start(command).finish();
    println!(
        "a pass over {number} with nothing due: {:?}, {peak} KiB",
        began.elapsed()
    );
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!([&first, &last].map(|name| environment.pair(name)), before);

    let proxy = Proxy::start(&environment);
    println!("the proxy with {number}: {} KiB", proxy.resident() / 1024);
}
