use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use fairlead_contract::{Configuration, Paths, WriteError, remove_if_present, write_atomically};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(10);

const PAGE: &str = "<!doctype html>
<meta charset=utf-8>
<title>hello from fairlead</title>
<h1>It works</h1>
<p>This page came over HTTPS from a site built into <code>fairlead dev</code>. It goes as soon as there is one of yours:
<pre>docker run -d --label fairlead.hosts=app.localhost IMAGE</pre>
";

/// A site for as long as there is no other.
#[derive(Debug)]
pub(super) struct Hello {
    /// Declares the site.
    pub(super) file: PathBuf,
    address: SocketAddr,
}

impl Hello {
    /// Begins to answer; nobody knows of it yet.
    pub(super) async fn start(paths: &Paths) -> Result<Self> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = bound.context("there is no free port for the built-in site")?;
        let address = listener.local_addr()?;
        tokio::spawn(serve(listener));
        Ok(Self {
            file: paths.routes_dir().join("fairlead-dev-hello.toml"),
            address,
        })
    }

    /// Declares the site if there is no route but its own, and withdraws it otherwise.
    ///
    /// Faulty files change nothing: what they declare is not known.
    pub(super) fn declare(&self, configuration: &Configuration) -> Result<(), WriteError> {
        let routes = &configuration.routes;
        if routes.iter().any(|located| *located.file != *self.file) {
            self.withdraw()
        } else if configuration.problems.is_empty() {
            write_atomically(&self.file, self.route().as_bytes(), 0o644).map(drop)
        } else {
            Ok(())
        }
    }

    pub(super) fn withdraw(&self) -> Result<(), WriteError> {
        remove_if_present(&self.file)
    }

    fn route(&self) -> String {
        format!(
            "# Written by `fairlead dev` while there is no other route.\n\n\
             [[route]]\nhosts = [\"hello.localhost\"]\nupstreams = [\"http://{}\"]\nprovider = \"internal\"\n",
            self.address
        )
    }
}

async fn serve(listener: TcpListener) {
    // An error here is this site's alone, and the proxy answers 502 in its place.
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(timeout(LIMIT, answer(stream)));
    }
}

/// Answers one request with the page, whatever was asked for.
async fn answer(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let has_body = !line.starts_with("HEAD ");
    while line.trim() != "" {
        line.clear();
        stream.read_line(&mut line).await?;
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        PAGE.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if has_body {
        stream.write_all(PAGE.as_bytes()).await?;
    }
    stream.shutdown().await
}
