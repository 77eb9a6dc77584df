use fairlead_tests::Docker;

use crate::{HEALTH, Machine, PAUSED};

/// Podman lists no port that is exposed and not published, so that it has to be said.
const SITE: [&str; 2] = ["--label=fairlead.hosts=app.test", "--label=fairlead.port=80"];

#[test]
fn podmans_containers_are_followed_as_dockers_are() {
    let machine = Machine::with(Docker::podman());
    let docker = &machine.docker;
    let follower = machine.follow();
    let mut marks = 0;
    let mut until = |wanted: &[String]| machine.pass_until(&follower, &mut marks, wanted);
    docker.run("web", &SITE);
    let first = machine.expected("app.test", &["web"]);
    until(std::slice::from_ref(&first));
    docker.docker(&["pause", "web"]);
    until(&[PAUSED.to_owned()]);
    docker.docker(&["unpause", "web"]);
    until(&[first]);
    docker.docker(&["stop", "web"]);
    until(&[]);
    docker.run("squatter", &[]);
    docker.docker(&["start", "web"]);
    until(&[machine.expected("app.test", &["web"])]);
    docker.create_network("other");
    docker.docker(&["network", "connect", "other", "web"]);
    until(&[]);
    let reason = &machine.rejections()[0].reason;
    assert!(
        reason.starts_with(r#"it is in the networks "fairlead-test", "other": choose one"#),
        "{reason}"
    );
    docker.docker(&["network", "disconnect", "other", "web"]);
    until(&[machine.expected("app.test", &["web"])]);
    docker.docker(&["kill", "web"]);
    until(&[]);

    docker.run("slow", &[&HEALTH[..], &["--label=fairlead.port=80"]].concat());
    until(&["app.test → slow waits: its health check has not passed yet".to_owned()]);
}

#[test]
fn what_podman_does_not_say_leaves_out_its_container_alone() {
    let machine = Machine::with(Docker::podman());
    let docker = &machine.docker;
    docker.run("web", &SITE);
    docker.create("made", &["--label=fairlead.hosts=made.test"]);
    docker.run("silent", &["--label=fairlead.hosts=silent.test"]);
    docker.run(
        "published",
        &["--publish=8080:80", "--label=fairlead.hosts=published.test"],
    );
    for network in ["none", "host"] {
        let options = [
            format!("--network={network}"),
            format!("--label=fairlead.hosts={network}.test"),
            "--label=fairlead.port=8080".to_owned(),
        ];
        docker.run(network, &options.each_ref().map(String::as_str));
    }
    machine.pass();
    assert_eq!(
        machine.routes(),
        [
            machine.expected("app.test", &["web"]),
            machine.expected("published.test", &["published"]),
        ]
    );
    let reasons: Vec<String> = machine
        .rejections()
        .into_iter()
        .map(|rejection| format!("{}: {}", rejection.container, rejection.reason))
        .collect();
    let no_network = "it is in no network: connect it to one";
    assert_eq!(
        reasons,
        [
            format!("host: {no_network}"),
            format!("none: {no_network}"),
            "silent: it exposes no TCP port that could be meant: set the label fairlead.port".to_owned(),
        ]
    );
}
