use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::events::Event;
use crate::owners::GRACE;

/// What comes at once is one mark. More need not be waited for: what belongs together arrives while systemd still
/// starts the pass, which takes the mark away only then.
const QUIET: Duration = Duration::from_millis(5);
/// What happens to a network alone may wait so long. Docker puts a container into its networks some time before it says
/// that it started it, and a pass in between would find nothing and be in the way of the one that matters.
const NETWORKS: Duration = Duration::from_millis(500);
/// The longest wait while events never cease.
const LONGEST: Duration = Duration::from_millis(200);
/// At most this many marks …
const MARKS: usize = 4;
/// … in this time: enough for a container to be replaced without a wait, and few in a storm.
const WINDOW: Duration = Duration::from_millis(800);

/// One more mark this long after the last event, when no host is kept any more for who left with it.
const LATE: Duration = Duration::from_secs(GRACE.as_secs().unsigned_abs() + 5);

/// Decides when events become a mark.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    burst: Option<Burst>,
    /// When to mark for what happened to networks, if nothing else makes a mark before.
    networks: Option<Instant>,
    /// When to mark without a further event.
    late: Option<Instant>,
    /// The last marks, the oldest first.
    marks: VecDeque<Instant>,
}

/// Events that no mark stands for yet.
#[derive(Debug)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    fn calm(&self) -> Instant {
        (self.last + QUIET).min(self.first + LONGEST)
    }
}

impl Pace {
    pub(crate) fn event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Network => {
                self.networks.get_or_insert(now + NETWORKS);
            }
            Event::Other => {
                let first = self.burst.as_ref().map_or(now, |burst| burst.first);
                self.burst = Some(Burst { first, last: now });
            }
        }
        self.late = Some(now + LATE);
    }

    pub(crate) fn marked(&mut self, now: Instant) {
        let (burst, networks) = (self.burst.take(), self.networks.take());
        if burst.is_none() && networks.is_none() {
            self.late = None;
        }
        self.marks.push_back(now);
        if self.marks.len() > MARKS {
            self.marks.pop_front();
        }
    }

    /// When to mark; never while there is nothing to mark.
    pub(crate) fn due(&self) -> Option<Instant> {
        let calm = self.burst.as_ref().map(Burst::calm);
        let Some(calm) = calm.into_iter().chain(self.networks).min() else {
            return self.late;
        };
        let allowed = match self.marks.front() {
            Some(oldest) if self.marks.len() == MARKS => *oldest + WINDOW,
            _ => calm,
        };
        Some(calm.max(allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks whenever due while events of containers arrive at the given milliseconds; returns when.
    fn marks(events: impl IntoIterator<Item = u64>) -> Vec<u64> {
        marks_of(events.into_iter().map(|event| (Event::Other, event)))
    }

    fn marks_of(events: impl IntoIterator<Item = (Event, u64)>) -> Vec<u64> {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pace = Pace::default();
        let mut marks = Vec::new();
        let mut mark_until = |pace: &mut Pace, limit: Option<Instant>| {
            while let Some(due) = pace.due().filter(|due| limit.is_none_or(|limit| *due <= limit)) {
                marks.push(u64::try_from((due - start).as_millis()).unwrap());
                pace.marked(due);
            }
        };
        for (event, milliseconds) in events {
            mark_until(&mut pace, Some(at(milliseconds)));
            pace.event(event, at(milliseconds));
        }
        mark_until(&mut pace, None);
        marks
    }

    #[test]
    fn nothing_is_due_without_an_event() {
        assert!(marks([]).is_empty());
    }

    #[test]
    fn one_event_is_marked_after_the_quiet_time_and_once_more_after_the_grace() {
        assert_eq!(marks([0]), [5, 125_000]);
    }

    #[test]
    fn events_close_together_are_one_mark() {
        assert_eq!(marks([0, 2, 6, 10]), [15, 125_010]);
    }

    #[test]
    fn a_network_joined_before_the_start_makes_no_mark_of_its_own_and_does_not_delay_the_start() {
        let marks = marks_of([(Event::Network, 0), (Event::Other, 300)]);
        assert_eq!(marks, [305, 125_300]);
    }

    #[test]
    fn networks_alone_are_marked_after_half_a_second_and_do_not_delay_what_is_sooner() {
        assert_eq!(
            marks_of([(Event::Network, 0), (Event::Network, 499)]),
            [500, 125_499]
        );
        let marks = marks_of([(Event::Other, 0), (Event::Network, 2), (Event::Network, 10)]);
        assert_eq!(marks, [5, 510, 125_010]);
    }

    #[test]
    fn a_container_that_is_replaced_waits_for_nothing() {
        assert_eq!(marks([0, 50, 300, 400]), [5, 55, 305, 405, 125_400]);
    }

    #[test]
    fn steady_events_cannot_starve_the_mark() {
        let marks = marks((0..2000).step_by(4));
        assert_eq!(marks[0], 200);
        let during = marks.iter().filter(|mark| **mark < 3000);
        let during: Vec<_> = during.collect();
        assert!(
            during.windows(2).all(|pair| pair[1] - pair[0] <= 800),
            "{marks:?}"
        );
    }

    #[test]
    fn a_storm_makes_few_marks_and_the_last_event_is_marked() {
        let marks = marks((0..3000).step_by(30));
        assert!(marks.len() <= 4 * 4 + 2, "{marks:?}");
        assert!(marks.iter().any(|mark| (2971..4000).contains(mark)), "{marks:?}");
    }
}
