//! What the proxy may read, where the kernel has Landlock.

use std::os::unix::fs::symlink;

use fairlead_contract::write_atomically;
use fairlead_tests::{Program, Proxy, Site, Upstream};

fn is_confined(proxy: &Proxy) -> bool {
    let is_confined = !proxy.running().log().contains("no Landlock");
    if !is_confined {
        eprintln!("nothing was tested: this kernel has no Landlock");
    }
    is_confined
}

/// A site whose pair lies elsewhere, as another program keeps it, with a link in the store.
async fn linked() -> Site {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let stored = site.environment.paths().certificates_dir().join("a.test");
    let elsewhere = site.environment.root().join("elsewhere");
    std::fs::rename(&stored, &elsewhere).unwrap();
    symlink(elsewhere, stored).unwrap();
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_store_leads_nowhere_unless_the_settings_name_its_place() {
    let site = linked().await;
    let proxy = site.start();
    if !is_confined(&proxy) {
        return;
    }
    let status = proxy.status();
    assert_eq!(status.loaded.certificates, 0);
    let note = status.loaded.notes[0].to_string();
    assert!(note.contains("[proxy] readable"), "{note}");
    proxy.terminate();
    let sockets = proxy.finish().1;
    let elsewhere = site.environment.root().join("elsewhere");
    site.environment
        .write_config(&format!("[proxy]\nreadable = [{elsewhere:?}]\n"));
    let proxy = Proxy::start_on(&site.environment, sockets);
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_authorities_elsewhere_is_refused_with_what_to_do() {
    let site = Site::new();
    let proxy = site.start();
    if !is_confined(&proxy) {
        return;
    }
    let roots = site.environment.root().join("roots.pem");
    write_atomically(&roots, site.authority.root().as_bytes(), 0o644).unwrap();
    let upstream = format!("{{ url = \"https://127.0.0.1:1\", ca-file = {roots:?} }}");
    let route = format!("[[route]]\nhosts = [\"a.test\"]\nupstreams = [{upstream}]\n");
    site.environment.write_routes("a.toml", &route);
    let refused = proxy.reload();
    assert!(
        refused.contains("roots.pem: cannot be read: Permission denied"),
        "{refused}"
    );
    let checked = site.environment.run(Program::Proxy, &["--check"]).stdout;
    assert!(checked.contains("[proxy] readable"), "{checked}");
}
