//! The options of a route as labels write them.

use std::cell::Cell;
use std::collections::{BTreeMap, btree_map};
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::{Provider, Route};

/// Keys of a table such as `[[route]]` with their values as text, as labels hold them.
///
/// A text that starts with `[` or `{` is TOML. Any other is the value itself; of a list, the elements
/// separated by commas or spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(BTreeMap<String, String>);

impl Words {
    /// The keys that a table knows.
    pub fn known<T: DeserializeOwned>() -> &'static [&'static str] {
        let fields = Cell::new(&[][..]);
        // Fails by design, after it has said which fields it would take.
        let _ = T::deserialize(Fields(&fields));
        fields.get()
    }

    /// The table that the words describe.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, InvalidWord> {
        let entries = Entries {
            words: self.0.iter(),
            value: ("", ""),
        };
        T::deserialize(MapAccessDeserializer::new(entries))
    }

    /// The route that the words describe, as far as they do.
    pub fn read_route(&self) -> Result<Route, InvalidWord> {
        let route: Route = self.read()?;
        if let Some(Provider::Files(_)) = route.provider {
            let fault = "provider: only the operator's own files may name files of this machine";
            return Err(InvalidWord::Together(fault.to_owned()));
        }
        match route.find_contradiction() {
            Some(fault) => Err(InvalidWord::Together(fault)),
            None => Ok(route),
        }
    }

    /// These words, and those of `other` about which nothing is said here.
    pub fn or(mut self, other: &Self) -> Self {
        for (word, text) in &other.0 {
            self.0.entry(word.clone()).or_insert_with(|| text.clone());
        }
        self
    }
}

impl<W: Into<String>, T: Into<String>> FromIterator<(W, T)> for Words {
    fn from_iter<I: IntoIterator<Item = (W, T)>>(words: I) -> Self {
        let words = words.into_iter();
        Self(words.map(|(word, text)| (word.into(), text.into())).collect())
    }
}

/// Words that no route could have in a file. Texts are shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWord {
    #[error("{word} = {text:?}: {fault}")]
    Value {
        word: String,
        text: String,
        fault: String,
    },
    #[error("{0}")]
    Together(String),
}

impl Error for InvalidWord {
    fn custom<T: fmt::Display>(fault: T) -> Self {
        Self::Together(fault.to_string())
    }
}

/// The words one after the other, as a reader of a table asks for them.
struct Entries<'a> {
    words: btree_map::Iter<'a, String, String>,
    value: (&'a str, &'a str),
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = InvalidWord;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, InvalidWord> {
        let Some((word, text)) = self.words.next() else {
            return Ok(None);
        };
        self.value = (word, text);
        seed.deserialize(word.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, InvalidWord> {
        let (word, text) = self.value;
        seed.deserialize(Word(text)).map_err(|error| InvalidWord::Value {
            word: word.to_owned(),
            text: text.to_owned(),
            fault: error.to_string(),
        })
    }
}

/// The text of one word, or of one element in it.
#[derive(Clone, Copy)]
struct Word<'a>(&'a str);

impl<'a> Word<'a> {
    fn is_toml(self) -> bool {
        self.0.starts_with(['[', '{'])
    }

    fn visit_toml<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, InvalidWord> {
        let value = toml::de::ValueDeserializer::parse(self.0);
        let read = value.and_then(|value| value.deserialize_any(visitor));
        read.map_err(|error| InvalidWord::custom(error.message()))
    }
}

impl<'a> IntoDeserializer<'a, InvalidWord> for Word<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Word<'de> {
    type Error = InvalidWord;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidWord> {
        if self.is_toml() {
            return self.visit_toml(visitor);
        }
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidWord> {
        match self.0.parse() {
            Ok(value) => visitor.visit_bool(value),
            Err(_) => Err(InvalidWord::custom("it is neither true nor false")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidWord> {
        match self.0.parse() {
            Ok(value) => visitor.visit_u64(value),
            Err(_) => Err(InvalidWord::custom("it is not a whole number")),
        }
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidWord> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidWord> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidWord> {
        if self.is_toml() {
            return self.visit_toml(visitor);
        }
        let elements = self.0.split([',', ' ']).filter(|element| !element.is_empty());
        visitor.visit_seq(SeqDeserializer::new(elements.map(Word)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, InvalidWord> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, InvalidWord> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u32 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// Takes down which fields a struct has.
struct Fields<'a>(&'a Cell<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Error::custom("only the fields of a struct are asked for"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.set(fields);
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeaderEdit, PathPrefix};

    fn read(words: &[(&str, &str)]) -> Result<Route, String> {
        let words: Words = words.iter().copied().collect();
        words.read_route().map_err(|fault| fault.to_string())
    }

    #[test]
    fn words_say_what_the_keys_of_a_file_say() {
        let expected = Route {
            path: PathPrefix::parse("/api").unwrap(),
            strip_prefix: true,
            provider: Some(Provider::Internal),
            response_headers: vec![HeaderEdit::replace("x-a", "1, 2").unwrap()],
            ..Route::default()
        };
        let words = [
            ("path", "/api"),
            ("strip-prefix", "true"),
            ("provider", "internal"),
            ("response-headers", "[{ replace = \"X-A\", value = \"1, 2\" }]"),
        ];
        assert_eq!(read(&words), Ok(expected));
        assert_eq!(read(&[]), Ok(Route::default()));
    }

    #[test]
    fn a_fault_names_its_word() {
        for (word, text, expected) in [
            ("strip-prefix", "yes", "it is neither true nor false"),
            ("path", "api", "\"api\" is not a path: it must start with /"),
            (
                "provider",
                "Acme",
                "\"Acme\" is none of acme, internal and off, nor an authority's name, nor a table with fullchain and key",
            ),
            (
                "response-headers",
                "[{ delete = \"a b\" }]",
                "\"a b\" is not a header name",
            ),
        ] {
            assert_eq!(
                read(&[(word, text)]),
                Err(format!("{word} = {text:?}: {expected}"))
            );
        }
    }

    #[test]
    fn who_spoke_first_is_believed() {
        let words = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Words>();
        let joined = words(&[("path", "/a")]).or(&words(&[("path", "/b"), ("provider", "off")]));
        assert_eq!(joined, words(&[("path", "/a"), ("provider", "off")]));
    }

    #[test]
    fn the_known_words_are_the_keys_of_a_route() {
        assert!(Words::known::<Route>().contains(&"redirect-to-primary"));
        assert!(!Words::known::<Route>().contains(&"redirect_to_primary"));
    }

    #[test]
    fn a_container_cannot_name_files_of_this_machine() {
        let text = "{ fullchain = \"/a\", key = \"/b\" }";
        let words = Words::from_iter([("hosts", "a.test"), ("provider", text)]);
        let fault = words.read_route().unwrap_err().to_string();
        assert_eq!(
            fault,
            "provider: only the operator's own files may name files of this machine"
        );
    }
}
