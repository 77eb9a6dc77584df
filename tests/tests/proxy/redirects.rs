//! Routes that send clients elsewhere, serve plain HTTP too, or answer for hosts nobody declared.

use fairlead_tests::{Proxy, Site, Upstream, Wire, route};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_leads_where_it_says_with_its_status() {
    let site = Site::new();
    site.certify(&["a.test"]);
    let routes = [
        "redirect = \"https://new.test:444\"\n",
        "path = \"/old\"\nstrip-prefix = true\nredirect = { to = \"http://b.test\", status = 301 }\n",
        "path = \"/exact\"\nredirect = { to = \"https://b.test/there\", status = 302 }\n",
        "path = \"/local\"\nredirect = { to = \"/exact\", status = 307 }\nresponse-headers = [{ add = \"X-A\", value = \"1\" }]\n",
    ];
    let routes = routes.map(|keys| format!("[[route]]\nhosts = [\"a.test\"]\n{keys}"));
    site.environment.write_routes("a.toml", &routes.concat());
    let proxy = site.start();
    for (path, status, location) in [
        ("/x%20y?q=%2F", 308, "https://new.test:444/x%20y?q=%2F"),
        ("/old", 301, "http://b.test/"),
        ("/old/x?q", 301, "http://b.test/x?q"),
        ("/exact/x?q", 302, "https://b.test/there"),
        ("/local", 307, "/exact"),
    ] {
        let response = site.client().get(&proxy, &format!("https://a.test{path}")).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["location"], location, "{path}");
        assert_eq!(response.headers().contains_key("x-a"), path == "/local");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_served_where_the_route_says_so_and_without_a_certificate() {
    let upstream = Upstream::echoing().await;
    let site = Site::new();
    let keys = "https-only = false\nredirect-to-primary = true\nprovider = \"off\"\n";
    let plain = route(&["a.test", "b.test"], &[upstream.address()]) + keys;
    let secure = route(&["a.test"], &[upstream.address()]) + "path = \"/secure\"\n";
    site.environment.write_routes("a.toml", &(plain + &secure));
    let proxy = site.start();
    let answer = ask(&proxy, "a.test", "/x?q").await;
    assert!(answer.contains("\r\n\r\nGET /x?q HTTP/1.1\n"), "{answer}");
    assert!(answer.contains("x-forwarded-proto: http\n"), "{answer}");
    let answer = ask(&proxy, "b.test", "/x?q").await;
    let location = format!("location: http://a.test:{}/x?q\r\n", proxy.http().port());
    assert!(answer.contains(&location), "{answer}");
    let answer = ask(&proxy, "a.test", "/secure").await;
    assert!(
        answer.starts_with("HTTP/1.1 308 ") && answer.contains("location: https://a.test:"),
        "{answer}"
    );
    let answer = ask(&proxy, "a.test", "/.well-known/acme-challenge/x").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_answers_for_undeclared_hosts_that_a_certificate_covers() {
    let site = Site::new();
    let fallback =
        route(&["main.test"], &[Upstream::saying("fallback").await.address()]) + "fallback = true\n";
    let declared = route(&["x.w.test"], &[Upstream::saying("declared").await.address()]);
    site.environment.write_routes("a.toml", &(fallback + &declared));
    site.certify(&["main.test"]);
    site.certify(&["*.w.test"]);
    let proxy = site.start();
    for (host, text) in [
        ("main.test", "fallback"),
        ("y.w.test", "fallback"),
        ("x.w.test", "declared"),
    ] {
        let response = site.client().get(&proxy, &format!("https://{host}/")).await;
        assert_eq!(response.body(), text, "{host}");
    }
    let refused = site
        .client()
        .connect(proxy.https(), "other.test", &["http/1.1"])
        .await;
    let alert = refused.expect_err("nothing can be shown for it").to_string();
    assert!(alert.contains("UnrecognisedName"), "{alert}");
    assert!(ask(&proxy, "y.w.test", "/").await.starts_with("HTTP/1.1 308 "));
    assert!(ask(&proxy, "other.test", "/").await.starts_with("HTTP/1.1 404 "));
}

async fn ask(proxy: &Proxy, host: &str, path: &str) -> String {
    let mut wire = Wire::new(TcpStream::connect(proxy.http()).await.unwrap());
    wire.write(format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    ))
    .await;
    wire.read_rest().await
}
