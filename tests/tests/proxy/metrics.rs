//! Metrics as Prometheus wants them, and where it gets them.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use fairlead_contract::write_atomically;
use fairlead_tests::{Proxy, Site, Sockets, Upstream, Wire, activate, ask, route};
use tokio::net::TcpStream;

const DOCUMENTATION: &str = include_str!("../../../docs/metrics.md");

/// A proxy with a socket for Prometheus, that has counted everything once.
async fn busy_proxy(site: &Site) -> (Proxy, SocketAddr) {
    let upstream = Upstream::saying("a").await;
    site.serve(&["a.test"], &[upstream.address()]);
    let dead = route(&["a.test"], &[super::dead_end().await]) + "path = \"/dead\"\n";
    site.environment.write_routes("dead.toml", &dead);
    let sockets = Sockets::bind(&site.environment);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut named = sockets.named();
    named.push(("metrics", listener.into()));
    let command = activate(&site.environment, named);
    let proxy = Proxy::start_command(&site.environment, command, sockets);
    site.client().get(&proxy, "https://a.test/").await;
    site.client().get(&proxy, "https://a.test/dead").await;
    proxy.reload();
    (proxy, address)
}

async fn scrape(address: SocketAddr, path: &str, accept: &str) -> String {
    let stream = std::net::TcpStream::connect(address).unwrap();
    ask(stream, path, &format!("Accept: {accept}\r\n"))
}

fn block(number: usize) -> &'static str {
    let block = DOCUMENTATION.split("```yaml\n").nth(number).unwrap();
    block.split("```").next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_for_prometheus_tells_the_metrics_and_nothing_else() {
    let site = Site::new();
    let (_proxy, address) = busy_proxy(&site).await;
    let metrics = scrape(address, "/metrics", "*/*").await;
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    assert!(metrics.contains("fairlead_requests_total{code=\"200\"} 1\n"));
    for path in ["/status", "/", "/metrics/x"] {
        let answer = scrape(address, path, "*/*").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_gets_the_newer_format_and_everybody_else_the_older() {
    let site = Site::new();
    let (_proxy, address) = busy_proxy(&site).await;
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
    let newer = scrape(address, "/metrics", accept).await;
    assert!(newer.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(newer.contains("# TYPE fairlead_requests counter\n") && newer.ends_with("# EOF\n"));
    let older = scrape(address, "/metrics", "text/plain").await;
    assert!(older.contains("content-type: text/plain; version=0.0.4"));
    assert!(older.contains("# TYPE fairlead_requests_total counter\n") && !older.contains("# EOF"));
    let samples = |text: &str| -> BTreeSet<String> {
        let body = text.split_once("\r\n\r\n").unwrap().1;
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .collect()
    };
    assert_eq!(samples(&newer), samples(&older));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_in_the_documentation_and_no_other() {
    let site = Site::new();
    let (_proxy, address) = busy_proxy(&site).await;
    let older = scrape(address, "/metrics", "text/plain").await;
    let told = older.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let told: BTreeSet<_> = told.map(|line| line.replacen(' ', " | ", 1)).collect();
    let documented = DOCUMENTATION.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<_> = documented
        .map(|line| line.replacen('`', "", 1))
        .map(|line| line.split(['|', ',']).take(2).collect::<Vec<_>>().join("|"))
        .map(|line| line.trim().to_owned())
        .collect();
    assert_eq!(told, documented);
}

/// A scraper that hangs takes nothing from the sites, and not for ever from other scrapers.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_to_it_are_limited_and_end() {
    let site = Site::new();
    let (proxy, address) = busy_proxy(&site).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(Wire::new(TcpStream::connect(address).await.unwrap()));
    }
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
    let descriptors = format!("/proc/{}/fd", proxy.running().pid());
    let descriptors = std::fs::read_dir(descriptors).unwrap().count();
    assert!(descriptors < 150, "{descriptors}");
    assert_eq!(idle[0].read_rest().await, "", "closed for want of a request");
}

/// `promtool` knows the conventions for names, units and help.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs promtool, of Debian's package prometheus"]
async fn promtool_finds_no_fault() {
    let site = Site::new();
    let (_proxy, address) = busy_proxy(&site).await;
    let older = scrape(address, "/metrics", "text/plain").await;
    let metrics = older.split_once("\r\n\r\n").unwrap().1;
    for (arguments, input) in [
        ("check metrics", metrics.to_owned()),
        ("check config", block(1).to_owned()),
        ("check rules", block(2).to_owned()),
    ] {
        let file = site.environment.root().join("checked");
        write_atomically(&file, input.as_bytes(), 0o644).unwrap();
        let mut command = Command::new("promtool");
        command.args(arguments.split(' '));
        if arguments == "check metrics" {
            command.stdin(Stdio::from(std::fs::File::open(&file).unwrap()));
        } else {
            command.arg(&file);
        }
        let output = command.output().expect("promtool is there");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments}: {said}\n{input}");
    }
}
