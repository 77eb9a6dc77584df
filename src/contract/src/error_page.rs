use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Endpoint;

/// A service that makes the pages of some errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ErrorPage {
    pub status: Statuses,
    /// Without a path it is asked for the path of the request.
    pub url: Endpoint,
}

/// One status from 400 to 599, or a range of them: `"404"`, `"500-599"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Statuses {
    first: u16,
    last: u16,
}

impl Statuses {
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last {
            write!(f, "{first}")
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

impl TryFrom<String> for Statuses {
    type Error = InvalidStatuses;

    fn try_from(text: String) -> Result<Self, InvalidStatuses> {
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if 400 <= first && first <= last && last <= 599 => Ok(Self { first, last }),
            _ => Err(InvalidStatuses { text }),
        }
    }
}

impl From<Statuses> for String {
    fn from(statuses: Statuses) -> Self {
        statuses.to_string()
    }
}

/// The text names no errors. It is shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a status from 400 to 599 or a range of them such as \"500-599\"")]
pub struct InvalidStatuses {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_errors() {
        let parse = |text: &str| Statuses::try_from(text.to_owned());
        let range = parse("500-599").unwrap();
        assert!(range.contains(500) && range.contains(599) && !range.contains(499));
        assert_eq!(parse("404").unwrap().to_string(), "404");
        for text in ["", "200", "399-500", "500-400", "600", "4xx", "500-"] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
