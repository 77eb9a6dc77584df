//! How the body of a request gets on, seen from who waits for the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// A body on its way to an upstream.
pub(crate) struct Upload {
    /// Ends with the body, however that ends.
    sent: oneshot::Receiver<()>,
    is_owed: bool,
    course: Arc<Course>,
}

/// What the body itself tells of that.
pub(crate) struct UploadTeller {
    course: Arc<Course>,
    _unsent: oneshot::Sender<()>,
}

#[derive(Default)]
struct Course {
    frames: AtomicU64,
    waits_for_client: AtomicBool,
}

/// Nothing moved for as long as that is allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stalled {
    Client,
    Upstream,
}

impl Upload {
    /// `is_owed`: the client has to go on, and is not just free to.
    pub(crate) fn new(is_owed: bool) -> (Self, UploadTeller) {
        let (unsent, sent) = oneshot::channel();
        let course = Arc::new(Course::default());
        let teller = UploadTeller {
            course: course.clone(),
            _unsent: unsent,
        };
        let upload = Self {
            sent,
            is_owed,
            course,
        };
        (upload, teller)
    }

    /// Waits until the body has been sent, or will never be. It may take its time as long as it moves; that
    /// it does not is noticed after one to two limits.
    pub(crate) async fn over(&mut self, limit: Duration) -> Result<(), Stalled> {
        loop {
            let before = self.course.frames.load(Ordering::Relaxed);
            if timeout(limit, &mut self.sent).await.is_ok() {
                return Ok(());
            }
            if self.is_owed && self.course.frames.load(Ordering::Relaxed) == before {
                return Err(self.who_stalled());
            }
        }
    }

    fn who_stalled(&self) -> Stalled {
        if self.course.waits_for_client.load(Ordering::Relaxed) {
            Stalled::Client
        } else {
            Stalled::Upstream
        }
    }
}

impl UploadTeller {
    pub(crate) fn waits_for_client(&self) {
        self.course.waits_for_client.store(true, Ordering::Relaxed);
    }

    pub(crate) fn moved(&self) {
        self.course.waits_for_client.store(false, Ordering::Relaxed);
        self.course.frames.fetch_add(1, Ordering::Relaxed);
    }
}
