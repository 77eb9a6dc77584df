//! What the admin socket tells.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_contract::Files;
use fairlead_tests::{Site, Upstream, Wire, route, wait_until};
use tokio::net::UnixStream;

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_what_is_loaded_by_hash() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    site.environment.write_config("# nothing\n");
    site.environment
        .write_discovery(&route(&["b.test", "*.b.test"], &[upstream.address()]));
    let proxy = site.start();
    let status = proxy.status();
    assert_eq!(status.pid, proxy.running().pid());
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(status.reloads, 0);
    assert_eq!(status.refusal, None);
    assert!(status.started <= status.loaded.at, "{status:?}");
    assert_eq!(
        status.loaded.files,
        Files::read(site.environment.paths()).digests()
    );
    assert_eq!((status.loaded.routes, status.loaded.certificates), (2, 1));
    let without: BTreeSet<_> = status
        .loaded
        .names_without_certificate
        .iter()
        .map(String::as_str)
        .collect();
    assert_eq!(without, ["b.test", "*.b.test"].into());
    assert_eq!(status.loaded.notes, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_and_methods_get_an_error() {
    let site = Site::new();
    let proxy = site.start();
    for (request, status) in [
        ("GET /", "404"),
        ("GET /status/x", "404"),
        ("POST /status", "405"),
        ("GET /metrics/", "404"),
    ] {
        let mut wire = Wire::new(UnixStream::connect(proxy.admin_socket()).await.unwrap());
        wire.write(format!(
            "{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        let head = wire.read_head().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {head}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_follow_the_exposition_format_and_the_naming_rules() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    site.client().get(&proxy, "https://a.test/").await;
    let metrics = Metrics::parse(&proxy.metrics());
    assert!(metrics.samples.len() > 5, "{metrics:?}");
    for name in metrics.kinds.keys() {
        assert!(name.starts_with("fairlead_"), "{name}");
        assert!(metrics.helped.contains(name), "{name} has no help");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_requests_handshakes_and_reloads() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let client = site.client();
    for _ in 0..3 {
        client.get(&proxy, "https://a.test/").await;
    }
    client.connect(proxy.https(), "b.test", &[]).await.unwrap_err();
    // The proxy counts it when it has seen the client go.
    wait_until("a refused handshake in the metrics", || {
        let metrics = Metrics::parse(&proxy.metrics());
        metrics.sum("fairlead_tls_handshakes_total", &["unknown"]) == 1.0
    });
    proxy.reload();
    site.environment.write_config("nonsense");
    proxy.reload();
    let metrics = Metrics::parse(&proxy.metrics());
    assert_eq!(metrics.sum("fairlead_requests_total", &["2"]), 3.0, "{metrics:?}");
    assert!(
        metrics.sum("fairlead_tls_handshakes_total", &["ok"]) >= 3.0,
        "{metrics:?}"
    );
    assert_eq!(metrics.sum("fairlead_reloads_total", &["ok"]), 1.0, "{metrics:?}");
    assert_eq!(
        metrics.sum("fairlead_reloads_total", &["refused"]),
        1.0,
        "{metrics:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_when_each_certificate_ends() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let ends = |name| {
        let metrics = Metrics::parse(&proxy.metrics());
        metrics.sum("fairlead_certificate_not_after_timestamp_seconds", &[name])
    };
    assert!(ends("a.test") > 1e9);
    site.environment.write_routes("b.test.toml", "");
    site.certify(&["b.test"]);
    std::fs::remove_dir_all(site.environment.paths().certificates_dir().join("a.test")).unwrap();
    proxy.reload();
    assert!(ends("b.test") > 0.0);
    assert_eq!(ends("a.test"), 0.0, "what is not loaded is not told");
}

/// A client chooses Host and SNI freely; it must not be able to make series.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_make_metrics_grow() {
    let site = Site::of("*.w.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    site.client().get(&proxy, "https://first.w.test/").await;
    let before = Metrics::parse(&proxy.metrics()).samples.len();
    for name in ["one", "two", "three"] {
        site.client()
            .get(&proxy, &format!("https://{name}.w.test/{name}"))
            .await;
    }
    let text = proxy.metrics();
    assert_eq!(Metrics::parse(&text).samples.len(), before, "{text}");
}

/// The OpenMetrics text format, as far as it is needed to reject what Prometheus would reject.
#[derive(Debug, Default)]
struct Metrics {
    kinds: BTreeMap<String, String>,
    helped: BTreeSet<String>,
    samples: Vec<(String, f64)>,
}

impl Metrics {
    fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        let content = text
            .strip_suffix("# EOF\n")
            .expect("the exposition ends with # EOF");
        for line in content.lines() {
            metrics.read(line);
        }
        let series: BTreeSet<_> = metrics.samples.iter().map(|(series, _)| series).collect();
        assert_eq!(
            series.len(),
            metrics.samples.len(),
            "a series stands twice:\n{text}"
        );
        metrics
    }

    fn read(&mut self, line: &str) {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", name, kind] => drop(self.kinds.insert(name.to_owned(), kind.to_owned())),
            ["#", "HELP", name, _] => drop(self.helped.insert(name.to_owned())),
            ["#", "UNIT", name, unit] => assert!(name.ends_with(unit), "{line}"),
            _ => self.read_sample(line),
        }
    }

    fn read_sample(&mut self, line: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        let name = series.split('{').next().unwrap_or_default();
        let declared = |(known, kind): (&String, &String)| {
            name == known
                || (name.starts_with(known.as_str()) && (kind != "counter" || name.ends_with("_total")))
        };
        assert!(self.kinds.iter().any(declared), "{line} has no TYPE before it");
        self.samples
            .push((series.to_owned(), value.parse().expect("a value is a number")));
    }

    /// The sum over a metric's series that have, for each of `values`, a label starting with it.
    fn sum(&self, name: &str, values: &[&str]) -> f64 {
        let is_meant = |series: &str| {
            series.starts_with(name) && values.iter().all(|value| series.contains(&format!("=\"{value}")))
        };
        self.samples
            .iter()
            .filter(|(series, _)| is_meant(series))
            .map(|(_, value)| value)
            .sum()
    }
}
