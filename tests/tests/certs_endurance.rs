//! The certs program against a real Pebble, when everything that can break does, at every step.
//!
//! strace(1) counts the steps, which are system calls, and breaks the one that it is told.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;
use std::time::Instant;

use fairlead_contract::write_atomically;
use fairlead_tests::{Environment, Finished, Installation, Made, Named, Pebble, PebbleSettings, Program};

const NAME: &str = "a.test";

/// Forgets everything, as on the first day.
fn wipe(environment: &Environment) {
    let paths = environment.paths();
    for directory in [paths.certificates_dir(), paths.account_dir()] {
        fs::remove_dir_all(&directory).expect("the store can be removed");
        fs::create_dir(&directory).expect("the store can be made");
    }
}

/// A pass in which `fault` comes over the `step`th system call of this name; `None` if it had fewer.
fn break_pass(environment: &Environment, call: &str, fault: &str, step: usize) -> Option<Finished> {
    break_run(environment, &[], call, fault, step)
}

/// The same for the certs program with these arguments.
fn break_run(
    environment: &Environment,
    arguments: &[&str],
    call: &str,
    fault: &str,
    step: usize,
) -> Option<Finished> {
    let log = environment.root().join("strace");
    let mut command = Command::new("strace");
    command
        .args(["--quiet=all", "--follow-forks", "--output"])
        .arg(&log)
        .args(["-e", &format!("inject={call}:{fault}:when={step}")])
        .args(["-e", &format!("trace={call}")])
        .arg(Program::Certs.path())
        .args(arguments);
    environment.equip(&mut command);
    // What is logged is written too, and no step of interest.
    command.env("FAIRLEAD_LOG", "error");
    let finished = environment.start(command).finish();
    let log = fs::read_to_string(log).expect("strace writes a log");
    let is_killed = finished.status.signal() == Some(9);
    (is_killed || log.contains("(INJECTED)")).then_some(finished)
}

/// The order that is kept on disk, if one is: its whole file.
fn kept(installation: &Installation) -> Option<String> {
    let directory = installation.pebble.directory();
    fs::read_to_string(installation.environment.pending_file(NAME, &directory)).ok()
}

/// Lets the time pass that a failure has to wait, if there is one, and makes a pass that must succeed.
fn recover(environment: &Environment) {
    let has_ledger = environment.certificate(NAME).ledger_file().exists();
    if has_ledger && environment.ledger(NAME).failure.is_some() {
        environment.end_waiting(NAME);
    }
    environment.pass();
}

/// Breaks a first pass at each of its system calls of this name, and returns how many it has.
///
/// Each lane has an installation of its own, and its share of the steps.
fn at_every(call: &'static str, fault: &'static str) -> usize {
    const LANES: usize = 2;
    let lanes = [0, 1].map(|lane| {
        thread::spawn(move || {
            let installation = Installation::new();
            installation.environment.declare(&[NAME], "");
            (1 + lane..)
                .step_by(LANES)
                .take_while(|step| is_made_good(&installation, call, fault, *step))
                .count()
        })
    });
    lanes
        .into_iter()
        .map(|lane| lane.join().expect("every step is made good"))
        .sum()
}

/// Returns whether the pass has that step. Fails unless the next pass makes it good.
fn is_made_good(installation: &Installation, call: &str, fault: &str, step: usize) -> bool {
    let place = format!("{fault} at step {step} of {call}");
    wipe(&installation.environment);
    let before = installation.made();
    let Some(broken) = break_pass(&installation.environment, call, fault, step) else {
        return false;
    };
    let place = format!("{place}: {}", broken.stderr);
    installation.pebble.wait_until_idle();
    let orders = installation.made().orders - before.orders;
    let order = kept(installation);
    let is_known = match &order {
        Some(order) => order.contains("\norder = "),
        // Not begun yet, or stored already.
        None => true,
    };
    // Else each pass would make another one for as long as it lasts.
    let waits = || {
        let failure = installation.environment.failure(NAME);
        failure.next_try > failure.last
    };
    assert!(is_known || orders == 0 || waits(), "nothing waits, {place}");
    let expected = match is_known {
        true => orders.max(1),
        // The authority was not heard to say where the order is, if it made one.
        false => orders + 1,
    };
    recover(&installation.environment);
    let after = installation.made();
    assert_eq!(after.accounts - before.accounts, 1, "another account, {place}");
    assert_eq!(after.orders - before.orders, expected, "another order, {place}");
    let (_, key) = installation.environment.pair(NAME);
    assert!(
        order.is_none_or(|order| order.contains(&key)),
        "another key, {place}"
    );
    assert_eq!(kept(installation), None, "the order is still kept, {place}");
    assert_eq!(installation.environment.ledger(NAME).failure, None, "{place}");
    true
}

#[test]
fn a_pass_killed_at_any_step_on_the_wire_costs_no_account_no_key_and_no_order() {
    assert!(at_every("writev", "signal=KILL") > 10);
    assert!(at_every("recvfrom", "signal=KILL") > 10);
}

#[test]
fn a_pass_killed_at_any_step_on_the_disk_costs_no_account_no_key_and_no_order() {
    assert!(at_every("renameat", "signal=KILL") > 5);
    assert_eq!(at_every("rename", "signal=KILL"), 3);
    assert!(at_every("unlink", "signal=KILL") > 1);
}

#[test]
fn a_disk_that_is_full_at_any_step_costs_no_account_no_key_and_no_order() {
    assert!(at_every("fsync", "error=ENOSPC") > 5);
    assert!(at_every("mkdir", "error=ENOSPC") > 1);
}

/// The same with DNS-01: no pass leaves a record behind that the next one does not take back.
#[test]
fn a_pass_killed_at_any_step_of_dns_01_leaves_nothing_in_the_dns_and_costs_no_order() {
    let environment = Environment::new();
    let named = Named::start(&[(NAME, "")], &[NAME]);
    let mut settings = PebbleSettings::new(([127, 0, 0, 1], 1).into());
    settings.dns = Some(named.address());
    let pebble = Pebble::start(settings);
    let key = environment.secret("key", Named::key());
    let server = named.address();
    environment.write_config(&format!(
        "{}challenge = \"dns-01\"\nresolvers = [\"{server}\"]\n[acme.dns.rfc2136]\nserver = \"{server}\"\n\
         key-name = \"fairlead\"\nkey = {key:?}\n",
        pebble.settings()
    ));
    environment.declare(&[NAME], "");
    let texts = || named.texts(&format!("_acme-challenge.{NAME}"));
    let mut had_left_something = false;
    for call in ["sendto", "unlink"] {
        let is_made_good = |step: usize| {
            wipe(&environment);
            let before = pebble.orders();
            if break_pass(&environment, call, "signal=KILL", step).is_none() {
                return false;
            }
            pebble.wait_until_idle();
            let place = format!("step {step} of {call}");
            had_left_something |= !texts().is_empty();
            environment.pass();
            assert_eq!(texts(), "", "{place}");
            let orders = pebble.orders() - before;
            recover(&environment);
            assert_eq!(texts(), "", "{place}");
            assert!(
                pebble.orders() - before <= orders.max(1),
                "another order, {place}"
            );
            true
        };
        let steps = (1..)
            .map(is_made_good)
            .take_while(|is_made_good| *is_made_good)
            .count();
        assert!(steps > 1, "{call}");
    }
    assert!(had_left_something);
}

#[test]
fn a_roll_over_cut_short_at_any_step_leaves_the_same_account_to_the_next_pass() {
    // How many reads the answers take is the network's choice.
    for (call, fault, steps) in [
        ("writev", "signal=KILL", 5),
        ("recvfrom", "signal=KILL", 3),
        ("renameat", "signal=KILL", 2),
        ("fsync", "error=ENOSPC", 2),
    ] {
        let installation = Installation::new();
        let environment = &installation.environment;
        environment.declare(&[NAME], "");
        environment.pass();
        let broken = |step: &usize| {
            let run = break_run(environment, &["account", "roll-over"], call, fault, *step);
            run.is_some_and(|broken| {
                installation.pebble.wait_until_idle();
                environment.declare(&[NAME, &format!("n{step}.test")], "");
                let passed = environment.run(Program::Certs, &[]);
                let place = format!("{fault} at step {step} of {call}: {}", broken.stderr);
                assert!(passed.status.success(), "{place}\n{}", passed.stderr);
                true
            })
        };
        assert!((1..).take_while(broken).count() >= steps, "{call}");
        assert_eq!(installation.made().accounts, 1, "{call}");
    }
}

#[test]
fn a_bound_account_is_registered_once_wherever_that_is_cut_short() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let installation = Installation::with(|settings| settings.external_account = Some(("kid-1", KEY)));
    let environment = &installation.environment;
    let secret = environment.root().join("eab");
    write_atomically(&secret, KEY.as_bytes(), 0o600).expect("a secret can be written");
    let external = format!("external-account = {{ key-id = \"kid-1\", key = {secret:?} }}\n");
    environment.write_config(&format!("{}{external}", installation.pebble.settings()));
    environment.declare(&[NAME], "");
    let is_made_good = |call: &str, step: usize| {
        wipe(environment);
        let before = installation.made().accounts;
        if break_pass(environment, call, "signal=KILL", step).is_none() {
            return false;
        }
        installation.pebble.wait_until_idle();
        recover(environment);
        assert_eq!(installation.made().accounts, before + 1, "step {step} of {call}");
        true
    };
    for (call, steps) in [("writev", 12), ("renameat", 5)] {
        assert_eq!(
            (1..=steps).filter(|step| is_made_good(call, *step)).count(),
            steps,
            "{call}"
        );
    }
}

#[test]
fn two_hundred_names_cost_one_order_each_though_every_fifth_nonce_is_refused() {
    let installation = Installation::with(|settings| settings.refused_nonces = 20);
    let names: Vec<_> = (0..200).map(|number| format!("n{number}.test")).collect();
    for name in &names {
        installation.environment.declare(&[name], "");
    }
    let began = Instant::now();
    installation.environment.pass();
    let each = began.elapsed() / 200;
    for name in &names {
        assert_eq!(installation.environment.ledger(name).failure, None);
    }
    let made = Made {
        accounts: 1,
        orders: names.len(),
    };
    println!(
        "one order for each of {} certificates, {each:?} each",
        names.len()
    );
    assert_eq!(installation.made(), made);
}

#[test]
fn an_authority_that_goes_in_mid_order_is_named_in_the_ledger_and_no_answer_stays() {
    let mut installation = Installation::new();
    let environment = &installation.environment;
    environment.declare(&[NAME], "");
    installation.answering.hold();
    let running = environment.spawn(Program::Certs, &[]);
    installation.answering.wait_for_requests();
    installation.pebble.stop();
    installation.answering.release();
    let finished = running.finish();
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    let failure = environment.ledger(NAME).failure.expect("a failure is remembered");
    assert!(
        failure.error.contains("cannot reach https://"),
        "{}",
        failure.error
    );
    let answers = fs::read_dir(environment.paths().challenges_dir()).unwrap();
    assert_eq!(answers.count(), 0);
}
