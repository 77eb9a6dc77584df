use std::path::PathBuf;

use fairlead_contract::{Configuration, Discovery, Files, Located, Route};

/// Between `fairlead.toml`, a file in `routes.d` and `docker.toml`.
const SEPARATOR: &[u8] = b"\n----\n";

/// Files are judged without a panic and always alike, two routes never have one scope, and routes are read back
/// as they are written.
pub fn configuration(bytes: &[u8]) {
    let read = Configuration::parse(&files(bytes));
    let again = Configuration::parse(&files(bytes));
    assert_eq!(read.problems, again.problems);
    assert_eq!(read.notes, again.notes);
    for problem in read.problems.iter().chain(&read.notes) {
        let said = problem.to_string();
        assert!(!said.contains(is_unsafe), "{said:?}");
    }
    assert_scopes_are_unique(&read.routes);
    let routes = read.routes.into_iter().map(|located| located.route);
    assert_reads_back(&Discovery {
        routes: routes.collect(),
        rejections: read.rejections,
        owners: read.owners,
    });
}

/// What a terminal or a log would take for more than text.
fn is_unsafe(character: char) -> bool {
    character.is_control() && character != '\n'
}

fn files(bytes: &[u8]) -> Files {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.windows(SEPARATOR.len()).position(|part| part == SEPARATOR) {
        parts.push(&rest[..end + 1]);
        rest = &rest[end + SEPARATOR.len()..];
    }
    parts.push(rest);
    let mut sources = ["fairlead.toml", "routes.d/a.toml", "docker.toml"]
        .into_iter()
        .zip(parts);
    let mut next = || {
        sources
            .next()
            .map(|(name, part)| (PathBuf::from(name), Ok(part.to_vec())))
    };
    Files {
        config: next(),
        routes: next().into_iter().collect(),
        discovery: next(),
        ..Files::default()
    }
}

fn assert_scopes_are_unique(routes: &[Located]) {
    let scopes = routes.iter().flat_map(|located| {
        let route = &located.route;
        route.hosts.iter().map(|host| route.scope(host).to_string())
    });
    let mut scopes: Vec<_> = scopes.collect();
    scopes.sort();
    let all = scopes.len();
    scopes.dedup();
    assert_eq!(scopes.len(), all, "{scopes:?}");
}

/// What the watcher writes is what every reader finds.
pub(crate) fn assert_reads_back(written: &Discovery) {
    let text = written.render().expect("text for every discovery");
    let read = Configuration::parse(&Files {
        discovery: Some(("docker.toml".into(), Ok(text.clone().into_bytes()))),
        ..Files::default()
    });
    assert_eq!(read.problems, [], "{text}");
    let routes: Vec<Route> = read.routes.into_iter().map(|located| located.route).collect();
    assert_eq!(routes, written.routes, "{text}");
    assert_eq!(read.rejections, written.rejections, "{text}");
    assert_eq!(read.owners, written.owners, "{text}");
}
