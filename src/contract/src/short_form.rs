use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Reads a value that is written as one text or, to say more, as a table.
///
/// By hand, because an untagged enum forgets what was wrong with the form that was meant.
pub(crate) fn text_or_table<'de, D, V, T>(deserializer: D, expected: &'static str) -> Result<V, D::Error>
where
    D: Deserializer<'de>,
    V: FromStr<Err: fmt::Display> + TryFrom<T, Error: fmt::Display>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(TextOrTable(expected, PhantomData))
}

struct TextOrTable<V, T>(&'static str, PhantomData<(V, T)>);

impl<'de, V, T> Visitor<'de> for TextOrTable<V, T>
where
    V: FromStr<Err: fmt::Display> + TryFrom<T, Error: fmt::Display>,
    T: Deserialize<'de>,
{
    type Value = V;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<V, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<V, M::Error> {
        let table = T::deserialize(MapAccessDeserializer::new(map))?;
        V::try_from(table).map_err(de::Error::custom)
    }
}
