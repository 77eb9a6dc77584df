use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};

use crate::Environment;

/// A daemon that says what a test tells it to, for what a real dockerd cannot be made to do.
pub struct DockerApi {
    socket: PathBuf,
    script: Arc<Mutex<Script>>,
}

/// What is answered, and who is connected.
#[derive(Default)]
struct Script {
    containers: Vec<Value>,
    /// The labels of the images that are there, by id.
    images: BTreeMap<String, Value>,
    /// What each stream of events sends before it is cut off. When all are sent, a stream stays open
    /// and silent.
    streams: VecDeque<String>,
    /// How many requests are still to get no answer.
    unanswered: usize,
    /// Status and body of what the next request is answered with.
    refusal: Option<(&'static str, String)>,
    /// The same for every request whose path holds a text.
    answers: BTreeMap<&'static str, (&'static str, String)>,
    open: Vec<UnixStream>,
}

impl DockerApi {
    /// Listens below the environment's root.
    pub fn new(environment: &Environment) -> Self {
        let api = Self {
            socket: environment.root().join("docker.sock"),
            script: Arc::default(),
        };
        api.listen();
        api
    }

    /// The text of a `fairlead.toml` that names the socket.
    pub fn settings(&self) -> String {
        format!("[docker]\nsocket = {:?}\n", self.socket)
    }

    /// Lists these from now on, each as [`listed`] makes it.
    pub fn set_containers(&self, containers: Vec<Value>) {
        self.script().containers = containers;
    }

    /// Knows this image from now on. Every other one is gone.
    pub fn add_image(&self, id: &str, labels: Value) {
        self.script().images.insert(id.to_owned(), labels);
    }

    /// Cuts the next stream of events off after these bytes.
    pub fn cut_stream_after(&self, bytes: &str) {
        self.script().streams.push_back(bytes.to_owned());
    }

    /// Answers nothing to the next request, and keeps it waiting.
    pub fn hang_once(&self) {
        self.script().unanswered += 1;
    }

    /// Answers the next request with this, whatever it is.
    pub fn refuse_once(&self, status: &'static str, body: &str) {
        self.script().refusal = Some((status, body.to_owned()));
    }

    /// Answers each request whose path holds `part` with this from now on.
    pub fn answer(&self, part: &'static str, status: &'static str, body: &str) {
        self.script().answers.insert(part, (status, body.to_owned()));
    }

    /// Ends as a daemon does that is killed, and comes back with another socket of the same name.
    pub fn replace_socket(&self) {
        fs::remove_file(&self.socket).expect("the socket is there");
        self.listen();
        for stream in self.script().open.drain(..) {
            // Some have been closed by the other side.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn listen(&self) {
        let listener = UnixListener::bind(&self.socket).expect("nothing else has this name");
        let script = self.script.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = script.clone();
                thread::spawn(move || answer(&script, stream));
            }
        });
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.script)
    }
}

/// A container as Docker lists it: it runs, in the network `web`, with port 80 exposed.
pub fn listed(name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    let octet = name.bytes().fold(1_u8, u8::wrapping_add).clamp(1, 254);
    json!({
        "Id": format!("{name:0<64}"), "Names": [format!("/{name}")], "Created": 1, "ImageID": "sha256:00",
        "State": "running", "Status": "Up 2 hours", "Labels": labels,
        "Ports": [{ "PrivatePort": 80, "Type": "tcp" }], "HostConfig": { "NetworkMode": "web" },
        "NetworkSettings": { "Networks": { "web": { "IPAddress": format!("10.0.0.{octet}") } } },
    })
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().expect("no thread of the daemon panics")
}

/// Answers one request, and closes the connection unless it is to stay open.
fn answer(script: &Mutex<Script>, mut stream: UnixStream) {
    let Some(path) = read_path(&stream) else { return };
    let mut script = lock(script);
    let reply = match script.unanswered.checked_sub(1) {
        Some(left) => {
            script.unanswered = left;
            None
        }
        None => Some(script.reply(&path)),
    };
    // Whoever asked may be gone already.
    let _ = stream.write_all(reply.as_deref().unwrap_or_default().as_bytes());
    if reply.is_none() || (path.contains("/events") && script.streams.pop_front().is_none()) {
        script.open.push(stream);
    }
}

fn read_path(stream: &UnixStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next()?;
    lines.find(String::is_empty)?;
    request.split(' ').nth(1).map(str::to_owned)
}

impl Script {
    fn reply(&mut self, path: &str) -> String {
        let refusal = self.refusal.take();
        if refusal.is_none() && path.starts_with("/events") {
            let sent = self.streams.front().map_or("", String::as_str);
            return format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{sent}");
        }
        let (status, body) = refusal.unwrap_or_else(|| self.resource(path));
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    fn resource(&self, path: &str) -> (&'static str, String) {
        // As Docker 29 answers whoever asks in an old version of the API. Which ones are old changes.
        if path.starts_with("/v") {
            let message = "client version is too old. Minimum supported API version is 1.44";
            return ("400 Bad Request", json!({ "message": message }).to_string());
        }
        if let Some((_, answer)) = self.answers.iter().find(|(part, _)| path.contains(**part)) {
            return answer.clone();
        }
        if path.ends_with("/_ping") {
            return ("200 OK", "OK".to_owned());
        }
        if path.ends_with("/networks") {
            return (
                "200 OK",
                json!([{ "Name": "web", "Driver": "bridge" }]).to_string(),
            );
        }
        if path.contains("/containers/json") {
            // None is in the state that the question is about.
            if path.contains("filters=") {
                return ("200 OK", "[]".to_owned());
            }
            return ("200 OK", Value::from(self.containers.clone()).to_string());
        }
        let image = self.images.iter().find(|(id, _)| path.contains(id.as_str()));
        match image {
            Some((id, labels)) => {
                let image = json!({ "Id": id, "Config": { "Labels": labels } });
                ("200 OK", image.to_string())
            }
            None => ("404 Not Found", json!({ "message": "no such image" }).to_string()),
        }
    }
}
