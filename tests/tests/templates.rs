//! Files for other programs: rendered by the watcher, delivered by `fairlead deliver`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use fairlead_contract::write_atomically;
use fairlead_tests::{
    Authority, DEADLINE, DockerApi, Environment, Finished, Program, Upstream, body, free_address, get,
    listed, request_on,
};
use http::header::ACCEPT_ENCODING;
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tokio::net::TcpStream;

/// An installation with a container and a place for the files of other programs.
struct Machine {
    environment: Environment,
    api: DockerApi,
}

impl Machine {
    fn new() -> Self {
        let environment = Environment::new();
        let api = DockerApi::new(&environment);
        api.add_image("sha256:00", json!({}));
        let machine = Self { environment, api };
        fs::create_dir(machine.place("")).unwrap();
        machine.run_container("app.test");
        machine
    }

    fn run_container(&self, hosts: &str) {
        self.api
            .set_containers(vec![listed("web", &[("fairlead.hosts", hosts)])]);
    }

    /// A file of another program.
    fn place(&self, name: &str) -> PathBuf {
        self.environment.root().join("elsewhere").join(name)
    }

    fn source(&self, name: &str, text: &str) -> String {
        let path = self.environment.root().join(name);
        write_atomically(&path, text.as_bytes(), 0o644).unwrap();
        format!("source = {path:?}")
    }

    /// Configures templates, each by its name and its further keys; its destination is called as it is.
    fn configure(&self, templates: &[(&str, &str)]) {
        let table = |(name, keys): &(&str, &str)| {
            let destination = self.place(name);
            format!("[[template]]\nname = {name:?}\ndestination = {destination:?}\n{keys}\n")
        };
        let tables: String = templates.iter().map(table).collect();
        self.environment
            .write_config(&(self.api.settings() + "\n" + &tables));
    }

    /// A pass of the watcher, which succeeds.
    fn pass(&self) -> Finished {
        let pass = self.environment.run(Program::Watcher, &[]);
        assert!(pass.status.success(), "{}", pass.stderr);
        pass
    }

    fn deliver(&self) -> Finished {
        self.environment.run(Program::Cli, &["deliver"])
    }

    fn has_mark(&self) -> bool {
        self.environment.paths().rendered_mark().exists()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place(name)).unwrap()
    }
}

const DOMAINS: &str = "source = \"domains.txt\"";

#[test]
fn what_changed_is_rendered_and_delivered_and_nothing_else_is_touched() {
    let machine = Machine::new();
    machine.configure(&[("list", &format!("{DOMAINS}\nmode = \"0604\""))]);
    machine.pass();
    assert!(machine.has_mark());
    assert!(machine.deliver().stdout.starts_with("delivered "));
    assert!(!machine.has_mark());
    assert_eq!(machine.read("list"), "app.test\n");
    let mode = fs::metadata(machine.place("list")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o604);

    machine.pass();
    assert!(!machine.has_mark());
    assert!(machine.deliver().stdout.starts_with("nothing to do"));

    machine.run_container("app.test www.app.test");
    machine.pass();
    assert!(machine.has_mark());
    machine.deliver();
    assert_eq!(machine.read("list"), "app.test www.app.test\n");
    assert_eq!(only_entries(&machine.place("")), ["list"]);
}

/// A program of that name which comes first and notes what it is called with.
fn noting(machine: &Machine, name: &str) -> (String, PathBuf) {
    let (directory, log) = (machine.environment.root().join("bin"), machine.place("log"));
    fs::create_dir_all(&directory).unwrap();
    let script = format!("#!/bin/sh\necho \"$*\" >>{}\n", log.display());
    write_atomically(&directory.join(name), script.as_bytes(), 0o755).unwrap();
    let path = std::env::var("PATH").unwrap();
    (format!("{}:{path}", directory.display()), log)
}

#[test]
fn a_certificate_is_copied_with_owner_and_mode_and_its_units_are_told_once() {
    let machine = Machine::new();
    let environment = &machine.environment;
    let (path, log) = noting(&machine, "systemctl");
    let deliver = || {
        let mut command = environment.command(Program::Cli);
        command.arg("deliver").env("PATH", &path);
        environment.start(command).finish()
    };
    let copy = |keys: String| format!("[[certificates.copy]]\nname = \"a.test\"\n{keys}");
    let one_by_one = format!(
        "fullchain = {:?}\nkey = {:?}\nowner = \"65534\"\nmode = \"0400\"\nreload-units = [\"mail.service\"]\n",
        machine.place("chain.pem"),
        machine.place("key.pem")
    );
    let both = machine.place("both.pem");
    let together = format!("fullchain = {both:?}\nkey = {both:?}\nreload-units = [\"mail.service\"]\n");
    environment.write_config(&format!(
        "[certificates]\nprovider = \"internal\"\nreload-units = [\"turn.service\"]\n{}{}",
        copy(one_by_one),
        copy(together)
    ));
    let missing = deliver();
    assert_eq!(missing.status.code(), Some(1));
    let expected = "certificate a.test: it is not in the store yet: fairlead certs says why";
    assert!(missing.stderr.contains(expected), "{}", missing.stderr);

    environment.declare(&["a.test"], "");
    environment.pass();
    let mark = environment.paths().renewed_mark();
    assert!(mark.exists());
    let delivered = deliver();
    assert!(
        delivered.status.success() && !mark.exists(),
        "{}",
        delivered.stderr
    );
    let (chain, key) = environment.pair("a.test");
    assert_eq!(
        (machine.read("chain.pem"), machine.read("key.pem")),
        (chain.clone(), key.clone())
    );
    assert_eq!(machine.read("both.pem"), format!("{chain}\n{key}"));
    let owned = |name: &str| {
        let found = fs::metadata(machine.place(name)).unwrap();
        (found.uid(), found.permissions().mode() & 0o7777)
    };
    assert_eq!(
        (owned("key.pem"), owned("chain.pem")),
        ((65534, 0o400), (65534, 0o400))
    );
    assert_eq!(owned("both.pem"), (0, 0o600));
    let told = || fs::read_to_string(&log).unwrap();
    let once = "try-reload-or-restart mail.service\ntry-reload-or-restart turn.service\n";
    assert_eq!(told(), once);

    environment.pass();
    assert!(!mark.exists(), "nothing changed");
    assert!(deliver().stdout.starts_with("nothing to do"));
    assert_eq!(told(), once);

    // A pass that was killed after the change: the next one announces it.
    write_atomically(&environment.paths().renewing_mark(), b"", 0o644).unwrap();
    environment.pass();
    assert!(mark.exists());
    deliver();
    assert_eq!(told(), format!("{once}try-reload-or-restart turn.service\n"));
}

#[test]
fn containers_routes_and_rejections_are_there_for_a_template() {
    let machine = Machine::new();
    let bad = listed("bad\u{1b}", &[("fairlead.hosts", "-a-"), ("note", "two\nlines")]);
    machine.api.set_containers(vec![
        listed("web", &[("fairlead.hosts", "app.test"), ("note", "{{ 1 + 1 }}")]),
        bad,
    ]);
    let text = "{% for c in containers %}{{ c.name }} {{ c.labels.note }} {{ c.ports | join(',') }} {{ c.networks.web }}\n\
                {% endfor %}{% for r in routes %}{{ r.hosts[0] }} {{ r.upstreams[0].address }} {{ r.upstreams[0].container }}\n\
                {% endfor %}{% for r in rejections %}{{ r.container }}: {{ r.reason }}\n{% endfor %}";
    machine.configure(&[("all", &machine.source("all.j2", text))]);
    machine.pass();
    machine.deliver();
    let all = machine.read("all");
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 4, "{all}");
    assert!(
        lines[0].starts_with("bad\\u{1b} two\\u{a}lines 80 10.0.0."),
        "{all}"
    );
    assert!(lines[1].starts_with("web {{ 1 + 1 }} 80 10.0.0."), "{all}");
    assert!(
        lines[2].starts_with("app.test 10.0.0.") && lines[2].ends_with(":80 web"),
        "{all}"
    );
    assert!(lines[3].starts_with("bad\\u{1b}: "), "{all}");
}

#[test]
fn a_template_that_fails_keeps_its_old_file_and_harms_nothing_else() {
    let machine = Machine::new();
    let source = machine.source("a.j2", "{{ routes | length }}\n");
    machine.configure(&[("first", &source), ("second", DOMAINS)]);
    machine.pass();
    machine.deliver();

    machine.source("a.j2", "\n{{ nobody }}\n");
    machine.run_container("other.test");
    let pass = machine.pass();
    assert!(
        pass.stderr.contains("undefined value (in") && pass.stderr.contains("a.j2:2)"),
        "{}",
        pass.stderr
    );
    machine.deliver();
    assert_eq!(machine.read("first"), "1\n");
    assert_eq!(machine.read("second"), "other.test\n");
    let routes = fs::read_to_string(machine.environment.paths().discovery_file()).unwrap();
    assert!(routes.contains("other.test"), "{routes}");
}

#[test]
fn what_a_check_does_not_like_is_not_delivered_and_the_check_is_heard() {
    let machine = Machine::new();
    let check = "check = [\"sh\", \"-c\", \"grep -q app.test $0 || { echo no app >&2; exit 1; }\", \"{}\"]";
    machine.configure(&[("checked", &format!("{DOMAINS}\n{check}")), ("other", DOMAINS)]);
    machine.pass();
    assert!(machine.deliver().status.success());

    machine.run_container("b.test");
    machine.pass();
    let delivered = machine.deliver();
    assert_eq!(delivered.status.code(), Some(1));
    assert!(
        delivered.stderr.contains("template checked: its check failed"),
        "{}",
        delivered.stderr
    );
    assert!(delivered.stderr.contains("no app"), "{}", delivered.stderr);
    assert_eq!(machine.read("checked"), "app.test\n");
    assert_eq!(machine.read("other"), "b.test\n");
    assert_eq!(only_entries(&machine.place("")), ["checked", "other"]);
}

#[test]
fn a_link_at_the_destination_is_replaced_and_not_followed() {
    let machine = Machine::new();
    machine.configure(&[("list", DOMAINS)]);
    let precious = machine.place("precious");
    write_atomically(&precious, b"app.test\n", 0o644).unwrap();
    symlink(&precious, machine.place("list")).unwrap();
    machine.pass();
    assert!(machine.deliver().stdout.starts_with("delivered "));
    assert!(fs::symlink_metadata(machine.place("list")).unwrap().is_file());

    machine.run_container("b.test");
    machine.pass();
    machine.deliver();
    assert_eq!(machine.read("precious"), "app.test\n");
}

#[test]
fn what_stands_in_the_way_of_a_file_is_said() {
    let machine = Machine::new();
    machine.configure(&[
        ("early", DOMAINS),
        ("owned", &format!("{DOMAINS}\nowner = \"no-such-user\"")),
    ]);
    let early = machine.deliver();
    assert!(
        early
            .stderr
            .contains("template early: nothing was made of it yet"),
        "{}",
        early.stderr
    );
    machine.pass();
    let delivered = machine.deliver();
    assert_eq!(delivered.status.code(), Some(1));
    assert!(
        delivered.stderr.contains("there is no user \"no-such-user\""),
        "{}",
        delivered.stderr
    );
    assert_eq!(machine.read("early"), "app.test\n");
    assert!(!machine.place("owned").exists());
}

#[test]
fn a_template_that_makes_no_sense_is_refused_with_its_line() {
    let environment = Environment::new();
    for (keys, part) in [
        ("mode = \"4755\"", "\"4755\" is no mode"),
        ("check = [\"true\"]", "does not say which file"),
        ("reload-units = [\"haproxy\"]", "\"haproxy\" is no name of a unit"),
        ("source = \"nginx.conf\"", "none of the templates that come along"),
        ("destination = \"x\"", "not the absolute path"),
        ("name = \"../x\"", "cannot be the name of a template"),
    ] {
        let given = ["name = \"n\"", "destination = \"/d\"", "source = \"domains.txt\""];
        let key = |line: &str| line.split(' ').next().unwrap().to_owned();
        let others = given.iter().filter(|line| key(line) != key(keys));
        let others: Vec<&str> = others.copied().collect();
        environment.write_config(&format!("[[template]]\n{keys}\n{}\n", others.join("\n")));
        let checked = environment.run(Program::Cli, &["check"]);
        assert_eq!(checked.status.code(), Some(1), "{keys}");
        assert!(checked.stderr.contains("fairlead.toml:2:"), "{}", checked.stderr);
        assert!(checked.stderr.contains(part), "{}", checked.stderr);
    }
}

#[test]
fn two_templates_for_one_file_are_refused() {
    let environment = Environment::new();
    let table = |name: &str| {
        format!("[[template]]\nname = \"{name}\"\nsource = \"domains.txt\"\ndestination = \"/d\"\n")
    };
    environment.write_config(&(table("a") + &table("b")));
    let checked = environment.run(Program::Cli, &["check"]);
    assert!(
        checked
            .stderr
            .contains("two [[template]] have the destination /d"),
        "{}",
        checked.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_serves_what_the_ready_template_makes() {
    let machine = Machine::new();
    let upstream = Upstream::echoing().await.address();
    let mut web = listed(
        "web",
        &[
            ("fairlead.hosts", "app.test,*.app.test"),
            ("fairlead.port", &upstream.port().to_string()),
            ("fairlead.path", "/it's"),
            (
                "fairlead.response-headers",
                r##"[{ replace = "X-Odd", value = '100% \ $HOME "quoted" #' }]"##,
            ),
        ],
    );
    let text = plain_text().port().to_string();
    let mut text = listed(
        "text",
        &[("fairlead.hosts", "text.test"), ("fairlead.port", &text)],
    );
    for container in [&mut web, &mut text] {
        container["HostConfig"]["NetworkMode"] = json!("host");
    }
    machine.api.set_containers(vec![web, text]);
    let authority = Authority::new();
    let both = certificate(&machine, &authority);
    let https = free_address();
    machine.configure(&[(
        "haproxy.cfg",
        &format!(
            "source = \"haproxy.cfg\"\ncheck = [\"haproxy\", \"-c\", \"-f\", \"{{}}\"]\n\
             values = {{ http = \"{}\", https = \"{https}\", certificates = {both:?} }}",
            free_address()
        ),
    )]);
    machine.pass();
    let delivered = machine.deliver();
    assert!(delivered.status.success(), "{}", delivered.stderr);

    let mut haproxy = Command::new("haproxy");
    haproxy.arg("-db").arg("-f").arg(machine.place("haproxy.cfg"));
    let _haproxy = machine.environment.start(haproxy);
    let client = authority.client();
    for (host, path, status) in [
        ("app.test", "/it's/here", StatusCode::OK),
        ("x.app.test", "/it's", StatusCode::OK),
        ("app.test", "/its", StatusCode::SERVICE_UNAVAILABLE),
        ("app.test", "/it's-not", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let stream = client
            .connect_on(connect(https).await, host, &["http/1.1"])
            .await
            .unwrap();
        let response = request_on(stream, get(&format!("https://{host}{path}"))).await;
        assert_eq!(response.status(), status, "{host}{path}");
        if status == StatusCode::OK {
            assert_eq!(response.headers()["x-odd"], "100% \\ $HOME \"quoted\" #");
            let (seen, _) = body::read(response.into_body()).await;
            assert!(seen.contains("x-forwarded-for: 127.0.0.1"), "{seen}");
        }
    }
    let stream = client
        .connect_on(connect(https).await, "app.test", &["http/1.1"])
        .await
        .unwrap();
    let mut request = get("https://text.test/");
    request
        .headers_mut()
        .insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    let compressed = request_on(stream, request).await;
    assert_eq!(compressed.headers()["content-encoding"], "gzip");
}

#[test]
fn no_label_breaks_the_configuration_for_haproxy() {
    let machine = Machine::new();
    let edits = |name: &str| {
        let value = r##"a"'\ %[src] ${HOME} #"##;
        format!(
            "{{ default = {name:?}, value = '' }}, {{ add = {name:?}, value = {value:?} }}, {{ delete = {name:?} }}"
        )
    };
    let every_token_character = "!#$%&'*+-.^_`|~";
    let edits = [every_token_character, "x'y", "-m", "if"].map(edits);
    let edits = format!("[{}]", edits.join(", "));
    let containers: [&[(&str, &str)]; 6] = [
        &[("fairlead.hosts", "a.test"), ("fairlead.path", "/b")],
        &[("fairlead.hosts", "a.test"), ("fairlead.path", "/b..2")],
        &[("fairlead.hosts", "a.test_b")],
        &[
            ("fairlead.hosts", "c.test"),
            ("fairlead.path", "/-._~!$&'()*+,=:@"),
        ],
        &[
            ("fairlead.hosts", "d.test"),
            ("fairlead.response-headers", &edits),
        ],
        &[
            ("com.chameth.vhost", "e.test"),
            ("com.chameth.headers", "X-Empty:"),
        ],
    ];
    let named = |(number, labels): (usize, &[(&str, &str)])| listed(&format!("web-{number}"), labels);
    let count = containers.len();
    machine
        .api
        .set_containers(containers.into_iter().enumerate().map(named).collect());
    let both = certificate(&machine, &Authority::new());
    machine.configure(&[(
        "haproxy.cfg",
        &format!(
            "source = \"haproxy.cfg\"\nvalues = {{ certificates = {both:?} }}\n\
             check = [\"haproxy\", \"-c\", \"-f\", \"{{}}\"]"
        ),
    )]);
    machine.pass();
    let delivered = machine.deliver();
    assert!(delivered.status.success(), "{}", delivered.stderr);
    let made = machine.read("haproxy.cfg");
    let backends = made.lines().filter(|line| line.starts_with("backend "));
    assert_eq!(backends.count(), count, "{made}");
}

/// An upstream that says what its answer is.
fn plain_text() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Who only looks whether somebody listens is gone already.
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n";
            let _ = stream.write_all((head.to_owned() + &"text ".repeat(200)).as_bytes());
        }
    });
    address
}

/// A certificate as HAProxy reads it.
fn certificate(machine: &Machine, authority: &Authority) -> PathBuf {
    let pair = authority.issue(&["app.test", "x.app.test"]);
    let both = machine.environment.root().join("both.pem");
    write_atomically(&both, (pair.chain + &pair.key).as_bytes(), 0o600).unwrap();
    both
}

/// Connects as soon as somebody listens.
async fn connect(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

fn only_entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
