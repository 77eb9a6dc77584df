use http::HeaderValue;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The value of Strict-Transport-Security (RFC 6797 6.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hsts {
    text: String,
    value: HeaderValue,
}

impl Hsts {
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }
}

impl TryFrom<String> for Hsts {
    type Error = InvalidHsts;

    fn try_from(text: String) -> Result<Self, InvalidHsts> {
        let directives: Vec<String> = text
            .split(';')
            .map(|directive| directive.trim().to_ascii_lowercase())
            .collect();
        let ages = directives
            .iter()
            .filter(|directive| directive.starts_with("max-age="));
        let is_known = |directive: &String| match directive.split_once('=') {
            Some((name, age)) => name == "max-age" && age.parse::<u32>().is_ok(),
            None => matches!(directive.as_str(), "includesubdomains" | "preload"),
        };
        match HeaderValue::try_from(&text) {
            Ok(value) if ages.count() == 1 && directives.iter().all(is_known) => Ok(Self { text, value }),
            _ => Err(InvalidHsts { text }),
        }
    }
}

impl From<Hsts> for String {
    fn from(hsts: Hsts) -> Self {
        hsts.text
    }
}

/// Browsers would ignore the text. It is shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{text:?} is not of the form \"max-age=31536000; includeSubDomains; preload\", of which only the first is needed"
)]
pub struct InvalidHsts {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_known_and_there_is_one_age() {
        let parse = |text: &str| Hsts::try_from(text.to_owned());
        for text in ["max-age=0", "max-age=63072000; includeSubDomains; preload"] {
            assert_eq!(String::from(parse(text).unwrap()), text);
        }
        for text in [
            "",
            "max-age",
            "max-age=1y",
            "includeSubDomains",
            "max-age=1; max-age=2",
            "max-age=1; x",
            "max-age=-1",
        ] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
