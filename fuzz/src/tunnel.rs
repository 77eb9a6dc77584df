//! A connection that leaves HTTP: what either side says before and behind the switch.
//!
//! The bytes are a script of what both do, a line each: `:X: y` is a field of the request; `>` before a text has the
//! client say it, `<` the upstream; `+` has the upstream switch and say the text with it, `-` refuse; `|>` and `|<` end
//! a side, `!>` and `!<` break it. Any other line waits until all has arrived. `%0A` and the like stand for a byte.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::exchange::{self, Received, Shared, connect, hang_up_at_once, listen, lock, sockets, until_quiet};
use crate::http2::decoded;
use crate::judge::judge;
use crate::message::{Next, read, values};

/// More makes no other kind of input.
const MAX: usize = 4 * 1024;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const REFUSAL: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";

/// What one side says arrives at the other one once, in order and apart from HTTP, and nothing of it before the
/// upstream has switched. Where it does not switch, what the client said ahead is read as any request.
pub fn tunnel(bytes: &[u8]) {
    let script = read_script(&bytes[..bytes.len().min(MAX)]);
    let mut play = Play::default();
    let upstream = Shared::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(play.run(&script, &upstream));
    drop(runtime);
    let received = std::mem::take(&mut lock(&upstream).connections);
    play.judge(received, bytes);
}

enum Step {
    Field(Vec<u8>),
    Say(Side, Vec<u8>),
    Switch(Vec<u8>),
    Refuse,
    End(Side),
    Break(Side),
    Wait,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

fn read_script(script: &[u8]) -> Vec<Step> {
    let lines = script.split(|byte| *byte == b'\n');
    lines.map(read_step).collect()
}

fn read_step(line: &[u8]) -> Step {
    match line {
        [b':', field @ ..] => Step::Field(decoded(field)),
        [b'>', text @ ..] => Step::Say(Side::Client, decoded(text)),
        [b'<', text @ ..] => Step::Say(Side::Upstream, decoded(text)),
        [b'+', text @ ..] => Step::Switch(decoded(text)),
        b"-" => Step::Refuse,
        b"|>" => Step::End(Side::Client),
        b"|<" => Step::End(Side::Upstream),
        b"!>" => Step::Break(Side::Client),
        b"!<" => Step::Break(Side::Upstream),
        _ => Step::Wait,
    }
}

fn request(script: &[Step]) -> Vec<u8> {
    let fields = script.iter().filter_map(|step| match step {
        Step::Field(field) => Some([&field[..], b"\r\n"].concat()),
        _ => None,
    });
    let fields = fields.collect::<Vec<_>>().concat();
    [REQUEST, &fields, b"\r\n"].concat()
}

/// What was said and done, and what of it was heard.
#[derive(Default)]
struct Play {
    client: Party,
    upstream: Party,
    /// The upstream was asked to switch, and has.
    is_open: bool,
    is_answered: bool,
}

/// One of the two, with its connection.
#[derive(Default)]
struct Party {
    orders: Option<UnboundedSender<Order>>,
    ear: Ear,
    /// The client's begins with its request, the upstream's behind its answer.
    said: Vec<u8>,
    has_ended: bool,
    is_broken: bool,
}

type Ear = Arc<Mutex<Heard>>;

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    is_over: bool,
}

enum Order {
    Say(Vec<u8>),
    End,
    Break,
    /// Answer what else is asked, in HTTP.
    Serve,
}

impl Play {
    async fn run(&mut self, script: &[Step], upstream: &Shared) {
        tokio::spawn(exchange::proxy(listen(&sockets().proxy)));
        let orders = self.upstream.take_orders();
        let accepting = accept(
            listen(&sockets().upstream),
            orders,
            self.upstream.ear.clone(),
            upstream.clone(),
        );
        tokio::spawn(accepting);
        let stream = connect(sockets().proxy.local_addr().expect("its address")).await;
        let orders = self.client.take_orders();
        let client = converse(
            stream,
            orders,
            self.client.ear.clone(),
            Role::Client,
            upstream.clone(),
        );
        tokio::spawn(client);
        self.client.say(&request(script));
        for step in script {
            self.take(step, upstream).await;
        }
        until_quiet(upstream).await;
        for party in [&self.client, &self.upstream] {
            party.order(Order::End);
        }
        until_quiet(upstream).await;
    }

    async fn take(&mut self, step: &Step, upstream: &Shared) {
        match step {
            Step::Field(_) => {}
            Step::Say(Side::Client, text) => self.client.say(text),
            Step::Say(Side::Upstream, text) if self.is_open => self.upstream.say(text),
            Step::Say(Side::Upstream, _) => {}
            Step::Switch(text) => self.switch(text, upstream).await,
            Step::Refuse => self.refuse(upstream).await,
            Step::End(side) => self.of(*side).end(),
            Step::Break(side) => self.of(*side).break_off(),
            Step::Wait => until_quiet(upstream).await,
        }
    }

    fn of(&mut self, side: Side) -> &mut Party {
        match side {
            Side::Client => &mut self.client,
            Side::Upstream => &mut self.upstream,
        }
    }

    async fn switch(&mut self, text: &[u8], upstream: &Shared) {
        let Some(is_asked) = self.asked(upstream).await else {
            return;
        };
        self.is_answered = true;
        self.is_open = is_asked;
        self.upstream.order(Order::Say([SWITCH, text].concat()));
        self.upstream.said.extend(text);
    }

    async fn refuse(&mut self, upstream: &Shared) {
        if self.asked(upstream).await.is_some() {
            self.is_answered = true;
            self.upstream.order(Order::Say(REFUSAL.to_vec()));
            self.upstream.order(Order::Serve);
        }
    }

    /// Whether the upstream is asked to switch; `None` if it is asked nothing, or can say nothing.
    async fn asked(&self, upstream: &Shared) -> Option<bool> {
        until_quiet(upstream).await;
        if self.is_answered || self.upstream.has_ended || self.upstream.is_broken {
            return None;
        }
        let heard = hear(&self.upstream.ear);
        let Next::Request(request, ahead) = read(&heard.bytes) else {
            return None;
        };
        let is_asked = values(&request.fields, "upgrade").next().is_some();
        assert!(
            !is_asked || ahead.is_empty(),
            "ahead of the answer came {}",
            ahead.escape_ascii()
        );
        Some(is_asked)
    }

    fn judge(&self, mut received: Vec<Received>, script: &[u8]) {
        if !self.is_open {
            judge(&self.client.said, &received);
            let heard = hear(&self.client.ear);
            assert!(!heard.bytes.starts_with(b"HTTP/1.1 101 "), "switched for nothing");
            return;
        }
        assert_eq!(received.len(), 1, "one connection is the tunnel's");
        let head = head_length(&received[0].bytes);
        let to_upstream = received[0].bytes.split_off(head);
        let (request, by_client) = self.client.said.split_at(head_length(&self.client.said));
        assert_eq!(judge(request, &received), 1);
        let to_client = hear(&self.client.ear).bytes.clone();
        let to_client = &to_client[heads_length(&to_client)..];
        let is_whole = !self.client.is_broken && !self.upstream.is_broken;
        for (heard, said, listener) in [
            (&to_upstream[..], by_client, &self.upstream),
            (to_client, &self.upstream.said, &self.client),
        ] {
            let is_right = if is_whole {
                heard == said
            } else {
                said.starts_with(heard)
            };
            assert!(
                is_right,
                "of {} came {}\n{}",
                said.escape_ascii(),
                heard.escape_ascii(),
                script.escape_ascii()
            );
            assert!(
                !is_whole || hear(&listener.ear).is_over,
                "an end did not arrive\n{}",
                script.escape_ascii()
            );
        }
    }
}

/// To the first empty line, and with it.
fn head_length(bytes: &[u8]) -> usize {
    let end = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    end.map_or(bytes.len(), |end| end + 4)
}

/// Interim answers may come before the switch; nothing else is HTTP.
fn heads_length(bytes: &[u8]) -> usize {
    let first = head_length(bytes);
    if bytes.starts_with(b"HTTP/1.1 100 ") {
        return first + heads_length(&bytes[first..]);
    }
    assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 101 "));
    first
}

impl Party {
    fn take_orders(&mut self) -> UnboundedReceiver<Order> {
        let (orders, taken) = unbounded_channel();
        self.orders = Some(orders);
        taken
    }

    /// Who has left does nothing any more.
    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }

    fn say(&mut self, text: &[u8]) {
        if !self.has_ended && !self.is_broken {
            self.said.extend(text);
            self.order(Order::Say(text.to_vec()));
        }
    }

    fn end(&mut self) {
        self.has_ended = true;
        self.order(Order::End);
    }

    fn break_off(&mut self) {
        self.is_broken = true;
        self.order(Order::Break);
    }
}

fn hear(ear: &Ear) -> MutexGuard<'_, Heard> {
    ear.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first connection is the play's; what else comes is asked in HTTP.
async fn accept(listener: TcpListener, orders: UnboundedReceiver<Order>, ear: Ear, upstream: Shared) {
    let mut play = Some((orders, ear));
    while let Ok((stream, _)) = listener.accept().await {
        hang_up_at_once(&stream);
        let connection = lock(&upstream).open();
        match play.take() {
            Some((orders, ear)) => tokio::spawn(converse(
                stream,
                orders,
                ear,
                Role::Upstream(connection),
                upstream.clone(),
            )),
            None => tokio::spawn(exchange::answer(
                stream,
                exchange::nothing,
                connection,
                upstream.clone(),
            )),
        };
    }
}

enum Role {
    Client,
    /// Over the how manyth connection.
    Upstream(usize),
}

/// Hears what comes, and does what it is told.
async fn converse(
    mut stream: TcpStream,
    mut orders: UnboundedReceiver<Order>,
    ear: Ear,
    role: Role,
    upstream: Shared,
) {
    let mut buffer = [0; 4096];
    loop {
        let is_over = hear(&ear).is_over;
        tokio::select! {
            read = stream.read(&mut buffer), if !is_over => {
                let bytes = &buffer[..read.unwrap_or_default()];
                let mut heard = hear(&ear);
                heard.bytes.extend(bytes);
                heard.is_over = bytes.is_empty();
                if let (Role::Upstream(connection), false) = (&role, bytes.is_empty()) {
                    lock(&upstream).receive(*connection, bytes);
                }
            }
            order = orders.recv() => {
                // The proxy may have hung up.
                let _ = match order {
                    Some(Order::Say(text)) => stream.write_all(&text).await,
                    Some(Order::End) => stream.shutdown().await,
                    Some(Order::Serve) if let Role::Upstream(connection) = role => {
                        return exchange::answer(stream, exchange::nothing, connection, upstream).await;
                    }
                    Some(Order::Break | Order::Serve) | None => break,
                };
            }
        }
        lock(&upstream).moves += 1;
    }
    drop(stream);
    lock(&upstream).moves += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the upstream and the client heard.
    fn heard(script: &str) -> (String, String) {
        let mut play = Play::default();
        let upstream = Shared::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(play.run(&read_script(script.as_bytes()), &upstream));
        let text = |ear| String::from_utf8(hear(ear).bytes.clone()).unwrap();
        (text(&play.upstream.ear), text(&play.client.ear))
    }

    #[test]
    fn a_tunnel_is_opened_and_spoken_through() {
        let (upstream, client) = heard(">early\n\n+first\n\n<second\n>late\n");
        assert!(upstream.ends_with("\r\n\r\nearlylate"), "{upstream}");
        assert!(client.starts_with("HTTP/1.1 101 "), "{client}");
        assert!(client.ends_with("\r\n\r\nfirstsecond"), "{client}");
    }

    #[test]
    fn a_refused_one_is_a_request_as_any() {
        let (upstream, client) = heard(">GET /2 HTTP/1.1%0D%0AHost: a.test%0D%0A%0D%0A\n\n-\n<no\n");
        assert!(!upstream.contains("/2"), "{upstream}");
        assert!(client.starts_with("HTTP/1.1 403 "), "{client}");
        assert!(client.contains("\r\n\r\nHTTP/1.1 200 "), "{client}");
    }
}
