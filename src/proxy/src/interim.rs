//! Interim responses (RFC 9110 15.2), on their way from an upstream to who writes them to the client.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::BytesMut;
use futures_util::task::AtomicWaker;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use tokio::sync::mpsc;

use crate::headers::strip_hop_by_hop;

/// More at once are not kept: an upstream could send them without end.
const MAX_WAITING: usize = 16;

/// What an upstream says before its answer, without the fields that hold for its connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InterimResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

impl From<InterimResponse> for Response<()> {
    fn from(InterimResponse { status, headers }: InterimResponse) -> Self {
        let mut response = Self::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

impl InterimResponse {
    /// 100, which says nothing to who does not wait for it.
    pub(crate) fn proceed() -> Self {
        Self {
            status: StatusCode::CONTINUE,
            headers: HeaderMap::new(),
        }
    }

    /// What it takes to keep it, as HTTP/2 counts (RFC 9113 10.5.1).
    pub(crate) fn size(&self) -> usize {
        const OF_FIELD: usize = 32;
        let fields = self.headers.iter();
        let sizes = fields.map(|(name, value)| name.as_str().len() + value.len() + OF_FIELD);
        OF_FIELD + sizes.sum::<usize>()
    }

    /// As HTTP/1.1 has it (RFC 9112 4).
    pub(crate) fn write_to(&self, bytes: &mut BytesMut) {
        let reason = self.status.canonical_reason().unwrap_or_default();
        for part in ["HTTP/1.1 ", self.status.as_str(), " ", reason, "\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        for (name, value) in &self.headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
    }
}

/// The interim responses of one exchange.
#[derive(Default)]
pub(crate) struct Interim(Arc<Queue>);

#[derive(Default)]
struct Queue {
    /// So that looking costs nothing when nothing is there.
    is_waiting: AtomicBool,
    waiting: Mutex<VecDeque<InterimResponse>>,
    writer: AtomicWaker,
}

impl Interim {
    /// Where the exchange leaves what its upstream sends.
    pub(crate) fn sender(&self) -> InterimSender {
        InterimSender {
            queue: self.0.clone(),
            says_continue: false,
        }
    }

    /// The next to write; `writer` is woken when there is another.
    pub(crate) fn take(&self, writer: &Waker) -> Option<InterimResponse> {
        self.0.writer.register(writer);
        if !self.0.is_waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut waiting = self.0.lock();
        let next = waiting.pop_front();
        self.0.is_waiting.store(!waiting.is_empty(), Ordering::Release);
        next
    }
}

/// Takes the interim responses of one exchange.
#[derive(Clone)]
pub(crate) struct InterimSender {
    queue: Arc<Queue>,
    says_continue: bool,
}

impl InterimSender {
    /// 100 (Continue) too: nobody else says it when a body is asked for.
    pub(crate) fn saying_continue(self) -> Self {
        Self {
            says_continue: true,
            ..self
        }
    }

    /// Sends 100 (Continue), where the body does not when it is asked for.
    pub(crate) fn send_continue(&self) {
        if self.says_continue {
            self.send(StatusCode::CONTINUE, &HeaderMap::new());
        }
    }

    pub(crate) fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let mut headers = headers.clone();
        strip_hop_by_hop(&mut headers);
        // It has no content (RFC 9110 8.6).
        headers.remove(CONTENT_LENGTH);
        let mut waiting = self.queue.lock();
        if waiting.len() == MAX_WAITING {
            return;
        }
        waiting.push_back(InterimResponse { status, headers });
        self.queue.is_waiting.store(true, Ordering::Release);
        self.queue.writer.wake();
    }
}

/// Hears what an upstream says before its answer.
#[derive(Clone)]
pub(crate) struct Hearing {
    /// Opens the gate before a body, if there is one.
    opener: Option<mpsc::Sender<()>>,
    client: Option<InterimSender>,
}

impl Hearing {
    /// `None` if nothing that is said would matter.
    pub(crate) fn new(opener: Option<mpsc::Sender<()>>, client: Option<InterimSender>) -> Option<Self> {
        (opener.is_some() || client.is_some()).then_some(Self { opener, client })
    }

    /// Whether the body waits for the upstream to ask for it.
    pub(crate) fn holds_body_back(&self) -> bool {
        self.opener.as_ref().is_some_and(|opener| !opener.is_closed())
    }

    /// Passes an interim response on, but for 100 (Continue), which opens the gate. 101 has no place here: it
    /// is the answer itself in HTTP/1.1, and unknown to HTTP/2 (RFC 9113 8.6).
    pub(crate) fn hear(&self, status: StatusCode, headers: &HeaderMap) {
        match (status, &self.opener, &self.client) {
            (StatusCode::SWITCHING_PROTOCOLS, ..) => {}
            (StatusCode::CONTINUE, Some(opener), client) => {
                // Full means it is open already.
                if opener.try_send(()).is_ok()
                    && let Some(client) = client
                {
                    client.send_continue();
                }
            }
            (_, _, Some(client)) => client.send(status, headers),
            _ => {}
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<InterimResponse>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
