use std::fmt::Write;
use std::sync::Arc;

use fairlead_contract::{CookieName, PathPrefix};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use crate::pool::Peer;

/// Sends a client to the upstream that answered it first, by a cookie of the route's own.
pub(crate) struct Sticky {
    cookie: CookieName,
    path: PathPrefix,
    /// The same in every process and after every reload; says nothing of the upstream's address.
    ids: Vec<(String, Arc<Peer>)>,
}

impl Sticky {
    pub(crate) fn new<'a>(
        cookie: CookieName,
        path: PathPrefix,
        peers: impl Iterator<Item = &'a Arc<Peer>>,
    ) -> Self {
        let ids = peers.map(|peer| (id(&cookie, peer), peer.clone())).collect();
        Self { cookie, path, ids }
    }

    /// The upstream that the request's cookie names.
    pub(crate) fn find(&self, headers: &HeaderMap) -> Option<&Arc<Peer>> {
        let values = headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let pairs = values
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        let mut ours = pairs.filter(|(name, _)| *name == self.cookie.as_str());
        ours.find_map(|(_, asked)| self.ids.iter().find(|(id, _)| id == asked))
            .map(|(_, peer)| peer)
    }

    /// Has the client ask `peer` the next time.
    pub(crate) fn remember(&self, headers: &mut HeaderMap, peer: &Arc<Peer>, is_secure: bool) {
        let Some((id, _)) = self.ids.iter().find(|(_, known)| Arc::ptr_eq(known, peer)) else {
            return;
        };
        let secure = if is_secure { "; Secure" } else { "" };
        let text = format!(
            "{}={id}; Path={}; HttpOnly; SameSite=Lax{secure}",
            self.cookie.as_str(),
            self.path
        );
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(SET_COOKIE, value);
        }
    }
}

fn id(cookie: &CookieName, peer: &Peer) -> String {
    let digest = Sha256::digest(format!("{}\n{}", cookie.as_str(), peer.url()));
    digest[..8].iter().fold(String::new(), |mut id, byte| {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}
