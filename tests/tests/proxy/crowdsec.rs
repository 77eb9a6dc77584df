//! CrowdSec reads the access log with its own parser for nginx.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use fairlead_contract::write_atomically;
use fairlead_tests::{Site, Upstream, body, free_address};
use http::Request;

use crate::access_log::USER;

/// What of its hub reads a log as that of nginx and bans for wrong passwords.
const ITEMS: [&str; 5] = [
    "parsers/s00-raw/crowdsecurity/syslog-logs.yaml",
    "parsers/s01-parse/crowdsecurity/nginx-logs.yaml",
    "parsers/s02-enrich/crowdsecurity/dateparse-enrich.yaml",
    "parsers/s02-enrich/crowdsecurity/http-logs.yaml",
    "scenarios/crowdsecurity/http-generic-bf.yaml",
];

/// Over a bucket of five that loses one in ten seconds.
const GUESSES: usize = 7;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CrowdSec, of Debian's package crowdsec"]
async fn crowdsec_bans_who_guesses_passwords_and_nobody_else() {
    let upstream = Upstream::saying("a").await;
    let site = Site::new();
    site.serve_with(&["guarded.test"], &[upstream.address()], USER);
    site.serve(&["open.test"], &[upstream.address()]);
    site.environment
        .write_config("[proxy]\naccess-log = \"combined\"\ntrusted-proxies = [\"127.0.0.1\"]\n");
    let proxy = site.start();
    let forged = "192.0.2.9 - - [] \"POST / HTTP/1.1\" 401 1 \"-\" \"-\"";
    for (client, host, agent) in [
        ("198.51.100.7", "guarded.test", "guesser"),
        ("2001:db8::7", "guarded.test", "x\" 200 1 \""),
        ("192.0.2.1", "open.test", "x\" 401 1 \""),
        ("192.0.2.2", "open.test", forged),
    ] {
        for _ in 0..GUESSES {
            let request = Request::post(format!("https://{host}/login?next=/"))
                .header("x-forwarded-for", client)
                .header("user-agent", agent);
            site.client()
                .fetch(&proxy, request.body(body::empty()).unwrap())
                .await;
        }
    }
    proxy.terminate();
    let log = site.environment.root().join("access.log");
    write_atomically(&log, proxy.finish().0.stdout.as_bytes(), 0o644).unwrap();
    let said = read_with_crowdsec(&site.environment.root().join("crowdsec"), &log);
    let mut banned: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once(" ban on Ip ")?.1.strip_suffix('"'))
        .collect();
    banned.sort_unstable();
    assert_eq!(banned, ["198.51.100.7", "2001:db8::7"], "{said}");
}

/// What an agent with its own local API says about a log that it reads once.
fn read_with_crowdsec(directory: &Path, log: &Path) -> String {
    prepare(directory);
    let config = directory.join("config.yaml");
    let credentials = directory.join("credentials.yaml");
    let registered = Command::new("cscli")
        .arg("-c")
        .arg(&config)
        .args(["machines", "add", "tests", "--password", "tests", "--file"])
        .arg(&credentials)
        .output()
        .expect("cscli is there");
    assert!(registered.status.success(), "{registered:?}");
    let output = Command::new("crowdsec")
        .arg("-c")
        .arg(&config)
        .args(["-dsn", &format!("file://{}", log.display())])
        .args(["-type", documented_type()])
        .output()
        .expect("crowdsec is there");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// As the package's own configuration, with no API but one on a free port, and nothing that is far away.
fn prepare(directory: &Path) {
    let installed = installed();
    let hub = installed.join("usr/share/crowdsec/hub");
    for item in ITEMS {
        // It wants the links without the vendor's folder.
        let link = directory.join(item.replace("crowdsecurity/", ""));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(hub.join(item), link).unwrap();
    }
    fs::create_dir(directory.join("data")).unwrap();
    symlink(
        installed.join("etc/crowdsec/patterns"),
        directory.join("patterns"),
    )
    .unwrap();
    let free = free_address();
    let [directory_name, hub_name, installed_name] =
        [directory, &hub, &installed].map(|path| path.display().to_string());
    let config = format!(
        "common: {{ log_media: stdout, log_level: info }}
config_paths:
  config_dir: {directory_name}
  data_dir: {directory_name}/data
  simulation_path: {installed_name}/etc/crowdsec/simulation.yaml
  hub_dir: {hub_name}
  index_path: {hub_name}/.index.json
crowdsec_service: {{ acquisition_path: /dev/null }}
db_config: {{ type: sqlite, db_path: {directory_name}/data/crowdsec.db, use_wal: false }}
api:
  client: {{ credentials_path: {directory_name}/credentials.yaml }}
  server: {{ listen_uri: \"{free}\", profiles_path: {installed_name}/etc/crowdsec/profiles.yaml }}
prometheus: {{ enabled: false }}
"
    );
    write_atomically(&directory.join("config.yaml"), config.as_bytes(), 0o644).unwrap();
    let url = format!("url: http://{free}\nlogin: tests\npassword: tests\n");
    write_atomically(&directory.join("credentials.yaml"), url.as_bytes(), 0o644).unwrap();
}

/// The root of the system that has CrowdSec, or the folder that its package was unpacked to.
fn installed() -> PathBuf {
    let path = env::var_os("PATH").unwrap();
    let programs = env::split_paths(&path).find(|directory| directory.join("crowdsec").is_file());
    let root = programs.and_then(|programs| Some(programs.parent()?.parent()?.to_owned()));
    root.expect("crowdsec is in usr/bin of its system")
}

/// What the page has CrowdSec take the log for.
fn documented_type() -> &'static str {
    let page = include_str!("../../../docs/access-log.md");
    page.lines()
        .find_map(|line| line.strip_prefix("  type: "))
        .unwrap()
}
