use std::future::{Pending, pending};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, Timeout, sleep_until, timeout};

/// A limit on one wait. There is no timer before there is a wait: most things do not let anybody wait.
#[derive(Default)]
pub(crate) struct Patience(Option<Pin<Box<Timeout<Pending<()>>>>>);

impl Patience {
    /// Ready when this has been asked for as long as `limit`.
    pub(crate) fn poll(&mut self, limit: Duration, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(timeout(limit, pending())));
        timer.as_mut().poll(context).map(|_elapsed| ())
    }

    /// The wait is over; the next one has the whole limit again.
    pub(crate) fn renew(&mut self) {
        self.0 = None;
    }
}

/// A limit that is put off more often than it is reached: its timer is set anew only when it goes off too early.
pub(crate) struct Deadline {
    at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    /// In so much time.
    pub(crate) fn new(limit: Duration) -> Self {
        let at = Instant::now() + limit;
        Self {
            at,
            timer: Box::pin(sleep_until(at)),
        }
    }

    /// From now on in so much time.
    pub(crate) fn put_off(&mut self, limit: Duration) {
        self.at = Instant::now() + limit;
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            // A task that has done much would be told that there is time left, for the time being.
            ready!(pin!(unconstrained(&mut self.timer)).poll(context));
            if self.timer.deadline() >= self.at {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.at);
        }
    }
}
