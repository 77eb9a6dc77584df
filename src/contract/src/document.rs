use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::problem::Text;
use crate::{Located, Position, Problem, Route};

/// A TOML file whose parts are judged one by one, so that a fault in one leaves the others usable.
pub(crate) struct Document<'a> {
    file: &'a Arc<Path>,
    text: Text<'a>,
    table: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    pub(crate) fn parse(file: &'a Arc<Path>, bytes: &'a [u8]) -> Result<Self, Problem> {
        let text = decode(file, bytes)?;
        let table = DeTable::parse(text);
        let text = Text::new(text);
        let table = table.map_err(|error| Problem::from_toml(file, &text, &error))?;
        Ok(Self { file, text, table })
    }

    /// Takes every `[[route]]` out of the document.
    pub(crate) fn take_routes(&mut self) -> (Vec<Located>, Vec<Problem>) {
        let file = self.file;
        let located =
            |(position, route): (Position, Result<Route, Problem>)| Located::new(route?, file, position);
        partition(self.take_all("route").into_iter().map(located))
    }

    /// Takes every `[[KEY]]` out of the document, each with the place it stands at.
    pub(crate) fn take_all<T: DeserializeOwned>(&mut self, key: &str) -> Vec<(Position, Result<T, Problem>)> {
        let Some(taken) = self.table.get_mut().remove(key) else {
            return Vec::new();
        };
        let position = self.position(&taken);
        match taken.into_inner() {
            DeValue::Array(elements) => elements.into_iter().map(|element| self.read(element)).collect(),
            _ => {
                let message = format!("`{key}` is a list of tables: write [[{key}]]");
                vec![(position, Err(Problem::at(self.file, position, message)))]
            }
        }
    }

    /// Where each value of the first three levels of tables stands, by the keys that lead to it.
    pub(crate) fn positions(&self) -> BTreeMap<Vec<String>, Position> {
        let mut positions = BTreeMap::new();
        self.note_positions(self.table.get_ref(), &[], &mut positions);
        positions
    }

    fn note_positions(
        &self,
        table: &DeTable<'_>,
        above: &[String],
        positions: &mut BTreeMap<Vec<String>, Position>,
    ) {
        for (key, value) in table {
            let keys = [above, &[key.get_ref().to_string()]].concat();
            if let DeValue::Table(table) = value.get_ref()
                && above.len() < 2
            {
                self.note_positions(table, &keys, positions);
            }
            positions.insert(keys, self.position(value));
        }
    }

    /// Reads what was not taken.
    pub(crate) fn read_rest<T: DeserializeOwned>(self) -> Result<T, Problem> {
        let rest = toml::Deserializer::from(self.table);
        T::deserialize(rest).map_err(|error| Problem::from_toml(self.file, &self.text, &error))
    }

    fn read<T: DeserializeOwned>(&self, element: Spanned<DeValue<'_>>) -> (Position, Result<T, Problem>) {
        let position = self.position(&element);
        let value = T::deserialize(ValueDeserializer::from(element))
            .map_err(|error| Problem::from_toml(self.file, &self.text, &error))
            .map_err(|problem| Problem {
                position: problem.position.or(Some(position)),
                ..problem
            });
        (position, value)
    }

    fn position<T>(&self, spanned: &Spanned<T>) -> Position {
        self.text.position(spanned.span().start)
    }
}

/// What remains of a file that may only hold routes (and, from the watcher, rejections).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {
    #[serde(default, rename = "route", deserialize_with = "ignore")]
    _route: (),
}

/// Lists a key among the known ones although it was taken before.
pub(crate) fn ignore<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| ())
}

/// Splits results, keeping the order on both sides.
pub(crate) fn partition<T>(results: impl Iterator<Item = Result<T, Problem>>) -> (Vec<T>, Vec<Problem>) {
    let (mut values, mut problems) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(problem) => problems.push(problem),
        }
    }
    (values, problems)
}

fn decode<'a>(file: &Path, bytes: &'a [u8]) -> Result<&'a str, Problem> {
    str::from_utf8(bytes)
        .map(|text| text.strip_prefix('\u{feff}').unwrap_or(text))
        .map_err(|error| {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let position = Text::new(&valid).position(valid.len());
            Problem::at(file, position, "the file is not UTF-8 here")
        })
}
