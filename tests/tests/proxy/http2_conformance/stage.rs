//! A proxy and an upstream that records what reached it.

use std::future::pending;
use std::sync::{Arc, Mutex};

use fairlead_tests::{Body, Proxy, Site, Upstream, body};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Notify;

pub(super) struct Stage {
    pub(super) site: Site,
    pub(super) proxy: Proxy,
    pub(super) upstream: Arc<Recorder>,
}

/// What came to the upstream.
#[derive(Default)]
pub(super) struct Recorder {
    begun: Mutex<Vec<String>>,
    whole: Mutex<Vec<String>>,
    /// Lets one request to `/waiting` be answered.
    pub(super) release: Notify,
}

impl Stage {
    pub(super) async fn new() -> Self {
        let recorder = Arc::new(Recorder::default());
        let recording = recorder.clone();
        let upstream = Upstream::start(move |request| recording.clone().answer(request)).await;
        let site = Site::of("a.test", upstream.address());
        let proxy = site.start();
        Self {
            site,
            proxy,
            upstream: recorder,
        }
    }
}

impl Recorder {
    /// The heads of the requests that came since this was asked last, and those that came to their end, each
    /// with its body. The questions whether a connection lives are left out.
    pub(super) fn take(&self) -> (Vec<String>, Vec<String>) {
        let take = |requests: &Mutex<Vec<String>>| {
            let mut taken = std::mem::take(&mut *requests.lock().unwrap());
            taken.retain(|request| !request.starts_with("GET /alive"));
            taken
        };
        (take(&self.begun), take(&self.whole))
    }

    /// `/held` never gets an answer, `/unread` one before its body was read, `/waiting` one when it is released,
    /// `/ten` ten bytes, and `/large` a hundred thousand; of all others the body is read.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let head = describe(&request);
        self.begun.lock().unwrap().push(head.clone());
        let content = match request.uri().path() {
            "/held" => pending().await,
            "/unread" => return Response::new(body::empty()),
            "/waiting" => {
                self.release.notified().await;
                body::empty()
            }
            "/ten" => body::full("0123456789"),
            "/large" => body::full("x".repeat(100_000)),
            _ => body::empty(),
        };
        if let Ok(body) = request.into_body().collect().await {
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            self.whole.lock().unwrap().push(head + &body);
        }
        Response::new(content)
    }
}

fn describe(request: &Request<Incoming>) -> String {
    let fields = request.headers().iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        format!("{name}: {value}\n")
    });
    let fields = fields.collect::<String>();
    format!("{} {}\n{fields}\n", request.method(), request.uri())
}
