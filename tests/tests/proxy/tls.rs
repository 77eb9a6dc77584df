//! Handshakes: who gets one, with what, and how fast the others are gone.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use fairlead_contract::{Host, write_atomically};
use fairlead_tests::{Proxy, Site, Upstream, body, get, route, within};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, HandshakeKind, NamedGroup, ProtocolVersion};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_name_nobody_declared_gets_the_alert_that_openssl_shows() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    for version in ["-tls1_2", "-tls1_3"] {
        for name in [
            &["-servername", "b.test"][..],
            &["-noservername"],
            &["-servername", "127.0.0.1"],
        ] {
            let output = s_client(proxy.https(), &[&[version], name].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                said.contains("SSL alert number 112"),
                "{version} {name:?}: {said}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_nobody_declared_gets_the_alert_that_curl_shows() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let output = curl(&site, &proxy, "b.test");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(35), "{said}");
    assert!(said.contains("unrecognized name"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_a_declared_site_over_http_2() {
    let site = Site::of("a.test", Upstream::saying("hello from a").await.address());
    let output = curl(&site, &site.start(), "a.test");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "hello from a 2",
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_name_without_a_certificate_gets_the_alert() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    site.environment
        .write_routes("b.toml", &route(&["b.test"], &[upstream.address()]));
    let proxy = site.start();
    assert_eq!(
        alert(&site, &proxy, "b.test").await,
        AlertDescription::UnrecognisedName
    );
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_alone_declares_nothing() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    site.certify(&["b.test"]);
    assert_eq!(
        alert(&site, &site.start(), "b.test").await,
        AlertDescription::UnrecognisedName
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_compared_without_case() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    assert_eq!(
        site.client().get(&site.start(), "https://A.TEST/").await.status(),
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exact_certificate_is_chosen_before_the_wildcard() {
    let upstream = Upstream::saying("a").await;
    let site = Site::new();
    site.serve(&["*.w.test"], &[upstream.address()]);
    site.serve(&["x.w.test"], &[upstream.address()]);
    let exact = site.authority.issue(&["x.w.test"]);
    site.environment.store("x.w.test", &exact);
    let proxy = site.start();
    let stream = site
        .client()
        .connect(proxy.https(), "x.w.test", &[])
        .await
        .unwrap();
    let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(leaf, exact.leaf());
    site.client()
        .connect(proxy.https(), "y.w.test", &[])
        .await
        .unwrap();
    assert_eq!(
        alert(&site, &proxy, "z.y.w.test").await,
        AlertDescription::UnrecognisedName
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocol_is_the_one_agreed_on() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = site
            .client()
            .connect(proxy.https(), "a.test", offered)
            .await
            .unwrap();
        assert_eq!(
            stream.get_ref().1.alpn_protocol(),
            agreed.map(str::as_bytes),
            "{offered:?}"
        );
    }
    let error = site
        .client()
        .connect(proxy.https(), "a.test", &["spdy/1"])
        .await
        .unwrap_err();
    assert_eq!(received_alert(&error), AlertDescription::NoApplicationProtocol);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validation_is_answered_while_its_challenge_is_open_and_without_a_reload() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let file = |host| {
        let host = Host::parse(host).unwrap();
        site.environment.paths().alpn_challenge_file(&host)
    };
    let validate = async |host| site.client().connect(proxy.https(), host, &["acme-tls/1"]).await;
    for host in ["a.test", "new.test"] {
        let error = validate(host).await.unwrap_err();
        assert_eq!(
            received_alert(&error),
            AlertDescription::UnrecognisedName,
            "{host}"
        );

        let answer = site.authority.issue(&[host]);
        let pem = format!("{}{}", answer.chain, answer.key);
        write_atomically(&file(host), pem.as_bytes(), 0o640).unwrap();
        let mut stream = validate(host).await.unwrap();
        let connection = stream.get_ref().1;
        assert_eq!(connection.peer_certificates().unwrap()[0], answer.leaf());
        assert_eq!(connection.alpn_protocol(), Some(&b"acme-tls/1"[..]));
        assert_eq!(
            within(stream.read(&mut [0])).await.unwrap(),
            0,
            "there is more to say"
        );

        // A validator offers its protocol alone; whoever offers others too wants the site.
        let site_too = &["acme-tls/1", "h2"];
        let connected = site.client().connect(proxy.https(), host, site_too).await;
        let is_site = connected.is_ok_and(|stream| stream.get_ref().1.alpn_protocol() == Some(b"h2"));
        assert_eq!(is_site, host == "a.test");

        std::fs::remove_file(file(host)).unwrap();
        let error = validate(host).await.unwrap_err();
        assert_eq!(
            received_alert(&error),
            AlertDescription::UnrecognisedName,
            "{host}"
        );
    }
    write_atomically(&file("a.test"), b"garbage", 0o640).unwrap();
    let error = validate("a.test").await.unwrap_err();
    assert_eq!(received_alert(&error), AlertDescription::UnrecognisedName);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_1_3_are_spoken() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    for (version, spoken) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let client = site.authority.client_with(&[version]);
        let stream = client.connect(proxy.https(), "a.test", &["h2"]).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(spoken));
        assert_eq!(client.get(&proxy, "https://a.test/").await.body(), "a");
    }
}

/// RFC 8446 appendix D.2. Such a client offers no signature algorithms either.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_before_tls_1_2_hears_that_it_is_too_old() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    for version in ["-tls1", "-tls1_1"] {
        let old = [version, "-cipher", "DEFAULT@SECLEVEL=0", "-servername", "a.test"];
        let said = s_client(proxy.https(), &old).stderr;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("alert protocol version"), "{version}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_exchange_resists_quantum_computers() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let stream = site.client().connect(proxy.https(), "a.test", &[]).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[tokio::test(flavor = "multi_thread")]
async fn aes_128_is_spoken_with_whoever_can_unless_chacha20_is_asked_for_first() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    for (version, list, [aes_128, aes_256, chacha20]) in [
        (
            "-tls1_2",
            "-cipher",
            [
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
            ],
        ),
        (
            "-tls1_3",
            "-ciphersuites",
            [
                "TLS_AES_128_GCM_SHA256",
                "TLS_AES_256_GCM_SHA384",
                "TLS_CHACHA20_POLY1305_SHA256",
            ],
        ),
    ] {
        for (offered, spoken) in [
            (&[aes_256, chacha20, aes_128][..], aes_128),
            (&[chacha20, aes_128], chacha20),
            (&[aes_256, chacha20], aes_256),
        ] {
            let arguments = [version, list, &offered.join(":"), "-servername", "a.test"];
            let said = s_client(proxy.https(), &arguments);
            let said = String::from_utf8_lossy(&said.stdout);
            assert!(
                said.contains(&format!("Cipher is {spoken}")),
                "{offered:?}: {said}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_resumes_its_session() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    for version in [&TLS12, &TLS13] {
        let client = site.authority.client_with(&[version]);
        client.get(&proxy, "https://a.test/").await;
        let stream = client
            .connect(proxy.https(), "a.test", &["http/1.1"])
            .await
            .unwrap();
        assert_eq!(
            stream.get_ref().1.handshake_kind(),
            Some(HandshakeKind::Resumed),
            "{version:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_connection_gives_one_ticket_for_the_next() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let client = site.authority.client_with(&[&TLS13]);
    for expected in [
        HandshakeKind::Full,
        HandshakeKind::Resumed,
        HandshakeKind::Resumed,
    ] {
        let connected = client.connect(proxy.https(), "a.test", &["http/1.1"]).await;
        let mut stream = connected.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        within(stream.write_all(request)).await.unwrap();
        within(stream.read_to_end(&mut Vec::new())).await.unwrap();
        let (_, tls) = stream.get_ref();
        assert_eq!(
            (tls.handshake_kind(), tls.tls13_tickets_received()),
            (Some(expected), 1)
        );
    }
}

/// Were it resumed, the client would take one site's certificate for the other's.
#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_one_name_does_not_resume_under_another() {
    let upstream = Upstream::saying("a").await;
    let site = Site::new();
    // Of one certificate, and of another one.
    site.serve(&["a.test", "other.a.test"], &[upstream.address()]);
    site.serve(&["b.test"], &[upstream.address()]);
    let proxy = site.start();
    for version in [&TLS12, &TLS13] {
        for other in ["other.a.test", "b.test"] {
            let client = site.authority.client_with(&[version]).configured(|tls| {
                tls.resumption = Resumption::store(Arc::new(OneDrawer::default()));
            });
            client.get(&proxy, "https://a.test/").await;
            let stream = client.connect(proxy.https(), other, &["http/1.1"]).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            assert_ne!(kind, Some(HandshakeKind::Resumed), "{version:?} {other}");
            let again = client.get(&proxy, &format!("https://{other}/")).await;
            assert_eq!(again.body(), "a");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_reload_that_leaves_its_certificate() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    for version in [&TLS12, &TLS13] {
        let client = site.authority.client_with(&[version]);
        client.get(&proxy, "https://a.test/").await;
        site.serve(&["b.test"], &[upstream.address()]);
        proxy.reload();
        let stream = client
            .connect(proxy.https(), "a.test", &["http/1.1"])
            .await
            .unwrap();
        assert_eq!(
            stream.get_ref().1.handshake_kind(),
            Some(HandshakeKind::Resumed),
            "{version:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_finish_its_hello_is_dropped() {
    let site = impatient(Upstream::saying("a").await.address());
    let proxy = site.start();
    // The second is the start of a handshake record of 512 bytes.
    for sent in [&b""[..], &[0x16, 3, 1, 2, 0, 1]] {
        let mut stream = TcpStream::connect(proxy.https()).await.unwrap();
        stream.write_all(sent).await.unwrap();
        assert_ended(&mut stream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_silent_after_the_handshake_is_dropped() {
    let site = impatient(Upstream::saying("a").await.address());
    let proxy = site.start();
    for (alpn, sent) in [
        ("http/1.1", ""),
        ("http/1.1", "GET / HTTP/1.1\r\nHost: a.t"),
        ("h2", ""),
    ] {
        let mut stream = site
            .client()
            .connect(proxy.https(), "a.test", &[alpn])
            .await
            .unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        assert_ended(&mut stream).await;
    }
}

/// A connection that rests has no answer with which the alert could go out.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_wants_to_renegotiate_hears_that_there_is_none() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    site.environment
        .write_config("[proxy]\nheader-timeout = \"1h\"\n");
    let proxy = site.start();
    let mut client = Command::new("timeout")
        .args(["30", "openssl", "s_client"])
        .args(["-tls1_2", "-servername", "a.test", "-connect"])
        .arg(proxy.https().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is needed: apt install openssl");
    // Its own letter for that. At the end of its input it would leave.
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"R\n").unwrap();
    let output = client.wait_with_output().unwrap();
    drop(input);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no renegotiation"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_tls_is_dropped_and_harms_nobody() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    for sent in [
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "\0\0\0\0\0\0\0\0",
        "SSH-2.0-OpenSSH_9.9\r\n",
    ] {
        let mut stream = TcpStream::connect(proxy.https()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        assert_ended(&mut stream).await;
    }
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_share_one_http_2_connection() {
    let site = Site::of("a.test", Upstream::echoing().await.address());
    let proxy = site.start();
    let sender = site.client().h2(&proxy, "a.test").await;
    let requests = (0..50).map(|number| {
        let mut sender = sender.clone();
        async move {
            let response = within(sender.send_request(get(&format!("https://a.test/{number}"))))
                .await
                .unwrap();
            let (text, _) = body::read(response.into_body()).await;
            assert!(text.starts_with(&format!("GET /{number} HTTP/1.1\n")), "{text}");
        }
    });
    futures_util::future::join_all(requests).await;
}

/// A site whose clients may take a second for anything.
fn impatient(upstream: SocketAddr) -> Site {
    let site = Site::of("a.test", upstream);
    site.environment
        .write_config("[proxy]\nheader-timeout = \"1s\"\n");
    site
}

async fn assert_ended(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    // A reset ends it as well as a close does; only waiting in vain would not.
    let _ = within(stream.read_to_end(&mut rest)).await;
}

async fn alert(site: &Site, proxy: &Proxy, sni: &str) -> AlertDescription {
    received_alert(
        &site
            .client()
            .connect(proxy.https(), sni, &["h2"])
            .await
            .unwrap_err(),
    )
}

fn received_alert(error: &std::io::Error) -> AlertDescription {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert, but {error}"),
    }
}

fn s_client(address: SocketAddr, arguments: &[&str]) -> Output {
    Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is needed: apt install openssl")
}

/// The body and the HTTP version.
fn curl(site: &Site, proxy: &Proxy, host: &str) -> Output {
    let root = site.environment.root().join("root.pem");
    write_atomically(&root, site.authority.root().as_bytes(), 0o644).unwrap();
    let port = proxy.https().port();
    Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30"])
        .args(["--write-out", " %{http_version}", "--cacert"])
        .arg(root)
        .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
        .arg(format!("https://{host}:{port}/"))
        .output()
        .expect("curl is needed: apt install curl")
}

/// A session store that does not look at the name: it offers the tickets of any site to every other.
#[derive(Debug)]
struct OneDrawer(ClientSessionMemoryCache);

impl Default for OneDrawer {
    fn default() -> Self {
        Self(ClientSessionMemoryCache::new(8))
    }
}

impl ClientSessionStore for OneDrawer {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(drawer(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&drawer())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(drawer(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&drawer())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&drawer());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(drawer(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&drawer())
    }
}

fn drawer() -> ServerName<'static> {
    ServerName::try_from("drawer.test").unwrap()
}
