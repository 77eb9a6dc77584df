use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Nobody waits for longer, and no sum with a point in time can be too large.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A limit in time, longer than nothing and not longer than a year; in TOML `"10s"`, `"1m 30s"` or `"2h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Limit(Duration);

impl Limit {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duration = SignedDuration::try_from(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{duration:#}")
    }
}

impl TryFrom<String> for Limit {
    type Error = InvalidLimit;

    fn try_from(text: String) -> Result<Self, InvalidLimit> {
        text.parse::<SignedDuration>()
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .filter(|duration| !duration.is_zero() && *duration <= LONGEST)
            .map(Self)
            .ok_or(InvalidLimit { text })
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> Self {
        limit.to_string()
    }
}

/// The text is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a length of time such as \"10s\", \"1m 30s\" or \"2h\", up to a year")]
pub struct InvalidLimit {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_with_their_unit() {
        let read = |text: &str| Limit::try_from(text.to_owned());
        assert_eq!(read("10s").unwrap().get(), Duration::from_secs(10));
        assert_eq!(read("1m 30s").unwrap().to_string(), "1m 30s");
        assert_eq!(read("8784h").unwrap().get(), LONGEST);
        for text in ["", "10", "0s", "-5s", "soon", "8785h", "2562047788015215h"] {
            assert!(read(text).is_err(), "{text:?} was accepted");
        }
    }
}
