use clap::Parser;
use fairlead_contract::Paths;

/// Obtains and renews the certificates that routes need, and ends.
///
/// Ends with 0 if nothing failed in this pass, and with 1 if a certificate could not be obtained;
/// the others are not affected. Why it failed and when it is tried again stands in the certificate's
/// state.toml.
#[derive(Debug, Parser)]
#[command(name = "fairlead-certs", version)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) paths: Paths,
}
