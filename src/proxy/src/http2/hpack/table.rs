//! The fields that have an index: those of RFC 7541 Appendix A, and those the peer has given one.

use std::array;
use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{DEFAULT_TABLE_SIZE, FIELD_OVERHEAD, Field, HpackError, Pseudo};

/// The static table from its index 1 on.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

static STATIC_ENTRIES: LazyLock<[Entry; STATIC.len()]> = LazyLock::new(|| {
    array::from_fn(|place| {
        let (name, value) = STATIC[place];
        Entry::new(Name::parse(name.as_bytes()), value.as_bytes())
    })
});

/// The index of each regular name of the static table in the place that [`slot`] gives it; 0 where none is.
const SLOTS: [u8; 128] = {
    let mut slots = [0; 128];
    let mut index = REGULAR;
    while index <= STATIC.len() {
        let slot = slot(STATIC[index - 1].0.as_bytes());
        assert!(slots[slot] == 0, "two names share a slot");
        slots[slot] = index as u8;
        index += 1;
    }
    slots
};

/// The index of the first entry whose name is that of no pseudo-field.
const REGULAR: usize = 15;

/// Keeps all names of the static table apart.
const fn slot(name: &[u8]) -> usize {
    let [first, .., last] = *name else { return 0 };
    (name.len() * 3 + first as usize * 54 + last as usize * 59) % 128
}

/// The index of the name in the static table.
pub(super) fn static_name(name: &HeaderName) -> Option<usize> {
    let name = name.as_str();
    let index = usize::from(SLOTS[slot(name.as_bytes())]);
    (index > 0 && STATIC[index - 1].0 == name).then_some(index)
}

/// The first index of the name in the static table.
pub(super) fn static_pseudo(name: Pseudo) -> Option<usize> {
    match name {
        Pseudo::Authority => Some(1),
        Pseudo::Method => Some(2),
        Pseudo::Path => Some(4),
        Pseudo::Scheme => Some(6),
        Pseudo::Status => Some(8),
        Pseudo::Protocol => None,
    }
}

/// The index of the field in the static table, whose name has the index `first` and perhaps further ones.
pub(super) fn static_field(first: usize, value: &[u8]) -> Option<usize> {
    let (name, _) = STATIC[first - 1];
    (first..)
        .zip(&STATIC[first - 1..])
        .take_while(|(_, entry)| entry.0 == name)
        .find_map(|(index, entry)| (entry.1.as_bytes() == value).then_some(index))
}

/// A name as far as another field may take it over.
#[derive(Clone, Debug)]
pub(super) enum Name {
    Pseudo(Pseudo),
    Regular(HeaderName),
    /// One of so many bytes that is none.
    Malformed(usize),
}

impl Name {
    /// Judges a name that the peer has written out (RFC 9113 8.2.1).
    pub(super) fn parse(name: &[u8]) -> Self {
        if name.first() == Some(&b':') {
            return Pseudo::parse(name).map_or(Self::Malformed(name.len()), Self::Pseudo);
        }
        match HeaderName::from_lowercase(name) {
            // The crate takes a quotation mark for part of a token, RFC 9110 5.6.2 does not.
            Ok(parsed) if !name.contains(&b'"') => Self::Regular(parsed),
            _ => Self::Malformed(name.len()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Pseudo(name) => name.as_str().len(),
            Self::Regular(name) => name.as_str().len(),
            Self::Malformed(len) => *len,
        }
    }

    /// What a field of this name and such a value counts (RFC 7541 4.1).
    pub(super) fn size_with(&self, value: &[u8]) -> usize {
        self.len() + value.len() + FIELD_OVERHEAD
    }

    /// The field of this name with that value.
    pub(super) fn with(self, value: &[u8]) -> Field {
        match self {
            Self::Pseudo(name) => Field::Pseudo(name, Bytes::copy_from_slice(value)),
            Self::Regular(name) if !is_padded(value) => {
                HeaderValue::from_bytes(value).map_or(Field::Malformed, |value| Field::Regular(name, value))
            }
            Self::Regular(_) | Self::Malformed(_) => Field::Malformed,
        }
    }
}

/// White space belongs to no value (RFC 9113 8.2.1).
fn is_padded(value: &[u8]) -> bool {
    matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t'])
}

/// What an index stands for.
pub(super) struct Entry {
    /// Outlives a value that is malformed.
    pub(super) name: Name,
    pub(super) field: Field,
    pub(super) size: usize,
}

impl Entry {
    pub(super) fn new(name: Name, value: &[u8]) -> Self {
        Self {
            field: name.clone().with(value),
            size: name.size_with(value),
            name,
        }
    }
}

/// Both tables as one (RFC 7541 2.3).
pub(super) struct Table {
    /// The newest is first.
    dynamic: VecDeque<Entry>,
    /// What the entries count together, at most [`Self::limit`].
    size: usize,
    limit: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            dynamic: VecDeque::new(),
            size: 0,
            limit: DEFAULT_TABLE_SIZE,
        }
    }

    pub(super) fn get(&self, index: u32) -> Result<&Entry, HpackError> {
        let place = (index as usize).checked_sub(1).ok_or(HpackError::Index(index))?;
        match STATIC_ENTRIES.get(place) {
            Some(entry) => Ok(entry),
            None => self
                .dynamic
                .get(place - STATIC.len())
                .ok_or(HpackError::Index(index)),
        }
    }

    /// Gives the entry the index behind the static table. The oldest make room; one larger than the table empties it
    /// (RFC 7541 4.4).
    pub(super) fn insert(&mut self, entry: Entry) {
        self.evict(self.limit.saturating_sub(entry.size));
        if entry.size <= self.limit {
            self.size += entry.size;
            self.dynamic.push_front(entry);
        }
    }

    /// Sets what the entries may count together.
    pub(super) fn resize(&mut self, limit: u32) -> Result<(), HpackError> {
        let size = limit as usize;
        if size > DEFAULT_TABLE_SIZE {
            return Err(HpackError::TableSize(limit));
        }
        self.limit = size;
        self.evict(size);
        Ok(())
    }

    fn evict(&mut self, size: usize) {
        while self.size > size
            && let Some(oldest) = self.dynamic.pop_back()
        {
            self.size -= oldest.size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_static_entry_is_a_field_that_the_encoder_finds() {
        let table = Table::new();
        for (index, (name, value)) in (1..).zip(STATIC) {
            let entry = table.get(index).unwrap();
            let first = match &entry.name {
                Name::Pseudo(pseudo) => static_pseudo(*pseudo),
                Name::Regular(regular) => static_name(regular),
                Name::Malformed(_) => None,
            };
            assert_ne!(entry.field, Field::Malformed, "{name}: {value}");
            assert_eq!(
                static_field(first.unwrap(), value.as_bytes()),
                Some(index as usize)
            );
            assert_eq!(entry.size, name.len() + value.len() + 32);
        }
    }

    #[test]
    fn other_names_have_no_index() {
        for name in [
            "x",
            "datf",
            "etah",
            "alt-svc",
            "x-forwarded-for",
            "access-control-allow-method",
        ] {
            assert_eq!(static_name(&HeaderName::from_static(name)), None);
        }
        assert_eq!(static_pseudo(Pseudo::Protocol), None);
        assert_eq!(static_field(8, b"302"), None);
        assert_eq!(static_field(16, b"gzip"), None);
        assert_eq!(static_field(61, b"Basic"), None);
    }

    fn entry(value: &'static str) -> Entry {
        Entry::new(Name::parse(b"a"), value.as_bytes())
    }

    fn values(table: &Table) -> Vec<String> {
        (62..)
            .map_while(|index| table.get(index).ok())
            .map(|entry| match &entry.field {
                Field::Regular(_, value) => value.to_str().unwrap().to_owned(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_oldest_entries_make_room() {
        let mut table = Table::new();
        table.resize(3 * 34).unwrap();
        for value in ["1", "2", "3", "4"] {
            table.insert(entry(value));
        }
        assert_eq!(values(&table), ["4", "3", "2"]);
        table.insert(entry("35 bytes"));
        assert_eq!(values(&table), ["35 bytes", "4"]);
        assert_eq!(table.size, 41 + 34);
    }

    #[test]
    fn an_entry_of_the_size_of_the_table_fits_and_a_larger_one_empties_it() {
        let mut table = Table::new();
        table.resize(36).unwrap();
        table.insert(entry("1"));
        table.insert(entry("abc"));
        assert_eq!(values(&table), ["abc"]);
        table.insert(entry("abcd"));
        assert!(values(&table).is_empty());
        assert_eq!(table.size, 0);
    }

    #[test]
    fn a_smaller_table_drops_the_oldest_entries() {
        let mut table = Table::new();
        for value in ["1", "2", "3"] {
            table.insert(entry(value));
        }
        table.resize(2 * 34 + 33).unwrap();
        assert_eq!(values(&table), ["3", "2"]);
        table.resize(0).unwrap();
        assert!(values(&table).is_empty());
        table.resize(4096).unwrap();
        table.insert(entry("4"));
        assert_eq!(values(&table), ["4"]);
        assert_eq!(table.resize(4097), Err(HpackError::TableSize(4097)));
    }

    #[test]
    fn a_malformed_entry_keeps_its_place_and_its_size() {
        let mut table = Table::new();
        table.insert(Entry::new(Name::parse(b"UPPER"), b"abc"));
        table.insert(Entry::new(Name::parse(b"name"), b"a\nb"));
        assert_eq!(values(&table), ["Malformed", "Malformed"]);
        assert_eq!(table.size, 5 + 3 + 32 + 4 + 3 + 32);
    }
}
