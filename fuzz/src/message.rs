//! A reader of HTTP/1 requests that takes what RFC 9112 has to be taken at its word for, and nothing else. It
//! shares no code with the proxy: where the two disagree, one of them is wrong.

/// A request from its first byte to its last, or as far as it came.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
    /// Without its framing.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// It came to its end.
    pub(crate) is_whole: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    major: u8,
    minor: u8,
}

impl Version {
    pub(crate) const HTTP_10: Self = Self { major: 1, minor: 0 };
    pub(crate) const HTTP_11: Self = Self { major: 1, minor: 1 };
    pub(crate) const HTTP_2: Self = Self { major: 2, minor: 0 };
}

/// A name in lower case, and a value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// In their order.
pub(crate) type Fields = Vec<Field>;

/// What bytes begin with.
pub(crate) enum Next<'a> {
    /// A request, and what follows it; nothing does if it is not whole.
    Request(Request, &'a [u8]),
    /// The beginning of a head, or nothing at all.
    Begun,
    /// What can be no request, whatever follows.
    Nonsense,
}

pub(crate) fn read(bytes: &[u8]) -> Next<'_> {
    match read_head(bytes) {
        Ok((mut request, length, rest)) => {
            let rest = match length {
                Length::Exactly(length) => request.take_exactly(length, rest),
                Length::Chunked => request.take_chunks(rest),
            };
            request.is_whole = rest.is_some();
            Next::Request(request, rest.unwrap_or_default())
        }
        Err(Fault::Ends) => Next::Begun,
        Err(Fault::Malformed) => Next::Nonsense,
    }
}

pub(crate) fn values<'a>(fields: &'a Fields, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let of_name = fields.iter().filter(move |(other, _)| other == name.as_bytes());
    of_name.map(|(_, value)| &value[..])
}

enum Fault {
    /// It may become right.
    Ends,
    Malformed,
}

enum Length {
    Exactly(usize),
    Chunked,
}

fn read_head(bytes: &[u8]) -> Result<(Request, Length, &[u8]), Fault> {
    let (line, rest) = split_line(bytes)?;
    let [method, target, version] = line.split(|byte| *byte == b' ').collect::<Vec<_>>()[..] else {
        return Err(Fault::Malformed);
    };
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9'] = version else {
        return Err(Fault::Malformed);
    };
    if !is_token(method) || !is_target(target) {
        return Err(Fault::Malformed);
    }
    let (fields, rest) = read_fields(rest)?;
    let request = Request {
        method: method.to_vec(),
        target: target.to_vec(),
        version: Version {
            major: 1,
            minor: minor - b'0',
        },
        fields,
        ..Request::default()
    };
    let length = request.length().ok_or(Fault::Malformed)?;
    Ok((request, length, rest))
}

/// RFC 9112 2.2: a line ends with CR LF, and neither of them stands elsewhere.
fn split_line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let end = bytes
        .iter()
        .position(|byte| b"\r\n".contains(byte))
        .ok_or(Fault::Ends)?;
    let (line, rest) = bytes.split_at(end);
    match rest {
        [b'\r', b'\n', rest @ ..] => Ok((line, rest)),
        [b'\r'] => Err(Fault::Ends),
        _ => Err(Fault::Malformed),
    }
}

fn read_fields(mut bytes: &[u8]) -> Result<(Fields, &[u8]), Fault> {
    let mut fields = Fields::new();
    loop {
        let (line, rest) = split_line(bytes)?;
        bytes = rest;
        if line.is_empty() {
            return Ok((fields, bytes));
        }
        fields.push(read_field(line).ok_or(Fault::Malformed)?);
    }
}

/// RFC 9112 5: no space before the colon, and no line that goes on with the one before.
fn read_field(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_right = is_token(name) && is_field_value(value);
    is_right.then(|| (name.to_ascii_lowercase(), trim(value).to_vec()))
}

/// RFC 9110 5.5, but for the spaces around it.
pub(crate) fn is_field_value(value: &[u8]) -> bool {
    value
        .iter()
        .all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

fn trim(value: &[u8]) -> &[u8] {
    let start = value.iter().take_while(|byte| is_space(byte)).count();
    trim_end(&value[start..])
}

fn trim_end(value: &[u8]) -> &[u8] {
    let spaces = value.iter().rev().take_while(|byte| is_space(byte)).count();
    &value[..value.len() - spaces]
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

pub(crate) fn is_token(text: &[u8]) -> bool {
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_of_token)
}

pub(crate) fn is_target(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| !byte.is_ascii_control() && *byte != b'#')
}

impl Request {
    /// RFC 9112 6.3; `None` if it can be read in two ways, or in none.
    fn length(&self) -> Option<Length> {
        let codings: Vec<_> = values(&self.fields, "transfer-encoding").collect();
        let mut lengths = values(&self.fields, "content-length").map(number);
        match (&codings[..], lengths.next()) {
            ([], None) => Some(Length::Exactly(0)),
            ([], Some(first)) => {
                let first = first?;
                lengths
                    .all(|other| other == Some(first))
                    .then_some(Length::Exactly(first))
            }
            ([coding], None) if self.version != Version::HTTP_10 && ends_chunked(coding) => {
                Some(Length::Chunked)
            }
            _ => None,
        }
    }

    /// Gives what follows the body; `None` if it does not come to its end.
    fn take_exactly<'a>(&mut self, length: usize, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (body, rest) = bytes.split_at(length.min(bytes.len()));
        self.body.extend(body);
        (body.len() == length).then_some(rest)
    }

    fn take_chunks<'a>(&mut self, mut bytes: &'a [u8]) -> Option<&'a [u8]> {
        loop {
            let (line, rest) = split_line(bytes).ok()?;
            let size = chunk_size(line)?;
            if size == 0 {
                let (trailers, rest) = read_fields(rest).ok()?;
                self.trailers = trailers;
                return Some(rest);
            }
            bytes = self.take_exactly(size, rest)?.strip_prefix(b"\r\n")?;
        }
    }
}

/// Whatever was done to the body before, chunks tell where it ends.
fn ends_chunked(coding: &[u8]) -> bool {
    let last = coding.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    trim(last).eq_ignore_ascii_case(b"chunked")
}

pub(crate) fn number(digits: &[u8]) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number
        .then(|| str::from_utf8(digits).ok()?.parse().ok())
        .flatten()
}

/// RFC 9112 7.1: what follows a semicolon is an extension, and spaces stand before one alone.
fn chunk_size(line: &[u8]) -> Option<usize> {
    let digits = match line.iter().position(|byte| *byte == b';') {
        Some(extension) => trim_end(&line[..extension]),
        None => line,
    };
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    is_number
        .then(|| usize::from_str_radix(str::from_utf8(digits).ok()?, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All requests one after the other, and what is left.
    fn shown(bytes: &str) -> (Vec<String>, &'static str) {
        let mut bytes = bytes.as_bytes();
        let mut requests = Vec::new();
        loop {
            match read(bytes) {
                Next::Request(request, rest) => {
                    requests.push(line(&request));
                    bytes = rest;
                }
                Next::Begun => return (requests, "begun"),
                Next::Nonsense => return (requests, "nonsense"),
            }
        }
    }

    fn line(request: &Request) -> String {
        let parts = [&request.method, &request.target, &request.body];
        let [method, target, body] = parts.map(|text| String::from_utf8_lossy(text));
        let end = if request.is_whole { "" } else { "…" };
        format!("{method} {target} {body}{end}")
    }

    #[test]
    fn requests_are_read_one_after_the_other() {
        for (bytes, requests, end) in [
            ("", &[][..], "begun"),
            ("GET / HTTP/1.1\r\nHost: a\r\n", &[], "begun"),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &["GET / "], "begun"),
            (
                "POST /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.0\r\n\r\n",
                &["POST /1 abc", "GET /2 "],
                "begun",
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n2;a=b\r\nab\r\n1\r\nc\r\n0\r\nX: y\r\n\r\nX",
                &["POST / abc"],
                "begun",
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
                &["POST / ab…"],
                "begun",
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
                &["POST / ab…"],
                "begun",
            ),
            ("GET / HTTP/1.1\r\n\r\n\r\nGET", &["GET / "], "nonsense"),
        ] {
            let (read, ended) = shown(bytes);
            assert_eq!(read, requests, "{bytes:?}");
            assert_eq!(ended, end, "{bytes:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        for bytes in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nX : a\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET /#a HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET /\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        ] {
            assert_eq!(shown(bytes), (vec![], "nonsense"), "{bytes:?}");
        }
        for size in ["", "x", "-1", "0x1", "1 1", " 1", "1 ", "+1", "1;a\nb"] {
            let bytes =
                format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\na\r\n0\r\n\r\n");
            assert_eq!(shown(&bytes).0, ["POST / …"], "{bytes:?}");
        }
    }
}
