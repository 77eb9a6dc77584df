//! HPACK (RFC 7541): how HTTP/2 writes fields, in both directions.

mod decoder;
mod encoder;
mod huffman;
mod integer;
mod table;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use thiserror::Error;

pub(crate) use self::decoder::Decoder;
pub(crate) use self::encoder::Encoder;

/// What each field costs beside its bytes (RFC 7541 4.1).
const FIELD_OVERHEAD: usize = 32;
/// The dynamic table's size as long as nobody has said another one (RFC 9113 6.5.2).
const DEFAULT_TABLE_SIZE: usize = 4096;

/// A field of a header block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// The value is as it was received.
    Pseudo(Pseudo, Bytes),
    Regular(HeaderName, HeaderValue),
    /// RFC 9113 8.2.1 and 8.3 forbid its name or its value. The connection can go on, the message cannot.
    Malformed,
}

/// The name of a pseudo-field (RFC 9113 8.3, RFC 8441 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
}

impl Pseudo {
    fn parse(name: &[u8]) -> Option<Self> {
        match name {
            b":method" => Some(Self::Method),
            b":scheme" => Some(Self::Scheme),
            b":authority" => Some(Self::Authority),
            b":path" => Some(Self::Path),
            b":protocol" => Some(Self::Protocol),
            b":status" => Some(Self::Status),
            _ => None,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Protocol => ":protocol",
            Self::Status => ":status",
        }
    }
}

/// Why a header block cannot be read. What the blocks behind it mean is unknown then: the connection ends with
/// COMPRESSION_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum HpackError {
    #[error("the header block ends in the middle of a field")]
    Truncated,
    #[error("the header block holds a number that is too large")]
    Integer,
    #[error("the header block refers to entry {0}, which no table has")]
    Index(u32),
    #[error("a string of the header block is not padded with the beginning of EOS")]
    Padding,
    #[error("a string of the header block holds EOS")]
    EndOfString,
    #[error("the header block asks for a dynamic table of {0} bytes, more than we allow")]
    TableSize(u32),
    #[error("the header block changes the size of the dynamic table behind a field")]
    LateTableSize,
}
