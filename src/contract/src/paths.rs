use std::path::{Path, PathBuf};

use clap::Args;

use crate::{Host, HostPattern, TemplateName, file_name};

/// The three directories all programs share, and every place below them.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Paths {
    /// The operator's files: fairlead.toml and routes.d/*.toml
    #[arg(
        long = "config-dir",
        value_name = "DIR",
        env = "FAIRLEAD_CONFIG_DIR",
        default_value = "/etc/fairlead",
        global = true
    )]
    pub config: PathBuf,
    /// What must survive a reboot: discovered routes, certificates, accounts
    #[arg(
        long = "state-dir",
        value_name = "DIR",
        env = "FAIRLEAD_STATE_DIR",
        default_value = "/var/lib/fairlead",
        global = true
    )]
    pub state: PathBuf,
    /// What need not survive one: challenges, the admin socket, marks for the units
    #[arg(
        long = "runtime-dir",
        value_name = "DIR",
        env = "FAIRLEAD_RUNTIME_DIR",
        default_value = "/run/fairlead",
        global = true
    )]
    pub runtime: PathBuf,
}

impl Paths {
    /// The operator's settings, and routes if they like.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("fairlead.toml")
    }

    /// The operator's routes: every `*.toml` in it.
    pub fn routes_dir(&self) -> PathBuf {
        self.config.join("routes.d")
    }

    /// The routes of the containers. Writer: the watcher.
    pub fn discovery_file(&self) -> PathBuf {
        self.state.join("routes/docker.toml")
    }

    /// What a template made. Writer: the watcher.
    pub fn rendered_file(&self, template: &TemplateName) -> PathBuf {
        self.state.join("templates").join(template.to_string())
    }

    /// Exists when a template made something new that is not delivered yet.
    pub fn rendered_mark(&self) -> PathBuf {
        self.runtime.join("watcher/rendered")
    }

    /// One directory per certificate. Writer: the certs program.
    pub fn certificates_dir(&self) -> PathBuf {
        self.state.join("certificates")
    }

    pub fn certificate(&self, name: &HostPattern) -> CertificateDir {
        CertificateDir(self.certificates_dir().join(name.to_string()))
    }

    /// The certificates that no route needs any more, one directory each. A name that no certificate has,
    /// and in the same directory because nothing can be renamed from one place of a sandbox to another.
    pub fn archive_dir(&self) -> PathBuf {
        self.certificates_dir().join(".archive")
    }

    /// The [`Orders`](crate::Orders). Writer: the certs program.
    pub fn orders_file(&self) -> PathBuf {
        self.certificates_dir().join(".orders.toml")
    }

    /// Exists when a pass stored a certificate and has not ended. Writer: the certs program.
    pub fn renewing_mark(&self) -> PathBuf {
        self.certificates_dir().join(".renewing")
    }

    /// Exists when a certificate was stored that other programs were not told of yet. It outlives a
    /// restart of the machine, as copies of certificates do.
    pub fn renewed_mark(&self) -> PathBuf {
        self.certificates_dir().join(".renewed")
    }

    /// The root that signs `internal` certificates, for clients to trust. Writer: the certs program.
    pub fn internal_ca_file(&self) -> PathBuf {
        self.certificates_dir().join("internal-ca.pem")
    }

    /// Account keys and the internal authority's key; mode 0700. Reader and writer: the certs program.
    pub fn account_dir(&self) -> PathBuf {
        self.state.join("account")
    }

    /// Orders that are under way, with the keys of their certificates. Reader and writer: the certs program.
    pub fn pending_orders_dir(&self) -> PathBuf {
        self.account_dir().join("pending")
    }

    /// Records that may be in the DNS, one file for each. Reader and writer: the certs program.
    pub fn records_dir(&self) -> PathBuf {
        self.account_dir().join("records")
    }

    /// What signs `internal` certificates. Reader and writer: the certs program.
    pub fn internal_authority_dir(&self) -> PathBuf {
        self.account_dir().join("internal")
    }

    /// HTTP-01 answers, one file per token, and those of TLS-ALPN-01. Writer: the certs program.
    pub fn challenges_dir(&self) -> PathBuf {
        self.runtime.join("challenges")
    }

    /// The certificate and key that answer TLS-ALPN-01 for a host (RFC 8737 3), PEM, while its
    /// challenge is open. No token has a dot, so none has this name.
    pub fn alpn_challenge_file(&self, host: &Host) -> PathBuf {
        self.challenges_dir().join(file_name(host.as_str()) + ".pem")
    }

    /// Exists when containers changed and no pass of the watcher has read them yet.
    pub fn watcher_dirty_file(&self) -> PathBuf {
        self.runtime.join("watcher/dirty")
    }

    /// Exists when a pass wrote routes of which it is not known yet that the proxy loaded them. Writer: the watcher.
    pub fn unloaded_mark(&self) -> PathBuf {
        self.runtime.join("watcher/unloaded")
    }

    /// Exists when something new was loaded, or changed at the end of a pass, and no pass of the certs program has looked
    /// at it yet.
    pub fn certs_dirty_file(&self) -> PathBuf {
        self.runtime.join("certs/dirty")
    }

    /// Status and metrics of the proxy, by HTTP.
    pub fn admin_socket(&self) -> PathBuf {
        self.runtime.join("admin.sock")
    }

    /// Where the proxy reloads for each connection and answers with a [`ReloadAnswer`](crate::ReloadAnswer).
    pub fn reload_socket(&self) -> PathBuf {
        self.runtime.join("reload.sock")
    }
}

/// The directory of one certificate in the store, named after its first name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateDir(PathBuf);

impl CertificateDir {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The leaf first, then its issuers, PEM.
    pub fn chain_file(&self) -> PathBuf {
        self.0.join("fullchain.pem")
    }

    /// The leaf's private key, PEM; readable by group fairlead.
    pub fn key_file(&self) -> PathBuf {
        self.0.join("key.pem")
    }

    /// The [`Ledger`](crate::Ledger).
    pub fn ledger_file(&self) -> PathBuf {
        self.0.join("state.toml")
    }
}
