use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::SecretFile;
use crate::dns::unknown_field;

/// A company or a program that keeps zones and changes them by an interface of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct DnsService {
    /// The name of its table below `[acme.dns]`.
    pub name: &'static str,
    pub settings: &'static [Setting],
    /// Whether it keeps more than one TXT record of a name.
    pub several_values: bool,
}

/// What a service must or may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    pub kind: SettingKind,
    pub need: Need,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    Text,
    /// What proves who we are stands in a file of its own, never beside the other settings.
    Secret,
    Number,
    Flag,
    Choice(&'static [&'static str]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Needed,
    Optional,
    /// Needed unless that other setting is there, and not beside it.
    InsteadOf(&'static str),
}

/// One service with its settings, as far as they are the operator's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    pub service: &'static DnsService,
    pub values: BTreeMap<&'static str, SettingValue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingValue {
    Text(String),
    Secret(SecretFile),
}

impl DnsService {
    /// Every service there is, by name.
    #[rustfmt::skip]
    pub const ALL: &'static [Self] = &[
        service("alidns", &[secret("access-key"), secret("secret-key"), text("region").optional(), secret("security-token").optional(), text("line").optional()]),
        service("arvancloud", &[secret("api-key")]),
        service("autodns", &[text("username"), secret("password"), number("context").optional()]),
        service("azuredns", &[text("tenant-id"), text("client-id"), secret("client-secret"), text("subscription-id"), text("resource-group"), choice("environment", &["public", "china", "usgovernment"]).optional()]),
        service("baiducloud", &[secret("access-key"), secret("secret-key")]),
        service("bluecatv2", &[text("server-url"), text("username"), secret("password"), text("config-name"), text("view-name"), flag("skip-deploy")]),
        service("bunny", &[secret("api-key")]),
        service("cloudflare", &[secret("api-token")]),
        service("cloudns", &[text("auth-id").instead_of("sub-auth-id"), text("sub-auth-id").instead_of("auth-id"), secret("auth-password")]),
        service("constellix", &[secret("api-key"), secret("secret-key")]),
        service("cpanel", &[text("base-url"), text("username"), secret("token")]),
        service("ddnss", &[secret("key")]).with_one_value(),
        service("desec", &[secret("auth-token")]),
        service("digitalocean", &[secret("auth-token")]),
        service("dnsimple", &[secret("auth-token"), text("account-id")]),
        service("dnsmadeeasy", &[secret("api-key"), secret("api-secret")]),
        service("domeneshop", &[secret("api-token"), secret("api-secret")]),
        service("dreamhost", &[secret("api-key")]),
        service("duckdns", &[secret("token")]).with_one_value(),
        service("dynu", &[secret("api-key")]),
        service("easydns", &[secret("token"), secret("key")]),
        service("edgedns", &[text("host"), secret("client-token"), secret("client-secret"), secret("access-token"), secret("account-switch-key").optional()]),
        service("exoscale", &[secret("api-key"), secret("api-secret")]),
        service("freemyip", &[secret("token")]).with_one_value(),
        service("gandiv5", &[secret("personal-access-token")]),
        service("gcore", &[secret("api-token")]),
        service("glesys", &[text("api-user"), secret("api-key")]),
        service("godaddy", &[secret("api-key"), secret("api-secret")]),
        service("google-cloud-dns", &[secret("service-account"), text("project-id"), text("managed-zone").optional(), flag("private-zone"), text("impersonate-service-account").optional()]),
        service("hetzner", &[secret("api-token")]),
        service("hostingde", &[secret("api-key")]),
        service("hostinger", &[secret("api-token")]),
        service("huaweicloud", &[secret("access-key"), secret("secret-key"), text("region")]),
        service("hurricane", &[secret("passwords")]).with_one_value(),
        service("ibmcloud", &[text("username"), secret("api-key")]),
        service("infoblox", &[text("host"), number("port").optional(), text("username"), secret("password"), text("wapi-version").optional(), text("dns-view").optional()]),
        service("infomaniak", &[secret("access-token")]),
        service("inwx", &[text("username"), secret("password"), flag("sandbox")]),
        service("ionos", &[secret("api-key")]),
        service("ipv64", &[secret("api-key")]),
        service("joker", &[secret("api-key").instead_of("username"), text("username").instead_of("api-key"), secret("password").instead_of("api-key")]),
        service("lightsail", &[text("access-key-id"), secret("secret-access-key"), secret("session-token").optional(), text("region").optional(), text("domain").optional()]),
        service("linode", &[secret("auth-token")]),
        service("luadns", &[text("api-username"), secret("api-token")]),
        service("mythicbeasts", &[text("username"), secret("password")]),
        service("namecheap", &[text("api-user"), secret("api-key"), text("client-ip"), text("username").optional()]),
        service("namedotcom", &[text("username"), secret("api-token")]),
        service("namesilo", &[secret("api-key")]),
        service("netcup", &[text("customer-number"), secret("api-key"), secret("api-password")]),
        service("netlify", &[secret("access-token")]),
        service("nifcloud", &[secret("access-key"), secret("secret-key")]),
        service("ns1", &[secret("api-key")]),
        service("oraclecloud", &[text("tenancy-ocid"), text("user-ocid"), text("fingerprint"), secret("private-key"), text("region"), text("compartment-ocid")]),
        service("ovh", &[secret("application-key"), secret("application-secret"), secret("consumer-key"), choice("endpoint", &["ovh-eu", "ovh-us", "ovh-ca", "kimsufi-eu", "kimsufi-ca", "soyoustart-eu", "soyoustart-ca"])]),
        service("pdns", &[secret("api-key"), text("endpoint").optional(), text("server-name").optional()]),
        service("plesk", &[text("base-url"), secret("api-key")]),
        service("porkbun", &[secret("api-key"), secret("secret-api-key")]),
        service("route53", &[text("access-key-id"), secret("secret-access-key"), secret("session-token").optional(), text("region").optional(), text("hosted-zone-id").optional(), flag("private-zone-only"), text("endpoint").optional()]),
        service("safedns", &[secret("auth-token")]),
        service("scaleway", &[secret("api-token")]),
        service("selectel", &[text("username"), secret("password"), text("account-id"), text("project-id")]),
        service("simplycom", &[text("account-name"), secret("api-key")]),
        service("spaceship", &[secret("api-key"), secret("api-secret")]),
        service("tencentcloud", &[text("secret-id"), secret("secret-key"), text("region").optional(), secret("session-token").optional()]),
        service("transip", &[text("login"), secret("private-key"), flag("global-key")]),
        service("ultradns", &[text("username"), secret("password"), text("endpoint").optional()]),
        service("vercel", &[secret("auth-token"), text("team-id").optional()]),
        service("volcengine", &[secret("access-key"), secret("secret-key"), text("region").optional(), text("host").optional(), choice("scheme", &["https", "http"]).optional()]),
        service("vultr", &[secret("api-key")]),
        service("websupport", &[secret("api-key"), secret("secret")]),
        service("yandexcloud", &[secret("service-account-key"), text("folder-id")]),
        service("zoneeu", &[text("username"), secret("api-key")]),
    ];

    pub fn find(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|service| service.name == name)
    }

    const fn with_one_value(mut self) -> Self {
        self.several_values = false;
        self
    }

    /// Says what is missing or too much.
    fn judge(&self, values: &BTreeMap<&'static str, SettingValue>) -> Result<(), String> {
        for setting in self.settings {
            let is_there = values.contains_key(setting.name);
            match setting.need {
                Need::Needed if !is_there => return Err(format!("`{}` is missing: {self}", setting.name)),
                Need::InsteadOf(other) if is_there == values.contains_key(other) => {
                    let which = if is_there { "not both" } else { "one is missing" };
                    return Err(format!("`{}` or `{other}`, {which}: {self}", setting.name));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the service takes, in one sentence.
impl fmt::Display for DnsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` takes ", self.name)?;
        for (index, setting) in self.settings.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{setting}")?;
        }
        Ok(())
    }
}

/// Its name, and what is special about it.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.name)?;
        let mut remarks = Vec::new();
        match self.kind {
            SettingKind::Text => {}
            SettingKind::Secret => remarks.push("a secret".to_owned()),
            SettingKind::Number => remarks.push("a number".to_owned()),
            SettingKind::Flag => remarks.push("true or false".to_owned()),
            SettingKind::Choice(words) => remarks.push(words.join("|")),
        }
        match self.need {
            Need::Needed => {}
            Need::Optional => remarks.push("optional".to_owned()),
            Need::InsteadOf(other) => remarks.push(format!("unless `{other}`")),
        }
        match remarks.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", remarks.join("; ")),
        }
    }
}

impl Setting {
    const fn optional(mut self) -> Self {
        self.need = Need::Optional;
        self
    }

    const fn instead_of(mut self, other: &'static str) -> Self {
        self.need = Need::InsteadOf(other);
        self
    }
}

const fn service(name: &'static str, settings: &'static [Setting]) -> DnsService {
    DnsService {
        name,
        settings,
        several_values: true,
    }
}

const fn text(name: &'static str) -> Setting {
    setting(name, SettingKind::Text, Need::Needed)
}

const fn secret(name: &'static str) -> Setting {
    setting(name, SettingKind::Secret, Need::Needed)
}

const fn number(name: &'static str) -> Setting {
    setting(name, SettingKind::Number, Need::Needed)
}

const fn choice(name: &'static str, words: &'static [&'static str]) -> Setting {
    setting(name, SettingKind::Choice(words), Need::Needed)
}

const fn flag(name: &'static str) -> Setting {
    setting(name, SettingKind::Flag, Need::Optional)
}

const fn setting(name: &'static str, kind: SettingKind, need: Need) -> Setting {
    Setting { name, kind, need }
}

/// Reads the table of the service.
impl<'de> DeserializeSeed<'de> for &'static DnsService {
    type Value = ServiceAccount;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ServiceAccount, D::Error> {
        deserializer.deserialize_map(Account(self))
    }
}

struct Account(&'static DnsService);

impl<'de> Visitor<'de> for Account {
    type Value = ServiceAccount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a table: {}", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<ServiceAccount, A::Error> {
        let service = self.0;
        let mut values = BTreeMap::new();
        while let Some(setting) = table.next_key_seed(Key(service))? {
            values.insert(setting.name, table.next_value_seed(setting)?);
        }
        service.judge(&values).map_err(A::Error::custom)?;
        Ok(ServiceAccount { service, values })
    }
}

/// One of the service's settings.
struct Key(&'static DnsService);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = &'static Setting;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static Setting, D::Error> {
        let key = String::deserialize(deserializer)?;
        let mut known = self.0.settings.iter();
        let names = known.clone().map(|setting| setting.name);
        known
            .find(|setting| setting.name == key)
            .ok_or_else(|| unknown_field(&key, names))
    }
}

impl<'de> DeserializeSeed<'de> for &'static Setting {
    type Value = SettingValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<SettingValue, D::Error> {
        let text = match self.kind {
            SettingKind::Secret => return SecretFile::deserialize(deserializer).map(SettingValue::Secret),
            SettingKind::Number => u32::deserialize(deserializer)?.to_string(),
            SettingKind::Flag => bool::deserialize(deserializer)?.to_string(),
            SettingKind::Text | SettingKind::Choice(_) => String::deserialize(deserializer)?,
        };
        match self.kind {
            _ if text.is_empty() => Err(D::Error::custom(format!("`{}` is empty", self.name))),
            SettingKind::Choice(words) if !words.contains(&text.as_str()) => Err(D::Error::custom(format!(
                "`{}` is one of {}",
                self.name,
                words.join(", ")
            ))),
            _ => Ok(SettingValue::Text(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dns;

    fn read(text: &str) -> Result<Dns, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn example(setting: &Setting) -> String {
        let value = match setting.kind {
            SettingKind::Number => "4".to_owned(),
            SettingKind::Flag => "true".to_owned(),
            SettingKind::Choice(words) => format!("{:?}", words[0]),
            SettingKind::Text | SettingKind::Secret => format!("{:?}", setting.name),
        };
        format!("{} = {value}\n", setting.name)
    }

    /// Every setting of a service that may stand beside the ones before it.
    fn settings(service: &DnsService) -> Vec<&Setting> {
        let mut chosen: Vec<&Setting> = Vec::new();
        for setting in service.settings {
            let is_excluded = |other: &&Setting| setting.need == Need::InsteadOf(other.name);
            if !chosen.iter().any(is_excluded) {
                chosen.push(setting);
            }
        }
        chosen
    }

    fn table(service: &DnsService, settings: &[&Setting]) -> String {
        let lines: String = settings.iter().copied().map(example).collect();
        format!("[{}]\n{lines}", service.name)
    }

    #[test]
    fn a_service_is_read_with_all_its_settings_and_not_without_one_that_it_needs() {
        for service in DnsService::ALL {
            let all = settings(service);
            let dns = read(&table(service, &all)).unwrap();
            let crate::DnsProvider::Service(account) = dns.provider else {
                panic!("{} is another kind of provider", service.name);
            };
            let names: Vec<_> = account.values.keys().copied().collect();
            let mut expected: Vec<_> = all.iter().map(|setting| setting.name).collect();
            expected.sort_unstable();
            assert_eq!((account.service.name, names), (service.name, expected));

            for missing in all.iter().filter(|setting| setting.need != Need::Optional) {
                let rest: Vec<_> = all.iter().copied().filter(|setting| setting != missing).collect();
                let error = read(&table(service, &rest)).unwrap_err();
                let takes = format!("missing: {service}");
                assert!(error.contains(missing.name) && error.contains(&takes), "{error}");
            }
        }
    }

    #[test]
    fn one_of_two_ways_to_log_in_is_said_and_not_both() {
        for (text, expected) in [
            ("[joker]\nusername = \"u\"\npassword = \"p\"\n", None),
            ("[joker]\napi-key = \"k\"\n", None),
            (
                "[joker]\nusername = \"u\"\n",
                Some("`password` or `api-key`, one is missing: `joker` takes"),
            ),
            (
                "[cloudns]\nauth-id = \"1\"\nsub-auth-id = \"2\"\nauth-password = \"p\"\n",
                Some("`auth-id` or `sub-auth-id`, not both: `cloudns` takes"),
            ),
        ] {
            match (read(text), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => assert!(error.contains(expected), "{error}"),
                (read, _) => panic!("{text}: {read:?}"),
            }
        }
    }

    #[test]
    fn what_a_service_does_not_take_is_refused_where_it_stands() {
        for (text, line, expected) in [
            (
                "propagation-delay = \"1s\"\n[porkbun]\napi-key = \"a\"\nsecret = \"b\"\n",
                "line 4, column 1",
                "unknown field `secret`, expected one of `api-key`, `secret-api-key`",
            ),
            (
                "[inwx]\nusername = \"u\"\nsandbox = \"yes\"\n",
                "line 3, column 11",
                "expected a boolean",
            ),
            (
                "[dnsimple]\naccount-id = \"\"\n",
                "line 2, column 14",
                "`account-id` is empty",
            ),
            (
                "[ovh]\nendpoint = \"ovh-xx\"\n",
                "line 2, column 12",
                "`endpoint` is one of ovh-eu, ovh-us",
            ),
            (
                "[cloudflare]\n",
                "line 1, column 1",
                "`cloudflare` takes `api-token` (a secret)",
            ),
            (
                "cloudflare = 1\n",
                "line 1, column 14",
                "a table: `cloudflare` takes",
            ),
            (
                "[claudflare]\n",
                "line 1, column 2",
                "unknown field `claudflare`, expected one of",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(line) && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn services_stand_in_order_and_what_sounds_like_a_secret_is_one() {
        assert!(DnsService::ALL.is_sorted_by_key(|service| service.name));
        let secrets = ["key", "token", "secret", "password", "passwords"];
        for setting in DnsService::ALL.iter().flat_map(|service| service.settings) {
            let last = setting.name.rsplit('-').next().unwrap_or_default();
            if setting.kind == SettingKind::Text {
                assert!(!secrets.contains(&last), "{setting}");
            }
            if let Need::InsteadOf(other) = setting.need {
                assert!(DnsService::ALL.iter().any(|service| {
                    let has = |name| service.settings.iter().any(|setting| setting.name == name);
                    has(setting.name) && has(other)
                }));
            }
        }
    }
}
