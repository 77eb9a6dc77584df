//! What the fuzz targets reach of the proxy, and nothing else does: what strangers send goes in, and what the
//! proxy makes of it comes out.

use std::error::Error;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use fairlead_contract::{Files, Network, Paths, ProxyProtocol};
use futures_util::future::join_all;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::{Body, Frame};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::body::RequestBody;
use crate::caller::Caller;
use crate::headers::{add_forwarded, set_forwarding, strip_claims};
use crate::http1::Http1Connection;
use crate::http2::{self, hpack};
use crate::listeners::Ports;
use crate::proxy_protocol::{self, Link};
use crate::sender::{Http2Sender, Sender};
use crate::server::{self, Protocol};
use crate::service::{Client, Shared};
use crate::snapshot::Snapshot;

/// Serves plain HTTP on `listener`, as the program does that has read `files`. Never ends by itself.
pub async fn serve(files: &Files, paths: &Paths, listener: TcpListener) {
    server::serve(listener, Protocol::Plain, shared(files, paths)).await;
}

/// Serves HTTP/2 to a client of this machine that is connected by `stream`, until it leaves.
pub async fn serve_http2(files: &Files, paths: &Paths, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let here = (Ipv4Addr::LOCALHOST, 0).into();
    http2::serve(stream, Client::new(here, here, None), shared(files, paths)).await;
}

fn shared(files: &Files, paths: &Paths) -> Arc<Shared> {
    let snapshot = Snapshot::build(files, None, Timestamp::now()).snapshot;
    let ports = Ports {
        http: None,
        https: None,
    };
    Arc::new(Shared::new(snapshot, paths, ports))
}

/// An upstream's answer, as far as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub content: Vec<u8>,
    pub trailers: HeaderMap,
    /// It came to its end.
    pub is_whole: bool,
    /// The connection would carry the next request.
    pub is_kept: bool,
}

/// Makes a request with the method over `stream`, and reads what comes back as an upstream's answer; `None`: it
/// is none.
pub async fn read_answer(
    method: Method,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Option<Answer> {
    let connection = Box::new(Http1Connection::new(stream));
    ask(Sender::Http1(connection), method).await
}

/// Makes a request with each of the methods at the same time over `stream`, in HTTP/2, and reads what comes back.
pub async fn read_answers_http2<const N: usize>(
    methods: [Method; N],
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> [Option<Answer>; N] {
    let sender = Http2Sender::new(stream, Scheme::HTTP);
    let asking = methods.map(|method| ask(Sender::Http2(sender.clone()), method));
    let answers = join_all(asking).await;
    answers.try_into().unwrap_or([const { None }; N])
}

async fn ask(sender: Sender, method: Method) -> Option<Answer> {
    let mut request = Request::new(RequestBody::empty());
    *request.method_mut() = method;
    let answered = sender.exchange(Box::new(request), None, Duration::MAX).await;
    let (head, mut body) = answered.ok()?.into_parts();
    let mut answer = Answer {
        status: head.status,
        headers: head.headers,
        content: Vec::new(),
        trailers: HeaderMap::new(),
        is_whole: true,
        is_kept: false,
    };
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => answer.content.extend_from_slice(&data),
            Ok(Err(frame)) => answer.trailers = frame.into_trailers().unwrap_or_default(),
            Err(_) => {
                answer.is_whole = false;
                return Some(answer);
            }
        }
    }
    answer.is_kept = body.take_connection().is_some();
    Some(answer)
}

/// A field of HTTP/2, with what it counts against a limit of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    field: hpack::Field,
    pub size: usize,
}

impl Field {
    /// Its name and its value; `None` if it is malformed.
    pub fn text(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        match &self.field {
            hpack::Field::Pseudo(name, value) => Some((name.as_str().into(), value.to_vec())),
            hpack::Field::Regular(name, value) => Some((name.as_str().into(), value.as_bytes().into())),
            hpack::Field::Malformed => None,
        }
    }
}

/// What the header blocks of one connection say. The first that cannot be read is the last.
pub fn unpack(blocks: &[&[u8]]) -> Vec<Result<Vec<Field>, impl Error + use<>>> {
    let mut decoder = hpack::Decoder::new();
    let mut unpacked = Vec::new();
    for block in blocks {
        let mut fields = Vec::new();
        let decoded = decoder.decode(block, |field, size| fields.push(Field { field, size }));
        unpacked.push(decoded.map(|()| fields));
        if decoded.is_err() {
            break;
        }
    }
    unpacked
}

/// The header block of these fields, but for those that are malformed.
pub fn pack(fields: &[Field]) -> Vec<u8> {
    let mut encoder = hpack::Encoder::new();
    let mut block = BytesMut::new();
    for Field { field, .. } in fields {
        match field {
            hpack::Field::Pseudo(name, value) => encoder.pseudo(*name, value, &mut block),
            hpack::Field::Regular(name, value) => encoder.field(name, value, &mut block),
            hpack::Field::Malformed => {}
        }
    }
    block.to_vec()
}

/// Who the PROXY header that a connection begins with says the client is; `None` if it does not say.
pub async fn read_proxy_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, impl Error> {
    let link = proxy_protocol::read_header(stream).await;
    link.map(|link| link.map(|link| link.source))
}

/// What a connection to an upstream begins with that is made for a client.
pub fn proxy_header(version: ProxyProtocol, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    proxy_protocol::header(version, Some(Link { source, destination }))
}

/// Whom a request with these fields is taken to be from when `peer` sends it over plain HTTP, and the fields
/// as an upstream gets them that wants `Forwarded` too.
pub fn forward(
    peer: IpAddr,
    headers: HeaderMap,
    host: &HeaderValue,
    trusted: &[Network],
) -> (IpAddr, HeaderMap) {
    let client = Client::new((peer, 0).into(), (peer, 0).into(), None);
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.headers = headers;
    let caller = Caller::find(&client, &parts.headers, trusted);
    strip_claims(&mut parts.headers, caller.is_trusted, &[]);
    set_forwarding(&mut parts, &caller, &client.forwarded_for, host);
    add_forwarded(&mut parts, &caller, peer, host);
    (caller.address, parts.headers)
}
