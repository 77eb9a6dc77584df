use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{HeaderValue, Response, StatusCode, Version};
use thiserror::Error;

/// Of a length: all numbers of so many fit into 64 bits.
const MAX_DIGITS: usize = 19;

/// The client could see the response end where we do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum AmbiguousLength {
    #[error("the response has a Content-Length and a Transfer-Encoding")]
    Doubled,
    #[error("the response has lengths that disagree, or one that is no number")]
    Disagreeing,
    #[error("the response has a transfer coding other than chunked")]
    Coding,
    #[error("the response has a transfer coding in a version of HTTP that knows none")]
    Version,
}

/// Leaves a response at most one length, and that one in plain digits (RFC 9112 6.1 and 6.3): what is read in one
/// way here must not reach the client as another message.
pub(crate) fn settle_length<B>(response: &mut Response<B>) -> Result<(), AmbiguousLength> {
    let is_no_content = response.status() == StatusCode::NO_CONTENT;
    if response.version() == Version::HTTP_10 && response.headers().contains_key(TRANSFER_ENCODING) {
        return Err(AmbiguousLength::Version);
    }
    let headers = response.headers_mut();
    check_coding(headers)?;
    let length = find_length(headers)?;
    if is_no_content {
        headers.remove(CONTENT_LENGTH);
    } else if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, length);
    }
    Ok(())
}

/// Leaves a request one length of several equal ones (RFC 9110 8.6). Those that differ came no further than
/// the client's connection.
pub(crate) fn settle_request_length(headers: &mut HeaderMap) {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let (Some(length), Some(_)) = (lengths.next(), lengths.next()) {
        let length = length.clone();
        headers.insert(CONTENT_LENGTH, length);
    }
}

fn check_coding(headers: &HeaderMap) -> Result<(), AmbiguousLength> {
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        return Err(AmbiguousLength::Doubled);
    }
    if !is_coding_understood(headers) {
        return Err(AmbiguousLength::Coding);
    }
    Ok(())
}

/// How a message may be coded on its way: in chunks, which are ours to undo, and in nothing else, which
/// the other side would not learn of (RFC 9112 6.1).
pub(crate) fn is_coding_understood(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(is_chunked) && codings.next().is_none()
}

/// What a request gets whose coding is not understood: 400 if it does not end with one in chunks, or has two of them
/// (RFC 9112 6.1 and 6.3).
pub(crate) fn coding_refusal(headers: &HeaderMap) -> Option<StatusCode> {
    if is_coding_understood(headers) {
        return None;
    }
    let fields = headers.get_all(TRANSFER_ENCODING).iter();
    let codings = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    let is_chunked: Vec<_> = codings
        .map(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
        .collect();
    let count = is_chunked.iter().filter(|is_chunked| **is_chunked).count();
    Some(match (count, is_chunked.last()) {
        (1, Some(true)) => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::BAD_REQUEST,
    })
}

/// The one length to write instead of several equal ones; `None` if nothing is to be changed.
fn find_length(headers: &HeaderMap) -> Result<Option<HeaderValue>, AmbiguousLength> {
    let mut fields = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = fields.next() else {
        return Ok(None);
    };
    if fields.next().is_none() && is_number(first.as_bytes()) {
        return Ok(None);
    }
    let fields = headers.get_all(CONTENT_LENGTH).iter();
    let mut lengths = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    let first = lengths.next().unwrap_or_default().trim_ascii();
    if !is_number(first) || lengths.any(|other| other.trim_ascii() != first) {
        return Err(AmbiguousLength::Disagreeing);
    }
    HeaderValue::from_bytes(first)
        .map(Some)
        .map_err(|_| AmbiguousLength::Disagreeing)
}

/// In digits, and not so many that nobody can count so far.
pub(crate) fn is_number(text: &[u8]) -> bool {
    (1..=MAX_DIGITS).contains(&text.len()) && text.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(status: u16, fields: &[(&str, &str)]) -> Result<Vec<String>, AmbiguousLength> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let mut response = response.body(()).unwrap();
        settle_length(&mut response)?;
        let lengths = response.headers().get_all(CONTENT_LENGTH).iter();
        Ok(lengths
            .map(|length| length.to_str().unwrap().to_owned())
            .collect())
    }

    #[test]
    fn equal_lengths_become_one() {
        for fields in [
            &[("content-length", "5")][..],
            &[("content-length", "5"), ("content-length", "5")],
            &[("content-length", "5, 5")],
            &[("content-length", "5 ,5"), ("content-length", "5")],
        ] {
            assert_eq!(settled(200, fields), Ok(vec!["5".to_owned()]), "{fields:?}");
        }
        assert_eq!(settled(304, &[("content-length", "5")]), Ok(vec!["5".to_owned()]));
        assert_eq!(settled(204, &[("content-length", "5")]), Ok(vec![]));
        assert_eq!(settled(200, &[("transfer-encoding", "Chunked")]), Ok(vec![]));
    }

    #[test]
    fn http_1_0_knows_no_coding() {
        let response = Response::builder().version(Version::HTTP_10);
        let mut response = response.header("transfer-encoding", "chunked").body(()).unwrap();
        assert_eq!(settle_length(&mut response), Err(AmbiguousLength::Version));
    }

    #[test]
    fn what_has_two_ends_is_refused() {
        use AmbiguousLength::*;
        for (fields, error) in [
            (
                &[("transfer-encoding", "chunked"), ("content-length", "5")][..],
                Doubled,
            ),
            (&[("content-length", "5"), ("content-length", "6")], Disagreeing),
            (&[("content-length", "5, 6")], Disagreeing),
            (&[("content-length", "5,")], Disagreeing),
            (&[("content-length", "+5")], Disagreeing),
            (&[("content-length", "18446744073709551616")], Disagreeing),
            (&[("content-length", "")], Disagreeing),
            (&[("transfer-encoding", "gzip")], Coding),
            (&[("transfer-encoding", "gzip, chunked")], Coding),
            (
                &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                Coding,
            ),
        ] {
            assert_eq!(settled(200, fields), Err(error), "{fields:?}");
        }
    }
}
