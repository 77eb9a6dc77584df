//! Puts TXT records into the DNS by the interfaces of the services in [`DnsService::ALL`].
//!
//! A crate of its own because the functions of dns-update are compiled anew in each crate that calls them.

mod login;

use std::future::Future;
use std::pin::Pin;

use dns_update::{DnsRecord, DnsRecordType, DnsUpdater};
use fairlead_contract::{DnsService, SettingKind};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;

use crate::login::login;

pub use crate::login::Values;

/// The shortest that every service takes; where one wants more, dns-update says more. Who looks again
/// looks for another value.
const TTL: u32 = 600;
const TXT: DnsRecordType = DnsRecordType::TXT;
/// What stays as it is in a query (`application/x-www-form-urlencoded`), and in the rest of a URL (RFC 3986 2.3).
const ENCODINGS: [AsciiSet; 2] = [
    NON_ALPHANUMERIC
        .remove(b'*')
        .remove(b'-')
        .remove(b'.')
        .remove(b'_'),
    NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~'),
];

/// What stands in place of a secret.
const HIDDEN: &str = "(secret)";

type Changed<'a> = Pin<Box<dyn Future<Output = Result<(), ServiceError>> + Send + 'a>>;

/// A service that knows who we are.
pub struct Client {
    service: &'static DnsService,
    updater: DnsUpdater,
    secrets: Vec<String>,
}

/// A TXT record. `zone` and `name` are absolute, with or without the last dot.
pub struct Text<'a> {
    pub zone: &'a str,
    pub name: &'a str,
    pub value: &'a str,
}

impl Client {
    /// Nothing is sent yet, so whether the service believes us is not known.
    pub fn new(service: &'static DnsService, mut values: Values) -> Result<Self, ServiceError> {
        let is_secret = |name| {
            let mut settings = service.settings.iter();
            settings.any(|setting| setting.name == name && setting.kind == SettingKind::Secret)
        };
        let secrets = values.iter().filter(|(name, _)| is_secret(*name));
        let secrets = secrets.map(|(_, secret)| secret.to_owned()).collect();
        match login(service.name, &mut values) {
            Ok(updater) => Ok(Self {
                service,
                updater,
                secrets,
            }),
            Err(error) => Err(ServiceError::new(service, &secrets, &error)),
        }
    }

    /// Adds the record, beside others of its name if the service keeps several.
    pub fn add<'a>(&'a self, text: &'a Text<'a>) -> Changed<'a> {
        let record = vec![DnsRecord::TXT(text.value.to_owned())];
        Box::pin(async move {
            let added = match self.service.several_values {
                true => {
                    self.updater
                        .add_to_rrset(text.name, TXT, TTL, record, text.zone)
                        .await
                }
                false => {
                    self.updater
                        .set_rrset(text.name, TXT, TTL, record, text.zone)
                        .await
                }
            };
            added.map_err(|error| self.explain(&error))
        })
    }

    /// Removes the record. One that is not there is no fault.
    pub fn remove<'a>(&'a self, text: &'a Text<'a>) -> Changed<'a> {
        let record = vec![DnsRecord::TXT(text.value.to_owned())];
        Box::pin(async move {
            let removed = match self.service.several_values {
                true => {
                    self.updater
                        .remove_from_rrset(text.name, TXT, record, text.zone)
                        .await
                }
                false => {
                    self.updater
                        .set_rrset(text.name, TXT, TTL, Vec::new(), text.zone)
                        .await
                }
            };
            removed.map_err(|error| self.explain(&error))
        })
    }

    fn explain(&self, error: &dns_update::Error) -> ServiceError {
        ServiceError::new(self.service, &self.secrets, error)
    }
}

/// Why a service did not do what it was asked for, without our secrets.
#[derive(Debug, Error)]
#[error("{service}: {cause}")]
pub struct ServiceError {
    service: &'static str,
    cause: String,
}

impl ServiceError {
    // Some services take their secrets in the URL, which the message then shows.
    fn new(service: &'static DnsService, secrets: &[String], error: &dns_update::Error) -> Self {
        Self {
            service: service.name,
            cause: hide(secrets, &error.to_string()),
        }
    }
}

/// The text without the secrets, as they are and as they stand in a URL.
fn hide(secrets: &[String], text: &str) -> String {
    let mut hidden = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        hidden = hidden.replace(secret, HIDDEN);
        for encoding in &ENCODINGS {
            hidden = hidden.replace(&utf8_percent_encode(secret, encoding).to_string(), HIDDEN);
        }
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_shows_a_secret_not_even_in_a_url() {
        let service = DnsService::find("duckdns").unwrap();
        let error = |text: &str| dns_update::Error::Api(text.to_owned());
        let shown = |secret: &str, text: &str| {
            ServiceError::new(service, &[secret.to_owned(), String::new()], &error(text)).to_string()
        };
        let url = "cannot reach https://x.test/update?domains=a&token=";
        for (secret, text, expected) in [
            ("a-b", "a-b", "(secret)"),
            ("a-b/c", "a-b%2Fc&txt=", "(secret)&txt="),
            ("a~b", "a%7Eb", "(secret)"),
            ("a~b/", "a~b%2F", "(secret)"),
        ] {
            let error = shown(secret, &format!("{url}{text}"));
            assert_eq!(error, format!("duckdns: API error: {url}{expected}"));
        }
    }
}
