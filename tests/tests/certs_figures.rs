//! Figures of full stores and many orders, printed and not asserted.
//!
//! `TMPDIR=/dev/shm FAIRLEAD_CERTIFICATES=10000 cargo test --release -p fairlead-tests --test certs_figures -- --nocapture --test-threads 1`

use std::env;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use fairlead_tests::{Environment, Installation, Program, Proxy, route};

/// Runs what follows and prints how many KiB of memory it had at most.
const PEAK: &str = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); \
                    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";

/// The greatest memory of a pass, in KiB.
fn peak(environment: &Environment) -> u64 {
    let mut command = Command::new("python3");
    command.args(["-c", PEAK]).arg(Program::Certs.path());
    environment.equip(&mut command);
    command.env("FAIRLEAD_LOG", "warn");
    let finished = environment.start(command).finish();
    assert!(finished.status.success(), "{}", finished.stderr);
    finished.stdout.trim().parse().expect("python3 prints a number")
}

fn time(environment: &Environment) -> Duration {
    let mut command = environment.command(Program::Certs);
    command.env("FAIRLEAD_LOG", "warn");
    let began = Instant::now();
    let finished = environment.start(command).finish();
    let time = began.elapsed();
    assert!(finished.status.success(), "{}", finished.stderr);
    time
}

/// Passes until one sees nothing that an earlier one had not: files that changed a moment ago are read again.
fn settle(environment: &Environment) {
    let seen = environment.paths().account_dir().join("seen");
    let read = || fs::read(&seen).unwrap_or_default();
    let mut before = read();
    loop {
        time(environment);
        let now = read();
        if now == before && !now.is_empty() {
            return;
        }
        before = now;
    }
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
    println!(
        "{number} certificates from the own authority: {:?}",
        time(&environment)
    );
    let before = [&first, &last].map(|name| environment.pair(name));

    println!("a pass that reads all {number}: {:?}", time(&environment));
    settle(&environment);
    let fastest = (0..5).map(|_| time(&environment)).min().expect("there are five");
    println!(
        "a pass with nothing due at {number}: {fastest:?}, {} KiB",
        peak(&environment)
    );
    assert_eq!([&first, &last].map(|name| environment.pair(name)), before);

    let proxy = Proxy::start(&environment);
    println!("the proxy with {number}: {} KiB", proxy.resident() / 1024);
}

#[test]
fn a_hundred_names_in_one_pass_cost_an_order_each() {
    let installation = Installation::with(|settings| settings.refused_nonces = 20);
    for number in 0..100 {
        installation
            .environment
            .declare(&[&format!("n{number}.test")], "");
    }
    let each = time(&installation.environment) / 100;
    let orders = installation.made().orders;
    println!("a hundred certificates in one pass, every fifth nonce refused: {each:?} each, {orders} orders");
    assert_eq!(orders, 100);
}
