use std::fmt;
use std::iter;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A fault in a file, in words that say what to change. Shown as `file:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Problem {
    pub file: PathBuf,
    #[serde(flatten)]
    pub position: Option<Position>,
    pub message: String,
}

impl Problem {
    pub fn new(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            position: None,
            message: message.into(),
        }
    }

    pub fn at(file: &Path, position: Position, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            position: Some(position),
            message: message.into(),
        }
    }

    pub(crate) fn from_toml(file: &Path, text: &Text<'_>, error: &toml::de::Error) -> Self {
        let message = match suggest_key(error.message()) {
            Some(key) => format!("{} (did you mean `{key}`?)", first_line(error.message())),
            None => first_line(error.message()).to_owned(),
        };
        Self {
            file: file.to_owned(),
            position: error.span().map(|span| text.position(span.start)),
            message,
        }
    }
}

/// Reads a file that one of our programs wrote.
pub(crate) fn read_toml<T: DeserializeOwned>(file: &Path, bytes: &[u8]) -> Result<T, Problem> {
    let text = str::from_utf8(bytes).map_err(|error| Problem::new(file, format!("not UTF-8: {error}")))?;
    toml::from_str(text).map_err(|error| Problem::from_toml(file, &Text::new(text), &error))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A place in a text file: line and column count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// A text whose lines were looked for once, however many places in it are asked for.
pub(crate) struct Text<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Text<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(end, _)| end + 1);
        Self {
            text,
            line_starts: iter::once(0).chain(ends).collect(),
        }
    }

    /// The place of a byte; of the end, if there is no such byte.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = self.line_starts.partition_point(|start| *start <= before.len());
        Position {
            line,
            column: before[self.line_starts[line - 1]..].chars().count() + 1,
        }
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or(message)
}

/// The known key nearest to an unknown one, taken from serde's own list:
/// ``unknown field `hots`, expected one of `hosts`, …``.
fn suggest_key(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field")?;
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    quoted
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .filter(|(distance, known)| *distance <= known.len() / 2)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let text = Text::new("é = 1\nüü = x\n");
        for (offset, line, column) in [
            (0, 1, 1),
            (6, 1, 6),
            (7, 2, 1),
            (14, 2, 6),
            (16, 3, 1),
            (99, 3, 1),
        ] {
            assert_eq!(text.position(offset), Position { line, column }, "{offset}");
        }
        assert_eq!(Text::new("").position(0), Position { line: 1, column: 1 });
    }

    #[test]
    fn an_unknown_key_brings_the_nearest_known_one() {
        let message = "unknown field `hots`, expected one of `hosts`, `upstreams`";
        assert_eq!(suggest_key(message), Some("hosts"));
        assert_eq!(suggest_key("unknown field `zzz`, expected `hosts`"), None);
        assert_eq!(suggest_key("missing field `hosts`"), None);
    }
}
