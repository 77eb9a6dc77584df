//! A client that has ended its side of the connection while an exchange is under way. It may have done so
//! because it says nothing more, and still read (RFC 9112 9.6); or it is gone. Only what is sent to it shows
//! which: the system of one that is gone refuses that.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::patience::Patience;

/// Between two looks. The first thing that is sent is only refused, which the second one finds out; both have to
/// happen within a second.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(300);

pub(crate) struct HalfClosed {
    pause: Patience,
    /// So many bytes had been sent to it at the last look.
    sent: u64,
}

impl HalfClosed {
    pub(crate) fn new(sent: u64) -> Self {
        Self {
            pause: Patience::default(),
            sent,
        }
    }

    /// Waits for the next look. Tells whether something has been sent since the last one, so that no more needs to
    /// be done.
    pub(crate) fn poll_look(&mut self, sent: u64, context: &mut Context<'_>) -> Poll<bool> {
        ready!(self.pause.poll(LOOK_INTERVAL, context));
        let has_moved = sent != self.sent;
        *self = Self::new(sent);
        Poll::Ready(has_moved)
    }
}
