use std::fmt;
use std::str::FromStr;

use http::uri::PathAndQuery;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::Limit;
use crate::short_form::text_or_table;

/// How upstreams are asked whether they are well. In TOML the path alone, or a table with `path` and
/// `interval`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    pub path: CheckPath,
    /// From one question to the next, and how long the answer may take.
    pub interval: Limit,
}

const INTERVAL: Limit = Limit::from_secs(10);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    path: CheckPath,
    interval: Option<Limit>,
}

impl<'de> Deserialize<'de> for HealthCheck {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a path such as \"/healthz\", or a table with `path` and `interval`";
        text_or_table::<_, _, Table>(deserializer, expected)
    }
}

impl From<Table> for HealthCheck {
    fn from(Table { path, interval }: Table) -> Self {
        Self {
            path,
            interval: interval.unwrap_or(INTERVAL),
        }
    }
}

impl FromStr for HealthCheck {
    type Err = InvalidCheckPath;

    fn from_str(text: &str) -> Result<Self, InvalidCheckPath> {
        Ok(Self {
            path: CheckPath::try_from(text.to_owned())?,
            interval: INTERVAL,
        })
    }
}

/// An absolute path with an optional query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckPath(PathAndQuery);

impl CheckPath {
    pub fn get(&self) -> &PathAndQuery {
        &self.0
    }
}

impl fmt::Display for CheckPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for CheckPath {
    type Error = InvalidCheckPath;

    fn try_from(text: String) -> Result<Self, InvalidCheckPath> {
        match text.parse() {
            Ok(path) if text.starts_with('/') && !text.contains('#') => Ok(Self(path)),
            _ => Err(InvalidCheckPath { text }),
        }
    }
}

impl From<CheckPath> for String {
    fn from(path: CheckPath) -> Self {
        path.to_string()
    }
}

/// The text is shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a path such as \"/healthz\"")]
pub struct InvalidCheckPath {
    text: String,
}
