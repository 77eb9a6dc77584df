//! Absurd files and flags: each a message that names the place, and nothing else lost.

use std::fs::{self, File};
use std::process::Command;

use fairlead_contract::{CheckReport, MAX_FILE_BYTES};
use fairlead_tests::{Pair, Program, Proxy, Site, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_a_reload_would_do() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let (report, code) = check(&site);
    assert_eq!((report.routes, report.certificates, code), (1, 1, Some(0)));
    assert_eq!((report.problems, report.notes), (Vec::new(), Vec::new()));
}

#[test]
fn every_absurd_value_is_named_with_its_place() {
    let route =
        |line: &str| format!("[[route]]\nhosts = [\"b.test\"]\nupstreams = [\"http://a:1\"]\n{line}\n");
    for (file, text, place, words) in [
        (
            "fairlead.toml",
            "[proxy]\nheader-timeout = \"0s\"\n".to_owned(),
            "fairlead.toml:2:",
            "\"0s\"",
        ),
        (
            "fairlead.toml",
            "[proxy]\nheader-timeout = 5\n".to_owned(),
            "fairlead.toml:2:",
            "integer",
        ),
        (
            "fairlead.toml",
            "[proxi]\n".to_owned(),
            "fairlead.toml:1:",
            "did you mean `proxy`?",
        ),
        ("fairlead.toml", "= 5\n".to_owned(), "fairlead.toml:1:", ""),
        (
            "routes.d/b.toml",
            route("redirect-to-primary = \"yes\""),
            "b.toml:4:",
            "boolean",
        ),
        (
            "routes.d/b.toml",
            route("provider = \"acne\""),
            "b.toml:1:",
            "provider = \"acne\": neither acme, internal or off, nor",
        ),
        (
            "routes.d/b.toml",
            route("response-headers = [{ delete = \"a b\" }]"),
            "b.toml:4:",
            "a b",
        ),
        ("routes.d/b.toml", route("hosts = []"), "b.toml:4:", "duplicate"),
        (
            "routes.d/b.toml",
            "[[route]]\nhosts = [\"*.*.test\"]\nupstreams = []\n".to_owned(),
            "b.toml:2:",
            "*.*.test",
        ),
        (
            "routes.d/b.toml",
            "[[route]]\nhosts = [\"b\\n.test\"]\nupstreams = []\n".to_owned(),
            "b.toml:2:",
            "b\\n.test",
        ),
        (
            "routes.d/b.toml",
            "[[route]]\nhosts = [\"b.test\"]\nupstreams = [\"ftp://a\"]\n".to_owned(),
            "b.toml:3:",
            "ftp://a",
        ),
        (
            "routes.d/b.toml",
            "[[route]]\nhosts = [\"b.test\"]\nupstreams = [\"http://a:70000\"]\n".to_owned(),
            "b.toml:3:",
            "70000",
        ),
        (
            "routes.d/b.toml",
            "[acme]\nemail = \"a@b\"\n".to_owned(),
            "b.toml:1:",
            "acme",
        ),
        (
            "routes.d/b.toml",
            "[[route]]\nhosts = [\"a.test\"]\nupstreams = [\"http://a:1\"]\n".to_owned(),
            "b.toml:1:",
            "a.test.toml:1",
        ),
    ] {
        let site = Site::of("a.test", "127.0.0.1:1".parse().unwrap());
        let path = site.environment.paths().config.join(file);
        fairlead_contract::write_atomically(&path, text.as_bytes(), 0o644).unwrap();
        let (report, code) = check(&site);
        assert_eq!(code, Some(1), "{text}");
        let [problem] = &report.problems[..] else {
            panic!("{text}: {:?}", report.problems)
        };
        let shown = problem.to_string();
        assert!(shown.contains(place) && shown.contains(words), "{text}: {shown}");
        assert_eq!(shown.lines().count(), 1, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_host_is_named_with_line_and_column_and_harms_no_other_site() {
    for (host, words) in [
        ("b test", "\"b test\" is not a host name"),
        ("b..test", "\"b..test\" is not a host name"),
        ("-b.test", "\"-b.test\" is not a host name"),
        ("b.test:443", "\"b.test:443\" is not a host name"),
        ("https://b.test", "\"https://b.test\" is not a host name"),
        ("*", "\"*\" is not a host name"),
        ("10.0.0.1", "IP addresses cannot be hosts"),
    ] {
        harms_nobody(&format!("hosts = [\"own.test\", \"{host}\"]"), ":6:9: ", words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_two_routes_is_named_with_both_places_and_harms_no_other_site() {
    let words = "first.test already has a route at ";
    harms_nobody("hosts = [\"first.test\"]", ":5:1: ", words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_named_with_line_and_column_and_harms_no_other_site() {
    let words = "unknown field `colour`";
    harms_nobody("colour = 1\nhosts = [\"own.test\"]", ":6:1: ", words).await;
}

/// A route between two good ones begins with these lines, which are the sixth and further of its file. A reload is
/// refused at that place, with these words, and everybody is served; a start serves everybody else.
async fn harms_nobody(lines: &str, place: &str, words: &str) {
    let upstream = Upstream::saying("good").await;
    let site = Site::of("a.test", upstream.address());
    let upstreams = format!("upstreams = [\"http://{}\"]", upstream.address());
    let good = |host: &str| format!("[[route]]\nhosts = [\"{host}\"]\n{upstreams}\n\n");
    for host in ["first.test", "last.test"] {
        site.certify(&[host]);
    }
    let others = [good("first.test"), good("last.test")];
    site.environment.write_routes("b.toml", &others.concat());
    let proxy = site.start();
    let faulty = format!("{}[[route]]\n{lines}\n{upstreams}\n\n{}", others[0], others[1]);
    site.environment.write_routes("b.toml", &faulty);
    let said = proxy.reload();
    assert!(
        said.contains(&format!("b.toml{place}")) && said.contains(words),
        "{lines}: {said}"
    );
    assert_all_served(&site, &proxy).await;
    proxy.terminate();
    let (_, sockets) = proxy.finish();
    let proxy = Proxy::start_on(&site.environment, sockets);
    let refusal = proxy.status().refusal.expect("the fault is told");
    let told: Vec<_> = refusal.problems.iter().map(ToString::to_string).collect();
    assert!(
        told.len() == 1 && told[0].contains(place) && told[0].contains(words),
        "{told:?}"
    );
    assert_all_served(&site, &proxy).await;
}

async fn assert_all_served(site: &Site, proxy: &Proxy) {
    for host in ["a.test", "first.test", "last.test"] {
        let response = site.client().get(proxy, &format!("https://{host}/")).await;
        assert_eq!(response.body(), "good", "{host}");
    }
}

#[test]
fn a_pair_that_does_not_hold_is_a_note() {
    let site = Site::of("a.test", "127.0.0.1:1".parse().unwrap());
    let (one, other) = (
        site.authority.issue(&["a.test"]),
        site.authority.issue(&["a.test"]),
    );
    let pairs = [
        (
            Pair {
                chain: one.chain.clone(),
                key: other.key.clone(),
            },
            "does not match",
        ),
        (
            Pair {
                chain: "nonsense".to_owned(),
                key: other.key,
            },
            "fullchain.pem",
        ),
        (
            Pair {
                chain: one.chain,
                key: "nonsense".to_owned(),
            },
            "key.pem",
        ),
    ];
    for (pair, words) in pairs {
        site.environment.store("a.test", &pair);
        let (report, code) = check(&site);
        assert_eq!((report.problems, code), (Vec::new(), Some(0)));
        let [note] = &report.notes[..] else {
            panic!("{words}: {:?}", report.notes)
        };
        assert!(
            note.to_string().contains(words) && note.to_string().contains("a.test"),
            "{note}"
        );
        assert!(!note.to_string().contains("PRIVATE KEY"), "{note}");
    }
}

#[test]
fn files_that_cannot_be_read_are_problems() {
    let site = Site::of("a.test", "127.0.0.1:1".parse().unwrap());
    let routes = site.environment.paths().routes_dir();
    File::create(routes.join("huge.toml"))
        .unwrap()
        .set_len(MAX_FILE_BYTES + 1)
        .unwrap();
    fs::create_dir(routes.join("directory.toml")).unwrap();
    for (target, link) in [
        ("/dev/zero", "endless"),
        ("loop.toml", "loop"),
        ("/nowhere", "nowhere"),
    ] {
        std::os::unix::fs::symlink(target, routes.join(format!("{link}.toml"))).unwrap();
    }
    let made = Command::new("mkfifo")
        .arg(routes.join("pipe.toml"))
        .status()
        .unwrap();
    assert!(made.success());
    let (report, code) = check(&site);
    assert_eq!(code, Some(1));
    let shown: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
    for name in ["directory", "endless", "huge", "loop", "nowhere", "pipe"] {
        let name = format!("{name}.toml");
        assert!(
            shown.iter().any(|problem| problem.contains(&name)),
            "{name}: {shown:?}"
        );
    }
    assert_eq!(report.routes, 1, "the readable route is still counted");
}

#[test]
fn absurd_flags_are_refused_by_name() {
    let site = Site::new();
    for arguments in [
        &["--https", "nonsense"][..],
        &["--https", "127.0.0.1:70000"],
        &["--https"],
        &["--config-dir"],
        &["--unknown"],
        &["surplus"],
    ] {
        let finished = site.environment.run(Program::Proxy, arguments);
        assert_eq!(finished.status.code(), Some(2), "{arguments:?}");
        assert!(
            finished.stderr.contains(arguments[0]),
            "{arguments:?}: {}",
            finished.stderr
        );
    }
}

#[test]
fn a_directory_that_is_none_is_said_so() {
    let site = Site::new();
    let finished = site
        .environment
        .run(Program::Proxy, &["--check", "--config-dir", "/dev/null"]);
    let report: CheckReport = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(finished.status.code(), Some(1));
    assert!(
        report
            .problems
            .iter()
            .any(|problem| problem.file.starts_with("/dev/null")),
        "{report:?}"
    );
}

fn check(site: &Site) -> (CheckReport, Option<i32>) {
    let finished = site.environment.run(Program::Proxy, &["--check"]);
    let report = serde_json::from_str(&finished.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {} {}", finished.stdout, finished.stderr));
    (report, finished.status.code())
}
