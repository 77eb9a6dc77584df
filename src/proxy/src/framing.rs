use std::mem;

use memchr::memchr;

/// More of a line is not kept: the longest one that matters is an `OPTIONS http://HOST:PORT HTTP/1.1`.
const MAX_KEPT: usize = 300;
/// hyper reads targets of up to 64 KiB.
const MAX_REQUEST_LINE: usize = 96 * 1024;
const END_OF_HEAD: &[u8; 13] = b" HTTP/1.1\r\n\r\n";
/// The largest number has twenty.
const MAX_DIGITS: usize = 20;
/// Where in `HTTP/1.1` the digits stand.
const MAJOR: u8 = 5;
const MINOR: u8 = 7;

/// What hyper does not tell of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oddity {
    /// It is `OPTIONS` for a URI without a path: for the whole server (RFC 9112 3.2.4).
    ForServer,
    /// It is written in a version of HTTP that is not spoken here (RFC 9110 15.6.6).
    ForeignVersion,
}

/// Where in a sequence of requests the next byte stands.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Before a request, or in its first line.
    RequestLine,
    Fields(Body),
    /// So many bytes, and then what follows them.
    Data(u64, After),
    ChunkSize,
    Trailers,
    /// Behind a byte that was spoilt, or at the end: nothing more is read as HTTP.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Request,
    Chunk,
}

/// How the head says that its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    None,
    Length(u64),
    Chunked,
}

/// The message can be read in two ways, or in none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// Follows the bytes of a client from one request to the next.
#[derive(Debug)]
pub(crate) struct Framing {
    place: Place,
    /// The beginning of the present line, as far as it has come.
    line: Vec<u8>,
    /// Its last byte, which may not be kept in `line`.
    last: u8,
    request_line: RequestLine,
    /// So many requests have begun.
    requests: u64,
    /// What was not told yet.
    oddities: Vec<(u64, Oddity)>,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            place: Place::RequestLine,
            line: Vec::new(),
            last: 0,
            request_line: RequestLine::default(),
            requests: 0,
            oddities: Vec::new(),
        }
    }
}

impl Framing {
    pub(crate) fn is_between_requests(&self) -> bool {
        self.place == Place::RequestLine && self.line.is_empty() && self.last == 0
    }

    /// Whether a part of a request's head has come that is not the whole.
    pub(crate) fn is_in_head(&self) -> bool {
        match self.place {
            Place::RequestLine => !self.is_between_requests(),
            Place::Fields(_) => true,
            _ => false,
        }
    }

    /// So many heads have come whole.
    pub(crate) fn heads(&self) -> u64 {
        self.requests - u64::from(matches!(self.place, Place::Fields(_)))
    }

    /// So many requests have begun.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// What was not told yet, each with the number of its request.
    pub(crate) fn new_oddities(&mut self) -> impl ExactSizeIterator<Item = (u64, Oddity)> {
        self.oddities.drain(..)
    }

    /// Reads nothing more as HTTP.
    pub(crate) fn end(&mut self) {
        self.place = Place::Refused;
    }

    /// Follows the bytes; spoils the end of the first line that makes a request ambiguous.
    pub(crate) fn inspect(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.place {
                Place::Refused => return,
                Place::Data(left, after) => {
                    let step = left.min((bytes.len() - at) as u64);
                    at += step as usize;
                    self.place = match (left - step, after) {
                        (0, After::Request) => Place::RequestLine,
                        (0, After::Chunk) => Place::ChunkSize,
                        (left, after) => Place::Data(left, after),
                    };
                }
                _ => {
                    let Some(length) = memchr(b'\n', &bytes[at..]) else {
                        self.keep(&mut bytes[at..]);
                        self.cut_endless_line(&mut bytes[at..]);
                        return;
                    };
                    self.keep(&mut bytes[at..at + length]);
                    at += length + 1;
                    // In the extension of a chunk hyper refuses an LF alone itself, and nothing else.
                    let is_refused = self.place == Place::ChunkSize && self.last != b'\r';
                    if self.end_line().is_err() {
                        if !is_refused {
                            bytes[at - 1] = 0;
                        }
                        self.place = Place::Refused;
                    }
                }
            }
        }
    }

    fn keep(&mut self, part: &mut [u8]) {
        if self.place == Place::RequestLine {
            self.request_line.follow(part);
        }
        let room = MAX_KEPT.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        self.last = part.last().copied().unwrap_or(self.last);
    }

    /// Ends a request line that is longer than any that is read, so that hyper says 414 (RFC 9112 3) and not
    /// that the fields are too large.
    fn cut_endless_line(&mut self, part: &mut [u8]) {
        if self.place == Place::RequestLine
            && self.request_line.length > MAX_REQUEST_LINE
            && let Some(end) = part.last_chunk_mut()
        {
            *end = *END_OF_HEAD;
            self.place = Place::Refused;
        }
    }

    fn end_line(&mut self) -> Result<(), Ambiguous> {
        let mut line = mem::take(&mut self.line);
        let request_line = mem::take(&mut self.request_line);
        if mem::take(&mut self.last) != b'\r' || request_line.has_fragment {
            return Err(Ambiguous);
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if self.place == Place::RequestLine && !line.is_empty() {
            self.requests += 1;
            let oddity = request_line.oddity(&line);
            self.oddities.extend(oddity.map(|oddity| (self.requests, oddity)));
        }
        self.place = next(&self.place, &line)?;
        line.clear();
        self.line = line;
        Ok(())
    }
}

/// What matters of a request line however long it is, as far as it has come.
#[derive(Debug, Default)]
struct RequestLine {
    length: usize,
    /// No target has one.
    has_fragment: bool,
    spaces: u8,
    /// So many bytes of the version.
    of_version: u8,
    is_foreign: bool,
}

impl RequestLine {
    /// Makes of every version a 1.1, but for 1.0: hyper knows no others. Of those before 2 it has to be one
    /// (RFC 9110 6.2), and of the others it is remembered.
    fn follow(&mut self, part: &mut [u8]) {
        self.length += part.len();
        let mut version = part;
        while self.spaces < 2 {
            let space = memchr(b' ', version);
            let word = &version[..space.unwrap_or(version.len())];
            // A method may have one: it is any token.
            self.has_fragment |= self.spaces == 1 && memchr(b'#', word).is_some();
            let Some(space) = space else {
                return;
            };
            self.spaces += 1;
            version = &mut version[space + 1..];
        }
        for byte in version.iter_mut().filter(|byte| **byte != b'\r') {
            match self.of_version {
                MAJOR if byte.is_ascii_digit() && *byte != b'1' => {
                    self.is_foreign = true;
                    *byte = b'1';
                }
                MINOR if byte.is_ascii_digit() && (self.is_foreign || *byte > b'1') => *byte = b'1',
                _ => {}
            }
            self.of_version = self.of_version.saturating_add(1);
        }
    }

    fn oddity(&self, line: &[u8]) -> Option<Oddity> {
        if self.is_foreign {
            return Some(Oddity::ForeignVersion);
        }
        is_for_server(line).then_some(Oddity::ForServer)
    }
}

/// The place behind a line, whose end is left away.
fn next(place: &Place, line: &[u8]) -> Result<Place, Ambiguous> {
    Ok(match place {
        // Empty lines before a request are ignored (RFC 9112 2.2).
        Place::RequestLine if line.is_empty() => Place::RequestLine,
        Place::RequestLine => Place::Fields(Body::None),
        Place::Fields(body) if line.is_empty() => match body {
            Body::None | Body::Length(0) => Place::RequestLine,
            Body::Length(length) => Place::Data(*length, After::Request),
            Body::Chunked => Place::ChunkSize,
        },
        Place::Fields(body) => Place::Fields(with_field(*body, line)?),
        Place::ChunkSize => match chunk_size(line)? {
            0 => Place::Trailers,
            // The data of a chunk end with CR LF, which hyper looks at.
            size => Place::Data(size.checked_add(2).ok_or(Ambiguous)?, After::Chunk),
        },
        Place::Trailers if line.is_empty() => Place::RequestLine,
        Place::Trailers => Place::Trailers,
        Place::Data(..) | Place::Refused => return Err(Ambiguous),
    })
}

/// Whether a request line is `OPTIONS` with an absolute target that has neither path nor query.
fn is_for_server(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"OPTIONS ") else {
        return false;
    };
    let target = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
    let scheme = target.windows(3).position(|part| part == b"://");
    let is_path = |byte: &u8| b"/?".contains(byte);
    scheme.is_some_and(|end| !target[..end].iter().chain(&target[end + 3..]).any(is_path))
}

/// What a field adds to what is known of the body.
fn with_field(body: Body, line: &[u8]) -> Result<Body, Ambiguous> {
    if let Some(value) = value_of(line, b"content-length:") {
        let length = decimal(value).ok_or(Ambiguous)?;
        return match body {
            Body::None => Ok(Body::Length(length)),
            Body::Length(other) if other == length => Ok(body),
            _ => Err(Ambiguous),
        };
    }
    if value_of(line, b"transfer-encoding:").is_some() {
        return match body {
            Body::None => Ok(Body::Chunked),
            _ => Err(Ambiguous),
        };
    }
    Ok(body)
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

fn decimal(value: &[u8]) -> Option<u64> {
    number(value.trim_ascii(), 10)
}

/// The number before the extensions, if there are any (RFC 9112 7.1). Those mean nothing to anybody here, and so
/// may neither be long nor hold what is no text.
pub(crate) fn chunk_size(line: &[u8]) -> Result<u64, Ambiguous> {
    let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    if line.len() >= MAX_KEPT || !line.iter().all(is_text) {
        return Err(Ambiguous);
    }
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    number(size.trim_ascii_end(), 16).ok_or(Ambiguous)
}

/// Digits and nothing else, not even leading zeros without end: of those a part may not have been kept.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = str::from_utf8(digits).ok()?;
    let is_number = text.len() <= MAX_DIGITS && text.chars().all(|digit| digit.is_digit(radix));
    is_number.then(|| u64::from_str_radix(text, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes through when the bytes arrive in pieces of `size`.
    fn through(bytes: &str, size: usize) -> String {
        let mut framing = Framing::default();
        let mut passed = bytes.as_bytes().to_vec();
        for piece in passed.chunks_mut(size) {
            framing.inspect(piece);
        }
        String::from_utf8(passed).unwrap()
    }

    fn for_all_pieces(bytes: &str, check: impl Fn(&str)) {
        for size in [1, 2, 3, 7, 4096] {
            check(&through(bytes, size));
        }
    }

    #[test]
    fn plain_requests_pass_unchanged_one_behind_the_other() {
        let long = "x".repeat(1000);
        let requests = [
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "\r\nPOST /2 HTTP/1.1\r\nContent-Length: 30\r\n\r\nTransfer-Encoding: x\nno head\r\n".to_owned(),
            "POST /3 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\n\n\n\n\n\n\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n".to_owned(),
            "POST /4 HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "POST /5 HTTP/1.1\r\nContent-Length: 1\r\ncontent-length:1\r\n\r\n\n".to_owned(),
            format!("GET /6 HTTP/1.1\r\nX-Long: {long}\r\nX-Content-Length: 1\r\n\r\n"),
        ];
        let all = requests.concat();
        for_all_pieces(&all, |passed| assert_eq!(passed, all));
    }

    #[test]
    fn what_could_end_at_two_places_is_spoilt() {
        for head in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nX: y\r\nCONTENT-LENGTH: 1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length:",
            &format!("Content-Length: {:0>200}", 1),
            "X: y\nContent-Length: 1",
        ] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n");
            for_all_pieces(&request, |passed| assert!(passed.contains('\0'), "{passed:?}"));
        }
    }

    #[test]
    fn a_fragment_in_a_target_is_spoilt() {
        for_all_pieces("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", |passed| {
            assert!(passed.starts_with("GET /a#b HTTP/1.1\r\0Host"), "{passed:?}");
        });
        let elsewhere = "M#X /a HTTP/1.1\r\nX: #\r\nContent-Length: 1\r\n\r\n#GET / HTTP/1.1\r\n\r\n";
        for_all_pieces(elsewhere, |passed| assert_eq!(passed, elsewhere));
    }

    #[test]
    fn later_minor_versions_are_read_as_the_one_that_is_spoken_here() {
        let long = "x".repeat(1000);
        for (version, expected) in [
            ("HTTP/1.0", "HTTP/1.0"),
            ("HTTP/1.1", "HTTP/1.1"),
            ("HTTP/1.2", "HTTP/1.1"),
            ("HTTP/1.9", "HTTP/1.1"),
            ("HTTP/1.10", "HTTP/1.10"),
            ("http/1.x", "http/1.x"),
        ] {
            let requests = |version| {
                format!("GET /{long}HTTP/1.2 {version}\r\nX: HTTP/1.2\r\n\r\nGET / {version}\r\n\r\n")
            };
            for_all_pieces(&requests(version), |passed| {
                assert_eq!(passed, requests(expected));
            });
        }
    }

    #[test]
    fn other_major_versions_are_told() {
        for version in ["HTTP/0.9", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9"] {
            for size in [1, 2, 5, 4096] {
                let mut framing = Framing::default();
                let mut bytes = format!("\r\nGET / HTTP/1.1\r\n\r\nPRI * {version}\r\n\r\n").into_bytes();
                for piece in bytes.chunks_mut(size) {
                    framing.inspect(piece);
                }
                assert!(bytes.ends_with(b"PRI * HTTP/1.1\r\n\r\n"), "{version}");
                assert_eq!(framing.oddities, [(2, Oddity::ForeignVersion)], "{version}");
            }
        }
    }

    #[test]
    fn options_for_a_server_are_told_from_those_for_its_root() {
        for (line, expected) in [
            ("OPTIONS http://a.test HTTP/1.1", true),
            ("OPTIONS https://a.test:443 HTTP/1.1", true),
            ("OPTIONS http://a.test/ HTTP/1.1", false),
            ("OPTIONS http://a.test?q HTTP/1.1", false),
            ("OPTIONS * HTTP/1.1", false),
            ("OPTIONS /x://a HTTP/1.1", false),
            ("GET http://a.test HTTP/1.1", false),
        ] {
            assert_eq!(is_for_server(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_chunk_whose_size_is_no_number_is_spoilt() {
        for size in [
            "",
            "x",
            "-1",
            "0x1",
            "1 1",
            "fffffffffffffffff",
            "ffffffffffffffff",
            "5;\u{1}",
            "5;a=\"\u{7f}\"",
            &format!("5;{}", "a".repeat(MAX_KEPT)),
        ] {
            let request = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\n");
            for_all_pieces(&request, |passed| assert!(passed.contains('\0'), "{passed:?}"));
        }
    }

    /// A byte in its place would go through in an extension, and with it what follows.
    #[test]
    fn an_lf_alone_behind_a_chunk_size_is_left_for_hyper_to_refuse() {
        for size in ["5\n", "5;a\nb"] {
            let request =
                format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\nhello\r\n0\r\n\r\n");
            for_all_pieces(&request, |passed| assert_eq!(passed, request));
        }
    }

    #[test]
    fn a_request_line_without_end_is_cut() {
        let line = format!("GET /{}", "a".repeat(2 * MAX_REQUEST_LINE));
        for size in [20, 4096] {
            let passed = through(&line, size);
            let end = passed.find(" HTTP/1.1\r\n\r\n").unwrap();
            assert!(
                (MAX_REQUEST_LINE - size..MAX_REQUEST_LINE + size).contains(&end),
                "{end}"
            );
        }
    }

    #[test]
    fn what_stands_behind_a_body_is_a_request_again() {
        let request = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\nHost: a\r\n\r\n";
        for_all_pieces(request, |passed| {
            assert!(
                passed.ends_with("abcGET / HTTP/1.1\0Host: a\r\n\r\n"),
                "{passed:?}"
            );
        });
    }
}
