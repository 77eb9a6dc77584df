use std::io;
use std::path::PathBuf;

use fairlead_contract::{FileError, HostPattern, Paths, WriteError, read_file, write_atomically};

/// Who starts the programs of an installation: what to do next is said in its words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    Systemd,
    /// `fairlead dev`, whose listener for HTTPS has this port.
    Dev {
        https: u16,
        log: PathBuf,
    },
}

/// Tells the other commands that `fairlead dev` is the keeper here.
pub(crate) fn announce_dev(paths: &Paths, https: u16) -> Result<(), WriteError> {
    write_atomically(&port_file(paths), format!("{https}\n").as_bytes(), 0o644).map(drop)
}

/// Where the log of `fairlead dev` is.
pub(crate) fn dev_log(paths: &Paths) -> PathBuf {
    paths.runtime.with_file_name("log")
}

fn port_file(paths: &Paths) -> PathBuf {
    paths.runtime.join("https-port")
}

impl Keeper {
    pub(crate) fn of(paths: &Paths) -> Result<Self, FileError> {
        let file = port_file(paths);
        let text = match read_file(&file) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.is_not_found() => return Ok(Self::Systemd),
            Err(error) => return Err(error),
        };
        let https = text.trim().parse().map_err(|_| FileError {
            path: file,
            source: io::Error::new(io::ErrorKind::InvalidData, "it holds no port"),
        })?;
        let log = dev_log(paths);
        Ok(Self::Dev { https, log })
    }

    /// The root of a site.
    pub(crate) fn url(&self, host: &HostPattern) -> String {
        let host = match host {
            HostPattern::Exact(host) => host.to_string(),
            HostPattern::Wildcard(parent) => format!("NAME.{parent}"),
        };
        match self {
            Self::Systemd => format!("https://{host}/"),
            Self::Dev { https, .. } => format!("https://{host}:{https}/"),
        }
    }

    pub(crate) fn start_proxy(&self) -> &'static str {
        match self {
            Self::Systemd => {
                "systemctl start fairlead-proxy (or the first connection to its sockets starts it)"
            }
            Self::Dev { .. } => "start fairlead dev",
        }
    }

    /// Where the proxy tells of a route.
    pub(crate) fn proxy_log(&self, route: &HostPattern) -> String {
        match self {
            Self::Systemd => format!("journalctl -u fairlead-proxy FAIRLEAD_ROUTE={route}"),
            Self::Dev { log, .. } => log.display().to_string(),
        }
    }

    pub(crate) fn watcher_log(&self) -> String {
        match self {
            Self::Systemd => "systemctl status fairlead-watcher".to_owned(),
            Self::Dev { log, .. } => log.display().to_string(),
        }
    }

    /// How the certs program is started at once.
    pub(crate) fn start_certs(&self) -> &'static str {
        match self {
            Self::Systemd => "systemctl start fairlead-certs",
            Self::Dev { .. } => "start fairlead dev anew",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairlead_dev_is_the_keeper_where_it_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths {
            config: directory.path().join("etc"),
            state: directory.path().join("var"),
            runtime: directory.path().join("run"),
        };
        assert_eq!(Keeper::of(&paths).unwrap(), Keeper::Systemd);
        std::fs::create_dir(&paths.runtime).unwrap();
        announce_dev(&paths, 8443).unwrap();
        let keeper = Keeper::of(&paths).unwrap();
        let host = |text| HostPattern::parse(text).unwrap();
        assert_eq!(keeper.url(&host("a.localhost")), "https://a.localhost:8443/");
        assert_eq!(
            keeper.url(&host("*.a.localhost")),
            "https://NAME.a.localhost:8443/"
        );
        assert!(keeper.proxy_log(&host("a.localhost")).ends_with("/log"));
    }
}
