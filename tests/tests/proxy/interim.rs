use fairlead_tests::{Proxy, Site, Wire, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_reach_the_client_while_it_waits() {
    let (listener, site, proxy) = site().await;
    let mut client = connect(&site, &proxy).await;
    client.write("GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    for exchange in 1..=2 {
        let mut upstream = accept(&listener).await;
        upstream.read_head().await;
        upstream
            .write("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nX-Own: a\r\nContent-Length: 5\r\nConnection: x-own\r\n\r\n")
            .await;
        let head = client.read_head().await;
        assert_eq!(head, "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n");
        upstream
            .write("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n")
            .await;
        upstream
            .write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            .await;
        assert_eq!(client.read_head().await, "HTTP/1.1 102 Processing\r\n\r\n");
        assert_eq!(client.read_head().await, "HTTP/1.1 199 \r\n\r\n");
        assert!(client.read_head().await.starts_with("HTTP/1.1 200 OK\r\n"));
        client.read_until("ok").await;
        if exchange == 1 {
            client.write("GET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interim_response_goes_out_behind_the_answer_before_it() {
    let (listener, site, proxy) = site().await;
    let mut client = connect(&site, &proxy).await;
    client
        .write("GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await;
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    let body = "x".repeat(200_000);
    let length = body.len();
    upstream
        .write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
        .await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    let second = client.read_head().await;
    assert_eq!(second, format!("{body}HTTP/1.1 103 Early Hints\r\n\r\n"));
    assert!(client.read_head().await.starts_with("HTTP/1.1 204 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_gets_no_interim_response() {
    let (listener, site, proxy) = site().await;
    let mut client = connect(&site, &proxy).await;
    client.write("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    let mut upstream = accept(&listener).await;
    upstream.read_head().await;
    upstream
        .write("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
        .await;
    assert!(client.read_head().await.starts_with("HTTP/1.0 204 "));
}

async fn site() -> (TcpListener, Site, Proxy) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::of("a.test", listener.local_addr().unwrap());
    let proxy = site.start();
    (listener, site, proxy)
}

async fn connect(site: &Site, proxy: &Proxy) -> Wire<TlsStream<TcpStream>> {
    let client = site.client();
    Wire::new(
        client
            .connect(proxy.https(), "a.test", &["http/1.1"])
            .await
            .unwrap(),
    )
}
