//! The watcher against a daemon that breaks off, hangs, is replaced, and loses what it has just listed.

use fairlead_contract::{Configuration, Files, Rejection};
use fairlead_tests::{DockerApi, Environment, Program, Running, listed};
use serde_json::{Value, json};

const EVENT: &str =
    r#"{"Type":"container","Action":"start","Actor":{"ID":"1","Attributes":{}},"time":1,"timeNano":1}"#;

fn watched() -> (Environment, DockerApi) {
    let environment = Environment::new();
    let api = DockerApi::new(&environment);
    environment.write_config(&api.settings());
    (environment, api)
}

fn follow(environment: &Environment) -> Running {
    environment.spawn(Program::Watcher, &["--follow"])
}

#[test]
fn events_that_are_cut_off_anywhere_are_followed_anew_with_a_mark() {
    for sent in [
        String::new(),
        format!("{EVENT}\n"),
        format!("{EVENT}\n{}", &EVENT[..40]),
        EVENT[..40].to_owned(),
        "no event at all\n".to_owned(),
        "\u{0}\n[]\n".to_owned(),
    ] {
        let (environment, api) = watched();
        api.cut_stream_after(&sent);
        let follower = follow(&environment);
        follower.wait_for_log("trying again in");
        follower.wait_for_output_lines(1);
        assert!(environment.paths().watcher_dirty_file().exists(), "{sent:?}");
    }
}

#[test]
fn an_event_of_any_size_is_an_event_and_is_not_kept() {
    const SIZE: usize = 64 << 20;
    let (environment, api) = watched();
    api.cut_stream_after(&format!("{}{}", &EVENT[..40], "x".repeat(SIZE)));
    let follower = follow(&environment);
    follower.wait_for_log("trying again in");
    let peak = follower.memory("VmHWM");
    assert!(peak < SIZE as u64 / 2, "{peak}");
}

#[test]
fn a_refusal_of_the_events_is_told_in_the_daemons_words() {
    let (environment, api) = watched();
    api.refuse_once("400 Bad Request", "{\"message\":\"no \u{1b}[31mfilters\"}");
    let follower = follow(&environment);
    follower.wait_for_log("it answered 400 Bad Request: {\"message\":\"no \\u{1b}[31mfilters\"}");
    follower.wait_for_output_lines(1);
}

#[test]
fn no_version_of_the_api_is_asked_for_that_could_be_too_old() {
    let (environment, api) = watched();
    api.add_image("sha256:00", json!({}));
    api.set_containers(vec![listed("web", &[("fairlead.hosts", "app.test")])]);
    follow(&environment).wait_for_output_lines(1);
    let found = found(&environment);
    assert_eq!(hosts(&found), ["app.test"]);
}

#[test]
fn a_daemon_that_hangs_is_said_to_and_asked_again() {
    let (environment, api) = watched();
    api.hang_once();
    let follower = follow(&environment);
    follower.wait_for_log("did not answer within 10s");
    follower.wait_for_output_lines(1);
}

#[test]
fn a_pass_that_the_daemon_left_waiting_is_made_again() {
    let (environment, api) = watched();
    let mark = environment.paths().watcher_dirty_file();
    api.hang_once();
    let finished = environment.run(Program::Watcher, &[]);
    assert!(!finished.status.success());
    assert!(
        finished.stderr.contains("did not answer within 10s"),
        "{}",
        finished.stderr
    );
    assert!(mark.exists());
    found(&environment);
    assert!(!mark.exists());
}

#[test]
fn a_socket_that_was_replaced_is_followed() {
    let (environment, api) = watched();
    let follower = follow(&environment);
    let marks = follower.wait_for_output_lines(1);
    api.replace_socket();
    follower.wait_for_output_lines(marks + 1);
}

/// A pass that must succeed, and what it wrote.
fn found(environment: &Environment) -> Configuration {
    let finished = environment.run(Program::Watcher, &[]);
    assert!(finished.status.success(), "{}", finished.stderr);
    Configuration::parse(&Files::read(environment.paths()))
}

/// `container: reason` for each that was left out.
fn left_out(configuration: &Configuration) -> Vec<String> {
    let shown = |rejection: &Rejection| format!("{}: {}", rejection.container, rejection.reason);
    configuration.rejections.iter().map(shown).collect()
}

#[test]
fn an_image_that_cannot_be_told_about_leaves_out_its_container_alone() {
    let (environment, api) = watched();
    api.add_image("sha256:00", json!({}));
    api.answer(
        "/images/sha256:22/",
        "500 Internal Server Error",
        "{\"message\":\"layer does not \\u001b exist\"}",
    );
    api.answer(
        "/images/sha256:33/",
        "200 OK",
        r#"{"Created":7,"Config":{"Labels":{"fairlead.hosts":"odd.test"}}}"#,
    );
    let of_image = |name: &str, image: &str| {
        let mut container = listed(name, &[("fairlead.hosts", &format!("{name}.test"))]);
        container["ImageID"] = json!(image);
        container
    };
    api.set_containers(vec![
        of_image("gone", "sha256:11"),
        of_image("broken", "sha256:22"),
        of_image("odd", "sha256:33"),
        listed("web", &[("fairlead.hosts", "app.test")]),
    ]);
    let found = found(&environment);
    assert_eq!(hosts(&found), ["app.test"]);
    let left_out = left_out(&found);
    let beginnings = [
        "broken: nobody can tell which of its labels came with its image (layer does not \\u{1b} exist): make it anew",
        "gone: nobody can tell which of its labels came with its image (no such image): make it anew",
        "odd: its labels came with its image",
    ];
    assert_eq!(left_out.len(), beginnings.len(), "{left_out:?}");
    for (reason, beginning) in left_out.iter().zip(beginnings) {
        assert!(reason.starts_with(beginning), "{reason}");
    }
}

#[test]
fn a_container_that_goes_while_it_is_asked_about_stops_no_pass() {
    let (environment, api) = watched();
    environment.write_config(&format!(
        "{}[[docker.allow]]\nhosts = [\"*.test\"]\nimage = \"site\"\n",
        api.settings()
    ));
    api.add_image("sha256:00", json!({}));
    let of_image = |name: &str, image: &str| {
        let mut container = listed(name, &[("fairlead.hosts", &format!("{name}.test"))]);
        container["Image"] = json!(image);
        container
    };
    api.answer(
        "/containers/old",
        "200 OK",
        r#"{"Id":7,"Config":{"Image":"site:1"}}"#,
    );
    api.set_containers(vec![
        of_image("gone", "sha256:00"),
        of_image("old", "sha256:00"),
        of_image("web", "site"),
    ]);
    let found = found(&environment);
    assert_eq!(hosts(&found), ["old.test", "web.test"]);
    let left_out = left_out(&found);
    assert!(
        left_out[0].starts_with("gone: no [[docker.allow]]"),
        "{left_out:?}"
    );
}

#[test]
fn a_network_that_the_machine_is_not_part_of_is_passed_over() {
    let (environment, api) = watched();
    api.add_image("sha256:00", json!({}));
    let networks = json!([
        { "Name": "lan", "Driver": "macvlan", "Created": 7 }, { "Name": "web", "Driver": "bridge" }, "odd",
    ]);
    api.answer("/networks", "200 OK", &networks.to_string());
    let mut both = listed("both", &[("fairlead.hosts", "both.test")]);
    both["NetworkSettings"]["Networks"]["lan"] = json!({ "IPAddress": "10.9.0.2" });
    let mut lost = listed("lost", &[("fairlead.hosts", "lost.test")]);
    lost["NetworkSettings"] = json!({ "Networks": { "lan": { "IPAddress": "10.9.0.3" } } });
    api.set_containers(vec![both, lost]);
    let first = found(&environment);
    let url = first.routes[0].route.upstreams[0].url.to_string();
    assert!(url.starts_with("http://10.0.0."), "{url}");
    let reasons = left_out(&first);
    assert!(
        reasons[0].starts_with("lost: this machine is not part of its networks: \"lan\" (macvlan)"),
        "{reasons:?}"
    );

    api.answer("/networks", "500 Internal Server Error", "{\"message\":\"full\"}");
    let finished = environment.run(Program::Watcher, &[]);
    assert!(
        !finished.status.success(),
        "could not be read is not the same as none"
    );
    let after = Configuration::parse(&Files::read(environment.paths()));
    assert_eq!(after.routes, first.routes);
}

#[test]
fn a_state_that_docker_does_not_have_fails_its_container_alone() {
    let (environment, api) = watched();
    api.add_image("sha256:00", json!({}));
    let odd = |name: &str, field: &str, value: Value| {
        let mut odd = listed(name, &[("fairlead.hosts", &format!("{name}.test"))]);
        odd[field] = value;
        odd
    };
    api.set_containers(vec![
        odd("state", "State", json!("initialized")),
        odd(
            "health",
            "Health",
            json!({ "Status": "stopped", "FailingStreak": 0 }),
        ),
        odd("ports", "Ports", json!([{ "PrivatePort": 132, "Type": "dccp" }])),
        listed("web", &[("fairlead.hosts", "app.test")]),
    ]);
    let found = found(&environment);
    assert_eq!(
        hosts(&found),
        ["app.test", "health.test", "ports.test", "state.test"]
    );
    let waiting: Vec<(&str, bool)> = found
        .routes
        .iter()
        .flat_map(|located| &located.route.waiting)
        .map(|waiting| {
            (
                waiting.container.as_str(),
                waiting.reason.contains("is not understood"),
            )
        })
        .collect();
    assert_eq!(waiting, [("ports", true), ("state", true)]);
}

fn hosts(configuration: &Configuration) -> Vec<String> {
    let routes = configuration.routes.iter();
    routes.map(|located| located.route.hosts[0].to_string()).collect()
}
