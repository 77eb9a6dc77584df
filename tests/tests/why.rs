//! What people ask when a site does not answer: `fairlead why` names the cause.

use fairlead_contract::{Configuration, Files, write_atomically};
use fairlead_tests::{DockerApi, Environment, Program, Proxy, Site, listed, route};
use serde_json::{Value, json};

const SETTINGS: &str = r#"
[[docker.allow]]
hosts = ["*.test"]
network = "web"

[[docker.allow]]
hosts = ["*.shop.test"]
project = "shop"

[[docker.allow]]
hosts = ["host-network.test"]
container = "host-network"
"#;

/// What is asked, how the command ends, and what the answer must hold.
type Case = (&'static str, i32, &'static [&'static str]);

const CASES: [Case; 23] = [
    // Nothing is wrong.
    (
        "app.test",
        0,
        &[
            "container app",
            "http://10.0.0.",
            "https://app.test/ should answer",
        ],
    ),
    // Any container can claim any name, and images bring labels of their own.
    (
        "pay.shop.test",
        1,
        &["no [[docker.allow]]", "lets it have pay.shop.test"],
    ),
    (
        "image.test",
        1,
        &[
            "container from-image",
            "came with its image",
            "image-labels = true",
        ],
    ),
    // Two containers claim one name.
    (
        "shared.test",
        0,
        &["container owner", "container thief was left out", "should answer"],
    ),
    (
        "thief",
        1,
        &["asked for", "shared.test belongs to the container owner"],
    ),
    (
        "squatter",
        1,
        &["mine.test is routed by the operator at", "mine.test.toml:1"],
    ),
    (
        "kept.test",
        1,
        &["container heir", "kept.test is kept for the container leaver"],
    ),
    // One badly labelled container.
    ("typo.test", 1, &["container typo", "did you mean fairlead.port?"]),
    ("injection", 1, &[r"a.test\n[[route]]", "holds a line break"]),
    ("bad-port", 1, &["70000"]),
    // It is read before its network is attached.
    (
        "late.test",
        1,
        &[
            "container late waits",
            r#"no address in the network "web" yet"#,
            "503",
        ],
    ),
    // It is starting or unhealthy, and there is no reason anywhere.
    (
        "starting.test",
        1,
        &["its health check has not passed yet", "answered with 503"],
    ),
    (
        "unhealthy.test",
        1,
        &["its health check fails: see docker inspect", "answered with 503"],
    ),
    ("paused.test", 1, &["docker unpause lets it go on"]),
    ("restarting.test", 1, &["see docker logs"]),
    (
        "next",
        0,
        &[
            "its health check has not passed yet",
            "https://app.test/ should answer",
        ],
    ),
    // It is in several networks, or shows several ports.
    (
        "networks.test",
        1,
        &[
            r#"it is in the networks "db", "web": choose one"#,
            "fairlead.network",
        ],
    ),
    (
        "ports.test",
        1,
        &["it exposes the TCP ports 80, 81: choose one with the label fairlead.port"],
    ),
    (
        "host-network",
        1,
        &["in the network of the host", "set the label fairlead.port"],
    ),
    // A certificate is not there, and the order is not tried again.
    ("uncertified.test", 1, &["accept-terms = true"]),
    // A certificate cannot be used.
    ("damaged.test", 1, &["the proxy cannot use it", "key.pem"]),
    // A change does nothing.
    ("edited.test", 1, &["edited.toml is new", "fairlead reload"]),
    // Nobody declared it, so nobody else's site answers.
    (
        "nobody.example",
        1,
        &[
            "no file or running container declares it",
            "fairlead.hosts=nobody.example",
        ],
    ),
];

fn with(mut container: Value, changes: &[(&str, Value)]) -> Value {
    for (key, value) in changes {
        container[*key] = value.clone();
    }
    container
}

fn container(name: &str, host: &str, changes: &[(&str, Value)]) -> Value {
    with(listed(name, &[("fairlead.hosts", host)]), changes)
}

fn status(words: &str) -> [(&'static str, Value); 1] {
    [("Status", json!(words))]
}

fn containers() -> Vec<Value> {
    let service = "com.docker.compose.service";
    let networks = json!({ "Networks": {
        "db": { "IPAddress": "10.1.0.2" }, "web": { "IPAddress": "10.0.0.2" },
    } });
    let no_address = json!({ "Networks": { "web": { "IPAddress": "" } } });
    let ports = json!([{ "PrivatePort": 80, "Type": "tcp" }, { "PrivatePort": 81, "Type": "tcp" }]);
    let of_host = json!({ "NetworkMode": "host" });
    vec![
        container("app", "app.test", &[]),
        container("next", "app.test", &status("Up 1 second (health: starting)")),
        container("shop", "pay.shop.test", &[]),
        container("from-image", "image.test", &[("ImageID", json!("sha256:11"))]),
        listed("owner", &[("fairlead.hosts", "shared.test"), (service, "a")]),
        with(
            listed("thief", &[("fairlead.hosts", "shared.test"), (service, "b")]),
            &[("Created", json!(2))],
        ),
        listed("heir", &[("fairlead.hosts", "kept.test"), (service, "b")]),
        container("squatter", "mine.test", &[]),
        listed(
            "typo",
            &[("fairlead.hosts", "typo.test"), ("fairlead.prot", "80")],
        ),
        container("injection", "a.test\n[[route]]", &[]),
        listed(
            "bad-port",
            &[("fairlead.hosts", "bad-port.test"), ("fairlead.port", "70000")],
        ),
        container("late", "late.test", &[("NetworkSettings", no_address)]),
        container(
            "starting",
            "starting.test",
            &status("Up 1 second (health: starting)"),
        ),
        container("unhealthy", "unhealthy.test", &status("Up 2 hours (unhealthy)")),
        container("paused", "paused.test", &[("State", json!("paused"))]),
        container("restarting", "restarting.test", &[("State", json!("restarting"))]),
        container("networks", "networks.test", &[("NetworkSettings", networks)]),
        container("ports", "ports.test", &[("Ports", ports)]),
        container("host-network", "host-network.test", &[("HostConfig", of_host)]),
        container("uncertified", "uncertified.test", &[]),
        container("damaged", "damaged.test", &[]),
    ]
}

fn why(environment: &Environment, name: &str, code: i32, words: &[&str]) {
    let finished = environment.run(Program::Cli, &["why", name]);
    assert_eq!(finished.status.code(), Some(code), "{name}: {finished:?}");
    for word in words {
        assert!(
            finished.stdout.contains(word),
            "{name}: {word:?} is not in\n{}",
            finished.stdout
        );
    }
}

#[test]
fn the_cause_is_named_for_each_thing_that_people_ask() {
    let site = Site::new();
    let environment = &site.environment;
    let api = DockerApi::new(environment);
    environment.write_config(&(api.settings() + SETTINGS));
    api.add_image("sha256:00", json!({}));
    api.add_image("sha256:11", json!({ "fairlead.hosts": "image.test" }));
    api.set_containers(vec![container("leaver", "kept.test", &[])]);
    assert!(environment.run(Program::Watcher, &[]).status.success());
    api.set_containers(containers());
    let upstream = "127.0.0.1:1".parse().unwrap();
    environment.write_routes("mine.test.toml", &route(&["mine.test"], &[upstream]));
    for host in ["app.test", "shared.test", "damaged.test"] {
        site.certify(&[host]);
    }
    let pass = environment.run(Program::Watcher, &[]);
    assert!(pass.status.success(), "{}", pass.stderr);
    environment.failing_pass();
    let damaged = environment.certificate("damaged.test").key_file();
    write_atomically(&damaged, b"no key", 0o640).unwrap();
    let proxy = Proxy::start(environment);
    let left_out = Configuration::parse(&Files::read(environment.paths()))
        .rejections
        .len();
    let metric = format!("\nfairlead_containers_left_out {left_out}\n");
    assert!(left_out > 5 && proxy.metrics().contains(&metric), "{left_out}");
    environment.write_routes("edited.toml", &route(&["edited.test"], &[upstream]));

    for (name, code, words) in CASES {
        why(environment, name, code, words);
    }
}

#[test]
fn that_the_watcher_has_not_looked_yet_is_no_answer_about_containers() {
    let site = Site::new();
    let _proxy = site.start();
    let words = ["the watcher has not written", "systemctl status fairlead-watcher"];
    why(&site.environment, "app.test", 1, &words);
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_the_cause() {
    let site = Site::of("app.test", "127.0.0.1:1".parse().unwrap());
    let proxy = site.start();
    why(&site.environment, "app.test", 0, &["should answer"]);
    let response = site.client().get(&proxy, "https://app.test/").await;
    assert_eq!(response.status(), 502);
    let words = ["http://127.0.0.1:1 did not answer", "FAIRLEAD_ROUTE=app.test"];
    why(&site.environment, "app.test", 1, &words);
}
