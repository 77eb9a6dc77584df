use std::net::IpAddr;

use fairlead_contract::Network;
use http::HeaderMap;

use crate::headers::{X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::service::Client;

/// Who a request is from and how it was made: as the connection shows, or as a trusted proxy says who
/// has it from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) address: IpAddr,
    pub(crate) is_secure: bool,
    /// What the request says of its way here holds.
    pub(crate) is_trusted: bool,
}

impl Caller {
    pub(crate) fn find(client: &Client, headers: &HeaderMap, trusted: &[Network]) -> Self {
        let (peer, is_secure) = (client.address.ip().to_canonical(), client.certificate.is_some());
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
        if !is_trusted(peer) {
            return Self {
                address: peer,
                is_secure,
                is_trusted: false,
            };
        }
        Self {
            // Each proxy appends whom it saw: the last one that is none of ours is the client.
            address: addresses_from_behind(headers)
                .find(|address| !is_trusted(*address))
                .unwrap_or(peer),
            is_secure: is_secure || was_https(headers),
            is_trusted: true,
        }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_secure { "https" } else { "http" }
    }
}

/// Ends at the first word that is no address: what stands before it was said by nobody we know.
fn addresses_from_behind(headers: &HeaderMap) -> impl Iterator<Item = IpAddr> {
    let fields: Vec<_> = headers.get_all(&X_FORWARDED_FOR).iter().collect();
    let lines = fields
        .into_iter()
        .rev()
        .map(|field| field.to_str().unwrap_or_default());
    let words = lines.flat_map(|line| line.rsplit(','));
    words.map_while(|word| {
        word.trim()
            .parse::<IpAddr>()
            .ok()
            .map(|address| address.to_canonical())
    })
}

fn was_https(headers: &HeaderMap) -> bool {
    headers
        .get(&X_FORWARDED_PROTO)
        .is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn find(peer: &str, forwarded: &[&'static str]) -> Caller {
        let peer = format!("{peer}:1").parse().unwrap();
        let client = Client::new(peer, "192.0.2.2:443".parse().unwrap(), None);
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        for field in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(field));
        }
        Caller::find(&client, &headers, &["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_up_to_the_first_stranger() {
        for (peer, forwarded, expected) in [
            ("192.0.2.1", &["198.51.100.1"][..], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            (
                "10.0.0.1",
                &["203.0.113.9, 198.51.100.1, 10.0.0.2"],
                "198.51.100.1",
            ),
            ("10.0.0.1", &["198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ] {
            let caller = find(peer, forwarded);
            assert_eq!(caller.address.to_string(), expected, "{peer} {forwarded:?}");
            assert_eq!(
                (caller.is_trusted, caller.is_secure),
                (peer == "10.0.0.1", peer == "10.0.0.1")
            );
        }
    }
}
