//! What the fields of a header block make: a request, a response, trailers (RFC 9113 8).

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::frame::Violation;
use super::hpack::{Encoder, Field, Pseudo};
use crate::message_length::is_number;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The protocol of an extended CONNECT (RFC 8441 4), an extension of its request.
#[derive(Clone, Debug)]
pub(crate) struct ConnectProtocol(pub(crate) HeaderValue);

/// The fields of one block, as they come.
pub(super) struct Fields {
    pseudo: [Option<Bytes>; 6],
    regular: HeaderMap,
    /// For so many bytes more.
    room: Option<usize>,
    violation: Option<Violation>,
}

impl Fields {
    pub(super) fn new(most_bytes: u32) -> Self {
        Self {
            pseudo: Default::default(),
            regular: HeaderMap::new(),
            room: Some(most_bytes as usize),
            violation: None,
        }
    }

    /// `size` as RFC 9113 10.5.1 counts it.
    pub(super) fn add(&mut self, field: Field, size: usize) {
        self.room = self.room.and_then(|room| room.checked_sub(size));
        if self.room.is_none() {
            return;
        }
        match field {
            Field::Pseudo(name, value) => {
                if !self.regular.is_empty() {
                    self.refuse("a pseudo-field behind a field");
                }
                if self.pseudo[name as usize].replace(value).is_some() {
                    self.refuse("a pseudo-field that comes twice");
                }
            }
            Field::Regular(name, value) => {
                if is_of_connection(&name, &value) {
                    self.refuse("a field that is about a connection");
                }
                self.regular.append(name, value);
            }
            Field::Malformed => self.refuse("a field with characters that it cannot have"),
        }
    }

    /// Whether there was more than may be.
    pub(super) fn is_too_large(&self) -> bool {
        self.room.is_none()
    }

    pub(super) fn refuse(&mut self, what: &'static str) {
        self.violation = Some(Violation::protocol(what));
    }

    fn take(&mut self, name: Pseudo) -> Option<Bytes> {
        self.pseudo[name as usize].take()
    }

    /// Fails if there is a pseudo-field that was not taken.
    fn into_regular(self) -> Result<HeaderMap, Violation> {
        match self.violation {
            Some(violation) => Err(violation),
            None if self.pseudo.iter().any(Option::is_some) => {
                Err(Violation::protocol("a pseudo-field that has no place here"))
            }
            None => Ok(self.regular),
        }
    }

    pub(super) fn into_trailers(self) -> Result<HeaderMap, Violation> {
        self.into_regular()
    }

    /// RFC 9113 8.3.1 and 8.5, RFC 8441 4.
    pub(super) fn into_request(mut self) -> Result<Request<()>, Violation> {
        let method = self.take(Pseudo::Method);
        let method = method.and_then(|method| Method::from_bytes(&method).ok());
        let method = method.ok_or(Violation::protocol("a request without a method"))?;
        let protocol = self.take(Pseudo::Protocol).map(read_protocol).transpose()?;
        if protocol.is_some() && method != Method::CONNECT {
            return Err(Violation::protocol("a protocol for another method than CONNECT"));
        }
        let uri = self.read_target(&method, protocol.is_some())?;
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.into_regular()?;
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(protocol);
        }
        Ok(request)
    }

    fn read_target(&mut self, method: &Method, is_extended: bool) -> Result<Uri, Violation> {
        const INVALID: Violation = Violation::protocol("a target that is no URI");
        let mut parts = Parts::default();
        if let Some(authority) = self.take(Pseudo::Authority) {
            // With userinfo it is none (RFC 9113 8.3.1).
            let is_authority = !authority.contains(&b'@');
            let authority = is_authority.then(|| Authority::from_maybe_shared(authority).ok());
            parts.authority = Some(authority.flatten().ok_or(INVALID)?);
        }
        let is_plain_connect = method == Method::CONNECT && !is_extended;
        if (is_plain_connect || is_extended) && parts.authority.is_none() {
            return Err(Violation::protocol("CONNECT without an authority"));
        }
        if !is_plain_connect {
            let missing = Violation::protocol("a request without a scheme or a path");
            let scheme = self.take(Pseudo::Scheme).filter(|scheme| !scheme.is_empty());
            let scheme = scheme.ok_or(missing)?;
            let path = self.take(Pseudo::Path).ok_or(missing)?;
            let scheme = Scheme::try_from(&scheme[..]).map_err(|_| INVALID)?;
            let is_path = path.starts_with(b"/") || (method == Method::OPTIONS && path == "*");
            // `PathAndQuery` would cut it off.
            if !is_path || path.contains(&b'#') {
                return Err(INVALID);
            }
            // There is no `Uri` of a scheme and a path alone.
            parts.scheme = parts.authority.is_some().then_some(scheme);
            parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path).map_err(|_| INVALID)?);
        }
        Uri::from_parts(parts).map_err(|_| INVALID)
    }

    /// RFC 9113 8.3.2.
    pub(super) fn into_response(mut self) -> Result<Response<()>, Violation> {
        let status = self.take(Pseudo::Status);
        let status = status.and_then(|status| StatusCode::from_bytes(&status).ok());
        // Of 101 there is nothing in HTTP/2 (RFC 9113 8.6).
        let status = status.filter(|status| *status != StatusCode::SWITCHING_PROTOCOLS);
        let mut response = Response::new(());
        *response.status_mut() = status.ok_or(Violation::protocol("a response without a status"))?;
        *response.version_mut() = Version::HTTP_2;
        *response.headers_mut() = self.into_regular()?;
        Ok(response)
    }
}

/// RFC 9113 8.2.2.
fn is_of_connection(name: &HeaderName, value: &HeaderValue) -> bool {
    match *name {
        TE => !value.as_bytes().eq_ignore_ascii_case(b"trailers"),
        ref name => [
            &CONNECTION,
            &TRANSFER_ENCODING,
            &UPGRADE,
            &KEEP_ALIVE,
            &PROXY_CONNECTION,
        ]
        .contains(&name),
    }
}

fn read_protocol(protocol: Bytes) -> Result<ConnectProtocol, Violation> {
    let is_name = !protocol.is_empty()
        && protocol
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b',');
    is_name
        .then(|| HeaderValue::from_maybe_shared(protocol).ok())
        .flatten()
        .map(ConnectProtocol)
        .ok_or(Violation::protocol("a protocol that is none, or several"))
}

/// The length that a message declares. All it declares have to be the same, and one number (RFC 9110 8.6).
pub(super) fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Violation> {
    const INVALID: Violation = Violation::protocol("a length that is none, or several");
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(None);
    };
    if !is_number(first.as_bytes()) || lengths.any(|other| other != first) {
        return Err(INVALID);
    }
    let length = first.to_str().ok().and_then(|digits| digits.parse().ok());
    length.map(Some).ok_or(INVALID)
}

pub(super) fn write_response(
    encoder: &mut Encoder,
    status: StatusCode,
    headers: &HeaderMap,
    block: &mut BytesMut,
) {
    encoder.pseudo(Pseudo::Status, status.as_str().as_bytes(), block);
    write_fields(encoder, headers, block);
}

pub(super) fn write_request(encoder: &mut Encoder, request: &Request<()>, block: &mut BytesMut) {
    let uri = request.uri();
    let protocol = request.extensions().get::<ConnectProtocol>();
    encoder.pseudo(Pseudo::Method, request.method().as_str().as_bytes(), block);
    if let Some(scheme) = uri.scheme_str() {
        encoder.pseudo(Pseudo::Scheme, scheme.as_bytes(), block);
    }
    if let Some(authority) = uri.authority() {
        encoder.pseudo(Pseudo::Authority, authority.as_str().as_bytes(), block);
    }
    if let Some(path) = uri.path_and_query() {
        encoder.pseudo(Pseudo::Path, path.as_str().as_bytes(), block);
    }
    if let Some(ConnectProtocol(protocol)) = protocol {
        encoder.pseudo(Pseudo::Protocol, protocol.as_bytes(), block);
    }
    write_fields(encoder, request.headers(), block);
}

pub(super) fn write_fields(encoder: &mut Encoder, headers: &HeaderMap, block: &mut BytesMut) {
    for (name, value) in headers {
        encoder.field(name, value, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new(1000);
        for (name, value) in list {
            let value = value.to_string();
            let pseudo = match *name {
                ":method" => Some(Pseudo::Method),
                ":scheme" => Some(Pseudo::Scheme),
                ":authority" => Some(Pseudo::Authority),
                ":path" => Some(Pseudo::Path),
                ":protocol" => Some(Pseudo::Protocol),
                ":status" => Some(Pseudo::Status),
                _ => None,
            };
            let field = match pseudo {
                Some(name) => Field::Pseudo(name, value.into()),
                None => Field::Regular(name.parse().unwrap(), value.parse().unwrap()),
            };
            fields.add(field, 10);
        }
        fields
    }

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "a.test"),
        (":path", "/x?y"),
    ];

    #[test]
    fn a_request_is_what_its_pseudo_fields_say() {
        let request = fields(&GET).into_request().unwrap();
        assert_eq!(request.uri(), "https://a.test/x?y");
        assert_eq!(
            (request.method(), request.version()),
            (&Method::GET, Version::HTTP_2)
        );
        let nameless = fields(&[GET[0], GET[1], GET[3], ("host", "b.test")]);
        assert_eq!(nameless.into_request().unwrap().uri(), "/x?y");
        let websocket = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            GET[1],
            GET[2],
            GET[3],
        ];
        let websocket = fields(&websocket).into_request().unwrap();
        let protocol = websocket.extensions().get::<ConnectProtocol>().unwrap();
        assert_eq!(protocol.0, "websocket");
        let connect = fields(&[(":method", "CONNECT"), (":authority", "a.test:443")]);
        assert_eq!(connect.into_request().unwrap().uri(), "a.test:443");
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        let with = |field: (&'static str, &'static str)| [&GET[..], &[field]].concat();
        let path = |path: &'static str| [&GET[..3], &[(":path", path)]].concat();
        for list in [
            GET[1..].to_vec(),
            GET[..3].to_vec(),
            [&GET[..1], &GET[2..]].concat(),
            with((":method", "GET")),
            with((":status", "200")),
            with((":protocol", "websocket")),
            with(("connection", "close")),
            with(("transfer-encoding", "chunked")),
            with(("te", "gzip")),
            [&[("a", "b")][..], &GET[..]].concat(),
            path(""),
            path("x"),
            path("*"),
            path("/#x"),
            [&[(":authority", "me@a.test")][..], &GET[..2], &GET[3..]].concat(),
            [&[(":method", "G T")][..], &GET[1..]].concat(),
            [&[(":scheme", "")][..], &GET[..1], &GET[2..]].concat(),
            vec![(":method", "CONNECT"), GET[1], GET[2], GET[3]],
            vec![
                (":method", "CONNECT"),
                (":protocol", "a,b"),
                GET[1],
                GET[2],
                GET[3],
            ],
            vec![(":method", "CONNECT"), (":protocol", "a"), GET[2]],
            vec![(":method", "CONNECT"), (":protocol", "a"), GET[1], GET[3]],
        ] {
            assert!(fields(&list).into_request().is_err(), "{list:?}");
        }
        assert!(fields(&with(("te", "trailers"))).into_request().is_ok());
    }

    #[test]
    fn a_response_has_a_status_and_trailers_have_none() {
        let response = fields(&[(":status", "204"), ("a", "b")]).into_response().unwrap();
        assert_eq!(
            (response.status(), response.headers().len()),
            (StatusCode::NO_CONTENT, 1)
        );
        for list in [
            &[("a", "b")][..],
            &[(":status", "101")],
            &[(":status", "20")],
            &[(":status", "200"), (":path", "/")],
        ] {
            assert!(fields(list).into_response().is_err(), "{list:?}");
        }
        assert!(fields(&[("a", "b")]).into_trailers().is_ok());
        assert!(fields(&[(":status", "200")]).into_trailers().is_err());
    }

    #[test]
    fn lengths_that_disagree_or_are_no_numbers_are_none() {
        let length = |values: &[&str]| {
            let list: Vec<_> = values.iter().map(|value| ("content-length", *value)).collect();
            declared_length(&fields(&list).into_trailers().unwrap())
        };
        assert_eq!(length(&[]), Ok(None));
        assert_eq!(length(&["5", "5"]), Ok(Some(5)));
        for values in [
            &["5", "6"][..],
            &["+5"],
            &[""],
            &["5,5"],
            &["99999999999999999999"],
        ] {
            assert!(length(values).is_err(), "{values:?}");
        }
    }

    #[test]
    fn more_than_may_be_is_seen_and_not_kept() {
        let mut fields = Fields::new(15);
        for _ in 0..2 {
            let field = Field::Regular(KEEP_ALIVE, HeaderValue::from_static("x"));
            fields.add(field, 10);
        }
        assert!(fields.is_too_large());
        assert_eq!(fields.regular.len(), 1);
    }
}
