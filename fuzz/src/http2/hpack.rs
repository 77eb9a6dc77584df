use fairlead_proxy::fuzzing::{Field, pack, unpack};
use loona_hpack::Decoder;
use loona_hpack::decoder::{DecoderError, IntegerDecodingError};

use super::message::is_right_in_itself;
use super::wire::TABLE;

/// The other decoder takes this in any place.
const LATE: &str = "behind a field";

/// The blocks of a connection, each behind its length, are read as another decoder reads them, and what was read is
/// the same once it is written and read again.
pub fn hpack(bytes: &[u8]) {
    let blocks = split(bytes);
    let mut other = Decoder::new();
    other.set_max_allowed_table_size(TABLE);
    for (block, read) in blocks.iter().zip(unpack(&blocks)) {
        match (&read, other.decode(block)) {
            (Ok(fields), Ok(meant)) => check(fields, &meant),
            (Err(error), Ok(meant)) => assert!(error.to_string().contains(LATE), "{error}: {meant:?}"),
            (read, Err(error)) => {
                assert!(read.is_err() || is_stricter(&error), "{error}: {read:?}");
                break;
            }
        }
    }
    for fields in unpack(&blocks).into_iter().flatten() {
        let fields: Vec<_> = fields
            .into_iter()
            .filter(|field| field.text().is_some())
            .collect();
        let again = unpack(&[&pack(&fields)]);
        assert_eq!(again.into_iter().flatten().collect::<Vec<_>>(), [fields]);
    }
}

/// Whether the other decoder fails where ours need not: at numbers in many bytes, and at a block that says nothing
/// but the size of the table.
fn is_stricter(error: &DecoderError) -> bool {
    matches!(
        error,
        DecoderError::SizeUpdateAtEnd
            | DecoderError::IntegerDecodingError(IntegerDecodingError::TooManyOctets)
    )
}

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut blocks = Vec::new();
    while let [length, rest @ ..] = bytes {
        let (block, behind) = rest.split_at(rest.len().min((*length).into()));
        blocks.push(block);
        bytes = behind;
    }
    blocks
}

fn check(fields: &[Field], meant: &[(Vec<u8>, Vec<u8>)]) {
    assert_eq!(fields.len(), meant.len(), "{fields:?} {meant:?}");
    for (field, meant) in fields.iter().zip(meant) {
        let (name, value) = meant;
        let is_right = is_pseudo(name) || is_right_in_itself(name, value);
        assert_eq!(field.text().as_ref(), Some(meant).filter(|_| is_right));
        assert_eq!(field.size, name.len() + value.len() + 32);
    }
}

fn is_pseudo(name: &[u8]) -> bool {
    const NAMES: [&str; 6] = [
        ":method",
        ":scheme",
        ":authority",
        ":path",
        ":protocol",
        ":status",
    ];
    NAMES.iter().any(|known| known.as_bytes() == name)
}
