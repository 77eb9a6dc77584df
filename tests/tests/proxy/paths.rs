//! Which of a host's routes answers by path, and what its upstream sees of the path.

use fairlead_tests::{Proxy, Site, Upstream, body, get, route, within};

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_path_that_fits_decides() {
    let site = Site::new();
    site.certify(&["a.test"]);
    let mut routes = String::new();
    for (path, name) in [("/", "root"), ("/api/v1", "v1"), ("/api", "api")] {
        routes += &route(&["a.test"], &[Upstream::saying(name).await.address()]);
        routes += &format!("path = \"{path}\"\n");
    }
    site.environment.write_routes("a.toml", &routes);
    let proxy = site.start();
    for (path, name) in [
        ("/", "root"),
        ("/apis", "root"),
        ("/api?x=/", "api"),
        ("/api/v", "api"),
        ("/api/v1/", "v1"),
    ] {
        let response = site.client().get(&proxy, &format!("https://a.test{path}")).await;
        assert_eq!(response.body(), name, "{path}");
    }
    for path in ["/x/../api", "/%61pi/v1", "//api"] {
        assert_eq!(status(&site, &proxy, path).await, 400, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_outside_of_every_route_are_not_found() {
    let upstream = Upstream::saying("api").await;
    let site = Site::new();
    site.serve_with(&["a.test"], &[upstream.address()], "path = \"/api\"\n");
    let proxy = site.start();
    assert_eq!(status(&site, &proxy, "/api/x").await, 200);
    assert_eq!(status(&site, &proxy, "/").await, 404);
    assert_eq!(status(&site, &proxy, "/api/../secret").await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_stripped_or_replaced_and_the_upstream_told() {
    let upstream = Upstream::echoing().await;
    let site = Site::new();
    site.certify(&["a.test"]);
    let routes = [
        "path = \"/app\"\nstrip-prefix = true\n",
        "path = \"/old\"\nreplace-prefix = \"/new\"\n",
    ]
    .map(|keys| route(&["a.test"], &[upstream.address()]) + keys);
    site.environment.write_routes("a.toml", &routes.concat());
    let proxy = site.start();
    for (path, target, prefix) in [
        ("/app", "/", "/app"),
        ("/app/x%2Fy?q", "/x%2Fy?q", "/app"),
        ("/old/x", "/new/x", "/old"),
    ] {
        let mut h2 = site.client().h2(&proxy, "a.test").await;
        let response = within(h2.send_request(get(&format!("https://a.test{path}"))))
            .await
            .unwrap();
        let echo = body::read(response.into_body()).await.0;
        assert!(
            echo.starts_with(&format!("GET {target} HTTP/1.1\n")),
            "{path}: {echo}"
        );
        assert!(
            echo.contains(&format!("x-forwarded-prefix: {prefix}\n")),
            "{path}: {echo}"
        );
    }
}

async fn status(site: &Site, proxy: &Proxy, path: &str) -> u16 {
    let response = site.client().get(proxy, &format!("https://a.test{path}")).await;
    response.status().as_u16()
}
