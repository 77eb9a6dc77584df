//! The command line as a whole program, beside a real proxy.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use fairlead_tests::{DEADLINE, Environment, Finished, Pair, Program, Proxy, Site, route};
use serde_json::Value;

const FAULTY: &str = "[[route]]\nhosts = [\"b.test\"]\nupstream = [\"http://127.0.0.1:1\"]\n";

fn fairlead(environment: &Environment, arguments: &[&str]) -> Finished {
    environment.run(Program::Cli, arguments)
}

#[track_caller]
fn assert_exit(finished: &Finished, code: i32) {
    assert_eq!(finished.status.code(), Some(code), "{finished:?}");
}

/// The answer in JSON.
#[track_caller]
fn json(environment: &Environment, arguments: &[&str], code: i32) -> Value {
    let finished = fairlead(environment, &[arguments, &["--json"]].concat());
    assert_exit(&finished, code);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

/// Nobody needs to listen there.
fn upstream() -> SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

fn site() -> Site {
    Site::of("a.test", upstream())
}

fn place(site: &Site, file: &str) -> String {
    site.environment
        .paths()
        .routes_dir()
        .join(file)
        .display()
        .to_string()
}

/// The command without its siblings beside it.
fn copied(directory: &Path) -> String {
    let copy = directory.join("fairlead");
    // By another process: a file that this one has open for writing while it forks cannot be run.
    let status = Command::new("cp").arg(Program::Cli.path()).arg(&copy).status();
    assert!(status.unwrap().success());
    copy.display().to_string()
}

mod check {
    use super::*;

    #[test]
    fn good_files_are_counted() {
        let site = site();
        let finished = fairlead(&site.environment, &["check"]);
        assert_exit(&finished, 0);
        assert_eq!(finished.stdout, "1 route, 1 certificate: nothing wrong\n");
        assert_eq!(finished.stderr, "");
    }

    #[test]
    fn a_fault_is_named_by_file_line_and_column() {
        let site = site();
        site.environment.write_routes("b.toml", FAULTY);
        let finished = fairlead(&site.environment, &["check"]);
        assert_exit(&finished, 1);
        let fault = format!("{}:3:1: unknown field `upstream`", place(&site, "b.toml"));
        assert!(finished.stderr.starts_with(&fault), "{}", finished.stderr);
        assert!(
            finished.stdout.contains("a reload would be refused"),
            "{}",
            finished.stdout
        );
        let report = json(&site.environment, &["check"], 1);
        assert_eq!(report["problems"][0]["line"], 3);
    }

    #[test]
    fn what_would_only_be_left_out_is_a_note() {
        let site = site();
        let pair = Pair {
            key: site.authority.issue(&["b.test"]).key,
            ..site.authority.issue(&["b.test"])
        };
        site.environment.store("b.test", &pair);
        let finished = fairlead(&site.environment, &["check"]);
        assert_exit(&finished, 0);
        assert!(
            finished.stderr.starts_with("note: ") && finished.stderr.contains("b.test"),
            "{finished:?}"
        );
        assert!(
            finished.stdout.ends_with("nothing wrong, 1 note\n"),
            "{finished:?}"
        );
    }

    #[test]
    fn a_state_directory_that_is_not_there_is_not_an_empty_one() {
        let site = site();
        for command in [&["status"][..], &["routes"], &["certs"], &["why", "app.test"]] {
            let arguments = [command, &["--state-dir", "/nowhere/var"]].concat();
            let finished = fairlead(&site.environment, &arguments);
            assert_eq!(finished.status.code(), Some(2), "{finished:?}");
            assert!(
                finished
                    .stderr
                    .contains("there is no /nowhere/var: is this the right --state-dir?"),
                "{finished:?}"
            );
        }
    }

    #[test]
    fn without_the_proxys_program_nothing_is_known() {
        let site = site();
        let mut command = Command::new(copied(site.environment.root()));
        command.arg("check").env("PATH", site.environment.root());
        let finished = site.environment.start(command).finish();
        assert_exit(&finished, 2);
        assert!(finished.stderr.contains("fairlead-proxy"), "{}", finished.stderr);
    }
}

mod reload {
    use super::*;

    fn is_marked(site: &Site) -> bool {
        site.environment.paths().certs_dirty_file().exists()
    }

    #[test]
    fn what_is_served_already_is_not_loaded_again() {
        let site = site();
        let proxy = site.start();
        let finished = fairlead(&site.environment, &["reload"]);
        assert_exit(&finished, 0);
        assert!(finished.stdout.starts_with("nothing to do"), "{finished:?}");
        assert_eq!(proxy.status().reloads, 0);
        assert!(!is_marked(&site));
    }

    #[test]
    fn without_a_proxy_there_is_nothing_to_reload() {
        let site = site();
        let finished = fairlead(&site.environment, &["reload"]);
        assert_exit(&finished, 0);
        assert!(finished.stdout.contains("does not run"), "{finished:?}");
    }

    #[test]
    fn a_change_is_live_when_the_command_has_ended_and_the_certs_program_is_told() {
        let site = site();
        let proxy = site.start();
        site.environment
            .write_discovery(&route(&["b.test"], &[upstream()]));
        let finished = fairlead(&site.environment, &["reload"]);
        assert_exit(&finished, 0);
        assert_eq!(proxy.status().loaded.routes, 2);
        assert!(
            finished.stdout.starts_with("loaded 2 routes, 1 certificate\n"),
            "{finished:?}"
        );
        assert!(finished.stdout.contains("docker.toml is new"), "{finished:?}");
        assert!(is_marked(&site));
    }

    /// Otherwise each pass of the certs program would cause another one.
    #[test]
    fn a_renewed_certificate_is_live_and_the_certs_program_is_left_alone() {
        let site = site();
        let proxy = site.start();
        site.certify(&["a.test"]);
        let answer = json(&site.environment, &["reload"], 0);
        assert_eq!(answer["outcome"], "loaded");
        assert_eq!(answer["changed"].as_array().unwrap().len(), 2, "{answer}");
        assert_eq!(proxy.status().reloads, 1);
        assert!(!is_marked(&site));
    }

    #[test]
    fn a_refusal_is_told_in_the_proxys_words_and_changes_nothing() {
        let site = site();
        let proxy = site.start();
        let loaded = proxy.status().loaded;
        site.environment.write_routes("b.toml", FAULTY);
        for _ in 0..2 {
            let finished = fairlead(&site.environment, &["reload"]);
            assert_exit(&finished, 1);
            let fault = format!("{}:3:1: unknown field `upstream`", place(&site, "b.toml"));
            assert!(finished.stderr.starts_with(&fault), "{}", finished.stderr);
        }
        assert_eq!(json(&site.environment, &["reload"], 1)["outcome"], "refused");
        assert_eq!(proxy.status().loaded, loaded);
        assert!(!is_marked(&site));

        site.environment
            .write_routes("b.toml", &route(&["b.test"], &[upstream()]));
        assert_exit(&fairlead(&site.environment, &["reload"]), 0);
        assert_eq!(proxy.status().loaded.routes, 2);
    }

    #[test]
    fn a_refusal_of_what_was_taken_back_is_cleared() {
        let site = site();
        let proxy = site.start();
        site.environment.write_routes("b.toml", FAULTY);
        assert_exit(&fairlead(&site.environment, &["reload"]), 1);
        fs::remove_file(place(&site, "b.toml")).unwrap();
        assert_exit(&fairlead(&site.environment, &["status"]), 0);
        assert!(proxy.status().standing_refusal().is_some());
        assert_exit(&fairlead(&site.environment, &["reload"]), 0);
        assert_eq!(proxy.status().standing_refusal(), None);
    }

    #[test]
    fn others_who_never_cease_to_change_files_do_not_make_it_fail() {
        let site = site();
        let proxy = site.start();
        site.environment
            .write_routes("b.toml", &route(&["b.test"], &[upstream()]));
        let other = site.environment.certificate("other.test");
        fs::create_dir(other.path()).unwrap();
        let file = File::create(other.chain_file()).unwrap();
        let change = |number: u64| file.write_all_at(&number.to_be_bytes(), 0).unwrap();
        let (is_over, limit) = (AtomicBool::new(false), Instant::now() + DEADLINE);
        let goes_on = |_: &u64| !is_over.load(Ordering::Relaxed) && Instant::now() < limit;
        let finished = thread::scope(|threads| {
            threads.spawn(|| (0..).take_while(goes_on).for_each(change));
            let finished = fairlead(&site.environment, &["reload"]);
            is_over.store(true, Ordering::Relaxed);
            finished
        });
        assert_exit(&finished, 0);
        let file = site.environment.paths().routes_dir().join("b.toml");
        assert!(proxy.status().loaded.files.contains_key(&file));
    }

    #[test]
    fn the_process_can_be_named() {
        let site = site();
        let proxy = site.start();
        site.environment
            .write_discovery(&route(&["b.test"], &[upstream()]));
        let pid = proxy.running().pid().to_string();
        assert_exit(&fairlead(&site.environment, &["reload", "--pid", &pid]), 0);
        assert_eq!(proxy.status().loaded.routes, 2);
        site.environment
            .write_discovery(&route(&["c.test"], &[upstream()]));
        let finished = fairlead(&site.environment, &["reload", "--pid", "4294967295"]);
        assert_exit(&finished, 2);
        assert!(finished.stderr.contains("4294967295"), "{}", finished.stderr);
    }

    #[test]
    fn whoever_answers_nonsense_is_not_taken_for_a_proxy() {
        let environment = Environment::new();
        let listener = UnixListener::bind(environment.paths().admin_socket()).unwrap();
        let answering = thread::spawn(move || drop(listener.accept().unwrap()));
        let finished = fairlead(&environment, &["reload"]);
        assert_exit(&finished, 2);
        assert!(finished.stderr.contains("admin.sock"), "{}", finished.stderr);
        answering.join().unwrap();
    }
}

mod status {
    use super::*;

    #[test]
    fn the_exit_code_says_whether_the_disk_is_served() {
        let site = site();
        let finished = fairlead(&site.environment, &["status"]);
        assert_exit(&finished, 1);
        assert!(finished.stdout.contains("does not run"), "{finished:?}");

        let proxy = site.start();
        let finished = fairlead(&site.environment, &["status"]);
        assert_exit(&finished, 0);
        assert!(
            finished.stdout.contains("serves: 1 route, 1 certificate"),
            "{finished:?}"
        );

        site.environment.write_routes("b.toml", FAULTY);
        let finished = fairlead(&site.environment, &["status"]);
        assert_exit(&finished, 1);
        assert!(finished.stdout.contains("b.toml is new"), "{finished:?}");

        proxy.reload();
        let finished = fairlead(&site.environment, &["status"]);
        assert_exit(&finished, 1);
        let fault = format!("{}:3:1: unknown field", place(&site, "b.toml"));
        assert!(finished.stdout.contains(&fault), "{finished:?}");
        let report = json(&site.environment, &["status"], 1);
        assert_eq!(report["refusal"]["problems"][0]["line"], 3);
        assert_eq!(report["proxy"]["pid"], proxy.running().pid());
    }

    #[test]
    fn what_the_reader_may_not_read_leaves_the_answer_open() {
        let site = site();
        let proxy = site.start();
        // Whoever runs the test, nobody can read a directory as a file.
        fs::create_dir(site.environment.paths().routes_dir().join("c.toml")).unwrap();
        let finished = fairlead(&site.environment, &["status"]);
        assert_exit(&finished, 2);
        assert!(
            finished.stdout.contains("cannot read") && finished.stdout.contains("c.toml"),
            "{finished:?}"
        );
        drop(proxy);
    }
}

mod why {
    use super::*;

    fn why(site: &Site, name: &str, code: i32) -> String {
        let finished = fairlead(&site.environment, &["why", name]);
        assert_exit(&finished, code);
        finished.stdout
    }

    const DISCOVERED: &str = "[[route]]\nhosts = [\"app.test\"]\n\
        upstreams = [{ url = \"http://10.0.0.2:80\", container = \"web-1\" }]\n\
        [[rejection]]\ncontainer = \"wrong\"\nid = \"0123456789ab\"\nreason = \"fairlead.port = 70000 is no port\"\n";

    #[test]
    fn each_situation_has_its_own_story() {
        let site = site();
        site.environment.write_discovery(DISCOVERED);
        assert!(why(&site, "a.test", 1).contains("does not run"));
        let proxy = site.start();
        let told = why(&site, "app.test", 1);
        for word in [
            "web-1",
            "http://10.0.0.2:80",
            "waiting for the next pass",
            "fairlead-certs",
        ] {
            assert!(told.contains(word), "{word:?} is not in\n{told}");
        }
        assert_eq!(why(&site, "web-1", 1), told);
        assert!(why(&site, "wrong", 1).contains("70000"));
        assert!(why(&site, "appp.test", 1).contains("Did you mean app.test?"));

        site.certify(&["app.test"]);
        proxy.reload();
        let told = why(&site, "app.test", 0);
        assert!(told.ends_with("https://app.test/ should answer.\n"), "{told}");

        site.environment
            .write_routes("b.toml", &route(&["b.test"], &[upstream()]));
        let told = why(&site, "b.test", 1);
        assert!(
            told.contains("b.toml is new") && told.contains("fairlead reload"),
            "{told}"
        );
        assert_eq!(
            json(&site.environment, &["why", "app.test"], 0)[0]["subject"],
            "app.test"
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_the_answer_open() {
        let site = site();
        fs::create_dir(site.environment.paths().discovery_file()).unwrap();
        let told = why(&site, "app.test", 2);
        assert!(told.contains("docker.toml: cannot be read"), "{told}");
    }

    /// The certs program writes what the command tells.
    #[test]
    fn a_failing_certificate_is_told_in_the_words_of_the_ledger() {
        let environment = Environment::new();
        environment.write_config(&route(&["own.test"], &[upstream()]));
        assert!(!environment.run(Program::Certs, &[]).status.success());
        let _proxy = Proxy::start(&environment);
        let finished = fairlead(&environment, &["why", "own.test"]);
        assert_exit(&finished, 1);
        assert!(finished.stdout.contains("accept-terms = true"), "{finished:?}");
        let certs = fairlead(&environment, &["certs"]);
        assert_exit(&certs, 1);
        assert!(certs.stdout.contains("accept-terms = true"), "{certs:?}");
    }
}

/// Whoever runs the tests, the command runs as somebody whom the directories are closed to.
mod a_stranger {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    use super::*;

    const NOBODY: u32 = 65534;

    fn ask(site: &Site, program: &str, arguments: &[&str]) -> Finished {
        let paths = site.environment.paths();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("FAIRLEAD_CONFIG_DIR", &paths.config)
            .env("FAIRLEAD_STATE_DIR", &paths.state)
            .env("FAIRLEAD_RUNTIME_DIR", &paths.runtime);
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        site.environment.start(command).finish()
    }

    #[test]
    fn is_told_how_to_be_let_in() {
        let site = site();
        let root = site.environment.root().to_owned();
        let program = copied(&root);
        fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
        let closed = [
            site.environment.paths().routes_dir(),
            site.environment.paths().certificates_dir(),
        ];
        for directory in &closed {
            fs::set_permissions(directory, Permissions::from_mode(0o000)).unwrap();
        }
        for arguments in [&["why", "a.test"][..], &["routes"], &["certs"]] {
            let finished = ask(&site, &program, arguments);
            assert_exit(&finished, 2);
            let said = format!("{}{}", finished.stdout, finished.stderr);
            assert!(said.contains("routes.d: cannot be read"), "{finished:?}");
            assert!(said.contains("member of group fairlead"), "{finished:?}");
        }
        for directory in &closed {
            fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
        }
    }
}

mod lists {
    use super::*;

    #[test]
    fn routes_and_certificates_are_plain_lines_for_a_pipe() {
        let environment = Environment::new();
        environment.write_config("[certificates]\nprovider = \"internal\"\n");
        environment.write_routes("a.toml", &route(&["a.test", "b.test"], &[upstream()]));
        assert!(environment.run(Program::Certs, &[]).status.success());

        let finished = fairlead(&environment, &["routes"]);
        assert_exit(&finished, 0);
        let lines: Vec<_> = finished.stdout.lines().collect();
        assert!(lines[0].starts_with("HOSTS"), "{finished:?}");
        assert!(
            lines[1].starts_with("a.test b.test  http://127.0.0.1:1"),
            "{finished:?}"
        );
        assert!(
            lines[1].contains("a.toml:1") && lines[1].contains("valid until"),
            "{finished:?}"
        );

        let finished = fairlead(&environment, &["certs"]);
        assert_exit(&finished, 0);
        let line = finished.stdout.lines().nth(1).unwrap();
        let words: Vec<_> = line.split("  ").filter(|word| !word.is_empty()).collect();
        assert_eq!(
            words[..3],
            ["a.test", "a.test b.test", "internal"],
            "{finished:?}"
        );
        assert_eq!(words[5], "ok", "{finished:?}");

        let listed = json(&environment, &["routes"], 0);
        assert_eq!(listed["routes"][0]["upstreams"][0]["url"], "http://127.0.0.1:1");
        assert_eq!(json(&environment, &["certs"], 0)[0]["state"], "ok");
    }

    #[test]
    fn a_faulty_file_is_told_beside_what_holds() {
        let site = site();
        site.environment.write_routes("b.toml", FAULTY);
        let finished = fairlead(&site.environment, &["routes"]);
        assert_exit(&finished, 1);
        assert!(finished.stdout.contains("a.test"), "{finished:?}");
        assert!(finished.stderr.contains("b.toml:3:1"), "{finished:?}");
    }

    #[test]
    fn a_reader_who_has_seen_enough_is_no_error() {
        let site = site();
        for arguments in [["routes", "--json"], ["help", "reload"]] {
            let mut command = site.environment.command(Program::Cli);
            let spawned = command
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut child = spawned.unwrap();
            drop(child.stdout.take());
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            assert!(output.stderr.is_empty(), "{output:?}");
        }
    }
}
