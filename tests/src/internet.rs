use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::{Authority, Environment, Finished, PeerAnswer, PeerRequest, Program, Transport, Upstream, body};

/// Every host that programs of the test ask for over TLS, played by one answering function: their way out is a proxy
/// that leads to no other place. It lives as long as the test's runtime.
pub struct Internet {
    proxy: SocketAddr,
    authority: Arc<Authority>,
}

impl Internet {
    pub async fn start(answer: impl Fn(&PeerRequest) -> PeerAnswer + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback has a free port");
        let proxy = listener.local_addr().expect("a bound socket has an address");
        let authority = Arc::new(Authority::new());
        tokio::spawn({
            let authority = authority.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(tunnel(client, authority.clone(), answer.clone()));
                }
            }
        });
        Self { proxy, authority }
    }

    /// The root that vouches for every host, PEM.
    pub fn root(&self) -> String {
        self.authority.root()
    }

    /// A pass whose way out leads here, and that trusts this root, PEM.
    pub fn pass(&self, environment: &Environment, root: &str) -> Finished {
        let mut command = environment.command(Program::Certs);
        command.env("HTTPS_PROXY", format!("http://{}", self.proxy));
        command.env("SSL_CERT_FILE", environment.secret("trusted", root));
        environment.start(command).finish()
    }
}

/// Answers one CONNECT (RFC 9110 9.3.6) in the name of the host that it wants.
async fn tunnel(
    mut client: TcpStream,
    authority: Arc<Authority>,
    answer: impl Fn(&PeerRequest) -> PeerAnswer + Clone + Send + Sync + 'static,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let host = head.split([' ', ':']).nth(1).unwrap_or_default();
    let server = Upstream::speaking(Transport::Tls(authority.issue(&[host])), move |request| {
        let answer = answer.clone();
        async move {
            let PeerAnswer(status, text) = answer(&read(request).await);
            let response = Response::builder().status(status);
            response.body(body::full(text)).expect("an answer can be made")
        }
    });
    let server = server.await.address();
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
        text: String::from_utf8_lossy(&body).into_owned(),
    }
}
