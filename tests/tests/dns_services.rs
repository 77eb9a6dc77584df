//! DNS-01 by the interfaces of services, each played by a stand-in; the zones are a real BIND's, the authority a Pebble.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use data_encoding::{BASE64, HEXLOWER};
use fairlead_contract::{DnsService, Need, Setting, SettingKind};
use fairlead_tests::{
    Authority, Environment, Internet, Named, Pebble, PebbleSettings, Peer, PeerAnswer, PeerRequest, Program,
};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::json;

/// An installation whose authority looks at zones that a service changes.
struct Zones {
    environment: Environment,
    named: Arc<Named>,
    pebble: Pebble,
}

impl Zones {
    fn new(zones: &[(&str, &str)]) -> Self {
        let open: Vec<_> = zones.iter().map(|(zone, _)| *zone).collect();
        let named = Arc::new(Named::start(zones, &open));
        // Nobody answers there: neither HTTP-01 nor TLS-ALPN-01 could succeed.
        let mut settings = PebbleSettings::new(SocketAddr::from(([127, 0, 0, 1], 1)));
        settings.dns = Some(named.address());
        Self {
            environment: Environment::new(),
            named,
            pebble: Pebble::start(settings),
        }
    }

    /// Has this service, with its settings as lines of TOML, change the zones.
    fn configure(&self, service: &str, settings: &str) {
        let text = format!(
            "{}challenge = \"dns-01\"\nresolvers = [\"{}\"]\n\
             [acme.dns.{service}]\n{settings}",
            self.pebble.settings(),
            self.pebble.dns()
        );
        self.environment.write_config(&text);
    }
}

/// What the interface of PowerDNS answers, as far as dns-update asks; BIND keeps the zone.
fn answer_as_powerdns(named: &Named, request: &PeerRequest) -> PeerAnswer {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let has_key = request.headers.contains(&"x-api-key: secret".to_owned());
    if !has_key || path != "/api/v1/servers/localhost/zones/alias.test." {
        return PeerAnswer(401, String::new());
    }
    if request.method == "PATCH" {
        let set = &request.body["rrsets"][0];
        let records = set["records"].as_array().map(Vec::as_slice).unwrap_or_default();
        let texts: Vec<_> = records
            .iter()
            .filter_map(|record| record["content"].as_str())
            .collect();
        named.set_texts(set["name"].as_str().unwrap_or_default(), &texts);
        return PeerAnswer(204, String::new());
    }
    let name = query.split(['=', '&']).nth(1).unwrap_or_default();
    let texts = named.texts(name);
    let records: Vec<_> = texts
        .lines()
        .map(|text| serde_json::json!({"content": text, "disabled": false}))
        .collect();
    let sets = serde_json::json!([{"name": name, "type": "TXT", "ttl": 1, "records": records}]);
    PeerAnswer(200, serde_json::json!({ "rrsets": sets }).to_string())
}

#[test]
fn a_service_is_told_of_records_in_the_zone_where_the_aliases_lead_and_of_their_end() {
    let alias = "_acme-challenge CNAME deep.alias.test.\n_acme-challenge.b.sub CNAME deep.alias.test.";
    let keep = "deep TXT \"somebody else's\"";
    let zones = Zones::new(&[("a.test", alias), ("alias.test", keep)]);
    let environment = &zones.environment;
    let peer = Peer::start({
        let named = zones.named.clone();
        move |request| answer_as_powerdns(&named, request)
    });
    let key = environment.secret("key", "wrong\n");
    zones.configure(
        "pdns",
        &format!("api-key = {key:?}\nendpoint = \"{}\"\n", peer.url()),
    );
    environment.declare(&["*.a.test", "a.test"], "");
    environment.failing_pass();
    let error = environment.failure("*.a.test").error;
    assert!(
        error.contains("the DNS could not be changed: pdns: Unauthorized"),
        "{error}"
    );

    environment.secret("key", "secret\n");
    environment.declare(&["*.a.test", "a.test", "b.sub.a.test"], "");
    environment.pass();
    assert_eq!(environment.ledger("*.a.test").names.len(), 3);
    assert_eq!(zones.named.texts("deep.alias.test"), "\"somebody else's\"\n");
}

/// What Cloudflare's interface answers, as far as dns-update asks; BIND keeps the zone.
fn answer_as_cloudflare(named: &Named, request: &PeerRequest) -> PeerAnswer {
    let has = |header: &str| request.headers.iter().any(|given| given == header);
    if !has("authorization: Bearer secret") || !has("host: api.cloudflare.com") {
        return PeerAnswer(403, "not for you".to_owned());
    }
    let below = "/client/v4/zones/z/dns_records";
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let asked = query.split(['=', '&']).nth(1).unwrap_or_default();
    let change = |name: &str, change: &dyn Fn(&str) -> bool, new: Option<&str>| {
        let texts = named.texts(name);
        let kept = texts.lines().filter(|text| change(text)).chain(new);
        named.set_texts(name, &kept.collect::<Vec<_>>());
        json!({})
    };
    let result = match (request.method.as_str(), path.strip_prefix(below)) {
        ("GET", None) if asked == "a.test" => json!([{"id": "z", "name": "a.test"}]),
        ("GET", Some("")) => {
            let texts = named.texts(asked);
            let id = |text: &str| format!("{asked}~{}", HEXLOWER.encode(text.as_bytes()));
            let records = texts.lines();
            records
                .map(|text| json!({"id": id(text), "type": "TXT", "content": text}))
                .collect()
        }
        ("POST", Some("")) => change(text(request, "name"), &|_| true, Some(text(request, "content"))),
        ("DELETE", Some(id)) => {
            let (name, id) = id[1..].split_once('~').unwrap_or_default();
            change(name, &|text| HEXLOWER.encode(text.as_bytes()) != id, None)
        }
        _ => json!([]),
    };
    PeerAnswer(
        200,
        json!({"success": true, "errors": [], "result": result}).to_string(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_asked_at_its_own_address_and_only_if_it_shows_who_it_is() {
    let zones = Zones::new(&[("a.test", "_acme-challenge TXT \"somebody else's\"")]);
    let environment = &zones.environment;
    let named = zones.named.clone();
    let internet = Internet::start(move |request| answer_as_cloudflare(&named, request)).await;
    let token = environment.secret("token", "secret\n");
    zones.configure("cloudflare", &format!("api-token = {token:?}\n"));
    environment.declare(&["*.a.test", "a.test"], "");
    internet.pass(environment, &Authority::new().root());
    let error = environment.failure("*.a.test").error;
    assert!(
        error.contains("cloudflare: API error: Failed to send request"),
        "{error}"
    );

    environment.declare(&["*.a.test", "a.test", "b.sub.a.test"], "");
    let finished = internet.pass(environment, &internet.root());
    assert!(finished.status.success(), "{}", finished.stderr);
    let texts = |name| zones.named.texts(name);
    assert_eq!(texts("_acme-challenge.a.test"), "\"somebody else's\"\n");
    assert_eq!(texts("_acme-challenge.b.sub.a.test"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_keeps_one_value_is_told_of_it_and_of_its_end() {
    let zones = Zones::new(&[("a.test", "")]);
    let environment = &zones.environment;
    let told = Arc::new(Mutex::new(Vec::new()));
    let internet = Internet::start({
        let (named, told) = (zones.named.clone(), told.clone());
        move |request| {
            let (_, value) = request.path.split_once("txt=").unwrap_or_default();
            let values: Vec<_> = Some(value)
                .filter(|value| !value.is_empty())
                .into_iter()
                .collect();
            named.set_texts("_acme-challenge.a.test", &values);
            told.lock().unwrap().push(values.len());
            PeerAnswer(200, "OK".to_owned())
        }
    });
    let internet = internet.await;
    let token = environment.secret("token", "secret\n");
    zones.configure("duckdns", &format!("token = {token:?}\n"));
    environment.declare(&["a.test"], "");
    let finished = internet.pass(environment, &internet.root());
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(*told.lock().unwrap(), [1, 0]);
    assert_eq!(zones.named.texts("_acme-challenge.a.test"), "");
}

#[test]
fn what_a_service_takes_in_its_url_stands_in_no_message() {
    let zones = Zones::new(&[("a.test", "")]);
    let environment = &zones.environment;
    // The services have addresses of their own: what leads there must lead here.
    let proxy = Peer::start(|request| match request.path.as_str() {
        "www.duckdns.org:443" => 418,
        _ => 500,
    });
    let token = environment.secret("token", "a-b/c\n");
    zones.configure("duckdns", &format!("token = {token:?}\n"));
    environment.declare(&["a.test"], "");
    let mut command = environment.command(Program::Certs);
    command.env("HTTPS_PROXY", proxy.url());
    let finished = environment.start(command).finish();
    let error = environment.failure("a.test").error;
    assert!(
        error.contains("duckdns") && error.contains("token=(secret)"),
        "{error}"
    );
    assert!(!finished.stderr.contains("a-b"), "{}", finished.stderr);
}

fn text<'a>(request: &'a PeerRequest, key: &str) -> &'a str {
    request.body[key].as_str().unwrap_or_default()
}

/// Whom each service's first request is for, and what it shows of its settings, each of which is named by itself here.
/// What a signature is made with is not shown, and `…` stands for other words.
const FIRST_REQUESTS: &str = "\
alidns alidns.the-region.aliyuncs.com: authorization: ACS3-HMAC-SHA256 Credential=the-access-key … x-acs-security-token: the-security-token
arvancloud napi.arvancloud.ir: authorization: the-api-key
autodns api.autodns.com: authorization: Basic the-username:the-password
azuredns login.microsoftonline.com: the-tenant-id … client_id=the-client-id … client_secret=the-client-secret
baiducloud dns.baidubce.com: the-access-key
bluecatv2 bluecatv2.test: username:the-username … password:the-password
bunny api.bunny.net: accesskey: the-api-key
cloudflare api.cloudflare.com: authorization: Bearer the-api-token
cloudns api.cloudns.net: auth-id=the-auth-id … auth-password=the-auth-password
constellix api.dns.constellix.com: x-cns-security-token: the-api-key
cpanel cpanel.test: authorization: cpanel the-username:the-token
ddnss ddnss.de: key=the-key
desec desec.io: authorization: Token the-auth-token
digitalocean api.digitalocean.com: authorization: Bearer the-auth-token
dnsimple api.dnsimple.com: the-account-id … authorization: Bearer the-auth-token
dnsmadeeasy api.dnsmadeeasy.com: x-dnsme-apikey: the-api-key
domeneshop api.domeneshop.no: authorization: Basic the-api-token:the-api-secret
dreamhost api.dreamhost.com: key=the-api-key
duckdns www.duckdns.org: token=the-token
dynu api.dynu.com: api-key: the-api-key
easydns rest.easydns.net: authorization: Basic the-token:the-key
edgedns edgedns.test: authorization: EG1-HMAC-SHA256 client_token=the-client-token … access_token=the-access-token … x-accountswitchkey: the-account-switch-key
exoscale api-ch-gva-2.exoscale.com: authorization: EXO2-HMAC-SHA256 credential=the-api-key
freemyip freemyip.com: token=the-token
gandiv5 api.gandi.net: authorization: Bearer the-personal-access-token
gcore api.gcore.com: authorization: APIKey the-api-token
glesys api.glesys.com: authorization: Basic the-api-user:the-api-key
godaddy api.godaddy.com: authorization: sso-key the-api-key:the-api-secret
google-cloud-dns oauth2.googleapis.com: 
hetzner api.hetzner.cloud: authorization: Bearer the-api-token
hostingde secure.hosting.de: authToken:the-api-key
hostinger developers.hostinger.com: authorization: Bearer the-api-token
huaweicloud dns.the-region.myhuaweicloud.com: authorization: SDK-HMAC-SHA256 Access=the-access-key
hurricane dyn.dns.he.net: password=the-passwords
ibmcloud api.softlayer.com: authorization: Basic the-username:the-api-key
infoblox infoblox.test: vthe-wapi-version … view=the-dns-view … authorization: Basic the-username:the-password
infomaniak api.infomaniak.com: authorization: Bearer the-access-token
inwx api.domrobot.com: pass:the-password … user:the-username
ionos api.hosting.ionos.com: x-api-key: the-api-key
ipv64 ipv64.net: authorization: Bearer the-api-key
joker dmapi.joker.com: api-key=the-api-key
lightsail lightsail.the-region.amazonaws.com: authorization: AWS4-HMAC-SHA256 Credential=the-access-key-id … the-region … x-amz-security-token: the-session-token … domainName:the-domain
linode api.linode.com: authorization: Bearer the-auth-token
luadns api.luadns.com: authorization: Basic the-api-username:the-api-token
mythicbeasts auth.mythic-beasts.com: authorization: Basic the-username:the-password
namecheap api.namecheap.com: ApiUser=the-api-user … ApiKey=the-api-key … UserName=the-username … ClientIp=the-client-ip
namedotcom api.name.com: authorization: Basic the-username:the-api-token
namesilo www.namesilo.com: key=the-api-key
netcup ccp.netcup.net: customernumber:the-customer-number … apikey:the-api-key … apipassword:the-api-password
netlify api.netlify.com: authorization: Bearer the-access-token
nifcloud dns.api.nifcloud.com: x-nifty-authorization: NIFTY3-HTTPS NiftyAccessKeyId=the-access-key
ns1 api.nsone.net: x-nsone-key: the-api-key
oraclecloud dns.the-region.oraclecloud.com: compartmentId=the-compartment-ocid … keyId=the-tenancy-ocid … the-user-ocid … the-fingerprint
ovh eu.api.ovh.com: x-ovh-application: the-application-key … x-ovh-consumer: the-consumer-key
pdns pdns.test: the-server-name … x-api-key: the-api-key
plesk plesk.test: x-api-key: the-api-key
porkbun api.porkbun.com: secretapikey:the-secret-api-key … apikey:the-api-key
route53 route53.test: the-hosted-zone-id … x-amz-security-token: the-session-token … authorization: AWS4-HMAC-SHA256 Credential=the-access-key-id … the-region
safedns api.ukfast.io: authorization: the-auth-token
scaleway api.scaleway.com: x-auth-token: the-api-token
selectel cloud.api.selcloud.ru: name:the-username … name:the-account-id … password:the-password … id:the-project-id
simplycom api.simply.com: authorization: Basic the-account-name:the-api-key
spaceship spaceship.dev: x-api-key: the-api-key … x-api-secret: the-api-secret
tencentcloud dnspod.tencentcloudapi.com: authorization: TC3-HMAC-SHA256 Credential=the-secret-id … x-tc-region: the-region … x-tc-token: the-session-token
transip api.transip.nl: login:the-login
ultradns ultradns.test: username=the-username … password=the-password
vercel api.vercel.com: teamId=the-team-id … authorization: Bearer the-auth-token
volcengine volcengine.test: authorization: HMAC-SHA256 Credential=the-access-key … the-region
vultr api.vultr.com: authorization: Bearer the-api-key
websupport rest.websupport.sk: authorization: Basic the-api-key
yandexcloud iam.api.cloud.yandex.net: 
zoneeu api.zone.eu: authorization: Basic the-username:the-api-key";

/// An installation in which each service is asked for a record.
struct Everybody {
    zones: Zones,
    rsa_key: String,
    config: String,
}

impl Everybody {
    fn new() -> Self {
        let zones = Zones::new(&[("a.test", ""), ("duckdns.org", ""), ("freemyip.com", "")]);
        let rsa_key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048);
        let mut everybody = Self {
            rsa_key: rsa_key.expect("a key can be made").serialize_pem(),
            config: zones.pebble.settings(),
            zones,
        };
        DnsService::ALL
            .iter()
            .for_each(|service| everybody.configure(service));
        everybody.zones.environment.write_config(&everybody.config);
        everybody
    }

    /// Each service has an authority of its own: the same Pebble under another URL.
    fn configure(&mut self, service: &DnsService) {
        let name = service.name;
        let pebble = &self.zones.pebble;
        let authority = pebble
            .settings()
            .replace("[acme]", &format!("[authority.{name}]"));
        let authority = authority.replace(&pebble.directory(), &format!("{}?{name}", pebble.directory()));
        self.config += &format!("{authority}resolvers = [\"{}\"]\n", pebble.dns());
        self.config += &format!("[authority.{name}.dns.{name}]\n");
        for setting in said_settings(service) {
            let value = self.example(service, setting);
            let value = match setting.kind {
                SettingKind::Number => value,
                SettingKind::Secret => {
                    let file = format!("{name}-{}", setting.name);
                    format!("{:?}", self.zones.environment.secret(&file, &value))
                }
                _ => format!("{value:?}"),
            };
            self.config += &format!("{} = {value}\n", setting.name);
        }
    }

    fn declare(&self, service: &DnsService) {
        let host = match service.name {
            // They know no other domain.
            "duckdns" => "a.duckdns.org".to_owned(),
            "freemyip" => "a.freemyip.com".to_owned(),
            name => format!("{name}.a.test"),
        };
        let more = format!("provider = {:?}\nchallenge = \"dns-01\"\n", service.name);
        self.zones.environment.declare(&[&host], &more);
    }

    /// The name of the setting, where that will do.
    fn example(&self, service: &DnsService, setting: &Setting) -> String {
        let rsa_key = &self.rsa_key;
        match (service.name, setting.name) {
            (_, "private-key") => rsa_key.clone(),
            ("hurricane", _) => json!({ "a.test": marked(setting.name) }).to_string(),
            ("google-cloud-dns", "service-account") => {
                let token_uri = "https://oauth2.googleapis.com/token";
                json!({ "client_email": "a", "private_key": rsa_key, "token_uri": token_uri }).to_string()
            }
            ("yandexcloud", "service-account-key") => {
                json!({ "id": "a", "service_account_id": "a", "private_key": rsa_key }).to_string()
            }
            (_, "host") => format!("{}.test", service.name),
            _ => match setting.kind {
                SettingKind::Choice(words) => words[0].to_owned(),
                SettingKind::Number => "443".to_owned(),
                _ if setting.name.ends_with("url") || setting.name == "endpoint" => {
                    format!("https://{}.test", service.name)
                }
                _ => marked(setting.name),
            },
        }
    }
}

/// Those that do not exclude each other, without flags.
fn said_settings(service: &DnsService) -> impl Iterator<Item = &Setting> {
    let first = service.settings[0].name;
    let settings = service.settings.iter();
    settings
        .filter(move |setting| setting.need != Need::InsteadOf(first) && setting.kind != SettingKind::Flag)
}

/// What nothing else in a request looks like.
fn marked(name: &str) -> String {
    format!("the-{name}")
}

/// A line of [`FIRST_REQUESTS`].
fn describe(service: &DnsService, request: &PeerRequest) -> String {
    let mut shown = shown_parts(service, &request.path, "/?&");
    for header in &request.headers {
        let header = decode_basic(header);
        if !header.starts_with("host:") {
            shown.extend(shown_parts(service, &header, ",;/"));
        }
    }
    shown.extend(shown_parts(service, &request.text, "&,{}"));
    format!("{} {}: {}", service.name, host_of(request), shown.join(" … "))
}

/// The parts that show settings, without what stands behind the last of them.
fn shown_parts(service: &DnsService, text: &str, separators: &str) -> Vec<String> {
    let parts = text.split(|character| separators.contains(character));
    let shown = parts.filter_map(|part| {
        let names = service.settings.iter().map(|setting| marked(setting.name));
        let ends = names.filter_map(|name| Some(part.rfind(&name)? + name.len()));
        Some(part[..ends.max()?].trim().replace('"', ""))
    });
    shown.collect()
}

/// The name and the password of basic authentication (RFC 7617).
fn decode_basic(header: &str) -> String {
    let decoded = header.split_once(" Basic ").and_then(|(name, encoded)| {
        let pair = BASE64.decode(encoded.as_bytes()).ok()?;
        Some(format!("{name} Basic {}", String::from_utf8(pair).ok()?))
    });
    decoded.unwrap_or_else(|| header.to_owned())
}

fn host_of(request: &PeerRequest) -> &str {
    let mut hosts = request
        .headers
        .iter()
        .filter_map(|header| header.strip_prefix("host: "));
    hosts.next().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_is_asked_at_its_own_address_and_shown_who_we_are_as_it_wants_it() {
    let requests: Arc<Mutex<Vec<PeerRequest>>> = Arc::default();
    let internet = Internet::start({
        let requests = requests.clone();
        move |request| {
            requests.lock().unwrap().push(request.clone());
            PeerAnswer(401, "{}".to_owned())
        }
    })
    .await;
    let everybody = Everybody::new();
    // A few at a time: a pass must end before a test gives it up.
    for services in DnsService::ALL.chunks(12) {
        services.iter().for_each(|service| everybody.declare(service));
        internet.pass(&everybody.zones.environment, &internet.root());
    }
    let requests = requests.lock().unwrap();
    let lines = FIRST_REQUESTS.lines().zip(DnsService::ALL);
    for (expected, service) in lines {
        let host = expected.split([' ', ':']).nth(1).unwrap_or_default();
        let first = requests.iter().find(|request| host_of(request) == host);
        let described = first.map(|request| describe(service, request));
        assert_eq!(described.as_deref(), Some(expected));
    }
    assert_eq!(FIRST_REQUESTS.lines().count(), DnsService::ALL.len());
}
