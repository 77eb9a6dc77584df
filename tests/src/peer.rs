use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A small HTTP server that a test answers for.
pub struct Peer {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

/// What a client sent.
#[derive(Clone, Debug)]
pub struct PeerRequest {
    pub method: String,
    pub path: String,
    /// `name: value`, with names in lower case.
    pub headers: Vec<String>,
    /// Null if it is not JSON.
    pub body: serde_json::Value,
    /// The body as it came.
    pub text: String,
}

/// A status and a body.
pub struct PeerAnswer(pub u16, pub String);

impl From<u16> for PeerAnswer {
    fn from(status: u16) -> Self {
        Self(status, String::new())
    }
}

impl Peer {
    /// Answers each request with what `answer` returns for it.
    pub fn start<A: Into<PeerAnswer>>(answer: impl Fn(&PeerRequest) -> A + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let ended = Arc::new(AtomicBool::new(false));
        let acceptor = thread::spawn({
            let ended = ended.clone();
            move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    // Who goes away in the middle gets no answer.
                    let _ = stream.and_then(|stream| serve(&stream, &answer));
                }
            }
        });
        Self {
            address,
            ended,
            acceptor: Some(acceptor),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the acceptor; if that fails it has ended already.
        let _ = TcpStream::connect(self.address);
        self.acceptor.take().map(JoinHandle::join);
    }
}

fn serve<A: Into<PeerAnswer>>(
    mut stream: &TcpStream,
    answer: impl Fn(&PeerRequest) -> A,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim().split_once(": ") {
            Some((name, value)) => headers.push(format!("{}: {value}", name.to_lowercase())),
            None => break,
        }
    }
    let length = headers
        .iter()
        .find_map(|header| header.strip_prefix("content-length: "));
    let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let text = String::from_utf8_lossy(&body).into_owned();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let PeerAnswer(status, body) = answer(&PeerRequest {
        method,
        path,
        headers,
        body,
        text,
    })
    .into();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
