use std::sync::Arc;

use http::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::handshake::HandshakeError;

/// What the proxy counts. Labels come from us alone: no client can make a new one.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    requests: Family<Code, Counter>,
    failed_exchanges: Family<Code, Counter>,
    handshakes: Family<Handshake, Counter>,
    reloads: Family<Reload, Counter>,
    pub(crate) connections: Gauge,
    routes: Gauge,
    certificates: Gauge,
    loaded: Gauge,
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

    pub(crate) fn snapshot(&self, loaded: &fairlead_contract::Loaded) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.routes.set(count(loaded.routes));
        self.certificates.set(count(loaded.certificates));
        self.loaded.set(loaded.at.as_second());
    }

    /// The text format that Prometheus reads.
    pub(crate) fn render(&self) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("fairlead");
        let Self {
            requests,
            failed_exchanges,
            handshakes,
            reloads,
            connections,
            routes,
            certificates,
            loaded,
        } = self.clone();
        registry.register("requests", "Requests answered, by status code", requests);
        registry.register(
            "failed_exchanges",
            "Requests an upstream did not answer, by the code of our page",
            failed_exchanges,
        );
        registry.register("tls_handshakes", "TLS handshakes, by outcome", handshakes);
        registry.register("reloads", "Snapshots made since the start, by outcome", reloads);
        registry.register("connections", "Connections that are open", connections);
        registry.register("routes", "Routes that are loaded", routes);
        registry.register("certificates", "Certificates that are loaded", certificates);
        registry.register(
            "loaded_timestamp_seconds",
            "When the present snapshot was loaded",
            loaded,
        );
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
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
