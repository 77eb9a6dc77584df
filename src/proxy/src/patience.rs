use std::future::{Pending, pending};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Timeout, timeout};

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
