use jiff::Timestamp;

/// A moment as people read it: `2027-01-15 08:00 UTC, in 53 days`.
pub(crate) fn moment(at: Timestamp, now: Timestamp) -> String {
    format!("{}, {}", date(at), distance(at, now))
}

/// The moment alone.
pub(crate) fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn distance(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.duration_since(now).as_secs();
    let length = length(seconds.unsigned_abs());
    if seconds > 0 {
        format!("in {length}")
    } else {
        format!("{length} ago")
    }
}

/// In the largest unit of which there are at least two.
fn length(seconds: u64) -> String {
    for (unit, name) in [(86_400, "days"), (3_600, "hours"), (60, "minutes")] {
        if seconds >= 2 * unit {
            return format!("{} {name}", seconds / unit);
        }
    }
    format!("{seconds} s")
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_moment_is_a_date_and_a_distance() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (seconds, shown) in [
            (0, "0 s ago"),
            (1, "in 1 s"),
            (119, "in 119 s"),
            (120, "in 2 minutes"),
            (-7_200, "2 hours ago"),
            (47 * 3_600, "in 47 hours"),
            (-53 * 86_400, "53 days ago"),
        ] {
            assert_eq!(distance(now + SignedDuration::from_secs(seconds), now), shown);
        }
        assert_eq!(moment(now, now), "2027-01-15 08:00 UTC, 0 s ago");
    }
}
