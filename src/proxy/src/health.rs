use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After the first failure; each further one doubles it.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Since when instants are counted.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Whether an upstream is worth asking, from how the last requests to it went.
///
/// One that failed rests. When it has rested, one request at a time may try it, until one succeeds: an
/// upstream that starts slowly is not run over.
#[derive(Default)]
pub(crate) struct Health {
    /// In a row.
    failures: AtomicU32,
    /// In milliseconds of [`EPOCH`].
    rests_until: AtomicU64,
    /// A check found it unwell; only a check can find it well again.
    is_unwell: AtomicBool,
}

impl Health {
    /// The usual case; costs a read and no look at the clock.
    pub(crate) fn is_good(&self) -> bool {
        self.failures.load(Ordering::Relaxed) == 0 && !self.is_unwell.load(Ordering::Relaxed)
    }

    /// Whether a request may go there now. Of an upstream that has rested, only the first who asks is
    /// told so: the next rest begins with the answer.
    pub(crate) fn admits(&self) -> bool {
        self.is_good() || (!self.is_unwell.load(Ordering::Relaxed) && self.admits_at(now()))
    }

    /// What a check found. Returns whether that was known.
    pub(crate) fn checked(&self, is_well: bool) -> bool {
        if is_well {
            self.succeeded();
        }
        self.is_unwell.swap(!is_well, Ordering::Relaxed) != is_well
    }

    pub(crate) fn forget_checks(&self) {
        self.is_unwell.store(false, Ordering::Relaxed);
    }

    pub(crate) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self) {
        self.failed_at(now());
    }

    fn admits_at(&self, now: u64) -> bool {
        let until = self.rests_until.load(Ordering::Relaxed);
        let next = now + self.rest();
        now >= until
            && self
                .rests_until
                .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn failed_at(&self, now: u64) {
        let failures = self.failures.load(Ordering::Relaxed);
        self.failures.store(failures.saturating_add(1), Ordering::Relaxed);
        self.rests_until.store(now + self.rest(), Ordering::Relaxed);
    }

    fn rest(&self) -> u64 {
        let doublings = self.failures.load(Ordering::Relaxed).saturating_sub(1).min(6);
        milliseconds(LONGEST_REST.min(FIRST_REST * 2_u32.pow(doublings)))
    }
}

fn now() -> u64 {
    milliseconds(EPOCH.elapsed())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_rests_longer_each_time_and_a_success_ends_it() {
        let health = Health::default();
        let mut now = 0;
        for rest in [1, 2, 4, 8, 16, 32, 60, 60] {
            health.failed_at(now);
            assert!(!health.admits_at(now + rest * 1000 - 1), "{rest}");
            now += rest * 1000;
            assert!(health.admits_at(now), "{rest}");
            assert!(!health.admits_at(now), "one at a time tries it");
        }
        health.succeeded();
        assert!(health.admits() && health.admits());
    }

    #[test]
    fn who_tried_and_told_nothing_leaves_it_to_the_next_after_another_rest() {
        let health = Health::default();
        health.failed_at(0);
        assert!(health.admits_at(1000));
        assert!(!health.admits_at(1999));
        assert!(health.admits_at(2000));
    }
}
