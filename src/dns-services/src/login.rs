use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use data_encoding::BASE64;
use dns_update::providers::azuredns::{AzureDnsConfig, AzureEnvironment};
use dns_update::providers::bluecatv2::BluecatV2Config;
use dns_update::providers::edgedns::EdgeDnsConfig;
use dns_update::providers::google_cloud_dns::GoogleCloudDnsConfig;
use dns_update::providers::infoblox::InfobloxConfig;
use dns_update::providers::joker::JokerAuth;
use dns_update::providers::lightsail::LightsailConfig;
use dns_update::providers::oraclecloud::OracleCloudConfig;
use dns_update::providers::route53::Route53Config;
use dns_update::providers::volcengine::VolcengineConfig;
use dns_update::providers::yandexcloud::YandexCloudConfig;
use dns_update::{DnsUpdater, Error};

/// For one request; a change may take several.
const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

/// What a service is told, by the name of the setting; secrets as they are, flags as `true` or `false`.
pub struct Values(BTreeMap<&'static str, String>);

impl FromIterator<(&'static str, String)> for Values {
    fn from_iter<I: IntoIterator<Item = (&'static str, String)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl Values {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    fn needed(&mut self, name: &'static str) -> Result<String, Error> {
        self.optional(name)
            .ok_or_else(|| Error::Client(format!("`{name}` is missing")))
    }

    fn optional(&mut self, name: &'static str) -> Option<String> {
        self.0.remove(name)
    }

    fn flag(&mut self, name: &'static str) -> bool {
        self.optional(name).is_some_and(|value| value == "true")
    }

    fn number(&mut self, name: &'static str) -> Result<Option<u32>, Error> {
        let number = self.optional(name).map(|value| value.parse());
        number
            .transpose()
            .map_err(|error| Error::Parse(format!("`{name}`: {error}")))
    }
}

/// Has the service of that name know who we are, taking each setting out of `values`.
pub(crate) fn login(service: &str, values: &mut Values) -> Result<DnsUpdater, Error> {
    let mut needed = |name| values.needed(name);
    match service {
        "arvancloud" => DnsUpdater::new_arvancloud(needed("api-key")?, LIMIT),
        "baiducloud" => DnsUpdater::new_baiducloud(needed("access-key")?, needed("secret-key")?, LIMIT),
        "bunny" => DnsUpdater::new_bunny(needed("api-key")?, LIMIT),
        "cloudflare" => DnsUpdater::new_cloudflare(needed("api-token")?, LIMIT),
        "constellix" => DnsUpdater::new_constellix(needed("api-key")?, needed("secret-key")?, LIMIT),
        "cpanel" => DnsUpdater::new_cpanel(needed("base-url")?, needed("username")?, needed("token")?, LIMIT),
        "ddnss" => DnsUpdater::new_ddnss(needed("key")?, LIMIT),
        "desec" => DnsUpdater::new_desec(needed("auth-token")?, LIMIT),
        "digitalocean" => DnsUpdater::new_digitalocean(needed("auth-token")?, LIMIT),
        "dnsimple" => DnsUpdater::new_dnsimple(needed("auth-token")?, needed("account-id")?, LIMIT),
        "dnsmadeeasy" => DnsUpdater::new_dnsmadeeasy(needed("api-key")?, needed("api-secret")?, LIMIT),
        "domeneshop" => DnsUpdater::new_domeneshop(needed("api-token")?, needed("api-secret")?, LIMIT),
        "dreamhost" => DnsUpdater::new_dreamhost(needed("api-key")?, LIMIT),
        "duckdns" => DnsUpdater::new_duckdns(needed("token")?, LIMIT),
        "dynu" => DnsUpdater::new_dynu(needed("api-key")?, LIMIT),
        "easydns" => DnsUpdater::new_easydns(needed("token")?, needed("key")?, LIMIT),
        "exoscale" => DnsUpdater::new_exoscale(needed("api-key")?, needed("api-secret")?, LIMIT),
        "freemyip" => DnsUpdater::new_freemyip(needed("token")?, LIMIT),
        "gandiv5" => DnsUpdater::new_gandiv5(needed("personal-access-token")?, LIMIT),
        "gcore" => DnsUpdater::new_gcore(needed("api-token")?, LIMIT),
        "glesys" => DnsUpdater::new_glesys(needed("api-user")?, needed("api-key")?, LIMIT),
        "godaddy" => DnsUpdater::new_godaddy(needed("api-key")?, needed("api-secret")?, LIMIT),
        "hetzner" => DnsUpdater::new_hetzner(needed("api-token")?, LIMIT),
        "hostingde" => DnsUpdater::new_hostingde(needed("api-key")?, LIMIT),
        "hostinger" => DnsUpdater::new_hostinger(needed("api-token")?, LIMIT),
        "huaweicloud" => {
            let (access, secret) = (needed("access-key")?, needed("secret-key")?);
            DnsUpdater::new_huaweicloud(access, secret, needed("region")?, LIMIT)
        }
        "hurricane" => DnsUpdater::new_hurricane(by_zone(&needed("passwords")?)?, LIMIT),
        "ibmcloud" => DnsUpdater::new_ibmcloud(needed("username")?, needed("api-key")?, LIMIT),
        "infomaniak" => DnsUpdater::new_infomaniak(needed("access-token")?, LIMIT),
        "ionos" => DnsUpdater::new_ionos(needed("api-key")?, LIMIT),
        "ipv64" => DnsUpdater::new_ipv64(needed("api-key")?, LIMIT),
        "linode" => DnsUpdater::new_linode(needed("auth-token")?, LIMIT),
        "luadns" => DnsUpdater::new_luadns(needed("api-username")?, needed("api-token")?, LIMIT),
        "mythicbeasts" => DnsUpdater::new_mythicbeasts(needed("username")?, needed("password")?, LIMIT),
        "namedotcom" => DnsUpdater::new_namedotcom(needed("username")?, needed("api-token")?, LIMIT),
        "namesilo" => DnsUpdater::new_namesilo(needed("api-key")?, LIMIT),
        "netcup" => {
            let (number, key) = (needed("customer-number")?, needed("api-key")?);
            DnsUpdater::new_netcup(number, key, needed("api-password")?, LIMIT)
        }
        "netlify" => DnsUpdater::new_netlify(needed("access-token")?, LIMIT),
        "nifcloud" => DnsUpdater::new_nifcloud(needed("access-key")?, needed("secret-key")?, LIMIT),
        "ns1" => DnsUpdater::new_ns1(needed("api-key")?, LIMIT),
        "oraclecloud" => DnsUpdater::new_oraclecloud(OracleCloudConfig {
            tenancy_ocid: needed("tenancy-ocid")?,
            user_ocid: needed("user-ocid")?,
            fingerprint: needed("fingerprint")?,
            private_key_pem: needed("private-key")?,
            // dns-update refuses keys that have one.
            private_key_password: None,
            region: needed("region")?,
            compartment_ocid: needed("compartment-ocid")?,
            request_timeout: LIMIT,
        }),
        "ovh" => {
            let (key, secret) = (needed("application-key")?, needed("application-secret")?);
            let endpoint = needed("endpoint")?.parse()?;
            DnsUpdater::new_ovh(key, secret, needed("consumer-key")?, endpoint, LIMIT)
        }
        "plesk" => DnsUpdater::new_plesk(needed("base-url")?, needed("api-key")?, LIMIT),
        "porkbun" => DnsUpdater::new_porkbun(needed("api-key")?, needed("secret-api-key")?, LIMIT),
        "safedns" => DnsUpdater::new_safedns(needed("auth-token")?, LIMIT),
        "scaleway" => DnsUpdater::new_scaleway(needed("api-token")?, LIMIT),
        "selectel" => {
            let (username, password) = (needed("username")?, needed("password")?);
            let (account, project) = (needed("account-id")?, needed("project-id")?);
            DnsUpdater::new_selectel(username, password, account, project, LIMIT)
        }
        "simplycom" => DnsUpdater::new_simplycom(needed("account-name")?, needed("api-key")?, LIMIT),
        "spaceship" => DnsUpdater::new_spaceship(needed("api-key")?, needed("api-secret")?, LIMIT),
        "vultr" => DnsUpdater::new_vultr(needed("api-key")?, LIMIT),
        "websupport" => DnsUpdater::new_websupport(needed("api-key")?, needed("secret")?, LIMIT),
        "yandexcloud" => DnsUpdater::new_yandexcloud(YandexCloudConfig {
            iam_token_b64: BASE64.encode(needed("service-account-key")?.as_bytes()),
            folder_id: needed("folder-id")?,
            request_timeout: LIMIT,
        }),
        "zoneeu" => DnsUpdater::new_zoneeu(needed("username")?, needed("api-key")?, LIMIT),
        _ => login_with_options(service, values),
    }
}

/// The services that take settings that need not be there.
fn login_with_options(service: &str, values: &mut Values) -> Result<DnsUpdater, Error> {
    match service {
        "alidns" => DnsUpdater::new_alidns(
            values.needed("access-key")?,
            values.needed("secret-key")?,
            values.optional("region"),
            values.optional("security-token"),
            values.optional("line"),
            LIMIT,
        ),
        "autodns" => DnsUpdater::new_autodns(
            values.needed("username")?,
            values.needed("password")?,
            values.number("context")?,
            LIMIT,
        ),
        "azuredns" => DnsUpdater::new_azuredns(AzureDnsConfig {
            tenant_id: values.needed("tenant-id")?,
            client_id: values.needed("client-id")?,
            client_secret: values.needed("client-secret")?,
            subscription_id: values.needed("subscription-id")?,
            resource_group: values.needed("resource-group")?,
            environment: AzureEnvironment::from_str_lossy(
                &values.optional("environment").unwrap_or_default(),
            ),
            request_timeout: LIMIT,
        }),
        "bluecatv2" => DnsUpdater::new_bluecatv2(BluecatV2Config {
            server_url: values.needed("server-url")?,
            username: values.needed("username")?,
            password: values.needed("password")?,
            config_name: values.needed("config-name")?,
            view_name: values.needed("view-name")?,
            skip_deploy: values.flag("skip-deploy"),
            request_timeout: LIMIT,
        }),
        "cloudns" => DnsUpdater::new_cloudns(
            values.optional("auth-id"),
            values.optional("sub-auth-id"),
            values.needed("auth-password")?,
            LIMIT,
        ),
        "edgedns" => DnsUpdater::new_edgedns(EdgeDnsConfig {
            host: values.needed("host")?,
            client_token: values.needed("client-token")?,
            client_secret: values.needed("client-secret")?,
            access_token: values.needed("access-token")?,
            account_switch_key: values.optional("account-switch-key"),
            request_timeout: LIMIT,
        }),
        "google-cloud-dns" => DnsUpdater::new_google_cloud_dns(GoogleCloudDnsConfig {
            service_account_json: values.needed("service-account")?,
            project_id: values.needed("project-id")?,
            managed_zone: values.optional("managed-zone"),
            private_zone: values.flag("private-zone"),
            impersonate_service_account: values.optional("impersonate-service-account"),
            request_timeout: LIMIT,
        }),
        "infoblox" => DnsUpdater::new_infoblox(InfobloxConfig {
            host: values.needed("host")?,
            port: values.optional("port"),
            username: values.needed("username")?,
            password: values.needed("password")?,
            wapi_version: values.optional("wapi-version"),
            dns_view: values.optional("dns-view"),
            request_timeout: LIMIT,
        }),
        "inwx" => {
            let (username, password) = (values.needed("username")?, values.needed("password")?);
            DnsUpdater::new_inwx(username, password, values.flag("sandbox"), LIMIT)
        }
        "joker" => {
            let auth = match values.optional("api-key") {
                Some(key) => JokerAuth::api_key(key),
                None => JokerAuth::username_password(values.needed("username")?, values.needed("password")?),
            };
            DnsUpdater::new_joker(auth, LIMIT)
        }
        "lightsail" => DnsUpdater::new_lightsail(LightsailConfig {
            access_key_id: values.needed("access-key-id")?,
            secret_access_key: values.needed("secret-access-key")?,
            session_token: values.optional("session-token"),
            region: values.optional("region"),
            domain: values.optional("domain"),
            request_timeout: LIMIT,
        }),
        "namecheap" => DnsUpdater::new_namecheap(
            values.needed("api-user")?,
            values.needed("api-key")?,
            values.needed("client-ip")?,
            values.optional("username"),
            LIMIT,
        ),
        "pdns" => DnsUpdater::new_pdns(
            values.needed("api-key")?,
            values.optional("endpoint"),
            values.optional("server-name"),
            LIMIT,
        ),
        "route53" => DnsUpdater::new_route53(Route53Config {
            access_key_id: values.needed("access-key-id")?,
            secret_access_key: values.needed("secret-access-key")?,
            session_token: values.optional("session-token"),
            region: values.optional("region"),
            hosted_zone_id: values.optional("hosted-zone-id"),
            private_zone_only: Some(values.flag("private-zone-only")),
            endpoint: values.optional("endpoint"),
        }),
        "tencentcloud" => DnsUpdater::new_tencentcloud(
            values.needed("secret-id")?,
            values.needed("secret-key")?,
            values.optional("region"),
            values.optional("session-token"),
            LIMIT,
        ),
        "transip" => {
            let (login, key) = (values.needed("login")?, values.needed("private-key")?);
            DnsUpdater::new_transip(login, key, values.flag("global-key"), LIMIT)
        }
        "ultradns" => DnsUpdater::new_ultradns(
            values.needed("username")?,
            values.needed("password")?,
            values.optional("endpoint"),
            LIMIT,
        ),
        "vercel" => DnsUpdater::new_vercel(values.needed("auth-token")?, values.optional("team-id"), LIMIT),
        "volcengine" => DnsUpdater::new_volcengine(VolcengineConfig {
            access_key: values.needed("access-key")?,
            secret_key: values.needed("secret-key")?,
            region: values.optional("region"),
            host: values.optional("host"),
            scheme: values.optional("scheme"),
            request_timeout: LIMIT,
        }),
        _ => Err(Error::Unsupported("no such service".to_owned())),
    }
}

/// One password for each zone, in JSON.
fn by_zone(json: &str) -> Result<HashMap<String, String>, Error> {
    serde_json::from_str(json).map_err(|error| {
        Error::Parse(format!(
            "`passwords` is no JSON object of zones and passwords: {error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;

    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use fairlead_contract::{DnsService, Need, Setting, SettingKind};

    use super::*;

    fn example(setting: &Setting, rsa_key: &str) -> String {
        match (setting.name, setting.kind) {
            ("private-key", _) => rsa_key.to_owned(),
            ("passwords", _) => r#"{"a.test": "secret"}"#.to_owned(),
            (_, SettingKind::Number) => "4".to_owned(),
            (_, SettingKind::Flag) => "true".to_owned(),
            (_, SettingKind::Choice(words)) => words[0].to_owned(),
            (name, SettingKind::Text | SettingKind::Secret) => name.to_owned(),
        }
    }

    fn rsa_key() -> String {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let base64 = BASE64.encode(der.as_ref());
        format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n")
    }

    /// The settings of the service that do not stand in for `without`.
    fn values(service: &DnsService, without: Option<&str>, rsa_key: &str) -> Values {
        let settings = service.settings.iter().filter(|setting| match setting.need {
            Need::InsteadOf(_) if without.is_none() => {
                setting.need != Need::InsteadOf(service.settings[0].name)
            }
            Need::InsteadOf(other) => Some(setting.name) != without && Some(other) == without,
            _ => true,
        });
        settings
            .map(|setting| (setting.name, example(setting, rsa_key)))
            .collect()
    }

    #[test]
    fn every_service_knows_us_by_all_its_settings_and_by_each_that_stands_for_another() {
        let rsa_key = rsa_key();
        for service in DnsService::ALL {
            let alternatives = service.settings.iter().filter_map(|setting| match setting.need {
                Need::InsteadOf(other) => Some(Some(other)),
                _ => None,
            });
            for without in alternatives.chain([None]) {
                let mut values = values(service, without, &rsa_key);
                if let Err(error) = login(service.name, &mut values) {
                    panic!("{} without {without:?}: {error}", service.name);
                }
                let unread: Vec<_> = values.iter().collect();
                assert_eq!(unread, [], "{}", service.name);
            }
        }
    }

    #[test]
    fn a_needed_setting_that_is_not_there_is_an_error() {
        let rsa_key = rsa_key();
        for service in DnsService::ALL {
            for setting in service
                .settings
                .iter()
                .filter(|setting| setting.need == Need::Needed)
            {
                let mut values = values(service, None, &rsa_key);
                values.0.remove(setting.name);
                let error = login(service.name, &mut values)
                    .err()
                    .expect("it is needed")
                    .to_string();
                assert!(
                    error.contains(&format!("`{}` is missing", setting.name)),
                    "{error}"
                );
            }
        }
    }

    /// RFC 2136 is spoken by the certs program itself; the rest are all there.
    #[test]
    fn every_service_that_the_library_speaks_to_is_listed() {
        let source = fs::read_to_string(library().join("src/update.rs")).unwrap();
        let constructors = source.split("\n    pub fn new_").skip(1);
        let offered: BTreeSet<_> = constructors
            .filter_map(|text| text.split_once('('))
            .map(|(name, _)| name.replace('_', "-"))
            .filter(|name| !["rfc2136-tsig", "pebble", "in-memory"].contains(&name.as_str()))
            .collect();
        let listed = DnsService::ALL
            .iter()
            .map(|service| service.name.to_owned())
            .collect();
        assert_eq!(offered, listed);
    }

    /// Where cargo has the source of dns-update.
    fn library() -> PathBuf {
        let mut command = Command::new(env!("CARGO"));
        command.args(["metadata", "--format-version=1", "--locked", "--offline"]);
        let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages
            .iter()
            .find(|package| package["name"] == "dns-update")
            .unwrap();
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
        manifest.parent().unwrap().to_owned()
    }
}
