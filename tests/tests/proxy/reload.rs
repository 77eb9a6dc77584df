//! A reload takes everything or nothing, and disturbs nobody.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use fairlead_tests::{Pair, Proxy, Signal, Site, Upstream, Wire, accept, body, get, route, within};
use http::Request;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_all_changes_at_once() {
    let site = Site::of("a.test", Upstream::saying("old").await.address());
    let proxy = site.start();
    site.serve(&["a.test"], &[Upstream::saying("new").await.address()]);
    site.serve(&["b.test"], &[Upstream::saying("b").await.address()]);
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "old");
    let said = proxy.reload();
    assert!(said.contains("2 routes"), "{said}");
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "new");
    assert_eq!(site.client().get(&proxy, "https://b.test/").await.body(), "b");
    fs::remove_file(site.environment.paths().routes_dir().join("a.test.toml")).unwrap();
    proxy.reload();
    assert!(site.client().connect(proxy.https(), "a.test", &[]).await.is_err());
    assert_eq!(proxy.status().reloads, 2);
}

/// As Kubernetes and Nix do it, which replace a whole directory by turning a link.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_follows_a_link_that_was_turned() {
    let site = Site::of("a.test", Upstream::saying("old").await.address());
    let routes = site.environment.paths().routes_dir();
    let version = |name| routes.with_file_name(name);
    let turn_to = |name| {
        symlink(version(name), version("turned")).unwrap();
        fs::rename(version("turned"), &routes).unwrap();
    };
    fs::rename(&routes, version("1")).unwrap();
    turn_to("1");
    let proxy = site.start();
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "old");
    fs::create_dir(version("2")).unwrap();
    turn_to("2");
    site.serve(&["a.test"], &[Upstream::saying("new").await.address()]);
    turn_to("1");
    assert!(!proxy.reload().contains("refused"));
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "old");
    turn_to("2");
    assert!(!proxy.reload().contains("refused"));
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "new");
}

/// A kept connection is not a kept snapshot: its next request meets the new routes.
#[tokio::test(flavor = "multi_thread")]
async fn open_connections_see_the_new_routes() {
    let site = Site::of("a.test", Upstream::saying("old").await.address());
    let proxy = site.start();
    let client = site.client();
    let (mut h1, mut h2) = (
        client.h1(&proxy, "a.test").await,
        client.h2(&proxy, "a.test").await,
    );
    for text in ["old", "new"] {
        let over_h1 = client.send(&mut h1, get("https://a.test/")).await;
        assert_eq!(body::read(over_h1.into_body()).await.0, text);
        let over_h2 = within(h2.send_request(get("https://a.test/"))).await.unwrap();
        assert_eq!(body::read(over_h2.into_body()).await.0, text);
        site.serve_with(&["a.test"], &[Upstream::saying("new").await.address()], "");
        proxy.reload();
    }
}

/// As in a deploy, which takes the old upstreams away while requests are on their way to them.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_a_dead_upstream_goes_to_the_one_of_the_reload() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", Upstream::saying("new").await.address());
    let file = site.environment.paths().routes_dir().join("a.test.toml");
    let after = fs::read_to_string(file).unwrap();
    let secure = format!("https://{}", listener.local_addr().unwrap());
    let before = format!("[[route]]\nhosts = [\"a.test\"]\nupstreams = [\"{secure}\"]\n");
    site.environment.write_routes("a.test.toml", &before);
    let proxy = site.start();
    let post = Request::post("https://a.test/").body(body::full("once")).unwrap();
    let reloading = async {
        let dead = within(listener.accept()).await.unwrap();
        site.environment.write_routes("a.test.toml", &after);
        proxy.reload();
        drop(dead);
    };
    let client = site.client();
    let (response, ()) = tokio::join!(client.fetch(&proxy, post), reloading);
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, "new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_be_repeated_goes_to_the_upstream_of_the_reload_when_its_own_breaks_off() {
    for (method, status) in [("GET", 200), ("POST", 502)] {
        let (response, connections) = breaks_off_after_reload(method, "/", "", "", "").await;
        assert_eq!(
            (response, connections),
            (status, usize::from(status == 200)),
            "{method}"
        );
    }
}

/// Who was admitted under the old rules was not admitted under the new ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_stays_with_its_upstreams_when_more_of_its_route_has_changed() {
    let below = route(&["a.test"], &[super::dead_end().await]) + "path = \"/below\"\n";
    for (before, after, further) in [
        ("", "deny = [\"127.0.0.0/8\"]\n", ""),
        ("path = \"/below\"\n", "path = \"/\"\n", ""),
        ("", "", &below[..]),
    ] {
        let asked = breaks_off_after_reload("GET", "/below/x", before, after, further).await;
        assert_eq!(asked, (502, 0), "{before}{after}{further}");
    }
}

/// The status of a request whose upstream breaks off after a reload in which the route got another one, and the lines
/// `after` for those `before`; and how many connections that one saw.
async fn breaks_off_after_reload(
    method: &str,
    path: &str,
    before: &str,
    after: &str,
    further: &str,
) -> (u16, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let new = Upstream::saying("new").await;
    let site = Site::new();
    site.serve_with(&["a.test"], &[listener.local_addr().unwrap()], before);
    let proxy = site.start();
    let request = Request::builder()
        .method(method)
        .uri(format!("https://a.test{path}"));
    let request = request.body(body::empty()).unwrap();
    let reloading = async {
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        site.serve_with(&["a.test"], &[new.address()], &format!("{after}{further}"));
        let said = proxy.reload();
        assert!(!said.contains("refused"), "{said}");
    };
    let client = site.client();
    let (response, ()) = tokio::join!(client.fetch(&proxy, request), reloading);
    (response.status().as_u16(), new.connections())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reload_keeps_everything_and_says_where_the_fault_is() {
    let site = Site::of("a.test", Upstream::saying("old").await.address());
    let proxy = site.start();
    let loaded = proxy.status().loaded;
    site.serve(&["a.test"], &[Upstream::saying("new").await.address()]);
    let fault = "[[route]]\nhosts = [\"b.test\"]\nupstream = [\"http://127.0.0.1:1\"]\n";
    site.environment.write_routes("b.toml", fault);
    let said = proxy.reload();
    let place = format!(
        "{}:3:1",
        site.environment.paths().routes_dir().join("b.toml").display()
    );
    assert!(said.contains("refused") && said.contains(&place), "{said}");
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "old");
    let status = proxy.status();
    assert_eq!(status.loaded, loaded);
    let problems = &status.standing_refusal().expect("the refusal stands").problems;
    assert!(problems[0].to_string().starts_with(&place), "{problems:?}");
    assert!(
        problems[0].message.contains("did you mean `upstreams`?"),
        "{problems:?}"
    );

    fs::remove_file(site.environment.paths().routes_dir().join("b.toml")).unwrap();
    proxy.reload();
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "new");
    assert_eq!(proxy.status().standing_refusal(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_half_written_or_unreadable_is_not_an_empty_one() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let file = site.environment.paths().routes_dir().join("a.test.toml");
    let whole = fs::read_to_string(&file).unwrap();
    let half = whole[..whole.len() / 2].to_owned();
    for content in [
        Some(half.into_bytes()),
        Some(vec![0xff; 100]),
        Some(vec![0; 100]),
        None,
    ] {
        fs::remove_file(&file).unwrap();
        match &content {
            Some(bytes) => drop(fairlead_contract::write_atomically(&file, bytes, 0o644).unwrap()),
            // Whoever runs the test, nobody can read a directory as a file.
            None => fs::create_dir(&file).unwrap(),
        }
        let said = proxy.reload();
        assert!(said.contains("refused") && said.contains("a.test.toml"), "{said}");
        assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
    }
    fs::remove_dir(&file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_file_takes_its_own_routes_along_until_it_is_back() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    site.serve(&["b.test"], &[Upstream::saying("b").await.address()]);
    site.certify(&["b.test"]);
    let (file, aside) = (
        site.environment.paths().routes_dir().join("b.test.toml"),
        site.environment.root().join("aside"),
    );
    let proxy = site.start();
    fs::rename(&file, &aside).unwrap();
    proxy.reload();
    assert!(site.client().connect(proxy.https(), "b.test", &[]).await.is_err());
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");

    fs::rename(&aside, &file).unwrap();
    proxy.reload();
    for (host, body) in [("a.test", "a"), ("b.test", "b")] {
        let url = format!("https://{host}/");
        assert_eq!(site.client().get(&proxy, &url).await.body(), body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_ends_no_site_and_one_that_was_emptied_does() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let paths = site.environment.paths();
    let (routes, certificates) = (paths.routes_dir(), paths.certificates_dir());
    let aside = site.environment.root().join("aside");
    let proxy = site.start();
    for directory in [&routes, &certificates] {
        fs::rename(directory, &aside).unwrap();
        let said = proxy.reload();
        assert!(
            said.contains("refused") && said.contains(directory.to_str().unwrap()),
            "{said}"
        );
        assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
        fs::rename(&aside, directory).unwrap();
        let said = proxy.reload();
        assert!(!said.contains("refused"), "{said}");
    }
    fs::rename(&routes, &aside).unwrap();
    fs::create_dir(&routes).unwrap();
    proxy.reload();
    assert_eq!(proxy.status().loaded.routes, 0);
    assert!(site.client().connect(proxy.https(), "a.test", &[]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_take_part_in_a_refusal() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    site.serve(&["b.test"], &[Upstream::saying("b").await.address()]);
    site.environment
        .write_config("[proxy]\nheader-timeout = \"soon\"\n");
    assert!(proxy.reload().contains("fairlead.toml:2:"));
    assert!(site.client().connect(proxy.https(), "b.test", &[]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_and_a_download_outlive_the_reload_that_removes_their_route() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    let proxy = site.start();
    let client = site.client();
    let mut h2 = client.h2(&proxy, "a.test").await;
    let (response, mut upload) = tokio::join!(h2.send_request(get("https://a.test/")), async {
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        upstream
            .write("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npart")
            .await;
        upstream
    });
    let mut response = response.unwrap();
    assert_eq!(body::next_data(response.body_mut()).await.unwrap(), "part");
    let mut socket = Wire::new(
        client
            .connect(proxy.https(), "a.test", &["http/1.1"])
            .await
            .unwrap(),
    );
    socket
        .write("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let mut tunnel = accept(&listener).await;
    tunnel.read_head().await;
    tunnel
        .write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    socket.read_head().await;

    fs::remove_file(site.environment.paths().routes_dir().join("a.test.toml")).unwrap();
    proxy.reload();
    assert_eq!(proxy.status().loaded.routes, 0);

    socket.write("ping").await;
    tunnel.read_until("ping").await;
    tunnel.write("pong").await;
    socket.read_until("pong").await;
    upload.write("rest").await;
    assert_eq!(body::read(response.into_body()).await.0, "rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_to_new_connections() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let renewed = site.authority.issue(&["a.test"]);
    site.environment.store("a.test", &renewed);
    assert_ne!(shown_leaf(&site, &proxy, "a.test").await, renewed.leaf());
    proxy.reload();
    assert_eq!(shown_leaf(&site, &proxy, "a.test").await, renewed.leaf());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_pair_keeps_the_pair_before_and_harms_no_other_site() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    let before = shown_leaf(&site, &proxy, "a.test").await;
    let (one, other) = (
        site.authority.issue(&["a.test"]),
        site.authority.issue(&["a.test"]),
    );
    let mismatched = Pair {
        chain: one.chain.clone(),
        key: other.key,
    };
    let half = Pair {
        chain: one.chain[..one.chain.len() / 2].to_owned(),
        key: one.key.clone(),
    };
    let empty = Pair {
        chain: String::new(),
        key: String::new(),
    };
    let swapped = Pair {
        chain: one.key.clone(),
        key: one.chain,
    };
    let mut hosts = ["b.test", "c.test", "d.test", "e.test"].into_iter();
    for bad in [mismatched, half, empty, swapped] {
        site.environment.store("a.test", &bad);
        let host = hosts.next().unwrap();
        site.serve(&[host], &[Upstream::saying("other").await.address()]);
        let said = proxy.reload();
        assert!(!said.contains("refused"), "{said}");
        assert_eq!(shown_leaf(&site, &proxy, "a.test").await, before);
        assert_eq!(
            site.client()
                .get(&proxy, &format!("https://{host}/"))
                .await
                .body(),
            "other"
        );
        let notes = proxy.status().loaded.notes;
        let store = site.environment.paths().certificates_dir().join("a.test");
        assert!(
            notes.iter().any(|note| note.file.starts_with(&store)),
            "{notes:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_pair_at_the_start_takes_down_its_own_site_alone() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    site.serve(&["b.test"], &[upstream.address()]);
    let other = site.authority.issue(&["b.test"]);
    let pair = Pair {
        key: other.key,
        ..site.authority.issue(&["b.test"])
    };
    site.environment.store("b.test", &pair);
    let proxy = site.start();
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
    assert!(site.client().connect(proxy.https(), "b.test", &[]).await.is_err());
    let loaded = proxy.status().loaded;
    assert_eq!(loaded.names_without_certificate, ["b.test"]);
    assert!(
        loaded
            .notes
            .iter()
            .any(|note| note.file.to_string_lossy().contains("b.test")),
        "{loaded:?}"
    );
}

/// There is no better snapshot to keep: the rest is served, and the fault is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_bad_file_serves_the_rest() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    site.environment
        .write_routes("bad.toml", "[[route]]\nhosts = [\n");
    let proxy = site.start();
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
    let status = proxy.status();
    let problems = &status.refusal.expect("the fault is told").problems;
    assert!(problems[0].to_string().contains("bad.toml:"), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_there_is_a_proxy_that_serves_nothing() {
    let site = Site::new();
    let proxy = site.start();
    assert!(site.client().connect(proxy.https(), "a.test", &[]).await.is_err());
    let status = proxy.status();
    assert_eq!((status.loaded.routes, status.refusal), (0, None));
}

/// systemd waits for READY after each RELOADING; one too few and the unit hangs in its reload.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_reloads_ends_with_the_newest_files_and_paired_notifications() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    for _ in 0..50 {
        proxy.running().signal(Signal::HUP);
    }
    site.environment
        .write_discovery(&route(&["b.test"], &[Upstream::saying("b").await.address()]));
    proxy.running().signal(Signal::HUP);
    let mut reloading = false;
    loop {
        let said = proxy.running().next_notification();
        if said.starts_with("RELOADING=1") {
            assert!(!reloading, "two RELOADING=1 without READY=1");
            assert!(said.contains("\nMONOTONIC_USEC="), "{said}");
            reloading = true;
        } else if said.contains("READY=1") {
            assert!(reloading, "READY=1 without RELOADING=1: {said}");
            reloading = false;
            if said.contains("2 routes") {
                break;
            }
        }
    }
    assert_eq!(proxy.status().loaded.routes, 2);
}

/// Requests that run while snapshots are swapped never meet a gap.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_reloads_go_on() {
    let upstream = Upstream::saying("a").await;
    let site = Site::of("a.test", upstream.address());
    let proxy = site.start();
    let proxy = Arc::new(proxy);
    let requests = tokio::spawn({
        let (proxy, client) = (proxy.clone(), site.client());
        async move {
            for _ in 0..40 {
                assert_eq!(client.get(&proxy, "https://a.test/").await.body(), "a");
            }
        }
    });
    for number in 0..10 {
        site.serve(&[&format!("b{number}.test")], &[upstream.address()]);
        assert!(!proxy.reload().contains("refused"));
    }
    within(requests).await.unwrap();
    assert_eq!(proxy.status().loaded.routes, 11);
}

async fn shown_leaf(site: &Site, proxy: &Proxy, sni: &str) -> CertificateDer<'static> {
    // A new client each time: a resumed session shows no certificate.
    let stream = site.client().connect(proxy.https(), sni, &[]).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}
