use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser};
use fairlead_contract::Paths;

/// Serves the routes of the files over HTTPS.
///
/// The listeners come from systemd, by the names http, https, admin, metrics and reload; without systemd, from
/// --http, --https, --admin and --metrics. SIGHUP reloads the files; SIGTERM ends after the running
/// exchanges, a second one at once.
#[derive(Parser)]
#[command(
    name = "fairlead-proxy",
    version,
    after_help = "\
Examples:
  systemctl start fairlead-http.socket fairlead-https.socket
  fairlead-proxy --http 127.0.0.1:8080 --https 127.0.0.1:8443
  fairlead-proxy --check

Exit codes: 0 it was told to stop, or a reload would be accepted; 1 it could not start, or a reload would
be refused."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) addresses: Addresses,
    /// Print as JSON what a reload would do with the files, and end
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) paths: Paths,
}

/// Where to listen.
#[derive(Args)]
pub(crate) struct Addresses {
    /// Listen here for plain HTTP, when systemd hands over no sockets
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) http: Vec<SocketAddr>,
    /// Listen here for HTTPS, when systemd hands over no sockets
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) https: Vec<SocketAddr>,
    /// Listen here for status and metrics, when systemd hands over no sockets
    #[arg(long, value_name = "PATH")]
    pub(crate) admin: Option<PathBuf>,
    /// Listen here for Prometheus, when systemd hands over no sockets
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Vec<SocketAddr>,
}
