//! Upstreams that are asked whether they are well.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fairlead_tests::{Proxy, Site, Upstream, body, get};
use http::{Response, StatusCode};

/// An answer has as long as the interval: on a busy machine the test itself is late by tenths of a second.
const CHECKED: &str = "health-check = { path = \"/healthz?full\", interval = \"1s\" }\n";
const SAID_UNWELL: &str = "the upstream is not well: it answers with 503";

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_says_it_is_not_well_gets_no_requests_until_it_says_it_is() {
    let one = Patient::start("one").await;
    let other = Patient::start("other").await;
    let site = Site::new();
    site.serve_with(&["a.test"], &[one.address, other.address], CHECKED);
    let proxy = site.start();
    assert_eq!(
        who_answers(&site, &proxy).await,
        BTreeSet::from(["one".into(), "other".into()])
    );

    one.is_well.store(false, Ordering::SeqCst);
    proxy.running().wait_for_log(SAID_UNWELL);
    assert_eq!(who_answers(&site, &proxy).await, BTreeSet::from(["other".into()]));
    // That it answers requests does not make it well, and neither does a reload.
    proxy.reload();
    assert_eq!(who_answers(&site, &proxy).await, BTreeSet::from(["other".into()]));

    one.is_well.store(true, Ordering::SeqCst);
    proxy.running().wait_for_log("the upstream is well again");
    assert_eq!(
        who_answers(&site, &proxy).await,
        BTreeSet::from(["one".into(), "other".into()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_another_upstream_one_that_is_not_well_is_better_than_none() {
    let one = Patient::start("one").await;
    let site = Site::new();
    site.serve_with(&["a.test"], &[one.address], CHECKED);
    let proxy = site.start();
    one.is_well.store(false, Ordering::SeqCst);
    proxy.running().wait_for_log(SAID_UNWELL);
    assert_eq!(who_answers(&site, &proxy).await, BTreeSet::from(["one".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_said_is_forgotten_when_it_is_not_asked_any_more() {
    let one = Patient::start("one").await;
    let other = Patient::start("other").await;
    let site = Site::new();
    site.serve_with(&["a.test"], &[one.address, other.address], CHECKED);
    let proxy = site.start();
    one.is_well.store(false, Ordering::SeqCst);
    proxy.running().wait_for_log(SAID_UNWELL);
    site.serve(&["a.test"], &[one.address, other.address]);
    proxy.reload();
    assert_eq!(
        who_answers(&site, &proxy).await,
        BTreeSet::from(["one".into(), "other".into()])
    );
}

/// An upstream that answers with its name, and to checks as it is.
struct Patient {
    address: SocketAddr,
    is_well: Arc<AtomicBool>,
}

impl Patient {
    async fn start(name: &'static str) -> Self {
        let is_well = Arc::new(AtomicBool::new(true));
        let answer = is_well.clone();
        let upstream = Upstream::start(move |request| {
            let is_well = answer.load(Ordering::SeqCst);
            async move {
                let is_check = request.uri().path() == "/healthz";
                let is_as_expected =
                    request.uri().query() == Some("full") && request.headers()["host"] == "a.test";
                let mut response = Response::new(body::full(name));
                if is_check && !(is_well && is_as_expected) {
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                }
                response
            }
        });
        Self {
            address: upstream.await.address(),
            is_well,
        }
    }
}

/// Enough requests that each upstream in use answers one.
async fn who_answers(site: &Site, proxy: &Proxy) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let client = site.client();
    let mut connection = client.h1(proxy, "a.test").await;
    for _ in 0..40 {
        let response = client.send(&mut connection, get("https://a.test/")).await;
        names.insert(body::read(response.into_body()).await.0);
    }
    names
}
