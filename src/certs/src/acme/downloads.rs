use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, LINK};
use http::{HeaderMap, Response};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

use crate::acme::AcmeError;

/// Renewals come days before they are needed, and no clock that is set by anybody is further off.
const MOST_AHEAD: SignedDuration = SignedDuration::from_hours(24);

const PEM_CHAIN: &str = "application/pem-certificate-chain";

/// What the library does not tell of an authority's answers: the chains by URL, until they are taken, because it
/// has no way to the others that a response points to (RFC 8555 7.4.2); and how late it is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Downloads(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    chains: BTreeMap<String, Download>,
    /// By how much our clock was ahead of the last answer's.
    clock_ahead: Option<SignedDuration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Download {
    pub(crate) chain: Bytes,
    /// The URLs of the other chains.
    pub(crate) alternates: Vec<String>,
}

impl Downloads {
    /// Keeps the response if it holds a chain, and its time.
    pub(crate) fn keep(&self, url: &str, response: &Response<Bytes>, now: Timestamp) {
        if let Some(date) = find_date(response.headers()) {
            self.lock().clock_ahead = Some(now.duration_since(date));
        }
        let kind = response.headers().get(CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(PEM_CHAIN.as_bytes())) {
            return;
        }
        let download = Download {
            chain: response.body().clone(),
            alternates: find_alternates(response.headers()),
        };
        self.lock().chains.insert(url.to_owned(), download);
    }

    /// Fails if our clock is so far ahead that what seems due need not be.
    pub(crate) fn check_clock(&self) -> Result<(), AcmeError> {
        match self.lock().clock_ahead {
            Some(ahead) if ahead > MOST_AHEAD => Err(AcmeError::ClockAhead(ahead)),
            _ => Ok(()),
        }
    }

    pub(crate) fn take(&self, url: &str) -> Option<Download> {
        self.lock().chains.remove(url)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the answer was made (RFC 9110 6.6.1).
fn find_date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(DATE)?.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
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
            let response = response.body(Bytes::from("chain")).unwrap();
            downloads.keep("https://ca.test/x", &response, Timestamp::UNIX_EPOCH);
            assert_eq!(downloads.take("https://ca.test/x").is_some(), kept, "{kind}");
            assert_eq!(downloads.take("https://ca.test/x"), None);
        }
    }

    #[test]
    fn a_clock_is_too_far_ahead_from_a_day_on_and_may_be_behind() {
        let noon = Timestamp::from_second(1_800_014_400).unwrap();
        for (hours, is_good) in [(-9999, true), (0, true), (24, true), (25, false), (99_999, false)] {
            let downloads = Downloads::default();
            assert!(downloads.check_clock().is_ok());
            let response = Response::builder().header(DATE, "Fri, 15 Jan 2027 12:00:00 GMT");
            let response = response.body(Bytes::new()).unwrap();
            downloads.keep(
                "https://ca.test/x",
                &response,
                noon + SignedDuration::from_hours(hours),
            );
            assert_eq!(downloads.check_clock().is_ok(), is_good, "{hours}");
        }
    }
}
