//! Absurd files and flags: each a message that names the place, and nothing else lost.

use std::fs::{self, File};

use fairlead_contract::{CheckReport, MAX_FILE_BYTES};
use fairlead_tests::{Pair, Program, Site, Upstream};

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
    std::os::unix::fs::symlink("/dev/zero", routes.join("endless.toml")).unwrap();
    let (report, code) = check(&site);
    assert_eq!(code, Some(1));
    let shown: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
    for name in ["directory.toml", "endless.toml", "huge.toml"] {
        assert!(
            shown.iter().any(|problem| problem.contains(name)),
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
