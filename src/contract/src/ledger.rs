use std::collections::BTreeMap;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::problem::read_toml;
use crate::{HostPattern, Problem, Provider};

const HEADING: &str = "\
# Written by fairlead-certs: what it knows of this certificate.
# Removing this file forgets failures and waiting times; the certificate itself stays.
";

/// `state.toml`: the history of one certificate, for the next pass and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ledger {
    /// The names wanted in the certificate, the primary first.
    pub names: Vec<HostPattern>,
    pub provider: Provider,
    /// Since when no route has had any of its names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_since: Option<Timestamp>,
    /// The certificate in the store; `None` before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Issued>,
    /// The attempts that failed since the last success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The certificate in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Issued {
    /// Who signed it: the ACME directory's URL, or `internal`; or the file it was taken from, or
    /// [`Self::BY_HAND`].
    pub issuer: String,
    /// When it was stored.
    pub at: Timestamp,
    pub not_after: Timestamp,
    /// From when on it is to be renewed.
    pub due: Timestamp,
    /// Since when it must not be trusted any more, by the operator's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// `None` before the authority was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_info: Option<RenewalInfo>,
}

/// What came of asking the authority when it wants a certificate renewed (RFC 9773).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RenewalInfo {
    /// It is not asked again before.
    pub next_question: Timestamp,
    /// How often it was asked in vain since its last answer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Its last usable answer: then the certificate is due at an instant in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// When an authority wants a certificate renewed (RFC 9773 4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Window {
    pub start: Timestamp,
    pub end: Timestamp,
    /// The URL of a page that says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// Why there is no newer certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Failure {
    /// Who was asked: the ACME directory's URL, or `internal`. `None` when nobody was, because what is
    /// configured stands in the way; then there is nothing to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// How often it was tried in vain.
    pub attempts: u32,
    pub since: Timestamp,
    pub last: Timestamp,
    /// In the authority's words where it said something.
    pub error: String,
    /// No attempt is made before, unless other names or another issuer are wanted.
    pub next_try: Timestamp,
    /// Until when the next attempts leave out which ACME directories, because these asked for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_alone: BTreeMap<String, Timestamp>,
}

impl Failure {
    /// What the error is while an attempt runs, and for ever if nothing ends it.
    pub const UNDER_WAY: &str = "an attempt began and has not ended";
    /// No attempt runs for longer.
    const LONGEST: SignedDuration = SignedDuration::from_mins(15);

    /// Whether the attempt may still run, as far as the ledger can tell.
    pub fn is_under_way(&self, now: Timestamp) -> bool {
        self.error == Self::UNDER_WAY && now.duration_since(self.last) < Self::LONGEST
    }
}

impl Issued {
    /// The issuer of a pair that somebody put into the store: nobody says who signed it.
    pub const BY_HAND: &str = "by hand";
}

impl Ledger {
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Problem> {
        read_toml(path, bytes)
    }

    pub fn render(&self) -> Result<String, toml::ser::Error> {
        Ok(format!("{HEADING}\n{}", toml::to_string(self)?))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_reads_back_as_it_was_written() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let ledger = Ledger {
            names: vec![HostPattern::parse("app.test").unwrap()],
            provider: Provider::Acme,
            unused_since: Some(at),
            issued: Some(Issued {
                issuer: "https://ca.test/directory".to_owned(),
                at,
                not_after: at,
                due: at,
                revoked: Some(at),
                renewal_info: Some(RenewalInfo {
                    next_question: at,
                    failures: 1,
                    window: Some(Window {
                        start: at,
                        end: at,
                        explanation: Some("https://ca.test/why".to_owned()),
                    }),
                }),
            }),
            failure: Some(Failure {
                issuer: Some("https://ca.test/directory".to_owned()),
                attempts: 2,
                since: at,
                last: at,
                error: "line one\nline \"two\"".to_owned(),
                next_try: at,
                left_alone: BTreeMap::from([("https://other.test/directory".to_owned(), at)]),
            }),
        };
        let text = ledger.render().unwrap();
        assert_eq!(
            Ledger::parse(Path::new("state.toml"), text.as_bytes()),
            Ok(ledger)
        );
        assert!(text.contains("due = \"2027-01-15T08:00:00Z\""), "{text}");
    }
}
