//! The access log: a line for each exchange, written when the exchange has ended.

mod line;
mod sink;

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairlead_contract::{AccessLog as Form, Host, HostPattern, Proxy};
use http::header::{HeaderMap, HeaderName, REFERER, USER_AGENT};
use http::{Method, Request, Response, Version};
use http_body::{Body, Frame};
use jiff::Timestamp;

use crate::access_log::line::Line;
use crate::access_log::sink::{Sink, pump};
use crate::authority::path_and_query;
use crate::body::{ReplyBody, ReplyBodyError};
use crate::caller::Caller;
use crate::metrics::Metrics;
use crate::pool::Peer;
use crate::service::Client;
use crate::snapshot::Site;

/// Lines that wait to be written; further ones are lost, because no exchange waits for them.
const MAX_WAITING: usize = 4096;
/// How long the end of the program waits for lines to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Who left before there was an answer; nginx made the number known.
const CLIENT_LEFT: u16 = 499;
/// More of a field is not kept, so that a line stays one entry of the journal however it is escaped.
const MAX_PATH: usize = 4096;
const MAX_FIELD: usize = 1024;
const MAX_METHOD: usize = 64;

/// Where the records of exchanges go. There is no writer before the first one.
#[derive(Clone)]
pub(crate) struct AccessLog(Arc<Inner>);

struct Inner {
    writer: OnceLock<SyncSender<Message>>,
    metrics: Arc<Metrics>,
}

/// What the writer is told.
enum Message {
    Line(Form, Box<Line>),
    /// Everything before this is to be written.
    Finish(SyncSender<()>),
}

impl AccessLog {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            writer: OnceLock::new(),
            metrics,
        }))
    }

    /// `None` if nothing is to be written.
    pub(crate) fn begin<B>(&self, settings: &Proxy, client: &Client, request: &Request<B>) -> Option<Record> {
        if settings.access_log == Form::Off {
            return None;
        }
        let caller = Caller::find(client, request.headers(), &settings.trusted_proxies);
        Some(Record(Box::new(Facts {
            log: self.clone(),
            form: settings.access_log,
            began: Instant::now(),
            client: caller.address,
            scheme: caller.scheme(),
            method: request.method().clone(),
            path: bounded(path_and_query(request.uri()), MAX_PATH),
            version: request.version(),
            referer: field(request.headers(), &REFERER),
            user_agent: field(request.headers(), &USER_AGENT),
            host: OnceLock::new(),
            site: OnceLock::new(),
            upstream: OnceLock::new(),
            status: CLIENT_LEFT,
            bytes: 0,
        })))
    }

    /// Returns when the lines that wait are written, or cannot be written soon.
    pub(crate) fn finish(&self) {
        let (done, is_done) = sync_channel(1);
        if let Some(writer) = self.0.writer.get()
            && writer.try_send(Message::Finish(done)).is_ok()
        {
            // Without an answer the lines are lost, and there is nobody left to tell.
            let _ = is_done.recv_timeout(LAST_WORDS);
        }
    }

    fn write(&self, form: Form, line: Line) {
        let writer = self.0.writer.get_or_init(|| self.start_writer());
        if writer.try_send(Message::Line(form, Box::new(line))).is_err() {
            self.0.metrics.lose_lines(1);
        }
    }

    /// If there can be no thread, every line counts as lost.
    fn start_writer(&self) -> SyncSender<Message> {
        let (writer, messages) = sync_channel(MAX_WAITING);
        let metrics = self.0.metrics.clone();
        let write = move |messages: Receiver<Message>| pump(&messages, Sink::open(), &metrics);
        let _ = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(messages));
        writer
    }
}

/// One exchange, as far as it is known. It has ended when this is dropped, and is written then.
pub(crate) struct Record(Box<Facts>);

struct Facts {
    log: AccessLog,
    form: Form,
    began: Instant,
    client: IpAddr,
    scheme: &'static str,
    method: Method,
    path: String,
    version: Version,
    referer: Option<String>,
    user_agent: Option<String>,
    host: OnceLock<Host>,
    site: OnceLock<Arc<Site>>,
    upstream: OnceLock<Arc<Peer>>,
    status: u16,
    bytes: u64,
}

impl Record {
    pub(crate) fn host(&self, host: &Host) {
        let _ = self.0.host.set(host.clone());
    }

    pub(crate) fn route(&self, site: &Arc<Site>) {
        let _ = self.0.site.set(site.clone());
    }

    pub(crate) fn upstream(&self, peer: &Arc<Peer>) {
        let _ = self.0.upstream.set(peer.clone());
    }

    /// Goes with the response to its end.
    pub(crate) fn accompany(mut self, response: Response<ReplyBody>) -> Response<ReplyBody> {
        self.0.status = response.status().as_u16();
        response.map(|body| ReplyBody::Accounted(Box::new(Accounted { body, record: self })))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.0.log.write(self.0.form, self.0.line());
    }
}

impl Facts {
    fn line(&self) -> Line {
        let primary = |site: &Arc<Site>| site.route.primary().map(HostPattern::to_string);
        Line {
            time: Timestamp::now(),
            client: self.client,
            method: bounded(self.method.as_str(), MAX_METHOD),
            scheme: self.scheme,
            host: self.host.get().map(Host::to_string),
            path: self.path.clone(),
            protocol: format!("{:?}", self.version),
            status: self.status,
            bytes: self.bytes,
            duration: self.began.elapsed(),
            referer: self.referer.clone(),
            user_agent: self.user_agent.clone(),
            route: self.site.get().and_then(primary),
            upstream: self.upstream.get().map(|peer| peer.url().to_string()),
        }
    }
}

/// A response's body, counted as it goes out.
pub(crate) struct Accounted {
    pub(crate) body: ReplyBody,
    record: Record,
}

impl Accounted {
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyBodyError>>> {
        let frame = ready!(Body::poll_frame(std::pin::Pin::new(&mut self.body), context));
        if let Some(Ok(frame)) = &frame {
            self.record.0.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }
}

fn field(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.as_bytes();
    let kept = &value[..value.len().min(MAX_FIELD)];
    Some(bounded(&String::from_utf8_lossy(kept), MAX_FIELD))
}

fn bounded(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log whose writer has stopped writing, with room for one line.
    fn stalled() -> (AccessLog, Receiver<Message>) {
        let log = AccessLog::new(Arc::default());
        let (writer, messages) = sync_channel(1);
        log.0.writer.set(writer).ok().unwrap();
        (log, messages)
    }

    fn begin(log: &AccessLog, form: Form) -> Option<Record> {
        let settings = Proxy {
            access_log: form,
            ..Proxy::default()
        };
        let client = Client::new(
            "192.0.2.1:1".parse().unwrap(),
            "192.0.2.2:443".parse().unwrap(),
            None,
        );
        let request = Request::get("/a").header(REFERER, "x".repeat(5000));
        log.begin(&settings, &client, &request.body(()).unwrap())
    }

    #[test]
    fn a_line_that_cannot_wait_is_lost_and_counted() {
        let (log, messages) = stalled();
        for _ in 0..3 {
            drop(begin(&log, Form::Json));
        }
        assert_eq!(log.0.metrics.lost_lines(), 2);
        let Ok(Message::Line(Form::Json, line)) = messages.try_recv() else {
            panic!("the first line waits");
        };
        assert_eq!((line.status, line.path.as_str()), (499, "/a"));
        assert_eq!(line.referer.map(|referer| referer.len()), Some(MAX_FIELD));
    }

    #[test]
    fn nothing_is_recorded_if_nothing_is_to_be_written() {
        let (log, messages) = stalled();
        assert!(begin(&log, Form::Off).is_none());
        assert!(messages.try_recv().is_err());
    }
}
