//! Compression of what upstreams send (RFC 9110 8.4, 12.5.3).

use std::io::{self, Write};
use std::mem;
use std::task::{Context, Poll};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, VARY,
};
use http::{Response, StatusCode};
use http_body::Frame;
use memchr::memmem;

use crate::body::{ReplyBody, ReplyBodyError, UpstreamBody};

/// Below it the frame of a format eats what it saves.
const MIN_BYTES: u64 = 256;
/// Given on at once; less waits for more, as long as more is there.
const ENOUGH_OUTPUT: usize = 8 * 1024;
/// After so much that gave no output, others have their turn.
const MAX_INPUT: usize = 256 * 1024;
const BROTLI_BUFFER: usize = 4096;
/// Quality and window for content that is made as it is asked for.
const BROTLI_EFFORT: (u32, u32) = (4, 19);
const ZSTD_LEVEL: i32 = 3;

/// What holds for the content as it was sent only (RFC 9530 2 and 3, and what was before).
static DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// A way to compress, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// The one that the client likes most, and of those it likes as much our best; `None` if it likes
    /// content better as it is, or asks for what was sent (RFC 9111 5.2.1.6).
    fn negotiate(headers: &HeaderMap) -> Option<Self> {
        if forbids_transformation(headers) {
            return None;
        }
        let accepted = Accepted::read(headers);
        let mut best = (accepted.identity(), None);
        for coding in Self::ALL {
            let weight = accepted.weight(coding.as_str());
            if weight > 0 && (weight > best.0 || (best.1.is_none() && weight == best.0)) {
                best = (weight, Some(coding));
            }
        }
        best.1
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// What Accept-Encoding says, with weights in thousandths.
struct Accepted(Vec<(String, u16)>);

impl Accepted {
    fn read(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(ACCEPT_ENCODING).iter();
        let words = fields
            .filter_map(|field| field.to_str().ok())
            .flat_map(|field| field.split(','));
        Self(words.map(read_weighted).collect())
    }

    fn weight(&self, coding: &str) -> u16 {
        let of = |name: &str| {
            self.0
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, weight)| *weight)
        };
        of(coding).or_else(|| of("*")).unwrap_or(0)
    }

    /// What is not mentioned is acceptable, and anything mentioned is better.
    fn identity(&self) -> u16 {
        let identity = self.0.iter().find(|(known, _)| known == "identity");
        identity.map_or(0, |(_, weight)| *weight)
    }
}

fn read_weighted(word: &str) -> (String, u16) {
    let (name, parameter) = word.split_once(';').unwrap_or((word, ""));
    let weight = parameter
        .trim()
        .strip_prefix(['q', 'Q'])
        .and_then(|q| q.strip_prefix('='))
        .map_or(Some(1.0), |q| q.trim().parse::<f32>().ok());
    // A weight that cannot be read is no wish.
    let weight = (weight.unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u16;
    (name.trim().to_ascii_lowercase(), weight)
}

/// What a client says of how it wants to have the content, and what of that it has.
pub(crate) struct Wanted {
    coding: Option<Coding>,
    known: Option<HeaderValue>,
}

impl Wanted {
    pub(crate) fn by(headers: &HeaderMap) -> Self {
        Self {
            coding: Coding::negotiate(headers),
            known: headers.get(IF_NONE_MATCH).cloned(),
        }
    }
}

/// Compresses the response if that is right for what it holds; says of all such responses that they
/// depend on what the client accepts.
pub(crate) fn compress(mut response: Response<ReplyBody>, wanted: &Wanted) -> Response<ReplyBody> {
    if response.status() == StatusCode::NOT_MODIFIED {
        confirm(response.headers_mut(), wanted.known.as_ref());
        return response;
    }
    if !is_compressible(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    add_vary(&mut parts.headers);
    let body = match (body, wanted.coding) {
        (ReplyBody::Upstream(body), Some(coding)) => match Encoder::new(coding) {
            Ok(encoder) => {
                describe(&mut parts.headers, coding);
                ReplyBody::Compressed(Box::new(Compressed::new(body, encoder)))
            }
            Err(_) => ReplyBody::Upstream(body),
        },
        (body, _) => body,
    };
    Response::from_parts(parts, body)
}

/// Says of content that the client has what was said when it got that (RFC 9110 15.4.5).
fn confirm(headers: &mut HeaderMap, known: Option<&HeaderValue>) {
    add_vary(headers);
    let (Some(tag), Some(known)) = (headers.get(ETAG), known) else {
        return;
    };
    let weak = [b"W/", tag.as_bytes()].concat();
    if memmem::find(known.as_bytes(), &weak).is_some() {
        weaken_etag(headers);
    }
}

/// Says what becomes of the content, and no longer what it was.
fn describe(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    headers.remove(CONTENT_LENGTH);
    // Ranges are of the bytes that the upstream has.
    headers.remove(ACCEPT_RANGES);
    weaken_etag(headers);
}

fn is_compressible(response: &Response<ReplyBody>) -> bool {
    let headers = response.headers();
    let has = |name: HeaderName| headers.contains_key(name);
    let has_whole_content = !response.status().is_informational()
        && ![
            StatusCode::NO_CONTENT,
            StatusCode::PARTIAL_CONTENT,
            StatusCode::NOT_MODIFIED,
        ]
        .contains(&response.status());
    has_whole_content
        && !has(CONTENT_ENCODING)
        && !has(CONTENT_RANGE)
        && !DIGESTS.iter().any(|digest| headers.contains_key(digest))
        && !forbids_transformation(headers)
        && length(headers).is_none_or(|length| length >= MIN_BYTES)
        && headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(shrinks)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// RFC 9111 5.2.1.6 and 5.2.2.6.
fn forbids_transformation(headers: &HeaderMap) -> bool {
    let fields = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|field| field.to_str().ok());
    let mut directives = fields.flat_map(|field| field.split(','));
    directives.any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"))
}

/// Text in any form; not events, which are small and must not wait for each other.
fn shrinks(content_type: &str) -> bool {
    let kind = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match kind.split_once('/') {
        Some(("text", subtype)) => subtype != "event-stream",
        Some(("application", subtype)) => {
            matches!(
                subtype,
                "json" | "javascript" | "xml" | "wasm" | "manifest+json" | "x-javascript"
            ) || subtype.ends_with("+json")
                || subtype.ends_with("+xml")
        }
        Some(("image", subtype)) => matches!(subtype, "svg+xml" | "bmp"),
        Some(("font", subtype)) => matches!(subtype, "ttf" | "otf"),
        _ => false,
    }
}

fn add_vary(headers: &mut HeaderMap) {
    let fields = headers
        .get_all(VARY)
        .iter()
        .filter_map(|field| field.to_str().ok());
    let mut names = fields.flat_map(|field| field.split(',')).map(str::trim);
    if !names.any(|name| name == "*" || name.eq_ignore_ascii_case("accept-encoding")) {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// The bytes are no longer those that the upstream's tag stands for (RFC 9110 8.8.1).
fn weaken_etag(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else {
        return;
    };
    if let Ok(weak) = HeaderValue::try_from([b"W/", tag.as_bytes()].concat()) {
        headers.insert(ETAG, weak);
    }
}

/// An upstream's body, compressed as it comes. Nothing waits for more than is there.
pub(crate) struct Compressed {
    upstream: UpstreamBody,
    /// Until the end of the content.
    encoder: Option<Encoder>,
    /// Whether the encoder holds back something.
    is_dirty: bool,
    trailers: Option<Frame<Bytes>>,
}

impl Compressed {
    fn new(upstream: UpstreamBody, encoder: Encoder) -> Self {
        Self {
            upstream,
            encoder: Some(encoder),
            is_dirty: false,
            trailers: None,
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyBodyError>>> {
        let mut taken = 0;
        while let Some(encoder) = &mut self.encoder {
            let frame = match self.upstream.poll_frame(context)? {
                Poll::Ready(frame) => frame,
                Poll::Pending if mem::take(&mut self.is_dirty) => {
                    return Poll::Ready(encoder.flush().transpose().map(|data| Ok(Frame::data(data?))));
                }
                Poll::Pending => return Poll::Pending,
            };
            let Some(data) = frame.as_ref().and_then(Frame::data_ref) else {
                self.trailers = frame;
                let rest = self.encoder.take().map(Encoder::finish).transpose()?;
                return Poll::Ready(rest.map(|rest| Ok(Frame::data(rest))));
            };
            taken += data.len();
            self.is_dirty = true;
            if let Some(output) = encoder.write(data)? {
                return Poll::Ready(Some(Ok(Frame::data(output))));
            }
            if taken > MAX_INPUT {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(self.trailers.take().map(Ok))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }
}

enum Encoder {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        let (quality, window) = BROTLI_EFFORT;
        Ok(match coding {
            Coding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
            Coding::Brotli => {
                let writer = CompressorWriter::new(Vec::new(), BROTLI_BUFFER, quality, window);
                Self::Brotli(Box::new(writer))
            }
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
        })
    }

    /// Gives output when there is enough of it.
    fn write(&mut self, data: &[u8]) -> io::Result<Option<Bytes>> {
        self.writer().write_all(data)?;
        Ok((self.output().len() >= ENOUGH_OUTPUT).then(|| self.take()))
    }

    /// Gives everything that was written so far, if that is something.
    fn flush(&mut self) -> io::Result<Option<Bytes>> {
        self.writer().flush()?;
        let output = self.take();
        Ok((!output.is_empty()).then_some(output))
    }

    fn finish(self) -> io::Result<Bytes> {
        let output = match self {
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Gzip(encoder) => encoder.finish()?,
        };
        Ok(output.into())
    }

    fn take(&mut self) -> Bytes {
        mem::take(self.output()).into()
    }

    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Zstd(encoder) => encoder,
            Self::Brotli(encoder) => encoder,
            Self::Gzip(encoder) => encoder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_s_weights_decide_and_then_our_order() {
        use Coding::*;
        for (field, expected) in [
            ("", None),
            ("gzip", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip;q=1.0, br;q=0.5", Some(Gzip)),
            ("GZIP; q=0.5", Some(Gzip)),
            ("gzip;Q=0", None),
            ("gzip;q=0", None),
            ("*", Some(Zstd)),
            ("*, zstd;q=0", Some(Brotli)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0, gzip;q=0.1", Some(Gzip)),
            ("gzip;q=x", None),
            ("deflate, compress", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(field));
            assert_eq!(Coding::negotiate(&headers), expected, "{field}");
        }
        assert_eq!(Coding::negotiate(&HeaderMap::new()), None);
    }

    #[test]
    fn what_shrinks_is_text_but_not_events() {
        for kind in [
            "text/html; charset=utf-8",
            "TEXT/CSS",
            "application/ld+json",
            "image/svg+xml",
        ] {
            assert!(shrinks(kind), "{kind}");
        }
        for kind in [
            "text/event-stream",
            "image/png",
            "application/octet-stream",
            "application/grpc",
            "",
        ] {
            assert!(!shrinks(kind), "{kind}");
        }
    }
}
