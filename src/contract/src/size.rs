use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const UNITS: [(&str, u64); 6] = [
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// A number of bytes, in TOML `"10 MiB"`, `"500KB"`, or without a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(u64);

impl Size {
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*factor);
        match UNITS.iter().filter(whole).max_by_key(|(_, factor)| *factor) {
            Some((unit, factor)) => write!(f, "{} {unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<String> for Size {
    type Error = InvalidSize;

    fn try_from(text: String) -> Result<Self, InvalidSize> {
        let end = text
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim_start();
        let factor = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor);
        let factor = factor.or_else(|| unit.is_empty().then_some(1));
        let number = number.parse::<u64>().ok();
        let bytes = number
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor));
        bytes.map(Self).ok_or(InvalidSize { text })
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

/// The text is not a number of bytes. It is shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a number of bytes such as \"10 MiB\" or \"500 KB\"")]
pub struct InvalidSize {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_with_their_unit() {
        let parse = |text: &str| Size::try_from(text.to_owned());
        for (text, bytes, shown) in [
            ("0", 0, "0"),
            ("1023", 1023, "1023"),
            ("10 MiB", 10 << 20, "10 MiB"),
            ("500KB", 500_000, "500 KB"),
            ("1024 KiB", 1 << 20, "1 MiB"),
        ] {
            let size = parse(text).unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown));
        }
        for text in ["", "MiB", "-1", "1.5 MB", "1 mb", "99999999999 GiB"] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
