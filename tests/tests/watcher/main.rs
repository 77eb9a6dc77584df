//! The watcher against a real dockerd, and against daemons that misbehave.

mod podman;
mod storm;

use std::fs;
use std::io::{Read, Write, pipe};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fairlead_contract::{Configuration, Files, Located, Rejection};
use fairlead_tests::{Authority, DEADLINE, Docker, Environment, Finished, Program, Proxy, Running};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

const HEALTHY: &str = "# Nothing yet.\n";
const PAUSED: &str = "app.test → web waits: it is paused: docker unpause lets it go on";

/// A dockerd and an installation that watches it.
struct Machine {
    docker: Docker,
    environment: Environment,
}

impl Machine {
    fn new() -> Self {
        Self::with(Docker::new())
    }

    fn with(docker: Docker) -> Self {
        let environment = Environment::new();
        environment.write_config(&docker.settings());
        Self { docker, environment }
    }

    /// A pass that must succeed.
    fn pass(&self) -> Finished {
        let finished = self.environment.run(Program::Watcher, &[]);
        assert!(finished.status.success(), "{}", finished.stderr);
        finished
    }

    fn follow(&self) -> Running {
        let follower = self.environment.spawn(Program::Watcher, &["--follow"]);
        follower.wait_for_notification("READY=1");
        follower
    }

    fn routes(&self) -> Vec<String> {
        routes(&self.environment)
    }

    fn rejections(&self) -> Vec<Rejection> {
        configuration(&self.environment).rejections
    }

    /// `host → url`, with the container's address as Docker's own command tells it.
    fn expected(&self, host: &str, containers: &[&str]) -> String {
        let mut urls: Vec<String> = containers
            .iter()
            .map(|name| format!("http://{}:80", self.docker.address(name)))
            .collect();
        urls.sort();
        format!("{host} → {}", urls.join(" "))
    }

    /// Runs a pass for each mark, as the path unit does, until the routes are as wanted.
    fn pass_until(&self, follower: &Running, marks: &mut usize, wanted: &[String]) {
        self.pass_and_reload_until(follower, marks, wanted, || {});
    }

    fn pass_and_reload_until(
        &self,
        follower: &Running,
        marks: &mut usize,
        wanted: &[String],
        reload: impl Fn(),
    ) {
        while self.routes() != wanted {
            *marks = follower.wait_for_output_lines(*marks + 1);
            self.pass();
            reload();
        }
    }

    /// Makes the containers' health checks, as [`HEALTH`] has them, pass or fail.
    fn set_healthy(&self, container: &str, healthy: bool) {
        let verb = if healthy { "touch" } else { "rm" };
        self.docker
            .docker(&["exec", container, "/bin/busybox", verb, "/healthy"]);
    }
}

fn configuration(environment: &Environment) -> Configuration {
    let configuration = Configuration::parse(&Files::read(environment.paths()));
    assert_eq!(configuration.problems, []);
    configuration
}

fn routes(environment: &Environment) -> Vec<String> {
    let shown = |located: &Located| {
        let hosts: Vec<String> = located.route.hosts.iter().map(ToString::to_string).collect();
        let upstreams = located.route.upstreams.iter();
        let urls = upstreams.map(|upstream| upstream.url.to_string());
        let waiting = located.route.waiting.iter();
        let waiting = waiting.map(|waiting| format!("{} waits: {}", waiting.container, waiting.reason));
        let all: Vec<String> = urls.chain(waiting).collect();
        format!("{} → {}", hosts.join(" "), all.join(" "))
    };
    configuration(environment).routes.iter().map(shown).collect()
}

fn discovery(environment: &Environment) -> Vec<u8> {
    fs::read(environment.paths().discovery_file()).expect("the routes file is there")
}

#[test]
fn a_container_has_its_route_from_start_to_stop_and_again_at_its_new_address() {
    let machine = Machine::new();
    let start = || machine.docker.run("web", &["--label", "fairlead.hosts=app.test"]);
    start();
    let finished = machine.pass();
    let first = machine.expected("app.test", &["web"]);
    assert_eq!(machine.routes(), [first.as_str()]);
    assert!(
        finished.stderr.contains(&format!("added {first}")),
        "{}",
        finished.stderr
    );

    machine.docker.docker(&["pause", "web"]);
    machine.pass();
    assert_eq!(machine.routes(), [PAUSED]);
    machine.docker.docker(&["unpause", "web"]);
    machine.pass();
    assert_eq!(machine.routes(), [first.as_str()]);

    machine.docker.docker(&["stop", "web"]);
    let finished = machine.pass();
    assert_eq!(machine.routes(), [""; 0]);
    assert!(
        finished.stderr.contains("removed app.test"),
        "{}",
        finished.stderr
    );

    machine.docker.remove("web");
    machine.docker.run("squatter", &[]);
    start();
    machine.pass();
    let second = machine.expected("app.test", &["web"]);
    assert_ne!(first, second);
    assert_eq!(machine.routes(), [second]);
}

/// A health check that passes as long as the file `/healthy` is there.
const HEALTH: [&str; 4] = [
    "--health-cmd=/bin/busybox test -f /healthy",
    "--health-interval=100ms",
    "--health-retries=1",
    "--label=fairlead.hosts=app.test",
];

#[test]
fn a_container_enters_when_it_is_healthy_and_waits_while_it_is_not() {
    let machine = Machine::new();
    let follower = machine.follow();
    let mut marks = 0;
    let mut until = |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        machine.pass_until(&follower, &mut marks, &wanted);
    };
    let set_healthy = |container, healthy| machine.set_healthy(container, healthy);
    let patient = [&HEALTH[..], &["--health-start-period=1h"]].concat();
    machine.docker.run("old", &patient);
    until(&["app.test → old waits: its health check has not passed yet"]);
    set_healthy("old", true);
    let old = machine.expected("app.test", &["old"]);
    until(&[&old]);

    machine.docker.run("new", &patient);
    until(&[&format!("{old} new waits: its health check has not passed yet")]);
    set_healthy("new", true);
    until(&[&machine.expected("app.test", &["old", "new"])]);
    machine.docker.docker(&["stop", "old"]);
    let new = machine.expected("app.test", &["new"]);
    until(&[&new]);

    set_healthy("new", false);
    until(&["app.test → new waits: its health check fails: see docker inspect"]);
    set_healthy("new", true);
    until(&[&new]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_under_load_loses_no_request() {
    let machine = Machine::new();
    let authority = Authority::new();
    machine
        .environment
        .store("app.test", &authority.issue(&["app.test"]));
    let proxy = Arc::new(Proxy::start(&machine.environment));
    let follower = machine.follow();
    let mut marks = 0;
    let mut until = |containers: &[&str]| {
        let wanted = [machine.expected("app.test", containers)];
        machine.pass_and_reload_until(&follower, &mut marks, &wanted, || {
            proxy.reload();
        });
    };
    let patient = [&HEALTH[..], &["--health-start-period=1h"]].concat();
    machine.docker.run("old", &patient);
    machine.set_healthy("old", true);
    until(&["old"]);

    let is_over = Arc::new(AtomicBool::new(false));
    let (answered, mut answers) = unbounded_channel();
    let client = authority.client();
    // Some are always on their way to each upstream.
    let slow = "https://app.test/cgi-bin/slow";
    let urls = ["https://app.test/", slow, slow, slow, slow];
    let load: Vec<_> = (urls.into_iter().enumerate())
        .map(|(sender, url)| {
            let (client, proxy) = (client.clone(), proxy.clone());
            let (is_over, answered) = (is_over.clone(), answered.clone());
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(client.get(&proxy, url).await.status(), 200, "{url}");
                    answered.send(sender).expect("somebody counts");
                }
            })
        })
        .collect();
    // So many that each upstream is asked, also one that does not answer any more; and of each sender
    // two, for the first may have left before the call, by the routes of then.
    let mut some_are_answered = async || {
        while answers.try_recv().is_ok() {}
        let mut counts = urls.map(|_| 0);
        let enough = async {
            while counts.iter().sum::<u32>() < 50 || counts.iter().any(|count| *count < 2) {
                counts[answers.recv().await.expect("somebody asks")] += 1;
            }
        };
        timeout(DEADLINE, enough)
            .await
            .expect("every sender is answered with 200");
    };
    some_are_answered().await;
    machine.docker.run("new", &patient);
    machine.set_healthy("new", true);
    until(&["old", "new"]);
    some_are_answered().await;
    machine.docker.docker(&["stop", "old"]);
    some_are_answered().await;
    until(&["new"]);
    some_are_answered().await;
    is_over.store(true, Ordering::Relaxed);
    for requests in load {
        requests.await.expect("every request was answered with 200");
    }
}

#[test]
fn a_container_that_ends_again_and_again_keeps_its_route() {
    let machine = Machine::new();
    let options = [
        "--restart=always",
        "--label=fairlead.hosts=app.test",
        "--entrypoint=/bin/busybox",
    ];
    let follower = machine.follow();
    machine.docker.run_command("web", &options, &["false"]);
    let waiting = "app.test → web waits: it ended and is about to be started again: see docker logs";
    machine.pass_until(&follower, &mut 0, &[waiting.to_owned()]);
}

#[test]
fn replicas_are_one_route_and_a_wrong_label_harms_nobody_else() {
    let machine = Machine::new();
    let hosts = ["--label", "fairlead.hosts=app.test"];
    machine.docker.run("one", &hosts);
    machine.docker.run("two", &hosts);
    machine
        .docker
        .run("dotege", &["--label", "com.chameth.vhost=old.test"]);
    machine.docker.run(
        "wrong",
        &[
            "--label",
            "fairlead.hosts=wrong.test",
            "--label",
            "fairlead.prot=80",
        ],
    );
    machine
        .docker
        .run("evil", &["--label", "fairlead.hosts=a.test\n[[route]]"]);
    machine.docker.run("unlabelled", &[]);
    let finished = machine.pass();
    assert_eq!(
        machine.routes(),
        [
            machine.expected("app.test", &["one", "two"]),
            machine.expected("old.test", &["dotege"]),
        ]
    );
    let rejected: Vec<String> = machine
        .rejections()
        .iter()
        .map(|rejection| format!("{}: {}", rejection.container, rejection.reason))
        .collect();
    let expected = [
        r#"evil: the label "fairlead.hosts" = "a.test\n[[route]]" holds a line break or another control character: take it out"#,
        r#"wrong: "fairlead.prot" is not a label of fairlead: did you mean fairlead.port?"#,
    ];
    assert_eq!(rejected, expected);
    assert!(
        finished.stderr.contains("left out container wrong"),
        "{}",
        finished.stderr
    );
}

#[test]
fn networks_decide_the_address_and_several_need_a_choice() {
    let machine = Machine::new();
    machine.docker.create_network("other");
    let run = |name: &str, options: &[&str]| {
        let label = format!("fairlead.hosts={name}.test");
        machine
            .docker
            .run(name, &[&["--label", label.as_str()], options].concat());
    };
    run("both", &[]);
    run("chosen", &["--label", "fairlead.network=other"]);
    run("host", &["--network=host", "--label", "fairlead.port=8080"]);
    run("none", &["--network=none"]);
    machine.docker.run_command(
        "guest",
        &[
            "--network=container:chosen",
            "--label=fairlead.hosts=guest.test",
            "--label=fairlead.port=81",
            "--label=fairlead.network=other",
        ],
        &["/bin/busybox", "httpd", "-f", "-p", "81"],
    );
    machine.docker.run_command(
        "guest-of-guest",
        &[
            "--network=container:guest",
            "--label=fairlead.hosts=third.test",
            "--label=fairlead.port=82",
            "--label=fairlead.network=other",
        ],
        &["/bin/busybox", "httpd", "-f", "-p", "82"],
    );
    for name in ["both", "chosen"] {
        machine.docker.docker(&["network", "connect", "other", name]);
    }
    machine.pass();
    let format = "{{.NetworkSettings.Networks.other.IPAddress}}";
    let chosen = machine.docker.docker(&["inspect", "--format", format, "chosen"]);
    assert_eq!(
        machine.routes(),
        [
            format!("chosen.test → http://{chosen}:80"),
            format!("guest.test → http://{chosen}:81"),
            "host.test → http://127.0.0.1:8080".to_owned(),
            format!("third.test → http://{chosen}:82"),
        ]
    );
    let reasons: Vec<String> = machine
        .rejections()
        .into_iter()
        .map(|rejection| rejection.reason)
        .collect();
    assert_eq!(reasons.len(), 2);
    assert!(
        reasons[0].starts_with(r#"it is in the networks "fairlead-test", "other": choose one"#),
        "{reasons:?}"
    );
    assert_eq!(reasons[1], "it is in no network: connect it to one");

    machine
        .environment
        .write_config(&format!("{}network = \"other\"\n", machine.docker.settings()));
    machine.pass();
    assert!(machine.routes()[0].starts_with("both.test → "));
}

#[test]
fn who_is_in_the_network_of_another_waits_while_that_one_is_stopped() {
    let machine = Machine::new();
    let follower = machine.follow();
    let mut marks = 0;
    machine.docker.run("vpn", &[]);
    machine.docker.run_command(
        "guest",
        &[
            "--network=container:vpn",
            "--label=fairlead.hosts=guest.test",
            "--label=fairlead.port=81",
        ],
        &["/bin/busybox", "httpd", "-f", "-p", "81"],
    );
    let reached = || format!("guest.test → http://{}:81", machine.docker.address("vpn"));
    machine.pass_until(&follower, &mut marks, &[reached()]);
    machine.docker.docker(&["stop", "vpn"]);
    let id = machine.docker.docker(&["inspect", "--format", "{{.Id}}", "vpn"]);
    let waiting = format!(
        "guest.test → guest waits: it uses the network of the container {id:?}, which does not run: start that one"
    );
    machine.pass_until(&follower, &mut marks, &[waiting]);
    machine.docker.docker(&["start", "vpn"]);
    machine.pass_until(&follower, &mut marks, &[reached()]);
}

#[test]
fn a_restart_gives_the_host_to_no_stranger_who_waits_for_it() {
    let machine = Machine::new();
    let follower = machine.follow();
    let mut marks = 0;
    let host = "--label=fairlead.hosts=app.test";
    machine.docker.run("owner", &[host]);
    let owned = || [machine.expected("app.test", &["owner"])];
    machine.pass_until(&follower, &mut marks, &owned());
    let project = "--label=com.docker.compose.project=other";
    let service = "--label=com.docker.compose.service=web";
    machine.docker.run("stranger", &[host, project, service]);
    machine.docker.docker(&["stop", "owner"]);
    machine.pass_until(&follower, &mut marks, &[]);
    let reason = &machine.rejections()[0].reason;
    assert!(
        reason.starts_with("app.test is kept for the container owner, which left, until "),
        "{reason}"
    );
    machine.docker.docker(&["start", "owner"]);
    machine.pass_until(&follower, &mut marks, &owned());
}

#[test]
fn a_container_is_reached_at_its_published_port_where_the_operator_says_so() {
    let machine = Machine::new();
    let (docker, environment) = (&machine.docker, &machine.environment);
    environment.write_config(&format!("{}published-ports = true\n", docker.settings()));
    let host = |name| format!("--label=fairlead.hosts={name}.test");
    docker.run("open", &[&host("open"), "--publish=127.0.0.1::80"]);
    docker.run("shut", &[&host("shut")]);
    machine.pass();
    let published = docker.docker(&["port", "open", "80/tcp"]);
    assert_eq!(
        machine.routes(),
        [format!("open.test → http://{}", published.trim())]
    );
    assert_eq!(machine.rejections()[0].container, "shut");
    assert!(TcpStream::connect(published.trim()).is_ok(), "{published}");
}

#[test]
fn a_daemon_without_root_is_followed_and_its_containers_reached_at_their_published_ports() {
    let machine = Machine::with(Docker::rootless());
    let (docker, environment) = (&machine.docker, &machine.environment);
    environment.write_config(&format!("{}published-ports = true\n", docker.settings()));
    let follower = machine.follow();
    let mut marks = 0;
    let host = |name| format!("--label=fairlead.hosts={name}.test");
    docker.run("shut", &[&host("shut")]);
    for address in ["127.0.0.1", "0.0.0.0"] {
        docker.run("open", &[&host("open"), &format!("--publish={address}::80")]);
        let published = docker.docker(&["port", "open", "80/tcp"]);
        let published = published.lines().next().expect("a port is published");
        let reached = published.replace("0.0.0.0", "127.0.0.1");
        machine.pass_until(&follower, &mut marks, &[format!("open.test → http://{reached}")]);
        assert_eq!(machine.rejections()[0].container, "shut");
        let mut stream = TcpStream::connect(&reached).expect("the port is published");
        stream
            .write_all(b"GET / HTTP/1.0\r\n\r\n")
            .expect("the container listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the container answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        docker.remove("open");
        machine.pass_until(&follower, &mut marks, &[]);
    }
}

#[test]
fn the_operators_routes_keep_their_hosts() {
    let machine = Machine::new();
    machine.environment.write_routes(
        "mine.toml",
        "[[route]]\nhosts = [\"mine.test\"]\nupstreams = [\"http://127.0.0.1:9\"]\n",
    );
    machine
        .docker
        .run("web", &["--label", "fairlead.hosts=mine.test web.test"]);
    machine.pass();
    assert_eq!(
        machine.routes(),
        [
            "mine.test → http://127.0.0.1:9".to_owned(),
            machine.expected("web.test", &["web"]),
        ]
    );
    let reason = &machine.rejections()[0].reason;
    assert!(reason.contains("mine.toml:1"), "{reason}");
}

#[test]
fn labels_of_an_image_count_only_where_the_operator_says_so() {
    let machine = Machine::new();
    let docker = &machine.docker;
    docker.run("base", &[]);
    docker.docker(&[
        "commit",
        "--change",
        "LABEL fairlead.hosts=image.test",
        "base",
        "labelled",
    ]);
    let run = |name, options: &[&str]| {
        let always = ["run", "--detach", "--name", name, "--network=fairlead-test"];
        docker.docker(&[&always, options, &["labelled"]].concat());
    };
    run("silent", &[]);
    run("spoken", &["--label=fairlead.hosts=said.test"]);
    machine.pass();
    let said = machine.expected("said.test", &["spoken"]);
    assert_eq!(machine.routes(), [said.as_str()]);
    let rejections = machine.rejections();
    assert_eq!(rejections.len(), 1);
    assert_eq!(rejections[0].container, "silent");
    assert_eq!(rejections[0].hosts[0].to_string(), "image.test");
    assert!(
        rejections[0].reason.contains("image-labels = true"),
        "{rejections:?}"
    );

    machine
        .environment
        .write_config(&format!("{}image-labels = true\n", docker.settings()));
    machine.pass();
    let image = machine.expected("image.test", &["silent"]);
    assert_eq!(machine.routes(), [image, said]);
}

#[test]
fn a_service_whose_image_compose_built_itself_is_that_service() {
    let machine = Machine::new();
    let docker = &machine.docker;
    docker.run("base", &[]);
    let of_service = [
        "com.docker.compose.project=shop",
        "com.docker.compose.service=web",
    ];
    let [project, service] = of_service.map(|label| format!("LABEL {label}"));
    docker.docker(&[
        "commit", "--change", &project, "--change", &service, "base", "shop-web",
    ]);
    let run = |name, labels: &[&str]| {
        let always = ["run", "--detach", "--name", name, "--network=fairlead-test"];
        let labels: Vec<String> = labels.iter().map(|label| format!("--label={label}")).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        docker.docker(&[&always, labels.as_slice(), &["shop-web"]].concat());
    };
    let host = "fairlead.hosts=app.test";
    let by_compose = [
        of_service[0],
        of_service[1],
        "com.docker.compose.oneoff=False",
        host,
    ];
    run("shop-web-1", &by_compose);
    run("shop-web-2", &by_compose);
    machine.pass();
    run("by-hand", &[host]);
    machine.pass();
    let replicas = ["shop-web-1", "shop-web-2"];
    assert_eq!(machine.routes(), [machine.expected("app.test", &replicas)]);
    assert_eq!(machine.rejections()[0].container, "by-hand");

    machine.environment.write_config(&format!(
        "{}[[docker.allow]]\nhosts = [\"app.test\"]\nproject = \"shop\"\n",
        docker.settings()
    ));
    machine.pass();
    assert_eq!(machine.routes(), [machine.expected("app.test", &replicas)]);
    let reason = &machine.rejections()[0].reason;
    assert!(reason.starts_with("no [[docker.allow]]"), "{reason}");
}

#[test]
fn a_newer_image_of_the_same_name_takes_no_host_from_who_runs_the_older_one() {
    let machine = Machine::new();
    let docker = &machine.docker;
    machine.environment.write_config(&format!(
        "{}[[docker.allow]]\nhosts = [\"app.test\"]\nimage = \"fairlead-test\"\n",
        docker.settings()
    ));
    docker.run("web", &["--label=fairlead.hosts=app.test"]);
    machine.pass();
    let route = machine.expected("app.test", &["web"]);
    assert_eq!(machine.routes(), [route.as_str()]);
    docker.docker(&["commit", "--change", "LABEL newer=yes", "web", "fairlead-test"]);
    let listed = docker.docker(&["ps", "--format", "{{.Image}}"]);
    assert!(!listed.contains("fairlead-test"), "{listed}");
    machine.pass();
    assert_eq!(machine.routes(), [route]);
}

#[test]
fn a_container_that_docker_failed_to_remove_has_no_route() {
    let machine = Machine::new();
    machine.docker.run("web", &["--label=fairlead.hosts=app.test"]);
    machine.pass();
    assert_eq!(machine.routes().len(), 1);
    assert_eq!(machine.docker.fail_to_remove("web"), "dead");
    machine.pass();
    assert_eq!(machine.routes(), [""; 0]);
}

#[test]
fn containers_that_outlive_the_daemon_keep_their_routes() {
    let mut machine = Machine::new();
    machine.docker.keep_containers_alive();
    machine.docker.run("web", &["--label=fairlead.hosts=app.test"]);
    machine.pass();
    let before = discovery(&machine.environment);
    let address = (machine.docker.address("web"), 80);
    machine.docker.stop_daemon();
    let pass = machine.environment.run(Program::Watcher, &[]);
    assert!(!pass.status.success(), "{}", pass.stderr);
    assert_eq!(discovery(&machine.environment), before);
    let connect = |(ip, port): &(String, u16)| TcpStream::connect((ip.as_str(), *port));
    connect(&address).expect("the container runs on");
    machine.docker.start_daemon();
    machine.pass();
    assert_eq!(discovery(&machine.environment), before);
    connect(&address).expect("the container runs on");
}

#[test]
fn a_host_is_only_for_whom_the_operator_lets_have_it() {
    let machine = Machine::new();
    machine.environment.write_config(&format!(
        "{}[[docker.allow]]\nhosts = [\"*.shop.test\"]\nproject = \"shop\"\n",
        machine.docker.settings()
    ));
    let project = "--label=com.docker.compose.project=shop";
    machine
        .docker
        .run("mine", &[project, "--label=fairlead.hosts=www.shop.test"]);
    machine
        .docker
        .run("thief", &["--label=fairlead.hosts=pay.shop.test"]);
    machine
        .docker
        .run("greedy", &[project, "--label=fairlead.hosts=bank.test"]);
    machine.pass();
    assert_eq!(machine.routes(), [machine.expected("www.shop.test", &["mine"])]);
    let reasons: Vec<String> = machine
        .rejections()
        .into_iter()
        .map(|rejection| format!("{}: {}", rejection.container, rejection.reason))
        .collect();
    assert_eq!(reasons.len(), 2);
    for (reason, expected) in reasons
        .iter()
        .zip(["greedy: no [[docker.allow]]", "thief: no [[docker.allow]]"])
    {
        assert!(reason.starts_with(expected), "{reason}");
    }
}

#[test]
fn a_pass_takes_the_mark_away_and_writes_only_what_changed() {
    let machine = Machine::new();
    machine.docker.run("web", &["--label", "fairlead.hosts=app.test"]);
    let mark = machine.environment.paths().watcher_dirty_file();
    fs::File::create(&mark).unwrap();
    machine.pass();
    assert!(!mark.exists());
    let file = machine.environment.paths().discovery_file();
    let written = fs::metadata(&file).unwrap();
    assert_eq!(written.mode() & 0o7777, 0o640);
    machine.pass();
    assert_eq!(fs::metadata(&file).unwrap().ino(), written.ino());
}

#[test]
fn without_a_daemon_the_routes_stay_and_the_pass_fails() {
    let mut machine = Machine::new();
    machine.docker.run("web", &["--label", "fairlead.hosts=app.test"]);
    machine.pass();
    let before = discovery(&machine.environment);
    machine.docker.stop_daemon();
    let finished = machine.environment.run(Program::Watcher, &[]);
    assert!(!finished.status.success());
    let socket = machine.docker.socket().display().to_string();
    for part in ["cannot reach Docker at", &socket, "is it running"] {
        assert!(finished.stderr.contains(part), "{}", finished.stderr);
    }
    assert_eq!(discovery(&machine.environment), before);
}

#[test]
fn the_follower_marks_every_change_also_after_the_daemon_was_restarted() {
    let mut machine = Machine::new();
    let follower = machine.follow();
    let mut marks = follower.wait_for_output_lines(1);
    assert!(machine.environment.paths().watcher_dirty_file().exists());

    let label = ["--restart", "always", "--label", "fairlead.hosts=app.test"];
    machine.docker.run("web", &label);
    let route = machine.expected("app.test", &["web"]);
    machine.pass_until(&follower, &mut marks, std::slice::from_ref(&route));
    machine.docker.docker(&["pause", "web"]);
    machine.pass_until(&follower, &mut marks, &[PAUSED.to_owned()]);
    machine.docker.docker(&["unpause", "web"]);
    machine.pass_until(&follower, &mut marks, &[route]);
    machine
        .docker
        .docker(&["network", "disconnect", "fairlead-test", "web"]);
    machine.pass_until(&follower, &mut marks, &[]);
    machine
        .docker
        .docker(&["network", "connect", "fairlead-test", "web"]);
    let route = machine.expected("app.test", &["web"]);
    machine.pass_until(&follower, &mut marks, &[route]);
    machine.docker.docker(&["stop", "web"]);
    machine.pass_until(&follower, &mut marks, &[]);

    machine.docker.stop_daemon();
    follower.wait_for_log("trying again in");
    machine.docker.start_daemon();
    machine.docker.docker(&["start", "web"]);
    let route = machine.expected("app.test", &["web"]);
    machine.pass_until(&follower, &mut marks, &[route]);
}

#[test]
fn what_happens_inside_a_container_is_not_marked() {
    let machine = Machine::new();
    machine.docker.run("web", &[]);
    let follower = machine.follow();
    let marks = follower.wait_for_output_lines(1);
    for _ in 0..5 {
        machine.docker.docker(&["exec", "web", "/bin/busybox", "true"]);
    }
    machine.docker.docker(&["rename", "web", "renamed"]);
    assert_eq!(follower.wait_for_output_lines(marks + 1), marks + 1);
}

#[test]
fn a_container_that_compose_makes_anew_under_another_name_has_its_route_again() {
    let machine = Machine::new();
    let follower = machine.follow();
    let mut marks = 0;
    let options = [
        "--label=fairlead.hosts=app.test",
        "--label=com.docker.compose.project=shop",
        "--label=com.docker.compose.service=web",
    ];
    machine.docker.run("shop-web-1", &options);
    let before = machine.expected("app.test", &["shop-web-1"]);
    machine.pass_until(&follower, &mut marks, &[before]);

    let temporary = "0123456789ab_shop-web-1";
    machine.docker.run(temporary, &options);
    let both = machine.expected("app.test", &["shop-web-1", temporary]);
    machine.pass_until(&follower, &mut marks, &[both]);
    machine.docker.remove("shop-web-1");
    machine.docker.docker(&["rename", temporary, "shop-web-1"]);
    let after = machine.expected("app.test", &["shop-web-1"]);
    machine.pass_until(&follower, &mut marks, &[after]);
    let named = || {
        let routes = configuration(&machine.environment).routes;
        let names: Vec<String> = routes[0].route.containers().map(str::to_owned).collect();
        names == ["shop-web-1"]
    };
    while !named() {
        marks = follower.wait_for_output_lines(marks + 1);
        machine.pass();
    }
}

#[test]
fn the_follower_waits_for_a_daemon_that_is_not_there_yet() {
    let mut machine = Machine::new();
    machine.docker.stop_daemon();
    let follower = machine.follow();
    follower.wait_for_log("trying again in");
    machine.docker.start_daemon();
    follower.wait_for_output_lines(1);
}

#[test]
fn the_follower_ends_when_nobody_reads_its_marks() {
    let machine = Machine::new();
    let (reader, writer) = pipe().expect("a pipe can be made");
    drop(reader);
    let mut command = watcher_under(&machine.environment, "timeout", &["30"]);
    let output = command
        .arg("--follow")
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn();
    let output = output
        .and_then(Child::wait_with_output)
        .expect("timeout can be run");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("nobody reads the marks any more"), "{log}");
}

/// The watcher as another program's argument, after `arguments`.
fn watcher_under(environment: &Environment, program: &str, arguments: &[&str]) -> Command {
    let watcher = environment.command(Program::Watcher);
    let mut command = Command::new(program);
    command.args(arguments).arg(watcher.get_program());
    for (variable, value) in watcher.get_envs() {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    command
}

/// Answers each connection with the same words, or with none and an open connection.
fn answering(environment: &Environment, answer: Option<&str>) {
    let answer = answer.map(str::to_owned);
    let socket = environment.root().join("docker.sock");
    let listener = UnixListener::bind(&socket).expect("the directory is empty");
    environment.write_config(&format!("[docker]\nsocket = {socket:?}\nimage-labels = true\n"));
    thread::spawn(move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().flatten() {
            match &answer {
                None => silent.push(stream),
                Some(answer) => {
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = stream.write_all(answer.as_bytes());
                }
            }
        }
    });
}

#[test]
fn an_answer_that_is_no_list_of_containers_changes_nothing() {
    for (answer, expected) in [
        (
            Some("HTTP/1.1 500 Oh\r\nContent-Length: 18\r\n\r\n{\"message\":\"full\"}"),
            "status code 500: full",
        ),
        (
            Some("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
            "gave no answer that can be used",
        ),
        (
            Some("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n[]"),
            "gave no answer that can be used",
        ),
        (
            Some("HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n[{\"State\":\"odd\"  }]"),
            "gave no answer that can be used",
        ),
        (Some("SSH-2.0-OpenSSH\r\n"), "gave no answer that can be used"),
        (None, "did not answer within 10s"),
    ] {
        let environment = Environment::new();
        environment.write_discovery(HEALTHY);
        answering(&environment, answer);
        let finished = environment.run(Program::Watcher, &[]);
        assert!(!finished.status.success(), "{answer:?}");
        assert!(
            finished.stderr.contains(expected),
            "{answer:?}: {}",
            finished.stderr
        );
        assert_eq!(discovery(&environment), HEALTHY.as_bytes(), "{answer:?}");
    }
}

#[test]
fn a_thousand_containers_are_a_thousand_routes() {
    let container = |number: usize| {
        format!(
            r#"{{"Id":"{number:064}","Names":["/web-{number}"],"Created":{number},"State":"running",
                "Status":"Up 2 hours","Ports":[{{"PrivatePort":80,"Type":"tcp"}}],
                "Labels":{{"fairlead.hosts":"site-{number}.test"}},"HostConfig":{{"NetworkMode":"web"}},
                "NetworkSettings":{{"Networks":{{"web":{{"IPAddress":"10.0.{}.{}"}}}}}}}}"#,
            number / 250,
            number % 250 + 1
        )
    };
    let containers: Vec<String> = (0..1000).map(container).collect();
    let body = format!("[{}]", containers.join(","));
    let environment = Environment::new();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    answering(&environment, Some(&(head + &body)));
    let finished = environment.run(Program::Watcher, &[]);
    assert!(finished.status.success(), "{}", finished.stderr);
    let routes = routes(&environment);
    assert_eq!(routes.len(), 1000);
    assert!(routes.contains(&"site-999.test → http://10.0.3.250:80".to_owned()));
    assert_eq!(configuration(&environment).rejections, []);
}

#[test]
fn faulty_settings_change_nothing() {
    let environment = Environment::new();
    environment.write_discovery(HEALTHY);
    environment.write_config("[docker]\nsokcet = \"/run/docker.sock\"\n");
    let finished = environment.run(Program::Watcher, &[]);
    assert!(!finished.status.success());
    assert!(
        finished
            .stderr
            .contains("fairlead.toml:2:1: unknown field `sokcet`"),
        "{}",
        finished.stderr
    );
    assert_eq!(discovery(&environment), HEALTHY.as_bytes());
}

/// In a mount namespace of its own, so that the mount goes with the command.
const ON_A_FULL_DISK: &str = r#"
mount -t tmpfs -o size=64k tmpfs "$2" || exit 99
printf '# Nothing yet.\n' > "$2/docker.toml"
head -c 1M /dev/zero > "$2/filler" 2> /dev/null
"#;
const ON_A_FILE_MOUNTED_BY_ITSELF: &str = r#"
printf '# Nothing yet.\n' > "$2/docker.toml"
mount --bind "$2/docker.toml" "$2/docker.toml" || exit 99
"#;
const PASS_AND_SHOW: &str = r#"
"$1"
code=$?
cat "$2/docker.toml"
ls -A "$2"
exit $code
"#;

#[test]
fn a_file_that_cannot_be_replaced_is_an_error_and_stays() {
    for (place, reason, entries) in [
        (ON_A_FULL_DISK, "No space left on device", "docker.toml\nfiller\n"),
        (
            ON_A_FILE_MOUNTED_BY_ITSELF,
            "Device or resource busy",
            "docker.toml\n",
        ),
    ] {
        let environment = Environment::new();
        answering(
            &environment,
            Some("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
        );
        let routes = environment.paths().state.join("routes");
        let script = format!("{place}{PASS_AND_SHOW}");
        let mut command = watcher_under(&environment, "unshare", &["--mount", "sh", "-c", &script, "sh"]);
        command.arg(routes);
        let finished = environment.start(command).finish();
        assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
        for part in ["cannot write", "docker.toml", reason] {
            assert!(finished.stderr.contains(part), "{}", finished.stderr);
        }
        assert_eq!(finished.stdout, format!("{HEALTHY}{entries}"));
    }
}
