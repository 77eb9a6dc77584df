use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderMap, Response};

const PEM_CHAIN: &str = "application/pem-certificate-chain";

/// The chains that were downloaded, by URL, until they are taken.
///
/// The library does not tell which other chains a response points to (RFC 8555 7.4.2), and has no way
/// to get one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Downloads(Arc<Mutex<BTreeMap<String, Download>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Download {
    pub(crate) chain: Bytes,
    /// The URLs of the other chains.
    pub(crate) alternates: Vec<String>,
}

impl Downloads {
    /// Keeps the response if it holds a chain.
    pub(crate) fn keep(&self, url: &str, response: &Response<Bytes>) {
        let kind = response.headers().get(CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(PEM_CHAIN.as_bytes())) {
            return;
        }
        let download = Download {
            chain: response.body().clone(),
            alternates: find_alternates(response.headers()),
        };
        self.lock().insert(url.to_owned(), download);
    }

    pub(crate) fn take(&self, url: &str) -> Option<Download> {
        self.lock().remove(url)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Download>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The targets of links with the relation `alternate` (RFC 8288 3).
fn find_alternates(headers: &HeaderMap) -> Vec<String> {
    let fields = headers.get_all(LINK).into_iter();
    fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split('<').skip(1))
        .filter_map(|link| link.split_once('>'))
        .filter(|(_, parameters)| is_alternate(parameters))
        .map(|(url, _)| url.to_owned())
        .collect()
}

fn is_alternate(parameters: &str) -> bool {
    let mut parameters = parameters
        .split([';', ','])
        .filter_map(|part| part.split_once('='));
    parameters.any(|(name, value)| {
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel") && value.eq_ignore_ascii_case("alternate")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_other_chains_are_found_among_others() {
        let fields = [
            "<https://ca.test/directory>;rel=\"index\"",
            "<https://ca.test/cert/1/1>;rel=\"alternate\"",
            "<https://ca.test/cert/1/2>; title=\"x\"; REL=Alternate, <https://ca.test/up>; rel=up",
            "https://ca.test/cert/1/3; rel=alternate",
        ];
        let headers = HeaderMap::from_iter(fields.map(|field| (LINK, field.parse().unwrap())));
        let expected = ["https://ca.test/cert/1/1", "https://ca.test/cert/1/2"];
        assert_eq!(find_alternates(&headers), expected);
    }

    #[test]
    fn only_chains_are_kept_and_each_is_taken_once() {
        let downloads = Downloads::default();
        for (kind, kept) in [(PEM_CHAIN, true), ("application/json", false)] {
            let response = Response::builder().header(CONTENT_TYPE, kind);
            downloads.keep("https://ca.test/x", &response.body(Bytes::from("chain")).unwrap());
            assert_eq!(downloads.take("https://ca.test/x").is_some(), kept, "{kind}");
            assert_eq!(downloads.take("https://ca.test/x"), None);
        }
    }
}
