use std::net::{IpAddr, Ipv4Addr};

use fairlead_contract::Network;
use fairlead_proxy::fuzzing::forward;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Who sends what begins with no address.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const HOST: &str = "a.test:8080";
/// All of the proxy's own.
const TOLD: [&str; 3] = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// A client is who its connection says, whatever it claims; and only a trusted proxy's word goes further.
///
/// The first line is the peer's address, the others are fields.
pub fn forwarding(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let peer = lines
        .next()
        .and_then(|line| str::from_utf8(line).ok()?.parse().ok());
    let peer: IpAddr = peer.unwrap_or(STRANGER);
    let sent: HeaderMap = lines.filter_map(field).collect();
    let host = HeaderValue::from_static(HOST);
    let trusted: Vec<Network> = ["10.0.0.0/8", "fd00::/8"]
        .map(|network| network.parse().expect("a network"))
        .into();
    let (caller, received) = forward(peer, sent.clone(), &host, &trusted);
    assert_eq!(caller, expected_caller(peer, &sent));
    for name in TOLD {
        let all: Vec<_> = received.get_all(name).iter().collect();
        assert!(is_trusted(peer) || all.len() == 1, "{name}: {all:?}");
        assert!(!all.is_empty(), "{name} is missing");
    }
    let peer = peer.to_canonical();
    let chain = received["x-forwarded-for"].as_bytes();
    if is_trusted(peer) {
        assert!(chain.ends_with(peer.to_string().as_bytes()), "{chain:?}");
    } else {
        assert_eq!(chain, peer.to_string().as_bytes());
        assert_eq!(received["x-forwarded-host"], HOST);
        assert_eq!(received["x-forwarded-proto"], "http");
        assert_eq!(received.get_all("forwarded").iter().count(), 1);
    }
    let forged = received
        .keys()
        .find(|name| is_forged(name.as_str(), is_trusted(peer)));
    assert_eq!(forged, None);
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

fn is_trusted(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.octets()[0] == 0xfd,
    }
}

/// From behind, the first address in the whole chain that is none of ours, as long as all behind it are ours.
fn expected_caller(peer: IpAddr, sent: &HeaderMap) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer) {
        return peer;
    }
    let lines = sent.get_all("x-forwarded-for").iter();
    let lines: Vec<_> = lines.map(|line| line.to_str().unwrap_or("no address")).collect();
    let chain = lines.join(",");
    for word in chain.split(',').rev() {
        match word.trim().parse::<IpAddr>() {
            Ok(address) if is_trusted(address) => {}
            Ok(address) => return address.to_canonical(),
            Err(_) => return peer,
        }
    }
    peer
}

fn is_forged(name: &str, by_trusted: bool) -> bool {
    let spelt = name.replace('_', "-");
    let is_claim = ["x-real-ip", "true-client-ip"].contains(&&*spelt) || spelt.starts_with("x-forwarded-");
    let is_respelt = name != spelt && (is_claim || spelt == "forwarded");
    let is_own = TOLD.contains(&name);
    name == "proxy" || is_respelt || (is_claim && !is_own && !by_trusted)
}
