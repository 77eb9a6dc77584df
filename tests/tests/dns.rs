//! DNS-01 against a real Pebble: each way a record gets into the DNS, and where it is put.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use data_encoding::HEXLOWER;

use fairlead_contract::{HostPattern, Ledger, write_atomically};
use fairlead_tests::{
    Authority, Environment, Finished, Named, Pair, Pebble, PebbleSettings, Peer, PeerAnswer, PeerRequest,
    Program, Transport, Upstream, route,
};
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Nobody answers there: neither HTTP-01 nor TLS-ALPN-01 could succeed.
fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

fn configure(environment: &Environment, pebble: &Pebble, dns: &str) {
    let text = format!(
        "{}challenge = \"dns-01\"\nresolvers = [\"{}\"]\n[acme.dns]\n{dns}",
        pebble.settings(),
        pebble.dns()
    );
    environment.write_config(&text);
}

fn declare(environment: &Environment, hosts: &[&str]) {
    environment.write_routes(&format!("{}.toml", hosts[0]), &route(hosts, &[nowhere()]));
}

fn pass(environment: &Environment) -> Finished {
    let finished = environment.run(Program::Certs, &[]);
    assert!(finished.status.success(), "{}", finished.stderr);
    finished
}

fn failing_pass(environment: &Environment, name: &str) -> String {
    let finished = environment.run(Program::Certs, &[]);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    ledger(environment, name)
        .failure
        .expect("a failure is remembered")
        .error
}

fn ledger(environment: &Environment, name: &str) -> Ledger {
    let name = HostPattern::parse(name).expect("a certificate is named after a host");
    let path = environment.paths().certificate(&name).ledger_file();
    let bytes = fs::read(&path).expect("there is a ledger");
    Ledger::parse(&path, &bytes).expect("the ledger can be understood")
}

fn secret(environment: &Environment, name: &str, text: &str) -> PathBuf {
    let path = environment.root().join(name);
    write_atomically(&path, text.as_bytes(), 0o600).expect("a secret can be written");
    path
}

fn bind(environment: &Environment, zones: &[(&str, &str)], open: &[&str]) -> (Named, Pebble) {
    let named = Named::start(zones, open);
    let mut settings = PebbleSettings::new(nowhere());
    settings.dns = Some(named.address());
    let pebble = Pebble::start(settings);
    let key = secret(environment, "key", Named::key());
    let dns = format!(
        "propagation-timeout = \"2s\"\n[acme.dns.rfc2136]\nserver = \"{}\"\nkey-name = \"fairlead\"\nkey = {key:?}\n",
        named.address().ip()
    );
    configure(environment, &pebble, &dns);
    (named, pebble)
}

#[test]
fn bind_takes_the_records_of_a_wildcard_and_its_parent_and_gives_them_back() {
    let environment = Environment::new();
    let keep = "_acme-challenge TXT \"somebody else's\"";
    let (named, pebble) = bind(&environment, &[("a.test", keep)], &["a.test"]);
    declare(&environment, &["*.a.test", "a.test", "b.sub.a.test"]);
    pass(&environment);
    let names = ledger(&environment, "*.a.test").names.len();
    assert_eq!((names, pebble.orders()), (3, 1));
    assert_eq!(named.texts("_acme-challenge.a.test"), "\"somebody else's\"\n");
    assert_eq!(named.texts("_acme-challenge.b.sub.a.test"), "");
}

#[test]
fn a_delegated_challenge_is_answered_where_the_aliases_lead() {
    let environment = Environment::new();
    let alias = "_acme-challenge CNAME hop.alias.test.";
    let hop = "hop CNAME b.deep.alias.test.";
    let (_named, _pebble) = bind(
        &environment,
        &[("b.test", alias), ("alias.test", hop)],
        &["alias.test"],
    );
    declare(&environment, &["b.test"]);
    pass(&environment);
}

#[test]
fn a_zone_that_refuses_the_key_says_so() {
    let environment = Environment::new();
    let (_named, pebble) = bind(&environment, &[("c.test", "")], &[]);
    declare(&environment, &["c.test"]);
    let error = failing_pass(&environment, "c.test");
    assert!(
        error.contains("refused to change the zone c.test.: Query Refused (does its policy let this key"),
        "{error}"
    );
    // Nothing was wrong with the order.
    assert!(environment.pending_file("c.test", &pebble.directory()).exists());
    assert_eq!(pebble.orders(), 1);
}

#[test]
fn a_server_of_the_zone_that_does_not_get_the_record_is_named_and_the_authority_not_bothered() {
    let environment = Environment::new();
    let silent = "@ NS silent\nsilent A 127.0.0.1";
    let (_named, _pebble) = bind(&environment, &[("d.test", silent)], &["d.test"]);
    declare(&environment, &["d.test"]);
    let error = failing_pass(&environment, "d.test");
    assert!(
        error.contains(
            "the record at _acme-challenge.d.test. was not seen at 127.0.0.1 within 2 seconds (propagation-timeout"
        ),
        "{error}"
    );
}

#[test]
fn a_program_of_the_operators_is_called_and_its_complaint_passed_on() {
    let environment = Environment::new();
    let pebble = Pebble::start(PebbleSettings::new(nowhere()));
    let (hook, log) = (environment.root().join("hook"), environment.root().join("log"));
    let script = format!(
        "#!/bin/sh\nset -eu\necho \"$*\" >>{}\ncase $3 in (_acme-challenge.bad.*) echo no such zone >&2; exit 3;; esac\n\
         [ \"$2\" = cleanup ] || curl -sf --data \"{{\\\"host\\\": \\\"$3\\\", \\\"value\\\": \\\"$4\\\"}}\" {}/set-txt\n",
        log.display(),
        pebble.records().url()
    );
    write_atomically(&hook, script.as_bytes(), 0o755).unwrap();
    let dns = format!("propagation-delay = \"1ms\"\n[acme.dns.exec]\ncommand = [{hook:?}, \"first\"]\n");
    configure(&environment, &pebble, &dns);
    declare(&environment, &["*.a.test"]);
    pass(&environment);
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<_> = log.lines().map(|line| line.rsplit_once(' ').unwrap()).collect();
    assert_eq!(lines[0].0, "first present _acme-challenge.a.test.");
    assert_eq!(lines[1], ("first cleanup _acme-challenge.a.test.", lines[0].1));

    declare(&environment, &["bad.test"]);
    let error = failing_pass(&environment, "bad.test");
    assert!(
        error.contains("first failed: exit status: 3: no such zone"),
        "{error}"
    );
}

#[test]
fn an_httpreq_peer_is_asked_with_its_password() {
    let environment = Environment::new();
    let pebble = Pebble::start(PebbleSettings::new(nowhere()));
    let (seen, records) = (Arc::new(Mutex::new(Vec::new())), pebble.records());
    let peer = Peer::start({
        let seen = seen.clone();
        move |request| {
            seen.lock().unwrap().push(request.clone());
            if request.path == "/hook/present" {
                records.set_text(text(request, "fqdn"), text(request, "value"));
            }
            200
        }
    });
    let password = secret(&environment, "password", "secret\n");
    let dns = format!(
        "propagation-delay = \"1ms\"\n[acme.dns.httpreq]\nendpoint = \"{}/hook\"\nusername = \"me\"\npassword = {password:?}\n",
        peer.url()
    );
    configure(&environment, &pebble, &dns);
    declare(&environment, &["a.test"]);
    pass(&environment);
    let seen = seen.lock().unwrap();
    let paths: Vec<_> = seen.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(paths, ["/hook/present", "/hook/cleanup"]);
    assert_eq!(text(&seen[0], "fqdn"), "_acme-challenge.a.test.");
    assert_eq!(seen[0].body, seen[1].body);
    // "me:secret"
    assert!(
        seen[0]
            .headers
            .contains(&"authorization: Basic bWU6c2VjcmV0".to_owned())
    );
}

#[test]
fn an_acme_dns_account_answers_for_the_name_that_is_delegated_to_it() {
    let environment = Environment::new();
    let pebble = Pebble::start(PebbleSettings::new(nowhere()));
    let records = pebble.records();
    records.set_alias("_acme-challenge.a.test.", "d420.auth.test.");
    records.set_alias("_acme-challenge.b.test.", "unknown.auth.test.");
    let peer = Peer::start(move |request| {
        let allowed = ["x-api-user: user", "x-api-key: secret"];
        let is_user = allowed
            .iter()
            .all(|header| request.headers.contains(&(*header).to_owned()));
        if !is_user || request.path != "/update" || text(request, "subdomain") != "d420" {
            return 401;
        }
        records.set_text("d420.auth.test.", text(request, "txt"));
        200
    });
    let account = |password: &str| {
        format!(
            r#"{{"a.test": {{"username": "user", "password": "{password}", "fulldomain": "d420.auth.test",
                "subdomain": "d420", "allowfrom": []}}}}"#
        )
    };
    let accounts = secret(&environment, "accounts", &account("wrong"));
    let dns = format!(
        "propagation-delay = \"1ms\"\n[acme.dns.acme-dns]\nserver = \"{}\"\naccounts = {accounts:?}\n",
        peer.url()
    );
    configure(&environment, &pebble, &dns);
    declare(&environment, &["a.test"]);
    let error = failing_pass(&environment, "a.test");
    assert!(
        error.contains("/update cannot be called: it answered 401"),
        "{error}"
    );

    // Other names are another matter, and do not wait.
    secret(&environment, "accounts", &account("secret"));
    declare(&environment, &["a.test", "*.a.test"]);
    pass(&environment);
    declare(&environment, &["b.test"]);
    let error = failing_pass(&environment, "b.test");
    assert!(
        error.contains("the account for unknown.auth.test. is not among"),
        "{error}"
    );
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
    let environment = Environment::new();
    let alias = "_acme-challenge CNAME deep.alias.test.\n_acme-challenge.b.sub CNAME deep.alias.test.";
    let keep = "deep TXT \"somebody else's\"";
    let zones = [("a.test", alias), ("alias.test", keep)];
    let named = Arc::new(Named::start(&zones, &["alias.test"]));
    let mut settings = PebbleSettings::new(nowhere());
    settings.dns = Some(named.address());
    let pebble = Pebble::start(settings);
    let peer = Peer::start({
        let named = named.clone();
        move |request| answer_as_powerdns(&named, request)
    });
    let key = secret(&environment, "key", "wrong\n");
    let dns = format!(
        "propagation-timeout = \"2s\"\n[acme.dns.pdns]\napi-key = {key:?}\nendpoint = \"{}\"\n",
        peer.url()
    );
    configure(&environment, &pebble, &dns);
    declare(&environment, &["*.a.test", "a.test"]);
    let error = failing_pass(&environment, "*.a.test");
    assert!(
        error.contains("the DNS could not be changed: pdns: Unauthorized"),
        "{error}"
    );

    secret(&environment, "key", "secret\n");
    declare(&environment, &["*.a.test", "a.test", "b.sub.a.test"]);
    pass(&environment);
    assert_eq!(ledger(&environment, "*.a.test").names.len(), 3);
    assert_eq!(named.texts("deep.alias.test"), "\"somebody else's\"\n");
}

/// The services at their own addresses, as far as this test's programs are led there: what `answer` says over TLS, in
/// the name of a host that the authority vouches for.
struct Internet {
    proxy: SocketAddr,
}

impl Internet {
    async fn start(
        pair: Pair,
        answer: impl Fn(&PeerRequest) -> PeerAnswer + Clone + Send + Sync + 'static,
    ) -> Self {
        let server = Upstream::speaking(Transport::Tls(pair), move |request| {
            let answer = answer.clone();
            async move {
                let PeerAnswer(status, body) = answer(&read(request).await);
                let response = Response::builder().status(status);
                let body = Full::new(Bytes::from(body))
                    .map_err(|never| match never {})
                    .boxed();
                response.body(body).expect("an answer can be made")
            }
        });
        let server = server.await.address();
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback has a free port");
        let proxy = listener.local_addr().expect("a bound socket has an address");
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(tunnel(client, server));
            }
        });
        Self { proxy }
    }

    /// A pass whose way out leads here.
    fn pass(&self, environment: &Environment, trusted: &Path) -> Finished {
        let mut command = environment.command(Program::Certs);
        command.env("HTTPS_PROXY", format!("http://{}", self.proxy));
        command.env("SSL_CERT_FILE", trusted);
        environment.start(command).finish()
    }
}

/// Answers one CONNECT (RFC 9110 9.3.6), wherever it wants to go.
async fn tunnel(mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

async fn read(request: Request<Incoming>) -> PeerRequest {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let shown = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    PeerRequest {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers.iter().map(shown).collect(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
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
    let environment = Environment::new();
    let keep = "_acme-challenge TXT \"somebody else's\"";
    let (named, _pebble) = bind(&environment, &[("a.test", keep)], &["a.test"]);
    let (named, authority) = (Arc::new(named), Authority::new());
    let internet = Internet::start(authority.issue(&["api.cloudflare.com"]), {
        let named = named.clone();
        move |request| answer_as_cloudflare(&named, request)
    });
    let internet = internet.await;
    let token = secret(&environment, "token", "secret\n");
    let text = fs::read_to_string(environment.paths().config_file()).unwrap();
    let (before, _) = text.split_once("[acme.dns.rfc2136]").unwrap();
    environment.write_config(&format!("{before}[acme.dns.cloudflare]\napi-token = {token:?}\n"));
    let trust = |name: &str, authority: &Authority| secret(&environment, name, &authority.root());
    declare(&environment, &["*.a.test", "a.test"]);
    internet.pass(&environment, &trust("others", &Authority::new()));
    let error = ledger(&environment, "*.a.test").failure.unwrap().error;
    assert!(
        error.contains("cloudflare: API error: Failed to send request"),
        "{error}"
    );

    declare(&environment, &["*.a.test", "a.test", "b.sub.a.test"]);
    let finished = internet.pass(&environment, &trust("trusted", &authority));
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(named.texts("_acme-challenge.a.test"), "\"somebody else's\"\n");
    assert_eq!(named.texts("_acme-challenge.b.sub.a.test"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_keeps_one_value_is_told_of_it_and_of_its_end() {
    let environment = Environment::new();
    let (named, _pebble) = bind(&environment, &[("a.test", "")], &["a.test"]);
    let (named, authority) = (Arc::new(named), Authority::new());
    let told = Arc::new(Mutex::new(Vec::new()));
    let internet = Internet::start(authority.issue(&["www.duckdns.org"]), {
        let (named, told) = (named.clone(), told.clone());
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
    let token = secret(&environment, "token", "secret\n");
    let text = fs::read_to_string(environment.paths().config_file()).unwrap();
    let (before, _) = text.split_once("[acme.dns.rfc2136]").unwrap();
    environment.write_config(&format!("{before}[acme.dns.duckdns]\ntoken = {token:?}\n"));
    declare(&environment, &["a.test"]);
    let finished = internet.pass(&environment, &secret(&environment, "trusted", &authority.root()));
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(*told.lock().unwrap(), [1, 0]);
    assert_eq!(named.texts("_acme-challenge.a.test"), "");
}

#[test]
fn what_a_service_takes_in_its_url_stands_in_no_message() {
    let environment = Environment::new();
    let (_named, _pebble) = bind(&environment, &[("a.test", "")], &["a.test"]);
    // The services have addresses of their own: what leads there must lead here.
    let proxy = Peer::start(|request| match request.path.as_str() {
        "www.duckdns.org:443" => 418,
        _ => 500,
    });
    let token = secret(&environment, "token", "a-b/c\n");
    let text = fs::read_to_string(environment.paths().config_file()).unwrap();
    let (before, _) = text.split_once("[acme.dns.rfc2136]").unwrap();
    environment.write_config(&format!("{before}[acme.dns.duckdns]\ntoken = {token:?}\n"));
    declare(&environment, &["a.test"]);
    let mut command = environment.command(Program::Certs);
    command.env("HTTPS_PROXY", proxy.url());
    let finished = environment.start(command).finish();
    let error = ledger(&environment, "a.test").failure.unwrap().error;
    assert!(
        error.contains("duckdns") && error.contains("token=(secret)"),
        "{error}"
    );
    assert!(!finished.stderr.contains("a-b"), "{}", finished.stderr);
}

#[test]
fn a_secret_that_is_missing_or_open_to_others_is_named() {
    let environment = Environment::new();
    let (_named, pebble) = bind(&environment, &[("a.test", "")], &["a.test"]);
    let key = environment.root().join("key");
    let text = fs::read_to_string(environment.paths().config_file()).unwrap();
    declare(&environment, &["a.test"]);
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let error = failing_pass(&environment, "a.test");
    assert!(error.contains("can be read by others (mode 0644)"), "{error}");

    let by_name = text.replace(&format!("{key:?}"), "\"tsig\"");
    environment.write_config(&by_name);
    for (names, expected) in [
        (
            &["b.a.test"][..],
            "the credential \"tsig\" is not there: give fairlead-certs.service a LoadCredential=",
        ),
        (
            &["c.a.test"],
            "tsig is not there; a secret that fairlead.toml names belongs there",
        ),
    ] {
        declare(&environment, names);
        let mut command = environment.command(Program::Certs);
        if names == ["c.a.test"] {
            command.env("CREDENTIALS_DIRECTORY", environment.root());
        }
        let finished = environment.start(command).finish();
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
    }
    let tsig = environment.root().join("tsig");
    write_atomically(&tsig, Named::key().as_bytes(), 0o400).unwrap();
    declare(&environment, &["d.a.test"]);
    let mut command = environment.command(Program::Certs);
    command.env("CREDENTIALS_DIRECTORY", environment.root());
    environment.start(command).finish();
    assert!(ledger(&environment, "d.a.test").issued.is_some());
    drop(pebble);
}

fn text<'a>(request: &'a PeerRequest, key: &str) -> &'a str {
    request.body[key].as_str().unwrap_or_default()
}
