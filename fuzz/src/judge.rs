//! What an upstream received, held against what the client sent.

use std::fmt;

use crate::exchange::Received;
use crate::message::{Fields, Next, Request, Version, read, values};

/// Fields that hold for one connection (RFC 9110 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// What a client may not say of itself; the last one is a beginning.
const CLAIMS: [&str; 5] = [
    "forwarded",
    "x-real-ip",
    "true-client-ip",
    "proxy",
    "x-forwarded-",
];

/// For every request that was received there is one that was sent: the same one, in the same order. Gives the
/// number of those that were received whole.
pub(crate) fn judge(sent: &[u8], received: &[Received]) -> usize {
    let requests = requests(sent, received);
    let meant = read_sent(sent);
    let mut open = meant.iter();
    for request in &requests {
        let mut faults = Vec::new();
        let is_meant = open.any(|meant| differs(request, meant).map(|fault| faults.push(fault)).is_none());
        assert!(
            is_meant,
            "nobody sent the request for {}: {faults:?}\n{}",
            request.target.escape_ascii(),
            Shown(sent, received)
        );
    }
    requests.iter().filter(|request| request.is_whole).count()
}

/// The same of requests that were sent side by side, and may come in any order.
pub(crate) fn judge_beside(meant: &[Request], sent: &[u8], received: &[Received]) -> usize {
    let requests = requests(sent, received);
    let mut owners = vec![None; meant.len()];
    for request in 0..requests.len() {
        let is_meant = assign(
            request,
            &requests,
            meant,
            &mut owners,
            &mut vec![false; meant.len()],
        );
        assert!(
            is_meant,
            "nobody sent the request for {}: {:?}\n{}",
            requests[request].target.escape_ascii(),
            meant
                .iter()
                .map(|meant| differs(&requests[request], meant))
                .collect::<Vec<_>>(),
            Shown(sent, received)
        );
    }
    requests.iter().filter(|request| request.is_whole).count()
}

/// Finds one that was meant for each that was received; those that have one may take another.
fn assign(
    request: usize,
    requests: &[Request],
    meant: &[Request],
    owners: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for place in 0..meant.len() {
        if differs(&requests[request], &meant[place]).is_some() || std::mem::replace(&mut seen[place], true) {
            continue;
        }
        let is_free = owners[place].is_none_or(|owner| assign(owner, requests, meant, owners, seen));
        if is_free {
            owners[place] = Some(request);
            return true;
        }
    }
    false
}

/// The client's requests. Empty lines before one are ignored (RFC 9112 2.2).
fn read_sent(mut bytes: &[u8]) -> Vec<Request> {
    let mut requests = Vec::new();
    loop {
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        let Next::Request(request, rest) = read(bytes) else {
            return requests;
        };
        requests.push(request);
        bytes = rest;
    }
}

fn requests(sent: &[u8], received: &[Received]) -> Vec<Request> {
    in_order(received).unwrap_or_else(|fault| panic!("{fault}\n{}", Shown(sent, received)))
}

/// All requests as they came.
fn in_order(received: &[Received]) -> Result<Vec<Request>, &'static str> {
    let mut requests = Vec::new();
    for connection in received {
        let mut rest = &connection.bytes[..];
        while !rest.is_empty() {
            let moment = connection.moment(connection.bytes.len() - rest.len());
            match read(rest) {
                Next::Request(request, behind) => {
                    requests.push((moment, request));
                    rest = behind;
                }
                Next::Begun => return Err("the upstream received a head without an end"),
                Next::Nonsense => return Err("the upstream received what is no request"),
            }
        }
    }
    requests.sort_by_key(|(moment, _)| *moment);
    Ok(requests.into_iter().map(|(_, request)| request).collect())
}

/// How the request that was received is another one than the one that was sent.
fn differs(received: &Request, sent: &Request) -> Option<&'static str> {
    let Some((host, target)) = destination(sent) else {
        return Some("it leads nowhere");
    };
    let has_body = if received.is_whole {
        sent.is_whole && received.body == sent.body
    } else {
        sent.body.starts_with(&received.body)
    };
    let faults = [
        (received.method != sent.method, "another method"),
        (received.target != target, "another target"),
        (received.version != Version::HTTP_11, "another version"),
        (
            !values(&received.fields, "host").eq([host]),
            "another host, or not one",
        ),
        (!has_body, "another body"),
        (!has_own_fields(received, sent, host), "other fields"),
        (!has_own_trailers(received, sent), "other trailers"),
    ];
    faults.iter().find(|(is_so, _)| *is_so).map(|(_, fault)| *fault)
}

/// The host, and the target that an upstream gets (RFC 9112 3.2); none if there is not one of each, if the target
/// is no URI, or if the body is coded in a way that only the client's connection would tell of (RFC 9112 6.1).
fn destination(request: &Request) -> Option<(&[u8], Vec<u8>)> {
    if values(&request.fields, "transfer-encoding").any(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return None;
    }
    let mut hosts = values(&request.fields, "host");
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return None;
    };
    let target = Some(&request.target[..]).filter(|target| target.is_ascii())?;
    match target {
        [b'/', ..] => return Some((host, target.to_vec())),
        b"*" if request.method == b"OPTIONS" => return Some((host, target.to_vec())),
        _ => {}
    }
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    let has = |scheme: &&[u8]| {
        let start = target.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let rest = &target[schemes.into_iter().find(has)?.len()..];
    let end = rest.iter().position(|byte| b"/?".contains(byte));
    let (host, rest) = rest.split_at(end.unwrap_or(rest.len()));
    let target = match rest {
        [] if request.method == b"OPTIONS" => b"*".to_vec(),
        [b'/', ..] => rest.to_vec(),
        _ => [b"/", rest].concat(),
    };
    Some((host, target))
}

/// Whether the fields are those of the client that may go further, and what the proxy has to say.
fn has_own_fields(received: &Request, sent: &Request, host: &[u8]) -> bool {
    let version: &[u8] = match sent.version {
        Version::HTTP_10 => b"1.0 fairlead",
        Version::HTTP_2 => b"2 fairlead",
        _ => b"1.1 fairlead",
    };
    let told: [(&str, &[u8]); 3] = [
        ("x-forwarded-for", b"127.0.0.1"),
        ("x-forwarded-host", host),
        ("x-forwarded-proto", b"http"),
    ];
    let is_upgrade = named_in_connection(&sent.fields).contains(&b"upgrade".to_vec());
    let is_own = |(name, value): &&(Vec<u8>, Vec<u8>)| match &name[..] {
        b"host" | b"content-length" => true,
        b"x-forwarded-for" | b"x-forwarded-host" | b"x-forwarded-proto" => true,
        b"via" => value == version,
        b"transfer-encoding" => value == b"chunked",
        b"te" => value == b"trailers" && values(&sent.fields, "te").next().is_some(),
        b"connection" => value == b"te" || value == b"upgrade",
        b"upgrade" => is_upgrade,
        b"sec-websocket-key" => is_upgrade && sent.version == Version::HTTP_2,
        b"max-forwards" => [&b"OPTIONS"[..], b"TRACE"].contains(&&sent.method[..]),
        _ => false,
    };
    let others = received.fields.iter().filter(|field| !is_own(field));
    told.iter()
        .all(|(name, value)| values(&received.fields, name).eq([*value]))
        && values(&received.fields, "via").last() == Some(version)
        && are_kept(others, &sent.fields, |name| !is_claim(name) && name != "host")
}

/// What may stand behind a body: nothing that says where the message ends or goes (RFC 9110 6.5.1).
fn has_own_trailers(received: &Request, sent: &Request) -> bool {
    let is_free = |name: &str| !["content-length", "host", "trailer"].contains(&name);
    are_kept(received.trailers.iter(), &sent.trailers, is_free)
}

/// Whether each of the fields was sent, and may go further than the connection it was sent over.
fn are_kept<'a>(
    mut received: impl Iterator<Item = &'a (Vec<u8>, Vec<u8>)>,
    sent: &Fields,
    is_free: impl Fn(&str) -> bool,
) -> bool {
    let named = named_in_connection(sent);
    let mut left = sent.clone();
    received.all(|field| {
        let name = String::from_utf8_lossy(&field.0);
        let place = left.iter().position(|other| other == field);
        place.map(|place| left.swap_remove(place)).is_some()
            && is_free(&name)
            && !HOP_BY_HOP.contains(&&*name)
            && !named.contains(&field.0)
    })
}

fn named_in_connection(fields: &Fields) -> Vec<Vec<u8>> {
    let words = values(fields, "connection").flat_map(|value| value.split(|byte| *byte == b','));
    words.map(|word| word.trim_ascii().to_ascii_lowercase()).collect()
}

/// Programs behind CGI cannot tell `_` from `-`.
fn is_claim(name: &str) -> bool {
    let spelt = name.replace('_', "-");
    let [whole @ .., beginning] = CLAIMS;
    whole.contains(&&*spelt) || spelt.starts_with(beginning)
}

/// For who has to find out why.
struct Shown<'a>(&'a [u8], &'a [Received]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sent:\n{}", self.0.escape_ascii())?;
        for connection in self.1 {
            writeln!(f, "received:\n{}", connection.bytes.escape_ascii())?;
        }
        Ok(())
    }
}
