use fairlead_contract::{Discovery, Route, is_hidden};
use serde_json::{Value, json};

use crate::files::assert_reads_back;

/// Whatever containers are labelled, the routes are written as they are read back, in whatever order the
/// containers come, and who asked for something gets it or a reason.
///
/// `LABEL=VALUE` is a line, and an empty line begins the next container.
pub fn labels(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let mut containers: Vec<Value> = text.split("\n\n").enumerate().map(container).collect();
    let discovery = discover(&containers);
    assert_reads_back(&discovery);
    for rejection in &discovery.rejections {
        assert!(!rejection.reason.contains(is_hidden), "{:?}", rejection.reason);
    }
    for container in containers.iter().filter(|container| asks(container)) {
        assert!(
            is_heard(container, &discovery),
            "{container} is not in {discovery:?}"
        );
    }
    containers.reverse();
    assert_eq!(discover(&containers), discovery, "the order matters");
}

fn discover(containers: &[Value]) -> Discovery {
    fairlead_watcher::fuzzing::discover(&json!(containers).to_string()).expect("a list of containers")
}

fn container((number, labels): (usize, &str)) -> Value {
    let labels = labels.lines().filter_map(|line| line.split_once('='));
    let labels: serde_json::Map<_, _> = labels
        .map(|(label, value)| (label.to_owned(), value.into()))
        .collect();
    json!({
        "Id": format!("{number:012x}"),
        "Names": [format!("/c{number}")],
        "Created": number,
        "Image": "site",
        "State": "running",
        "Labels": labels,
        "Ports": [{"PrivatePort": 80, "Type": "tcp"}],
        "HostConfig": {"NetworkMode": "web"},
        "NetworkSettings": {"Networks": {"web": {"IPAddress": format!("10.0.0.{}", number % 255 + 1)}}},
    })
}

fn asks(container: &Value) -> bool {
    let labels = container["Labels"].as_object();
    labels.is_some_and(|labels| labels.keys().any(|label| label.starts_with("fairlead.")))
}

fn is_heard(container: &Value, discovery: &Discovery) -> bool {
    let name = container["Names"][0]
        .as_str()
        .unwrap_or_default()
        .trim_start_matches('/');
    let is_in = |route: &Route| route.containers().any(|other| other == name);
    discovery.routes.iter().any(is_in)
        || discovery
            .rejections
            .iter()
            .any(|rejection| rejection.container == name)
}
