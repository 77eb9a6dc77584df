//! What is written of an exchange.

use std::io::Read;
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};
use fairlead_contract::write_atomically;
use fairlead_tests::{
    Proxy, Running, Site, Sockets, Upstream, Wire, accept, activate, body, get, request_on, route, within,
};
use http::{Request, Response};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

/// Of the password `open sesame`.
pub(crate) const USER: &str =
    "basic-auth = [\"ann:$2b$04$X5LGU9quztj5nSK9QO90LOOJnCqGPwuZPLnf7MmVFvjQMe1t5IJKu\"]\n";

fn log_as(site: &Site, form: &str) {
    site.environment
        .write_config(&format!("[proxy]\naccess-log = \"{form}\"\n"));
}

/// The line about the request that says this of itself.
fn line_with(running: &Running, part: &str) -> Value {
    let line = running.wait_for_output(part);
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_tells_who_asked_for_what_and_who_answered() {
    let upstream = Upstream::saying("hello").await;
    let site = Site::new();
    site.serve(&["a.test", "www.a.test"], &[upstream.address()]);
    log_as(&site, "json");
    let proxy = site.start();
    let request = Request::get("https://www.a.test/x?y=z")
        .header("user-agent", "robot")
        .header("referer", "https://b.test/")
        .body(body::empty())
        .unwrap();
    let stream = site
        .client()
        .connect(proxy.https(), "www.a.test", &["h2"])
        .await
        .unwrap();
    body::read(request_on(stream, request).await.into_body()).await;
    let line = line_with(proxy.running(), "/x?y=z");
    let upstream = format!("http://{}", upstream.address());
    for (key, expected) in [
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("scheme", "https"),
        ("host", "www.a.test"),
        ("path", "/x?y=z"),
        ("protocol", "HTTP/2.0"),
        ("referer", "https://b.test/"),
        ("user_agent", "robot"),
        ("route", "a.test"),
        ("upstream", &upstream),
    ] {
        assert_eq!(line[key], expected, "{key}: {line}");
    }
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &5.into()));
    assert!(line["duration"].is_f64() && line["time"].is_string(), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_our_own_are_written_with_as_much_as_is_known() {
    let site = Site::new();
    site.certify(&["a.test"]);
    let dead = route(&["a.test"], &[super::dead_end().await]) + "path = \"/dead\"\n";
    let refused = route(&["a.test"], &[super::dead_end().await]) + "deny = [\"0.0.0.0/0\"]\n";
    site.environment.write_routes("a.toml", &(dead + &refused));
    log_as(&site, "json");
    let proxy = site.start();
    for path in ["/dead", "/refused"] {
        site.client().get(&proxy, &format!("https://a.test{path}")).await;
    }
    for (host, path, field) in [
        ("a.test", "/plain", "X: y"),
        ("nobody.test", "/unknown", "X: y"),
        ("a b", "/bad", "X: y"),
        ("a.test", "/coded", "Transfer-Encoding: gzip, chunked"),
        ("a.test", "/ambiguous", "Content-Length: 1, 2"),
    ] {
        let mut wire = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
        wire.write(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{field}\r\n\r\n"
        ))
        .await;
        wire.read_rest().await;
    }
    let (a_test, nobody, null) = (Value::from("a.test"), Value::from("nobody.test"), Value::Null);
    for (path, status, host, route) in [
        ("/dead", 502, &a_test, &a_test),
        ("/refused", 403, &a_test, &a_test),
        ("/plain", 308, &a_test, &a_test),
        ("/unknown", 404, &nobody, &null),
        ("/bad", 400, &null, &null),
        ("/coded", 501, &a_test, &null),
        ("/ambiguous", 400, &a_test, &null),
    ] {
        let line = line_with(proxy.running(), path);
        assert_eq!(line["status"], status, "{line}");
        assert_eq!((&line["host"], &line["route"]), (host, route), "{line}");
        assert_eq!(line["upstream"], Value::Null, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_behind_a_trusted_proxy_is_the_one_that_is_written() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    site.environment
        .write_config("[proxy]\naccess-log = \"combined\"\ntrusted-proxies = [\"127.0.0.1\"]\n");
    let proxy = site.start();
    let request = Request::get("https://a.test/")
        .header("x-forwarded-for", "192.0.2.66, 198.51.100.1")
        .body(body::empty())
        .unwrap();
    site.client().fetch(&proxy, request).await;
    let line = proxy.running().wait_for_output("GET / ");
    assert!(line.starts_with("198.51.100.1 - - ["), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_written_when_the_answer_has_ended_and_counts_what_went_out() {
    let upstream = Upstream::start(|request: Request<_>| async move {
        let (mut sender, streamed) = body::channel();
        tokio::spawn(async move {
            sender.send_data("first".into()).await.unwrap();
            if request.uri().path() == "/open" {
                std::future::pending::<()>().await;
            }
            sender.send_data(" second".into()).await.unwrap();
        });
        Response::new(streamed)
    })
    .await;
    let site = Site::of("a.test", upstream.address());
    log_as(&site, "json");
    let proxy = site.start();
    let mut sender = site.client().h1(&proxy, "a.test").await;
    let mut open = site
        .client()
        .send(&mut sender, get("https://a.test/open"))
        .await
        .into_body();
    body::next_data(&mut open).await.unwrap();
    site.client().get(&proxy, "https://a.test/whole").await;
    assert_eq!(line_with(proxy.running(), "/whole")["bytes"], 12);
    assert_eq!(
        proxy.running().wait_for_output_lines(1),
        1,
        "the other one has not ended"
    );
    drop((open, sender));
    let line = line_with(proxy.running(), "/open");
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &5.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_left_before_the_answer_is_written_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    log_as(&site, "json");
    let proxy = site.start();
    let mut sender = site.client().h2(&proxy, "a.test").await;
    let asking = tokio::spawn(async move { sender.send_request(get("https://a.test/left")).await });
    let mut upstream = within(accept(&listener)).await;
    upstream.read_head().await;
    asking.abort();
    assert_eq!(line_with(proxy.running(), "/left")["status"], 499);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_at_the_end_of_the_proxy_is_written() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    site.environment
        .write_config("[proxy]\naccess-log = \"json\"\ndrain-timeout = \"100ms\"\n");
    let proxy = site.start();
    let mut sender = site.client().h2(&proxy, "a.test").await;
    let asking = tokio::spawn(async move { sender.send_request(get("https://a.test/cut")).await });
    let mut upstream = within(accept(&listener)).await;
    upstream.read_head().await;
    proxy.terminate();
    let (finished, _) = proxy.finish();
    assert!(finished.stdout.contains("\"/cut\""), "{}", finished.stdout);
    assert!(within(asking).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_off_until_a_reload_says_otherwise() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    site.client().get(&proxy, "https://a.test/before").await;
    log_as(&site, "combined");
    proxy.reload();
    site.client().get(&proxy, "https://a.test/after").await;
    proxy.running().wait_for_output("GET /after HTTP/1.1\" 200 1 ");
    assert_eq!(proxy.running().wait_for_output_lines(1), 1);
}

/// Whoever reads the log may stop; nobody who is served notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_takes_holds_no_exchange_up() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    log_as(&site, "json");
    let sockets = Sockets::bind(&site.environment);
    let mut command = activate(&site.environment, sockets.named());
    let (mut taken, output) = std::io::pipe().unwrap();
    let output = FdMapping {
        parent_fd: output.into(),
        child_fd: 1,
    };
    command.fd_mappings(vec![output]).unwrap();
    let proxy = Proxy::start_command(&site.environment, command, sockets);
    let mut sender = site.client().h1(&proxy, "a.test").await;
    // More than a pipe and the proxy's own queue hold.
    let request = || {
        Request::get(format!("https://a.test/{}", "x".repeat(4000)))
            .body(body::empty())
            .unwrap()
    };
    while proxy
        .metrics()
        .contains("fairlead_access_log_lost_lines_total 0\n")
    {
        for _ in 0..100 {
            let response = site.client().send(&mut sender, request()).await;
            assert_eq!(body::read(response.into_body()).await.0, "a");
        }
    }
    std::thread::spawn(move || std::io::copy(&mut taken.by_ref(), &mut std::io::sink()));
    proxy
        .running()
        .wait_for_log("lines of the access log were lost: they came faster than they are taken");
}

/// The filter of the documentation, with lines as they are and as fail2ban sees them in the journal.
#[tokio::test(flavor = "multi_thread")]
async fn fail2ban_finds_who_was_refused_and_nobody_else() {
    let upstream = Upstream::saying("a").await;
    for form in ["combined", "json"] {
        let site = Site::new();
        site.serve_with(&["guarded.test"], &[upstream.address()], USER);
        site.serve(&["open.test"], &[upstream.address()]);
        log_as(&site, form);
        let proxy = site.start();
        site.client().get(&proxy, "https://guarded.test/guarded").await;
        for forged in [
            "x\" 401 1 \"",
            "x\",\"status\":401,\"x\":\"",
            "192.0.2.9 - - [] \"x\" 401 1 \"",
        ] {
            let request = Request::get("https://open.test/").header("user-agent", forged);
            let request = request.body(body::empty()).unwrap();
            site.client().fetch(&proxy, request).await;
        }
        proxy.terminate();
        let lines = proxy.finish().0.stdout;
        for prefix in ["", "host fairlead-access[123]: "] {
            let lines = lines.lines().map(|line| format!("{prefix}{line}\n"));
            let found = search_with_fail2ban(&site, &lines.collect::<String>());
            assert!(
                found.contains("4 lines, 0 ignored, 1 matched, 3 missed"),
                "{found}"
            );
            assert!(found.contains("/guarded"), "{found}");
        }
    }
}

fn search_with_fail2ban(site: &Site, lines: &str) -> String {
    let documentation = include_str!("../../../docs/access-log.md");
    let filter = documentation
        .split("```ini\n")
        .find(|rest| rest.starts_with("[Definition]"))
        .and_then(|rest| rest.split("```").next());
    let directory = site.environment.root();
    for (name, text) in [("filter.conf", filter.unwrap()), ("access.log", lines)] {
        write_atomically(&directory.join(name), text.as_bytes(), 0o644).unwrap();
    }
    let output = Command::new("fail2ban-regex")
        .arg("--print-all-matched")
        .args([directory.join("access.log"), directory.join("filter.conf")])
        .output()
        .expect("fail2ban-regex is there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
