use std::collections::BTreeMap;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Problem;
use crate::problem::read_toml;

const HEADING: &str = "\
# Written by fairlead-certs: how many orders it spent, by directory and hour.
# Removing this file forgets them, and with them how much of orders-per-week is left.
";

const HOUR: i64 = 60 * 60;
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// `.orders.toml`: the orders of the last seven days, by the directory they were made at and the hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Orders(BTreeMap<String, BTreeMap<Timestamp, u32>>);

impl Orders {
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Problem> {
        read_toml(path, bytes)
    }

    pub fn render(&self) -> Result<String, toml::ser::Error> {
        Ok(format!("{HEADING}\n{}", toml::to_string(self)?))
    }

    /// How many were made at the directory in the seven days before `now`.
    pub fn spent(&self, directory: &str, now: Timestamp) -> u32 {
        self.hours(directory, now).map(|(_, orders)| orders).sum()
    }

    /// From when on fewer than `limit` will have been made there within seven days, if none is until then.
    pub fn room_from(&self, directory: &str, limit: u32, now: Timestamp) -> Timestamp {
        let mut spent = self.spent(directory, now);
        let mut hours = self.hours(directory, now);
        let mut from = now;
        while spent >= limit
            && let Some((hour, orders)) = hours.next()
        {
            spent -= orders;
            from = hour + WEEK;
        }
        from
    }

    /// Counts one more, and forgets those that are older.
    pub fn add(&mut self, directory: &str, now: Timestamp) {
        for hours in self.0.values_mut() {
            hours.retain(|hour, _| is_within_a_week(*hour, now));
        }
        let second = now.as_second();
        let hour = Timestamp::from_second(second - second.rem_euclid(HOUR)).unwrap_or(now);
        let hours = self.0.entry(directory.to_owned()).or_default();
        *hours.entry(hour).or_default() += 1;
    }

    /// The oldest first.
    fn hours(&self, directory: &str, now: Timestamp) -> impl Iterator<Item = (Timestamp, u32)> {
        let hours = self.0.get(directory).into_iter().flatten();
        let hours = hours.map(|(hour, orders)| (*hour, *orders));
        hours.filter(move |(hour, _)| is_within_a_week(*hour, now))
    }
}

/// Hours in the future are those of a clock that was set back since: they say nothing about now.
fn is_within_a_week(hour: Timestamp, now: Timestamp) -> bool {
    let age = now.duration_since(hour);
    !age.is_negative() && age < WEEK
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "https://ca.test/directory";

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + 1).unwrap() + SignedDuration::from_hours(hours)
    }

    fn orders(hours: &[i64]) -> Orders {
        let mut orders = Orders::default();
        for hour in hours {
            orders.add(CA, at(*hour));
        }
        orders
    }

    #[test]
    fn orders_count_for_a_week_at_their_own_directory() {
        let orders = orders(&[0, 0, 1, 30]);
        for (hours, expected) in [(30, 4), (167, 4), (168, 2), (169, 1), (198, 0), (0, 2), (-1, 0)] {
            assert_eq!(orders.spent(CA, at(hours)), expected, "{hours}");
        }
        assert_eq!(orders.spent("https://other.test", at(30)), 0);
    }

    #[test]
    fn there_is_room_once_enough_orders_are_a_week_old() {
        let orders = orders(&[0, 0, 1, 30]);
        let room = |limit| orders.room_from(CA, limit, at(31));
        let hour = |hours: i64| Timestamp::from_second(1_800_000_000 + (168 + hours) * HOUR).unwrap();
        assert_eq!(
            [5, 4, 3, 2, 1].map(room),
            [at(31), hour(0), hour(0), hour(1), hour(30)]
        );
    }

    #[test]
    fn what_is_older_than_a_week_is_forgotten_and_the_rest_reads_back() {
        let mut orders = orders(&[0, 100]);
        orders.add("https://other.test", at(200));
        let text = orders.render().unwrap();
        assert_eq!(text.matches(" = 1").count(), 2, "{text}");
        assert_eq!(Orders::parse(Path::new("x"), text.as_bytes()), Ok(orders));
    }
}
