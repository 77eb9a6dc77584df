//! `fairlead dev` as a newcomer meets it: its lines, its sites, its end.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use fairlead_contract::{Paths, write_atomically};
use fairlead_tests::{Docker, Environment, Program, Running, Signal, Upstream, free_address};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// One directory, in which `fairlead dev` may run several times.
struct Bench {
    environment: Environment,
    directory: PathBuf,
    paths: Paths,
}

/// A `fairlead dev` that is ready.
struct Dev {
    running: Running,
    paths: Paths,
    /// The command that it told to ask with.
    curl: String,
}

impl Bench {
    fn new() -> Self {
        let environment = Environment::new();
        let directory = environment.root().join("dev");
        let paths = Paths {
            config: directory.join("etc"),
            state: directory.join("var"),
            runtime: directory.join("run"),
        };
        Self {
            environment,
            directory,
            paths,
        }
    }

    /// Without containers.
    fn start(&self) -> Dev {
        self.start_beside(&self.environment.root().join("no.sock"))
    }

    /// With the containers of this daemon.
    fn start_beside(&self, docker: &Path) -> Dev {
        let mut command = self.environment.command(Program::Cli);
        command.arg("dev").arg("--dir").arg(&self.directory);
        for option in ["--http", "--https"] {
            command.args([option, &free_address().port().to_string()]);
        }
        command.arg("--docker").arg(docker);
        let running = self.environment.start(command);
        running.wait_for_output("Ctrl-C ends it");
        let line = running.wait_for_output("ask with: ");
        Dev {
            curl: line.replace("ask with: curl ", "curl --silent --show-error --max-time 20 "),
            paths: self.paths.clone(),
            running,
        }
    }

    /// The arguments of a command that is about this directory.
    fn asking<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        let options = ["--config-dir", "--state-dir", "--runtime-dir"];
        let values = [&self.paths.config, &self.paths.state, &self.paths.runtime];
        let directories = options.into_iter().zip(values.map(|path| path.to_str().unwrap()));
        command
            .iter()
            .copied()
            .chain(directories.flat_map(|(option, value)| [option, value]))
            .collect()
    }

    fn write_route(&self, name: &str, text: &str) {
        let file = self.paths.routes_dir().join(name);
        write_atomically(&file, text.as_bytes(), 0o644).unwrap();
    }
}

impl Dev {
    /// Runs the command that was told, with another host.
    fn ask(&self, host: &str) -> Output {
        let command = self.curl.replace("hello.localhost", host);
        let output = Command::new("/bin/sh").args(["-c", &command]).output();
        output.expect("there is a shell")
    }

    #[track_caller]
    fn assert_page(&self, host: &str, part: &str) {
        let output = self.ask(host);
        let page = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && page.contains(part),
            "{host}: {output:?} (is curl installed?)"
        );
    }
}

/// The programs that run with these directories. `fairlead dev` itself knows only the one above them.
fn children(paths: &Paths) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes
        .filter(|process| has_argument(process, &paths.config))
        .collect()
}

/// A process that ends meanwhile has none.
fn has_argument(process: &Path, argument: &Path) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    words.any(|word| word == argument.as_os_str().as_encoded_bytes())
}

fn route(host: &str, upstream: &str) -> String {
    format!("[[route]]\nhosts = [\"{host}\"]\nupstreams = [\"{upstream}\"]\n")
}

#[test]
fn a_hello_site_answers_to_the_line_that_is_told_until_ctrl_c_ends_everything() {
    let bench = Bench::new();
    let dev = bench.start();
    dev.running.wait_for_output("+ https://hello.localhost:");
    dev.assert_page("hello.localhost", "It works");
    assert!(!children(&dev.paths).is_empty());

    dev.running.signal(Signal::INT);
    let finished = dev.running.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    assert_eq!(
        children(&dev.paths),
        [""; 0].map(PathBuf::from),
        "a child is left"
    );
    let routes = fs::read_dir(dev.paths.routes_dir()).unwrap();
    assert_eq!(routes.count(), 0, "the route of its own is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_file_goes_live_and_away_again_and_each_change_is_a_line() {
    let mine = Upstream::saying("mine").await;
    let bench = Bench::new();
    let dev = bench.start();
    let file = dev.paths.routes_dir().join("mine.toml");
    bench.write_route(
        "mine.toml",
        &route("mine.localhost", &format!("http://{}", mine.address())),
    );
    dev.running.wait_for_output("- https://hello.localhost:");
    let line = dev.running.wait_for_output("+ https://mine.localhost:");
    assert!(line.contains("mine.toml:1"), "{line}");
    dev.assert_page("mine.localhost", "mine");

    bench.write_route("other.toml", "[[route]]\nhost = 1\n");
    let line = dev.running.wait_for_output("! ");
    assert!(line.contains("other.toml:2:1"), "{line}");
    dev.assert_page("mine.localhost", "mine");
    fs::remove_file(dev.paths.routes_dir().join("other.toml")).unwrap();
    dev.running.wait_for_output("= no longer: ");

    bench.write_route("mine.toml", &route("far.test", "http://127.0.0.1:1"));
    dev.running.wait_for_output("- https://mine.localhost:");
    let line = dev.running.wait_for_output("+ https://far.test:");
    assert!(line.contains("curl --resolve far.test:"), "{line}");
    fs::remove_file(file).unwrap();
    dev.running.wait_for_output("- https://far.test:");
    dev.assert_page("hello.localhost", "It works");
}

#[test]
fn the_authority_and_the_settings_stay_the_same_from_run_to_run() {
    let bench = Bench::new();
    let root = || fs::read(bench.paths.internal_ca_file()).unwrap();
    let first = bench.start();
    let before = root();
    first.running.signal(Signal::TERM);
    first.running.finish();
    let settings = "# mine\n[certificates]\nprovider = \"internal\"\n";
    write_atomically(&bench.paths.config_file(), settings.as_bytes(), 0o644).unwrap();
    let second = bench.start();
    second.assert_page("hello.localhost", "It works");
    assert_eq!(root(), before);
    assert_eq!(fs::read_to_string(bench.paths.config_file()).unwrap(), settings);
}

#[test]
fn one_directory_has_one_fairlead_dev() {
    let bench = Bench::new();
    let _first = bench.start();
    let directory = bench.directory.to_str().unwrap();
    let second = bench.environment.run(Program::Cli, &["dev", "--dir", directory]);
    assert_eq!(second.status.code(), Some(2), "{second:?}");
    assert!(
        second.stderr.contains("another fairlead dev runs in"),
        "{second:?}"
    );
}

#[test]
fn a_port_that_was_asked_for_is_not_exchanged_for_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let bench = Bench::new();
    let directory = bench.directory.to_str().unwrap();
    let arguments = ["dev", "--dir", directory, "--http", "0", "--https", &port];
    let finished = bench.environment.run(Program::Cli, &arguments);
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert!(
        finished.stderr.contains(&format!("port {port} cannot be used")),
        "{finished:?}"
    );
}

#[test]
fn why_tells_what_to_do_here_and_with_which_port() {
    let bench = Bench::new();
    let dev = bench.start();
    let line = dev.running.wait_for_output("+ https://hello.localhost:");
    let url = line.split(' ').nth(1).unwrap();
    let why = |name| bench.environment.run(Program::Cli, &bench.asking(&["why", name]));
    let finished = why("hello.localhost");
    assert!(
        finished.stdout.contains(&format!("{url} should answer")),
        "{finished:?}"
    );
    dev.running.signal(Signal::INT);
    dev.running.finish();
    bench.write_route("mine.toml", &route("mine.localhost", "http://127.0.0.1:1"));
    let finished = why("mine.localhost");
    assert!(
        finished.stdout.contains("Next: start fairlead dev."),
        "{finished:?}"
    );
}

#[test]
fn if_it_is_killed_its_programs_end_too() {
    let bench = Bench::new();
    let dev = bench.start();
    let proxies = children(&dev.paths);
    assert_eq!(proxies.len(), 1, "{proxies:?}");
    let pid = proxies[0].file_name().unwrap().to_str().unwrap().parse().unwrap();
    let proxy = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    dev.running.signal(Signal::KILL);
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let ended = poll(&mut [PollFd::new(&proxy, PollFlags::IN)], Some(&limit));
    assert_eq!(ended, Ok(1), "the proxy goes on");
}

#[test]
fn without_its_proxy_it_ends_with_an_error() {
    let bench = Bench::new();
    let dev = bench.start();
    let proxies = children(&dev.paths);
    assert_eq!(proxies.len(), 1, "{proxies:?}");
    let pid = proxies[0].file_name().unwrap().to_str().unwrap();
    let killed = Command::new("kill").args(["-KILL", pid]).status().unwrap();
    assert!(killed.success());
    let finished = dev.running.finish();
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert!(finished.stderr.contains("fairlead-proxy ended"), "{finished:?}");
}

#[test]
fn a_container_is_a_site_as_long_as_it_runs() {
    let docker = Docker::new();
    let bench = Bench::new();
    let dev = bench.start_beside(&docker.socket());
    docker.run("web", &["--label", "fairlead.hosts=app.localhost"]);
    let line = dev.running.wait_for_output("+ https://app.localhost:");
    assert!(line.ends_with("  web"), "{line}");
    dev.assert_page("app.localhost", "");

    docker.run(
        "wrong",
        &[
            "--label",
            "fairlead.hosts=b.localhost",
            "--label",
            "fairlead.port=70000",
        ],
    );
    let line = dev.running.wait_for_output("! container wrong: ");
    assert!(line.contains("70000"), "{line}");
    docker.remove("web");
    dev.running.wait_for_output("- https://app.localhost:");
    dev.running.signal(Signal::INT);
    assert_eq!(dev.running.finish().status.code(), Some(0));
    assert_eq!(
        children(&dev.paths),
        [""; 0].map(PathBuf::from),
        "a child is left"
    );
}

/// The script of the repository. Its cargo only notes what it is asked for; the programs are those of the tests.
#[test]
fn the_script_for_a_newcomer_builds_the_programs_and_starts_the_command() {
    let built = Program::Cli.path();
    let tools = tempfile::tempdir().unwrap();
    let cargo = "#!/bin/sh\necho \"asked for: $*\"\n";
    write_atomically(&tools.path().join("cargo"), cargo.as_bytes(), 0o755).unwrap();
    symlink(built.parent().unwrap(), tools.path().join("debug")).unwrap();
    let path = env::var("PATH").unwrap();
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dev"))
        .arg("--help")
        .env("PATH", format!("{}:{path}", tools.path().display()))
        .env("CARGO_TARGET_DIR", tools.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for program in ["fairlead", "fairlead-proxy", "fairlead-watcher", "fairlead-certs"] {
        assert!(said.split_whitespace().any(|word| word == program), "{said}");
    }
    assert!(said.contains("Usage: fairlead dev"), "{said}");
}
