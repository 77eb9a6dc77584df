//! What the frames of a stream make together (RFC 9113 8).

use std::collections::BTreeMap;

use super::wire::{Said, What};
use crate::message::{Field, Fields, Request, Version, is_field_value, is_target, is_token, number, values};

/// What a client sends over one stream.
#[derive(Debug)]
pub(super) struct Sent {
    head: Fields,
    body: Vec<u8>,
    /// How long the body was behind each frame.
    lengths: Vec<usize>,
    trailers: Fields,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    /// Before its end.
    Broken,
}

/// What a client says over each of its streams, as far as it says it in an order that may be.
pub(super) fn read_sent(said: &[Said]) -> BTreeMap<u32, Sent> {
    let mut streams = BTreeMap::<u32, Sent>::new();
    for Said { stream, what } in said {
        let highest = streams.keys().next_back().copied().unwrap_or(0);
        match (streams.get_mut(stream), what) {
            (_, What::Settings(_) | What::Room(_) | What::Farewell(_)) => {}
            (Some(sent), what) => sent.take(what),
            (None, What::Fields { fields, is_last }) if stream % 2 == 1 && *stream > highest => {
                let sent = Sent::new(fields.clone(), *is_last);
                streams.insert(*stream, sent);
            }
            (None, _) => break,
        }
    }
    streams
}

impl Sent {
    fn new(head: Fields, is_last: bool) -> Self {
        Self {
            head,
            body: Vec::new(),
            lengths: vec![0],
            trailers: Fields::new(),
            state: if is_last { State::Ended } else { State::Open },
        }
    }

    fn take(&mut self, what: &What) {
        if self.state != State::Open {
            return;
        }
        self.state = match what {
            What::Fields {
                fields,
                is_last: true,
            } => {
                self.trailers.clone_from(fields);
                State::Ended
            }
            What::Fields { .. } | What::Reset => State::Broken,
            What::Content { content, is_last, .. } => {
                self.body.extend(content);
                self.lengths.push(self.body.len());
                if *is_last { State::Ended } else { State::Open }
            }
            What::Settings(_) | What::Room(_) | What::Farewell(_) => State::Open,
        };
    }

    fn has_its_end(&self) -> bool {
        self.state == State::Ended && self.trailers.iter().all(is_well_formed)
    }

    fn has_its_length(&self) -> bool {
        let mut lengths = values(&self.head, "content-length").map(number);
        lengths.all(|length| length == Some(self.body.len()))
    }

    /// The one that was declared and has come: an upstream that is told of it looks for no other end.
    fn declared_length(&self) -> Option<usize> {
        let mut lengths = values(&self.head, "content-length").map(number);
        let first = lengths.next()??;
        let is_one = lengths.all(|other| other == Some(first));
        Some(first).filter(|first| is_one && self.lengths.contains(first))
    }

    pub(super) fn is_head(&self) -> bool {
        self.head.contains(&(b":method".to_vec(), b"HEAD".to_vec()))
    }

    /// `None` if it is malformed, or no request for a site.
    pub(super) fn to_request(&self) -> Option<Request> {
        let (pseudo, fields) = split_pseudo(&self.head);
        let known: [&[u8]; 5] = [b":method", b":scheme", b":path", b":authority", b":protocol"];
        let (method, target) = (only(pseudo, ":method")?, only(pseudo, ":path")?);
        let authority = only(pseudo, ":authority");
        let protocol = only(pseudo, ":protocol");
        let is_request = pseudo.iter().all(|(name, _)| known.contains(&&name[..]))
            && only(pseudo, ":scheme").is_some()
            && authority.is_some() == values(&self.head, ":authority").next().is_some()
            && is_token(&method)
            && is_target(&target)
            && fields.iter().all(is_well_formed)
            && protocol.is_some() == (method == b"CONNECT");
        let mut fields = with_one_cookie(fields);
        let host = settle_host(&mut fields, authority)?;
        fields.push((b"host".to_vec(), host));
        let is_whole = self.has_its_length() && self.has_its_end();
        let length = self.declared_length().filter(|_| !is_whole);
        let request = Request {
            method,
            target,
            version: Version::HTTP_2,
            fields,
            is_whole: is_whole || length.is_some(),
            body: self.body[..length.unwrap_or(self.body.len())].to_vec(),
            trailers: self.trailers.clone(),
        };
        is_request.then(|| match protocol {
            Some(protocol) => as_upgrade(request, protocol),
            None => request,
        })
    }
}

/// A tunnel has no content, and is asked for in HTTP/1.1 by GET (RFC 8441 5).
fn as_upgrade(request: Request, protocol: Vec<u8>) -> Request {
    let mut fields = request.fields;
    fields.push((b"connection".to_vec(), b"upgrade".to_vec()));
    fields.push((b"upgrade".to_vec(), protocol));
    Request {
        method: b"GET".to_vec(),
        fields,
        body: Vec::new(),
        trailers: Fields::new(),
        is_whole: true,
        ..request
    }
}

/// An answer, as far as it came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) content: Vec<u8>,
    pub(super) trailers: Fields,
    pub(super) is_whole: bool,
}

/// What answers over a stream, which was asked by HEAD or otherwise; `None` if nothing does, or it is malformed.
pub(super) fn read_answer(said: &[Said], stream: u32, is_head: bool) -> Option<Answer> {
    let mut of_stream = said.iter().filter(|said| said.stream == stream);
    let (status, mut sent) = loop {
        match &of_stream.next()?.what {
            What::Fields { fields, is_last } => match (read_status(fields)?, is_last) {
                (101, _) | (100..200, true) => return None,
                (100..200, false) => {}
                (status, is_last) => break (status, Sent::new(split_pseudo(fields).1.to_vec(), *is_last)),
            },
            What::Content { .. } | What::Reset => return None,
            What::Settings(_) | What::Room(_) | What::Farewell(_) => {}
        }
    };
    of_stream.for_each(|said| sent.take(&said.what));
    let has_content = !is_head && !matches!(status, 204 | 304);
    let has_its_length = match has_content {
        true => sent.has_its_length(),
        false => sent.body.is_empty(),
    };
    Some(Answer {
        status,
        is_whole: has_its_length && sent.has_its_end(),
        fields: sent.head,
        content: sent.body,
        trailers: sent.trailers,
    })
}

/// RFC 9113 8.3.2.
fn read_status(fields: &Fields) -> Option<u16> {
    let (pseudo, regular) = split_pseudo(fields);
    let status = only(pseudo, ":status").filter(|_| pseudo.len() == 1)?;
    let is_status = status.len() == 3 && (b'1'..=b'9').contains(&status[0]);
    let is_right = is_status && regular.iter().all(is_well_formed);
    number(&status)
        .filter(|_| is_right)
        .and_then(|status| status.try_into().ok())
}

/// RFC 9113 8.2.1 and 8.2.2.
pub(super) fn is_well_formed((name, value): &Field) -> bool {
    const OF_CONNECTIONS: [&[u8]; 5] = [
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"transfer-encoding",
        b"upgrade",
    ];
    is_right_in_itself(name, value)
        && !OF_CONNECTIONS.contains(&&name[..])
        && (name != b"te" || value.eq_ignore_ascii_case(b"trailers"))
}

/// RFC 9113 8.2.1.
pub(super) fn is_right_in_itself(name: &[u8], value: &[u8]) -> bool {
    let is_padded = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_token(name)
        && !name.iter().any(u8::is_ascii_uppercase)
        && is_field_value(value)
        && !is_padded(value.first())
        && !is_padded(value.last())
}

/// RFC 9113 8.2.3: crumbs of it come one by one.
fn with_one_cookie(fields: &[Field]) -> Fields {
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

fn split_pseudo(fields: &Fields) -> (&[Field], &[Field]) {
    let begin = fields.iter().position(|(name, _)| !name.starts_with(b":"));
    fields.split_at(begin.unwrap_or(fields.len()))
}

/// The value of a field that is there once.
fn only(fields: &[Field], name: &str) -> Option<Vec<u8>> {
    let mut values = fields.iter().filter(|(other, _)| other == name.as_bytes());
    let (_, value) = values.next()?;
    values.next().is_none().then(|| value.clone())
}
