//! A whole exchange with a client that speaks HTTP/2.
//!
//! The bytes are a script, so that it is what the frames say that is made up, and not how HPACK writes it: a line is a
//! field, `:path /x`, or with `>` before it a part of the body, and `==` begins the next stream. Fields behind a part
//! are trailers. `%0A` and the like stand for a byte. Tunnels are left out: `:protocol` is not sent.

use fairlead_proxy::fuzzing;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex, split};

use crate::exchange::{Shared, files, nowhere, take, until_quiet, watch};
use crate::judge::judge_requests;
use crate::message::{Fields, Request, Version, is_field_value, is_target, is_token, number, values};

/// More makes no other kind of input, and each block of fields has room in one frame.
const MAX: usize = 8 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The upstream sees no request that the client did not send, and none that the proxy did not mean.
pub fn exchange_http2(bytes: &[u8]) {
    let streams = read_script(&bytes[..bytes.len().min(MAX)]);
    let sent = written(&streams);
    let received = watch(async |upstream| send(&sent, upstream).await);
    let meant: Vec<_> = streams.into_iter().filter_map(Stream::into_request).collect();
    judge_requests(&meant, &received, bytes);
}

/// What a client sends over one stream.
#[derive(Debug, Default)]
struct Stream {
    fields: Fields,
    parts: Vec<Vec<u8>>,
    trailers: Fields,
}

fn read_script(script: &[u8]) -> Vec<Stream> {
    let lines: Vec<_> = script.split(|byte| *byte == b'\n').collect();
    let streams = lines.split(|line| *line == b"==").map(read_stream);
    streams.filter(|stream| !stream.fields.is_empty()).collect()
}

fn read_stream(lines: &[&[u8]]) -> Stream {
    let mut stream = Stream::default();
    for line in lines.iter().filter(|line| !line.is_empty()) {
        if let Some(part) = line.strip_prefix(b">") {
            stream.parts.push(decoded(part));
            continue;
        }
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (name, value) = line.split_at(space);
        let field = (decoded(name), decoded(value.get(1..).unwrap_or_default()));
        if field.0 == b":protocol" {
            continue;
        }
        match stream.parts.is_empty() {
            true => stream.fields.push(field),
            false => stream.trailers.push(field),
        }
    }
    stream
}

pub(crate) fn decoded(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let [first, rest @ ..] = text {
        let hex = rest.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        let byte = hex.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        (text, bytes) = match byte.filter(|_| *first == b'%') {
            Some(byte) => (&rest[2..], [&bytes[..], &[byte]].concat()),
            None => (rest, [&bytes[..], &[*first]].concat()),
        };
    }
    bytes
}

/// The frames of each stream.
fn written(streams: &[Stream]) -> Vec<Vec<u8>> {
    let ids = (1..).step_by(2);
    streams
        .iter()
        .zip(ids)
        .map(|(stream, id)| stream.frames(id))
        .collect()
}

impl Stream {
    fn frames(&self, id: u32) -> Vec<u8> {
        let data = self.parts.iter().map(|part| (DATA, part.clone()));
        let trailers = (!self.trailers.is_empty()).then(|| (HEADERS, block(&self.trailers)));
        let mut frames: Vec<_> = [(HEADERS, block(&self.fields))]
            .into_iter()
            .chain(data)
            .chain(trailers)
            .collect();
        let last = frames.pop();
        let flag = |kind| if kind == HEADERS { END_HEADERS } else { 0 };
        let others = frames
            .iter()
            .map(|(kind, payload)| frame(*kind, flag(*kind), id, payload));
        let last = last.map(|(kind, payload)| frame(kind, flag(kind) | END_STREAM, id, &payload));
        others.chain(last).flatten().collect()
    }

    /// What RFC 9113 8 takes it for; `None` if it is malformed, or no request for a site.
    fn into_request(self) -> Option<Request> {
        let begin = self.fields.iter().position(|(name, _)| !name.starts_with(b":"));
        let (pseudo, fields) = self.fields.split_at(begin.unwrap_or(self.fields.len()));
        let known: [&[u8]; 4] = [b":method", b":scheme", b":path", b":authority"];
        let only = |name: &str| {
            let mut values = pseudo.iter().filter(|(other, _)| other == name.as_bytes());
            values
                .next()
                .map(|(_, value)| value.clone())
                .filter(|_| values.next().is_none())
        };
        let (method, target) = (only(":method")?, without_fragment(only(":path")?));
        let authority = only(":authority");
        let is_well_formed = pseudo.iter().all(|(name, _)| known.contains(&&name[..]))
            && only(":scheme").is_some()
            && authority.is_some() == pseudo.iter().any(|(name, _)| name == b":authority")
            && is_token(&method)
            && is_target(&target)
            && fields.iter().all(is_well_formed)
            && method != b"CONNECT";
        let mut fields = with_one_cookie(fields);
        let host = settle_host(&mut fields, authority)?;
        let body = self.parts.concat();
        let has_its_length =
            values(&fields, "content-length").all(|length| number(length) == Some(body.len()));
        is_well_formed.then(|| Request {
            method,
            target,
            version: Version::HTTP_2,
            fields: [fields, vec![(b"host".to_vec(), host)]].concat(),
            is_whole: has_its_length && self.trailers.iter().all(is_right_behind),
            body,
            trailers: self.trailers,
        })
    }
}

/// RFC 9113 8.2.1 and 8.2.2.
fn is_well_formed((name, value): &(Vec<u8>, Vec<u8>)) -> bool {
    const OF_CONNECTIONS: [&[u8]; 5] = [
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"transfer-encoding",
        b"upgrade",
    ];
    let is_padded = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_token(name)
        && !name.iter().any(u8::is_ascii_uppercase)
        && !OF_CONNECTIONS.contains(&&name[..])
        && is_field_value(value)
        && !is_padded(value.first())
        && !is_padded(value.last())
        && (name != b"te" || value == b"trailers")
}

/// h2 cuts it off, and takes nothing before it for the root.
fn without_fragment(path: Vec<u8>) -> Vec<u8> {
    match path.iter().position(|byte| *byte == b'#') {
        Some(0) => b"/".to_vec(),
        Some(length) => path[..length].to_vec(),
        None => path,
    }
}

/// h2 forgets pseudo-fields there.
fn is_right_behind(field: &(Vec<u8>, Vec<u8>)) -> bool {
    field.0.starts_with(b":") || is_well_formed(field)
}

/// RFC 9113 8.2.3: crumbs of it come one by one.
fn with_one_cookie(fields: &[(Vec<u8>, Vec<u8>)]) -> Fields {
    let (crumbs, mut others): (Fields, Fields) =
        fields.iter().cloned().partition(|(name, _)| name == b"cookie");
    let crumbs: Vec<_> = crumbs.into_iter().map(|(_, crumb)| crumb).collect();
    if !crumbs.is_empty() {
        others.push((b"cookie".to_vec(), crumbs.join(&b"; "[..])));
    }
    others
}

/// RFC 9113 8.3.1: the two may say the same. `None` if they do not, or if there is not one of them.
fn settle_host(fields: &mut Fields, authority: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let hosts: Vec<_> = fields
        .extract_if(.., |(name, _)| name == b"host")
        .map(|(_, host)| host)
        .collect();
    match (authority, &hosts[..]) {
        (Some(authority), []) => Some(authority),
        (Some(authority), [host]) => (authority == *host).then_some(authority),
        (None, [host]) => Some(host.clone()),
        _ => None,
    }
}

/// HPACK's plainest way (RFC 7541 6.2.2): a new name, no index, no Huffman code.
fn block(fields: &Fields) -> Vec<u8> {
    let literal = |(name, value): &(Vec<u8>, Vec<u8>)| [&[0], &string(name)[..], &string(value)].concat();
    fields.iter().flat_map(literal).collect()
}

/// RFC 7541 5.2.
fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match u8::try_from(text.len()) {
        Ok(length @ 0..127) => bytes.push(length),
        _ => {
            bytes.push(127);
            let mut left = text.len() - 127;
            while left >= 128 {
                bytes.push((left % 128) as u8 | 128);
                left /= 128;
            }
            bytes.push(left as u8);
        }
    }
    bytes.extend(text);
    bytes
}

/// RFC 9113 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame");
    [
        &length.to_be_bytes()[1..],
        &[kind, flags],
        &stream.to_be_bytes(),
        payload,
    ]
    .concat()
}

async fn send(streams: &[Vec<u8>], upstream: &Shared) {
    let (client, proxy) = duplex(64 * 1024);
    tokio::spawn(serve(proxy));
    let (from, mut to) = split(client);
    let taking = tokio::spawn(take(from, upstream.clone()));
    let settings = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])];
    let begin = [PREFACE, &settings[0]].concat();
    for bytes in [&begin, &settings[1]].into_iter().chain(streams) {
        // The proxy may have hung up.
        let _ = to.write_all(bytes).await;
        until_quiet(upstream).await;
    }
    taking.abort();
    drop(to);
    until_quiet(upstream).await;
}

async fn serve(stream: DuplexStream) {
    fuzzing::serve_http2(&files(), &nowhere(), stream).await;
}
