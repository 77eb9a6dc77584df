use clap::Parser;
use fairlead_contract::Paths;

/// Obtains and renews the certificates that routes need, and ends.
///
/// A certificate that could not be obtained does not affect the others. Why it failed and when it is tried
/// again stands in its state.toml, and `fairlead certs` tells it.
#[derive(Debug, Parser)]
#[command(
    name = "fairlead-certs",
    version,
    after_help = "\
Examples:
  systemctl start fairlead-certs.service
  fairlead-certs --state-dir ./state

Exit codes: 0 nothing failed in this pass, 1 a certificate could not be obtained."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) paths: Paths,
}
