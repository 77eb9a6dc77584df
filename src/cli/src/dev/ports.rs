use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

const HTTP: u16 = 8080;
const HTTPS: u16 = 8443;

/// How many ports after the usual one are tried.
const TRIES: u16 = 100;

/// The ports of the loopback that the proxy gets.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) https: u16,
    /// What is not as usual.
    pub(super) remarks: Vec<String>,
}

impl Ports {
    /// A port that was asked for is taken or refused; otherwise the usual one or the next free one.
    ///
    /// Free now is not free for ever: the proxy says so if somebody is faster.
    pub(super) fn choose(http: Option<u16>, https: Option<u16>) -> Result<Self> {
        let http = hold(http, HTTP).context("no port for plain HTTP: name one with --http")?;
        let https = hold(https, HTTPS).context("no port for HTTPS: name one with --https")?;
        let remarks = [&http, &https]
            .into_iter()
            .filter_map(|held| held.remark.clone())
            .collect();
        Ok(Self {
            http: http.listener.local_addr()?.port(),
            https: https.listener.local_addr()?.port(),
            remarks,
        })
    }
}

/// A port that nobody else can have while both are chosen.
struct Held {
    listener: TcpListener,
    remark: Option<String>,
}

fn hold(asked: Option<u16>, usual: u16) -> Result<Held> {
    if let Some(port) = asked {
        let listener = bind(port).with_context(|| format!("port {port} cannot be used"))?;
        return Ok(Held {
            listener,
            remark: None,
        });
    }
    let listener = (usual..usual + TRIES)
        .find_map(|port| bind(port).ok())
        .with_context(|| format!("the ports from {usual} to {} are taken", usual + TRIES - 1))?;
    let chosen = listener.local_addr()?.port();
    let remark = (chosen != usual).then(|| format!("port {usual} is taken, so {chosen} is used"));
    Ok(Held { listener, remark })
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_port_that_is_taken_is_followed_by_the_next_one() {
        let taken = bind(0).unwrap();
        let usual = taken.local_addr().unwrap().port();
        if let Ok(held) = hold(None, usual) {
            assert_ne!(held.listener.local_addr().unwrap().port(), usual);
            assert!(
                held.remark
                    .unwrap()
                    .starts_with(&format!("port {usual} is taken"))
            );
        }
        assert!(hold(Some(usual), usual).is_err(), "it was asked for");
    }

    #[test]
    fn both_ports_are_never_the_same() {
        let ports = Ports::choose(Some(0), Some(0)).unwrap();
        assert_ne!(ports.http, ports.https);
    }
}
