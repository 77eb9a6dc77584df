use std::sync::Arc;

use http::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::handshake::HandshakeError;
use crate::snapshot::Snapshot;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposition {
    OpenMetrics,
    /// The older format of Prometheus, which everything else reads.
    Text,
}

impl Exposition {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What the proxy counts. Labels come from us alone: no client can make a new one.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    requests: Family<Code, Counter>,
    failed_exchanges: Family<Code, Counter>,
    handshakes: Family<Handshake, Counter>,
    reloads: Family<Reload, Counter>,
    connections: Gauge,
    lost_lines: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Code {
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Handshake {
    outcome: HandshakeOutcome,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
enum HandshakeOutcome {
    ok,
    unknown_name,
    failed,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Stored {
    certificate: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reload {
    outcome: ReloadOutcome,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
enum ReloadOutcome {
    ok,
    refused,
}

impl Metrics {
    pub(crate) fn request(&self, status: StatusCode) {
        self.requests
            .get_or_create(&Code {
                code: status.as_u16(),
            })
            .inc();
    }

    pub(crate) fn failed_exchange(&self, status: StatusCode) {
        self.failed_exchanges
            .get_or_create(&Code {
                code: status.as_u16(),
            })
            .inc();
    }

    pub(crate) fn handshake<T>(&self, result: &Result<T, HandshakeError>) {
        let outcome = match result {
            Ok(_) => HandshakeOutcome::ok,
            Err(HandshakeError::UnknownName(_) | HandshakeError::NoName) => HandshakeOutcome::unknown_name,
            Err(_) => HandshakeOutcome::failed,
        };
        self.handshakes.get_or_create(&Handshake { outcome }).inc();
    }

    pub(crate) fn reload(&self, is_loaded: bool) {
        let outcome = if is_loaded {
            ReloadOutcome::ok
        } else {
            ReloadOutcome::refused
        };
        self.reloads.get_or_create(&Reload { outcome }).inc();
    }

    pub(crate) fn lose_lines(&self, count: u64) {
        self.lost_lines.inc_by(count);
    }

    pub(crate) fn lost_lines(&self) -> u64 {
        self.lost_lines.get()
    }

    /// What was counted, and what `snapshot` holds.
    pub(crate) fn render(
        &self,
        snapshot: &Snapshot,
        exposition: Exposition,
    ) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("fairlead");
        self.register(&mut registry);
        register_snapshot(&mut registry, snapshot);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(match exposition {
            Exposition::OpenMetrics => text,
            Exposition::Text => without_families(&text),
        })
    }

    fn register(&self, registry: &mut Registry) {
        let Self {
            requests,
            failed_exchanges,
            handshakes,
            reloads,
            connections,
            lost_lines,
        } = self.clone();
        registry.register("requests", "Requests answered, by status code", requests);
        registry.register(
            "failed_exchanges",
            "Requests an upstream did not answer, by the code of our page",
            failed_exchanges,
        );
        registry.register("tls_handshakes", "TLS handshakes, by outcome", handshakes);
        registry.register("reloads", "Reloads since the start, by outcome", reloads);
        registry.register("connections", "Connections that are open", connections);
        registry.register(
            "access_log_lost_lines",
            "Lines of the access log that could not be written",
            lost_lines,
        );
    }
}

fn register_snapshot(registry: &mut Registry, snapshot: &Snapshot) {
    let gauge = |value: i64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        gauge
    };
    let count = |number: usize| gauge(i64::try_from(number).unwrap_or(i64::MAX));
    let loaded = &snapshot.loaded;
    let build = Family::<Build, Gauge>::default();
    let version = env!("CARGO_PKG_VERSION");
    build.get_or_create(&Build { version }).set(1);
    registry.register("build_info", "The proxy that runs", build);
    registry.register("routes", "Routes that are loaded", count(loaded.routes));
    registry.register(
        "containers_left_out",
        "Containers that asked for a route and got none, or not all of it",
        count(loaded.containers_left_out),
    );
    registry.register(
        "certificates",
        "Certificates that are loaded",
        count(loaded.certificates),
    );
    registry.register(
        "loaded_timestamp_seconds",
        "When the present snapshot was loaded",
        gauge(loaded.at.as_second()),
    );
    let ends = Family::<Stored, Gauge>::default();
    for certificate in snapshot.certificates() {
        let stored = Stored {
            certificate: certificate.name(),
        };
        ends.get_or_create(&stored).set(certificate.not_after.as_second());
    }
    registry.register(
        "certificate_not_after_timestamp_seconds",
        "Until when a certificate that is loaded is valid",
        ends,
    );
}

/// In the older format a counter has one name, that of its samples, and a text has no end.
fn without_families(openmetrics: &str) -> String {
    let counters: Vec<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let rename = |line: &str| {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => None,
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(&name) => {
                Some(format!("# {kind} {name}_total {rest}\n"))
            }
            _ => Some(format!("{line}\n")),
        }
    };
    openmetrics.lines().filter_map(rename).collect()
}

/// Counts a connection while it is open.
pub(crate) struct Open(Arc<Metrics>);

impl Open {
    pub(crate) fn count(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(metrics.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
