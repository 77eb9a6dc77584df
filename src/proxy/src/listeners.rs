use std::env;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fairlead_contract::remove_if_present;
use listenfd::ListenFd;
use socket2::SockRef;
use tracing::warn;

use crate::arguments::Addresses;

/// The sockets the proxy was given, by their role.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) http: Vec<std::net::TcpListener>,
    pub(crate) https: Vec<std::net::TcpListener>,
    pub(crate) admin: Vec<UnixListener>,
    pub(crate) metrics: Vec<std::net::TcpListener>,
    pub(crate) reload: Vec<UnixListener>,
}

/// The ports that URLs must name, because they are not the usual ones.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) http: Option<u16>,
    pub(crate) https: Option<u16>,
}

impl Listeners {
    /// Takes the sockets systemd holds for us, by name: their order means nothing
    /// (sd_listen_fds(3)). `None` if none were handed to this process.
    ///
    /// Runs before any thread exists, because listenfd removes the variables.
    pub(crate) fn take() -> Result<Option<Self>> {
        // Variables meant for another process are none of our business, whatever else they say.
        let is_ours = |pid: String| pid == std::process::id().to_string();
        if !env::var("LISTEN_PID").is_ok_and(is_ours) {
            return Ok(None);
        }
        let names: Vec<String> = sd_notify::listen_fds_with_names()
            .context("systemd handed over sockets that cannot be understood")?
            .map(|(_, name)| name)
            .collect();
        if names.is_empty() {
            return Ok(None);
        }
        let mut handed = ListenFd::from_env();
        let mut this = Self::default();
        for (index, name) in names.iter().enumerate() {
            this.sort_in(&mut handed, index, name)
                .with_context(|| format!("the socket named {name:?} cannot be used"))?;
        }
        for (role, is_missing) in [("http", this.http.is_empty()), ("https", this.https.is_empty())] {
            ensure!(
                !is_missing,
                "systemd handed over no socket named {role:?}: name it in the unit with FileDescriptorName={role}"
            );
        }
        Ok(Some(this))
    }

    pub(crate) fn bind(addresses: &Addresses) -> Result<Self> {
        let bind =
            |address: &SocketAddr| bind_tcp(*address).with_context(|| format!("cannot listen on {address}"));
        let all = |addresses: &[SocketAddr]| addresses.iter().map(bind).collect::<Result<_>>();
        let admin = addresses.admin.iter().map(|path| bind_unix(path));
        Ok(Self {
            http: all(&addresses.http)?,
            https: all(&addresses.https)?,
            admin: admin.collect::<Result<_>>()?,
            metrics: all(&addresses.metrics)?,
            reload: Vec::new(),
        })
    }

    /// The ports clients reach us on, as far as we can know.
    pub(crate) fn ports(&self) -> Ports {
        let port = |listeners: &[std::net::TcpListener]| {
            let address = listeners.first()?.local_addr().ok()?;
            Some(address.port())
        };
        Ports {
            http: port(&self.http).filter(|port| *port != 80),
            https: port(&self.https).filter(|port| *port != 443),
        }
    }

    fn sort_in(&mut self, handed: &mut ListenFd, index: usize, name: &str) -> Result<()> {
        let tcp = |handed: &mut ListenFd| -> Result<_> {
            let listener = handed.take_tcp_listener(index)?.context("it is gone")?;
            ensure_listening(&listener)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let unix = |handed: &mut ListenFd| -> Result<_> {
            let listener = handed.take_unix_listener(index)?.context("it is gone")?;
            ensure_listening(&listener)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        match name {
            "http" => self.http.push(tcp(handed)?),
            "https" => self.https.push(tcp(handed)?),
            "admin" => self.admin.push(unix(handed)?),
            "metrics" => self.metrics.push(tcp(handed)?),
            "reload" => self.reload.push(unix(handed)?),
            _ => {
                warn!(
                    "the socket named {name:?} is not used: the names are http, https, admin, metrics and reload"
                );
            }
        }
        Ok(())
    }
}

/// A connection that was accepted elsewhere has the same type as a listener.
fn ensure_listening<'a>(socket: impl Into<SockRef<'a>>) -> Result<()> {
    let is_listening = socket.into().is_listener()?;
    ensure!(is_listening, "it does not listen: its unit must have Accept=no");
    Ok(())
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn bind_unix(path: &Path) -> Result<UnixListener> {
    let bind = || -> Result<_> {
        remove_if_present(path)?;
        let listener = UnixListener::bind(path)?;
        // As the unit of the socket has it: the group may ask.
        fs::set_permissions(path, Permissions::from_mode(0o660))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().with_context(|| format!("cannot listen on {}", path.display()))
}
